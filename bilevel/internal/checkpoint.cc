#include "bilevel/internal/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/npz.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/terms/objective.h"
#include "bilevel/version.h"

namespace bilevel {
namespace {

constexpr int kFormat = 1;

// Of all terms at a point; 0 of a stream, which never gives the same twice.
double ValueAt(LevelView level, const Point& x, const Point& y) {
  const std::vector<int> sums = level.DrawnFrom();
  if (std::count(sums.begin(), sums.end(), Objective::kStream) > 0) return 0.0;
  return level.Value(x, y);
}

std::vector<std::string> Names(const Space& space) {
  std::vector<std::string> names;
  for (const Space::Block& block : space.blocks()) {
    names.push_back(block.name + "(" + std::to_string(block.size) + ", " +
                    std::to_string(block.tangent_size) + ")");
  }
  return names;
}

}  // namespace

Checkpoint::Checkpoint(const Solver::Options& options, Oracle* oracle)
    : options_(options), oracle_(oracle), last_time_(std::chrono::steady_clock::now()) {}

// What a run is of. Levels that have the same values at its start are the same.
void Checkpoint::Identify(const std::string& method, State* start, Memory* memory) const {
  const Program& program = oracle_->program();
  int format = kFormat;
  memory->Keep("format", &format);
  std::string version = Version(), name = method;
  memory->Keep("version", &version);
  memory->Keep("method_name", &name);
  unsigned seed = options_.seed;
  memory->Keep("seed", &seed);
  int batch = options_.num_scenarios_per_iteration, starts = options_.lower_starts;
  memory->Keep("num_scenarios_per_iteration", &batch);
  memory->Keep("lower_starts", &starts);
  std::vector<std::string> x = Names(program.x), y = Names(program.y);
  memory->Keep("x_blocks", &x);
  memory->Keep("y_blocks", &y);
  {
    const Memory::Group group(memory, "start");
    start->Remember(program.x, program.y, memory);
  }
  // By an oracle of its own: a run's counts are the same with and without checkpoints.
  Oracle probe(oracle_->mutable_program(), nullptr, 0);
  double f = ValueAt(probe.f, start->x, start->y), g = ValueAt(probe.g, start->x, start->y);
  memory->Keep("f_at_start", &f);
  memory->Keep("g_at_start", &g);
}

bool Checkpoint::Open(const std::string& method, State* start, std::string* error) {
  if (!is_wanted()) return true;
  const std::string& file = options_.checkpoint.file;
  if (options_.checkpoint.resume && ::access(file.c_str(), F_OK) == 0) {
    Memory::Arrays arrays;
    if (!ReadNpz(file, &arrays, error)) return false;
    to_resume_.emplace(std::move(arrays));
    const Memory::Group group(&*to_resume_, "start");
    start->Remember(oracle_->program().x, oracle_->program().y, &*to_resume_);
  }
  Identify(method, start, &identity_);
  const std::string difference = to_resume_ ? WhatDiffers() : "";
  return difference.empty() || Refuse("the checkpoint '" + file + "' is " + difference, error);
}

// Between the file and this run; empty: nothing.
std::string Checkpoint::WhatDiffers() const {
  const Memory::Arrays &known = to_resume_->arrays(), &own = identity_.arrays();
  const auto bytes = [](const Memory::Arrays& arrays, const char* name) {
    const auto at = arrays.find(name);
    return at == arrays.end() ? std::string("?") : at->second.bytes;
  };
  const auto differs = [&](const char* name) { return bytes(known, name) != bytes(own, name); };
  if (differs("format") || differs("version")) {
    return "of version " + bytes(known, "version") + ", and this is " + bytes(own, "version");
  }
  if (differs("method_name")) {
    return "of " + bytes(known, "method_name") + ", and this is " + bytes(own, "method_name");
  }
  if (differs("seed") || differs("num_scenarios_per_iteration") || differs("lower_starts")) {
    return "of another seed, num_scenarios_per_iteration or lower_starts";
  }
  if (differs("x_blocks")) return "of another problem: its upper blocks differ";
  if (differs("y_blocks")) return "of another problem: its lower blocks differ";
  const auto value = [&](const Memory::Arrays& arrays, const char* name) {
    double number = 0.0;
    Memory(arrays).Keep(name, &number);
    return Number(number);
  };
  for (const char* name : {"f_at_start", "g_at_start"}) {
    if (!differs(name)) continue;
    return std::string("of another problem: at its start ") + name[0] + " is " +
           value(known, name) + ", and of this problem " + value(own, name);
  }
  return to_resume_->error().empty() ? "" : "none: " + to_resume_->error();
}

void Checkpoint::Resumed(uint64_t iteration) {
  to_resume_.reset();
  last_iteration_ = iteration;
}

bool Checkpoint::IsDue(uint64_t iteration) const {
  const auto& when = options_.checkpoint;
  if (iteration == last_iteration_) return false;
  if (when.every_num_iterations > 0 &&
      iteration - last_iteration_ >= static_cast<uint64_t>(when.every_num_iterations)) {
    return true;
  }
  return when.every_seconds > 0.0 &&
         std::chrono::duration<double>(std::chrono::steady_clock::now() - last_time_).count() >=
             when.every_seconds;
}

bool Checkpoint::Write(Memory* memory, uint64_t iteration, std::string* error) {
  last_iteration_ = iteration;
  last_time_ = std::chrono::steady_clock::now();
  Memory::Arrays arrays = memory->TakeArrays();
  for (const auto& entry : identity_.arrays()) arrays.insert(entry);
  bool ok = false;
  const std::string thrown =
      Thrown([&] { ok = WriteNpz(arrays, options_.checkpoint.file, error); });
  if (!thrown.empty()) *error = "writing the checkpoint" + thrown;
  return ok && thrown.empty();
}

}  // namespace bilevel
