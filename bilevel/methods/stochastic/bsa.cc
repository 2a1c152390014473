#include "bilevel/methods/stochastic/bsa.h"

#include <cmath>

namespace bilevel {

void Bsa::FillOptions(Defaults* defaults) {
  NeumannMethod::FillOptions(defaults);
  if (own_.y.step == 0.0 && own_.y.decay_time == 0.0) {
    options_.y.decay_time = 2.0 * defaults->ConditionNumber();
  }
}

void Bsa::LowerPhase(Oracle& o, State& s) {
  const int steps = static_cast<int>(
      std::ceil(options_.num_lower_steps * std::sqrt(1.0 + static_cast<double>(o.iteration))));
  for (int t = 0; t < steps && o.ok(); ++t) LowerSteps(o, s, 1, options_.y.At(t));
}

}  // namespace bilevel
