#include "bilevel/methods/hyper_objective/bda.h"
#include "bilevel/base/internal/bookkeeping.h"

#include <cmath>

namespace bilevel {

std::string BdaHypergradient::Check(const Oracle& oracle) const {
  if (options_.num_lower_steps == 0) return "num_lower_steps must be positive";
  if (!(options_.upper_step > 0.0 && std::isfinite(options_.upper_step))) {
    return "upper_step must be positive";
  }
  if (!(options_.share > 0.0 && options_.share <= 1.0)) return "share must be in (0, 1]";
  return options_.LowerSteps::Check(oracle);
}

double BdaHypergradient::Estimate(Oracle& o, State& s, Vector* gradient) {
  if (!options_.warm_start)
    s.y.value() = s.vectors.try_emplace("bda.y_0", s.y.value()).first->second;
  const int t = options_.num_lower_steps;
  if (!unroll_.Run(o, s.x, t, &s.y)) return kNaN;
  const double f = o.f.Gradient(s.x, s.y, gradient, &a_);
  return o.ok() && unroll_.Reverse(o, s.x, t, &a_, gradient) ? f : kNaN;
}

}  // namespace bilevel
