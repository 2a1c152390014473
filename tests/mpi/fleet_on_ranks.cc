// What tests/mpi/ranks_test.cc runs by mpirun. fleet_on_ranks CASE [METHOD KIND]: every rank prints
// a line on how its solve ended; rank 0 of "solve" all that it has told, and everyone's y.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bilevel/methods/registry.h"
#include "bilevel/mpi/ranks.h"
#include "fleet.h"

namespace {

using bilevel::Fleet;

constexpr int kRecordings = 9;

bilevel::Solver::Options Options(const std::string& method) {
  bilevel::Solver::Options options;
  options.method = bilevel::CreateMethod(method);
  options.max_num_iterations = 8;
  return options;
}

// Of log_1, which is rank 1's, from its so-manieth evaluation on.
class Faulty final : public ceres::SizedCostFunction<1, 3> {
 public:
  explicit Faulty(std::function<bool()> fail) : fail_(std::move(fail)) {}
  bool Evaluate(double const* const* v, double* r, double** jacobians) const override {
    if (++num_evaluations_ > 30 && !fail_()) return false;
    r[0] = 0.01 * v[0][0];
    if (jacobians && jacobians[0]) {
      jacobians[0][0] = 0.01;
      jacobians[0][1] = jacobians[0][2] = 0.0;
    }
    return true;
  }

 private:
  const std::function<bool()> fail_;
  mutable int num_evaluations_ = 0;
};

struct FaultyCallback : bilevel::IterationCallback {
  ceres::CallbackReturnType operator()(const bilevel::IterationSummary& it) override {
    if (it.iteration == 2) throw std::runtime_error("no space left for the log");
    return ceres::SOLVER_CONTINUE;
  }
};

void PrintAll(const bilevel::Solver::Summary& summary, Fleet* fleet, bilevel::Ranks* ranks) {
  const std::string own = Told(summary);
  std::vector<std::string> told{own}, y;
  if (ranks) told = ranks->Gather("telling", 0, own);
  for (int s = 0; s < kRecordings; ++s) {
    const std::string text = bilevel::TextOf(fleet->y[s]);
    y.push_back(ranks ? ranks->Gather("telling", 0, text)[s % ranks->size()] : text);
  }
  if (ranks && ranks->rank() > 0) return;
  for (const std::string& other : told) {
    if (other != own) std::printf("a rank has told otherwise:\n%s", other.c_str());
  }
  std::printf("%s", own.c_str());
  for (const std::string& text : y) std::printf("y %s\n", text.c_str());
}

int Run(const std::string& what, int argc, char** argv, bilevel::Ranks* ranks) {
  const int rank = ranks ? ranks->rank() : 0;
  bilevel::Solver::Options options = Options(argc > 2 ? argv[2] : "levenberg_marquardt");
  const auto kind = static_cast<Fleet::Kind>(argc > 3 ? std::atoi(argv[3]) : 0);
  const bool is_culprit = rank == 1;
  if (what == "leaves" && is_culprit) return 1;
  Fleet fleet(kind, kRecordings, ranks, [&](int s) {
    if (what == "missing" && s == 4) return false;
    if (what == "twice" && s == 4 && rank == 0) return true;
    if (what == "idle" && is_culprit) return false;
    if (what == "idle" && rank == 0 && s % ranks->size() == 1) return true;
    if (what == "build" && is_culprit && s > 1) throw std::runtime_error("log_4 cannot be read");
    return !ranks || ranks->IsMine(s);
  });
  FaultyCallback callback;
  const auto add = [&](std::function<bool()> fail) {
    if (!ranks || is_culprit) {
      fleet.problem.scenario(2)->lower()->AddResidualBlock(
          new Faulty(std::move(fail)), nullptr, fleet.y[1].data());
    }
  };
  if (what == "throws") add([]() -> bool { throw std::runtime_error("out of map tiles"); });
  if (what == "fails") add([] { return false; });
  if (what == "killed") add([]() -> bool { return std::raise(SIGKILL) != 0; });
  if (what == "exits") add([]() -> bool { std::exit(3); });
  if (what == "other_x" && is_culprit) fleet.x[1] = -1.25;
  if (what == "other_options" && is_culprit) options.function_tolerance = 1e-3;
  if (what == "other_method" && is_culprit) options.method = bilevel::CreateMethod("lbfgs");
  if (what == "bad_options" && is_culprit) options.lower_tolerance = -1.0;
  if (what == "other_name" && is_culprit) fleet.problem.AddScenario("one more");
  if (what == "callback" && is_culprit) options.callbacks.push_back(&callback);
  if (what == "checkpoint") options.checkpoint.file = "fleet.npz";
  const bilevel::Solver::Summary summary = fleet.Solve(options);
  if (what == "solve") {
    PrintAll(summary, &fleet, ranks);
  } else {
    std::printf("rank %d: %s: %s\n",
                rank,
                ceres::TerminationTypeToString(summary.termination_type),
                summary.message.c_str());
  }
  return 0;
}

}  // namespace

// "alone_...": without MPI.
int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "solve";
  if (what.rfind("alone_", 0) == 0) return Run(what.substr(6), argc, argv, nullptr);
  bilevel::mpi::Ranks ranks(&argc, &argv);
  try {
    return Run(what, argc, argv, &ranks);
  } catch (const std::exception& e) {
    std::printf("rank %d: main caught: %s\n", ranks.rank(), e.what());
    return 1;
  }
}
