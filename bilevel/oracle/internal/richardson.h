#ifndef BILEVEL_ORACLE_INTERNAL_RICHARDSON_H_
#define BILEVEL_ORACLE_INTERNAL_RICHARDSON_H_

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "bilevel/program/space.h"

namespace bilevel {

/// The limit of difference quotients d(h), d(h/2), d(h/4), ... by Richardson's extrapolation, and
/// how far it may be off (Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Adv. Eng.
/// Softw. 4, 1982).
class Richardson {
 public:
  /// central: d(h) is off by c_1 h^2 + c_2 h^4 + ...; else by c_1 h + c_2 h^2 + ...
  /// weights: of the entries, where they are compared.
  void Begin(bool central, const Vector& weights) {
    ratio_ = central ? 4.0 : 2.0;
    weights_ = weights;
    row_.clear();
    error_ = std::numeric_limits<double>::infinity();
    num_rows_ = best_row_ = 0;
  }

  /// The quotient at half the step of the one before.
  void Add(const Vector& quotient) {
    next_.assign(1, quotient);
    if (num_rows_ == 0) limit_ = quotient;
    double factor = ratio_;
    for (size_t j = 0; j < row_.size(); ++j, factor *= ratio_) {
      next_.push_back(next_[j] + (next_[j] - row_[j]) / (factor - 1.0));
      const double error = std::max(Size(next_[j + 1] - next_[j]), Size(next_[j + 1] - row_[j]));
      if (!(error < error_)) continue;
      error_ = error;
      limit_ = next_[j + 1];
      best_row_ = num_rows_;
    }
    std::swap(row_, next_);
    ++num_rows_;
  }

  const Vector& limit() const { return limit_; }
  /// An estimate of the largest error of an entry, weighted. Infinite until there are two
  /// quotients.
  double error() const { return error_; }
  double size() const { return Size(limit_); }
  /// Quotients since the last one that made the limit better.
  int num_in_vain() const { return num_rows_ - 1 - best_row_; }

  /// The largest entry, weighted.
  double Size(const Vector& v) const { return v.cwiseProduct(weights_).lpNorm<Eigen::Infinity>(); }

 private:
  double ratio_ = 4.0, error_ = 0.0;
  int num_rows_ = 0, best_row_ = 0;
  Vector weights_, limit_;
  std::vector<Vector> row_, next_;  // Of the tableau.
};

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_INTERNAL_RICHARDSON_H_
