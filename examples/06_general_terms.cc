// Levels that are no least squares: the ridge of a Poisson regression, learned.
//
//   lower level   y*(w) = argmin  sum of e^{a'y} - count a'y  +  1/2 e^w |y|^2     training counts
//   upper level   w     = argmin  sum of e^{a'y} - count a'y                       validation
//   counts
//
// A residual block is half a square; an AutoDiffObjective is any scalar function of some blocks,
// with exact first and second derivatives. Given several functors, one a sample, it is their sum.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

constexpr int kFeatures = 6;

struct Count {  // -log p(count | y) but for a constant.
  template <typename T>
  bool operator()(const T* y, T* value) const {
    T dot(0.0);
    for (int i = 0; i < kFeatures; ++i) dot += a[i] * y[i];
    value[0] = exp(dot) - count * dot;
    return true;
  }
  double a[kFeatures], count;
};

struct Ridge {
  template <typename T>
  bool operator()(const T* y, const T* w, T* value) const {
    value[0] = T(0.0);
    for (int i = 0; i < kFeatures; ++i) value[0] += 0.5 * exp(w[0]) * y[i] * y[i];
    return true;
  }
};

std::vector<Count> Simulate(int size, unsigned seed) {
  const double truth[kFeatures] = {0.3, -0.2, 0.1};
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<Count> counts(size);
  for (Count& c : counts) {
    double dot = 0.0;
    for (int i = 0; i < kFeatures; ++i) {
      c.a[i] = normal(generator);
      dot += c.a[i] * truth[i];
    }
    c.count = std::poisson_distribution<int>(std::exp(dot))(generator);
  }
  return counts;
}

int main() {
  double y[kFeatures] = {}, w = 0.0;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&w, 1);
  using Counts = bilevel::AutoDiffObjective<Count, kFeatures>;
  using RidgeTerm = bilevel::AutoDiffObjective<Ridge, kFeatures, 1>;
  problem.AddTerm(
      bilevel::Level::kLower, std::make_unique<Counts>(Simulate(12, 1)), {{y, kFeatures}});
  problem.AddTerm(bilevel::Level::kLower, std::make_unique<RidgeTerm>(), {{y, kFeatures}, {&w, 1}});
  problem.AddTerm(
      bilevel::Level::kUpper, std::make_unique<Counts>(Simulate(200, 2)), {{y, kFeatures}});

  bilevel::Solver::Options options;
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  std::puts(summary.FullReport().c_str());

  // Beside it phi at other ridges: without iterations, Solve solves the lower level alone.
  const double learned = w, best = summary.final_objective;
  std::printf("  log ridge   validation\n%11.4f %12.6f  (learned)\n", learned, best);
  options.max_num_iterations = 0;
  bool ok = summary.IsSolutionUsable();
  for (const double change : {-2.0, -0.1, 0.1, 2.0}) {
    w = learned + change;
    bilevel::Solve(options, &problem, &summary);
    std::printf("%11.4f %12.6f\n", w, summary.final_objective);
    ok = ok && summary.final_objective > best;
  }
  return ok ? 0 : 1;
}
