// Holds the set of problems itself, not the solver, against its formulas: every listed minimum is a
// minimum of g in y and of phi in x, by samples and a small minimiser of its own.
#include "bilevel_problems.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using Function = std::function<double(const Values&)>;

// Coordinate by coordinate, within the bounds, steps from `radius` down to 1e-8 that decrease the
// function: slow, but indifferent to kinks and singular Hessians.
Values Minimise(
    const Function& function, const Values& lower, const Values& upper, Values at, double radius) {
  double least = function(at);
  Values step(at.size(), radius);
  for (int round = 0; round < 400; ++round) {
    double longest = 0.0;
    for (size_t i = 0; i < at.size(); ++i) {
      bool moved = false;
      for (const double signed_step : {step[i], -step[i]}) {
        Values trial = at;
        trial[i] = std::clamp(at[i] + signed_step, lower[i], upper[i]);
        const double value = function(trial);
        if (!(value < least)) continue;
        least = value;
        at = trial;
        moved = true;
        break;
      }
      step[i] *= moved ? 1.5 : 0.4;
      longest = std::max(longest, step[i]);
    }
    if (longest < 1e-8) break;
  }
  return at;
}

double Scale(double value) { return 1.0 + std::abs(value); }

// A point of the box x +- radius, its bounds included every now and then.
Values Sample(const Values& x,
              const Values& lower,
              const Values& upper,
              double radius,
              std::mt19937* generator) {
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  Values sample = x;
  for (size_t i = 0; i < x.size(); ++i) {
    sample[i] = std::clamp(x[i] + radius * Scale(x[i]) * uniform(*generator), lower[i], upper[i]);
  }
  return sample;
}

class EveryProblem : public ::testing::TestWithParam<int> {
 protected:
  const BilevelProblem& problem_ = AllBilevelProblems()[GetParam()];
  std::mt19937 generator_{7};

  Function LowerAt(const Values& x) const {
    return [this, x](const Values& y) { return problem_.g(x.data(), y.data()); };
  }
  double Upper(const Values& x, const Values& y) const { return problem_.f(x.data(), y.data()); }
};

TEST_P(EveryProblem, IsStatedInFull) {
  const BilevelProblem& p = problem_;
  EXPECT_FALSE(p.name.empty() || p.source.empty() || p.category.empty());
  EXPECT_FALSE(p.minima.empty());
  EXPECT_TRUE(std::any_of(p.minima.begin(), p.minima.end(), [](const KnownMinimum& minimum) {
    return minimum.kind == KnownMinimum::kGlobal;
  }));
  for (size_t i = 0; i < p.x.size(); ++i) {
    EXPECT_LE(p.x_lower[i], p.x[i]);
    EXPECT_GE(p.x_upper[i], p.x[i]);
  }
  for (size_t i = 0; i < p.y.size(); ++i) {
    EXPECT_LE(p.y_lower[i], p.y[i]);
    EXPECT_GE(p.y_upper[i], p.y[i]);
  }
  for (const BilevelProblem::Form form :
       {BilevelProblem::kResidualBlocks, BilevelProblem::kGeneralTerms}) {
    Values x = p.x, y = p.y;
    std::string error;
    EXPECT_TRUE(p.Build(x.data(), y.data(), form)->IsValid(&error)) << error;
  }
}

// A level of residual blocks has the cost that its function gives.
TEST_P(EveryProblem, HasTheSameLevelsAsResidualBlocks) {
  for (int k = 0; k < 10; ++k) {
    Values x = Sample(problem_.x, problem_.x_lower, problem_.x_upper, 1.0, &generator_);
    Values y = Sample(problem_.y, problem_.y_lower, problem_.y_upper, 1.0, &generator_);
    const double values[] = {Upper(x, y), problem_.g(x.data(), y.data())};
    const std::unique_ptr<Problem> built = problem_.Build(x.data(), y.data());
    const bool are_blocks[] = {built->upper()->NumResidualBlocks() > 0,
                               built->lower()->NumResidualBlocks() > 0};
    EXPECT_EQ(problem_.has_residual_blocks, are_blocks[0] || are_blocks[1]);
    for (int level = 0; level < 2; ++level) {
      if (!are_blocks[level]) continue;
      double cost = 0.0;
      ceres::Problem* part = level == 0 ? built->upper() : built->lower();
      ASSERT_TRUE(
          part->Evaluate(ceres::Problem::EvaluateOptions(), &cost, nullptr, nullptr, nullptr));
      EXPECT_NEAR(cost, values[level], 1e-12 * Scale(values[level]));
    }
  }
}

TEST_P(EveryProblem, HasTheListedValueAtEveryMinimum) {
  for (const KnownMinimum& minimum : problem_.minima) {
    ASSERT_EQ(minimum.x.size(), problem_.x.size());
    ASSERT_EQ(minimum.y.size(), problem_.y.size());
    // At a cusp, rounding of x is enlarged.
    const double tolerance = problem_.category == "cusp" ? 1e-4 : 1e-7;
    EXPECT_NEAR(Upper(minimum.x, minimum.y), minimum.phi, tolerance * Scale(minimum.phi));
  }
}

// The listed y is a local minimum of g, and the global one unless it is a branch's.
TEST_P(EveryProblem, HasYAtAMinimumOfG) {
  for (const KnownMinimum& minimum : problem_.minima) {
    const Function g = LowerAt(minimum.x);
    const double least = g(minimum.y), tolerance = 1e-8 * Scale(least);
    for (int k = 0; k < 300; ++k) {
      const Values y =
          Sample(minimum.y, problem_.y_lower, problem_.y_upper, 1e-2 * (k % 3 + 1), &generator_);
      EXPECT_GE(g(y), least - tolerance) << "x " << minimum.x[0] << ", y " << y[0];
    }
    if (minimum.kind == KnownMinimum::kBranch) continue;
    for (int k = 0; k < 40; ++k) {
      Values y = Sample(minimum.y, problem_.y_lower, problem_.y_upper, 10.0, &generator_);
      y = Minimise(g, problem_.y_lower, problem_.y_upper, y, 0.1);
      EXPECT_GE(g(y), least - tolerance) << "x " << minimum.x[0] << ", y " << y[0];
    }
  }
}

// The closed form of y*(x) is what many starts find in g, and of what they find what f prefers.
TEST_P(EveryProblem, HasAClosedFormThatNoSampleBeats) {
  if (!problem_.solution) return;
  for (int k = 0; k < 20; ++k) {
    const Values x = Sample(problem_.x, problem_.x_lower, problem_.x_upper, 1.0, &generator_);
    const Values y = problem_.solution(x);
    const Function g = LowerAt(x);
    const double least = g(y), tolerance = 1e-9 * Scale(least);
    for (int j = 0; j < 20; ++j) {
      Values other = Sample(y, problem_.y_lower, problem_.y_upper, j % 2 ? 10.0 : 1.0, &generator_);
      other = Minimise(g, problem_.y_lower, problem_.y_upper, other, 0.1);
      EXPECT_GE(g(other), least - tolerance) << "x " << x[0] << ", y " << y[0] << " " << other[0];
      if (g(other) <= least + 1e-14 * Scale(least) && problem_.category == "set") {
        EXPECT_GE(Upper(x, other), Upper(x, y) - 1e-4 * Scale(Upper(x, y))) << "x " << x[0];
      }
    }
  }
}

// phi does not fall within a small box. Along a branch, y is followed by the minimiser.
TEST_P(EveryProblem, HasXAtAMinimumOfPhi) {
  for (const KnownMinimum& minimum : problem_.minima) {
    const bool follow = minimum.kind == KnownMinimum::kBranch || !problem_.solution;
    for (int k = 0; k < (follow ? 40 : 300); ++k) {
      // f may still fall where an infimum lies at infinity, by less than the answers' tolerance.
      const double tolerance = (minimum.by_phi ? 1e-6 : 1e-9) * Scale(minimum.phi);
      const double radius = k % 2 ? 1e-2 : 1e-4;
      const Values x = Sample(minimum.x, problem_.x_lower, problem_.x_upper, radius, &generator_);
      const Values y =
          follow ? Minimise(LowerAt(x), problem_.y_lower, problem_.y_upper, minimum.y, radius)
                 : problem_.solution(x);
      EXPECT_GE(Upper(x, y), minimum.phi - tolerance - (follow ? 1e-6 * Scale(minimum.phi) : 0.0))
          << "x " << x[0] << " near " << minimum.x[0] << ", y " << y[0];
    }
  }
}

// No x sampled has a lower phi than the global minimum, nor leads a search to an unlisted one.
TEST_P(EveryProblem, ListsTheGlobalMinimum) {
  if (!problem_.solution) return;
  double least = std::numeric_limits<double>::infinity();
  for (const KnownMinimum& minimum : problem_.minima) {
    if (minimum.kind == KnownMinimum::kGlobal) least = std::min(least, minimum.phi);
  }
  for (const KnownMinimum& minimum : problem_.minima) {
    if (minimum.kind == KnownMinimum::kGlobal) {
      EXPECT_NEAR(minimum.phi, least, 1e-9 * Scale(least));
    }
  }
  for (int k = 0; k < 60; ++k) {
    const Values start = Sample(problem_.x, problem_.x_lower, problem_.x_upper, 3.0, &generator_);
    const Values x = Minimise([&](const Values& at) { return Upper(at, problem_.solution(at)); },
                              problem_.x_lower,
                              problem_.x_upper,
                              start,
                              0.3);
    EXPECT_GE(Upper(x, problem_.solution(x)), least - 1e-7 * Scale(least)) << "x " << x[0];
  }
}

// In one variable, every local minimum of phi on a fine grid is a listed one.
TEST_P(EveryProblem, ListsAllMinimaInOneVariable) {
  if (!problem_.solution || problem_.x.size() != 1) return;
  const auto phi = [&](double x) { return Upper({x}, problem_.solution({x})); };
  const double lower = std::max(problem_.x_lower[0], -5.0);
  const double upper = std::min(problem_.x_upper[0], 5.0);
  constexpr int kSteps = 4000;
  const double step = (upper - lower) / kSteps;
  for (int k = 1; k < kSteps; ++k) {
    const double x = lower + k * step;
    if (!(phi(x) < phi(x - step) && phi(x) < phi(x + step))) continue;
    const Values end = Minimise([&](const Values& at) { return phi(at[0]); },
                                problem_.x_lower,
                                problem_.x_upper,
                                {x},
                                step);
    KnownMinimum found;
    EXPECT_NE(problem_.MinimumAt(end, problem_.solution(end), &found), nullptr) << "x " << end[0];
  }
}

TEST(BilevelProblems, AreManyAndOfDifferentNames) {
  std::set<std::string> names;
  for (const BilevelProblem& problem : AllBilevelProblems()) {
    EXPECT_TRUE(names.insert(problem.name).second) << problem.name;
  }
  EXPECT_GE(names.size(), 60u);
}

// What is off every minimum is not taken for one.
TEST_P(EveryProblem, DoesNotTakeItsStartForAMinimum) {
  // The published starts of these have the x of a minimum, of the last two by intent.
  const std::set<std::string> starts_at_one{"MitsosBarton2006Ex311",
                                            "MitsosBarton2006Ex313",
                                            "MitsosBarton2006Ex318",
                                            "LucchettiEtal1987",
                                            "MorganPatrone2006a",
                                            "MorganPatrone2006b",
                                            "Mirrlees1999",
                                            "stationary_x_unsolved_y",
                                            "maximum_of_g_at_bound"};
  KnownMinimum found;
  const KnownMinimum* minimum = problem_.MinimumAt(problem_.x, problem_.y, &found);
  EXPECT_EQ(minimum != nullptr, starts_at_one.count(problem_.name) > 0);
}

std::string NameOf(const ::testing::TestParamInfo<int>& problem) {
  std::string name = AllBilevelProblems()[problem.param].name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(All,
                         EveryProblem,
                         ::testing::Range(0, static_cast<int>(AllBilevelProblems().size())),
                         NameOf);

}  // namespace
}  // namespace bilevel
