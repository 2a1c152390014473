#include "bilevel/program/program.h"

#include <cmath>

namespace bilevel {

Program::Program(int num_threads)
    : deadline(std::make_shared<std::chrono::steady_clock::time_point>(
          std::chrono::steady_clock::time_point::max())),
      own_pool(std::make_shared<ThreadPool>(num_threads)),
      pool(*own_pool) {}

Program::Program(const Program& whole, int first, int count)
    : x(whole.x),
      y(whole.y),
      first_scenario(whole.first_scenario + first),
      exchange(whole.exchange.Part(first, count)),
      constraint_of_ranks(whole.constraint_of_ranks),
      deadline(whole.deadline),
      own_pool(whole.own_pool),
      pool(*own_pool) {
  for (const auto& scenario : whole.scenarios) {
    const int place = scenario->index - first_scenario;
    if (place >= 0 && place < count) scenarios.push_back(scenario);
  }
}

Program::~Program() = default;

std::string Program::FirstConstraint() const {
  if (!exchange.is_alone()) return constraint_of_ranks;
  for (const auto& s : scenarios) {
    if (s->constraints) return s->row_names[0];
  }
  return FirstProjectedOnly();
}

std::string Program::FirstConstraintBesideSets() const {
  for (const auto& s : scenarios) {
    if (s->num_own_rows > 0) return s->row_names[0];
  }
  return "";
}

std::string Program::FirstProjectedOnly() const {
  for (const auto& s : scenarios) {
    if (!s->projected_only.empty()) return s->projected_only;
  }
  return "";
}

int Program::num_scenarios() const {
  return exchange.is_alone() ? static_cast<int>(scenarios.size()) : exchange.num_scenarios();
}

bool Program::MoveY(const Vector& delta, Point* point) const {
  if (exchange.is_alone()) return point->Move(delta);
  const Point before = *point;
  if (exchange.All(point->Move(delta))) return true;
  *point = before;
  return false;
}

double Program::NormInY(const Vector& v) const {
  const bool is_point = v.size() != y.tangent_size();
  Matrix squares(1, scenarios.size());
  for (size_t k = 0; k < scenarios.size(); ++k) {
    const Scenario& s = *scenarios[k];
    squares(0, k) = (is_point ? v.segment(s.offset, s.y.size())
                              : v.segment(s.tangent_offset, s.y.tangent_size()))
                        .squaredNorm();
  }
  squares = exchange.Columns("measuring y", nullptr, squares);
  double sum = 0.0;
  for (int s = 0; s < squares.cols(); ++s) sum += squares(0, s);
  return std::sqrt(sum);
}

Vector Program::PullBack(const Matrix& dy_dx, const Vector& v) const {
  Matrix shares(dy_dx.cols(), scenarios.size());
  for (size_t k = 0; k < scenarios.size(); ++k) {
    const int first = scenarios[k]->tangent_offset, size = scenarios[k]->y.tangent_size();
    shares.col(k).noalias() = dy_dx.middleRows(first, size).transpose() * v.segment(first, size);
  }
  Vector sum = Vector::Zero(dy_dx.cols());
  const Matrix all = exchange.Columns("pulling back to x", nullptr, shares);
  for (const auto& share : all.colwise()) sum += share;
  return sum;
}

}  // namespace bilevel
