// Iterations a second of single-loop methods on linear models, one thread, batches of 64: cleaning
// of labels (softmax regression, 784 features, 10 classes, a weight for each of 20,000 samples),
// and l2-regularised logistic regression (22 and 784 features, a weight decay for each).
//
// Beside them the floor: the bytes an iteration must touch (the batches' features, each once a
// level and sample; y, z and what moves them; x where the method is dense in it), over the memory
// bandwidth measured here. And what arithmetic allows: the products of features with weights and
// with slopes, at the rate of those of one batch that stays in the cache.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/models/internal/feature_storage.h"
#include "bilevel/models/internal/simd_kernels.h"
#include "bilevel/models/linear_model.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/program.h"

namespace {

constexpr int kBatch = 64, kIterations = 1000;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Bytes a second of a sum over memory far larger than the caches.
double Bandwidth() {
  static const double bandwidth = [] {
    const Eigen::ArrayXf memory = Eigen::ArrayXf::Ones(1 << 26);
    double best = 0.0;
    for (int k = 0; k < 3; ++k) {
      const double start = Seconds();
      benchmark::DoNotOptimize(memory.sum());
      best = std::max(best, 4.0 * static_cast<double>(memory.size()) / (Seconds() - start));
    }
    return best;
  }();
  return bandwidth;
}

// Multiplications and additions a second in products of a batch that is in the cache.
template <typename Scalar>
double Arithmetic() {
  constexpr int kStride = 512, kRows = 10, kRepeat = 200;
  static const double rate = [] {
    bilevel::internal::AlignedArray<Scalar> features, weights;  // Zeros.
    features.Resize(kBatch * kStride);
    weights.Resize(kRows * kStride);
    std::vector<Scalar> out(kBatch * kRows);
    std::vector<const Scalar*> a(kBatch), w(kRows);
    for (int i = 0; i < kBatch; ++i) a[i] = features.data() + i * kStride;
    for (int k = 0; k < kRows; ++k) w[k] = weights.data() + k * kStride;
    double best = 0.0;
    for (int k = 0; k < 20; ++k) {
      const double start = Seconds();
      for (int r = 0; r < kRepeat; ++r) {
        bilevel::internal::GetModelKernels<Scalar>().outputs(
            a.data(), kBatch, w.data(), kRows, kStride, out.data());
      }
      best = std::max(best, 2.0 * kBatch * kRows * kStride * kRepeat / (Seconds() - start));
    }
    return best;
  }();
  return rate;
}

class Reports : public bilevel::Monitor {
 public:
  explicit Reports(int num_iterations) : num_iterations_(num_iterations) {}
  bool Report(const bilevel::State&, const bilevel::Progress& progress) override {
    return progress.iteration < num_iterations_;
  }
  double gradient_tolerance() const override { return 0.0; }
  double function_tolerance() const override { return 0.0; }
  double parameter_tolerance() const override { return 0.0; }
  int max_num_iterations() const override { return num_iterations_; }

 private:
  int num_iterations_;
};

// The method's iterations a second on the problem, from zero.
void Measure(benchmark::State& state,
             bilevel::Problem* problem,
             bilevel::Method* method,
             double bytes_per_iteration,
             double seconds_of_arithmetic) {
  std::string error;
  const auto program = problem->Compile({}, &error);
  if (!program) return state.SkipWithError(error.c_str());
  bilevel::Oracle oracle(program.get(), nullptr, 1);
  bilevel::State run;
  run.x = bilevel::Point(&program->x);
  run.y = bilevel::Point(&program->y);
  program->x.ReadUser(run.x.value().data());
  program->y.ReadUser(run.y.value().data());
  double best = 0.0;
  for (auto _ : state) {
    Reports reports(kIterations);
    std::string message;
    oracle.iteration = 0;
    const double start = Seconds();
    if (method->Minimize(oracle, run, &reports, &message) == bilevel::Method::Outcome::kFailure) {
      return state.SkipWithError(message.c_str());
    }
    best = std::max(best, kIterations / (Seconds() - start));
  }
  state.counters["iterations/s"] = best;
  // What scaling momentum lazily could save at most: its decay, norm and move, dense in x.
  constexpr int kMoves = 200;
  bilevel::Vector m = bilevel::Vector::Constant(run.x.dim(), 1e-3);
  double dense = 1e9;
  for (int k = 0; k < kMoves; ++k) {
    const double start = Seconds();
    m *= 0.9;
    run.x.Move(-(1e-9 / (1.0 + m.norm())) * m);
    dense = std::min(dense, Seconds() - start);
  }
  state.counters["momentum_share"] = dense * best;
  state.counters["floor/s"] = Bandwidth() / bytes_per_iteration;
  state.counters["arithmetic/s"] = 1.0 / seconds_of_arithmetic;
}

template <typename Scalar>
bilevel::Features RandomFeatures(int n, int d, std::mt19937* generator) {
  std::normal_distribution<Scalar> normal;
  return bilevel::Features(
      Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>::NullaryExpr(
          n, d, [&] { return normal(*generator); }));
}

std::vector<int> RandomLabels(int n, int c, std::mt19937* generator) {
  std::vector<int> labels(n);
  for (int& label : labels) label = static_cast<int>((*generator)() % c);
  return labels;
}

// Arguments: soba or slip; float or double; slip with one sample of g an iteration or two.
template <typename Scalar>
void Cleaning(benchmark::State& state) {
  constexpr int kTrain = 20000, kValidation = 5000, kFeatures = 784, kClasses = 10;
  std::mt19937 generator(1);
  std::vector<double> theta(kClasses * kFeatures, 0.0), w(kTrain, 0.0);
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(w.data(), kTrain);
  bilevel::LinearModel::Options weighted;
  weighted.weights = bilevel::LinearModel::kSigmoid;
  const int size = static_cast<int>(theta.size());
  problem.AddTerm(bilevel::Level::kLower,
                  bilevel::SoftmaxRegression(RandomFeatures<Scalar>(kTrain, kFeatures, &generator),
                                             RandomLabels(kTrain, kClasses, &generator),
                                             kClasses,
                                             weighted),
                  {{theta.data(), size}, {w.data(), kTrain}});
  problem.AddTerm(bilevel::Level::kLower,
                  std::make_unique<bilevel::L2Regularizer>(kClasses, kFeatures, 1e-3),
                  {{theta.data(), size}});
  problem.AddTerm(
      bilevel::Level::kUpper,
      bilevel::SoftmaxRegression(RandomFeatures<Scalar>(kValidation, kFeatures, &generator),
                                 RandomLabels(kValidation, kClasses, &generator),
                                 kClasses),
      {{theta.data(), size}});
  std::unique_ptr<bilevel::Method> method;
  int products = 6;  // With Theta and z, and back; below and above.
  double bytes = sizeof(Scalar) * 2.0 * kBatch * kFeatures + 8.0 * 10.0 * size;
  if (state.range(0)) {
    bilevel::Soba::Options soba;
    soba.lower = {0.02, 0.0, 1.0};
    soba.x.step = 300.0 / kTrain;
    soba.x.decay_exponent = 0.0;
    soba.sampling = bilevel::Batch::kShuffledBlocks;
    soba.report_interval = kIterations;
    method = std::make_unique<bilevel::Soba>(soba);
  } else {
    bilevel::Slip::Options slip;
    slip.y.step = slip.z.step = 0.02;
    slip.warm_start_step = 0.05;
    slip.x.step = 0.3;
    slip.sampling = bilevel::Batch::kShuffledBlocks;
    slip.report_interval = kIterations;
    slip.one_sample = state.range(1) == 1;
    method = std::make_unique<bilevel::Slip>(slip);
    // A second sample of g; m and x read and written, m read once more for its norm.
    if (!slip.one_sample) {
      bytes += sizeof(Scalar) * kBatch * kFeatures;
      products = 7;
    }
    bytes += 8.0 * 5.0 * kTrain;
  }
  Measure(
      state, &problem, method.get(), bytes, 2.0 * products * kBatch * size / Arithmetic<Scalar>());
}
void Kinds(benchmark::internal::Benchmark* b) {
  b->ArgNames({"soba", "samples"})->Unit(benchmark::kMillisecond);
  b->Args({1, 1})->Args({0, 1})->Args({0, 2});
}
BENCHMARK_TEMPLATE(Cleaning, float)->Apply(Kinds);
BENCHMARK_TEMPLATE(Cleaning, double)->Apply(Kinds);

// Arguments: features.
void Logistic(benchmark::State& state) {
  const int d = static_cast<int>(state.range(0)), n = 50000, validation = 10000;
  std::mt19937 generator(1);
  std::vector<double> theta(d, 0.0), x(d, -5.0);
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(x.data(), d);
  problem.AddTerm(bilevel::Level::kLower,
                  bilevel::LogisticRegression(RandomFeatures<double>(n, d, &generator),
                                              RandomLabels(n, 2, &generator)),
                  {{theta.data(), d}});
  problem.AddTerm(
      bilevel::Level::kLower,
      std::make_unique<bilevel::L2Regularizer>(1, d, 0.5, bilevel::L2Regularizer::kPerFeature),
      {{theta.data(), d}, {x.data(), d}});
  problem.AddTerm(bilevel::Level::kUpper,
                  bilevel::LogisticRegression(RandomFeatures<double>(validation, d, &generator),
                                              RandomLabels(validation, 2, &generator)),
                  {{theta.data(), d}});
  bilevel::Soba::Options soba;
  soba.lower.step = 0.03;
  soba.x.step = 0.03;
  soba.sampling = bilevel::Batch::kShuffledBlocks;
  soba.report_interval = kIterations;
  bilevel::Soba method(soba);
  Measure(state,
          &problem,
          &method,
          8.0 * (2.0 * kBatch + 15.0) * d,
          12.0 * kBatch * d / Arithmetic<double>());
}
BENCHMARK(Logistic)->ArgName("features")->Arg(22)->Arg(784)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
