// Is the derivative through my estimation right? A cost function of one's own, checked.
//
// HypergradientChecker re-solves the lower level around x and compares, as ceres::GradientChecker
// does for one cost function. Errors that it finds: a wrong Jacobian, a lower level that is not
// solved to its stationary point, a phi that jumps.
#include <cmath>
#include <cstdio>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

// e^x (y - value), x a log weight, with a Jacobian written by hand.
class Weighted : public ceres::SizedCostFunction<1, 1, 1> {
 public:
  Weighted(double value, bool wrong) : value_(value), wrong_(wrong) {}

  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    const double weight = std::exp(parameters[0][0]);
    residuals[0] = weight * (parameters[1][0] - value_);
    if (!jacobians) return true;
    if (jacobians[0]) jacobians[0][0] = wrong_ ? weight : residuals[0];  // A common slip.
    if (jacobians[1]) jacobians[1][0] = weight;
    return true;
  }

 private:
  double value_;
  bool wrong_;
};

// Three measurements of y, the first with an unknown weight, and a better one above.
bilevel::HypergradientChecker::Result Check(bool wrong) {
  double x = 0.2, y = 0.0, one = 0.0;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(new Weighted(1.0, wrong), nullptr, &x, &y);
  problem.lower()->AddResidualBlock(new Weighted(2.0, false), nullptr, &one, &y);
  problem.lower()->AddResidualBlock(new Weighted(5.0, false), new ceres::CauchyLoss(1.0), &one, &y);
  problem.lower()->SetParameterBlockConstant(&one);
  problem.upper()->AddResidualBlock(new bilevel::NormalPrior({1.2}, 1.0), nullptr, &y);
  return bilevel::HypergradientChecker::Check(&problem);
}

int main() {
  const auto right = Check(false), wrong = Check(true);
  std::printf("As it should be:\n%s\n", right.Report().c_str());
  std::printf("With the slip:\n%s\n", wrong.Report().c_str());
  const bool told = !wrong.ok || wrong.max_relative_error > 1e-2;
  return right.ok && right.max_relative_error < 1e-6 && told ? 0 : 1;
}
