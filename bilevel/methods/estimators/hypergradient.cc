#include "bilevel/methods/estimators/hypergradient.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bilevel/lower_level/lower_solver.h"

namespace bilevel {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// y_{k+1} = y_k plus s. For perturbations e of y_k and c of s, in tangent coordinates,
//     y_{k+1}' = y_{k+1} plus (along e + across c).
// Identity on flat blocks; central differences of Plus and Minus, of fourth order, on others.
// Replaces a (a covector at y_{k+1}) by along' a and writes across' a.
void PullBackThroughStep(const Space& space,
                         const Vector& from,
                         const Vector& to,
                         const Vector& s,
                         Vector* a,
                         Vector* c) {
  *c = *a;
  for (const Space::Block& block : space.blocks()) {
    if (!block.manifold) continue;
    const int n = block.size, t = block.tangent_size;
    const double* y0 = from.data() + block.offset;
    const double* y1 = to.data() + block.offset;
    const Vector own = a->segment(block.tangent_offset, t);
    const Vector step = s.segment(block.tangent_offset, t);
    Vector moved(n), shifted(n), delta(t), difference(t), along(t), across(t);
    constexpr double kStep = 1e-3;
    constexpr double kWeights[4][2] = {{1, 8.0}, {-1, -8.0}, {2, -1.0}, {-2, 1.0}};
    for (int k = 0; k < t; ++k) {
      along[k] = across[k] = 0.0;
      for (const auto& w : kWeights) {
        delta = Vector::Unit(t, k) * (w[0] * kStep);
        block.manifold->Plus(y0, delta.data(), moved.data());
        block.manifold->Plus(moved.data(), step.data(), shifted.data());
        block.manifold->Minus(shifted.data(), y1, difference.data());
        along[k] += w[1] / (12.0 * kStep) * own.dot(difference);
        delta += step;
        block.manifold->Plus(y0, delta.data(), shifted.data());
        block.manifold->Minus(shifted.data(), y1, difference.data());
        across[k] += w[1] / (12.0 * kStep) * own.dot(difference);
      }
    }
    a->segment(block.tangent_offset, t) = along;
    c->segment(block.tangent_offset, t) = across;
  }
}

// The tangent gradient G(y) is written in the frame at y, which turns as y moves: its derivative
// along e is H e plus what the frame's turning makes of G. Adds the transpose of the latter times
// b:
//     sum_ki G_k b_i d^2 Minus((y plus e) plus d, y)_k / (dd_i de_j),
// by central differences, of fourth order in each.
void AddFrameTerm(
    const Space& space, const Vector& y, const Vector& g, const Vector& b, Vector* a) {
  constexpr double kStep = 5e-3;
  constexpr double kWeights[4][2] = {{1, 8.0}, {-1, -8.0}, {2, -1.0}, {-2, 1.0}};
  for (const Space::Block& block : space.blocks()) {
    if (!block.manifold) continue;
    const int n = block.size, t = block.tangent_size;
    const double* at = y.data() + block.offset;
    Vector moved(n), shifted(n), d(t), e(t), difference(t);
    for (int j = 0; j < t; ++j) {
      double sum = 0.0;
      for (const auto& along_e : kWeights) {
        e = Vector::Unit(t, j) * (along_e[0] * kStep);
        block.manifold->Plus(at, e.data(), moved.data());
        for (const auto& along_b : kWeights) {
          d = b.segment(block.tangent_offset, t) * (along_b[0] * kStep);
          block.manifold->Plus(moved.data(), d.data(), shifted.data());
          block.manifold->Minus(shifted.data(), at, difference.data());
          sum += along_e[1] * along_b[1] * g.segment(block.tangent_offset, t).dot(difference);
        }
      }
      (*a)[block.tangent_offset + j] += sum / (144.0 * kStep * kStep);
    }
  }
}

std::string CheckSteps(int num_lower_steps, double lower_step) {
  if (num_lower_steps < 0) return "num_lower_steps must not be negative";
  if (num_lower_steps > 0 && !(lower_step > 0.0)) return "lower_step must be positive";
  return "";
}

}  // namespace

double ExactHypergradient::Estimate(Oracle& o, State& s, Vector* gradient) {
  if (!o.Solve(s.x, &s.y) || !o.Differentiate(s.x, s.y)) {
    o.Fail(o.message());
    return kNaN;
  }
  const double f = o.f.Gradient(s.x, s.y, gradient, &fy_);
  if (!o.ok()) return kNaN;
  if (!o.lower().Adjoint(fy_, &pulled_back_)) {
    o.Fail(o.lower().message());
    return kNaN;
  }
  *gradient += pulled_back_;
  return f;
}

std::string AidHypergradient::Check(const Oracle& /*oracle*/) const {
  if (options_.num_linear_iterations <= 0) return "num_linear_iterations must be positive";
  if (options_.kind == kFixedPoint && !(options_.linear_step > 0.0)) {
    return "linear_step must be positive";
  }
  return CheckSteps(options_.num_lower_steps, options_.lower_step);
}

double AidHypergradient::Estimate(Oracle& o, State& s, Vector* gradient) {
  if (options_.num_lower_steps == 0 && !o.Solve(s.x, &s.y)) {
    o.Fail(o.message());
    return kNaN;
  }
  for (int t = 0; t < options_.num_lower_steps; ++t) {
    o.g.Gradient(s.x, s.y, nullptr, &gy_);
    if (!o.ok() || !s.y.Move(-options_.lower_step * gy_)) return kNaN;
  }
  const double f = o.f.Gradient(s.x, s.y, gradient, &fy_);
  Vector& z = s.Get("z", s.y.dim());
  if (options_.kind == kFixedPoint) {
    for (int k = 0; k < options_.num_linear_iterations && o.ok(); ++k) {
      o.g.HessianProduct(s.x, s.y, z, &hz_, nullptr);
      z -= options_.linear_step * (hz_ - fy_);
    }
  } else {
    o.g.HessianProduct(s.x, s.y, z, &hz_, nullptr);
    r_ = fy_ - hz_;
    p_ = r_;
    double rr = r_.squaredNorm();
    const double target = options_.linear_tolerance * options_.linear_tolerance * fy_.squaredNorm();
    for (int k = 0; k < options_.num_linear_iterations && rr > target && o.ok(); ++k) {
      o.g.HessianProduct(s.x, s.y, p_, &hz_, nullptr);
      const double curvature = p_.dot(hz_);
      if (!(curvature > 0.0)) {
        o.Fail("conjugate gradients met a direction of curvature " + std::to_string(curvature) +
               " in the lower level: its Hessian is not positive definite there");
        return kNaN;
      }
      const double alpha = rr / curvature;
      z += alpha * p_;
      r_ -= alpha * hz_;
      const double next = r_.squaredNorm();
      p_ = r_ + (next / rr) * p_;
      rr = next;
    }
  }
  o.g.HessianProduct(s.x, s.y, z, &hz_, &jz_);
  if (!o.ok()) return kNaN;
  *gradient -= jz_;
  return f;
}

std::string UnrolledHypergradient::Check(const Oracle& /*oracle*/) const {
  if (options_.num_lower_steps <= 0) return "num_lower_steps must be positive";
  if (options_.num_reverse_steps < 0) return "num_reverse_steps must not be negative";
  if (!(options_.momentum >= 0.0 && options_.momentum < 1.0)) return "momentum must be in [0, 1)";
  return CheckSteps(options_.num_lower_steps, options_.lower_step);
}

double UnrolledHypergradient::Estimate(Oracle& o, State& s, Vector* gradient) {
  const int t_all = options_.num_lower_steps;
  const int kept =
      options_.num_reverse_steps > 0 ? std::min(options_.num_reverse_steps, t_all) : t_all;
  const double alpha = options_.lower_step, mu = options_.momentum;
  path_.resize(kept + 1, s.y);
  steps_.resize(kept, Vector::Zero(s.y.dim()));
  gradients_.resize(kept, Vector::Zero(s.y.dim()));
  v_.setZero(s.y.dim());
  for (int t = 0; t < t_all; ++t) {
    const int k = t - (t_all - kept);  // Place among the kept steps.
    if (k >= 0) path_[k] = s.y;
    o.g.Gradient(s.x, s.y, nullptr, &h_);
    if (!o.ok()) return kNaN;
    v_ = mu * v_ + h_;
    if (k >= 0) {
      steps_[k] = -alpha * v_;
      gradients_[k] = h_;
    }
    if (!s.y.Move(-alpha * v_)) {
      o.Fail("the lower level's iterates are no longer finite: lower_step is too long");
      return kNaN;
    }
  }
  path_[kept] = s.y;
  const double f = o.f.Gradient(s.x, s.y, gradient, &a_);
  Vector& a_v = s.Get("unroll.a_v", s.y.dim());  // Adjoint of the momentum.
  a_v.setZero();
  for (int k = kept - 1; k >= 0 && o.ok(); --k) {
    // y+ = y plus s, s = -alpha v+, v+ = mu v + g_y(y): b is the covector of v+.
    PullBackThroughStep(s.y.space(), path_[k].value(), path_[k + 1].value(), steps_[k], &a_, &b_);
    b_ = a_v - alpha * b_;
    o.g.HessianProduct(s.x, path_[k], b_, &h_, &j_);
    *gradient += j_;
    a_ += h_;
    AddFrameTerm(s.y.space(), path_[k].value(), gradients_[k], b_, &a_);
    a_v = mu * b_;
  }
  return o.ok() ? f : kNaN;
}

}  // namespace bilevel
