#ifndef BILEVEL_TESTS_METHODS_RUN_TOY_H_
#define BILEVEL_TESTS_METHODS_RUN_TOY_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "examples/support/toy_problems.h"
#include "sphere.h"

namespace bilevel {

// With the path of x and of the method's own y, which Solve does not return.
struct ToyRun {
  Solver::Summary summary;
  std::vector<std::vector<double>> x, y;
};

// Leaves the answer in the toy.
inline ToyRun RunToy(examples::Toy* toy, std::shared_ptr<Method> method, int num_iterations) {
  class Keep : public IterationCallback {
   public:
    Keep(const examples::Toy* toy, ToyRun* run) : toy_(toy), run_(run) {}
    ceres::CallbackReturnType operator()(const IterationSummary&) override {
      run_->x.push_back(toy_->x);
      run_->y.push_back(toy_->y);
      return ceres::SOLVER_CONTINUE;
    }

   private:
    const examples::Toy* toy_;
    ToyRun* run_;
  };
  ToyRun run;
  Keep keep(toy, &run);
  const auto problem = toy->Build();
  Solver::Options options;
  options.method = std::move(method);
  options.max_num_iterations = num_iterations;
  options.update_state_every_iteration = true;
  options.callbacks = {&keep};
  Solve(options, problem.get(), &run.summary);
  return run;
}

// Descent along the estimator's hypergradient with steps of that length.
template <typename Estimator>
std::shared_ptr<Method> Descent(const std::string& name,
                                const typename Estimator::Options& options,
                                double step,
                                StepRule::Kind kind = StepRule::kGradient) {
  StepRule rule;
  rule.kind = kind;
  rule.step = step;
  return std::make_shared<GradientMethod>(name, std::make_unique<Estimator>(options), rule);
}

// Residual blocks, y on the unit sphere: nearest to (x, 1) in space, y* = (x0, x1, 1) / norm, and
// f's least at y = (2, 3, 6) / 7, x = (1/3, 1/2).
struct NearestOnSphere {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] - x[0];
    r[1] = y[1] - x[1];
    r[2] = y[2] - 1.0;
    return true;
  }
};
struct ToDirection {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 2.0 / 7.0;
    r[1] = y[1] - 3.0 / 7.0;
    r[2] = y[2] - 6.0 / 7.0;
    return true;
  }
};

struct SphereProblem {
  double x[2] = {0.0, 0.0}, y[3] = {0.0, 0.6, 0.8};
  Problem problem;
  SphereProblem() {
    problem.AddUpperParameterBlock(x, 2);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<NearestOnSphere, 3, 2, 3>(new NearestOnSphere), nullptr, x, y);
    problem.lower()->SetManifold(y, NewSphere());
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<ToDirection, 3, 3>(new ToDirection), nullptr, y);
  }
  Solver::Summary Run(std::shared_ptr<Method> method, int num_iterations) {
    Solver::Options options;
    options.method = std::move(method);
    options.max_num_iterations = num_iterations;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    return summary;
  }
};

// g = 1/2 (y - x)^2, f = 1/2 (y - 1)^2 + 1/4 x^2, so that phi is least at x = y = 2/3.
inline examples::Toy Follow() {
  examples::Toy toy;
  toy.name = "follow";
  toy.x = {0.2};
  toy.y = {-0.3};
  toy.phi = 1.0 / 6.0;
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = 0.5 * x[0];
    gy[0] = y[0] - 1.0;
    return 0.5 * gy[0] * gy[0] + 0.25 * x[0] * x[0];
  };
  toy.g = [](const double* x, const double* y, double* gx, double* gy) {
    gy[0] = y[0] - x[0];
    gx[0] = -gy[0];
    return 0.5 * gy[0] * gy[0];
  };
  return toy;
}

// What Solve says of nonsense, having evaluated nothing; otherwise a sentence that says so.
inline std::string Refusal(std::shared_ptr<Method> method) {
  examples::Toy toy = Follow();
  const ToyRun run = RunToy(&toy, std::move(method), 10);
  const Solver::Summary& summary = run.summary;
  if (summary.termination_type != ceres::FAILURE) return "not refused";
  if (summary.lower.values + summary.lower.gradients > 0 || toy.x[0] != 0.2) return "work was done";
  return summary.message;
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_METHODS_RUN_TOY_H_
