#ifndef BILEVEL_METHODS_INTERNAL_ANSWER_CHECK_H_
#define BILEVEL_METHODS_INTERNAL_ANSWER_CHECK_H_

#include <optional>
#include <string>

#include "bilevel/methods/internal/evidence.h"
#include "bilevel/methods/method.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/types.h"

namespace bilevel {

/// What an answer is worth, by phi and its gradient taken afresh around it.
struct AnswerCheck {
  AnswerKind kind = AnswerKind::kStuck;
  std::string doubt;        ///< Why it is no CONVERGENCE; empty where it is one.
  bool is_at_kink = false;  ///< The doubt is one of a kink or jump.
  double gradient_max_norm = Progress::kUnknown;
  std::optional<State> better;  ///< Where phi is less, or at the same x another y has less g.
};

/// CONVERGENCE is a promise, and this is the one place that makes it. At a solved (x, y):
///   - f sees no direction of y that the lower level leaves free, or the method says KKT loss 0,
///     and is no less at another y a little way along them;
///   - the projected |grad phi|_max is within the tolerance, or what a Newton step down it promises
///     is Negligible;
///   - among the directions that x never moved along phi falls on neither side of those that it
///     curves down or not at all on, and x has not run off to where phi is flat, nor begun there;
///   - or, at a kink, a jump or a weakly active bound of y, phi falls to no side, and the gradients
///     around cancel (the point of least norm in their hull is about 0) or lead to where phi jumps
///     up; no y that is found on the other side of a jump has less g.
/// phi falls where, followed to where it rises again, it has changed by more than is Negligible.
/// Of a longer x some directions are looked at where it has not moved at all, and at a kink it is
/// in doubt. A gradient that the run has reported at the answer is believed.
AnswerCheck CheckAnswer(Oracle& oracle,
                        const Monitor& tolerances,
                        const Evidence& evidence,
                        const State& end);

}  // namespace bilevel

#endif  // BILEVEL_METHODS_INTERNAL_ANSWER_CHECK_H_
