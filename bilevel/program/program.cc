#include "bilevel/program/program.h"

namespace bilevel {

Program::Program(int num_threads)
    : deadline(std::make_shared<std::chrono::steady_clock::time_point>(
          std::chrono::steady_clock::time_point::max())),
      own_pool(std::make_shared<ThreadPool>(num_threads)),
      pool(*own_pool) {}

Program::Program(const Program& whole, int first, int count)
    : x(whole.x),
      y(whole.y),
      scenarios(whole.scenarios.begin() + first, whole.scenarios.begin() + first + count),
      deadline(whole.deadline),
      own_pool(whole.own_pool),
      pool(*own_pool) {}

Program::~Program() = default;

std::string Program::FirstConstraint() const {
  for (const auto& s : scenarios) {
    if (s->constraints) return s->row_names[0];
  }
  return "";
}

}  // namespace bilevel
