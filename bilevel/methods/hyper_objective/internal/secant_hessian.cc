#include "bilevel/methods/hyper_objective/internal/secant_hessian.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/memory.h"

namespace bilevel {

void SecantHessian::Update(const Vector& step,
                           const Vector& gradient_change,
                           const Vector& target) {
  const Vector& change = gradient_change;
  const double have = step.dot(s_ * step), want = step.dot(target);
  if (have != 0.0) s_ *= std::min(1.0, std::abs(want) / std::abs(have));
  const double curvature = change.dot(step);
  if (!(std::abs(curvature) > kRoundingOfCurvature * change.norm() * step.norm())) return;
  const Vector error = target - s_ * step;
  s_ += (error * change.transpose() + change * error.transpose()) / curvature -
        (error.dot(step) / (curvature * curvature)) * change * change.transpose();
}

void SecantHessian::Remember(Memory* memory) { memory->Keep("secant", &s_); }

}  // namespace bilevel
