#include "bilevel/lower_level/newton_cg_lower_solver.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bilevel/lower_level/bookkeeping.h"

namespace bilevel {

NewtonCgLowerSolver::NewtonCgLowerSolver(Program* program, const Options& options)
    : program_(program),
      options_(options),
      oracle_(program, nullptr, 0),
      x_(&program->x),
      y_(&program->y),
      trial_(&program->y),
      probe_(&program->x),
      held_(program->y.tangent_size(), 0) {}

std::string NewtonCgLowerSolver::CheckOptions() const {
  return FirstNotPositive(
      {{"newton_cg.tolerance", options_.tolerance},
       {"newton_cg.max_num_iterations", options_.max_num_iterations},
       {"newton_cg.max_num_linear_iterations", options_.max_num_linear_iterations},
       {"newton_cg.linear_tolerance", options_.linear_tolerance}});
}

std::unique_ptr<LowerSolver> NewtonCgLowerSolver::Fork() const {
  return std::make_unique<NewtonCgLowerSolver>(program_, options_);
}

LowerSolverReport NewtonCgLowerSolver::Report() const {
  LowerSolverReport report;
  report.linear_residual = linear_residual_;
  report.num_active_bounds = static_cast<int>(std::count(held_.begin(), held_.end(), char(1)));
  report.remark = "the lower level was solved by products with its Hessian, without a matrix";
  return report;
}

bool NewtonCgLowerSolver::Fail(const std::string& what) {
  message_ = what;
  const std::string latched = oracle_.Clear();
  if (message_.empty()) message_ = latched;
  return false;
}

double NewtonCgLowerSolver::Gradient(const Point& x, const Point& y, Vector* gradient) {
  Stopwatch watch(&counts_.seconds_in_evaluation);
  ++counts_.gradient_steps;
  return oracle_.g.Gradient(x, y, nullptr, gradient);
}

// H s = b in the coordinates that are not held, from s = 0, until |b - H s| <= tolerance |b| or a
// direction without positive curvature, which replaces s if it is the first. linear_residual_ is
// what was reached.
NewtonCgLowerSolver::Curvature NewtonCgLowerSolver::Conjugate(
    const Point& x, const Point& y, const Vector& b, double tolerance, Vector* s) {
  Stopwatch watch(&counts_.seconds_in_linear_algebra);
  const auto clear_held = [&](Vector* v) {
    for (size_t j = 0; j < held_.size(); ++j) {
      if (held_[j]) (*v)[j] = 0.0;
    }
  };
  s->setZero(b.size());
  r_ = b;
  clear_held(&r_);
  p_ = r_;
  double rr = r_.squaredNorm();
  const double norm = std::sqrt(rr);
  linear_residual_ = 0.0;
  for (int k = 0; std::sqrt(rr) > tolerance * norm; ++k) {
    linear_residual_ = std::sqrt(rr) / norm;
    if (k == options_.max_num_linear_iterations) break;
    ++counts_.gradient_steps;
    oracle_.g.HessianProduct(x, y, p_, &hp_, nullptr);
    if (!oracle_.ok()) return Curvature::kFailed;
    clear_held(&hp_);
    const double curvature = p_.dot(hp_);
    if (!(curvature > 1e-14 * p_.norm() * hp_.norm())) {
      if (k == 0) *s = curvature == 0.0 ? p_ : Vector(rr / std::abs(curvature) * p_);
      return Curvature::kNegative;
    }
    const double alpha = rr / curvature;
    *s += alpha * p_;
    r_ -= alpha * hp_;
    const double next = r_.squaredNorm();
    p_ = r_ + next / rr * p_;
    rr = next;
    linear_residual_ = std::sqrt(rr) / norm;
  }
  return Curvature::kPositive;
}

bool NewtonCgLowerSolver::Solve(const Point& x, Point* y) {
  constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
  constexpr int kMostHalvings = 40;
  message_.clear();
  have_dy_dx_ = false;
  ++counts_.warm_solves;
  ++counts_.failed_solves;  // Taken back in the end.
  y_ = *y;
  double value = Gradient(x, y_, &gradient_), first_norm = -1.0;
  for (int iteration = 0;; ++iteration) {
    if (!oracle_.ok()) return Fail("");
    const Space& space = y_.space();
    for (int j = 0; j < space.tangent_size(); ++j) {
      held_[j] = space.IsHeld(y_.value().data(), j, gradient_[j]);
      if (held_[j]) gradient_[j] = 0.0;
    }
    const double norm = gradient_.norm(), unit = std::sqrt(2.0 * std::abs(value));
    if (first_norm < 0.0) first_norm = norm;
    const double tolerance = norm == 0.0 ? 0.1 : std::min(0.1, std::sqrt(norm / first_norm));
    step_ = -gradient_;
    const Curvature curvature = Conjugate(x, y_, step_, tolerance, &z_);
    if (curvature == Curvature::kFailed) return Fail("");
    step_ = z_;
    const double decrement2 = std::max(0.0, -gradient_.dot(step_));
    relative_decrement_ = unit > 0.0 ? std::sqrt(decrement2) / unit : std::sqrt(decrement2);
    const bool convex = curvature == Curvature::kPositive;
    if (convex && relative_decrement_ <= options_.tolerance) break;
    if (iteration == options_.max_num_iterations) {
      return Fail("no stationary point of the lower level after " + std::to_string(iteration) +
                  " Newton iterations by conjugate gradients (relative decrement " +
                  Scientific(relative_decrement_) + ")");
    }
    // Below the rounding of the value, the gradient decides.
    const bool hidden = convex && decrement2 < 1e3 * kEpsilon * std::abs(value);
    bool moved = false;
    double length = 1.0;
    for (int k = 0; k < kMostHalvings && !moved; ++k, length *= 0.5) {
      trial_ = y_;
      if (!trial_.Move(length * step_)) continue;
      const double trial_value = Gradient(x, trial_, &trial_gradient_);
      if (!oracle_.ok()) {
        oracle_.Clear();
        continue;
      }
      moved = hidden ? trial_gradient_.norm() < 0.5 * norm
                     : trial_value <= value - 1e-4 * length * decrement2;
      if (moved) value = trial_value;
      if (hidden) break;
    }
    if (!moved && hidden) break;
    if (!moved) {
      return Fail(
          "no step along the lower level's Newton direction lowers it (relative decrement " +
          Scientific(relative_decrement_) + "): its gradient may be wrong");
    }
    y_ = trial_;
    gradient_ = trial_gradient_;
    if (!y_.value().allFinite() || y_.value().norm() > 1e100) {
      return Fail("the lower level seems unbounded below");
    }
  }
  --counts_.failed_solves;
  *y = y_;
  return true;
}

bool NewtonCgLowerSolver::Differentiate(const Point& x, const Point& y) {
  message_.clear();
  have_dy_dx_ = false;
  x_ = x;
  y_ = y;
  Gradient(x, y, &gradient_);
  if (!oracle_.ok()) return Fail("");
  for (int j = 0; j < y.dim(); ++j) {
    held_[j] = y.space().IsHeld(y.value().data(), j, gradient_[j]);
  }
  return true;
}

bool NewtonCgLowerSolver::SolveLinear(const Vector& b, Vector* solution) {
  const Curvature curvature = Conjugate(x_, y_, b, options_.linear_tolerance, solution);
  if (curvature == Curvature::kFailed) return Fail("");
  if (curvature == Curvature::kNegative) {
    return Fail(
        "conjugate gradients met a direction without positive curvature in the lower level: "
        "y*(x) is not determined there, or no minimiser");
  }
  if (linear_residual_ > options_.linear_tolerance) {
    return Fail("the adjoint of the lower level was not solved in " +
                std::to_string(options_.max_num_linear_iterations) +
                " products (relative residual " + Scientific(linear_residual_) + ")");
  }
  return true;
}

bool NewtonCgLowerSolver::Adjoint(const Vector& fy, Vector* product) {
  if (!SolveLinear(fy, &z_)) return false;
  oracle_.g.HessianProduct(x_, y_, z_, &hp_, product);
  if (!oracle_.ok()) return Fail("");
  *product = -*product;
  return true;
}

bool NewtonCgLowerSolver::IsDetermined(const Vector& fy) { return SolveLinear(fy, &z_); }

const Matrix& NewtonCgLowerSolver::dy_dx() {
  constexpr double kWeights[4][2] = {{1, 8.0}, {-1, -8.0}, {2, -1.0}, {-2, 1.0}};
  if (have_dy_dx_) return dy_dx_;
  have_dy_dx_ = true;
  const int m = x_.dim(), n = y_.dim();
  dy_dx_.setConstant(n, m, std::numeric_limits<double>::quiet_NaN());
  const double h = 1e-3 * std::max(1.0, x_.value().lpNorm<Eigen::Infinity>());
  Vector mixed(n), direction = Vector::Zero(m);
  for (int k = 0; k < m; ++k) {
    mixed.setZero();
    for (const auto& weight : kWeights) {
      probe_ = x_;
      direction[k] = weight[0] * h;
      if (!probe_.Move(direction)) return dy_dx_;
      Gradient(probe_, y_, &gradient_);
      if (!oracle_.ok()) {
        Fail("");
        return dy_dx_;
      }
      mixed -= weight[1] / (12.0 * h) * gradient_;
    }
    direction[k] = 0.0;
    if (!SolveLinear(mixed, &z_)) return dy_dx_;
    dy_dx_.col(k) = z_;
  }
  return dy_dx_;
}

}  // namespace bilevel
