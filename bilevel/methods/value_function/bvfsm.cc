#include "bilevel/methods/value_function/bvfsm.h"

#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"

namespace bilevel {
namespace {

// weight |p|^2 of the values; adds its gradient, in tangent coordinates.
double AddRidge(const Point& p, double weight, Vector* gradient) {
  for (const Space::Block& block : p.space().blocks()) {
    const auto value = p.value().segment(block.offset, block.size);
    auto own = gradient->segment(block.tangent_offset, block.tangent_size);
    if (block.manifold) {
      Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> j(block.size,
                                                                               block.tangent_size);
      if (block.manifold->PlusJacobian(value.data(), j.data())) {
        own += 2.0 * weight * j.transpose() * value;
      }
    } else {
      own += 2.0 * weight * value;
    }
  }
  return weight * p.value().squaredNorm();
}

}  // namespace

std::string BvfsmHypergradient::Check(const Oracle& /*oracle*/) const {
  const auto not_negative = [](double value) { return value >= 0.0 && std::isfinite(value); };
  if (options_.num_w_steps <= 0) return "num_w_steps must be positive";
  if (options_.num_y_steps <= 0) return "num_y_steps must be positive";
  if (!not_negative(options_.mu)) return "mu must not be negative";
  if (!not_negative(options_.theta)) return "theta must not be negative";
  if (!(options_.sigma > 0.0 && std::isfinite(options_.sigma))) return "sigma must be positive";
  if (!not_negative(options_.offset)) return "offset must not be negative";
  const std::string complaint = options_.w.Check("w");
  return complaint.empty() ? options_.y.Check("y") : complaint;
}

double BvfsmHypergradient::Estimate(Oracle& o, State& s, Vector* d) {
  const double decay = options_.decay ? 1.0 / std::log(1.1 * (o.iteration + 2.0)) : 1.0;
  const double mu = decay * options_.mu;
  theta_ = decay * options_.theta;
  sigma_ = decay * options_.sigma;
  Vector& w = s.vectors.try_emplace("bvfsm.w", s.y.value()).first->second;
  w_ = s.y;  // The last run's space may be gone.
  w_.value() = w;
  const auto too_long = [&](const char* name) {
    o.Fail(std::string(name) + " is no longer finite, or its manifold failed: bvfsm." + name +
           ".step may be too long");
    return kNaN;
  };

  for (int t = 0; t < options_.num_w_steps; ++t) {
    o.g.Gradient(s.x, w_, nullptr, &gy_);
    if (!o.ok()) return kNaN;
    AddRidge(w_, mu, &gy_);
    const uint64_t step = o.iteration * options_.num_w_steps + t;
    if (options_.w.Apply(gy_, "bvfsm.w", step, &s, &w_) < 0.0) return too_long("w");
  }
  w = w_.value();
  gy_.setZero(s.y.dim());
  const double limit = options_.offset + o.g.Gradient(s.x, w_, &wx_, nullptr) +
                       AddRidge(w_, mu, &gy_);  // offset + g_mu
  double slack = limit;                         // What divides sigma in P'.
  if (options_.barrier == kDetached) {
    if (!(limit > 0.0)) {
      o.Fail("bvfsm.offset must exceed -min g: with " + Number(options_.offset) +
             " the weight of the released barrier is not positive");
      return kNaN;
    }
    for (int t = 0; t < options_.num_y_steps; ++t) {
      o.f.Gradient(s.x, s.y, nullptr, &fy_);
      o.g.Gradient(s.x, s.y, nullptr, &gy_);
      if (!o.ok()) return kNaN;
      fy_ += sigma_ / slack * gy_;
      AddRidge(s.y, theta_, &fy_);
      const uint64_t step = o.iteration * options_.num_y_steps + t;
      if (options_.y.Apply(fy_, "bvfsm.y", step, &s, &s.y) < 0.0) return too_long("y");
    }
  } else {
    slack = limit - o.g.Value(s.x, s.y);
    if (!(slack > 0.0)) {
      s.y = w_;
      slack = limit - o.g.Value(s.x, s.y);
    }
    if (o.ok() && !(slack > 0.0)) {
      o.Fail("no y is inside the barrier, since |w| = 0: bvfsm.offset must be positive");
    }
    for (int t = 0;
         t < options_.num_y_steps && o.ok() && StepInside(o, s.x, limit, &slack, &s.y);) {
      ++t;
    }
  }

  const double f = o.f.Gradient(s.x, s.y, d, &fy_);
  o.g.Gradient(s.x, s.y, &gx_, nullptr);
  if (!o.ok()) return kNaN;
  *d += sigma_ / slack * (gx_ - wx_);
  return f;
}

// One descent step on f - sigma log(limit - g) + theta |y|^2 in y that keeps the logarithm's
// argument, *slack, positive. False: none was found, at a minimiser.
bool BvfsmHypergradient::StepInside(
    Oracle& o, const Point& x, double limit, double* slack, Point* y) {
  constexpr int kMaxHalvings = 40;
  const double f = o.f.Gradient(x, *y, nullptr, &fy_);
  o.g.Gradient(x, *y, nullptr, &gy_);
  if (!o.ok()) return false;
  fy_ += sigma_ / *slack * gy_;
  const double value = f - sigma_ * std::log(*slack) + AddRidge(*y, theta_, &fy_);
  double step = options_.y.step;
  for (int k = 0; k < kMaxHalvings; ++k, step *= 0.5) {
    trial_ = *y;
    if (!trial_.Move(-step * fy_)) continue;
    const double inside = limit - o.g.Value(x, trial_);
    if (!(inside > 0.0)) continue;
    const double next =
        o.f.Value(x, trial_) - sigma_ * std::log(inside) + theta_ * trial_.value().squaredNorm();
    if (!(next < value)) continue;
    *y = trial_;
    *slack = inside;
    return true;
  }
  return false;
}

}  // namespace bilevel
