#include "bilevel/models/linear_model.h"

#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/methods/stochastic/f2sa.h"
#include "bilevel/models/internal/simd_kernels.h"
#include "bilevel/models/l2_regularizer.h"
#include "bilevel/problem.h"
#include "bilevel/solver.h"
#include "ceres/jet.h"
#include "count_allocations.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// A small problem of any kind, with every derivative in one vector (Theta, then w).
struct Case {
  Case(LinearModel::Loss kind,
       LinearModel::Weights weights,
       bool by_class,
       int samples,
       int features)
      : loss(kind), n(samples), d(features), c(kind == LinearModel::kLogistic ? 1 : 3), a(n, d) {
    std::mt19937 generator(5);
    std::normal_distribution<double> normal;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < d; ++j) a(i, j) = (i + j) % 3 ? normal(generator) : 0.0;
    }
    const int classes = loss == LinearModel::kLogistic ? 2 : 3;
    for (int i = 0; i < n * (loss == LinearModel::kSquared ? c : 1); ++i) {
      targets.push_back(loss == LinearModel::kSquared ? normal(generator) : i % classes);
    }
    options.weights = weights;
    options.weights_by_class = by_class;
    num_weights = weights == LinearModel::kNone ? 0 : by_class ? classes : n;
    point = Vector::NullaryExpr(c * d + num_weights, [&] { return 0.5 * normal(generator); });
    direction = Vector::NullaryExpr(point.size(), [&] { return normal(generator); });
    // Not at a corner of the clipped weights.
    for (int i = 0; i < num_weights; ++i) point[c * d + i] = 0.7 * std::sin(1.0 + i);
  }

  std::unique_ptr<LinearModel> Model(const Features& features) const {
    return std::make_unique<LinearModel>(loss, features, targets, c, options);
  }
  std::vector<const double*> Blocks(const Vector& v) const { return {v.data(), v.data() + c * d}; }

  // The definition, sample by sample.
  template <typename T>
  T Naive(const T* theta, const T* w) const {
    using std::exp;
    using std::log;
    T sum(0.0);
    for (int i = 0; i < n; ++i) {
      std::vector<T> o(c, T(0.0));
      for (int k = 0; k < c; ++k) {
        for (int j = 0; j < d; ++j) o[k] += theta[k * d + j] * a(i, j);
      }
      T value(0.0);
      if (loss == LinearModel::kSoftmax) {
        T total(0.0);
        for (const T& output : o) total += exp(output);
        value = log(total) - o[static_cast<int>(targets[i])];
      } else if (loss == LinearModel::kLogistic) {
        value = log(1.0 + exp(o[0])) - targets[i] * o[0];
      } else {
        for (int k = 0; k < c; ++k)
          value += 0.5 * (o[k] - targets[i * c + k]) * (o[k] - targets[i * c + k]);
      }
      const T* own = num_weights > 0
                         ? &w[options.weights_by_class ? static_cast<int>(targets[i]) : i]
                         : nullptr;
      if (options.weights == LinearModel::kClipped) {
        value *= *own < T(0.0) ? T(0.0) : *own > T(1.0) ? T(1.0) : *own;
      } else if (options.weights == LinearModel::kSigmoid) {
        value /= 1.0 + exp(-*own);
      } else if (options.weights == LinearModel::kExp) {
        value *= exp(*own);
      }
      sum += value;
    }
    return sum / static_cast<double>(n);
  }

  LinearModel::Loss loss;
  int n, d, c, num_weights;
  RowMatrix a;
  std::vector<double> targets;
  LinearModel::Options options;
  Vector point, direction;
};

double Gradient(
    const LinearModel& model, const Case& s, const Vector& at, const Batch& batch, Vector* g) {
  g->setZero(s.point.size());  // See Objective::block_of_terms.
  double value = 0.0;
  double* gradients[] = {g->data(), g->data() + s.c * s.d};
  EXPECT_TRUE(model.Evaluate(s.Blocks(at).data(), batch, &value, gradients));
  return value;
}

Vector Product(const LinearModel& model, const Case& s, const Batch& batch) {
  Vector product = Vector::Zero(s.point.size());
  double* products[] = {product.data(), product.data() + s.c * s.d};
  EXPECT_TRUE(model.HessianProduct(
      s.Blocks(s.point).data(), batch, s.Blocks(s.direction).data(), products));
  return product;
}

std::vector<Case> AllKinds(int n, int d) {
  std::vector<Case> kinds;
  for (const auto loss : {LinearModel::kSoftmax, LinearModel::kLogistic, LinearModel::kSquared}) {
    kinds.emplace_back(loss, LinearModel::kNone, false, n, d);
    for (const auto weights : {LinearModel::kClipped, LinearModel::kSigmoid, LinearModel::kExp}) {
      kinds.emplace_back(loss, weights, false, n, d);
      if (loss != LinearModel::kSquared) kinds.emplace_back(loss, weights, true, n, d);
    }
  }
  return kinds;
}

TEST(LinearModel, IsItsDefinitionByAutomaticDifferentiation) {
  constexpr int kSamples = 6, kFeatures = 4;
  constexpr int kMost = 3 * kFeatures + kSamples;
  using Jet = ceres::Jet<double, kMost>;
  for (const Case& s : AllKinds(kSamples, kFeatures)) {
    const int size = static_cast<int>(s.point.size());
    std::vector<Jet> jets(size);
    for (int j = 0; j < size; ++j) jets[j] = Jet(s.point[j], j);
    const Jet expected = s.Naive(jets.data(), jets.data() + s.c * s.d);
    Vector gradient;
    const double value = Gradient(*s.Model(Features(s.a)), s, s.point, Batch::All(), &gradient);
    EXPECT_NEAR(value, expected.a, 1e-14);
    EXPECT_LT((gradient - expected.v.head(size)).norm(), 1e-14);
  }
}

// Central differences of the gradient: fourth order after one extrapolation, both with the error
// that their order says.
TEST(LinearModel, ProductsAreDerivativesOfGradients) {
  for (const Case& s : AllKinds(7, 5)) {
    const auto model = s.Model(Features(s.a));
    const auto difference = [&](double h) {
      Vector plus, minus;
      Gradient(*model, s, s.point + h * s.direction, Batch::All(), &plus);
      Gradient(*model, s, s.point - h * s.direction, Batch::All(), &minus);
      return Vector((plus - minus) / (2.0 * h));
    };
    const Vector product = Product(*model, s, Batch::All());
    const double h = 0.02;
    const Vector coarse = difference(h), fine = difference(h / 2.0);
    const double first = (coarse - product).norm(), second = (fine - product).norm();
    const double extrapolated = ((4.0 * fine - coarse) / 3.0 - product).norm();
    EXPECT_LT(extrapolated, 1e-5 * product.norm());
    if (first < 1e-10) continue;  // A quadratic.
    EXPECT_NEAR(std::log2(first / second), 2.0, 0.1) << first << " " << second;
  }
}

TEST(LinearModel, DenseSparseFloatAndDoubleAgree) {
  for (const Case& s : AllKinds(150, 37)) {
    const Eigen::SparseMatrix<double> sparse = s.a.sparseView();
    Vector expected, gradient;
    const auto exact = s.Model(Features(s.a));
    const Features others[] = {Features(sparse),
                               Features(s.a.cast<float>()),
                               Features(Eigen::SparseMatrix<float>(sparse.cast<float>()))};
    const Batch batches[] = {Batch::All(), Batch{20, 3}, Batch::Block(64, 1)};
    for (int k = 0; k < 3; ++k) {
      const auto model = s.Model(others[k]);
      const double tolerance = k == 0 ? 1e-13 : 3e-6;
      for (const Batch& batch : batches) {
        const double value = Gradient(*exact, s, s.point, batch, &expected);
        EXPECT_NEAR(
            Gradient(*model, s, s.point, batch, &gradient), value, tolerance * (1.0 + value));
        EXPECT_LT((gradient - expected).norm(), tolerance * (1.0 + expected.norm()));
        const Vector product = Product(*exact, s, batch);
        EXPECT_LT((Product(*model, s, batch) - product).norm(), tolerance * (1.0 + product.norm()));
      }
    }
  }
}

// Every remainder of registers and tiles, over several tiles of features; at points known and new.
TEST(LinearModel, SparseIsDenseWithAnyNumberOfClasses) {
  constexpr int kSamples = 90, kFeatures = 150;
  std::mt19937 generator(3);
  std::normal_distribution<double> normal;
  const RowMatrix a = RowMatrix::NullaryExpr(
      kSamples, kFeatures, [&] { return generator() % 8 == 0 ? normal(generator) : 0.0; });
  const Eigen::SparseMatrix<double> sparse = a.sparseView();
  for (const int classes : {2, 3, 4, 5, 8, 9, 20, 33, 70}) {
    std::vector<int> labels(kSamples);
    for (int i = 0; i < kSamples; ++i) labels[i] = i % classes;
    LinearModel::Options options;
    options.weights = LinearModel::kSigmoid;
    options.num_threads = 2;
    const std::unique_ptr<LinearModel> models[] = {
        SoftmaxRegression(Features(a), labels, classes, options),
        SoftmaxRegression(Features(sparse), labels, classes, options),
        SoftmaxRegression(
            Features(Eigen::SparseMatrix<float>(sparse.cast<float>())), labels, classes, options)};
    const int size = classes * kFeatures;
    Vector point = Vector::NullaryExpr(size + kSamples, [&] { return 0.3 * normal(generator); });
    const Vector direction = Vector::NullaryExpr(point.size(), [&] { return normal(generator); });
    for (const double shift : {0.0, 0.0, 0.1}) {
      point.array() += shift;
      const double* blocks[] = {point.data(), point.data() + size};
      const double* along[] = {direction.data(), direction.data() + size};
      for (const Batch& batch : {Batch::All(), Batch{16, 2}}) {
        double values[3];
        Vector gradients[3], products[3];
        for (int k = 0; k < 3; ++k) {
          gradients[k].setZero(point.size());
          products[k].setZero(point.size());
          double* g[] = {gradients[k].data(), gradients[k].data() + size};
          double* p[] = {products[k].data(), products[k].data() + size};
          ASSERT_TRUE(models[k]->Evaluate(blocks, batch, &values[k], g));
          ASSERT_TRUE(models[k]->HessianProduct(blocks, batch, along, p));
          const double tolerance = k < 2 ? 1e-13 : 3e-6;
          EXPECT_NEAR(values[k], values[0], tolerance * values[0]);
          EXPECT_LT((gradients[k] - gradients[0]).norm(), tolerance * gradients[0].norm());
          EXPECT_LT((products[k] - products[0]).norm(), tolerance * products[0].norm());
          p[0] = nullptr;  // By the weights alone.
          Vector by_weights = Vector::Zero(kSamples);
          p[1] = by_weights.data();
          ASSERT_TRUE(models[k]->HessianProduct(blocks, batch, along, p));
          EXPECT_EQ(by_weights, products[k].tail(kSamples));
        }
      }
      RowMatrix expected(kSamples, classes), outputs(kSamples, classes);
      models[0]->Outputs(point.data(), expected.data());
      models[1]->Outputs(point.data(), outputs.data());
      EXPECT_LT((outputs - expected).norm(), 1e-13 * expected.norm());
    }
  }
}

TEST(LinearModel, ThreadsDoNotChangeABit) {
  for (Case s : AllKinds(2500, 19)) {
    const Eigen::SparseMatrix<double> sparse = s.a.sparseView();
    for (const Features& features :
         {Features(s.a), Features(s.a.cast<float>()), Features(sparse)}) {
      s.options.num_threads = 1;
      const auto one = s.Model(features);
      s.options.num_threads = 2;
      const auto two = s.Model(features);
      Vector g1, g2;
      EXPECT_EQ(Gradient(*one, s, s.point, Batch::All(), &g1),
                Gradient(*two, s, s.point, Batch::All(), &g2));
      EXPECT_EQ(g1, g2);
      EXPECT_EQ(Product(*one, s, Batch::All()), Product(*two, s, Batch::All()));
      const Batch large{1500, 1};
      EXPECT_EQ(Product(*one, s, large), Product(*two, s, large));
    }
  }
}

TEST(LinearModel, MinibatchesAreUnbiased) {
  for (const Case& s : AllKinds(90, 6)) {
    const auto model = s.Model(Features(s.a));
    Vector whole, gradient, sum = Vector::Zero(s.point.size()), products = sum;
    const double value = Gradient(*model, s, s.point, Batch::All(), &whole);
    double values = 0.0;
    const Batch any = Batch::Block(8, 0);
    const int blocks = any.NumBlocks(s.n);  // 12, the last one short.
    for (int b = 0; b < blocks; ++b) {
      values += Gradient(*model, s, s.point, Batch::Block(8, b), &gradient) / blocks;
      sum += gradient / blocks;
      products += Product(*model, s, Batch::Block(8, b)) / blocks;
    }
    EXPECT_NEAR(values, value, 1e-13);
    EXPECT_LT((sum - whole).norm(), 1e-13);
    EXPECT_LT((products - Product(*model, s, Batch::All())).norm(), 1e-12);

    // With weights of its own, terms drawn twice included: the same as its terms one by one.
    std::vector<double> weights(s.n);
    for (int i = 0; i < s.n; ++i) weights[i] = 1.0 + i % 4;
    const Importance importance(weights);
    Batch drawn{40, 9};
    drawn.importance = &importance;
    Vector expected = Vector::Zero(s.point.size());
    for (int k = 0; k < 40; ++k) {
      Gradient(*model, s, s.point, Batch::One(drawn.Term(k, s.n)), &gradient);
      expected += drawn.Weight(k, s.n) / s.n * gradient;
    }
    Gradient(*model, s, s.point, drawn, &gradient);
    EXPECT_LT((gradient - expected).norm(), 1e-12 * (1.0 + expected.norm()));
  }
}

TEST(LinearModel, AllAtOnceIsOneByOneAndAllocatesNothing) {
  for (const Case& s : AllKinds(200, 11)) {
    const Eigen::SparseMatrix<float> sparse = s.a.cast<float>().sparseView();
    for (const Features& features : {Features(s.a), Features(sparse)}) {
      const auto model = s.Model(features);
      const auto blocks = s.Blocks(s.point), direction = s.Blocks(s.direction);
      for (const Batch& batch : {Batch::All(), Batch{64, 2}}) {
        Vector gradient, both(s.point.size()), product(s.point.size());
        const double value = Gradient(*model, s, s.point, batch, &gradient);
        double own = 0.0;
        double* gradients[] = {both.data(), both.data() + s.c * s.d};
        double* products[] = {product.data(), product.data() + s.c * s.d};
        const auto evaluate = [&] {
          both.setZero();
          product.setZero();
          ASSERT_TRUE(model->EvaluateWithProduct(
              blocks.data(), batch, direction.data(), &own, gradients, products));
        };
        evaluate();
        EXPECT_EQ(own, value);
        EXPECT_EQ(both, gradient);
        EXPECT_EQ(product, Product(*model, s, batch));
        const long before = allocations;
        evaluate();
        EXPECT_EQ(allocations, before);
      }
    }
  }
}

// Far out, where e^o overflows.
TEST(LinearModel, LossesOfLargeOutputsAreFinite) {
  for (const auto loss : {LinearModel::kSoftmax, LinearModel::kLogistic}) {
    Case s(loss, LinearModel::kNone, false, 4, 3);
    const auto model = s.Model(Features(s.a.cast<float>()));
    s.point *= 1e4;
    Vector gradient;
    EXPECT_TRUE(std::isfinite(Gradient(*model, s, s.point, Batch::All(), &gradient)));
    EXPECT_TRUE(gradient.allFinite());
    EXPECT_TRUE(Product(*model, s, Batch::All()).allFinite());
  }
}

TEST(LinearModel, OutputsAndAccuracy) {
  const Case s(LinearModel::kSoftmax, LinearModel::kNone, false, 150, 9);
  const auto model = s.Model(Features(s.a));
  const Eigen::Map<const RowMatrix> theta(s.point.data(), s.c, s.d);
  const RowMatrix expected = s.a * theta.transpose();
  RowMatrix outputs(s.n, s.c);
  model->Outputs(s.point.data(), outputs.data());
  EXPECT_LT((outputs - expected).norm(), 1e-13 * expected.norm());
  int right = 0;
  for (int i = 0; i < s.n; ++i) {
    int best;
    expected.row(i).maxCoeff(&best);
    right += best == s.targets[i];
  }
  EXPECT_EQ(model->Accuracy(s.point.data()), static_cast<double>(right) / s.n);
}

// Ridge regression from its normal equations, found by the library's own lower solver.
TEST(LinearModel, LeastSquaresAreTheNormalEquations) {
  const Case s(LinearModel::kSquared, LinearModel::kNone, false, 60, 5);
  std::vector<double> theta(s.c * s.d, 0.0);
  double x = std::log(0.3);
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddTerm(Level::kLower, s.Model(Features(s.a)), {{theta.data(), s.c * s.d}});
  problem.AddTerm(Level::kLower,
                  std::make_unique<L2Regularizer>(s.c, s.d, 0.5, L2Regularizer::kScalar),
                  {{theta.data(), s.c * s.d}, {&x, 1}});
  problem.AddTerm(Level::kUpper, s.Model(Features(s.a)), {{theta.data(), s.c * s.d}});
  Solver::Options options;
  options.max_num_iterations = 0;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  const Eigen::Map<const RowMatrix> b(s.targets.data(), s.n, s.c);
  const Matrix h = s.a.transpose() * s.a / s.n + 0.3 * Matrix::Identity(s.d, s.d);
  const RowMatrix expected = SolveSymmetric(h, s.a.transpose() * b / s.n).transpose();
  EXPECT_LT((Eigen::Map<const RowMatrix>(theta.data(), s.c, s.d) - expected).norm(), 1e-9)
      << summary.message;
}

// The same function that does not say whose weights are whose.
class Dense : public Objective {
 public:
  explicit Dense(std::unique_ptr<LinearModel> model, int n) : model_(std::move(model)), n_(n) {}
  int num_terms() const override { return model_->num_terms(); }
  bool Evaluate(double const* const* blocks,
                const Batch& batch,
                double* value,
                double** gradients) const override {
    Clear(gradients);
    return model_->Evaluate(blocks, batch, value, gradients);
  }
  bool has_hessian_product() const override { return true; }
  bool HessianProduct(double const* const* blocks,
                      const Batch& batch,
                      double const* const* direction,
                      double** products) const override {
    Clear(products);
    return model_->HessianProduct(blocks, batch, direction, products);
  }

 private:
  void Clear(double** out) const {
    if (out && out[1]) std::fill_n(out[1], n_, 0.0);
  }
  std::unique_ptr<LinearModel> model_;
  int n_;
};

// Runs of single-loop methods, bounds and samples drawn twice included; at stake is which weights
// move.
TEST(LinearModel, MinibatchesMoveTheWeightsTheyDraw) {
  for (const char* name : {"soba", "slip", "ma_soba", "saba", "f2sa"}) {
    Case s(LinearModel::kSoftmax, LinearModel::kClipped, false, 200, 6);
    std::vector<double> w[2], theta[2];
    for (const int dense : {0, 1}) {
      w[dense].assign(s.n, 0.5);
      theta[dense].assign(s.c * s.d, 0.1);
      Problem problem;
      problem.AddUpperParameterBlock(w[dense].data(), s.n);
      for (int i = 0; i < s.n; i += 2) {
        problem.SetParameterUpperBound(w[dense].data(), i, 0.5 + 1e-4 * i);
      }
      std::unique_ptr<Objective> term = s.Model(Features(s.a));
      if (dense) term = std::make_unique<Dense>(s.Model(Features(s.a)), s.n);
      const int size = s.c * s.d;
      problem.AddTerm(
          Level::kLower, std::move(term), {{theta[dense].data(), size}, {w[dense].data(), s.n}});
      problem.AddTerm(Level::kLower,
                      std::make_unique<L2Regularizer>(s.c, s.d, 0.1),
                      {{theta[dense].data(), size}});
      problem.AddTerm(Level::kUpper,
                      std::make_unique<LinearModel>(LinearModel::kSoftmax,
                                                    Features(RowMatrix(s.a.bottomRows(100))),
                                                    std::vector<double>(100, 1.0),
                                                    s.c,
                                                    LinearModel::Options()),
                      {{theta[dense].data(), size}});
      Solver::Options options;
      options.method = CreateMethod(name);
      if (std::string(name) == "f2sa") {
        // With the default's steps its noise takes weights to where they are clipped, for good.
        F2sa::Options f2sa;
        f2sa.alpha.step = f2sa.gamma.step = 0.1;
        f2sa.xi = 1.0;
        options.method = std::make_shared<F2sa>(f2sa);
      }
      options.max_num_iterations = 60;
      Solver::Summary summary;
      Solve(options, &problem, &summary);
      ASSERT_TRUE(summary.IsSolutionUsable()) << name << ": " << summary.message;
    }
    EXPECT_EQ(w[0], w[1]) << name;
    EXPECT_EQ(theta[0], theta[1]) << name;
    EXPECT_NE(w[0], std::vector<double>(s.n, 0.5)) << name;
  }
}

TEST(SparseVector, ListsPartsOnceAndWholesInTheirPlace) {
  Space space;
  std::vector<double> a(10), b(3);
  space.Add(a.data(), 10, nullptr, "a");
  space.Add(b.data(), 3, nullptr, "b");
  SparseVector v, other;
  v.SetZero(&space);
  v.Touch(SparseVector::Range{0, 4, 6});
  v.Touch(SparseVector::Range{0, 5, 7});
  v.Touch(SparseVector::Range{0, 5, 6});
  for (int i = 4; i < 7; ++i) v.data()[i] = i;
  v.Touch(1);
  v.data()[11] = 2.0;
  Vector sum = Vector::Zero(13);
  v.AddTo(1.0, &sum);
  Vector expected = Vector::Zero(13);
  expected << 0, 0, 0, 0, 4, 5, 6, 0, 0, 0, 0, 2, 0;
  EXPECT_EQ(sum, expected);
  EXPECT_EQ(v.squaredNorm(), expected.squaredNorm());
  other.SetZero(&space);
  other.Touch(0);
  other.data()[0] = other.data()[5] = 1.0;
  v.Add(2.0, other);  // The part is now the whole.
  expected[0] += 2.0;
  expected[5] += 2.0;
  sum.setZero();
  v.AddTo(1.0, &sum);
  EXPECT_EQ(sum, expected);
  EXPECT_EQ(v.blocks().size(), 2u);
  v.SetZero(&space);
  EXPECT_EQ(v.dense(), Vector::Zero(13));
  v.Touch(SparseVector::Range{0, 0, 1});
  EXPECT_EQ(v.blocks().size(), 1u);
}

TEST(LinearModel, WhatDoesNotFitIsTold) {
  const Case s(LinearModel::kSoftmax, LinearModel::kSigmoid, false, 10, 4);
  const Features features(s.a);
  std::vector<double> theta(12), w(10);
  const auto error_of = [&](std::unique_ptr<Objective> term,
                            std::vector<Scenario::TermBlock> blocks) {
    Problem problem;
    problem.AddUpperParameterBlock(w.data(), 10);
    problem.AddTerm(Level::kLower, std::move(term), std::move(blocks));
    problem.AddTerm(Level::kUpper, std::make_unique<L2Regularizer>(3, 4), {{theta.data(), 12}});
    std::string error;
    EXPECT_FALSE(problem.IsValid(&error));
    return error;
  };
  EXPECT_EQ(error_of(s.Model(features), {{theta.data(), 12}}),
            "general term 0 of the lower problem: a linear model takes two blocks, Theta and its "
            "weights, not 1");
  EXPECT_EQ(error_of(s.Model(features), {{theta.data(), 11}, {w.data(), 10}}),
            "general term 0 of the lower problem: a linear model's Theta has the size 11, not 12");
  EXPECT_EQ(error_of(SoftmaxRegression(features, {0, 1, 2, 3, 0, 0, 0, 0, 0, 0}, 3),
                     {{theta.data(), 12}}),
            "general term 0 of the lower problem: sample 3 of a linear model has the label 3, "
            "which is not one of 0 ... 2");
  EXPECT_EQ(error_of(SoftmaxRegression(features, {0, 1}, 3), {{theta.data(), 12}}),
            "general term 0 of the lower problem: a linear model has 2 targets for 10 samples: 10 "
            "are needed");
  EXPECT_EQ(
      error_of(std::make_unique<L2Regularizer>(3, 4, 1.0, L2Regularizer::kPerFeature),
               {{theta.data(), 12}, {w.data(), 10}}),
      "general term 0 of the lower problem: an L2 regulariser's weights have the size 10, not 4");
}

// A weight for each feature is written over tiles of them: as one for each output with Theta
// transposed.
TEST(L2Regularizer, ByFeatureIsByOutputTransposed) {
  constexpr int kOutputs = 3, kFeatures = 1100, kSize = kOutputs * kFeatures;
  const L2Regularizer by_feature(kOutputs, kFeatures, 0.7, L2Regularizer::kPerFeature);
  const L2Regularizer by_output(kFeatures, kOutputs, 0.7, L2Regularizer::kPerOutput);
  const RowMatrix theta = RowMatrix::Random(kOutputs, kFeatures), turned = theta.transpose();
  const RowMatrix v = RowMatrix::Random(kOutputs, kFeatures), turned_v = v.transpose();
  const Vector x = Vector::Random(kFeatures), dx = Vector::Random(kFeatures);
  struct Derivatives {
    double value;
    RowMatrix theta;
    Vector x;
  };
  const auto evaluate = [&](const L2Regularizer& term,
                            const RowMatrix& at,
                            const RowMatrix* along,
                            const Vector* along_x) {
    Derivatives d{0.0, RowMatrix(at.rows(), at.cols()), Vector(kFeatures)};
    const double* blocks[] = {at.data(), x.data()};
    const double* direction[] = {along ? along->data() : nullptr,
                                 along_x ? along_x->data() : nullptr};
    double* out[] = {d.theta.data(), d.x.data()};
    EXPECT_TRUE(along || along_x ? term.HessianProduct(blocks, Batch::All(), direction, out)
                                 : term.Evaluate(blocks, Batch::All(), &d.value, out));
    return d;
  };
  for (const bool with_v : {false, true}) {
    for (const bool with_dx : {false, true}) {
      const Derivatives own =
          evaluate(by_feature, theta, with_v ? &v : nullptr, with_dx ? &dx : nullptr);
      const Derivatives other =
          evaluate(by_output, turned, with_v ? &turned_v : nullptr, with_dx ? &dx : nullptr);
      EXPECT_NEAR(own.value, other.value, 1e-12 * kSize);
      EXPECT_LT((own.theta - other.theta.transpose()).norm(), 1e-12);
      EXPECT_LT((own.x - other.x).norm(), 1e-12);
    }
  }
}

TEST(L2Regularizer, IsItsDefinition) {
  constexpr int kOutputs = 3, kFeatures = 5;
  using Jet = ceres::Jet<double, kOutputs * kFeatures + kFeatures>;
  for (const auto weights : {L2Regularizer::kNone,
                             L2Regularizer::kScalar,
                             L2Regularizer::kPerFeature,
                             L2Regularizer::kPerOutput}) {
    const int size = weights == L2Regularizer::kNone        ? 0
                     : weights == L2Regularizer::kScalar    ? 1
                     : weights == L2Regularizer::kPerOutput ? kOutputs
                                                            : kFeatures;
    const int theta_size = kOutputs * kFeatures;
    const L2Regularizer term(kOutputs, kFeatures, 0.7, weights);
    Vector point = Vector::NullaryExpr(theta_size + size,
                                       [](Eigen::Index i) { return std::sin(1.0 + 3.0 * i); });
    Vector direction =
        Vector::NullaryExpr(point.size(), [](Eigen::Index i) { return std::cos(2.0 * i); });
    const auto gradient_at = [&](const Vector& at, double* value) {
      Vector g(at.size());
      const double* blocks[] = {at.data(), at.data() + theta_size};
      double* gradients[] = {g.data(), g.data() + theta_size};
      EXPECT_TRUE(term.Evaluate(blocks, Batch{4, 1}, value, gradients));
      return g;
    };
    Jet sum(0.0);
    for (int k = 0; k < kOutputs; ++k) {
      for (int j = 0; j < kFeatures; ++j) {
        const int i = k * kFeatures + j;
        const int at = theta_size + (weights == L2Regularizer::kScalar      ? 0
                                     : weights == L2Regularizer::kPerOutput ? k
                                                                            : j);
        const Jet own = size > 0 ? exp(Jet(point[at], at)) : Jet(1.0);
        sum += 0.7 * own * Jet(point[i], i) * Jet(point[i], i);
      }
    }
    double value;
    const Vector gradient = gradient_at(point, &value);
    EXPECT_NEAR(value, sum.a, 1e-14);
    EXPECT_LT((gradient - sum.v.head(point.size())).norm(), 1e-13);
    Vector product(point.size());
    const double* blocks[] = {point.data(), point.data() + theta_size};
    const double* along[] = {direction.data(), direction.data() + theta_size};
    double* products[] = {product.data(), product.data() + theta_size};
    ASSERT_TRUE(term.HessianProduct(blocks, Batch::All(), along, products));
    const double h = 1e-3;
    const auto difference = [&](double step) {
      double unused;
      return Vector((gradient_at(point + step * direction, &unused) -
                     gradient_at(point - step * direction, &unused)) /
                    (2.0 * step));
    };
    const Vector extrapolated = (4.0 * difference(h / 2.0) - difference(h)) / 3.0;
    EXPECT_LT((extrapolated - product).norm(), 1e-10 * product.norm());
  }
}

// Every remainder of tiles, registers and panels.
template <typename T>
void CheckKernels() {
  const auto& kernels = internal::GetModelKernels<T>();
  constexpr int kLanes = internal::kSimdBytes / static_cast<int>(sizeof(T));
  for (int m = 1; m <= 12; ++m) {
    for (const int rows : {1, 3, 4, 7, 64}) {
      for (const int stride : {kLanes, 3 * kLanes, 9 * kLanes}) {
        const auto number = [](Eigen::Index i, Eigen::Index j) {
          return static_cast<T>((i * 7 + j * 3) % 11 - 5);  // Integers: sums are exact.
        };
        using M = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
        const M a = M::NullaryExpr(rows, stride, number), w = M::NullaryExpr(m, stride, number);
        M out(rows, m), g = M::Constant(m, stride, T(2));
        std::vector<const T*> pointers(rows);
        for (int i = 0; i < rows; ++i) pointers[i] = a.row(i).data();
        std::vector<const T*> weights(m);
        for (int k = 0; k < m; ++k) weights[k] = w.row(k).data();
        kernels.outputs(pointers.data(), rows, weights.data(), m, stride, out.data());
        EXPECT_EQ(out, M(a * w.transpose()));
        const M r = M::NullaryExpr(rows, m, number);
        std::vector<T*> sums(m);
        for (int k = 0; k < m; ++k) sums[k] = g.row(k).data();
        kernels.gradient(pointers.data(), rows, r.data(), m, stride, true, sums.data());
        EXPECT_EQ(g, M(r.transpose() * a + M::Constant(m, stride, T(2))));
        kernels.gradient(pointers.data(), rows, r.data(), m, stride, false, sums.data());
        EXPECT_EQ(g, M(r.transpose() * a));
      }
    }
  }
}

// Against the standard library's, over all arguments they are for.
template <typename T>
void CheckFunctions() {
  const auto& kernels = internal::GetModelKernels<T>();
  constexpr T kEpsilon = std::numeric_limits<T>::epsilon();
  std::vector<T> at, value;
  for (T x = 0; x > T(sizeof(T) == 8 ? -700 : -85); x -= T(0.0137) * (T(1) - x / T(8)))
    at.push_back(x);
  value = at;
  kernels.exp(value.data(), static_cast<int>(value.size()));
  for (size_t i = 0; i < at.size(); ++i) {
    EXPECT_NEAR(value[i], std::exp(at[i]), T(2) * kEpsilon * std::exp(at[i])) << at[i];
  }
  at.assign({T(1), T(0), kEpsilon, std::numeric_limits<T>::min()});
  for (T x = 1; x > T(1e-6); x *= T(0.997)) at.push_back(x);
  value = at;
  kernels.log1p(value.data(), static_cast<int>(value.size()));
  for (size_t i = 0; i < at.size(); ++i) {
    EXPECT_NEAR(value[i], std::log1p(at[i]), T(2) * kEpsilon * std::log1p(at[i])) << at[i];
  }
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
  T ends[] = {-kInfinity, T(-1e4), kNaN};
  kernels.exp(ends, 3);
  EXPECT_NEAR(ends[0], T(0), T(1e-37));
  EXPECT_NEAR(ends[1], T(0), T(1e-37));
  EXPECT_TRUE(std::isnan(ends[2]));
  kernels.log1p(ends + 2, 1);
  EXPECT_TRUE(std::isnan(ends[2]));
}

TEST(ModelKernels, HaveTheStandardFunctions) {
  CheckFunctions<float>();
  CheckFunctions<double>();
}

TEST(ModelKernels, AreMatrixProducts) {
  CheckKernels<float>();
  CheckKernels<double>();
}

}  // namespace
}  // namespace bilevel
