#include "bilevel/derivatives/auto_diff_cost_function.h"

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "Eigen/Core"
#include "bilevel/derivatives/dynamic_auto_diff_cost_function.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

// r_k = (c_k . p)^2 + p_k p_{k+1}: the Hessian is 2 c_k c_k^T + e_k e_{k+1}^T + e_{k+1} e_k^T.
double Coefficient(int k, int i) { return std::sin(1.0 + 3 * k + i); }

template <typename T>
T Quadratic(int k, int n, const T* p) {
  T dot(0.0);
  for (int i = 0; i < n; ++i) dot += Coefficient(k, i) * p[i];
  return dot * dot + p[k] * p[k + 1];
}

Eigen::MatrixXd QuadraticHessian(const std::vector<double>& weights, int n) {
  Eigen::MatrixXd H = Eigen::MatrixXd::Zero(n, n);
  for (int k = 0; k < static_cast<int>(weights.size()); ++k) {
    Eigen::VectorXd c(n);
    for (int i = 0; i < n; ++i) c[i] = Coefficient(k, i);
    H += weights[k] * 2.0 * c * c.transpose();
    H(k, k + 1) += weights[k];
    H(k + 1, k) += weights[k];
  }
  return H;
}

void ExpectExact(const SecondOrderCostFunction& cost_function, int num_residuals) {
  int n = 0;
  std::vector<std::vector<double>> blocks;
  std::vector<const double*> parameters;
  for (const int size : cost_function.parameter_block_sizes()) {
    blocks.emplace_back(size);
    for (double& p : blocks.back()) p = std::cos(0.7 * n++);
  }
  for (const std::vector<double>& block : blocks) parameters.push_back(block.data());
  std::vector<double> weights(num_residuals);
  for (int k = 0; k < num_residuals; ++k) weights[k] = k == 1 ? 0.0 : 1.0 - 0.4 * k;

  const Eigen::MatrixXd expected = QuadraticHessian(weights, n);
  Eigen::MatrixXd H = Eigen::MatrixXd::Constant(n, n, 1e9);  // Every entry must be written.
  const Eigen::VectorXd v = Eigen::VectorXd::LinSpaced(n, -1.0, 2.0);
  Eigen::VectorXd Hv = Eigen::VectorXd::Constant(n, 1e9);
  ASSERT_TRUE(cost_function.EvaluateHessian(parameters.data(), weights.data(), H.data()));
  ASSERT_TRUE(
      cost_function.EvaluateHessianProduct(parameters.data(), weights.data(), v.data(), Hv.data()));
  EXPECT_LT((H - expected).norm(), 1e-13 * expected.norm()) << n;
  EXPECT_LT((Hv - expected * v).norm(), 1e-13 * expected.norm()) << n;
}

template <int kResiduals>
struct FixedQuadratic {
  explicit FixedQuadratic(int* counter = nullptr) : deleted(counter) {}
  ~FixedQuadratic() {
    if (deleted != nullptr) ++*deleted;
  }
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    if (b[0] > 5.0) return false;
    T p[kFirst + kSecond];
    for (int i = 0; i < kFirst; ++i) p[i] = a[i];
    for (int i = 0; i < kSecond; ++i) p[kFirst + i] = b[i];
    for (int k = 0; k < kResiduals; ++k) r[k] = Quadratic(k, kFirst + kSecond, p);
    return true;
  }
  static constexpr int kFirst = 2;
  static constexpr int kSecond = 3;
  int* deleted;
};

struct OneBlock {
  explicit OneBlock(int size, int rows) : n(size), num_residuals(rows) {}
  template <typename T>
  bool operator()(const T* p, T* r) const {
    for (int k = 0; k < num_residuals; ++k) r[k] = Quadratic(k, n, p);
    return true;
  }
  int n, num_residuals;
};

TEST(AutoDiffCostFunction, HessiansOfQuadraticsAreExact) {
  ExpectExact(AutoDiffCostFunction<FixedQuadratic<3>, 3, 2, 3>(new FixedQuadratic<3>), 3);
  // One sweep and several, of 8 and of 16 directions, whole and cut.
  ExpectExact(AutoDiffCostFunction<OneBlock, 1, 2>(new OneBlock(2, 1)), 1);
  ExpectExact(AutoDiffCostFunction<OneBlock, 2, 8>(new OneBlock(8, 2)), 2);
  ExpectExact(AutoDiffCostFunction<OneBlock, 2, 9>(new OneBlock(9, 2)), 2);
  ExpectExact(AutoDiffCostFunction<OneBlock, 3, 19>(new OneBlock(19, 3)), 3);
  ExpectExact(AutoDiffCostFunction<OneBlock, ceres::DYNAMIC, 70>(new OneBlock(70, 40), 40), 40);
}

TEST(AutoDiffCostFunction, EvaluatesAsCeres) {
  const AutoDiffCostFunction<FixedQuadratic<3>, 3, 2, 3> ours(new FixedQuadratic<3>);
  const ceres::AutoDiffCostFunction<FixedQuadratic<3>, 3, 2, 3> theirs(new FixedQuadratic<3>);
  EXPECT_EQ(ours.num_residuals(), theirs.num_residuals());
  EXPECT_EQ(ours.parameter_block_sizes(), theirs.parameter_block_sizes());
  const double a[2] = {0.3, 0.8};
  double b[3] = {-1.0, 2.0, 0.1};
  const double* parameters[] = {a, b};
  double r[3], s[3], J[9], K[9];
  double* jacobians[] = {nullptr, J};
  double* their_jacobians[] = {nullptr, K};
  ASSERT_TRUE(ours.Evaluate(parameters, r, jacobians));
  ASSERT_TRUE(theirs.Evaluate(parameters, s, their_jacobians));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(r[i], s[i]);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(J[i], K[i]);

  b[0] = 6.0;  // The functor refuses.
  double H[25], product[5];
  EXPECT_FALSE(ours.EvaluateHessian(parameters, r, H));
  EXPECT_FALSE(ours.EvaluateHessianProduct(parameters, r, H, product));
}

TEST(AutoDiffCostFunction, OwnsItsFunctorUnlessTold) {
  using Cost = AutoDiffCostFunction<FixedQuadratic<1>, 1, 2, 3>;
  int deleted = 0;
  { const Cost owner(new FixedQuadratic<1>(&deleted)); }
  EXPECT_EQ(deleted, 1);
  { const Cost owner(std::make_unique<FixedQuadratic<1>>(&deleted)); }
  EXPECT_EQ(deleted, 2);
  {
    Cost first(new FixedQuadratic<1>(&deleted));
    const Cost second(std::move(first));
    EXPECT_EQ(second.num_residuals(), 1);
    EXPECT_EQ(second.parameter_block_sizes().size(), 2u);
  }
  EXPECT_EQ(deleted, 3);
  FixedQuadratic<1> functor(&deleted);
  { const Cost borrower(&functor, ceres::DO_NOT_TAKE_OWNERSHIP); }
  EXPECT_EQ(deleted, 3);
}

struct DynamicQuadratic {
  template <typename T>
  bool operator()(T const* const* parameters, T* r) const {
    std::vector<T> p(parameters[0], parameters[0] + 3);
    p.insert(p.end(), parameters[1], parameters[1] + 4);
    for (int k = 0; k < 5; ++k) r[k] = Quadratic(k, 7, p.data());
    return true;
  }
};

TEST(DynamicAutoDiffCostFunction, HessiansOfQuadraticsAreExact) {
  const auto check = [](auto&& cost_function) {
    cost_function.AddParameterBlock(3);
    cost_function.AddParameterBlock(4);
    cost_function.SetNumResiduals(5);
    ExpectExact(cost_function, 5);
  };
  check(DynamicAutoDiffCostFunction<DynamicQuadratic>(new DynamicQuadratic));
  check(DynamicAutoDiffCostFunction<DynamicQuadratic, 1>(new DynamicQuadratic));
  check(DynamicAutoDiffCostFunction<DynamicQuadratic, 7>(new DynamicQuadratic));
  check(DynamicAutoDiffCostFunction<DynamicQuadratic, 9>(new DynamicQuadratic));
}

}  // namespace
}  // namespace bilevel
