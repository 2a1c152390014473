#ifndef BILEVEL_METHODS_STEP_RULE_H_
#define BILEVEL_METHODS_STEP_RULE_H_

#include <string>

#include "bilevel/methods/method.h"

namespace bilevel {

/// The constant and the decaying steps of all methods: step * (1 + k / decay_time)^-decay_exponent.
struct Schedule {
  double step = 0.1;
  double decay_exponent = 0.0;  ///< 0: constant steps.
  double decay_time = 1.0;      ///< Iterations.

  double At(uint64_t k) const;
  /// Sentence on what makes no sense; empty if nothing does.
  std::string Check(const std::string& name) const;
};

/// How a first-order method turns a (hyper)gradient d into a step of x or y: the one step-size
/// policy of all of them. With eta_k the schedule's:
///
///   kGradient    x <- x - eta_k d
///   kMomentum    m <- momentum m + d,                       x <- x - eta_k m   (heavy ball)
///   kNormalized  m <- momentum m + (1 - momentum) d,        x <- x - eta_k m / |m|
///   kOptimistic  x <- x - eta_k (2 d - d_before), d_before = d in the first step
///   kAdam        Kingma and Ba, ICLR 2015, with (0.9, 0.999, 1e-8)
///
/// On manifolds the step is a retraction, and the memories stay in the tangent coordinates they
/// were formed in; bounds and convex sets are projected onto after the step.
struct StepRule : Schedule {
  enum Kind { kGradient, kMomentum, kNormalized, kOptimistic, kAdam };
  Kind kind = kGradient;
  double momentum = 0.9;

  /// As Schedule::Check.
  std::string Check(const std::string& name) const;

  /// Moves the point; its memories live in the state under `memory`. Returns the step's length, or
  /// -1 where the point could not move.
  double Apply(const Vector& d,
               const std::string& memory,
               uint64_t iteration,
               State* state,
               Point* point) const;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STEP_RULE_H_
