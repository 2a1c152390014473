#include "bilevel/methods/baselines/bsg1.h"

#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"

namespace bilevel {

std::string Bsg1Hypergradient::Check(const Oracle& oracle) const {
  if (!(options_.epsilon > 0.0 && std::isfinite(options_.epsilon))) {
    return "epsilon must be positive";
  }
  return options_.LowerSteps::Check(oracle);
}

double Bsg1Hypergradient::Estimate(Oracle& o, State& s, Vector* d) {
  if (!unroll_.Run(o, s.x, 0, &s.y)) return kNaN;
  const double f = o.f.Gradient(s.x, s.y, d, &fy_);
  o.g.Gradient(s.x, s.y, &gx_, &gy_);
  if (!o.ok()) return kNaN;
  ClearHeld(s.y, gy_, &gy_);
  *d -= gy_.dot(fy_) / (gy_.squaredNorm() + options_.epsilon) * gx_;
  return f;
}

}  // namespace bilevel
