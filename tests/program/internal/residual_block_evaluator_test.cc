// One residual block by itself, against derivatives by hand.
#include "bilevel/program/internal/residual_block_evaluator.h"

#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "bilevel/program/internal/assembly.h"
#include "ceres/autodiff_cost_function.h"
#include "ceres/manifold.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

constexpr Evaluation::Order kOrders[] = {Evaluation::kValue,
                                         Evaluation::kGradient,
                                         Evaluation::kProduct,
                                         Evaluation::kGradientAndProduct,
                                         Evaluation::kHessian};

TEST(BlockDerivatives, PartsAreApartAndFit) {
  const int local = 3, ambient = 5;
  for (const Evaluation::Order order : kOrders) {
    std::vector<double> memory(BlockDerivatives::Size(order, local, ambient));
    BlockDerivatives block(memory.data(), local, ambient);
    const double* end = block.value() + 1;
    const auto follows = [&](const double* begin, int size) {
      EXPECT_GE(begin, end) << order;
      end = begin + size;
    };
    const bool products = order == Evaluation::kProduct || order == Evaluation::kGradientAndProduct;
    if (order != Evaluation::kValue) follows(block.gradient(), local);
    if (products) follows(block.product(), local);
    if (products || order == Evaluation::kHessian) follows(block.ambient_gradient(), ambient);
    if (order == Evaluation::kHessian) follows(block.hessian(), local * local);
    EXPECT_LE(end, memory.data() + memory.size()) << order;
  }
}

// r = (y0 y1 - x, sin y0).
struct Residuals {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::sin;
    r[0] = y[0] * y[1] - x[0];
    r[1] = sin(y[0]);
    return true;
  }
};

// A function of one residual block, and what evaluates it.
struct Bench {
  explicit Bench(const ceres::CostFunction* cost, const ceres::Manifold* manifold = nullptr)
      : function((xs.Add(&x, 1, nullptr, "x"), &xs),
                 (ys.Add(y, cost->parameter_block_sizes()[0], manifold, "y"), &ys),
                 "the lower problem"),
        frames(xs, ys) {
    function.AddResidual(cost, nullptr, {y, &x});
    function.Finish();
    evaluation.x = &x;
    evaluation.y = y;
    evaluator = std::make_unique<ResidualBlockEvaluator>(function, evaluation, frames);
    frames.Begin(&x, y);
    std::string error;
    EXPECT_TRUE(frames.Touch(LevelFunction::Argument::kX, 0, &error));
    EXPECT_TRUE(frames.Touch(LevelFunction::Argument::kY, 0, &error));
  }
  double x = 0.3, y[4] = {0.5, -0.5, 0.5, 0.5};
  Space xs, ys;
  LevelFunction function;
  Evaluation evaluation;
  TangentFrames frames;
  std::unique_ptr<ResidualBlockEvaluator> evaluator;
};

// Once from the tape, once by differences of the Jacobian.
TEST(ResidualBlockEvaluator, DerivativesByHand) {
  for (const bool taped : {true, false}) {
    std::unique_ptr<ceres::CostFunction> cost;
    if (taped) {
      cost = std::make_unique<AutoDiffCostFunction<Residuals, 2, 2, 1>>(new Residuals);
    } else {
      cost = std::make_unique<ceres::AutoDiffCostFunction<Residuals, 2, 2, 1>>(new Residuals);
    }
    Bench b(cost.get());
    b.y[0] = 0.7;
    b.y[1] = -1.1;
    const double x = b.x, y0 = b.y[0], y1 = b.y[1], s = std::sin(y0), c = std::cos(y0);
    const double r0 = y0 * y1 - x, r1 = s;
    const Vector gradient = (Vector(3) << r0 * y1 + r1 * c, r0 * y0, -r0).finished();  // y, x
    const Matrix hessian =
        (Matrix(2, 3) << y1 * y1 + c * c - r1 * s, y0 * y1 + r0, -y1, y0 * y1 + r0, y0 * y0, -y0)
            .finished();
    const Vector v = (Vector(2) << 0.4, -0.9).finished();
    double gx[1], gy[2], xy_v[1], yy_v[2];
    SparseMatrix yy = b.function.yy_pattern(), yx = b.function.yx_pattern();
    for (const Evaluation::Order order : kOrders) {
      Evaluation& e = b.evaluation;
      e = {order, &b.x, b.y, v.data()};
      e.gx = order == Evaluation::kGradient ? gx : nullptr;
      e.gy = gy;
      e.xy_v = xy_v;
      e.yy_v = yy_v;
      e.yx = order == Evaluation::kHessian ? &yx : nullptr;
      e.yy = &yy;
      std::vector<double> memory(BlockDerivatives::Size(order, 3, 3));
      BlockDerivatives block(memory.data(), 3, 3);
      ASSERT_TRUE(b.evaluator->Evaluate(0, &block)) << b.evaluator->error();
      EXPECT_NEAR(*block.value(), 0.5 * (r0 * r0 + r1 * r1), 1e-15);
      if (order == Evaluation::kGradient || order == Evaluation::kHessian) {
        EXPECT_LT((Eigen::Map<Vector>(block.gradient(), 3) - gradient).norm(), 1e-14);
      }
      if (e.has_products()) {
        const Vector product = hessian.transpose() * v;
        EXPECT_LT((Eigen::Map<Vector>(block.product(), 3) - product).norm(), 1e-9) << taped;
      }
      if (order == Evaluation::kGradientAndProduct) {  // In y alone.
        EXPECT_LT((Eigen::Map<Vector>(block.gradient(), 2) - gradient.head(2)).norm(), 1e-14);
      }
      if (order == Evaluation::kHessian) {
        const Matrix rows = MatrixMap(block.hessian(), 3, 3).topRows(2);
        EXPECT_LT((rows - hessian).norm(), 1e-9) << taped;
      }
    }
  }
}

// A function of a quaternion.
struct OfQuaternion {
  template <typename T>
  bool operator()(const T* q, const T* x, T* r) const {
    r[0] = q[0] * q[1] + q[2] * x[0];
    r[1] = q[3] * q[3] - 2.0 * q[0];
    return true;
  }
};

TEST(ResidualBlockEvaluator, TheSerialGradientIsThatOfTheAssemblyToTheBit) {
  const ceres::QuaternionManifold quaternion;
  const ceres::Manifold* const manifolds[] = {nullptr, &quaternion};
  for (const ceres::Manifold* manifold : manifolds) {
    const AutoDiffCostFunction<OfQuaternion, 2, 4, 1> cost(new OfQuaternion);
    Bench b(&cost, manifold);
    const double weight = 1.7;
    double gx[2] = {0.2, 0.2}, gy[2][4] = {{1, 2, 3, 4}, {1, 2, 3, 4}}, value[2] = {0.1, 0.1};
    double probe = 0.0;
    Evaluation& e = b.evaluation;
    e = {Evaluation::kGradient, &b.x, b.y};
    e.gx = &gx[0];
    e.gy = gy[0];
    ASSERT_TRUE(b.evaluator->AddGradient(0, weight, &value[0], &probe));
    EXPECT_EQ(probe, 0.0);
    e.gx = &gx[1];
    e.gy = gy[1];
    std::vector<double> memory(BlockDerivatives::Size(e.order, 5, 5));
    const LevelFunction::Residual& r = b.function.residuals()[0];
    BlockDerivatives block(memory.data(), r.local_size, r.ambient_size);
    ASSERT_TRUE(b.evaluator->Evaluate(0, &block));
    Assembly assembly(b.function, e);
    assembly.Add(weight, r.first, r.num_arguments, r.first_slot, &block);
    value[1] += weight * *block.value();
    EXPECT_EQ(value[0], value[1]);
    EXPECT_EQ(gx[0], gx[1]);
    EXPECT_NE(gx[0], 0.2);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(gy[0][i], gy[1][i]) << i;
    EXPECT_NE(gy[0][0], 1.0);
  }
}

class Broken : public ceres::SizedCostFunction<1, 1, 1> {
 public:
  explicit Broken(const std::string& how) : how_(how) {}
  bool Evaluate(double const* const*, double* r, double**) const override {
    if (how_ == "throws") throw std::runtime_error("enough");
    r[0] = how_ == "infinite" ? INFINITY : 1.0;
    return how_ != "fails";
  }

 private:
  std::string how_;
};

TEST(ResidualBlockEvaluator, NamesTheBlock) {
  const std::pair<std::string, std::string> cases[] = {
      {"throws", "residual block 0 of the lower problem threw: enough"},
      {"infinite", "residual block 0 of the lower problem has a residual that is not finite"},
      {"fails", "residual block 0 of the lower problem could not be evaluated"}};
  for (const auto& [how, what] : cases) {
    const Broken cost(how);
    Bench b(&cost);
    double value;
    BlockDerivatives block(&value, 2, 2);
    EXPECT_FALSE(b.evaluator->Evaluate(0, &block));
    EXPECT_THAT(b.evaluator->error(), HasSubstr(what));
  }
}

}  // namespace
}  // namespace bilevel
