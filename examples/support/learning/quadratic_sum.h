#ifndef BILEVEL_EXAMPLES_SUPPORT_LEARNING_QUADRATIC_SUM_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEARNING_QUADRATIC_SUM_H_

#include <vector>

#include "bilevel/bilevel.h"

namespace bilevel {

/// A bilevel problem of two finite sums with everything in closed form:
///
///   f = 1/N sum_j |y - b_j|^2 / 2 + rho |x|^2 / 2,    g = 1/N sum_i y'H_i y / 2 - y'(C_i x + d_i)
///
/// so that y*(x) = H^-1 (C x + d), z = H^-1 (y* - b) and grad phi = rho x + C'z, with the means of
/// H_i, C_i, d_i and b_j. The H_i have eigenvalues in (0.5, 2.5).
struct QuadraticSum {
  QuadraticSum(int num_terms, int m, int n, double noise, double regularization = 0.1);

  int num_terms() const { return static_cast<int>(h.size()); }
  Vector LowerSolution(const Vector& at) const;
  Vector Hypergradient(const Vector& at) const;
  Matrix UpperHessian() const;
  Vector UpperSolution() const;

  class Lower : public Objective {
   public:
    explicit Lower(const QuadraticSum* sum) : s_(*sum) {}
    int num_terms() const override { return s_.num_terms(); }
    bool Evaluate(double const* const* blocks,
                  const Batch& batch,
                  double* value,
                  double** gradients) const override;
    bool has_hessian_product() const override { return true; }
    bool HessianProduct(double const* const* blocks,
                        const Batch& batch,
                        double const* const* direction,
                        double** products) const override;

   private:
    const QuadraticSum& s_;
  };

  class Upper : public Objective {
   public:
    explicit Upper(const QuadraticSum* sum) : s_(*sum) {}
    int num_terms() const override { return s_.num_terms(); }
    bool Evaluate(double const* const* blocks,
                  const Batch& batch,
                  double* value,
                  double** gradients) const override;

   private:
    const QuadraticSum& s_;
  };

  /// The problem from the current x and y, which it moves.
  void AddTo(Problem* problem);

  double rho;
  Vector x, y;
  std::vector<Matrix> h, cs;
  std::vector<Vector> d, b;
  Matrix mean_h, mean_c;
  Vector mean_d, mean_b;
};

}  // namespace bilevel

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEARNING_QUADRATIC_SUM_H_
