#ifndef BILEVEL_METHODS_ESTIMATORS_BIAS_H_
#define BILEVEL_METHODS_ESTIMATORS_BIAS_H_

#include <functional>

#include "bilevel/methods/method.h"

namespace bilevel {

/// How far the zero of a biased hypergradient is from a stationary point of phi, for
/// Assessment::x_bias: to first order |(d^2 phi)^-1 (h - biased)| at the state, h the exact
/// hypergradient, by conjugate gradients on differences of h.
///
/// biased(s, &d) writes the biased one at (s.x, s.y), where y is y*(x); false: it cannot. Returns
/// NaN then, where d^2 phi is not positive definite, and where something fails, which latches in
/// the oracle. Costs up to 21 exact hypergradients.
double EstimateBias(Oracle& oracle,
                    const State& state,
                    const std::function<bool(const State& s, Vector* d)>& biased);

/// How far x is from a stationary point of phi, a method's bias, its noise and what is left of the
/// way together: the length of Newton's step, |(d^2 phi)^-1 h|, by the above. NaN as there, and
/// where y*(x) is not unique. Failures stay here, and the lower solver's report what it was.
double EstimateDistance(Oracle& oracle, const State& state);

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_BIAS_H_
