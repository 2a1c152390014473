// Without ground truth: a loss's scale learned from measurements that are held out.
//
// The curve of Ceres' tutorial, every fourth measurement an outlier. SplitHoldout takes 40 % of the
// residual blocks out of the lower problem and puts them into the upper one, under a loss with
// which a prediction is judged. That loss need not be tuned: it only must not be led by outliers.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

struct ExponentialResidual {
  template <typename T>
  bool operator()(const T* m, const T* c, T* residual) const {
    residual[0] = y - exp(m[0] * x + c[0]);
    return true;
  }
  double x, y;
};
using Cost = bilevel::AutoDiffCostFunction<ExponentialResidual, 1, 1, 1>;

int main() {
  double m = 0.0, c = 0.0;  // True are m = 0.3 and c = 0.1.
  double log_scale = std::log(2.0);
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&log_scale, 1);  // Declared before the split.
  auto* loss = new bilevel::CauchyLoss(&log_scale);
  for (int i = 0; i < 400; ++i) {
    const double x = i / 80.0, noise = 0.2 * std::sin(37.0 * i) + (i % 4 == 0 ? 2.0 : 0.0);
    problem.lower()->AddResidualBlock(
        new Cost(new ExponentialResidual{x, std::exp(0.3 * x + 0.1) + noise}), loss, &m, &c);
  }

  bilevel::HoldoutOptions holdout;
  holdout.fractions = {0.4, 0.2};  // To learn by, and to test with what nothing has seen.
  std::vector<std::vector<bilevel::HeldOutResidual>> sets;
  std::string error;
  if (!bilevel::SplitHoldout(holdout, {}, new ceres::HuberLoss(0.3), &problem, &sets, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  std::printf("%d measurements to estimate from, %zu to learn by, %zu to test\n",
              problem.lower()->NumResidualBlocks(),
              sets[0].size(),
              sets[1].size());

  const ceres::HuberLoss judge(0.3);
  const auto test = [&](const char* what) {
    std::printf("%s CauchyLoss(%.2f)   m = %.3f   c = %.3f\n", what, std::exp(log_scale), m, c);
    return bilevel::HoldoutErrors(sets[1], &judge);
  };
  bilevel::Solver::Options options;
  bilevel::Solver::Summary summary;
  options.max_num_iterations = 0;  // The lower level alone.
  bilevel::Solve(options, &problem, &summary);
  const std::vector<double> before = test("guessed");
  const double m_before = m;
  options.max_num_iterations = 50;
  bilevel::Solve(options, &problem, &summary);
  const std::vector<double> learned = test("learned");

  bilevel::VerdictOptions independent;
  independent.num_errors_a_block = 1;
  const bilevel::Verdict verdict = bilevel::JudgeLearned(independent, before, learned, &summary);
  std::printf("%s\n%s\n", verdict.ToString().c_str(), summary.FullReport().c_str());
  return verdict.kind == bilevel::Verdict::kUseLearned &&
                 std::abs(m - 0.3) < 0.5 * std::abs(m_before - 0.3)
             ? 0
             : 1;
}
