// What an evaluation costs beside calling the same cost functions by hand: a 64-term minibatch of
// 10^4 residual blocks and the full gradient, for two kinds of residual. By hand is Evaluate with
// Jacobians and J'r added into a dense gradient that is zeroed first.
//
// The two ways run in turns in one process, so that the ratio of their fastest times does not
// depend on what else the machine does.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "bilevel/bilevel.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/program/program.h"
#include "ceres/ceres.h"
#include "ceres/rotation.h"

namespace {

// Snavely's bundle adjustment camera: 2 residuals, 9 + 3 parameters.
struct Reprojection {
  template <typename T>
  bool operator()(const T* camera, const T* point, T* residual) const {
    T p[3];
    ceres::AngleAxisRotatePoint(camera, point, p);
    for (int i = 0; i < 3; ++i) p[i] += camera[3 + i];
    const T u = -p[0] / p[2], v = -p[1] / p[2];
    const T r2 = u * u + v * v;
    const T distortion = 1.0 + r2 * (camera[7] + camera[8] * r2);
    residual[0] = camera[6] * distortion * u - observed[0];
    residual[1] = camera[6] * distortion * v - observed[1];
    return true;
  }
  double observed[2];
};

// 1 residual, 2 + 1 parameters.
struct Small {
  template <typename T>
  bool operator()(const T* line, const T* offset, T* residual) const {
    residual[0] = line[0] * t + line[1] + offset[0] - target;
    return true;
  }
  double t, target;
};

struct Upper {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = y[0] - x[0];
    return true;
  }
};

// Residual blocks over num_blocks blocks of y, and the same by hand.
class Setup {
 public:
  static constexpr int kResidualBlocks = 10000;

  explicit Setup(bool reprojection) {
    std::mt19937 generator(3);
    std::normal_distribution<double> normal;
    ceres::Problem* lower = problem_.lower();
    problem_.AddUpperParameterBlock(&x_, 1);
    const int first_blocks = reprojection ? 50 : 5000, second_blocks = reprojection ? 3000 : 100;
    const int first_size = reprojection ? 9 : 2, second_size = reprojection ? 3 : 1;
    first_.resize(first_blocks * first_size);
    second_.resize(second_blocks * second_size);
    for (double& v : first_) v = 0.1 * normal(generator);
    for (double& v : second_) v = normal(generator);
    for (int i = 0; reprojection && i < first_blocks; ++i) {
      first_[9 * i + 5] = -10.0;
      first_[9 * i + 6] = 500.0;
    }
    for (int i = 0; i < kResidualBlocks; ++i) {
      double* a = &first_[first_size * (generator() % first_blocks)];
      double* b = &second_[second_size * (i % second_blocks)];
      ceres::CostFunction* cost;
      if (reprojection) {
        cost = new bilevel::AutoDiffCostFunction<Reprojection, 2, 9, 3>(
            new Reprojection{{normal(generator), normal(generator)}});
      } else {
        cost = new bilevel::AutoDiffCostFunction<Small, 1, 2, 1>(
            new Small{normal(generator), normal(generator)});
      }
      lower->AddResidualBlock(cost, nullptr, a, b);
      by_hand_.push_back({cost, {a, b}, {first_size, second_size}, {}});
    }
    problem_.upper()->AddResidualBlock(
        reprojection ? static_cast<ceres::CostFunction*>(
                           new bilevel::AutoDiffCostFunction<Upper, 1, 3, 1>(new Upper))
                     : new bilevel::AutoDiffCostFunction<Upper, 1, 1, 1>(new Upper),
        nullptr,
        &second_[0],
        &x_);
    std::string error;
    program_ = problem_.Compile({}, &error);
    if (!program_) {
      std::fprintf(stderr, "%s\n", error.c_str());
      std::abort();
    }
    for (Block& block : by_hand_) {
      for (int k = 0; k < 2; ++k) {
        block.offset[k] =
            program_->y.blocks()[program_->y.Find(block.parameters[k])].tangent_offset;
      }
    }
    evaluator_ =
        std::make_unique<bilevel::LevelEvaluator>(program_->scenarios[0]->g.get(), nullptr);
    px_.resize(program_->x.size());
    py_.resize(program_->y.size());
    program_->x.ReadUser(px_.data());
    program_->y.ReadUser(py_.data());
    gradient_.resize(program_->y.tangent_size());
    hand_gradient_ = gradient_;
  }

  void Library(const bilevel::Batch& batch) {
    double value;
    if (!evaluator_->Gradient(px_.data(), py_.data(), batch, &value, nullptr, gradient_.data())) {
      std::abort();
    }
    benchmark::DoNotOptimize(value);
  }

  void ByHand(const bilevel::Batch& batch) {
    hand_gradient_.setZero();
    const int count = batch.all() ? kResidualBlocks : batch.size;
    const double scale = static_cast<double>(kResidualBlocks) / count;
    double value = 0.0, residuals[2], jacobian_a[18], jacobian_b[6];
    double* jacobians[] = {jacobian_a, jacobian_b};
    for (int k = 0; k < count; ++k) {
      const Block& block = by_hand_[batch.all() ? k : batch.Term(k, kResidualBlocks)];
      block.cost->Evaluate(block.parameters, residuals, jacobians);
      const int rows = block.cost->num_residuals();
      for (int i = 0; i < rows; ++i) {
        value += 0.5 * scale * residuals[i] * residuals[i];
        for (int p = 0; p < 2; ++p) {
          const int size = block.size[p];
          double* to = hand_gradient_.data() + block.offset[p];
          for (int j = 0; j < size; ++j) {
            to[j] += scale * residuals[i] * jacobians[p][i * size + j];
          }
        }
      }
    }
    benchmark::DoNotOptimize(value);
  }

  double Difference() const { return (gradient_ - hand_gradient_).norm() / hand_gradient_.norm(); }
  int num_parameters() const { return program_->y.tangent_size(); }

 private:
  struct Block {
    ceres::CostFunction* cost;
    double* parameters[2];
    int size[2], offset[2];
  };
  bilevel::Problem problem_;
  std::unique_ptr<bilevel::Program> program_;
  std::unique_ptr<bilevel::LevelEvaluator> evaluator_;
  std::vector<double> first_, second_;
  double x_ = 0.0;
  std::vector<Block> by_hand_;
  bilevel::Vector px_, py_, gradient_, hand_gradient_;
};

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Arguments: reprojection or small; terms of a minibatch or 0.
void Ratio(benchmark::State& state) {
  Setup setup(state.range(0));
  const int size = static_cast<int>(state.range(1));
  const double target = size > 0 ? 1.3 : 1.2;
  const int repeats = size > 0 ? 100 : 1;
  uint64_t seed = 0;
  std::vector<double> ratios, times;
  for (auto _ : state) {
    // The same terms by both, in turns; which goes first alternates.
    double library = 0.0, by_hand = 0.0;
    for (int half = 0; half < 2; ++half) {
      const double t0 = Seconds();
      for (int i = 0; i < repeats; ++i) {
        const bilevel::Batch batch{size, seed + i};
        half ? setup.ByHand(batch) : setup.Library(batch);
      }
      const double t1 = Seconds();
      for (int i = 0; i < repeats; ++i) {
        const bilevel::Batch batch{size, seed + i};
        half ? setup.Library(batch) : setup.ByHand(batch);
      }
      const double t2 = Seconds();
      (half ? by_hand : library) += t1 - t0;
      (half ? library : by_hand) += t2 - t1;
    }
    if (!(setup.Difference() < 1e-12)) state.SkipWithError("the gradients differ");
    seed += repeats;
    ratios.push_back(library / by_hand);
    times.push_back(library / (2 * repeats));
  }
  std::nth_element(ratios.begin(), ratios.begin() + ratios.size() / 2, ratios.end());
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  state.counters["parameters"] = setup.num_parameters();
  state.counters["microseconds"] = 1e6 * times[times.size() / 2];
  state.counters["ratio"] = ratios[ratios.size() / 2];
  state.counters["target"] = target;
}
BENCHMARK(Ratio)
    ->ArgNames({"reprojection", "minibatch"})
    ->Args({1, 64})
    ->Args({0, 64})
    ->Args({1, 0})
    ->Args({0, 0})
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
