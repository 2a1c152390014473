#ifndef BILEVEL_TESTS_SMALL_PROBLEMS_H_
#define BILEVEL_TESTS_SMALL_PROBLEMS_H_

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"

namespace bilevel {

/// A small problem that every method of the registry takes.
struct SmallProblem {
  enum Kind { kManyBlocks, kScenarios, kTerms };

  // e^(x of its kind) (y_i - its datum), bent a little.
  struct Datum {
    template <typename T>
    bool operator()(const T* weights, const T* v, T* r) const {
      using std::exp;
      using std::sin;
      r[0] = exp(weights[kind]) * (v[0] - value + 0.1 * sin(v[1] * value));
      r[1] = exp(weights[1 - kind]) * (v[1] + 0.2 * v[0] - 0.5 * value);
      return true;
    }
    double value;
    int kind;
  };

  struct Wanted {
    template <typename T>
    bool operator()(const T* v, T* r) const {
      r[0] = v[0] - value;
      r[1] = v[1] - 0.1 * value;
      return true;
    }
    double value;
  };

  struct WantedTerm {  // The same as a general term.
    template <typename T>
    bool operator()(const T* v, T* value) const {
      *value = 0.5 * (v[0] - target) * (v[0] - target) + 0.5 * (v[1] - 0.1) * (v[1] - 0.1);
      return true;
    }
    double target;
  };

  // Each has memory of its own, so that addresses differ.
  explicit SmallProblem(Kind kind) {
    const int num_scenarios = kind == kScenarios ? 5 : 1;
    const int num_blocks = kind == kManyBlocks ? 700 : 8;
    y.assign(2 * num_scenarios, 0.5);
    problem.AddUpperParameterBlock(x.data(), 2);
    for (int k = 0; k < num_scenarios; ++k) {
      Scenario* scenario =
          kind == kScenarios ? problem.AddScenario("s" + std::to_string(k)) : problem.scenario(0);
      double* own = &y[2 * k];
      for (int i = 0; i < num_blocks; ++i) {
        const double value = std::sin(0.7 * i + k) + 0.4;
        scenario->lower()->AddResidualBlock(
            new AutoDiffCostFunction<Datum, 2, 2, 2>(new Datum{value, i % 2}),
            i % 3 ? nullptr : new ceres::HuberLoss(0.8),
            x.data(),
            own);
        const double wanted = 0.3 + 0.1 * value;
        if (kind == kTerms) {
          scenario->AddTerm(Level::kUpper,
                            std::make_unique<AutoDiffObjective<WantedTerm, 2>>(WantedTerm{wanted}),
                            {{own, 2}});
        } else {
          scenario->upper()->AddResidualBlock(
              new AutoDiffCostFunction<Wanted, 2, 2>(new Wanted{wanted}), nullptr, own);
        }
      }
    }
  }

  static Solver::Options Options(const std::string& method) {
    Solver::Options options;
    options.method = CreateMethod(method);
    options.max_num_iterations = 8;
    options.seed = 3;
    return options;
  }

  // x, y and what the iterations report, clocks apart.
  std::vector<double> Values(const Solver::Summary& summary) const {
    std::vector<double> values = x;
    values.insert(values.end(), y.begin(), y.end());
    for (const IterationSummary& s : summary.iterations) {
      values.insert(values.end(), s.x.begin(), s.x.end());
      values.insert(values.end(),
                    {s.objective,
                     s.upper_value,
                     s.gradient_max_norm,
                     s.step_norm,
                     s.trust_region_radius,
                     s.lower_level_decrement,
                     double(s.upper.samples),
                     double(s.lower.samples),
                     double(s.lower_solver.factorizations),
                     double(s.lower_solver.warm_solves),
                     double(s.step_is_successful)});
    }
    values.push_back(summary.final_objective);
    values.push_back(summary.num_unsuccessful_steps);
    return values;
  }

  std::vector<double> x = {0.2, -0.3}, y;
  Problem problem;
};

}  // namespace bilevel

#endif  // BILEVEL_TESTS_SMALL_PROBLEMS_H_
