#include "bilevel/methods/estimators/adjoint_solver.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"

namespace bilevel {
namespace {

constexpr int kNormStream = -2;
constexpr double kNull = 1e-8;  // Relative to |H|.

}  // namespace

std::string AdjointSteps::Check() const {
  if (num_linear_iterations <= 0) return "num_linear_iterations must be positive";
  if (!(linear_tolerance >= 0.0)) return "linear_tolerance must not be negative";
  if ((kind == kFixedPoint || kind == kNeumann) &&
      !(linear_step > 0.0 && std::isfinite(linear_step))) {
    return "linear_step must be positive";
  }
  return "";
}

void AdjointSolver::Multiply(
    Oracle& o, const Point& x, const Point& y, const Vector& v, Vector* hv) {
  o.g.HessianProduct(x, y, v, hv, nullptr);
  ClearHeld(y, gy_, hv);
}

bool AdjointSolver::Solve(Oracle& o, const Point& x, const Point& y, const Vector& b, Vector* z) {
  if (y.space().has_bounds()) o.g.Gradient(x, y, nullptr, &gy_);
  const bool least_norm = steps_.kind == AdjointSteps::kLeastNorm;
  const bool neumann = steps_.kind == AdjointSteps::kNeumann;
  if (least_norm || neumann) z->setZero(b.size());
  ClearHeld(y, gy_, z);
  r_ = b;
  ClearHeld(y, gy_, &r_);
  const double b_norm = r_.norm(), unit = b_norm > 0.0 ? b_norm : 1.0;
  if (neumann || steps_.kind == AdjointSteps::kFixedPoint) {
    for (int k = 0; k < steps_.num_linear_iterations && o.ok(); ++k) {
      Multiply(o, x, y, *z, &hp_);
      hp_ -= r_;
      *z -= steps_.linear_step * hp_;
    }
    residual_ = hp_.norm() / unit;
    return o.ok();
  }
  if (steps_.kind == AdjointSteps::kMinimalResidual) return MinimizeResidual(o, x, y, z);

  // Conjugate gradients on H z = b, or on H^2 z = H b with the residual s = H r. The latter ends
  // where |s| <= tolerance |H| |r|, or where only directions are left that are null to the accuracy
  // of a differenced H; the norm is a power iteration's, from a random direction.
  const double tolerance = steps_.linear_tolerance * steps_.linear_tolerance;
  const double bb = b_norm * b_norm;
  double hh = 0.0;
  if (least_norm) {
    p_.resize(b.size());
    o.RandomDirection(kNormStream, &p_);
    Multiply(o, x, y, p_, &s_);
    Multiply(o, x, y, s_, &hp_);
    if (s_.squaredNorm() > 0.0) hh = hp_.squaredNorm() / s_.squaredNorm();
    Multiply(o, x, y, r_, &s_);
  } else {
    Multiply(o, x, y, *z, &hp_);
    r_ -= hp_;
    s_ = r_;
  }
  p_ = s_;
  double ss = s_.squaredNorm();
  for (int k = 0; k < steps_.num_linear_iterations && o.ok(); ++k) {
    const double rr = r_.squaredNorm();
    if (ss == 0.0 || rr <= tolerance * bb || ss <= tolerance * hh * rr) break;
    Multiply(o, x, y, p_, &hp_);
    const double curvature = least_norm ? hp_.squaredNorm() : p_.dot(hp_);
    if (!least_norm && !(curvature > 0.0)) {
      o.Fail("conjugate gradients met a direction of curvature " + Number(curvature) +
             " in the lower level: its Hessian is not positive definite there");
      return false;
    }
    if (least_norm && curvature <= kNull * kNull * hh * p_.squaredNorm()) break;
    const double alpha = ss / curvature;
    *z += alpha * p_;
    r_ -= alpha * hp_;
    if (least_norm) {
      Multiply(o, x, y, r_, &s_);
    } else {
      s_ = r_;
    }
    const double next = s_.squaredNorm();
    p_ = s_ + (next / ss) * p_;
    ss = next;
  }
  residual_ = r_.norm() / unit;
  return o.ok();
}

// z += the minimiser of |H z - (r_ - H z)| over growing Krylov spaces: Lanczos' tridiagonalisation
// of H, with its QR factorisation updated by rotations.
bool AdjointSolver::MinimizeResidual(Oracle& o, const Point& x, const Point& y, Vector* z) {
  const double bb = r_.norm();
  Multiply(o, x, y, *z, &hp_);
  r_ -= hp_;
  // v, the one before and w = (v - ...) / gamma, of two iterations back as well.
  Vector &before = lanczos_[0], &now = lanczos_[1], &v = lanczos_[2];
  before.setZero(r_.size());
  now = r_;
  for (Vector& w : w_) w.setZero(r_.size());
  double beta = r_.norm(), last_beta = 1.0;  // Off the diagonal.
  double residual = beta, largest = 0.0;     // An estimate of |H| from below.
  double cosine = -1.0, sine = 0.0, epsilon = 0.0, bar = 0.0;
  for (int k = 0; k < steps_.num_linear_iterations && o.ok(); ++k) {
    if (beta == 0.0 || residual <= steps_.linear_tolerance * bb) break;
    v = now / beta;
    Multiply(o, x, y, v, &hp_);
    hp_ -= (beta / last_beta) * before;
    const double alpha = v.dot(hp_);
    hp_ -= (alpha / beta) * now;
    before.swap(now);
    now = hp_;
    last_beta = beta;
    beta = now.norm();
    largest = std::max(largest, std::hypot(alpha, beta));

    const double last_epsilon = epsilon;
    const double delta = cosine * bar + sine * alpha, g = sine * bar - cosine * alpha;
    epsilon = sine * beta;
    bar = -cosine * beta;
    const double gamma = std::hypot(g, beta);
    // Only directions are left that H does not see: b has no more in its range.
    if (gamma <= kNull * largest) break;
    cosine = g / gamma;
    sine = beta / gamma;
    w_[0].swap(w_[1]);
    w_[1].swap(w_[2]);
    w_[2] = (v - last_epsilon * w_[0] - delta * w_[1]) / gamma;
    *z += (cosine * residual) * w_[2];
    residual *= sine;
  }
  residual_ = bb > 0.0 ? residual / bb : residual;
  return o.ok();
}

}  // namespace bilevel
