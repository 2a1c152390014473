#include "bilevel/lower_level/internal/find_wrong_row.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {
namespace {

// A row's derivative is wrong where it is off by this share, and by so many times what two steps of
// differences are off each other.
constexpr double kWrong = 1e-3, kSure = 10.0;
constexpr double kSteps[2] = {1e-5, 1e-4};  // Relative to the coordinate's own size.

// In no special position, every coordinate by its own size.
Vector Direction(const Space& space, const double* p) {
  Vector direction(space.tangent_size());
  for (const Space::Block& block : space.blocks()) {
    double size = 0.0;
    for (int i = 0; i < block.size; ++i) size = std::max(size, std::abs(p[block.offset + i]));
    if (block.manifold || size == 0.0) size = 1.0;
    for (int j = block.tangent_offset; j < block.tangent_offset + block.tangent_size; ++j) {
      direction[j] = size * std::cos(1.0 + j);
    }
  }
  return direction;
}

}  // namespace

std::string FindWrongRow(const Space& space_of_x,
                         const Program::Scenario& scenario,
                         const double* x,
                         const double* y) {
  LevelEvaluator evaluator(scenario.constraints.get(), nullptr);
  RowSparseMatrix b_x, b_y, unused_x, unused_y;
  Vector value, values[2];
  double sum = 0.0;
  if (!evaluator.Linearize(x, y, &sum, &value, &b_x, &b_y)) return "";
  for (const bool is_y : {true, false}) {
    const Space& space = is_y ? scenario.y : space_of_x;
    const double* const here = is_y ? y : x;
    const Vector direction = Direction(space, here);
    const RowSparseMatrix& rows = is_y ? b_y : b_x;
    Vector slopes[2], moved(space.size()), way(space.tangent_size());
    Vector told = Vector::Zero(value.size());  // By the rows, along the shorter step.
    for (const int k : {1, 0}) {
      told.setZero();
      for (const int side : {0, 1}) {
        const double step = side == 0 ? kSteps[k] : -kSteps[k];
        if (!space.Plus(here, Vector(step * direction).data(), moved.data()) ||
            !space.Minus(moved.data(), here, way.data()) ||
            !evaluator.Linearize(is_y ? x : moved.data(),
                                 is_y ? moved.data() : y,
                                 &sum,
                                 &values[side],
                                 &unused_x,
                                 &unused_y)) {
          return "";
        }
        told += (side == 0 ? 1.0 : -1.0) / (2.0 * kSteps[k]) * (rows * way);  // Bounds may cut it.
      }
      slopes[k] = (values[0] - values[1]) / (2.0 * kSteps[k]);
    }
    for (int i = 0; i < value.size(); ++i) {
      double size = std::abs(slopes[0][i]);
      for (RowSparseMatrix::InnerIterator it(rows, i); it; ++it) {
        size = std::max(size, std::abs(it.value() * direction[it.col()]));
      }
      const double off = std::abs(slopes[0][i] - told[i]);
      if (!(off > kWrong * size && off > kSure * std::abs(slopes[0][i] - slopes[1][i]))) continue;
      return "the derivatives of " + scenario.row_names[i] + " by " + (is_y ? "y" : "x") +
             " are not those of its values: along one direction they say " + Number(told[i]) +
             ", and differences " + Number(slopes[0][i]);
    }
  }
  return "";
}

}  // namespace bilevel
