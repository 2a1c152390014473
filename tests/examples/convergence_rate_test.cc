// With the published schedules no method converges more slowly than published; with other exponents
// the same measurement says so.
#include "examples/support/learning/convergence_rate.h"

#include <memory>
#include <string>

#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/methods/stochastic/sustain.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

constexpr int kTerms = 64, kSeeds = 8;
constexpr double kSamples = 2e5;

double Exponent(Method* method) {
  QuadraticSum sum(kTerms, 4, 5, 0.5, 0.5);
  examples::RateCurve curve;
  std::string message;
  EXPECT_TRUE(examples::MeasureRate(method, &sum, kSamples, kSeeds, &curve, &message)) << message;
  return curve.Exponent();
}

TEST(ConvergenceRate, IsAsPublished) {
  for (const examples::RatedMethod& rated : examples::MethodsAsPublished(kTerms, 1)) {
    if (rated.exponent == 0.0) continue;
    const double p = Exponent(rated.method.get());
    RecordProperty(rated.method->name(), std::to_string(p));
    EXPECT_LE(p, rated.exponent + 0.5) << rated.method->name();
  }
}

TEST(ConvergenceRate, OtherExponentsShow) {
  const auto other = [](auto options) {
    options.lower_batch = options.upper_batch = 1;
    options.report_interval = 20;
    return options;
  };
  Soba::Options soba = other(Soba::Options());
  soba.lower = {0.2, 0.25, 50.0};
  soba.x.step = 0.2;
  soba.x.decay_exponent = 0.25;
  EXPECT_GT(Exponent(std::make_unique<Soba>(soba).get()), 6.0);  // 8 in the limit.
  Slip::Options slip = other(Slip::Options());
  for (Schedule* s : {&slip.y, &slip.z}) *s = {0.2, 0.5, 50.0};
  slip.average = {0.3, 0.5, 50.0};
  slip.x = {0.1, 0.3, 50.0};  // Instead of 3/4.
  slip.warm_start_step = 0.05;
  EXPECT_GT(Exponent(std::make_unique<Slip>(slip).get()), 5.0);
  // STORM without the decay of its eta.
  Mrbo::Options mrbo = other(Mrbo::Options());
  mrbo.y = {0.2, 1.0 / 3.0, 50.0};
  mrbo.x.step = 0.2;
  mrbo.x.decay_time = 50.0;
  mrbo.neumann.step = 0.4;
  mrbo.neumann.length = 12;
  mrbo.eta_g.decay_exponent = mrbo.eta_f.decay_exponent = 0.0;
  EXPECT_GT(Exponent(std::make_unique<Mrbo>(mrbo).get()), 4.5);
}

}  // namespace
}  // namespace bilevel
