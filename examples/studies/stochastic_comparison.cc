// The stochastic methods side by side on two finite sums with everything in closed form: |grad phi|
// against samples and seconds, and the slope of samples against |grad phi| beside the published
// one.
#include <cstdio>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/estimators/curvature.h"
#include "bilevel/program/program.h"
#include "examples/support/flags.h"
#include "examples/support/learning/convergence_rate.h"
#include "examples/support/learning/quadratic_sum.h"
#include "examples/support/plot.h"
#include "examples/support/table.h"

DEFINE_double(samples, 4e6, "of both levels, for each run");
DEFINE_int32(seeds, 10, "runs that are averaged");
DEFINE_int32(terms, 512, "in each level");
DEFINE_int32(batch, 1, "terms in a minibatch");
DEFINE_double(noise, 0.5, "spread of the terms");
DEFINE_string(method, "", "only this one");

int main(int argc, char** argv) {
  examples::ParseFlags("Compares the stochastic methods on two finite sums.", &argc, &argv);
  if (FLAGS_quick) {
    FLAGS_samples = 2e5;
    FLAGS_seeds = 2;
  }
  // What the fit may be above the published exponent.
  constexpr double kMargin = 0.5;
  bilevel::QuadraticSum sum(FLAGS_terms, 4, 5, FLAGS_noise, 0.5);
  {
    bilevel::Problem problem;
    sum.AddTo(&problem);
    std::string error;
    const auto program = problem.Compile({}, &error);
    bilevel::Oracle oracle(program.get(), nullptr, 0);
    bilevel::Point x(&program->x), y(&program->y);
    x.value().setZero();
    y.value().setZero();
    std::printf(
        "%s\n",
        bilevel::EstimateCurvature(oracle, bilevel::Batch::All(), x, y, nullptr).Ranges().c_str());
  }

  examples::Table table(
      {"method", "samples", "epochs g", "epochs f", "seconds", "|grad phi|", "slope", "published"});
  examples::Panel by_samples{"samples", "samples of f and g", "|grad phi|", true, true};
  examples::Panel by_seconds{"time", "seconds", "|grad phi|", true, true};
  by_samples.key_outside = by_seconds.key_outside = true;
  std::string trace = "method,samples,seconds,gradient\n";
  bool good = true;
  for (const examples::RatedMethod& entry :
       examples::MethodsAsPublished(FLAGS_terms, FLAGS_batch)) {
    if (!FLAGS_method.empty() && entry.method->name() != FLAGS_method) continue;
    examples::RateCurve curve;
    std::string message;
    if (!examples::MeasureRate(
            entry.method.get(), &sum, FLAGS_samples, FLAGS_seeds, &curve, &message)) {
      std::printf("%s: %s\n", entry.method->name().c_str(), message.c_str());
      return 1;
    }
    const bool exact = entry.exponent == 0.0;
    const double exponent = curve.Exponent();
    good = good && curve.last < 0.8 * curve.gradient.front();
    if (!FLAGS_quick) {
      good = good && (exact ? curve.last <= 1e-12 : exponent <= entry.exponent + kMargin);
    }
    table.Add({entry.method->name(),
               examples::Format("%.3g", curve.f_samples + curve.g_samples),
               examples::Format("%.0f", curve.g_samples / FLAGS_terms),
               examples::Format("%.0f", curve.f_samples / FLAGS_terms),
               examples::Format("%.2f", curve.seconds.back()),
               examples::Format("%.2e", curve.last),
               exact ? "linear" : examples::Format("%.2f", exponent),
               exact ? "linear" : examples::Format("%.0f", entry.exponent)});
    for (size_t i = 0; i < curve.samples.size(); ++i) {
      trace += examples::Format("%s,%.17g,%.6f,%.17g\n",
                                entry.method->name().c_str(),
                                curve.samples[i],
                                curve.seconds[i],
                                curve.gradient[i]);
    }
    by_samples.series.push_back({entry.method->name(), "lines", curve.samples, curve.gradient});
    by_seconds.series.push_back({entry.method->name(), "lines", curve.seconds, curve.gradient});
  }
  std::printf("%s", table.ToString().c_str());
  std::printf(
      "slope: p of samples ~ |grad phi|^-p over the last two decades of samples, %d seeds\n",
      FLAGS_seeds);
  bool written = examples::WriteFile(FLAGS_trace_csv, trace);
  if (!FLAGS_plot.empty()) {
    written = examples::Plot(FLAGS_plot, "Stochastic methods", {by_samples, by_seconds}) && written;
  }
  return good && written ? 0 : 1;
}
