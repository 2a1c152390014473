#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_TRIAL_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_TRIAL_H_

#include "bilevel/methods/hyper_objective/internal/linearization.h"
#include "bilevel/methods/method.h"
#include "bilevel/program/space.h"

namespace bilevel {

/// x after a step, y solved there, and what phi made of it.
struct Trial {
  Point x, y;
  bool is_solved = false;
  double phi = Progress::kUnknown;
  // The change of phi that J'J alone expects, that with the secants, and the decrease by the one in
  // use.
  double gauss_newton_change = 0.0, secant_change = 0.0, expected = 0.0;
  // The actual decrease to that, by the step alone and with what has followed it.
  double model_ratio = -1.0, ratio = -1.0;
  bool is_hidden = false;  // phi cannot tell such a step from rounding.
  Linearization at;        // Once the trial is accepted.
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_TRIAL_H_
