// Linear models by matrix products: the full gradient of a softmax regression of 784 features and
// 10 classes, by its floating-point operations a second, and iterations of single-loop methods on
// minibatches of 64: cleaning of labels (a weight for each of 20,000 samples) and l2-regularised
// logistic regression (a weight for each feature). Posts are of the size of 20 Newsgroups: 5,657
// samples with 158 words each out of 130,000, as frequent as words are, in 20 classes.
#include <chrono>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/methods/value_function/bome.h"

namespace {

template <typename T>
using RowMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <typename T>
bilevel::Features RandomFeatures(int n, int d) {
  std::mt19937 generator(1);
  std::normal_distribution<T> normal;
  const RowMatrix<T> some = RowMatrix<T>::NullaryExpr(1000, d, [&] { return normal(generator); });
  return bilevel::Features(some.replicate((n + 999) / 1000, 1).topRows(n));
}

std::vector<int> Labels(int n, int classes) {
  std::vector<int> labels(n);
  for (int i = 0; i < n; ++i) labels[i] = (i * 7) % classes;
  return labels;
}

// Arguments: samples, threads.
template <typename T>
void Gradient(benchmark::State& state) {
  constexpr int kFeatures = 784, kClasses = 10;
  const int n = static_cast<int>(state.range(0));
  bilevel::LinearModel::Options options;
  options.weights = bilevel::LinearModel::kClipped;
  options.num_threads = static_cast<int>(state.range(1));
  const auto model = bilevel::SoftmaxRegression(
      RandomFeatures<T>(n, kFeatures), Labels(n, kClasses), kClasses, options);
  std::vector<double> theta(kFeatures * kClasses, 0.01), w(n, 0.5), g_theta(theta.size()), g_w(n);
  const double* blocks[] = {theta.data(), w.data()};
  double* gradients[] = {g_theta.data(), g_w.data()};
  double value, best = 1e9;
  for (auto _ : state) {
    theta[0] += 1e-6;  // Another point: nothing is known from the last one.
    const auto start = std::chrono::steady_clock::now();
    model->Evaluate(blocks, bilevel::Batch::All(), &value, gradients);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
  }
  state.counters["ms"] = 1e3 * best;
  state.counters["GFLOP/s"] = 4e-9 * n * kFeatures * kClasses / best;
}
BENCHMARK(Gradient<float>)
    ->ArgNames({"n", "threads"})
    ->Args({5000, 1})
    ->Args({5000, 2})
    ->Args({50000, 1})
    ->Args({50000, 2})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(Gradient<double>)
    ->ArgNames({"n", "threads"})
    ->Args({5000, 1})
    ->Args({5000, 2})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

constexpr int kPosts = 5657, kWords = 130000, kWordsPerPost = 158, kTopics = 20;

// A word's frequency is inverse to its number.
bilevel::Features RandomPosts() {
  std::mt19937 generator(1);
  std::uniform_real_distribution<double> uniform;
  std::vector<Eigen::Triplet<float>> entries;
  for (int i = 0; i < kPosts; ++i) {
    for (int k = 0; k < kWordsPerPost; ++k) {
      const int word = static_cast<int>(std::exp(uniform(generator) * std::log(kWords))) - 1;
      entries.emplace_back(i, word, 0.08f);
    }
  }
  Eigen::SparseMatrix<float, Eigen::RowMajor> a(kPosts, kWords);
  a.setFromTriplets(entries.begin(), entries.end());
  return bilevel::Features(a);
}

// Arguments: threads, 1 for the product with the Hessian at a known point.
void Posts(benchmark::State& state) {
  bilevel::LinearModel::Options options;
  options.num_threads = static_cast<int>(state.range(0));
  const bool product = state.range(1);
  const auto model =
      bilevel::SoftmaxRegression(RandomPosts(), Labels(kPosts, kTopics), kTopics, options);
  std::vector<double> theta(kWords * kTopics, 0.01), v(theta), out(theta.size());
  const double *blocks[] = {theta.data()}, *direction[] = {v.data()};
  double* outs[] = {out.data()};
  double value, best = 1e9;
  model->Evaluate(blocks, bilevel::Batch::All(), &value, outs);
  for (auto _ : state) {
    if (!product) theta[0] += 1e-6;
    const auto start = std::chrono::steady_clock::now();
    if (product) {
      model->HessianProduct(blocks, bilevel::Batch::All(), direction, outs);
    } else {
      model->Evaluate(blocks, bilevel::Batch::All(), &value, outs);
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
  }
  state.counters["ms"] = 1e3 * best;
}
BENCHMARK(Posts)
    ->ArgNames({"threads", "product"})
    ->Args({1, 0})
    ->Args({1, 1})
    ->Args({2, 0})
    ->Args({2, 1})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// Iterations of bome with one lower step, of a weight for each word. Argument: threads.
void Words(benchmark::State& state) {
  constexpr int kIterations = 60;
  bilevel::LinearModel::Options model;
  model.num_threads = static_cast<int>(state.range(0));
  std::vector<double> theta(kWords * kTopics, 0.0), x(kWords, 0.0);
  const int size = static_cast<int>(theta.size());
  const bilevel::Features posts = RandomPosts();
  const std::vector<int> labels = Labels(kPosts, kTopics);
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(x.data(), kWords);
  problem.AddTerm(bilevel::Level::kLower,
                  bilevel::SoftmaxRegression(posts, labels, kTopics, model),
                  {{theta.data(), size}});
  problem.AddTerm(bilevel::Level::kLower,
                  std::make_unique<bilevel::L2Regularizer>(
                      kTopics, kWords, 0.5 / size, bilevel::L2Regularizer::kPerFeature),
                  {{theta.data(), size}, {x.data(), kWords}});
  problem.AddTerm(bilevel::Level::kUpper,
                  bilevel::SoftmaxRegression(posts, labels, kTopics, model),
                  {{theta.data(), size}});
  bilevel::Bome::Options bome;
  bome.lower_level = bilevel::Bome::kGradientSteps;
  bome.barrier = bilevel::Bome::kValueBarrier;
  bome.num_lower_steps = 1;
  bome.lower_step = bome.x.step = bome.y.step = 1.0;
  bome.x.kind = bome.y.kind = bilevel::StepRule::kMomentum;
  bilevel::Solver::Options options;
  options.method = std::make_shared<bilevel::Bome>(bome);
  options.max_num_iterations = kIterations;
  options.num_threads = model.num_threads;
  // The last one is not measured: what Solve does in the end is no iteration.
  double best = 1e9, before = 0.0;
  class Watch : public bilevel::IterationCallback {
   public:
    Watch(double* best, double* before) : best_(best), before_(before) {}
    ceres::CallbackReturnType operator()(const bilevel::IterationSummary& it) override {
      if (it.iteration > 1) {
        *best_ = std::min(*best_, it.cumulative_time_in_seconds - *before_);
      }
      *before_ = it.cumulative_time_in_seconds;
      return it.iteration >= kIterations - 1 ? ceres::SOLVER_ABORT : ceres::SOLVER_CONTINUE;
    }

   private:
    double *best_, *before_;
  } watch(&best, &before);
  options.callbacks = {&watch};
  for (auto _ : state) {
    bilevel::Solver::Summary summary;
    bilevel::Solve(options, &problem, &summary);
  }
  state.counters["ms"] = 1e3 * best;
}
BENCHMARK(Words)->ArgName("threads")->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond);

void Report(bilevel::Problem* problem, bool soba, int iterations, benchmark::State* state) {
  bilevel::Soba::Options soba_options;
  soba_options.lower.step = 0.01;
  soba_options.x.step = 0.01;
  bilevel::Slip::Options slip_options;
  slip_options.y.step = slip_options.z.step = slip_options.warm_start_step = 0.01;
  slip_options.x.step = 1e-3;
  soba_options.solve_lower_level = slip_options.solve_lower_level = false;
  soba_options.report_interval = slip_options.report_interval = iterations;
  soba_options.sampling = slip_options.sampling = bilevel::Batch::kShuffledBlocks;
  bilevel::Solver::Options options;
  if (soba) {
    options.method = std::make_shared<bilevel::Soba>(soba_options);
  } else {
    options.method = std::make_shared<bilevel::Slip>(slip_options);
  }
  options.max_num_iterations = iterations;
  double best = 1e9;
  for (auto _ : *state) {
    bilevel::Solver::Summary summary;
    bilevel::Solve(options, problem, &summary);
    if (!summary.IsSolutionUsable()) return state->SkipWithError(summary.message.c_str());
    best = std::min(best, summary.iterations.back().cumulative_time_in_seconds / iterations);
  }
  state->counters["us"] = 1e6 * best;
  state->counters["iterations/s"] = 1.0 / best;
}

// Argument: soba or slip.
template <typename T>
void Cleaning(benchmark::State& state) {
  constexpr int kSamples = 20000, kFeatures = 784, kClasses = 10;
  std::vector<double> theta(kFeatures * kClasses, 0.0), x(kSamples, 0.0);
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(x.data(), kSamples);
  bilevel::LinearModel::Options options;
  options.weights = bilevel::LinearModel::kSigmoid;
  problem.AddTerm(
      bilevel::Level::kLower,
      bilevel::SoftmaxRegression(
          RandomFeatures<T>(kSamples, kFeatures), Labels(kSamples, kClasses), kClasses, options),
      {{theta.data(), kFeatures * kClasses}, {x.data(), kSamples}});
  problem.AddTerm(bilevel::Level::kLower,
                  std::make_unique<bilevel::L2Regularizer>(kClasses, kFeatures, 1e-3),
                  {{theta.data(), kFeatures * kClasses}});
  problem.AddTerm(bilevel::Level::kUpper,
                  bilevel::SoftmaxRegression(
                      RandomFeatures<T>(5000, kFeatures), Labels(5000, kClasses), kClasses),
                  {{theta.data(), kFeatures * kClasses}});
  Report(&problem, state.range(0), 2000, &state);
}
BENCHMARK(Cleaning<float>)->ArgName("soba")->Arg(1)->Arg(0)->Unit(benchmark::kMillisecond);
BENCHMARK(Cleaning<double>)->ArgName("soba")->Arg(1)->Arg(0)->Unit(benchmark::kMillisecond);

// Arguments: soba or slip, features.
void Regularization(benchmark::State& state) {
  constexpr int kSamples = 50000;
  const int features = static_cast<int>(state.range(1));
  std::vector<double> theta(features, 0.0), x(features, -5.0);
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(x.data(), features);
  const bilevel::Features a = RandomFeatures<double>(kSamples, features);
  problem.AddTerm(bilevel::Level::kLower,
                  bilevel::LogisticRegression(a, Labels(kSamples, 2)),
                  {{theta.data(), features}});
  problem.AddTerm(bilevel::Level::kLower,
                  std::make_unique<bilevel::L2Regularizer>(
                      1, features, 0.5, bilevel::L2Regularizer::kPerFeature),
                  {{theta.data(), features}, {x.data(), features}});
  problem.AddTerm(bilevel::Level::kUpper,
                  bilevel::LogisticRegression(a, Labels(kSamples, 2)),
                  {{theta.data(), features}});
  Report(&problem, state.range(0), 5000, &state);
}
BENCHMARK(Regularization)
    ->ArgNames({"soba", "features"})
    ->Args({1, 22})
    ->Args({1, 784})
    ->Args({0, 22})
    ->Args({0, 784})
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
