#include "examples/support/learning/convergence_rate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "bilevel/methods/stochastic/alset.h"
#include "bilevel/methods/stochastic/amigo.h"
#include "bilevel/methods/stochastic/bo_rep.h"
#include "bilevel/methods/stochastic/bsa.h"
#include "bilevel/methods/stochastic/f2sa.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/methods/stochastic/stocbio.h"
#include "bilevel/methods/stochastic/sustain.h"
#include "bilevel/methods/stochastic/ttsa.h"
#include "bilevel/methods/stochastic/vrbo.h"
#include "bilevel/program/program.h"

namespace examples {
namespace {

using namespace bilevel;  // NOLINT: what this file is about.

constexpr int kReportInterval = 20, kIntervalsPerDecade = 10;

// Steps decay soon, and sooner where an iteration takes many samples: the last two decades of
// samples are then far beyond the first, constant steps.
constexpr double kSoon = 10.0;
void Decay(Schedule* schedule, double step, double exponent, double time = 50.0) {
  schedule->step = step;
  schedule->decay_exponent = exponent;
  schedule->decay_time = time;
}

class Recorder : public Monitor {
 public:
  struct Interval {
    double square = 0.0, seconds = 0.0;
    int count = 0;
  };
  Recorder(const QuadraticSum& sum, const Oracle& oracle, double num_samples)
      : sum_(sum), oracle_(oracle), num_samples_(num_samples), start_(Clock::now()) {}

  bool Report(const State& state, const Progress& /*progress*/) override {
    const double samples =
        static_cast<double>(oracle_.f_counts().samples + oracle_.g_counts().samples);
    last = sum_.Hypergradient(state.x.value()).norm();
    least = std::min(least, last);
    const size_t i =
        samples < 1.0 ? 0 : static_cast<size_t>(kIntervalsPerDecade * std::log10(samples));
    if (i >= intervals.size()) intervals.resize(i + 1);
    intervals[i].square += last * last;
    intervals[i].seconds += std::chrono::duration<double>(Clock::now() - start_).count();
    ++intervals[i].count;
    return samples < num_samples_;
  }
  double gradient_tolerance() const override { return 0.0; }
  double function_tolerance() const override { return 0.0; }
  double parameter_tolerance() const override { return 0.0; }
  int max_num_iterations() const override { return std::numeric_limits<int>::max(); }

  std::vector<Interval> intervals;
  double last = 0.0, least = std::numeric_limits<double>::infinity();

 private:
  using Clock = std::chrono::steady_clock;
  const QuadraticSum& sum_;
  const Oracle& oracle_;
  const double num_samples_;
  const Clock::time_point start_;
};

}  // namespace

std::vector<RatedMethod> MethodsAsPublished(int num_terms, int batch) {
  std::vector<RatedMethod> methods;
  const auto on_batches = [&](auto options) {
    options.lower_batch = options.upper_batch = batch;
    options.report_interval = kReportInterval;
    return options;
  };
  const auto with_neumann = [&](auto options, double exponent_y, double exponent_x) {
    options = on_batches(options);
    Decay(&options.y, 0.3, exponent_y, kSoon);
    Decay(&options.x, 0.3, exponent_x, kSoon);
    // A bias of 0.6^20 k^-0.33. The cost of an iteration and the variance grow with the length, and
    // the exponent with them: by little a decade where it is long from the start.
    options.neumann.step = 0.4;
    options.neumann.length = 20;
    options.neumann.log_growth = 0.65;
    return options;
  };
  const auto add = [&](std::shared_ptr<Method> method, double exponent) {
    methods.push_back({std::move(method), exponent});
  };

  auto slip = on_batches(Slip::Options());
  Decay(&slip.y, 0.2, 0.5);
  Decay(&slip.z, 0.2, 0.5);
  Decay(&slip.average, 0.3, 0.5);
  Decay(&slip.x, 0.1, 0.75);
  slip.warm_start_step = 0.05;
  add(std::make_shared<Slip>(slip), 4.0);
  auto bo_rep = on_batches(BoRep::Options());
  static_cast<Slip::Options&>(bo_rep) = slip;
  bo_rep.epoch_step = 0.05;
  add(std::make_shared<BoRep>(bo_rep), 4.0);
  auto soba = on_batches(Soba::Options());
  Decay(&soba.lower, 0.2, 0.5);
  Decay(&soba.x, 0.2, 0.5);
  add(std::make_shared<Soba>(soba), 4.0);
  auto ma_soba = on_batches(MaSoba::Options());
  Decay(&ma_soba.x, 0.05, 0.5);
  Decay(&ma_soba.lower, 0.3, 0.5);
  Decay(&*ma_soba.average, 0.5, 0.5);
  add(std::make_shared<MaSoba>(ma_soba), 4.0);
  // T_k grows like sqrt(k), so 1 / t in the inner loop and 1 / sqrt(k) outside.
  auto bsa = with_neumann(Bsa::Options(), 1.0, 0.5);
  add(std::make_shared<Bsa>(bsa), 6.0);
  add(std::make_shared<Ttsa>(with_neumann(Ttsa::Options(), 0.4, 0.6)), 5.0);
  auto stocbio = with_neumann(StocBiO::Options(), 0.5, 0.5);
  stocbio.num_lower_steps = 3;
  add(std::make_shared<StocBiO>(stocbio), 4.0);
  auto amigo = on_batches(Amigo::Options());
  amigo.num_lower_steps = amigo.num_linear_steps = 3;
  for (Schedule* s : {&amigo.y, &amigo.z, static_cast<Schedule*>(&amigo.x)}) Decay(s, 0.2, 0.5);
  add(std::make_shared<Amigo>(amigo), 4.0);
  add(std::make_shared<Alset>(with_neumann(Alset::Options(), 0.5, 0.5)), 4.0);
  for (const bool momentum : {false, true}) {
    auto f2sa = on_batches(F2sa::Options());
    f2sa.momentum = momentum;
    Decay(&f2sa.alpha, 0.03, 5.0 / 7.0);
    Decay(&f2sa.gamma, 0.3, 4.0 / 7.0);
    Decay(&f2sa.eta, 0.5, 2.0 / 3.0);
    f2sa.xi = 3.0;
    add(std::make_shared<F2sa>(f2sa), momentum ? 5.0 : 7.0);
  }
  const auto storm = [&](auto options) {
    options = with_neumann(options, 1.0 / 3.0, 1.0 / 3.0);
    Decay(&options.eta_g, 0.8, 2.0 / 3.0, kSoon);
    Decay(&options.eta_f, 0.8, 2.0 / 3.0, kSoon);
    return options;
  };
  add(std::make_shared<Sustain>(storm(Sustain::Options())), 3.0);
  add(std::make_shared<Mrbo>(storm(Mrbo::Options())), 3.0);
  auto svrb = on_batches(Svrb::Options());
  Decay(&svrb.lower, 0.2, 1.0 / 3.0);
  Decay(&svrb.x, 0.2, 1.0 / 3.0);
  Decay(&svrb.eta, 0.5, 2.0 / 3.0);
  add(std::make_shared<Svrb>(svrb), 3.0);
  auto vrbo = with_neumann(Vrbo::Options(), 0.0, 0.0);
  vrbo.period = std::max(1, num_terms / (4 * batch));
  Decay(&vrbo.x, 0.05, 0.0);
  add(std::make_shared<Vrbo>(vrbo), 3.0);
  auto saba = on_batches(Saba::Options());
  saba.lower.step = 0.2;
  saba.x.step = 0.1;
  add(std::make_shared<Saba>(saba), 0.0);
  auto srba = on_batches(Srba::Options());
  srba.lower.step = 0.1;
  srba.x.step = 0.05;
  add(std::make_shared<Srba>(srba), 0.0);
  return methods;
}

double RateCurve::Exponent() const {
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    if (samples[i] < 0.01 * samples.back() || !(gradient[i] > 0.0)) continue;
    const double x = std::log(samples[i]), y = std::log(gradient[i]);
    n += 1.0;
    sx += x;
    sy += y;
    sxx += x * x;
    sxy += x * y;
  }
  const double slope = (n * sxy - sx * sy) / (n * sxx - sx * sx);
  return slope < 0.0 ? -1.0 / slope : std::numeric_limits<double>::infinity();
}

bool MeasureRate(Method* method,
                 QuadraticSum* sum,
                 double num_samples,
                 int num_seeds,
                 RateCurve* curve,
                 std::string* message) {
  *curve = RateCurve();
  curve->least = std::numeric_limits<double>::infinity();
  Problem problem;
  sum->AddTo(&problem);
  const auto program = problem.Compile({}, message);
  if (!program) return false;
  std::vector<Recorder::Interval> total;
  for (int seed = 0; seed < num_seeds; ++seed) {
    Oracle oracle(program.get(), nullptr, seed);
    *message = method->Check(oracle);
    if (!message->empty()) return false;
    State state;
    state.x = Point(&program->x);
    state.y = Point(&program->y);
    state.x.value().setOnes();
    state.y.value().setZero();
    Recorder recorder(*sum, oracle, num_samples);
    if (method->Minimize(oracle, state, &recorder, message) == Method::Outcome::kFailure) {
      return false;
    }
    if (recorder.intervals.size() > total.size()) total.resize(recorder.intervals.size());
    for (size_t i = 0; i < recorder.intervals.size(); ++i) {
      total[i].square += recorder.intervals[i].square;
      total[i].seconds += recorder.intervals[i].seconds;
      total[i].count += recorder.intervals[i].count;
    }
    curve->least = std::min(curve->least, recorder.least);
    curve->last += recorder.last * recorder.last / num_seeds;
    curve->f_samples += static_cast<double>(oracle.f_counts().samples) / num_seeds;
    curve->g_samples += static_cast<double>(oracle.g_counts().samples) / num_seeds;
  }
  curve->last = std::sqrt(curve->last);
  for (size_t i = 0; i < total.size(); ++i) {
    if (total[i].count == 0) continue;
    curve->samples.push_back(std::pow(10.0, (i + 0.5) / kIntervalsPerDecade));
    curve->seconds.push_back(total[i].seconds / total[i].count);
    curve->gradient.push_back(std::sqrt(total[i].square / total[i].count));
  }
  return true;
}

}  // namespace examples
