#include "bilevel/methods/hyper_objective/internal/variable_projection.h"

#include <algorithm>

#include "bilevel/base/internal/decompositions.h"

namespace bilevel {
namespace {

constexpr int kMaxSteps = 5;
// The last step decreases f by this share or less.
constexpr double kEnough = 1e-6;

bool LowerLevelHas(const Program& program, int block_of_x) {
  const auto& all = program.scenarios;
  return program.exchange.Any(std::any_of(all.begin(), all.end(), [&](const auto& scenario) {
    return scenario->g->UsesX(block_of_x) ||
           (scenario->constraints && scenario->constraints->UsesX(block_of_x));
  }));
}

}  // namespace

VariableProjection::VariableProjection(Oracle* oracle) : oracle_(oracle) {
  if (!oracle->f.IsLeastSquares()) return;
  const Program& program = oracle->program();
  const auto& blocks = program.x.blocks();
  for (size_t b = 0; b < blocks.size(); ++b) {
    if (LowerLevelHas(program, static_cast<int>(b))) continue;
    for (int i = 0; i < blocks[b].tangent_size; ++i) {
      coordinates_.push_back(blocks[b].tangent_offset + i);
    }
  }
  if (!empty()) no_dy_ = Matrix::Zero(program.y.tangent_size(), program.x.tangent_size());
}

void VariableProjection::Minimize(const Point& y, Point* x, double* value) {
  Vector step = Vector::Zero(x->dim());
  for (int k = 0; k < kMaxSteps; ++k) {
    oracle_->f.Linearize(*x, y, no_dy_, &r_, &j_);
    const Matrix a = j_(Eigen::all, coordinates_);
    step(coordinates_) = -LeastSquares(a.transpose() * a, a.transpose() * r_);
    Point next = *x;
    const double next_value =
        step.allFinite() && next.Move(step) ? oracle_->f.Value(next, y) : *value;
    if (!oracle_->ok()) oracle_->Clear();  // Not from where it was.
    if (!(next_value < *value)) return;
    const bool is_enough = *value - next_value <= kEnough * *value;
    *x = next;
    *value = next_value;
    if (is_enough) return;
  }
}

}  // namespace bilevel
