// Scenarios shared among ranks, which here are threads; tests/mpi has processes.
#include "bilevel/base/ranks.h"

#include <cmath>
#include <functional>
#include <mutex>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

#include "bilevel/methods/registry.h"
#include "fleet.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "thread_ranks.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kRecordings = 9;

struct Answer {
  std::string told;
  std::vector<std::string> y;
};

Answer Alone(Fleet::Kind kind, const Solver::Options& options) {
  Fleet fleet(kind, kRecordings, nullptr);
  Answer answer;
  answer.told = Told(fleet.Solve(options));
  for (const auto& own : fleet.y) answer.y.push_back(TextOf(own));
  return answer;
}

// On so many ranks, which must all tell the same.
Answer OnRanks(int num_ranks,
               Fleet::Kind kind,
               Solver::Options (*make)(const std::string&),
               const std::string& name) {
  Answer answer;
  answer.y.resize(kRecordings);
  std::mutex mutex;
  ThreadRanks::Run(num_ranks, [&](Ranks* ranks) {
    Fleet fleet(kind, kRecordings, ranks);
    const std::string told = Told(fleet.Solve(make(name)));
    const std::lock_guard<std::mutex> lock(mutex);
    if (answer.told.empty()) answer.told = told;
    EXPECT_EQ(told, answer.told) << "rank " << ranks->rank();
    for (int s = 0; s < kRecordings; ++s) {
      if (ranks->IsMine(s)) answer.y[s] = TextOf(fleet.y[s]);
    }
  });
  return answer;
}

Solver::Options Short(const std::string& method) {
  Solver::Options options;
  options.method = CreateMethod(method);
  options.max_num_iterations = 12;
  return options;
}

Solver::Options Minibatches(const std::string& method) {
  Solver::Options options = Short(method);
  options.num_scenarios_per_iteration = 2;
  return options;
}

// Of all methods those that leave y to the lower solver; the others say what they lack.
TEST(Ranks, TheSameBitsByEveryMethodOnAnyNumberOfRanks) {
  std::vector<std::string> taken;
  for (const std::string& method : ListMethods()) {
    const Answer alone = Alone(Fleet::kPlain, Short(method));
    for (const int num_ranks : {1, 2, 3, 4, 7}) {
      const Answer shared = OnRanks(num_ranks, Fleet::kPlain, Short, method);
      if (shared.told.find("needs all of y") != std::string::npos) break;
      ASSERT_EQ(shared.told, alone.told) << method << " on " << num_ranks;
      ASSERT_EQ(shared.y, alone.y) << method << " on " << num_ranks;
      if (num_ranks == 7) taken.push_back(method);
    }
  }
  EXPECT_THAT(taken,
              ::testing::ElementsAre("auto",
                                     "levenberg_marquardt",
                                     "lbfgs",
                                     "bfgs",
                                     "ncg",
                                     "steepest_descent",
                                     "projected_lbfgs",
                                     "newton",
                                     "gradient_sampling",
                                     "gradient_descent",
                                     "momentum",
                                     "normalized",
                                     "adam",
                                     "hoag",
                                     "igfm",
                                     "pattern_search"));
}

TEST(Ranks, TheSameBitsForEveryKindOfLowerLevel) {
  for (const Fleet::Kind kind : Fleet::kAll) {
    for (const std::string method : {"auto", "lbfgs"}) {
      const Answer alone = Alone(kind, Short(method));
      EXPECT_THAT(alone.told, Not(HasSubstr("FAILURE"))) << kind << " " << method;
      for (const int num_ranks : {2, 5}) {
        const Answer shared = OnRanks(num_ranks, kind, Short, method);
        ASSERT_EQ(shared.told, alone.told) << kind << " " << method << " on " << num_ranks;
        ASSERT_EQ(shared.y, alone.y) << kind << " " << method << " on " << num_ranks;
      }
    }
  }
}

TEST(Ranks, MinibatchesOfScenariosLieOnSeveralRanks) {
  const Answer alone = Alone(Fleet::kPlain, Minibatches("adam"));
  for (const int num_ranks : {2, 3, 7}) {
    const Answer shared = OnRanks(num_ranks, Fleet::kPlain, Minibatches, "adam");
    ASSERT_EQ(shared.told, alone.told) << num_ranks;
    ASSERT_EQ(shared.y, alone.y) << num_ranks;
  }
}

struct Message {
  ceres::TerminationType type;
  std::string text;
};

// How the solve ends on each of three ranks, rank 1 of which prepares something of its own.
std::vector<Message> OnThreeRanks(
    const std::function<void(Ranks*, Fleet*, Solver::Options*)>& prepare,
    const std::string& method = "lbfgs") {
  std::vector<Message> messages(3);
  ThreadRanks::Run(3, [&](Ranks* ranks) {
    Fleet fleet(Fleet::kPlain, kRecordings, ranks);
    Solver::Options options = Short(method);
    prepare(ranks, &fleet, &options);
    const Solver::Summary summary = fleet.Solve(options);
    messages[ranks->rank()] = {summary.termination_type, summary.message};
  });
  return messages;
}

void ExpectFailure(const std::vector<Message>& messages, const std::string& sentence) {
  for (const Message& message : messages) {
    EXPECT_EQ(message.type, ceres::FAILURE);
    EXPECT_THAT(message.text, HasSubstr(sentence));
    EXPECT_EQ(message.text, messages[0].text);
  }
}

// Fails, or throws, from a number of evaluations on.
struct Faulty final : ceres::SizedCostFunction<1, 3> {
  Faulty(int num_good, bool throws) : left(num_good), throws_(throws) {}
  bool Evaluate(double const* const* v, double* r, double** jacobians) const override {
    if (--left < 0 && throws_) throw std::runtime_error("out of map tiles");
    if (left < 0) return false;
    r[0] = 0.01 * v[0][0];
    if (jacobians && jacobians[0]) {
      jacobians[0][0] = 0.01;
      jacobians[0][1] = jacobians[0][2] = 0.0;
    }
    return true;
  }
  mutable int left;
  const bool throws_;
};

// Wherever in a run it fails, all ranks end, with the sentence of a process alone.
TEST(Ranks, AFaultEndsAllRanksAsAProcessAlone) {
  for (const std::string method : {"levenberg_marquardt", "lbfgs", "newton", "adam"}) {
    for (const bool throws : {false, true}) {
      for (const int num_good : {0, 40, 150, 400}) {
        const auto add = [&](Fleet* fleet) {
          fleet->problem.scenario(2)->lower()->AddResidualBlock(
              new Faulty(num_good, throws), nullptr, fleet->y[1].data());
        };
        Fleet alone(Fleet::kPlain, kRecordings, nullptr);
        add(&alone);
        const Solver::Summary expected = alone.Solve(Short(method));
        const std::vector<Message> messages = OnThreeRanks(
            [&](Ranks* ranks, Fleet* fleet, Solver::Options*) {
              if (ranks->rank() == 1) add(fleet);
            },
            method);
        for (const Message& message : messages) {
          const std::string text =
              std::regex_replace(message.text, std::regex(R"( \(on rank 1\))"), "");
          EXPECT_EQ(message.type, expected.termination_type) << method << " " << num_good;
          EXPECT_EQ(text, expected.message) << method << " " << num_good;
          EXPECT_EQ(message.text, messages[0].text);
          if (text.find("log_1") != std::string::npos) {
            EXPECT_THAT(message.text, HasSubstr("(on rank 1)"));
          }
        }
      }
    }
  }
}

TEST(Ranks, WhatDiffersIsNamedOnAllOfThem) {
  const auto on_rank_1 = [](const std::function<void(Fleet*, Solver::Options*)>& change) {
    return OnThreeRanks([&](Ranks* ranks, Fleet* fleet, Solver::Options* options) {
      if (ranks->rank() == 1) change(fleet, options);
    });
  };
  ExpectFailure(on_rank_1([](Fleet* fleet, Solver::Options*) { fleet->x[0] = -0.25; }),
                "rank 1 has upper block 0[0] = -0.25, and rank 0 upper block 0[0] = -0.5");
  ExpectFailure(on_rank_1([](Fleet* fleet, Solver::Options*) {
                  fleet->problem.SetParameterLowerBound(fleet->x, 1, -3.0);
                }),
                "rank 1 has upper block 0 in [-3, ");
  ExpectFailure(on_rank_1([](Fleet* fleet, Solver::Options*) {
                  fleet->problem.scenario(3)->set_weight(2.0);
                }),
                "rank 1 has scenario 2 'log_2' of weight 2, and rank 0 scenario 2 'log_2' of ");
  ExpectFailure(on_rank_1([](Fleet*, Solver::Options* options) { options->seed = 7; }),
                "rank 1 has options.seed = 7, and rank 0 options.seed = 0");
  ExpectFailure(on_rank_1([](Fleet* fleet, Solver::Options*) {
                  fleet->y[0].assign(9, 0.5);
                  fleet->Build(Fleet::kPlain, 0, fleet->problem.scenario(1));
                }),
                "scenario 'log_0' is on rank 0 and on rank 1: it must be on one");
  ExpectFailure(on_rank_1([](Fleet* fleet, Solver::Options*) { fleet->y[1][4] = std::nan(""); }),
                "(on rank 1)");
  ExpectFailure(OnThreeRanks([](Ranks*, Fleet* fleet, Solver::Options*) {
                  fleet->problem.AddScenario("nobody's");
                }),
                "scenario 'nobody's' is on no rank: it has no residual block and no term");
  ExpectFailure(OnThreeRanks([](Ranks*, Fleet*, Solver::Options* options) {
                  options->method = CreateMethod("aid_cg");
                }),
                "aid_cg needs all of y");
  ExpectFailure(
      OnThreeRanks([](Ranks*, Fleet*, Solver::Options* options) { options->lower_starts = 2; }),
      "wants a lower solver that knows of them");
}

struct Throwing : IterationCallback {
  ceres::CallbackReturnType operator()(const IterationSummary& it) override {
    if (it.iteration == 2) throw std::runtime_error("no space left");
    return ceres::SOLVER_CONTINUE;
  }
};
struct Ending : IterationCallback {
  ceres::CallbackReturnType operator()(const IterationSummary& it) override {
    return it.iteration == 2 ? ceres::SOLVER_TERMINATE_SUCCESSFULLY : ceres::SOLVER_CONTINUE;
  }
};

TEST(Ranks, ACallbackOfOneRankEndsTheSolveOnAll) {
  Throwing throwing;
  ExpectFailure(OnThreeRanks([&](Ranks* ranks, Fleet*, Solver::Options* options) {
                  if (ranks->rank() == 1) options->callbacks.push_back(&throwing);
                }),
                "no space left");
  Ending ending;
  for (const Message& message : OnThreeRanks([&](Ranks*ranks, Fleet*, Solver::Options*options) {
         if (ranks->rank() == 2) options->callbacks.push_back(&ending);
       })) {
    EXPECT_EQ(message.type, ceres::USER_SUCCESS) << message.text;
  }
}

TEST(Ranks, WhoLeavesIsNamed) {
  std::vector<std::string> messages(3);
  ThreadRanks::Run(3, [&](Ranks* ranks) {
    if (ranks->rank() == 1) return;
    messages[ranks->rank()] =
        Fleet(Fleet::kPlain, kRecordings, ranks).Solve(Short("lbfgs")).message;
  });
  EXPECT_THAT(messages[0], HasSubstr("rank 1 stands where it leaves, and rank 0 checking options"));
  EXPECT_EQ(messages[2], messages[0]);
}

// What its README.md says of an iteration: S recordings with R rows above, m coordinates of x.
TEST(Ranks, HandOnTheBytesOfTheFormula) {
  struct Counting : IterationCallback {
    ceres::CallbackReturnType operator()(const IterationSummary&) override {
      bytes.push_back(ranks->num_bytes());
      return ceres::SOLVER_CONTINUE;
    }
    Ranks* ranks;
    std::vector<long> bytes;
  };
  for (const std::string method : {"adam", "levenberg_marquardt"}) {
    ThreadRanks::Run(2, [&](Ranks* ranks) {
      long num_scenarios = 0, num_rows = 0;
      const long m = 2;
      for (int s = 0; s < kRecordings; ++s) {
        if (!ranks->IsMine(s)) continue;
        ++num_scenarios;
        num_rows += 3 * (3 + s % 4);
      }
      const long formula = method == "adam"
                               ? 512 + 8 * (4 + 2 * m) * num_scenarios
                               : 736 + (104 + 16 * m) * num_scenarios + 8 * (m + 1) * num_rows;
      Counting counting;
      counting.ranks = ranks;
      Solver::Options options = Short(method);
      options.max_num_iterations = 4;
      options.callbacks.push_back(&counting);
      Fleet(Fleet::kPlain, kRecordings, ranks).Solve(options);
      ASSERT_GE(counting.bytes.size(), 4u);
      for (size_t k = 2; k < counting.bytes.size(); ++k) {
        EXPECT_EQ(counting.bytes[k] - counting.bytes[k - 1], formula) << method << " " << k;
      }
    });
  }
}

TEST(Ranks, UncertaintyAndTheCheckOfGradientsAreThoseOfAProcessAlone) {
  const auto tell = [](Ranks* ranks) {
    Fleet fleet(Fleet::kPlain, kRecordings, ranks);
    fleet.Solve(Short("levenberg_marquardt"));
    std::string all;
    for (const HessianKind kind : {HessianKind::kGaussNewton, HessianKind::kExact}) {
      Uncertainty uncertainty;
      std::string message;
      EXPECT_TRUE(ComputeUncertaintyAcrossScenarios(
          Short("auto"), kind, &fleet.problem, &uncertainty, &message))
          << message;
      const Matrix& covariance = uncertainty.covariance();
      for (int i = 0; i < covariance.size(); ++i) all += Exactly(covariance.data()[i]);
    }
    const auto result = HypergradientChecker().Check(&fleet.problem, {});
    EXPECT_TRUE(result.ok) << result.message;
    for (const double error : result.relative_errors) all += Exactly(error);
    return all;
  };
  const std::string alone = tell(nullptr);
  ThreadRanks::Run(3, [&](Ranks* ranks) { EXPECT_EQ(tell(ranks), alone); });
}

}  // namespace
}  // namespace bilevel
