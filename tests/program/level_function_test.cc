#include "bilevel/program/level_function.h"
#include "bilevel/program/level_evaluator.h"

#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

#include "ceres/product_manifold.h"
#include "count_allocations.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// A sum of softplus functions of t (3) and s (1): sum_k log(1 + exp(a_k . t + s b_k)).
class Softplus : public Objective {
 public:
  explicit Softplus(bool with_product) : with_product_(with_product) {}
  int num_terms() const override { return 5; }
  static double A(int k, int i) { return std::sin(1.0 + 2.3 * k + i); }
  static double B(int k) { return std::cos(0.7 * k); }
  static double Argument(double const* const* blocks, int k) {
    double u = B(k) * blocks[1][0];
    for (int i = 0; i < 3; ++i) u += A(k, i) * blocks[0][i];
    return u;
  }
  template <typename Body>
  void ForEach(const Batch& batch, Body body) const {
    if (batch.all()) {
      for (int k = 0; k < num_terms(); ++k) body(k, 1.0);
      return;
    }
    for (int k = 0; k < batch.size; ++k) {
      body(batch.Term(k, num_terms()), static_cast<double>(num_terms()) / batch.size);
    }
  }
  bool Evaluate(double const* const* blocks,
                const Batch& batch,
                double* value,
                double** gradients) const override {
    *value = 0.0;
    if (gradients) {
      for (int b = 0; b < 2; ++b) {
        if (gradients[b]) std::fill_n(gradients[b], b == 0 ? 3 : 1, 0.0);
      }
    }
    ForEach(batch, [&](int k, double weight) {
      const double u = Argument(blocks, k);
      *value += weight * std::log1p(std::exp(u));
      const double slope = weight / (1.0 + std::exp(-u));
      if (!gradients) return;
      for (int i = 0; i < 3; ++i) {
        if (gradients[0]) gradients[0][i] += slope * A(k, i);
      }
      if (gradients[1]) gradients[1][0] += slope * B(k);
    });
    return true;
  }
  bool HessianProduct(double const* const* blocks,
                      const Batch& batch,
                      double const* const* direction,
                      double** products) const override {
    for (int b = 0; b < 2; ++b) {
      if (products[b]) std::fill_n(products[b], b == 0 ? 3 : 1, 0.0);
    }
    ForEach(batch, [&](int k, double weight) {
      const double sigma = 1.0 / (1.0 + std::exp(-Argument(blocks, k)));
      double along = 0.0;
      for (int i = 0; direction[0] && i < 3; ++i) along += A(k, i) * direction[0][i];
      if (direction[1]) along += B(k) * direction[1][0];
      const double factor = weight * sigma * (1.0 - sigma) * along;
      for (int i = 0; i < 3; ++i) {
        if (products[0]) products[0][i] += factor * A(k, i);
      }
      if (products[1]) products[1][0] += factor * B(k);
    });
    return true;
  }
  bool has_hessian_product() const override { return with_product_; }

 private:
  bool with_product_;
};

class Quartic : public ceres::FirstOrderFunction {
 public:
  int NumParameters() const override { return 3; }
  bool Evaluate(const double* t, double* value, double* gradient) const override {
    const double n = t[0] * t[0] + 2 * t[1] * t[1] + t[2] * t[2];
    *value = 0.1 * n * n;
    if (gradient) {
      for (int i = 0; i < 3; ++i) gradient[i] = 0.4 * n * t[i] * (i == 1 ? 2 : 1);
    }
    return true;
  }
};

// Pose (quaternion, translation) observed through the subset block and two constants.
struct PoseResidual {
  template <typename T>
  bool operator()(const T* pose, const T* sub, const T* constant, T* residual) const {
    using std::exp;
    const T p[3] = {sub[0], sub[1] * sub[3], constant[0] + 0.1 * sub[2]};
    T rotated[3];
    ceres::UnitQuaternionRotatePoint(pose, p, rotated);
    residual[0] = rotated[0] + pose[4] - constant[1];
    residual[1] = rotated[1] * pose[5] + sub[2];
    residual[2] = exp(0.2 * rotated[2]) - pose[6];
    return true;
  }
};

// A quaternion of the upper level turns a point of the lower one.
struct UpperRotation {
  template <typename T>
  bool operator()(const T* q, const T* t, T* residual) const {
    ceres::UnitQuaternionRotatePoint(q, t, residual);
    for (int i = 0; i < 3; ++i) residual[i] -= 0.3 * i;
    return true;
  }
};

// Both levels with every kind of block, loss and term.
struct Kitchen {
  enum Contents { kResiduals = 0, kTerms = 1 };

  explicit Kitchen(int contents, int num_threads = 1) {
    for (double* q : {q0, q1, qe, pose, qx}) {
      Eigen::Map<Eigen::Vector4d> map(q);
      map = TestVector(4, 0.1 * (q - q0) + 0.7);
      map.normalize();
    }
    Vector v = TestVector(3, 2.0);
    std::copy_n(v.data(), 3, t0);
    v = TestVector(3, 3.0);
    std::copy_n(v.data(), 3, t1);
    v = TestVector(4, 4.0);
    std::copy_n(v.data(), 4, sub);
    v = TestVector(3, 5.0);
    std::copy_n(v.data(), 3, pose + 4);

    problem.AddUpperParameterBlock(s, 1);
    problem.AddUpperParameterBlock(&log_sigma, 1);
    problem.AddUpperParameterBlock(&log_scale, 1);
    problem.AddUpperParameterBlock(qx, 4, new ceres::QuaternionManifold);
    ceres::Problem* g = problem.lower();
    g->AddParameterBlock(q0, 4, new ceres::QuaternionManifold);
    g->AddParameterBlock(q1, 4, new ceres::QuaternionManifold);
    g->AddParameterBlock(qe, 4, new ceres::EigenQuaternionManifold);
    g->AddParameterBlock(sub, 4, new ceres::SubsetManifold(4, {1}));
    g->AddParameterBlock(
        pose,
        7,
        new ceres::ProductManifold<ceres::QuaternionManifold, ceres::EuclideanManifold<3>>);
    using Exact = AutoDiffCostFunction<Mixed, 4, 4, 3, 1>;
    for (int i = 0; i < 90; ++i) {
      Mixed mixed{{std::sin(i), std::cos(2.0 * i), 0.1 * (i % 7)}};
      ceres::CostFunction* cost =
          i % 3 ? static_cast<ceres::CostFunction*>(new Exact(new Mixed(mixed)))
                : new ceres::AutoDiffCostFunction<Mixed, 4, 4, 3, 1>(new Mixed(mixed));
      ceres::LossFunction* loss = nullptr;
      if (i % 5 == 1) loss = new CauchyLoss(&log_scale);
      if (i % 5 == 2) loss = new ceres::SoftLOneLoss(0.7);
      if (i % 5 == 3) loss = new ceres::ArctanLoss(0.9);
      if (i % 5 == 4) {
        loss = new NoiseScaleLoss(new ceres::CauchyLoss(0.8), &log_sigma, ceres::TAKE_OWNERSHIP);
      }
      g->AddResidualBlock(cost, loss, i % 2 ? q0 : q1, i % 4 < 2 ? t0 : t1, s);
    }
    g->AddResidualBlock(
        new AutoDiffCostFunction<Alignment, 2, 4, 1>(new Alignment{0.4}), nullptr, qe, s);
    g->AddResidualBlock(new ceres::AutoDiffCostFunction<PoseResidual, 3, 7, 4, 2>(new PoseResidual),
                        new ceres::CauchyLoss(1.5),
                        pose,
                        sub,
                        constant);
    g->AddResidualBlock(
        new AutoDiffCostFunction<UpperRotation, 3, 4, 3>(new UpperRotation), nullptr, qx, t0);
    g->SetParameterBlockConstant(constant);
    if (contents & kTerms) {
      problem.AddTerm(Level::kLower, std::make_unique<Softplus>(true), {{t0, 3}, {s, 1}});
      problem.AddTerm(Level::kLower, std::make_unique<Softplus>(false), {{t1, 3}, {s, 1}});
      problem.AddTerm(Level::kLower, std::make_unique<Quartic>(), t1);
    }
    ceres::Problem* f = problem.upper();
    for (int i = 0; i < 70; ++i) {
      f->AddResidualBlock(new ceres::AutoDiffCostFunction<Mixed, 4, 4, 3, 1>(
                              new Mixed{{std::sin(3.0 * i), 0.2, 0.1}}),
                          i % 2 ? new ceres::CauchyLoss(0.5) : nullptr,
                          i % 3 ? q1 : q0,
                          t1,
                          s);
    }
    Problem::CompileOptions options;
    options.num_threads = num_threads;
    std::string error;
    program = problem.Compile(options, &error);
    EXPECT_TRUE(program) << error;
    terms = contents & kTerms;
    x = Vector(program->x.size());
    y = Vector(program->y.size());
    program->x.ReadUser(x.data());
    program->y.ReadUser(y.data());
  }

  const LevelFunction& g() const { return *program->scenarios[0]->g; }
  const LevelFunction& f() const { return *program->scenarios[0]->f; }
  int nx() const { return program->x.tangent_size(); }
  int ny() const { return program->y.tangent_size(); }

  // The value as Ceres computes it, at x plus dx and y plus dy.
  double Truth(const Vector& dx, const Vector& dy, bool upper = false) {
    Vector px(x.size()), py(y.size());
    EXPECT_TRUE(program->x.Plus(x.data(), dx.data(), px.data()));
    EXPECT_TRUE(program->y.Plus(y.data(), dy.data(), py.data()));
    program->x.WriteUser(px.data());
    program->y.WriteUser(py.data());
    double value = 0.0;
    (upper ? problem.upper() : problem.lower())
        ->Evaluate(ceres::Problem::EvaluateOptions(), &value, nullptr, nullptr, nullptr);
    if (terms && !upper) {
      double part;
      for (const double* t : {t0, t1}) {
        const double* blocks[] = {t, s};
        Softplus(true).Evaluate(blocks, Batch::All(), &part, nullptr);
        value += part;
      }
      Quartic().Evaluate(t1, &part, nullptr);
      value += part;
    }
    program->x.WriteUser(x.data());
    program->y.WriteUser(y.data());
    return value;
  }

  // d^2 / da db of Truth along two joint tangent directions, by mixed differences and Richardson.
  double SecondTruth(const Vector& a, const Vector& b) {
    const auto at = [&](double ha, double hb) {
      const Vector d = ha * a + hb * b;
      return Truth(d.head(nx()), d.tail(ny()));
    };
    double table[4];
    for (int k = 0; k < 4; ++k) {
      const double h = 0.08 * std::pow(0.5, k);
      table[k] = (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4 * h * h);
    }
    for (int order = 1; order < 4; ++order) {
      const double factor = std::pow(4.0, order);
      for (int k = 0; k + order < 4; ++k) {
        table[k] = (factor * table[k + 1] - table[k]) / (factor - 1);
      }
    }
    return table[0];
  }

  double q0[4], q1[4], qe[4], pose[7], qx[4];
  double t0[3], t1[3], sub[4], constant[2] = {0.3, -0.4};
  double s[1] = {0.35}, log_sigma = -0.2, log_scale = 0.15;
  bool terms = false;
  Problem problem;
  std::unique_ptr<Program> program;
  Vector x, y;
};

TEST(LevelFunction, ValueAndGradientAreCeres) {
  Kitchen k(Kitchen::kResiduals);
  LevelEvaluator g(&k.g(), nullptr);
  double value = 0.0, value_alone = 0.0, truth = 0.0;
  Vector gx(k.nx()), gy(k.ny());
  ASSERT_TRUE(g.Gradient(k.x.data(), k.y.data(), Batch::All(), &value, gx.data(), gy.data()));
  ASSERT_TRUE(g.Value(k.x.data(), k.y.data(), Batch::All(), &value_alone));
  EXPECT_EQ(value, value_alone);
  ceres::Problem::EvaluateOptions options;
  for (const Space::Block& block : k.program->y.blocks()) {
    options.parameter_blocks.push_back(block.user);
  }
  std::vector<double> gradient;
  k.problem.lower()->Evaluate(options, &truth, nullptr, &gradient, nullptr);
  EXPECT_NEAR(value, truth, 1e-13 * truth);
  ASSERT_EQ(gradient.size(), static_cast<size_t>(k.ny()));
  EXPECT_LT((gy - Eigen::Map<Vector>(gradient.data(), k.ny())).norm(), 1e-12 * gy.norm());
}

TEST(LevelFunction, GradientInAllVariables) {
  Kitchen k(Kitchen::kTerms);
  LevelEvaluator g(&k.g(), nullptr);
  double value = 0.0;
  Vector gx(k.nx()), gy(k.ny()), truth(k.nx() + k.ny());
  ASSERT_TRUE(g.Gradient(k.x.data(), k.y.data(), Batch::All(), &value, gx.data(), gy.data()));
  for (int i = 0; i < truth.size(); ++i) {
    truth[i] = Derivative<double>([&](double h) {
      const Vector d = h * Vector::Unit(truth.size(), i);
      return k.Truth(d.head(k.nx()), d.tail(k.ny()));
    });
  }
  EXPECT_LT((gx - truth.head(k.nx())).norm(), 1e-9 * truth.norm());
  EXPECT_LT((gy - truth.tail(k.ny())).norm(), 1e-9 * truth.norm());
  EXPECT_GT(gx.cwiseAbs().minCoeff(), 1e-3);  // Everything is seen.
}

TEST(LevelFunction, HessianAndProducts) {
  Kitchen k(Kitchen::kTerms);
  LevelEvaluator g(&k.g(), nullptr);
  SparseMatrix yy = k.g().yy_pattern(), yx = k.g().yx_pattern();
  double value = 0.0;
  Vector gy(k.ny());
  ASSERT_TRUE(g.Hessian(k.x.data(), k.y.data(), HessianKind::kExact, &value, gy.data(), &yy, &yx));
  const int n = k.nx() + k.ny();
  Matrix truth_yy(k.ny(), k.ny()), truth_yx(k.ny(), k.nx());
  for (int i = 0; i < k.ny(); ++i) {
    for (int j = 0; j <= i; ++j) {
      truth_yy(i, j) = truth_yy(j, i) =
          k.SecondTruth(Vector::Unit(n, k.nx() + i), Vector::Unit(n, k.nx() + j));
    }
    for (int j = 0; j < k.nx(); ++j) {
      truth_yx(i, j) = k.SecondTruth(Vector::Unit(n, k.nx() + i), Vector::Unit(n, j));
    }
  }
  const Matrix full = Matrix(yy).selfadjointView<Eigen::Lower>();
  EXPECT_LT((full - truth_yy).cwiseAbs().maxCoeff(), 2e-6 * truth_yy.norm());
  EXPECT_LT((Matrix(yx) - truth_yx).cwiseAbs().maxCoeff(), 2e-6 * truth_yx.norm());

  const Vector v = TestVector(k.ny(), 0.9);
  Vector yy_v(k.ny()), xy_v(k.nx());
  ASSERT_TRUE(
      g.HessianProduct(k.x.data(), k.y.data(), Batch::All(), v.data(), yy_v.data(), xy_v.data()));
  EXPECT_LT((yy_v - full * v).norm(), 1e-8 * yy_v.norm());
  EXPECT_LT((xy_v - yx.transpose() * v).norm(), 1e-8 * xy_v.norm());
  Vector alone(k.ny());
  ASSERT_TRUE(
      g.HessianProduct(k.x.data(), k.y.data(), Batch::All(), v.data(), alone.data(), nullptr));
  EXPECT_LT((yy_v - alone).norm(), 1e-15 * alone.norm());
}

TEST(LevelFunction, LinearizeAndGaussNewton) {
  Kitchen k(Kitchen::kResiduals);
  LevelEvaluator f(&k.f(), nullptr);
  ASSERT_TRUE(k.f().IsLeastSquares());
  double value = 0.0, gradient_value = 0.0;
  Vector r, gx(k.nx()), gy(k.ny());
  RowSparseMatrix jx, jy;
  ASSERT_TRUE(f.Linearize(k.x.data(), k.y.data(), &value, &r, &jx, &jy));
  ASSERT_TRUE(
      f.Gradient(k.x.data(), k.y.data(), Batch::All(), &gradient_value, gx.data(), gy.data()));
  EXPECT_EQ(value, gradient_value);
  EXPECT_NEAR(value, k.Truth(Vector::Zero(k.nx()), Vector::Zero(k.ny()), true), 1e-12 * value);
  EXPECT_LT((jx.transpose() * r - gx).norm(), 1e-13 * gx.norm());
  EXPECT_LT((jy.transpose() * r - gy).norm(), 1e-13 * gy.norm());
  // Row by row against Ceres' Jacobian of the residuals without loss.
  ceres::Problem::EvaluateOptions options;
  options.apply_loss_function = false;
  for (const Space::Block& block : k.program->y.blocks()) {
    if (k.problem.upper()->HasParameterBlock(block.user)) {
      options.parameter_blocks.push_back(block.user);
    }
  }
  std::vector<double> residuals;
  ceres::CRSMatrix jacobian;
  for (double* q : {k.q0, k.q1}) {
    k.problem.upper()->SetManifold(
        q, k.problem.lower()->GetManifold(q) ? new ceres::QuaternionManifold : nullptr);
  }
  k.problem.upper()->Evaluate(options, nullptr, &residuals, nullptr, &jacobian);
  ASSERT_EQ(static_cast<int>(residuals.size()), r.size());
  Matrix truth = Matrix::Zero(r.size(), k.ny());
  std::vector<int> columns;
  for (double* block : options.parameter_blocks) {
    const Space::Block& b = k.program->y.blocks()[k.program->y.Find(block)];
    for (int j = 0; j < b.tangent_size; ++j) columns.push_back(b.tangent_offset + j);
  }
  for (int i = 0; i < r.size(); ++i) {
    const double root = r[i] / residuals[i];
    EXPECT_LE(root, 1.0 + 1e-12);
    for (int e = jacobian.rows[i]; e < jacobian.rows[i + 1]; ++e) {
      truth(i, columns[jacobian.cols[e]]) = root * jacobian.values[e];
    }
  }
  EXPECT_LT((Matrix(jy) - truth).norm(), 1e-12 * truth.norm());

  SparseMatrix yy = k.f().yy_pattern(), yx = k.f().yx_pattern(), exact_yx = yx, exact_yy = yy;
  ASSERT_TRUE(
      f.Hessian(k.x.data(), k.y.data(), HessianKind::kGaussNewton, nullptr, gy.data(), &yy, &yx));
  const Matrix full = Matrix(yy).selfadjointView<Eigen::Lower>();
  EXPECT_LT((full - truth.transpose() * truth).norm(), 1e-12 * full.norm());
  // The mixed derivative stays exact.
  ASSERT_TRUE(f.Hessian(
      k.x.data(), k.y.data(), HessianKind::kExact, nullptr, gy.data(), &exact_yy, &exact_yx));
  EXPECT_EQ(Matrix(yx), Matrix(exact_yx));
  EXPECT_GT((Matrix(yy) - Matrix(exact_yy)).norm(), 1e-3 * full.norm());
  SparseMatrix alone = yy;
  ASSERT_TRUE(f.Hessian(
      k.x.data(), k.y.data(), HessianKind::kGaussNewton, nullptr, gy.data(), &alone, nullptr));
  EXPECT_LT((Matrix(yy) - Matrix(alone)).norm(), 1e-13 * full.norm());

  LevelEvaluator g(&k.g(), nullptr);
  EXPECT_FALSE(g.Linearize(k.x.data(), k.y.data(), &value, &r, &jx, &jy));
  EXPECT_THAT(g.error(), HasSubstr("the lower problem is not a sum of squares"));
}

// Everything an evaluator can say, in one vector.
Vector Everything(LevelEvaluator* e, Kitchen* k, bool upper) {
  const LevelFunction& function = upper ? k->f() : k->g();
  const int nx = k->nx(), ny = k->ny();
  const Vector v = TestVector(ny, 0.9);
  Vector all(0), gx(nx), gy(ny);
  const auto append = [&](const auto& part) {
    const int at = static_cast<int>(all.size());
    all.conservativeResize(at + part.size());
    all.tail(part.size()) = part;
  };
  for (const Batch& batch : {Batch::All(), Batch{200, 7}, Batch{10, 8}}) {
    double value = 0.0;
    EXPECT_TRUE(e->Gradient(k->x.data(), k->y.data(), batch, &value, gx.data(), gy.data()));
    append(gx);
    append(gy);
    append(Vector::Constant(1, value));
    EXPECT_TRUE(e->HessianProduct(k->x.data(), k->y.data(), batch, v.data(), gy.data(), gx.data()));
    append(gx);
    append(gy);
  }
  SparseMatrix yy = function.yy_pattern(), yx = function.yx_pattern();
  EXPECT_TRUE(
      e->Hessian(k->x.data(), k->y.data(), HessianKind::kExact, nullptr, gy.data(), &yy, &yx));
  append(Eigen::Map<Vector>(yy.valuePtr(), yy.nonZeros()));
  append(Eigen::Map<Vector>(yx.valuePtr(), yx.nonZeros()));
  if (upper) {
    Vector r;
    RowSparseMatrix jx, jy;
    EXPECT_TRUE(e->Linearize(k->x.data(), k->y.data(), nullptr, &r, &jx, &jy));
    append(r);
    append(Eigen::Map<Vector>(jx.valuePtr(), jx.nonZeros()));
    append(Eigen::Map<Vector>(jy.valuePtr(), jy.nonZeros()));
  }
  return all;
}

TEST(LevelFunction, ThreadsDoNotChangeABit) {
  for (const bool upper : {false, true}) {
    Vector serial;
    for (const int threads : {1, 2, 4}) {
      Kitchen k(Kitchen::kTerms, threads);
      LevelEvaluator e(upper ? &k.f() : &k.g(), &k.program->pool);
      const Vector all = Everything(&e, &k, upper);
      EXPECT_TRUE(all.allFinite());
      if (threads == 1) {
        serial = all;
      } else {
        EXPECT_EQ(serial, all) << threads;
      }
      EXPECT_EQ(all, Everything(&e, &k, upper));  // Replayed.
    }
  }
}

// A minibatch is the sum over its drawn terms, each of which is a whole problem of its own.
TEST(LevelFunction, MinibatchIsTheSumOfItsTerms) {
  Kitchen k(Kitchen::kResiduals);
  LevelEvaluator g(&k.g(), nullptr);
  const int n = k.g().num_residual_blocks();
  const Vector v = TestVector(k.ny(), 0.4);
  // The contribution of each residual, by differences of ceres' per-block costs is too coarse:
  // a function of one residual each.
  std::vector<ceres::ResidualBlockId> ids;
  k.problem.lower()->GetResidualBlocks(&ids);
  std::vector<Vector> gradients, products;
  std::vector<double> values;
  for (ceres::ResidualBlockId id : ids) {
    LevelFunction one(&k.program->x, &k.program->y, "one");
    std::vector<double*> blocks;
    k.problem.lower()->GetParameterBlocksForResidualBlock(id, &blocks);
    one.AddResidual(k.problem.lower()->GetCostFunctionForResidualBlock(id),
                    k.problem.lower()->GetLossFunctionForResidualBlock(id),
                    blocks);
    one.Finish();
    LevelEvaluator evaluator(&one, nullptr);
    Vector gradient(k.nx() + k.ny()), product(k.nx() + k.ny());
    double value = 0.0;
    ASSERT_TRUE(evaluator.Gradient(
        k.x.data(), k.y.data(), Batch::All(), &value, gradient.data(), gradient.data() + k.nx()));
    ASSERT_TRUE(evaluator.HessianProduct(
        k.x.data(), k.y.data(), Batch::All(), v.data(), product.data() + k.nx(), product.data()));
    // Against Ceres, which has no theta: y's part and the value.
    double cost = 0.0;
    k.problem.lower()->EvaluateResidualBlock(id, true, &cost, nullptr, nullptr);
    EXPECT_NEAR(value, cost, 1e-14 * (1 + cost));
    values.push_back(value);
    gradients.push_back(gradient);
    products.push_back(product);
  }
  for (const Batch& batch : {Batch{1, 3}, Batch{17, 99}, Batch{300, 5}}) {
    Vector gradient = Vector::Zero(k.nx() + k.ny()), product = gradient, have = gradient;
    double value = 0.0, have_value = 0.0;
    for (int i = 0; i < batch.size; ++i) {
      const int term = batch.Term(i, n);
      ASSERT_GE(term, 0);
      ASSERT_LT(term, n);
      const double weight = static_cast<double>(n) / batch.size;
      value += weight * values[term];
      gradient += weight * gradients[term];
      product += weight * products[term];
    }
    ASSERT_TRUE(
        g.Gradient(k.x.data(), k.y.data(), batch, &have_value, have.data(), have.data() + k.nx()));
    EXPECT_NEAR(have_value, value, 1e-12 * value);
    EXPECT_LT((have - gradient).norm(), 1e-12 * gradient.norm());
    ASSERT_TRUE(g.HessianProduct(
        k.x.data(), k.y.data(), batch, v.data(), have.data() + k.nx(), have.data()));
    EXPECT_LT((have - product).norm(), 1e-12 * product.norm());
  }
}

TEST(LevelFunction, MinibatchesAreUnbiased) {
  Kitchen k(Kitchen::kTerms);
  LevelEvaluator g(&k.g(), nullptr);
  const int n = k.nx() + k.ny();
  Vector full(n), one(n), mean = Vector::Zero(n), square = Vector::Zero(n);
  double value = 0.0, full_value = 0.0, mean_value = 0.0, square_value = 0.0;
  ASSERT_TRUE(g.Gradient(
      k.x.data(), k.y.data(), Batch::All(), &full_value, full.data(), full.data() + k.nx()));
  const int batches = 20000;
  for (int b = 0; b < batches; ++b) {
    const Batch batch{8, static_cast<uint64_t>(b) * 7919u + 13u};
    ASSERT_TRUE(g.Gradient(k.x.data(), k.y.data(), batch, &value, one.data(), one.data() + k.nx()));
    mean += one / batches;
    square += one.cwiseAbs2() / batches;
    mean_value += value / batches;
    square_value += value * value / batches;
  }
  const double deviation = std::sqrt((square_value - mean_value * mean_value) / batches);
  EXPECT_GT(deviation, 0.0);
  EXPECT_LT(std::abs(mean_value - full_value), 4.5 * deviation);
  for (int i = 0; i < n; ++i) {
    const double sigma = std::sqrt((square[i] - mean[i] * mean[i]) / batches);
    EXPECT_LE(std::abs(mean[i] - full[i]), 4.5 * sigma + 1e-12) << i;
  }
}

TEST(LevelFunction, AllocatesNothingAfterTheFirstCall) {
  for (const int threads : {1, 2}) {
    Kitchen k(Kitchen::kTerms, threads);
    for (const bool upper : {false, true}) {
      const LevelFunction& function = upper ? k.f() : k.g();
      LevelEvaluator e(&function, &k.program->pool);
      Vector gx(k.nx()), gy(k.ny()), r;
      const Vector v = TestVector(k.ny(), 0.9);
      SparseMatrix yy = function.yy_pattern(), yx = function.yx_pattern();
      RowSparseMatrix jx, jy;
      const auto counted = [&](const char* what, auto call) {
        ASSERT_TRUE(call()) << e.error();
        // A thread's own scratch grows when it meets its first large term, and which thread meets
        // which is chance: with several, calls without an allocation must come sooner or later.
        const int attempts = threads == 1 ? 1 : 50;
        bool ok = true;
        long fewest = 1;
        for (int attempt = 0; attempt < attempts && fewest > 0; ++attempt) {
          const long before = allocations;
          for (int i = 0; i < 3; ++i) ok = call() && ok;
          fewest = allocations - before;
        }
        EXPECT_EQ(fewest, 0) << what << " upper " << upper << " threads " << threads;
        EXPECT_TRUE(ok);
      };
      double value = 0.0;
      for (const Batch& batch : {Batch::All(), Batch{20, 3}, Batch{100, 4}}) {
        counted("value", [&] { return e.Value(k.x.data(), k.y.data(), batch, &value); });
        counted("gradient", [&] {
          return e.Gradient(k.x.data(), k.y.data(), batch, &value, gx.data(), gy.data());
        });
        counted("product", [&] {
          return e.HessianProduct(k.x.data(), k.y.data(), batch, v.data(), gy.data(), gx.data());
        });
      }
      counted("hessian", [&] {
        return e.Hessian(k.x.data(), k.y.data(), HessianKind::kExact, &value, gy.data(), &yy, &yx);
      });
      counted("gauss-newton", [&] {
        return e.Hessian(
            k.x.data(), k.y.data(), HessianKind::kGaussNewton, &value, gy.data(), &yy, &yx);
      });
      if (upper) {
        counted("linearize",
                [&] { return e.Linearize(k.x.data(), k.y.data(), &value, &r, &jx, &jy); });
      }
    }
  }
}

// A callback computes what its cost function reads: it must see the point of the evaluation.
class Doubling : public ceres::EvaluationCallback {
 public:
  explicit Doubling(const double* y) : y_(y) {}
  void PrepareForEvaluation(bool, bool) override {
    ++calls;
    if (fail) throw std::runtime_error("callback failed");
    doubled = 2.0 * *y_;
  }
  double doubled = 0.0;
  bool fail = false;
  int calls = 0;

 private:
  const double* y_;
};

TEST(LevelFunction, EvaluationCallbackSeesThePointAndUserMemoryIsRestored) {
  double x = 0.5, y = 1.0;
  Doubling callback(&y);
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new FunctionCost(1,
                       {1, 1},
                       [&](double const* const* p, double* r, double** j) {
                         r[0] = callback.doubled - p[1][0];
                         if (j && j[0]) j[0][0] = 2.0;
                         if (j && j[1]) j[1][0] = -1.0;
                         return true;
                       }),
      nullptr,
      &y,
      &x);
  problem.upper()->AddResidualBlock(TargetCost(3.0), nullptr, &y);
  problem.scenario(0)->SetEvaluationCallback(Level::kLower, &callback);
  Problem::CompileOptions options;
  options.num_threads = 4;
  std::string error;
  const auto program = problem.Compile(options, &error);
  ASSERT_TRUE(program) << error;
  LevelEvaluator g(program->scenarios[0]->g.get(), &program->pool);
  double px = 0.25, py = -2.0, value = 0.0, gx = 0.0, gy = 0.0;
  ASSERT_TRUE(g.Gradient(&px, &py, Batch::All(), &value, &gx, &gy));
  EXPECT_DOUBLE_EQ(value, 0.5 * 4.25 * 4.25);
  EXPECT_DOUBLE_EQ(gy, -8.5);
  EXPECT_DOUBLE_EQ(gx, 4.25);
  EXPECT_EQ(x, 0.5);
  EXPECT_EQ(y, 1.0);
  const int calls = callback.calls;
  ASSERT_TRUE(g.Value(&px, &py, Batch::All(), &value));
  EXPECT_EQ(callback.calls, calls + 1);
  callback.fail = true;
  EXPECT_FALSE(g.Value(&px, &py, Batch::All(), &value));
  EXPECT_THAT(g.error(), HasSubstr("callback failed"));
  EXPECT_EQ(x, 0.5);
  EXPECT_EQ(y, 1.0);
}

TEST(LevelFunction, TheFirstCulpritIsNamedWhateverTheThreads) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    double x = 0.0, y = 1.0;
    Space xs, ys;
    xs.Add(&x, 1, nullptr, "x");
    ys.Add(&y, 1, nullptr, "y");
    std::vector<std::unique_ptr<ceres::CostFunction>> costs;
    LevelFunction function(&xs, &ys, "the lower problem");
    for (int i = 0; i < 200; ++i) {
      costs.emplace_back(
          new FunctionCost(1, {1, 1}, [i](double const* const* p, double* r, double** j) -> bool {
            r[0] = p[0][0];
            if (j && j[0]) j[0][0] = 1.0;
            if (j && j[1]) j[1][0] = 0.0;
            if (i == 101) throw 42;
            if (i == 150) throw std::bad_alloc();
            return i != 180;
          }));
      function.AddResidual(costs.back().get(), nullptr, {&y, &x});
    }
    function.Finish();
    LevelEvaluator evaluator(&function, &pool);
    double value = 0.0;
    EXPECT_FALSE(evaluator.Value(&x, &y, Batch::All(), &value));
    EXPECT_THAT(evaluator.error(), HasSubstr("residual block 101 of the lower problem threw"));
  }
}

TEST(LevelFunction, BadBatchesAndInfiniteSecondDerivatives) {
  Kitchen k(Kitchen::kResiduals);
  LevelEvaluator g(&k.g(), nullptr);
  double value = 0.0;
  EXPECT_FALSE(g.Value(k.x.data(), k.y.data(), Batch{-1, 0}, &value));
  EXPECT_THAT(g.error(), HasSubstr("-1"));

  class Bad : public SecondOrderCostFunction {
   public:
    Bad() {
      set_num_residuals(1);
      mutable_parameter_block_sizes()->push_back(1);
    }
    bool Evaluate(double const* const* p, double* r, double** j) const override {
      r[0] = p[0][0];
      if (j && j[0]) j[0][0] = 1.0;
      return true;
    }
    bool EvaluateHessian(double const* const*, const double*, double* h) const override {
      h[0] = std::numeric_limits<double>::quiet_NaN();
      return true;
    }
    bool EvaluateHessianProduct(double const* const*,
                                const double*,
                                const double*,
                                double* product) const override {
      product[0] = std::numeric_limits<double>::quiet_NaN();
      return true;
    }
  } bad;
  double x = 1.0, y = 2.0, v = 1.0, gy = 0.0;
  Space xs, ys;
  xs.Add(&x, 1, nullptr, "x");
  ys.Add(&y, 1, nullptr, "the culprit");
  LevelFunction function(&xs, &ys, "the lower problem");
  function.AddResidual(&bad, nullptr, {&y});
  function.Finish();
  LevelEvaluator evaluator(&function, nullptr);
  SparseMatrix yy = function.yy_pattern(), yx = function.yx_pattern();
  EXPECT_FALSE(evaluator.Hessian(&x, &y, HessianKind::kExact, &value, &gy, &yy, &yx));
  EXPECT_THAT(evaluator.error(), HasSubstr("the culprit"));
  EXPECT_FALSE(evaluator.HessianProduct(&x, &y, Batch::All(), &v, &gy, nullptr));
  EXPECT_THAT(evaluator.error(), HasSubstr("the culprit"));
}

// A scenario may have nothing above: its rows are none, of the right length.
TEST(LevelFunction, LinearizesNothing) {
  double user_x[2] = {1.0, 2.0}, user_y[3] = {};
  Space x, y;
  x.Add(user_x, 2, nullptr, "x");
  y.Add(user_y, 3, nullptr, "y");
  LevelFunction function(&x, &y, "the upper problem");
  function.Finish();
  LevelEvaluator evaluator(&function, nullptr);
  double value = 1.0;
  Vector r;
  RowSparseMatrix jx, jy;
  ASSERT_TRUE(evaluator.Linearize(user_x, user_y, &value, &r, &jx, &jy)) << evaluator.error();
  EXPECT_EQ(value, 0.0);
  EXPECT_EQ(r.size(), 0);
  EXPECT_EQ(jx.cols(), 2);
  EXPECT_EQ(jy.cols(), 3);
}

}  // namespace
}  // namespace bilevel
