// Large sums: steps on minibatches in place of lower solves.
//
// 50,000 measurements of a linear model come from five sources, two of which are wrong. Which ones
// to trust is learned from 5,000 good measurements: x has a logit for each source.
//
//   lower level   y*(x) = argmin mean of switch(x_source) |a'y - value|^2 / 2
//   upper level   x     = argmin mean of |a'y*(x) - value|^2 / 2 + 1/2 |0.05 x|^2
//
// SOBA takes one step of y, the adjoint and x an iteration, each on 64 terms. Beside it stands the
// exact method, which solves the lower level.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <utility>

#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "ceres/ceres.h"

constexpr int kSources = 5, kFeatures = 3, kTraining = 50000, kValidation = 5000;

struct Measurement {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = T(-value);
    for (int i = 0; i < kFeatures; ++i) r[0] += a[i] * y[i];
    return true;
  }
  double a[kFeatures], value;
};
using Cost = bilevel::AutoDiffCostFunction<Measurement, 1, kFeatures>;

struct Learned {
  double logits[kSources] = {}, y[kFeatures] = {};
  bilevel::Solver::Summary summary;
};

void Build(Learned* learned, bilevel::Problem* problem) {
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  const auto measure = [&](double factor) {
    Measurement m{};
    for (double& a : m.a) a = normal(generator);
    m.value = factor * (m.a[0] - 0.5 * m.a[1]) + 0.3 * normal(generator);
    return new Cost(new Measurement(m));
  };
  // Both levels are means, so that steps do not depend on how many terms there are.
  const auto mean = [](int count) {
    return new ceres::ScaledLoss(nullptr, 1.0 / count, ceres::TAKE_OWNERSHIP);
  };
  for (int source = 0; source < kSources; ++source) {
    double* logit = &learned->logits[source];
    problem->AddUpperParameterBlock(logit, 1);
    const auto prior = problem->upper()->AddResidualBlock(
        new bilevel::NormalPrior({0.0}, 1.0 / 0.05), nullptr, logit);
    problem->SetSamplingWeight(prior, bilevel::Scenario::kInEveryBatch);  // Not one of thousands.
    auto* loss = new bilevel::SwitchLoss(mean(kTraining), logit, ceres::TAKE_OWNERSHIP);
    const double factor = source < 3 ? 1.0 : -0.5;
    for (int i = 0; i < kTraining / kSources; ++i) {
      problem->lower()->AddResidualBlock(measure(factor), loss, learned->y);
    }
  }
  ceres::LossFunction* loss = mean(kValidation);
  for (int i = 0; i < kValidation; ++i) {
    problem->upper()->AddResidualBlock(measure(1.0), loss, learned->y);
  }
}

Learned Solve(std::shared_ptr<bilevel::Method> method, int max_num_iterations) {
  Learned learned;
  bilevel::Problem problem;
  Build(&learned, &problem);
  bilevel::Solver::Options options;
  options.method = std::move(method);
  options.max_num_iterations = max_num_iterations;
  bilevel::Solve(options, &problem, &learned.summary);
  std::puts(learned.summary.BriefReport().c_str());
  return learned;
}

int main() {
  bilevel::Soba::Options options;
  options.lower_batch = options.upper_batch = 64;
  options.lower.step = 0.5;  // Of y and the adjoint: below 2 / L, the largest curvature of g.
  options.x.step = 20.0;
  const Learned soba = Solve(std::make_shared<bilevel::Soba>(options), 4000);
  const Learned exact = Solve(bilevel::CreateMethod("auto"), 50);

  std::printf("trust in source   soba   exact\n");
  double worst = 0.0;
  const auto trust = [](double logit) { return 1.0 / (1.0 + std::exp(-logit)); };
  for (int i = 0; i < kSources; ++i) {
    const double a = trust(soba.logits[i]), b = trust(exact.logits[i]);
    std::printf("%15d %6.3f %7.3f\n", i, a, b);
    worst = std::max(worst, std::abs(a - b));
  }
  std::printf("phi            %.5f %.5f\nepochs of g    %7.1f\n",
              soba.summary.final_objective,
              exact.summary.final_objective,
              soba.summary.lower_epochs);
  return soba.summary.IsSolutionUsable() && worst < 0.05 ? 0 : 1;
}
