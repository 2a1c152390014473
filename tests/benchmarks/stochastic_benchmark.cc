// What an iteration of a single-loop method costs beside the value, Jacobian and second-order
// evaluations of the residual blocks it samples: batches of 64 out of 10^4 reprojection residuals,
// y of 10^3 coordinates, or of 3 * 10^4 of which a batch touches few. In turns, in one process; the
// ratio of medians.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/program.h"
#include "ceres/ceres.h"
#include "ceres/rotation.h"

namespace {

constexpr int kBatch = 64, kResidualBlocks = 10000, kIterations = 200;

// Snavely's camera, its pixels weighed by e^x.
struct Reprojection {
  template <typename T>
  bool operator()(const T* camera, const T* point, const T* x, T* residual) const {
    using std::exp;
    T p[3];
    ceres::AngleAxisRotatePoint(camera, point, p);
    for (int i = 0; i < 3; ++i) p[i] += camera[3 + i];
    const T u = -p[0] / p[2], v = -p[1] / p[2];
    const T r2 = u * u + v * v;
    const T distortion = 1.0 + r2 * (camera[7] + camera[8] * r2);
    const T weight = exp(x[0]);
    residual[0] = weight * (camera[6] * distortion * u - observed[0]);
    residual[1] = weight * (camera[6] * distortion * v - observed[1]);
    return true;
  }
  double observed[2];
};

struct Position {
  template <typename T>
  bool operator()(const T* point, T* residual) const {
    for (int i = 0; i < 3; ++i) residual[i] = point[i] - target[i];
    return true;
  }
  double target[3];
};

class Reports : public bilevel::Monitor {
 public:
  bool Report(const bilevel::State&, const bilevel::Progress& progress) override {
    return progress.iteration < kIterations;
  }
  double gradient_tolerance() const override { return 0.0; }
  double function_tolerance() const override { return 0.0; }
  double parameter_tolerance() const override { return 0.0; }
  int max_num_iterations() const override { return kIterations; }
};

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Setup {
 public:
  explicit Setup(int num_points) : points_(3 * num_points), cameras_(9 * 50) {
    std::mt19937 generator(3);
    std::normal_distribution<double> normal;
    problem_.AddUpperParameterBlock(&x_, 1);
    for (double& v : cameras_) v = 0.1 * normal(generator);
    for (double& v : points_) v = normal(generator);
    for (int i = 0; i < 50; ++i) {
      cameras_[9 * i + 5] = -10.0;
      cameras_[9 * i + 6] = 1.0;
    }
    for (int i = 0; i < kResidualBlocks; ++i) {
      double* camera = &cameras_[9 * (generator() % 50)];
      double* point = &points_[3 * (i % num_points)];
      auto* cost = new bilevel::AutoDiffCostFunction<Reprojection, 2, 9, 3, 1>(
          new Reprojection{{0.1 * normal(generator), 0.1 * normal(generator)}});
      problem_.lower()->AddResidualBlock(cost, nullptr, camera, point, &x_);
      lower_.push_back({cost, {camera, point, &x_}});
      auto* goal = new bilevel::AutoDiffCostFunction<Position, 3, 3>(
          new Position{{normal(generator), normal(generator), normal(generator)}});
      problem_.upper()->AddResidualBlock(goal, nullptr, point);
      upper_.push_back({goal, {point}});
    }
    std::string error;
    program_ = problem_.Compile({}, &error);
    if (!program_) {
      std::fprintf(stderr, "%s\n", error.c_str());
      std::abort();
    }
    oracle_ = std::make_unique<bilevel::Oracle>(program_.get(), nullptr, 1);
  }

  // Seconds an iteration.
  double Method(bilevel::Method* method) {
    bilevel::State state;
    state.x = bilevel::Point(&program_->x);
    state.y = bilevel::Point(&program_->y);
    program_->x.ReadUser(state.x.value().data());
    program_->y.ReadUser(state.y.value().data());
    Reports reports;
    std::string message;
    oracle_->iteration = 0;
    const double start = Seconds();
    if (method->Minimize(*oracle_, state, &reports, &message) !=
        bilevel::Method::Outcome::kNoConvergence) {
      std::fprintf(stderr, "%s\n", message.c_str());
      std::abort();
    }
    return (Seconds() - start) / kIterations;
  }

  // The evaluations alone; soba has one sample of g an iteration, slip two.
  double Evaluations(bool soba) {
    double residuals[3], a[27], b[9], c[3], weights[2], direction[13] = {1.0, 0.5}, product[13];
    double* jacobians[] = {a, b, c};
    const double start = Seconds();
    double sum = 0.0;
    for (uint64_t t = 0; t < kIterations; ++t) {
      for (int stream = soba ? 1 : 0; stream < 3; ++stream) {
        const bilevel::Batch batch = oracle_->Draw(kBatch, stream, t);
        for (int k = 0; k < kBatch; ++k) {
          const int i = batch.Term(k, kResidualBlocks);
          const Block& block = stream == 2 ? upper_[i] : lower_[i];
          if (stream == 2) {
            block.cost->Evaluate(block.parameters, residuals, jacobians);
          } else {
            // x's Jacobian is asked for where J z is.
            double* own[] = {a, b, stream == 1 ? c : nullptr};
            block.cost->Evaluate(block.parameters, residuals, own);
          }
          if (stream == 1) {
            weights[0] = residuals[0];
            weights[1] = residuals[1];
            static_cast<const bilevel::SecondOrderCostFunction*>(
                static_cast<const bilevel::AutoDiffCostFunction<Reprojection, 2, 9, 3, 1>*>(
                    block.cost))
                ->EvaluateHessianProduct(block.parameters, weights, direction, product);
            sum += product[0];
          }
          sum += residuals[0] + a[0];
        }
      }
    }
    benchmark::DoNotOptimize(sum);
    return (Seconds() - start) / kIterations;
  }

  int num_parameters() const { return program_->y.tangent_size(); }

 private:
  struct Block {
    const ceres::CostFunction* cost;
    double* parameters[3];
  };
  bilevel::Problem problem_;
  std::unique_ptr<bilevel::Program> program_;
  std::unique_ptr<bilevel::Oracle> oracle_;
  std::vector<double> points_, cameras_;
  double x_ = 0.0;
  std::vector<Block> lower_, upper_;
};

double Median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + v.size() / 2, v.end());
  return v[v.size() / 2];
}

// Arguments: soba or slip; points of the scene.
void Iteration(benchmark::State& state) {
  Setup setup(static_cast<int>(state.range(1)));
  const bool is_soba = state.range(0);
  bilevel::Soba::Options soba;
  soba.lower.step = 1e-6;
  soba.x.step = 1e-9;
  soba.solve_lower_level = false;
  soba.report_interval = kIterations;
  bilevel::Slip::Options slip;
  slip.y.step = slip.z.step = slip.warm_start_step = 1e-6;
  slip.x.step = 1e-6;
  slip.report_interval = kIterations;
  std::vector<double> ratios, times;
  for (auto _ : state) {
    std::unique_ptr<bilevel::Method> method;
    if (is_soba) {
      method = std::make_unique<bilevel::Soba>(soba);
    } else {
      method = std::make_unique<bilevel::Slip>(slip);
    }
    double by_hand = setup.Evaluations(is_soba);
    const double library = setup.Method(method.get());
    by_hand = 0.5 * (by_hand + setup.Evaluations(is_soba));
    ratios.push_back(library / by_hand);
    times.push_back(library);
  }
  state.counters["parameters"] = setup.num_parameters();
  state.counters["microseconds"] = 1e6 * Median(times);
  state.counters["ratio"] = Median(ratios);
  state.counters["target"] = 1.5;
}
BENCHMARK(Iteration)
    ->ArgNames({"soba", "points"})
    ->Args({1, 183})
    ->Args({1, 10000})
    ->Args({0, 183})
    ->Args({0, 10000})
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
