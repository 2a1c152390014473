#ifndef BILEVEL_TESTS_FLEET_H_
#define BILEVEL_TESTS_FLEET_H_

#include <cmath>
#include <cstdio>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/internal/iteration_fields.h"
#include "ceres/sphere_manifold.h"

namespace bilevel {

/// Recordings of different lengths that share x, all in one process or shared among ranks.
struct Fleet {
  enum Kind {
    kPlain,
    kOnSpheres,    // The first block of each y is a direction.
    kBounded,      // Some of y is held.
    kConstrained,  // Every other recording has an inequality.
    kFree,         // Every other recording has a coordinate of y that nothing sees.
    kTerms,        // f is not least squares.
  };
  static constexpr Kind kAll[] = {kPlain, kOnSpheres, kBounded, kConstrained, kFree, kTerms};

  struct Measured {
    template <typename T>
    bool operator()(const T* log_weights, const T* v, T* r) const {
      using std::exp;
      using std::sin;
      for (int i = 0; i < 3; ++i)
        r[i] = exp(log_weights[0]) * (v[i] - value - 0.1 * i + 0.1 * sin(v[i]));
      return true;
    }
    double value;
  };
  struct Smooth {
    template <typename T>
    bool operator()(const T* log_weights, const T* v, const T* w, T* r) const {
      using std::exp;
      for (int i = 0; i < 3; ++i) r[i] = exp(log_weights[1]) * (w[i] - v[i]);
      return true;
    }
  };
  struct Truth {
    template <typename T>
    bool operator()(const T* v, T* r) const {
      for (int i = 0; i < 3; ++i) r[i] = v[i] - value - 0.1 * i;
      return true;
    }
    double value;
  };
  struct TruthTerm {
    template <typename T>
    bool operator()(const T* v, T* value) const {
      using std::exp;
      *value = exp(0.3 * (v[0] - target) * (v[0] - target)) + 0.1 * v[1] * v[1];
      return true;
    }
    double target;
  };
  struct BelowOne {
    template <typename T>
    bool operator()(const T* v, T* c) const {
      c[0] = v[0] + v[1] - 0.9;
      return true;
    }
  };
  struct Unseen {
    template <typename T>
    bool operator()(const T* v, const T* z, T* r) const {
      r[0] = z[0] - z[1] - 0.1 * v[0];
      return true;
    }
  };

  static std::string Name(int s) { return "log_" + std::to_string(s); }

  /// ranks: nullptr: all of it is here. build: whether scenario s is this rank's.
  template <typename IsMine>
  Fleet(Kind kind, int num_recordings, Ranks* ranks, IsMine is_mine) : y(num_recordings) {
    problem.SetRanks(ranks);
    problem.AddUpperParameterBlock(x, 2);
    for (int s = 0; s < num_recordings; ++s) {
      Scenario* scenario = problem.AddScenario(Name(s), 0.5 + 0.25 * (s % 3));
      if (is_mine(s)) Build(kind, s, scenario);
    }
  }
  Fleet(Kind kind, int num_recordings, Ranks* ranks)
      : Fleet(kind, num_recordings, ranks, [=](int s) { return !ranks || ranks->IsMine(s); }) {}

  void Build(Kind kind, int s, Scenario* scenario) {
    const int length = 3 + s % 4;
    std::vector<double>& own = y[s];
    own.assign(3 * length, 0.5);
    const auto truth = [s](int k) { return 0.6 + 0.2 * std::sin(1.3 * k + s); };
    for (int k = 0; k < length; ++k) {
      double* v = &own[3 * k];
      const double value = truth(k) + 0.3 * std::cos(7.1 * k + 2.3 * s);
      scenario->lower()->AddResidualBlock(
          new AutoDiffCostFunction<Measured, 3, 2, 3>(new Measured{value}),
          k % 2 ? new ceres::HuberLoss(0.7) : nullptr,
          x,
          v);
      if (k > 0) {
        scenario->lower()->AddResidualBlock(
            new AutoDiffCostFunction<Smooth, 3, 2, 3, 3>(new Smooth), nullptr, x, v - 3, v);
      }
      if (kind == kTerms) {
        scenario->AddTerm(Level::kUpper,
                          std::make_unique<AutoDiffObjective<TruthTerm, 3>>(TruthTerm{truth(k)}),
                          {{v, 3}});
      } else {
        scenario->upper()->AddResidualBlock(
            new AutoDiffCostFunction<Truth, 3, 3>(new Truth{truth(k)}), nullptr, v);
      }
    }
    if (kind == kOnSpheres)
      scenario->lower()->SetManifold(own.data(), new ceres::SphereManifold<3>);
    if (kind == kBounded) scenario->lower()->SetParameterUpperBound(own.data(), 0, 0.55);
    if (kind == kConstrained && s % 2 == 0) {
      scenario->AddLowerInequality(new AutoDiffCostFunction<BelowOne, 1, 3>(new BelowOne),
                                   own.data());
    }
    if (kind == kFree && s % 2 == 0) {
      free.push_back(std::make_unique<std::vector<double>>(2, 0.2));
      scenario->lower()->AddResidualBlock(new AutoDiffCostFunction<Unseen, 1, 3, 2>(new Unseen),
                                          nullptr,
                                          own.data(),
                                          free.back()->data());
    }
  }

  Solver::Summary Solve(const Solver::Options& options) {
    Solver::Summary summary;
    bilevel::Solve(options, &problem, &summary);
    return summary;
  }

  double x[2] = {-0.5, -1.5};
  std::vector<std::vector<double>> y;
  std::vector<std::unique_ptr<std::vector<double>>> free;
  Problem problem;
};

/// To the last bit.
inline std::string Exactly(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%a ", value);
  return text;
}

/// All that a run has told, but for times and for which rank it was; equal texts are equal runs.
inline std::string Told(const Solver::Summary& summary) {
  std::string all = summary.BriefReport() + "\n" + summary.message + "\n" + summary.method + "\n";
  const auto add = [&](const char* name, double value) {
    all += name + std::string(" ") + Exactly(value) + "\n";
  };
  for (const double value : summary.x) add("x", value);
  add("initial", summary.initial_objective);
  add("final", summary.final_objective);
  add("gradient", summary.final_gradient_max_norm);
  add("decrement", summary.final_lower_level_decrement);
  add("from start", summary.objective_from_start);
  add("residual", summary.linear_residual);
  add("free", summary.num_free_directions);
  add("active", summary.num_active_lower_bounds);
  add("lower parameters", summary.num_lower_parameters);
  add("upper residual blocks", summary.num_upper_residual_blocks);
  add("upper epochs", summary.upper_epochs);
  add("lower epochs", summary.lower_epochs);
  add("factorizations", static_cast<double>(summary.lower_solver.factorizations));
  add("cold solves", static_cast<double>(summary.lower_solver.cold_solves));
  all += summary.free_directions + "\n" + summary.weakly_active_lower_bounds + "\n" +
         summary.lower_level_remark + "\n";
  for (const std::string& note : summary.assessment.notes) all += note + "\n";
  for (const IterationSummary& it : summary.iterations) {
    for (const IterationField& field : IterationFields()) {
      const std::string name = field.name;
      if (name.find("time") != std::string::npos || name.find("second") != std::string::npos) {
        continue;
      }
      all += name + " " + Exactly(field.value(it));
    }
    for (const double value : it.x) all += Exactly(value);
    all += it.note + "\n";
  }
  return std::regex_replace(all, std::regex(R"( \(on rank \d+\))"), "");
}

/// A recording's y, to the last bit.
inline std::string TextOf(const std::vector<double>& y) {
  std::string all;
  for (const double value : y) all += Exactly(value);
  return all;
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_FLEET_H_
