#include "bilevel/methods/hyper_objective/bgs.h"

#include "bilevel/base/internal/bookkeeping.h"

namespace bilevel {

std::string BgsHypergradient::Check(const Oracle& oracle) const {
  if (options_.num_reverse_steps < 0 || options_.num_reverse_steps > options_.num_lower_steps) {
    return "num_reverse_steps must be between 0 and num_lower_steps";
  }
  const std::string complaint = options_.LowerSteps::Check(oracle);
  return complaint.empty() ? options_.AdjointSteps::Check() : complaint;
}

double BgsHypergradient::Estimate(Oracle& o, State& s, Vector* d) {
  const int m = options_.num_reverse_steps;
  if (solves_lower_level()) {
    if (!o.Solve(s.x, &s.y)) {
      o.Fail(o.message());
      return kNaN;
    }
  } else if (!unroll_.Run(o, s.x, m, &s.y)) {
    return kNaN;
  }
  const double f = o.f.Gradient(s.x, s.y, d, &b_);
  if (!o.ok()) return kNaN;
  if (m > 0 && !unroll_.Reverse(o, s.x, m, &b_, d)) return kNaN;  // d = f_x + u
  Vector& z = s.Get("z", s.y.dim());
  if (!adjoint_.Solve(o, s.x, s.y, b_, &z)) return kNaN;
  o.g.HessianProduct(s.x, s.y, z, &hz_, &jz_);
  if (!o.ok()) return kNaN;
  *d -= jz_;
  return f;
}

}  // namespace bilevel
