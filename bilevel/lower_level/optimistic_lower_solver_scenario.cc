// The lower level's solutions of one scenario, and f along them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/name_blocks.h"
#include "bilevel/lower_level/internal/optimistic_lower_solver_scenario.h"

namespace bilevel {
namespace {

// A vector with a larger share in a null space sees it.
constexpr double kVisibleShare = 1e-6;

}  // namespace

bool OptimisticLowerSolver::PerScenario::Minimize(const Vector& at_x, const Vector& at_y) {
  evaluated = false;
  x = at_x;
  y.value() = at_y;
  if (!Evaluate(true) || !Approach() || !Project()) return false;
  double previous = std::numeric_limits<double>::infinity();
  for (int iteration = 0;; ++iteration) {
    double reduced_decrement = 0.0;
    Slide slide = NewtonSlide(&reduced_decrement);
    const double rounding = Rounding(w_diagonal);
    const bool is_stationary =
        reduced_decrement <= rounding ||
        HasStalled(reduced_decrement, previous, kStalled * Unit(f_value), rounding);
    if (is_stationary) {
      if (!(reduced_eigen->lowest_eigenvalue() < -ComponentEigen::kSurelyNot)) {
        least_dimension = std::min(least_dimension, static_cast<int>(null.cols()));
        most_dimension = std::max(most_dimension, static_cast<int>(null.cols()));
        return evaluated = CheckHeld() && CheckSmoothness();
      }
      slide = SlideOffSaddle();
    } else {
      slide.is_hidden = IsHiddenInValue(-slide.slope, std::abs(f_value)) ||
                        IsNearRounding(reduced_decrement, rounding);
    }
    if (iteration >= options.max_num_iterations) {
      return Fail("f has no minimum among its solutions after " + std::to_string(iteration) +
                  " Newton iterations (decrement " + Scientific(reduced_decrement) + ")");
    }
    double share = 1.0;
    if (!Follow(slide, &share)) return false;
    previous = share == 1.0 && !is_stationary ? reduced_decrement
                                              : std::numeric_limits<double>::infinity();
    if (!Project()) return false;
  }
}

// -N R^-1 N'f_y, and its decrement.
OptimisticLowerSolver::PerScenario::Slide OptimisticLowerSolver::PerScenario::NewtonSlide(
    double* reduced_decrement) const {
  Slide slide;
  Vector t;
  reduced_eigen->SolveAbsolute(reduced_gradient, 0.0, &t);
  t = -t;
  slide.slope = reduced_gradient.dot(t);
  slide.direction = null * t;
  *reduced_decrement = std::sqrt(std::max(0.0, -slide.slope));
  return slide;
}

// Down, either way.
OptimisticLowerSolver::PerScenario::Slide OptimisticLowerSolver::PerScenario::SlideOffSaddle()
    const {
  const double unit = Unit(f_value);
  Slide slide;
  Vector t = reduced_eigen->LowestDirection();
  t *= 0.5 * (unit > 0.0 ? unit : 1.0) / std::sqrt(-reduced_eigen->lowest_eigenvalue());
  slide.direction = null * t;
  slide.bend = unit > 0.0 ? -0.25 * unit * unit : -0.25;
  return slide;
}

// Takes a share of it that decreases f, and comes back to the set, where the tangent space is still
// of use.
bool OptimisticLowerSolver::PerScenario::Follow(const Slide& slide, double* share) {
  const Vector best_y = y.value();
  const double before = f_value;
  const int dimension = static_cast<int>(null.cols());
  Vector predicted;
  for (*share = 1.0;; *share *= 0.5) {
    double trial_value = 0.0;
    y.value() = best_y;
    const bool has_arrived = Move(*share * slide.direction, &y) && Evaluate() &&
                             (predicted = y.value(), Approach()) &&
                             (y.value() - predicted).norm() <= 0.5 * (predicted - best_y).norm();
    if (has_arrived && f.Value(x.data(), y.value().data(), Batch::All(), &trial_value)) {
      const double allowed = slide.is_hidden ? RoundingOfValue(std::abs(before)) - slide.slope
                                             : kSufficientDecrease * *share *
                                                   (slide.slope + 0.5 * *share * slide.bend);
      if (trial_value <= before + allowed) break;
    }
    if (*share < kShortestStep) {
      y.value() = best_y;
      return Fail("no step along its solutions decreases f" +
                  (message.empty() ? std::string() : " (" + message + ")"));
    }
  }
  message.clear();
  if (null.cols() == dimension) return true;
  return Fail("the rank of its Hessian changes along its solutions: the set has " +
              std::to_string(dimension) + " dimension(s) here and " + std::to_string(null.cols()) +
              " there");
}

bool OptimisticLowerSolver::PerScenario::Evaluate(bool find_held) {
  {
    Stopwatch watch(&counts.seconds_in_evaluation);
    if (!g.Hessian(x.data(),
                   y.value().data(),
                   HessianKind::kExact,
                   &value,
                   gradient.data(),
                   &h,
                   &jacobian)) {
      return Fail(g.error());
    }
  }
  if (find_held) FindHeld();
  multipliers = gradient;
  Hold(&gradient);
  Hold(&h, &jacobian);
  Stopwatch watch(&counts.seconds_in_linear_algebra);
  ++counts.factorizations;
  return eigen.Compute(h, eigen.UnitDiagonal(h), options.rank_tolerance) ||
         Fail("its Hessian is not finite");
}

bool OptimisticLowerSolver::PerScenario::Project() {
  {
    Stopwatch watch(&counts.seconds_in_evaluation);
    if (!f.Hessian(
            x.data(), y.value().data(), HessianKind::kExact, &f_value, fy.data(), &fyy, &fyx)) {
      return Fail(f.error());
    }
  }
  Hold(&fy);
  eigen.Solve(fy, &lambda);
  lambda = -lambda;
  if (!DifferentiateHessian()) return false;
  Stopwatch watch(&counts.seconds_in_linear_algebra);
  SparseMatrix lower = fyy + third_yy;
  w = lower.selfadjointView<Eigen::Lower>();
  reduced_gradient = null.transpose() * fy;
  SparseMatrix reduced = null.transpose() * SparseMatrix(w * null);
  reduced = SparseMatrix(reduced.triangularView<Eigen::Lower>());
  // R may be nothing but rounding: its scale is that of what it is a sum of.
  lower = fyy.cwiseAbs() + third_yy.cwiseAbs();
  w_diagonal = lower.diagonal();
  const SparseMatrix terms = lower.selfadjointView<Eigen::Lower>(), basis = null.cwiseAbs();
  Vector scale = basis.cwiseProduct(terms * basis).transpose() * Vector::Ones(basis.rows());
  const double largest = scale.size() > 0 ? scale.maxCoeff() : 0.0;
  for (double& entry : scale) {
    entry = std::max(entry, largest > 0.0 ? kRoundingOfProduct * largest : 1.0);
  }
  reduced_eigen = std::make_unique<ComponentEigen>(reduced);
  return reduced_eigen->Compute(reduced, scale, 0.0) ||
         Fail("the upper level's Hessian along the lower level's solutions is not finite");
}

// D^3 g along lambda in (y, y) and in (y, x), by central differences of exact Hessians.
bool OptimisticLowerSolver::PerScenario::DifferentiateHessian() {
  std::fill_n(third_yy.valuePtr(), third_yy.nonZeros(), 0.0);
  std::fill_n(third_yx.valuePtr(), third_yx.nonZeros(), 0.0);
  const double longest = LengthAlongLambda();
  if (!std::isfinite(longest)) return true;
  Stopwatch watch(&counts.seconds_in_evaluation);
  const Eigen::Index num_yy = h.nonZeros(), num_yx = jacobian.nonZeros();
  Vector base(num_yy + num_yx), finest, best;
  base << Eigen::Map<Vector>(h.valuePtr(), num_yy), Eigen::Map<Vector>(jacobian.valuePtr(), num_yx);
  double error = 0.0, best_error = std::numeric_limits<double>::infinity();
  for (double share : {2e-2, 2e-3, 2e-4}) {
    const Difference difference = DifferenceHessians(share * longest, base, &finest, &error);
    if (difference == Difference::kNone) return true;
    if (difference == Difference::kFailed) continue;
    if (error < best_error) {
      best_error = error;
      best = finest;
    }
    if (error <= 1e-9 * finest.norm()) break;
  }
  if (best.size() == 0) return Fail("its Hessian cannot be evaluated near y: " + g.error());
  std::copy_n(best.data(), num_yy, third_yy.valuePtr());
  std::copy_n(best.data() + num_yy, num_yx, third_yx.valuePtr());
  return true;
}

// How many lambda are as long as y, in the block where they are the longest beside it.
double OptimisticLowerSolver::PerScenario::LengthAlongLambda() const {
  double longest = std::numeric_limits<double>::infinity();
  const double largest = y.value().lpNorm<Eigen::Infinity>();
  for (const Space::Block& block : space.blocks()) {
    const double own = y.value().segment(block.offset, block.size).lpNorm<Eigen::Infinity>();
    const double along =
        lambda.segment(block.tangent_offset, block.tangent_size).lpNorm<Eigen::Infinity>();
    const double size = own > 0.0 ? own : largest > 0.0 ? largest : 1.0;
    if (along > 0.0) longest = std::min(longest, size / along);
  }
  return longest;
}

// The entries of g_yy and g_yx at y plus shift * lambda.
bool OptimisticLowerSolver::PerScenario::EvaluateHessians(double shift, Vector* entries) {
  SparseMatrix yy = h, yx = jacobian;
  trial.value() = y.value();
  if (!trial.Move(shift * lambda) ||
      !g.Hessian(
          x.data(), trial.value().data(), HessianKind::kExact, nullptr, step.data(), &yy, &yx)) {
    return false;
  }
  Hold(&yy, &yx);
  entries->resize(yy.nonZeros() + yx.nonZeros());
  *entries << Eigen::Map<Vector>(yy.valuePtr(), yy.nonZeros()),
      Eigen::Map<Vector>(yx.valuePtr(), yx.nonZeros());
  return true;
}

// Their derivative, by steps of size, size/2 and size/4, extrapolated to sixth order; the error is
// that of the fourth. kNone: g is quadratic, as far as can be seen.
OptimisticLowerSolver::PerScenario::Difference
OptimisticLowerSolver::PerScenario::DifferenceHessians(double size,
                                                       const Vector& base,
                                                       Vector* finest,
                                                       double* error) {
  Vector ahead, behind, differences[3];
  for (int level = 0; level < 3; ++level) {
    const double shift = size / (1 << level);
    if (!EvaluateHessians(shift, &ahead) || !EvaluateHessians(-shift, &behind)) {
      return Difference::kFailed;
    }
    const double change = std::max((ahead - base).lpNorm<Eigen::Infinity>(),
                                   (behind - base).lpNorm<Eigen::Infinity>());
    if (level == 0 && change <= kRoundingOfPoint * base.lpNorm<Eigen::Infinity>()) {
      return Difference::kNone;
    }
    differences[level] = (ahead - behind) / (2.0 * shift);
  }
  const Vector coarse = (4.0 * differences[1] - differences[0]) / 3.0;
  const Vector fine = (4.0 * differences[2] - differences[1]) / 3.0;
  *finest = (16.0 * fine - coarse) / 15.0;
  *error = (*finest - fine).norm();
  return Difference::kDone;
}

bool OptimisticLowerSolver::PerScenario::CheckSmoothness() {
  if (null.cols() == 0) return true;
  const SparseMatrix seen = null * SparseMatrix(null.transpose() * jacobian);
  const Vector scale = eigen.d().cwiseInverse();
  const auto size = [&](const SparseMatrix& m, int column) {
    return std::sqrt(Vector(m.col(column).cwiseAbs2()).dot(scale));
  };
  for (int j = 0; j < jacobian.cols(); ++j) {
    if (size(seen, j) <= kVisibleShare * size(jacobian, j)) continue;
    return Fail(
        "its solutions do not move smoothly with x: d^2g/dydx has a part in the "
        "directions that d^2g/dy^2 leaves free, where g is not Morse-Bott");
  }
  return true;
}

bool OptimisticLowerSolver::PerScenario::SolveReduced(const Vector& v, Vector* t) {
  const Vector own = null.transpose() * v;
  reduced_eigen->Solve(own, t);
  if (reduced_eigen->null_dimension() == 0) return true;
  const SparseMatrix free = reduced_eigen->NullBasis();
  if ((free.transpose() * own).norm() <= kVisibleShare * v.norm()) return true;
  return Fail("what is asked depends on " + std::to_string(free.cols()) +
              " direction(s) that neither level determines, in " + FreeBlocks());
}

void OptimisticLowerSolver::PerScenario::PullBack(const Vector& v, Vector* product) const {
  Vector u;
  eigen.Solve(w * v, &u);
  *product += fyx.transpose() * v + third_yx.transpose() * v - jacobian.transpose() * u;
}

std::string OptimisticLowerSolver::PerScenario::FreeBlocks() const {
  const SparseMatrix basis = null * reduced_eigen->NullBasis();
  Vector share = Vector::Zero(space.tangent_size());
  for (int j = 0; j < basis.cols(); ++j) share += basis.col(j).cwiseAbs2();
  return NameBlocks(space, share.sum(), [&](const Space::Block& block) {
    return share.segment(block.tangent_offset, block.tangent_size).sum();
  });
}

}  // namespace bilevel
