#ifndef BILEVEL_EXAMPLES_SUPPORT_LEARNING_CONVERGENCE_RATE_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEARNING_CONVERGENCE_RATE_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/methods/method.h"
#include "examples/support/learning/quadratic_sum.h"

namespace examples {

/// A stochastic method and the exponent p of samples ~ |grad phi|^-p published for it (Table 1 of
/// SLIP's authors); 0: it reaches the solution of a finite sum.
struct RatedMethod {
  std::shared_ptr<bilevel::Method> method;
  double exponent;
};

/// All of them, with steps for a QuadraticSum of so many terms that decay as published.
std::vector<RatedMethod> MethodsAsPublished(int num_terms, int batch);

/// |grad phi| against samples of f and g, the root mean square over an interval of samples and
/// over seeds. Intervals are evenly spaced in log(samples), ten to a decade.
struct RateCurve {
  std::vector<double> samples, seconds, gradient;
  double least = 0.0, last = 0.0;  ///< |grad phi|: of all iterates; at the end, over seeds.
  double f_samples = 0.0, g_samples = 0.0;  ///< At the end, over seeds.

  /// p of samples ~ gradient^-p over the last two decades of samples, by least squares.
  double Exponent() const;
};

/// Runs of so many samples from x = 1, y = 0. False: *message says why the method failed.
bool MeasureRate(bilevel::Method* method,
                 bilevel::QuadraticSum* sum,
                 double num_samples,
                 int num_seeds,
                 RateCurve* curve,
                 std::string* message);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEARNING_CONVERGENCE_RATE_H_
