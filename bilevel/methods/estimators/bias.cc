#include "bilevel/methods/estimators/bias.h"

#include <algorithm>

#include "bilevel/methods/estimators/hypergradient.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"
#include "bilevel/methods/estimators/internal/conjugate_gradients.h"
#include "bilevel/oracle/lower_solver.h"

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
  if (!o.ok() || !biased(s, &d) || !o.ok()) return Progress::kUnknown;

  Vector r = h - d;
  ClearHeld(s.x, h, &r);
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
        if (!o.ok()) return false;
        *product = (moved - h) / epsilon;
        ClearHeld(s.x, h, product);
        return true;
      },
      &bias);
  return positive ? bias.norm() : Progress::kUnknown;
}

double EstimateDistance(Oracle& oracle, const State& state) {
  double distance = Progress::kUnknown;
  oracle.ForEach(1, [&](Oracle& worker, int) {
    distance = EstimateBias(worker, state, [](const State& s, Vector* d) {
      d->setZero(s.x.dim());
      return true;
    });
    if (worker.lower().Report().num_free_directions > 0) distance = Progress::kUnknown;
    worker.Clear();
  });
  return distance;
}

}  // namespace bilevel
