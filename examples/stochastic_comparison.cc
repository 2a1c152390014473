// The stochastic methods side by side on two finite sums with everything in closed form: |grad phi|
// against samples and seconds, and the slope of samples against |grad phi| beside the published
// one.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/alset.h"
#include "bilevel/methods/amigo.h"
#include "bilevel/methods/bo_rep.h"
#include "bilevel/methods/bsa.h"
#include "bilevel/methods/estimators/curvature.h"
#include "bilevel/methods/f2sa.h"
#include "bilevel/methods/ma_soba.h"
#include "bilevel/methods/saba.h"
#include "bilevel/methods/slip.h"
#include "bilevel/methods/soba.h"
#include "bilevel/methods/srba.h"
#include "bilevel/methods/stocbio.h"
#include "bilevel/methods/sustain.h"
#include "bilevel/methods/ttsa.h"
#include "bilevel/methods/vrbo.h"
#include "bilevel/objective/program.h"
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/quadratic_sum.h"
#include "examples/support/table.h"

DEFINE_int32(samples, 4000000, "of both levels, for each run");
DEFINE_int32(seeds, 10, "runs that are averaged");
DEFINE_int32(terms, 512, "in each level");
DEFINE_int32(batch, 1, "terms in a minibatch");
DEFINE_double(noise, 0.5, "spread of the terms");

namespace {

// The exponent p of calls ~ |grad phi|^-p, as published (Table 1 of SLIP's authors); 0: the method
// reaches the solution of a finite sum.
struct Entry {
  std::shared_ptr<bilevel::Method> method;
  double published;
};

template <typename Options>
Options WithBatches(Options options) {
  options.lower_batch = options.upper_batch = FLAGS_batch;
  options.solve_lower_level = false;
  return options;
}

void Decay(bilevel::Schedule* schedule, double step, double exponent, double time = 200.0) {
  schedule->step = step;
  schedule->decay_exponent = exponent;
  schedule->decay_time = time;
}

template <typename Options>
Options WithNeumann(Options options, double exponent_y, double exponent_x) {
  options = WithBatches(options);
  Decay(&options.y, 0.2, exponent_y);
  Decay(&options.x, 0.2, exponent_x);
  options.neumann.step = 0.3;
  options.neumann.length = 5;
  options.neumann.log_growth = 3.0;
  return options;
}

std::vector<Entry> Methods() {
  using namespace bilevel;
  std::vector<Entry> entries;
  auto slip = WithBatches(Slip::Options());
  Decay(&slip.y, 0.2, 0.5);
  Decay(&slip.z, 0.2, 0.5);
  Decay(&slip.average, 0.3, 0.5);
  Decay(&slip.x, 0.1, 0.75);
  entries.push_back({std::make_shared<Slip>(slip), 4.0});
  auto bo_rep = WithBatches(BoRep::Options());
  static_cast<Slip::Options&>(bo_rep) = slip;
  entries.push_back({std::make_shared<BoRep>(bo_rep), 4.0});
  auto soba = WithBatches(Soba::Options());
  Decay(&soba.lower, 0.2, 0.5);
  Decay(&soba.x, 0.2, 0.5);
  entries.push_back({std::make_shared<Soba>(soba), 4.0});
  auto ma_soba = WithBatches(MaSoba::Options());
  Decay(&ma_soba.x, 0.05, 0.5);
  Decay(&ma_soba.y, 0.3, 0.5);
  Decay(&ma_soba.z, 0.3, 0.5);
  Decay(&ma_soba.average, 0.5, 0.5);
  entries.push_back({std::make_shared<MaSoba>(ma_soba), 4.0});
  // T_k grows like sqrt(k), so 1 / t in the inner loop and 1 / sqrt(k) outside.
  auto bsa = WithNeumann(Bsa::Options(), 1.0, 0.5);
  bsa.y.decay_time = 20.0;
  entries.push_back({std::make_shared<Bsa>(bsa), 6.0});
  entries.push_back({std::make_shared<Ttsa>(WithNeumann(Ttsa::Options(), 0.4, 0.6)), 5.0});
  auto stocbio = WithNeumann(StocBiO::Options(), 0.5, 0.5);
  stocbio.num_lower_steps = 3;
  entries.push_back({std::make_shared<StocBiO>(stocbio), 4.0});
  auto amigo = WithBatches(Amigo::Options());
  amigo.num_lower_steps = amigo.num_linear_steps = 3;
  for (Schedule* s : {&amigo.y, &amigo.z, static_cast<Schedule*>(&amigo.x)}) Decay(s, 0.2, 0.5);
  entries.push_back({std::make_shared<Amigo>(amigo), 4.0});
  entries.push_back({std::make_shared<Alset>(WithNeumann(Alset::Options(), 0.5, 0.5)), 4.0});
  for (const bool momentum : {false, true}) {
    auto f2sa = WithBatches(F2sa::Options());
    f2sa.momentum = momentum;
    Decay(&f2sa.alpha, 0.03, 5.0 / 7.0);
    Decay(&f2sa.gamma, 0.3, 4.0 / 7.0);
    Decay(&f2sa.eta, 0.5, 2.0 / 3.0);
    f2sa.xi = 3.0;
    entries.push_back({std::make_shared<F2sa>(f2sa), momentum ? 5.0 : 7.0});
  }
  const auto storm = [](auto options) {
    options = WithNeumann(options, 1.0 / 3.0, 1.0 / 3.0);
    Decay(&options.eta_g, 0.5, 2.0 / 3.0);
    Decay(&options.eta_f, 0.5, 2.0 / 3.0);
    return options;
  };
  entries.push_back({std::make_shared<Sustain>(storm(Sustain::Options())), 3.0});
  entries.push_back({std::make_shared<Mrbo>(storm(Mrbo::Options())), 3.0});
  auto svrb = WithBatches(Svrb::Options());
  Decay(&svrb.lower, 0.2, 1.0 / 3.0);
  Decay(&svrb.x, 0.2, 1.0 / 3.0);
  Decay(&svrb.eta, 0.5, 2.0 / 3.0);
  entries.push_back({std::make_shared<Svrb>(svrb), 3.0});
  auto vrbo = WithNeumann(Vrbo::Options(), 0.0, 0.0);
  vrbo.period = std::max(1, FLAGS_terms / (4 * FLAGS_batch));
  Decay(&vrbo.x, 0.05, 0.0);
  entries.push_back({std::make_shared<Vrbo>(vrbo), 3.0});
  auto saba = WithBatches(Saba::Options());
  saba.lower.step = 0.2;
  saba.x.step = 0.1;
  entries.push_back({std::make_shared<Saba>(saba), 0.0});
  auto srba = WithBatches(Srba::Options());
  srba.lower.step = 0.1;
  srba.x.step = 0.05;
  entries.push_back({std::make_shared<Srba>(srba), 0.0});
  return entries;
}

// Stops after so many samples.
class Budget : public bilevel::IterationCallback {
 public:
  explicit Budget(long samples) : samples_(samples) {}
  ceres::CallbackReturnType operator()(const bilevel::IterationSummary& it) override {
    return it.upper.samples + it.lower.samples < samples_ ? ceres::SOLVER_CONTINUE
                                                          : ceres::SOLVER_TERMINATE_SUCCESSFULLY;
  }

 private:
  long samples_;
};

struct Curve {
  std::vector<double> samples, seconds, gradient;  // Root mean square over the seeds.
};

// p of samples ~ gradient^-p over the last two decades of samples, by least squares.
double Slope(const Curve& curve) {
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (size_t i = 0; i < curve.samples.size(); ++i) {
    if (curve.samples[i] < 0.01 * curve.samples.back() || !(curve.gradient[i] > 0.0)) continue;
    // Each decade weighs the same: points are evenly spaced in samples.
    const double x = std::log(curve.samples[i]), y = std::log(curve.gradient[i]);
    const double weight = 1.0 / curve.samples[i];
    n += weight;
    sx += weight * x;
    sy += weight * y;
    sxx += weight * x * x;
    sxy += weight * x * y;
  }
  return -1.0 / ((n * sxy - sx * sy) / (n * sxx - sx * sx));
}

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags("Compares the stochastic methods on two finite sums.", &argc, &argv);
  if (FLAGS_quick) {
    FLAGS_samples = 200000;
    FLAGS_seeds = 2;
  }
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
  std::string trace = "method,samples,seconds,gradient\n";
  bool good = true;
  for (const Entry& entry : Methods()) {
    Curve curve;
    double upper = 0.0, lower = 0.0;
    for (int seed = 0; seed < FLAGS_seeds; ++seed) {
      // A short run tells how many iterations the budget is.
      const auto run = [&](int iterations, bilevel::Solver::Summary* summary) {
        sum.x.setConstant(1.0);
        sum.y.setZero();
        bilevel::Problem problem;
        sum.AddTo(&problem);
        bilevel::Solver::Options options;
        options.method = entry.method;
        options.max_num_iterations = iterations;
        options.seed = seed;
        Budget budget(FLAGS_samples);
        options.callbacks.push_back(&budget);
        bilevel::Solve(options, &problem, summary);
        return summary->IsSolutionUsable();
      };
      bilevel::Solver::Summary summary;
      int iterations = 1000;
      bool ok = true;
      // bsa's iterations grow: a few rounds.
      for (int round = 0; ok && round < 3; ++round) {
        ok = run(iterations, &summary);
        const double used = static_cast<double>(summary.upper.samples + summary.lower.samples);
        iterations = std::max(100, static_cast<int>(iterations * FLAGS_samples / used));
        if (used > 0.8 * FLAGS_samples && summary.iterations.size() > 40) break;
      }
      if (!ok) {
        std::printf("%s\n", summary.FullReport().c_str());
        return 1;
      }
      upper = static_cast<double>(summary.upper.samples) / FLAGS_terms;
      lower = static_cast<double>(summary.lower.samples) / FLAGS_terms;
      const size_t points = summary.iterations.size();
      if (seed == 0) {
        curve.samples.assign(points, 0.0);
        curve.seconds.assign(points, 0.0);
        curve.gradient.assign(points, 0.0);
      }
      for (size_t i = 0; i < std::min(points, curve.samples.size()); ++i) {
        const bilevel::IterationSummary& it = summary.iterations[i];
        const double norm =
            sum.Hypergradient(Eigen::Map<const bilevel::Vector>(it.x.data(), it.x.size())).norm();
        curve.samples[i] += static_cast<double>(it.upper.samples + it.lower.samples) / FLAGS_seeds;
        curve.seconds[i] += it.cumulative_time_in_seconds / FLAGS_seeds;
        curve.gradient[i] += norm * norm / FLAGS_seeds;
      }
    }
    for (double& g : curve.gradient) g = std::sqrt(g);
    const bool exact = entry.published == 0.0;
    const double slope = Slope(curve), last = curve.gradient.back();
    const double least = *std::min_element(curve.gradient.begin(), curve.gradient.end());
    good = good && last < 0.8 * curve.gradient.front();
    if (!FLAGS_quick && exact) good = good && least < 1e-12;
    table.Add({entry.method->name(),
               examples::Format("%.3g", curve.samples.back()),
               examples::Format("%.0f", lower),
               examples::Format("%.0f", upper),
               examples::Format("%.2f", curve.seconds.back()),
               examples::Format("%.2e", last),
               exact ? "linear" : examples::Format("%.2f", slope),
               exact ? "linear" : examples::Format("%.0f", entry.published)});
    for (size_t i = 1; i < curve.samples.size(); ++i) {
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
