// Whoever does not ask for the reason is told that something is wrong all the same: every public
// function with a std::string* for it takes nullptr, and gives a reason where one is asked for.
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/learnable/noise.h"
#include "bilevel/search/multi_start.h"
#include "bilevel/search/step_search.h"
#include "bilevel/upper_level/cross_validation.h"
#include "bilevel/upper_level/holdout.h"
#include "bilevel/upper_level/marginal_likelihood.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

// A sound problem of one residual block a level, and one around a user's own ceres::Problem.
class NullErrors : public testing::Test {
 protected:
  NullErrors() : wrapping_(nullptr, &own_) {
    problem_.AddUpperParameterBlock(&x_, 1);
    id_ = problem_.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y_, &x_);
    problem_.upper()->AddResidualBlock(DifferenceCost(), nullptr, &y_, &target_);
    problem_.upper()->SetParameterBlockConstant(&target_);
    own_id_ = own_.AddResidualBlock(DifferenceCost(), nullptr, &y_, &x_);
  }

  void ExpectRefused(const char* name, const std::function<bool(std::string*)>& call) {
    EXPECT_FALSE(call(nullptr)) << name;
    std::string error;
    EXPECT_FALSE(call(&error)) << name;
    EXPECT_NE(error, "") << name;
  }

  double x_ = 0.5, y_ = 0.0, target_ = 1.0;
  ceres::Problem own_;
  ceres::ResidualBlockId id_, own_id_;
  Problem problem_, wrapping_, empty_;
};

TEST_F(NullErrors, OfOptions) {
  Solver::Options solver;
  solver.num_threads = 0;
  ExpectRefused("Solver::Options", [&](std::string* e) { return solver.IsValid(e); });
  Solver::Options below;
  below.lower_solver_options.max_num_iterations = -1;
  ExpectRefused("lower_solver_options", [&](std::string* e) { return below.IsValid(e); });
  Sensitivity::Options sensitivity;
  sensitivity.num_threads = 0;
  ExpectRefused("Sensitivity::Options", [&](std::string* e) { return sensitivity.IsValid(e); });
  sensitivity.stationarity_tolerance = 0.0;
  ExpectRefused("Sensitivity::Options", [&](std::string* e) { return sensitivity.IsValid(e); });
  MultiStartOptions multi_start;
  multi_start.num_starts = -1;
  ExpectRefused("MultiStartOptions", [&](std::string* e) { return multi_start.IsValid(e); });
  ExpectRefused("StepSearch", [&](std::string* e) { return StepSearch().IsValid(e); });
  const double nan = std::numeric_limits<double>::quiet_NaN();
  HoldoutOptions holdout[5];
  holdout[0].fractions = {};
  holdout[1].fractions = {-0.1};
  holdout[2].min_left = -1;
  holdout[3].kind = HoldoutOptions::Kind::kByBlock;
  holdout[4].times = {nan};
  for (const HoldoutOptions& options : holdout) {
    ExpectRefused("HoldoutOptions", [&](std::string* e) { return options.IsValid(e); });
  }
  CrossValidationOptions folds[4];
  folds[0].num_folds = 1;
  folds[1].kind = HoldoutOptions::Kind::kByBlock;
  folds[2].kind = HoldoutOptions::Kind::kByBlock;
  folds[2].blocks = {&x_, &y_};
  folds[3].times = {nan};
  for (const CrossValidationOptions& options : folds) {
    ExpectRefused("CrossValidationOptions", [&](std::string* e) { return options.IsValid(e); });
  }
}

TEST_F(NullErrors, OfProblems) {
  ExpectRefused("Problem::IsValid", [&](std::string* e) { return empty_.IsValid(e); });
  ExpectRefused("Problem::Compile",
                [&](std::string* e) { return empty_.Compile({}, e) != nullptr; });
}

TEST_F(NullErrors, OfAnalysesAndSearches) {
  Uncertainty uncertainty;
  ExpectRefused("ComputeUncertainty", [&](std::string* e) {
    return ComputeUncertainty({}, HessianKind::kExact, &empty_, &uncertainty, e);
  });
  StepSearchResult result;
  StepSearch search;
  ExpectRefused("SearchSteps, no grid",
                [&](std::string* e) { return SearchSteps(search, {}, &problem_, &result, e); });
  search.grids = {{0.1}};
  search.make_method = [](const std::vector<double>&) { return CreateMethod("lbfgs"); };
  for (Problem* problem : {&empty_, static_cast<Problem*>(nullptr)}) {
    ExpectRefused("SearchSteps",
                  [&](std::string* e) { return SearchSteps(search, {}, problem, &result, e); });
  }
  search.make_method = [](const std::vector<double>&) { return nullptr; };
  ExpectRefused("SearchSteps, no run",
                [&](std::string* e) { return SearchSteps(search, {}, &problem_, &result, e); });
}

TEST_F(NullErrors, OfHoldout) {
  std::vector<int> set;
  std::vector<std::vector<HeldOutResidual>> sets;
  HoldoutOptions wrong;
  wrong.fractions = {};
  const std::vector<std::vector<const double*>> blocks = {{&y_}};
  ExpectRefused("ChooseHoldout, options",
                [&](std::string* e) { return ChooseHoldout(wrong, blocks, &set, e); });
  ExpectRefused("ChooseHoldout, none may leave",
                [&](std::string* e) { return ChooseHoldout({}, blocks, &set, e); });
  HoldoutOptions by_time;
  by_time.kind = HoldoutOptions::Kind::kByTime;
  by_time.times = {1.0, 2.0};
  ExpectRefused("ChooseHoldout, times",
                [&](std::string* e) { return ChooseHoldout(by_time, blocks, &set, e); });
  const auto split =
      [&](Problem* problem, const std::vector<ceres::ResidualBlockId>& candidates, int scenario) {
        ExpectRefused("SplitHoldout", [&](std::string* e) {
          return SplitHoldout({}, candidates, nullptr, problem, &sets, e, scenario);
        });
      };
  split(&problem_, {}, 7);
  split(&problem_, {}, 0);
  split(&problem_, {id_, id_}, 0);
  split(&problem_, {own_id_}, 0);
  split(&wrapping_, {}, 0);
}

TEST_F(NullErrors, OfUpperLevels) {
  const auto fold = [&](Problem* problem,
                        const std::vector<ceres::ResidualBlockId>& candidates,
                        const CrossValidationOptions& options) {
    ExpectRefused("AddCrossValidation", [&](std::string* e) {
      return AddCrossValidation(options, candidates, nullptr, problem, nullptr, e);
    });
  };
  CrossValidationOptions wrong, by_time;
  wrong.num_folds = 1;
  by_time.kind = HoldoutOptions::Kind::kByTime;
  by_time.times = {1.0, 2.0};
  fold(&problem_, {}, wrong);
  fold(&problem_, {}, by_time);
  fold(&problem_, {}, {});
  fold(&problem_, {id_, id_}, {});
  fold(&problem_, {own_id_}, {});
  fold(&wrapping_, {}, {});
  for (Problem* problem : {&empty_, &wrapping_}) {
    ExpectRefused("AddMarginalLikelihood",
                  [&](std::string* e) { return AddMarginalLikelihood(problem, e); });
  }
}

TEST_F(NullErrors, OfNoise) {
  double log_sigma = 0.0;
  const auto apply = [&](const NoiseModel& noise,
                         std::vector<ceres::ResidualBlockId> ids,
                         Problem* problem,
                         int scenario) {
    ExpectRefused("NoiseModel::Apply",
                  [&](std::string* e) { return noise.Apply(&ids, problem, e, scenario); });
  };
  apply(ScalarNoise(&log_sigma), {id_}, &problem_, 7);
  apply(ScalarNoise(&log_sigma), {id_, id_}, &problem_, 0);
  apply(ScalarNoise(&log_sigma, 2), {id_}, &problem_, 0);
  apply(ScalarNoise(&x_), {id_}, &problem_, 0);
  apply(ScalarNoise(&log_sigma), {own_id_}, &wrapping_, 0);
}

}  // namespace
}  // namespace bilevel
