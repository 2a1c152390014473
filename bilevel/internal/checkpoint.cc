#include "bilevel/internal/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
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

bool SameBits(double a, double b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

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
  const auto refuse = [&](const std::string& why) {
    return Refuse("the checkpoint '" + file + "' is " + why, error);
  };
  const bool exists = options_.checkpoint.resume && ::access(file.c_str(), F_OK) == 0;
  if (!exists) {
    Identify(method, start, &identity_);
    return true;
  }
  Memory::Arrays arrays;
  if (!ReadNpz(file, &arrays, error)) return false;
  to_resume_.emplace(std::move(arrays));
  Memory& known = *to_resume_;
  int format = 0;
  std::string version, name;
  known.Keep("format", &format);
  known.Keep("version", &version);
  known.Keep("method_name", &name);
  if (!known.error().empty()) return refuse("none: " + known.error());
  if (format != kFormat || version != Version()) {
    return refuse("of version " + version + ", and this is " + Version());
  }
  if (name != method) return refuse("of " + name + ", and this is " + method);
  unsigned seed = 0;
  int batch = 0, starts = 0;
  std::vector<std::string> x, y;
  known.Keep("seed", &seed);
  known.Keep("num_scenarios_per_iteration", &batch);
  known.Keep("lower_starts", &starts);
  known.Keep("x_blocks", &x);
  known.Keep("y_blocks", &y);
  if (!known.error().empty()) return refuse("none: " + known.error());
  if (seed != options_.seed || batch != options_.num_scenarios_per_iteration ||
      starts != options_.lower_starts) {
    return refuse("of another seed, num_scenarios_per_iteration or lower_starts");
  }
  const Program& program = oracle_->program();
  if (x != Names(program.x)) return refuse("of another problem: its upper blocks differ");
  if (y != Names(program.y)) return refuse("of another problem: its lower blocks differ");
  {
    const Memory::Group group(&known, "start");
    start->Remember(program.x, program.y, &known);
  }
  double f = 0.0, g = 0.0;
  known.Keep("f_at_start", &f);
  known.Keep("g_at_start", &g);
  if (!known.error().empty()) return refuse("none: " + known.error());
  Identify(method, start, &identity_);
  Memory here(identity_.arrays());
  double own_f = 0.0, own_g = 0.0;
  here.Keep("f_at_start", &own_f);
  here.Keep("g_at_start", &own_g);
  for (const auto& [level, was, is] :
       {std::make_tuple("f", f, own_f), std::make_tuple("g", g, own_g)}) {
    if (SameBits(was, is)) continue;
    return refuse(std::string("of another problem: at its start ") + level + " is " + Number(was) +
                  ", and of this problem " + Number(is));
  }
  return true;
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
