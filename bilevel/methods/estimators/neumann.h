#ifndef BILEVEL_METHODS_ESTIMATORS_NEUMANN_H_
#define BILEVEL_METHODS_ESTIMATORS_NEUMANN_H_

#include <string>
#include <vector>

#include "bilevel/lower_level/metric.h"
#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// The hypergradient f_x - J z with z ~ H^-1 f_y from Neumann's series, a fresh sample of g in
/// each factor; H = d^2g/dy^2, J = d^2g/dxdy:
///
///   kRandomised  z = N eta prod_{q=1..p} (I - eta H_q) f_y,  p uniform in 0 ... N - 1
///                (Ghadimi and Wang, 2018); (N - 1) / 2 products on average, a variance of (N
///                eta)^2
///   kTruncated   z = eta sum_{q=0..Q} prod_{r=1..q} (I - eta H_r) f_y    (Ji, Yang and Liang,
///   2021)
///
/// On average both are the series cut after N, respectively Q + 1 terms: the relative bias is
/// (I - eta H)^N, and eta must be at most 1 / L. (Public codes of the second kind weigh the terms
/// otherwise.) With a metric M, H is M^-1 H and f_y is M^-1 f_y throughout. Dense in y.
class Neumann {
 public:
  enum Kind { kRandomised, kTruncated };
  struct Options {
    Kind kind = kRandomised;
    int length = 0;  ///< N or Q; 0: of the order of L / mu.
    /// The length grows by this times log(1 + k), rounded up. Negative: where no length is given as
    /// published, with log k for kRandomised, and not at all otherwise.
    double log_growth = -1.0;
    double step = 0.0;  ///< eta; 0: 1 / L.
    /// What is not given is the method's to fill before an estimate; see Defaults.
    std::string Check(const std::string& name) const;
    int Length(uint64_t k) const;
  };
  /// The samples of one estimate: the same again at another point, for differences.
  struct Samples {
    Batch f, j;
    std::vector<Batch> h;  ///< One a product; of kRandomised as many as were drawn.
    int length = 0;        ///< N.
  };

  explicit Neumann(const Options& options) : options_(options) {}
  const Options& options() const { return options_; }
  /// Returns f over its sample; metric may be nullptr.
  double Evaluate(Oracle& oracle,
                  const Metric* metric,
                  const Point& x,
                  const Point& y,
                  const Samples& samples,
                  SparseVector* d);

 private:
  Options options_;
  Vector u_, sum_;
  SparseVector f_y_, h_u_, j_z_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_NEUMANN_H_
