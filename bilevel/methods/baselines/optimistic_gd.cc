#include "bilevel/methods/baselines/optimistic_gd.h"

#include <algorithm>

#include "bilevel/base/memory.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"

namespace bilevel {

std::string OptimisticGd::Check(const Oracle& /*oracle*/) {
  const std::string complaint = options_.x.Check("optimistic_gd.x");
  return complaint.empty() ? options_.y.Check("optimistic_gd.y") : complaint;
}

void OptimisticGd::Start(Oracle& /*oracle*/, State& /*state*/) { first_ = true; }

void OptimisticGd::Step(Oracle& o, State& s, Progress* progress) {
  // The first iteration only looks, so that what is reported belongs to the point it is reported
  // at.
  Vector& dx = s.Get("optimistic_gd.dx", s.x.dim());
  Vector& dy = s.Get("optimistic_gd.dy", s.y.dim());
  if (!first_) {
    progress->step_norm = options_.x.Apply(dx, "optimistic_gd.x", o.iteration - 1, &s, &s.x);
    const double step_y = options_.y.Apply(dy, "optimistic_gd.y", o.iteration - 1, &s, &s.y);
    if (progress->step_norm < 0.0 || step_y < 0.0) {
      o.Fail(
          "x or y is no longer finite, or its manifold failed: optimistic_gd's steps may be too "
          "long");
      return;
    }
  }
  first_ = false;

  progress->upper_value = o.f.Gradient(s.x, s.y, &dx, &fy_);
  o.g.Gradient(s.x, s.y, nullptr, &dy);
  if (!o.ok()) return;
  if ((fy_ + dy).norm() > 1e-6 * (fy_.norm() + dy.norm())) {
    o.Fail(
        "optimistic_gd is for min-max problems: the lower level must be the upper one's negative");
    return;
  }
  progress->gradient_max_norm = std::max(ProjectedMaxNorm(s.x, dx), ProjectedMaxNorm(s.y, dy));
  progress->y_is_solved = false;
  progress->keep = Progress::kAlways;
}

bool OptimisticGd::Remember(Oracle& /*oracle*/, Memory* memory) {
  memory->Keep("first", &first_);
  return true;
}

}  // namespace bilevel
