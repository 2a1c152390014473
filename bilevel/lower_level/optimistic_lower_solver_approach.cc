// The way of one scenario to the lower level's solutions.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/optimistic_lower_solver_scenario.h"
#include "bilevel/lower_level/internal/rise_before_fall.h"

namespace bilevel {
namespace {

// So many inflections are left on the way.
constexpr int kMostLeft = 10;
// Null directions that are looked along one by one.
constexpr int kMostAlone = 4;
// A coordinate on which g curves by less than this share of it may be at an inflection.
constexpr double kFlat = 1e-4;

}  // namespace

double OptimisticLowerSolver::PerScenario::Rounding(const Vector& d) const {
  double squared = 0.0;
  for (const Space::Block& block : space.blocks()) {
    const auto scale = d.segment(block.tangent_offset, block.tangent_size);
    const auto values = y.value().segment(block.offset, block.size);
    squared +=
        block.manifold ? scale.maxCoeff() * values.squaredNorm() : scale.dot(values.cwiseAbs2());
  }
  return kRoundingOfPoint * std::sqrt(squared);
}

double OptimisticLowerSolver::PerScenario::Measure() {
  Stopwatch watch(&counts.seconds_in_linear_algebra);
  const auto decrement_of = [&] { return std::sqrt(std::max(0.0, gradient.dot(step))); };
  const double rounding = Rounding(eigen.d());
  eigen.SolveAbsolute(gradient, 0.0, &step);
  decrement = decrement_of();
  const double distance = decrement / (decrement + rounding / kRoundingOfPoint);
  if (decrement > rounding) {
    eigen.SolveAbsolute(gradient, 0.1 * std::min(1.0, 10.0 * distance), &step);
    if (decrement_of() < 0.1 * decrement) eigen.SolveAbsolute(gradient, 0.0, &step);
  }
  const double unit = Unit(value);
  relative_decrement = unit > 0.0 ? decrement / unit : decrement;
  return rounding;
}

bool OptimisticLowerSolver::PerScenario::Approach() {
  double previous = std::numeric_limits<double>::infinity();
  int num_left = 0;
  noise.Forget();
  for (int iteration = 0;; ++iteration) {
    if (program.IsLate()) return Fail(Program::kTimeIsOver);
    const double rounding = Measure();
    const bool is_short = step.norm() <= kLongestStalled * (1.0 + y.value().norm());
    if (decrement <= std::max(rounding, kUnderflow) ||
        (is_short && HasStalled(decrement, previous, kStalled * Unit(value), rounding) &&
         IsInNoise(decrement,
                   [&](double share, double* off) { return OffStraightLine(share, off); }))) {
      if (!FindNullSpace(rounding)) return false;
      if (!LeaveInflection()) return true;
      if (++num_left > kMostLeft) return Fail("its stationary points are no minima");
      previous = std::numeric_limits<double>::infinity();
      if (!Evaluate()) return false;
      continue;
    }
    if (iteration >= options.max_num_iterations) {
      return Fail("no stationary point after " + std::to_string(iteration) +
                  " Newton iterations (relative decrement " + Scientific(relative_decrement) + ")");
    }
    double share = 1.0;
    message.clear();
    if (!Descend(rounding, &share)) {
      return Fail("no step decreases its cost" + (message.empty() ? "" : ": " + message));
    }
    previous = share == 1.0 ? decrement : std::numeric_limits<double>::infinity();
    if (!Evaluate()) return false;
  }
}

// By how much, in the norm of the decrement, the gradient a share of the step on is off what the
// Hessian says. False: it cannot be evaluated.
bool OptimisticLowerSolver::PerScenario::OffStraightLine(double share, double* off) {
  trial.value() = y.value();
  Vector there(gradient.size()), newton;
  double unused = 0.0;
  if (!Move(-share * step, &trial) ||
      !g.Gradient(x.data(), trial.value().data(), Batch::All(), &unused, nullptr, there.data())) {
    return false;
  }
  Hold(&there);
  there -= gradient - h.selfadjointView<Eigen::Lower>() * (share * step);
  eigen.SolveAbsolute(there, 0.0, &newton);
  *off = std::sqrt(std::max(0.0, there.dot(newton)));
  return true;
}

// By a share of the step. False: by none.
bool OptimisticLowerSolver::PerScenario::Descend(double rounding, double* share) {
  const double slope = gradient.dot(step);
  double trial_value = 0.0;
  const auto is_good = [&] {
    const double size = std::max(std::abs(value), noise.largest() / kEpsilon);
    const bool is_hidden = IsHiddenInValue(slope, size) || IsNearRounding(decrement, rounding) ||
                           (*share == 1.0 && trial_value == value);
    const double allowed =
        is_hidden ? RoundingOfValue(size) + slope : -kSufficientDecrease * *share * slope;
    return trial_value <= value + allowed;
  };
  for (*share = 1.0;; *share *= 0.5) {
    trial.value() = y.value();
    if (Move(-*share * step, &trial)) {
      Stopwatch watch(&counts.seconds_in_evaluation);
      const double* const there = trial.value().data();
      if (g.Value(x.data(), there, Batch::All(), &trial_value)) {
        if (is_good()) break;
        if (*share == 1.0 &&
            noise.At(x.data(), y.value().data()) + noise.At(x.data(), there) > 0.0 && is_good()) {
          break;
        }
      }
    }
    if (*share < kShortestStep) return false;
  }
  std::swap(y, trial);
  return true;
}

bool OptimisticLowerSolver::PerScenario::FindNullSpace(double rounding) {
  if (eigen.is_ambiguous()) {
    return Fail(
        "the rank of its Hessian cannot be told: the scaled eigenvalues either side of "
        "the cut are " +
        Scientific(eigen.largest_null()) + " and " + Scientific(eigen.smallest_kept()) +
        "; set rank_tolerance between those that are zero and those that are not");
  }
  if (eigen.null_dimension() < space.tangent_size() &&
      eigen.lowest_eigenvalue() <= -eigen.smallest_kept()) {
    return Fail("its stationary point is a saddle: the Hessian has a negative eigenvalue there");
  }
  null = eigen.NullBasis();
  const Vector free = null * (null.transpose() * gradient);
  if (free.cwiseQuotient(eigen.d().cwiseSqrt()).norm() > 1e6 * rounding + 1e3 * decrement) {
    return Fail("its Hessian vanishes along a direction along which the gradient does not");
  }
  return true;
}

// Newton's last step, the flattest coordinate, and the null directions: one that is made of all,
// and a few one by one.
bool OptimisticLowerSolver::PerScenario::LeaveInflection() {
  const double size = 1.0 + y.value().norm();
  if (step.norm() > 0.0 && FallsAlong(-step.normalized())) return true;
  const auto falls_either_side = [&](const Vector& along) {
    return FallsAlong(along.normalized()) || FallsAlong(-along.normalized());
  };
  int flattest = 0;
  if (eigen.d().minCoeff(&flattest) * size * size <= kFlat * std::abs(value) &&
      falls_either_side(Vector::Unit(step.size(), flattest))) {
    return true;
  }
  const int n = static_cast<int>(null.cols());
  Vector all(n);
  for (int j = 0; j < n; ++j) all[j] = std::cos(1.0 + j);  // In no special position.
  if (n > 1 && falls_either_side(null * all)) return true;
  for (int j = 0; j < std::min(n, kMostAlone); ++j) {
    if (falls_either_side(null.col(j))) return true;
  }
  return false;
}

bool OptimisticLowerSolver::PerScenario::FallsAlong(const Vector& direction) {
  Stopwatch watch(&counts.seconds_in_evaluation);
  double there = 0.0;
  const auto rounding = [&] {
    return RoundingOfValue(std::max(std::abs(value), noise.largest() / kEpsilon));
  };
  for (const double way : {1e-1, 1e-2, 1e-3}) {
    const double length = way * (1.0 + y.value().norm());
    trial.value() = y.value();
    if (!Move(length * direction, &trial) ||
        !g.Value(x.data(), trial.value().data(), Batch::All(), &there) ||
        !(there < value - rounding())) {
      continue;
    }
    noise.At(x.data(), y.value().data());
    noise.At(x.data(), trial.value().data());
    const double curvature = direction.dot(h.selfadjointView<Eigen::Lower>() * direction);
    if (there < value - rounding() &&
        RiseBeforeFall(gradient.dot(direction), curvature, length, value - there) <= rounding()) {
      std::swap(y, trial);
      return true;
    }
  }
  return false;
}

}  // namespace bilevel
