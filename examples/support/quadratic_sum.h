#ifndef BILEVEL_EXAMPLES_SUPPORT_QUADRATIC_SUM_H_
#define BILEVEL_EXAMPLES_SUPPORT_QUADRATIC_SUM_H_

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "Eigen/Cholesky"
#include "bilevel/bilevel.h"

namespace bilevel {

/// A bilevel problem of two finite sums with everything in closed form:
///
///   f = 1/N sum_j |y - b_j|^2 / 2 + rho |x|^2 / 2,    g = 1/N sum_i y'H_i y / 2 - y'(C_i x + d_i)
///
/// so that y*(x) = H^-1 (C x + d), z = H^-1 (y* - b) and grad phi = rho x + C'z, with the means of
/// H_i, C_i, d_i and b_j. The H_i have eigenvalues in (0.5, 2.5).
struct QuadraticSum {
  QuadraticSum(int num_terms, int m, int n, double noise, double regularization = 0.1)
      : rho(regularization), x(Vector::Zero(m)), y(Vector::Zero(n)) {
    std::mt19937 generator(7);
    std::normal_distribution<double> normal;
    const auto random = [&](int rows, int columns, double scale) {
      return Matrix(Matrix::NullaryExpr(rows, columns, [&] { return scale * normal(generator); }));
    };
    const Matrix c = random(n, m, 1.0 / std::sqrt(m));
    const Vector offset = random(n, 1, 1.0), target = random(n, 1, 1.0);
    mean_h.setZero(n, n);
    mean_c.setZero(n, m);
    mean_d.setZero(n);
    mean_b.setZero(n);
    for (int i = 0; i < num_terms; ++i) {
      const Vector u = random(n, 1, 1.0).normalized();
      Matrix term = Vector::LinSpaced(n, 1.0, 2.0).asDiagonal();
      term += std::min(noise, 0.5) * (i % 2 ? -1.0 : 1.0) * u * u.transpose();
      h.push_back(term);
      cs.push_back(c + random(n, m, noise / std::sqrt(m)));
      d.push_back(offset + random(n, 1, noise));
      b.push_back(target + random(n, 1, noise));
      mean_h += h.back() / num_terms;
      mean_c += cs.back() / num_terms;
      mean_d += d.back() / num_terms;
      mean_b += b.back() / num_terms;
    }
  }

  int num_terms() const { return static_cast<int>(h.size()); }
  Vector LowerSolution(const Vector& at) const { return mean_h.ldlt().solve(mean_c * at + mean_d); }
  Vector Hypergradient(const Vector& at) const {
    return rho * at + mean_c.transpose() * mean_h.ldlt().solve(LowerSolution(at) - mean_b);
  }
  Matrix UpperHessian() const {
    const Matrix dy = mean_h.ldlt().solve(mean_c);
    return dy.transpose() * dy + rho * Matrix::Identity(x.size(), x.size());
  }
  Vector UpperSolution() const {
    return UpperHessian().ldlt().solve(-Hypergradient(Vector::Zero(x.size())));
  }

  // What the two sums share.
  class Sum : public Objective {
   public:
    explicit Sum(const QuadraticSum* sum) : s_(*sum), m_(sum->x.size()), n_(sum->y.size()) {}
    int num_terms() const override { return s_.num_terms(); }

   protected:
    // body(i, weight) for the terms of a batch, after the outputs that are wanted were zeroed.
    template <typename Body>
    void ForEach(const Batch& batch, double** outputs, Body body) const {
      if (outputs && outputs[0]) Map(outputs[0], m_).setZero();
      if (outputs && outputs[1]) Map(outputs[1], n_).setZero();
      const int total = num_terms();
      for (int k = 0; k < batch.Count(total); ++k) {
        body(batch.Term(k, total), batch.Weight(k, total) / total);
      }
    }
    const QuadraticSum& s_;
    const int m_, n_;
  };

  class Lower : public Sum {
   public:
    using Sum::Sum;
    bool Evaluate(double const* const* blocks,
                  const Batch& batch,
                  double* value,
                  double** gradients) const override {
      const ConstMap px(blocks[0], m_), py(blocks[1], n_);
      *value = 0.0;
      ForEach(batch, gradients, [&](int i, double weight) {
        double sum = 0.0;
        for (int r = 0; r < n_; ++r) {
          const double hy = s_.h[i].row(r).dot(py), cx = s_.cs[i].row(r).dot(px) + s_.d[i][r];
          sum += py[r] * (0.5 * hy - cx);
          if (gradients && gradients[1]) gradients[1][r] += weight * (hy - cx);
        }
        *value += weight * sum;
        if (gradients && gradients[0]) {
          Map(gradients[0], m_).noalias() -= weight * s_.cs[i].transpose().lazyProduct(py);
        }
      });
      return true;
    }
    bool has_hessian_product() const override { return true; }
    bool HessianProduct(double const* const* /*blocks*/,
                        const Batch& batch,
                        double const* const* direction,
                        double** products) const override {
      ForEach(batch, products, [&](int i, double weight) {
        if (!direction[1]) return;
        const ConstMap v(direction[1], n_);
        if (products[1]) Map(products[1], n_).noalias() += weight * s_.h[i].lazyProduct(v);
        if (products[0]) {
          Map(products[0], m_).noalias() -= weight * s_.cs[i].transpose().lazyProduct(v);
        }
      });
      return true;
    }
  };

  class Upper : public Sum {
   public:
    using Sum::Sum;
    bool Evaluate(double const* const* blocks,
                  const Batch& batch,
                  double* value,
                  double** gradients) const override {
      const ConstMap px(blocks[0], m_), py(blocks[1], n_);
      *value = 0.0;
      ForEach(batch, gradients, [&](int j, double weight) {
        *value += 0.5 * weight * ((py - s_.b[j]).squaredNorm() + s_.rho * px.squaredNorm());
        if (gradients && gradients[0]) Map(gradients[0], m_) += weight * s_.rho * px;
        if (gradients && gradients[1]) Map(gradients[1], n_) += weight * (py - s_.b[j]);
      });
      return true;
    }
  };

  /// The problem from the current x and y, which it moves.
  void AddTo(Problem* problem) {
    const int m = static_cast<int>(x.size()), n = static_cast<int>(y.size());
    problem->AddUpperParameterBlock(x.data(), m);
    problem->AddTerm(Level::kLower, std::make_unique<Lower>(this), {{x.data(), m}, {y.data(), n}});
    problem->AddTerm(Level::kUpper, std::make_unique<Upper>(this), {{x.data(), m}, {y.data(), n}});
  }

  using Map = Eigen::Map<Vector>;
  using ConstMap = Eigen::Map<const Vector>;
  double rho;
  Vector x, y;
  std::vector<Matrix> h, cs;
  std::vector<Vector> d, b;
  Matrix mean_h, mean_c;
  Vector mean_d, mean_b;
};

}  // namespace bilevel

#endif  // BILEVEL_EXAMPLES_SUPPORT_QUADRATIC_SUM_H_
