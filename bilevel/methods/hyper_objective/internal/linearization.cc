#include "bilevel/methods/hyper_objective/internal/linearization.h"

#include "bilevel/base/memory.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {

bool Linearize(Oracle* oracle, const Point& x, Point* y, Linearization* at, std::string* why) {
  if (!oracle->Differentiate(x, y)) {
    *why = oracle->message();
    return false;
  }
  LowerSolver& lower = oracle->lower();
  Vector fy;
  at->phi = oracle->f.Gradient(x, *y, &at->gradient, &fy);
  if (!oracle->ok() || !lower.IsDetermined(fy)) {
    *why = oracle->ok() ? lower.message() : oracle->error();
    return false;
  }
  const Matrix& dy_dx = lower.dy_dx();
  oracle->f.Linearize(x, *y, dy_dx, &at->r, &at->j);
  at->gradient += oracle->program().PullBack(dy_dx, fy);
  if (oracle->ok() && at->j.allFinite() && at->gradient.allFinite()) return true;
  *why = !oracle->ok()              ? oracle->error()
         : !lower.message().empty() ? lower.message()
                                    : "the derivative of the upper level is not finite";
  return false;
}

void Linearization::Remember(Memory* memory) {
  memory->Keep("phi", &phi);
  memory->Keep("gradient", &gradient);
  memory->Keep("residuals", &r);
  memory->Keep("jacobian", &j);
}

}  // namespace bilevel
