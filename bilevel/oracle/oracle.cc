#include "bilevel/oracle/oracle.h"

#include <algorithm>
#include <random>
#include <utility>

#include "bilevel/base/memory.h"
#include "bilevel/oracle/internal/per_scenario.h"
#include "bilevel/oracle/internal/remember_counts.h"
#include "bilevel/oracle/lower_solver.h"
#include "bilevel/oracle/scenario_groups.h"

namespace bilevel {
namespace {

constexpr int kMaxWorkers = 16;

}  // namespace

FunctionCounts& FunctionCounts::operator+=(const FunctionCounts& other) {
  values += other.values;
  gradients += other.gradients;
  products += other.products;
  linearizations += other.linearizations;
  samples += other.samples;
  return *this;
}

Oracle::Oracle(Program* program, LowerSolver* lower, uint64_t seed)
    : f(this, true),
      g(this, false),
      program_(program),
      lower_(lower),
      first_lower_(lower),
      seed_(seed) {
  for (auto& scenario : program->scenarios) {
    parts_.push_back(std::make_unique<PerScenario>(program, scenario.get()));
    parts_.back()->index = scenario->index - program->first_scenario;
    if (parts_.size() == 1) continue;
    const PerScenario& before = **(parts_.end() - 2);
    parts_.back()->first_block =
        before.first_block + static_cast<int>(before.scenario->y.blocks().size());
  }
}

Oracle::~Oracle() = default;

void Oracle::SetLower(std::unique_ptr<LowerSolver> lower) {
  for (const auto& worker : workers_) retired_counts_ += worker->lower_solver_counts();
  workers_.clear();  // Theirs are forks of the one before.
  if (lower_is_the_methods()) retired_counts_ += lower_->counts();
  lower_ = lower ? lower.get() : first_lower_;
  own_lower_ = std::move(lower);
}

Batch Oracle::Draw(int size, int stream, uint64_t index, Batch::Sampling sampling) const {
  Batch batch;
  batch.size = size;
  batch.sampling = sampling;
  batch.position = index;
  batch.seed = Mix(Mix(seed_) + static_cast<uint64_t>(stream));
  // A shuffled stream is one sequence; the others start anew with every batch.
  const bool shuffled = sampling == Batch::kShuffled || sampling == Batch::kShuffledBlocks;
  if (!shuffled) batch.seed = Mix(batch.seed + index);
  return batch;
}

void Oracle::DrawScenarios() {
  if (!groups_) return;
  constexpr int kStream = -1;  // No method's.
  const int group = Draw(1, kStream, iteration, Batch::kShuffled).Term(0, groups_->num_groups());
  groups_->Use(group);
  first_used_ = groups_->first_scenario(group);
  num_used_ = groups_->num_scenarios(group);
  used_scale_ = groups_->num_groups();
}

void Oracle::UseScenario(int index) {
  first_used_ = index;
  num_used_ = 1;
  used_scale_ = 1.0;
}

void Oracle::UseAllScenarios() {
  if (groups_) groups_->Use(-1);
  first_used_ = 0;
  num_used_ = -1;
  used_scale_ = 1.0;
}

Oracle::Parts Oracle::UsedParts() const {
  const int size = static_cast<int>(parts_.size());
  if (!uses_scenario_batch()) return {0, size};
  Parts used{0, 0};
  while (used.first < size && parts_[used.first]->index < first_used_) ++used.first;
  while (used.first + used.count < size &&
         parts_[used.first + used.count]->index < first_used_ + num_used_) {
    ++used.count;
  }
  return used;
}

Exchange Oracle::UsedExchange() const {
  const Exchange& all = program_->exchange;
  return uses_scenario_batch() ? all.Part(first_used_, num_used_) : all;
}

bool Oracle::Solve(const Point& x, Point* y) {
  if (!lower_) {
    message_ = "there is no lower solver";
    return false;
  }
  if (lower_->Solve(x, y)) return true;
  message_ = lower_->message();
  return false;
}

bool Oracle::Differentiate(const Point& x, const Point& y) {
  if (lower_->Differentiate(x, y)) return true;
  message_ = lower_->message();
  return false;
}

bool Oracle::Differentiate(const Point& x, Point* y) {
  if (Differentiate(x, *y)) return true;
  const std::string why = message_;
  if (Solve(x, y)) return Differentiate(x, *y);
  message_ = why;
  return false;
}

void Oracle::MakeWorkers(int num_workers) {
  while (static_cast<int>(workers_.size()) < num_workers) {
    std::unique_ptr<LowerSolver> lower = lower_ ? lower_->Fork() : nullptr;
    workers_.push_back(std::make_unique<Oracle>(program_, lower.get(), seed_));
    workers_.back()->own_lower_ = std::move(lower);
  }
}

bool Oracle::Remember(Memory* memory) {
  memory->Keep("iteration", &iteration);
  RememberCounts("f_counts", &f_counts_, memory);
  RememberCounts("g_counts", &g_counts_, memory);
  RememberCounts("retired_counts", &retired_counts_, memory);
  int num_workers = static_cast<int>(workers_.size());
  memory->Keep("num_workers", &num_workers);
  MakeWorkers(num_workers);
  bool all = true;
  if (lower_) {
    const Memory::Group group(memory, "lower");
    all &= lower_->Remember(memory);
  }
  if (lower_is_the_methods()) {
    const Memory::Group group(memory, "first_lower");
    all &= first_lower_->Remember(memory);
  }
  for (int i = 0; i < num_workers; ++i) {
    const Memory::Group group(memory, "worker_" + std::to_string(i));
    all &= workers_[i]->Remember(memory);
  }
  return all;
}

void Oracle::ForEach(int n, const std::function<void(Oracle& worker, int i)>& body) {
  const int num_workers = std::min(n, kMaxWorkers);
  MakeWorkers(num_workers);
  std::vector<std::string> errors(n);
  for (auto& worker : workers_) worker->iteration = iteration;
  const auto work = [&](int, int w) {
    for (int i = w; i < n; i += num_workers) {
      body(*workers_[w], i);
      errors[i] = workers_[w]->Clear();
    }
  };
  if (program_->exchange.is_alone()) {
    program_->pool.ParallelFor(num_workers, 1, work);
  } else {  // Ranks meet at every evaluation: one after the other.
    for (int w = 0; w < num_workers; ++w) work(0, w);
  }
  for (auto& worker : workers_) {
    f_counts_ += std::exchange(worker->f_counts_, {});
    g_counts_ += std::exchange(worker->g_counts_, {});
  }
  for (const std::string& error : errors) {
    if (!error.empty()) Fail(error);
  }
}

LowerSolverCounts Oracle::lower_solver_counts() const {
  LowerSolverCounts sum = retired_counts_;
  if (lower_) sum += lower_->counts();
  if (lower_is_the_methods()) sum += first_lower_->counts();
  for (const auto& worker : workers_) sum += worker->lower_solver_counts();
  return sum;
}

void Oracle::RandomDirection(int stream, Vector* direction) const {
  std::seed_seq sequence{seed_, iteration, static_cast<uint64_t>(stream)};
  std::mt19937_64 generator(sequence);
  std::normal_distribution<double> normal;
  for (double& entry : *direction) entry = normal(generator);
  direction->normalize();
}

void Oracle::Fail(const std::string& what) {
  if (error_.empty()) error_ = what.empty() ? "an evaluation failed" : what;
}

std::string Oracle::Clear() {
  std::string was;
  was.swap(error_);
  return was;
}

}  // namespace bilevel
