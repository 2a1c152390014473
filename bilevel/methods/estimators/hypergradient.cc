#include "bilevel/methods/estimators/hypergradient.h"

#include <algorithm>
#include <limits>

#include "bilevel/objective/lower_solver.h"

namespace bilevel {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

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

std::string AidHypergradient::Check(const Oracle& oracle) const {
  const std::string complaint = options_.LowerSteps::Check(oracle);
  return complaint.empty() ? options_.AdjointSteps::Check() : complaint;
}

double AidHypergradient::Estimate(Oracle& o, State& s, Vector* gradient) {
  if (solves_lower_level()) {
    if (!o.Solve(s.x, &s.y)) {
      o.Fail(o.message());
      return kNaN;
    }
  } else if (!unroll_.Run(o, s.x, 0, &s.y)) {
    return kNaN;
  }
  const double f = o.f.Gradient(s.x, s.y, gradient, &fy_);
  Vector& z = s.Get("z", s.y.dim());
  if (!o.ok() || !adjoint_.Solve(o, s.x, s.y, fy_, &z)) return kNaN;
  o.g.HessianProduct(s.x, s.y, z, &hz_, &jz_);
  if (!o.ok()) return kNaN;
  *gradient -= jz_;
  return f;
}

std::string UnrolledHypergradient::Check(const Oracle& oracle) const {
  if (options_.num_lower_steps == 0) return "num_lower_steps must be positive";
  if (options_.num_reverse_steps < 0) return "num_reverse_steps must not be negative";
  return options_.LowerSteps::Check(oracle);
}

double UnrolledHypergradient::Estimate(Oracle& o, State& s, Vector* gradient) {
  const int t = options_.num_lower_steps, k = options_.num_reverse_steps;
  const int kept = k > 0 ? std::min(k, t) : t;
  if (!unroll_.Run(o, s.x, kept, &s.y)) return kNaN;
  const double f = o.f.Gradient(s.x, s.y, gradient, &a_);
  return o.ok() && unroll_.Reverse(o, s.x, kept, &a_, gradient) ? f : kNaN;
}

}  // namespace bilevel
