// A run that was stopped or killed and goes on is, bit for bit, the one that was not.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "bilevel/lower_level/sgm.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "small_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

std::string TempFile(const std::string& name, bool is_new = true) {
  const std::string path = ::testing::TempDir() + "checkpoint_" + name + ".npz";
  if (is_new) std::remove(path.c_str());
  return path;
}

std::string Bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

bool SameBits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 8 * a.size()) == 0;
}

// Where two runs part, for the message.
std::string FirstDifference(const std::vector<double>& a, const std::vector<double>& b) {
  for (size_t k = 0; k < std::min(a.size(), b.size()); ++k) {
    if (std::memcmp(&a[k], &b[k], 8) == 0) continue;
    return "value " + std::to_string(k) + ": " + std::to_string(a[k]) + " and " +
           std::to_string(b[k]);
  }
  return std::to_string(a.size()) + " and " + std::to_string(b.size()) + " values";
}

// Asks for a stop after an iteration.
class StopAfter : public IterationCallback {
 public:
  explicit StopAfter(long iteration) : iteration_(iteration) {}
  ceres::CallbackReturnType operator()(const IterationSummary& it) override {
    if (it.iteration >= iteration_) stop = 1;
    return ceres::SOLVER_CONTINUE;
  }
  volatile std::sig_atomic_t stop = 0;

 private:
  long iteration_;
};

struct Solved {
  Solved(SmallProblem::Kind kind, const Solver::Options& options) : small(kind) {
    Solve(options, &small.problem, &summary);
  }
  std::vector<double> Values() const { return small.Values(summary); }
  SmallProblem small;
  Solver::Summary summary;
};

// A run of options that are made anew, as they would be in another process, with a file after every
// iteration, and in as many runs as it takes with so many iterations each. make(options) is a run
// with Values().
template <typename MakeOptions, typename Make>
void ExpectSameBits(const std::string& name,
                    MakeOptions make_options,
                    Make make,
                    int num_iterations_a_run = 1) {
  SCOPED_TRACE(name);
  const auto plain = make(make_options());
  const std::vector<double> expected = plain->Values();
  // One before each iteration, but for those that a method begins with.
  const int num_iterations = static_cast<int>(plain->summary.iterations.size());

  Solver::Options options = make_options();
  options.checkpoint.file = TempFile(name);
  options.checkpoint.every_num_iterations = 1;
  const auto written = make(options);
  EXPECT_GE(written->summary.num_checkpoints, std::min(num_iterations - 2, 2 * num_iterations / 3))
      << written->summary.FullReport();
  EXPECT_EQ(written->summary.message, plain->summary.message);
  EXPECT_TRUE(SameBits(written->Values(), expected))
      << FirstDifference(written->Values(), expected);
  std::remove(options.checkpoint.file.c_str());
  for (int num_runs = 1;; ++num_runs) {
    StopAfter stop((num_runs - 1) * num_iterations_a_run);
    options = make_options();
    options.checkpoint.file = TempFile(name, false);
    options.checkpoint.resume = true;
    options.checkpoint.every_seconds = 0.0;
    options.checkpoint.stop = &stop.stop;
    options.callbacks = {&stop};
    const auto run = make(options);
    if (run->summary.message.find("asked to stop") != std::string::npos) {
      ASSERT_LT(num_runs, 300) << run->summary.FullReport();
      continue;
    }
    EXPECT_GE(num_runs, (num_iterations - 2) / num_iterations_a_run);
    EXPECT_EQ(run->summary.resumed_from_iteration >= 0, num_runs > 1);
    EXPECT_EQ(run->summary.message, plain->summary.message);
    EXPECT_TRUE(SameBits(run->Values(), expected)) << FirstDifference(run->Values(), expected);
    break;
  }
  std::remove(options.checkpoint.file.c_str());
}

class Checkpoints : public ::testing::TestWithParam<SmallProblem::Kind> {};

TEST_P(Checkpoints, AreNotFeltAndGiveTheSameBits) {
  for (const std::string& method : ListMethods()) {
    ExpectSameBits(
        method,
        [&] { return SmallProblem::Options(method); },
        [](const Solver::Options& options) {
          return std::make_unique<Solved>(GetParam(), options);
        });
  }
}

// With a higher limit it goes on.
TEST_P(Checkpoints, ALimitLeavesOneToGoOnFrom) {
  for (const std::string& method : ListMethods()) {
    SCOPED_TRACE(method);
    Solver::Options options = SmallProblem::Options(method);
    const std::vector<double> expected = Solved(GetParam(), options).Values();
    options = SmallProblem::Options(method);
    options.checkpoint.file = TempFile("limit_" + method);
    options.checkpoint.every_seconds = 0.0;
    options.max_num_iterations = 4;
    const Solved first(GetParam(), options);
    options = SmallProblem::Options(method);
    options.checkpoint.file = TempFile("limit_" + method, false);
    options.checkpoint.resume = true;
    const Solved second(GetParam(), options);
    if (first.summary.iterations.size() > 4) {
      EXPECT_GE(second.summary.resumed_from_iteration, 2) << second.summary.FullReport();
    }
    EXPECT_TRUE(SameBits(second.Values(), expected)) << FirstDifference(second.Values(), expected);
    std::remove(options.checkpoint.file.c_str());
  }
}

// In a process of its own, which ends with its values in a file.
pid_t Fork(SmallProblem::Kind kind, const Solver::Options& options, const std::string& outcome) {
  const pid_t child = fork();
  if (child != 0) return child;
  const Solved run(kind, options);
  const std::vector<double> values = run.Values();
  std::ofstream(outcome, std::ios::binary)
      .write(reinterpret_cast<const char*>(values.data()), 8 * values.size());
  _exit(0);
}

std::vector<double> ReadValues(const std::string& path) {
  const std::string bytes = Bytes(path);
  std::vector<double> values(bytes.size() / 8);
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), 8 * values.size());
  return values;
}

// At random moments, from before the first iteration to after the last. A run that ends before it
// is killed is right too, and begins anew with less time.
TEST_P(Checkpoints, SurviveKill) {
  constexpr int kKills = 3;
  std::mt19937 random(17);
  for (const std::string& method : ListMethods()) {
    SCOPED_TRACE(method);
    const std::vector<double> expected = Solved(GetParam(), SmallProblem::Options(method)).Values();
    Solver::Options options = SmallProblem::Options(method);
    options.checkpoint.file = TempFile("killed_" + method);
    options.checkpoint.every_num_iterations = 1;
    options.checkpoint.resume = true;
    const std::string outcome = options.checkpoint.file + ".outcome";
    unsigned most = 15000;  // Microseconds.
    for (int num_kills = 0; num_kills <= kKills;) {
      const pid_t child = Fork(GetParam(), options, outcome);
      ASSERT_GT(child, 0);
      if (num_kills < kKills) {
        usleep(random() % most);
        kill(child, SIGKILL);
      }
      int status = 0;
      waitpid(child, &status, 0);
      if (WIFSIGNALED(status)) {
        ASSERT_EQ(WTERMSIG(status), SIGKILL);
        ++num_kills;
        continue;
      }
      const std::vector<double> values = ReadValues(outcome);
      EXPECT_TRUE(SameBits(values, expected)) << FirstDifference(values, expected);
      std::remove(outcome.c_str());
      std::remove(options.checkpoint.file.c_str());
      if (num_kills == kKills) break;
      most = most / 2 + 1;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Problems,
                         Checkpoints,
                         ::testing::Values(SmallProblem::kManyBlocks,
                                           SmallProblem::kScenarios,
                                           SmallProblem::kTerms));

// Lower solvers and options that are not the defaults.
struct Variant {
  const char* name;
  const char* method;
  SmallProblem::Kind kind;
  std::function<void(Solver::Options*)> set;
};
TEST(CheckpointSetups, GiveTheSameBits) {
  const auto lower = [](auto make) {
    return [make](Solver::Options* options) {
      options->lower_solver = [make](Program* program) -> std::unique_ptr<LowerSolver> {
        return make(program);
      };
    };
  };
  const auto newton_cg = lower([](Program* program) {
    return std::make_unique<NewtonCgLowerSolver>(program, NewtonCgLowerSolver::Options());
  });
  const auto sgm = lower([](Program* program) {
    Sgm::Options options;
    options.num_steps = options.num_lower_steps = 50;
    return std::make_unique<Sgm>(program, options);
  });
  const auto metric = [](Preconditioner preconditioner) {
    return [preconditioner](Solver::Options* options) {
      Slip::Options slip;
      slip.preconditioner = preconditioner;
      slip.precondition_interval = 3;
      slip.early_stopping.patience = 5;
      options->method = std::make_shared<Slip>(slip);
    };
  };
  const auto starts = [](Solver::Options* options) { options->lower_starts = 3; };
  const auto batches = [](Solver::Options* options) {
    options->num_scenarios_per_iteration = 2;
    options->max_num_iterations = 12;
  };
  const auto threads = [](Solver::Options* options) { options->num_threads = 2; };
  for (const Variant& variant :
       {Variant{"newton_cg", "lbfgs", SmallProblem::kScenarios, newton_cg},
        {"newton_cg_adam", "adam", SmallProblem::kTerms, newton_cg},
        {"sgm", "igfm", SmallProblem::kTerms, sgm},
        {"sgm_search", "pattern_search", SmallProblem::kTerms, sgm},
        {"starts", "levenberg_marquardt", SmallProblem::kScenarios, starts},
        {"starts_search", "pattern_search", SmallProblem::kTerms, starts},
        {"batches", "adam", SmallProblem::kScenarios, batches},
        {"hoag_batches", "hoag", SmallProblem::kScenarios, batches},
        {"threads", "igfm", SmallProblem::kScenarios, threads},
        {"jacobi", "slip", SmallProblem::kManyBlocks, metric(Preconditioner::kBlockJacobi)},
        {"gauss_newton",
         "slip",
         SmallProblem::kManyBlocks,
         metric(Preconditioner::kGaussNewton)}}) {
    ExpectSameBits(
        variant.name,
        [&] {
          Solver::Options options = SmallProblem::Options(variant.method);
          variant.set(&options);
          return options;
        },
        [&](const Solver::Options& options) {
          return std::make_unique<Solved>(variant.kind, options);
        });
  }
}

// Of a problem of the set.
struct SolvedOfSet {
  SolvedOfSet(const BilevelProblem& set, const Solver::Options& options)
      : x(set.x), y(set.y), problem(set.Build(x.data(), y.data())) {
    Solve(options, problem.get(), &summary);
  }
  std::vector<double> Values() const {
    std::vector<double> values = x;
    values.insert(values.end(), y.begin(), y.end());
    for (const IterationSummary& it : summary.iterations) {
      values.insert(values.end(), {it.objective, it.gradient_max_norm, it.step_norm});
    }
    for (const auto& attempt : summary.assessment.attempts) {
      values.insert(values.end(), {double(attempt.num_iterations), attempt.objective});
    }
    values.insert(values.end(), {summary.final_objective, double(summary.answer)});
    return values;
  }
  std::vector<double> x, y;
  std::unique_ptr<Problem> problem;
  Solver::Summary summary;
};

// Kinks, jumps and sets of solutions, where auto goes from one method to the next.
TEST(CheckpointSetups, AutoOnTheWholeSet) {
  int num_with_attempts = 0;
  for (const BilevelProblem& set : AllBilevelProblems()) {
    ExpectSameBits(
        set.name,
        [] { return Solver::Options(); },
        [&](const Solver::Options& options) {
          auto solved = std::make_unique<SolvedOfSet>(set, options);
          num_with_attempts +=
              options.checkpoint.resume && !solved->summary.assessment.attempts.empty();
          return solved;
        },
        4);
  }
  EXPECT_GT(num_with_attempts, 10);
}

// min over x, max over y of x^2 / 2 + x y - y^2 / 2, which optimistic_gd is for.
struct Payoff {
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    *value = sign * (0.5 * x[0] * x[0] + x[0] * y[0] - 0.5 * y[0] * y[0]);
    return true;
  }
  double sign;
};
struct MinMax {
  explicit MinMax(const Solver::Options& options) {
    problem.AddUpperParameterBlock(&x, 1);
    for (const Level level : {Level::kUpper, Level::kLower}) {
      problem.AddTerm(level,
                      std::make_unique<AutoDiffObjective<Payoff, 1, 1>>(
                          Payoff{level == Level::kUpper ? 1.0 : -1.0}),
                      {{&x, 1}, {&y, 1}});
    }
    Solve(options, &problem, &summary);
  }
  std::vector<double> Values() const {
    std::vector<double> values{x, y};
    for (const IterationSummary& it : summary.iterations) values.push_back(it.step_norm);
    return values;
  }
  double x = 1.0, y = -0.5;
  Problem problem;
  Solver::Summary summary;
};
TEST(CheckpointSetups, MinMax) {
  ExpectSameBits(
      "optimistic_gd",
      [] {
        Solver::Options options = SmallProblem::Options("optimistic_gd");
        options.keep_own_y = true;
        return options;
      },
      [](const Solver::Options& options) { return std::make_unique<MinMax>(options); });
}

// A file to be resumed, and what another run says of it.
class CheckpointRefusals : public ::testing::Test {
 protected:
  CheckpointRefusals() {
    options = SmallProblem::Options("adam");
    options.checkpoint.file = TempFile("refused");
    options.checkpoint.every_num_iterations = 2;
    options.checkpoint.every_seconds = 0.0;
    const Solved run(SmallProblem::kTerms, options);
    EXPECT_EQ(run.summary.num_checkpoints, 6) << run.summary.FullReport();
    options.checkpoint.resume = true;
  }
  std::string Message(SmallProblem::Kind kind = SmallProblem::kTerms) {
    const Solved run(kind, options);
    EXPECT_EQ(run.summary.termination_type, ceres::FAILURE);
    EXPECT_THAT(run.summary.message, HasSubstr(options.checkpoint.file));
    return run.summary.message;
  }
  void Write(const std::string& bytes) {
    std::ofstream(options.checkpoint.file, std::ios::binary) << bytes;
  }
  Solver::Options options;
};

TEST_F(CheckpointRefusals, AnotherProblemMethodOrSeed) {
  EXPECT_THAT(Message(SmallProblem::kScenarios), HasSubstr("its lower blocks differ"));
  EXPECT_THAT(Message(SmallProblem::kManyBlocks), HasSubstr("at its start f is "));
  options.seed = 4;
  EXPECT_THAT(Message(), HasSubstr("of another seed"));
  options.seed = 3;
  options.method = CreateMethod("bome");
  EXPECT_THAT(Message(), HasSubstr("is of adam, and this is bome"));
}

TEST_F(CheckpointRefusals, EveryByteCounts) {
  const std::string bytes = Bytes(options.checkpoint.file);
  ASSERT_GT(bytes.size(), 1000u);
  std::mt19937 random(5);
  for (int k = 0; k < 200; ++k) {
    std::string damaged = bytes;
    damaged[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    Write(damaged);
    EXPECT_THAT(Message(), HasSubstr("is damaged"));
    Write(bytes.substr(0, random() % bytes.size()));
    EXPECT_THAT(Message(), HasSubstr("is damaged"));
  }
  Write(bytes);
  EXPECT_EQ(Solved(SmallProblem::kTerms, options).summary.resumed_from_iteration, 8);
}

TEST_F(CheckpointRefusals, NowhereToWrite) {
  options.checkpoint.file = "/nowhere/file.npz";
  EXPECT_THAT(Message(), HasSubstr("cannot be written: No such file"));
}

// A full disk, as of iteration 3: the run goes on, and the file is the last that was whole.
class FillDisk : public IterationCallback {
 public:
  FillDisk() { getrlimit(RLIMIT_FSIZE, &before_); }
  ~FillDisk() override { setrlimit(RLIMIT_FSIZE, &before_); }
  ceres::CallbackReturnType operator()(const IterationSummary& it) override {
    rlimit full = before_;
    full.rlim_cur = 500;
    if (it.iteration == 3) setrlimit(RLIMIT_FSIZE, &full);
    return ceres::SOLVER_CONTINUE;
  }

 private:
  rlimit before_;
};
TEST_F(CheckpointRefusals, AFullDiskEndsNothing) {
  std::signal(SIGXFSZ, SIG_IGN);
  options.checkpoint.file = TempFile("full");
  options.checkpoint.every_num_iterations = 1;
  const Solved plain(SmallProblem::kTerms, SmallProblem::Options("adam"));
  {
    FillDisk fill;
    options.callbacks = {&fill};
    const Solved run(SmallProblem::kTerms, options);
    EXPECT_THAT(run.summary.checkpoint_error, HasSubstr("cannot be written: File too large"));
    EXPECT_TRUE(SameBits(run.Values(), plain.Values()));
  }
  options.callbacks.clear();
  const Solved resumed(SmallProblem::kTerms, options);
  EXPECT_EQ(resumed.summary.resumed_from_iteration, 3);
  EXPECT_TRUE(SameBits(resumed.Values(), plain.Values()));
}

// A method that has solved before goes on with another problem's memory, once that is gone.
TEST(Checkpoint, OneMethodForManyRuns) {
  for (const std::string& name : ListMethods()) {
    SCOPED_TRACE(name);
    Solver::Options options = SmallProblem::Options(name);
    const std::vector<double> expected = Solved(SmallProblem::kTerms, options).Values();
    options.checkpoint.file = TempFile("again_" + name);
    options.checkpoint.every_seconds = 0.0;
    for (int run = 0; run < 3; ++run) {
      options.checkpoint.resume = run > 0;
      const std::vector<double> values = Solved(SmallProblem::kTerms, options).Values();
      EXPECT_TRUE(SameBits(values, expected)) << run << FirstDifference(values, expected);
    }
    std::remove(options.checkpoint.file.c_str());
  }
}

TEST_F(CheckpointRefusals, ManySolvesHaveNoFile) {
  SmallProblem small(SmallProblem::kTerms);
  Solver::Summary summary;
  SolveFromManyStarts({}, options, &small.problem, &summary, nullptr);
  EXPECT_THAT(summary.message, HasSubstr("checkpoint is of one solve"));
  std::string error;
  StepSearchResult result;
  StepSearch search;
  search.grids = {{0.1, 0.2}};
  search.make_method = [](const std::vector<double>&) { return CreateMethod("adam"); };
  EXPECT_FALSE(SearchSteps(search, options, &small.problem, &result, &error));
  EXPECT_THAT(error, HasSubstr("checkpoint is of one solve"));
}

// What nobody has told cannot be kept.
class Forgetful : public Method {
 public:
  std::string name() const override { return "forgetful"; }

 protected:
  void Step(Oracle& oracle, State& state, Progress* progress) override {
    oracle.Solve(state.x, &state.y);
    progress->objective = oracle.f.Value(state.x, state.y);
  }
};
TEST_F(CheckpointRefusals, MethodsThatDoNotTell) {
  options.checkpoint.file = TempFile("forgetful");
  options.method = std::make_shared<Forgetful>();
  const Solved run(SmallProblem::kTerms, options);
  EXPECT_EQ(run.summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(run.summary.message, HasSubstr("Method::Remember"));
  options.checkpoint.file.clear();
  EXPECT_TRUE(Solved(SmallProblem::kTerms, options).summary.IsSolutionUsable());
}

}  // namespace
}  // namespace bilevel
