#include "bilevel/methods/estimators/bias.h"

#include <algorithm>

#include "bilevel/methods/estimators/hypergradient.h"
#include "bilevel/methods/estimators/internal/conjugate_gradients.h"

namespace bilevel {

double EstimateBias(Oracle& o,
                    const State& state,
                    const std::function<bool(const State& s, Vector* d)>& biased) {
  constexpr int kMaxIterations = 20;
  constexpr double kTolerance = 1e-2;
  State s = state;
  ExactHypergradient exact;
  Vector h, moved, d;
  exact.Estimate(o, s, &h);
  if (!biased(s, &d) || !o.ok()) return Progress::kUnknown;

  Vector r = h - d;
  for (int j = 0; j < s.x.dim(); ++j) {
    if (s.x.space().IsHeld(s.x.value().data(), j, h[j])) r[j] = 0.0;
  }
  Vector bias;
  const bool positive = ConjugateGradients(
      r,
      kTolerance,
      std::min(s.x.dim(), kMaxIterations),
      [&](const Vector& p, Vector* product) {
        const double epsilon = 1e-5 * (1.0 + s.x.value().norm()) / p.norm();
        State probe = s;
        if (!probe.x.Move(epsilon * p)) return false;
        exact.Estimate(o, probe, &moved);
        *product = (moved - h) / epsilon;
        return o.ok();
      },
      &bias);
  return positive ? bias.norm() : Progress::kUnknown;
}

}  // namespace bilevel
