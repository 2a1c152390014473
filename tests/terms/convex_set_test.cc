// Projections are nearest points, their derivatives differences of them, and the constraints of a
// set are the set.
#include "bilevel/terms/convex_set.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/terms/second_order_cost_function.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using testing::HasSubstr;

struct Case {
  std::string name;
  int size;
  std::function<std::unique_ptr<ConvexSet>()> make;
  std::function<VectorXd()> member;  // A random one.
};

MatrixXd Rows() {
  MatrixXd a(5, 3);
  a << 1, 0, 0, 0, 2, 1, -1, -1, 0, 0.5, 0, -1, 1, 1, 1;
  return a;
}
const VectorXd kRight = (VectorXd(5) << 0.4, 0.5, 0.3, 0.2, 0.6).finished();

std::vector<Case> Cases() {
  const auto polyhedral = [] {
    VectorXd q;
    do q = 2.0 * VectorXd::Random(3);
    while ((Rows() * q - kRight).maxCoeff() > 0.0);
    return q;
  };
  const VectorXd centre = (VectorXd(4) << 0.3, -0.2, 0.5, 0.0).finished();
  const MatrixXd plane = (MatrixXd(2, 4) << 1, 2, 0, -1, 0, 1, 1, 1).finished();
  return {{"ball",
           4,
           [] {
             return NewBall({0.3, -0.2, 0.5, 0.0}, 0.7);
           },
           [=]() -> VectorXd { return centre + 0.7 * VectorXd::Random(4).normalized(); }},
          {"simplex",
           5,
           [] { return NewSimplex(1.5); },
           []() -> VectorXd {
             const VectorXd q = VectorXd::Random(5).array().abs();
             return 1.5 / q.sum() * q;
           }},
          {"affine",
           4,
           [=] { return NewAffineSet(plane, Eigen::Vector2d(0.4, -1.0)); },
           [=]() -> VectorXd {
             // v_1 and v_3 solve for any v_0 and v_2.
             VectorXd v = VectorXd::Random(4);
             // 2 v_1 - v_3 = p, v_1 + v_3 = q.
             const double p = 0.4 - v[0], q = -1.0 - v[2];
             v[1] = (p + q) / 3.0;
             v[3] = q - v[1];
             return v;
           }},
          {"polyhedron", 3, [] { return NewPolyhedron(Rows(), kRight); }, polyhedral},
          {"own",
           3,
           [] {
             return NewConvexSet([](double* v, int size) {
               for (int i = 0; i < size; ++i) v[i] = std::max(v[i], 0.1 * i);
             });
           },
           []() -> VectorXd {
             return VectorXd::Random(3).cwiseAbs() + Eigen::Vector3d(0.0, 0.1, 0.2);
           }}};
}

// The projection p of v is the point of the set with (v - p)'(q - p) <= 0 for all q of it.
TEST(ConvexSet, ProjectionsAreNearestPoints) {
  std::srand(7);
  for (const Case& c : Cases()) {
    const auto set = c.make();
    ASSERT_EQ(set->Check(c.size), "") << c.name;
    for (int trial = 0; trial < 200; ++trial) {
      const VectorXd v = 2.0 * VectorXd::Random(c.size);
      VectorXd p = v, again;
      set->Project(p.data(), c.size);
      again = p;
      set->Project(again.data(), c.size);
      EXPECT_LT((again - p).norm(), 1e-13) << c.name;
      for (int k = 0; k < 20; ++k) {
        const VectorXd q = c.member();
        EXPECT_LT((v - p).dot(q - p), 1e-11) << c.name;
      }
    }
  }
  VectorXd p = (VectorXd(3) << 0.9, 5.0, -3.0).finished();
  NewSimplex()->Project(p.data(), 3);
  EXPECT_NEAR(p.sum(), 1.0, 1e-15);
}

TEST(ConvexSet, DerivativesAreDifferencesAndSymmetric) {
  std::srand(8);
  for (const Case& c : Cases()) {
    const auto set = c.make();
    int num_tried = 0;
    for (int trial = 0; trial < 100; ++trial) {
      const VectorXd v = 2.0 * VectorXd::Random(c.size), d = VectorXd::Random(c.size),
                     e = VectorXd::Random(c.size);
      const auto difference = [&](double h) -> VectorXd {
        VectorXd ahead = v + h * d, behind = v - h * d;
        set->Project(ahead.data(), c.size);
        set->Project(behind.data(), c.size);
        return (ahead - behind) / (2.0 * h);
      };
      const VectorXd expected = difference(1e-5);
      if ((expected - difference(1e-4)).norm() > 1e-6) continue;  // A kink is near.
      ++num_tried;
      VectorXd of_d = d, of_e = e;
      set->ProjectDerivative(v.data(), c.size, of_d.data());
      set->ProjectDerivative(v.data(), c.size, of_e.data());
      EXPECT_LT((of_d - expected).norm(), 1e-7) << c.name;
      EXPECT_NEAR(of_d.dot(e), of_e.dot(d), 1e-9) << c.name;
    }
    EXPECT_GT(num_tried, 50) << c.name;
  }
}

TEST(ConvexSet, ConstraintsAreTheSet) {
  std::srand(9);
  for (const Case& c : Cases()) {
    const auto set = c.make();
    const auto constraints = set->NewConstraints(c.size);
    EXPECT_EQ(constraints.empty(), c.name == "own");
    // The largest violation at v.
    const auto violation = [&](const VectorXd& v) {
      double worst = -1.0;
      for (const ConvexSet::Constraint& one : constraints) {
        VectorXd rows(one.cost->num_residuals());
        const double* blocks[] = {v.data()};
        EXPECT_TRUE(one.cost->Evaluate(blocks, rows.data(), nullptr));
        worst = std::max(worst, one.is_inequality ? rows.maxCoeff() : rows.cwiseAbs().maxCoeff());
      }
      return worst;
    };
    for (int trial = 0; trial < 50 && !constraints.empty(); ++trial) {
      EXPECT_LE(violation(c.member()), 1e-12) << c.name;
      const VectorXd v = 2.0 * VectorXd::Random(c.size);
      VectorXd p = v;
      set->Project(p.data(), c.size);
      EXPECT_LE(violation(p), 1e-12) << c.name;
      if ((p - v).norm() > 1e-6) {
        EXPECT_GT(violation(v), 1e-8) << c.name;
      }
    }
  }
}

// Rows that repeat, contradict each other or hold nothing.
// Jacobians of values, and Hessians of Jacobians, by central differences: exact, of quadratics.
TEST(ConvexSet, ConstraintsHaveTheirDerivatives) {
  std::srand(11);
  for (const Case& c : Cases()) {
    for (const ConvexSet::Constraint& one : c.make()->NewConstraints(c.size)) {
      const auto* cost = dynamic_cast<const SecondOrderCostFunction*>(one.cost.get());
      ASSERT_NE(cost, nullptr) << c.name;
      const int num_rows = cost->num_residuals(), n = c.size;
      const VectorXd v = VectorXd::Random(n), d = VectorXd::Random(n);
      const VectorXd weights = VectorXd::Random(num_rows);
      using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
      VectorXd rows[2] = {VectorXd(num_rows), VectorXd(num_rows)}, product(n);
      RowMajor jacobians[2] = {RowMajor(num_rows, n), RowMajor(num_rows, n)}, hessian(n, n);
      for (const int side : {0, 1}) {
        const VectorXd at = side == 0 ? VectorXd(v + d) : VectorXd(v - d);
        const double* blocks[] = {at.data()};
        double* jacobian[] = {jacobians[side].data()};
        ASSERT_TRUE(cost->Evaluate(blocks, rows[side].data(), jacobian));
      }
      const VectorXd along = 0.5 * (jacobians[0] + jacobians[1]) * d;
      EXPECT_LT((0.5 * (rows[0] - rows[1]) - along).norm(), 1e-12) << c.name;
      const double* blocks[] = {v.data()};
      ASSERT_TRUE(cost->EvaluateHessian(blocks, weights.data(), hessian.data()));
      ASSERT_TRUE(cost->EvaluateHessianProduct(blocks, weights.data(), d.data(), product.data()));
      const VectorXd curved = 0.5 * (jacobians[0] - jacobians[1]).transpose() * weights;
      EXPECT_LT((hessian * d - curved).norm(), 1e-12) << c.name;
      EXPECT_LT((product - curved).norm(), 1e-12) << c.name;
    }
  }
}

TEST(ConvexSet, DegeneratePolyhedra) {
  MatrixXd a(4, 2);
  a << 1, 0, 1, 0, 2, 0, 0, 1;
  VectorXd v = Eigen::Vector2d(3.0, 2.0);
  NewPolyhedron(a, Eigen::Vector4d(1, 1, 2, 5))->Project(v.data(), 2);
  EXPECT_LT((v - Eigen::Vector2d(1.0, 2.0)).norm(), 1e-12);
  const MatrixXd both = (MatrixXd(2, 1) << 1, -1).finished();
  EXPECT_EQ(NewPolyhedron(both, Eigen::Vector2d(1, -1))->Check(1), "");  // The point 1.
  EXPECT_THAT(NewPolyhedron(both, Eigen::Vector2d(0, -1))->Check(1), HasSubstr("without a point"));
}

TEST(ConvexSet, NonsenseIsNamed) {
  EXPECT_THAT(NewBall({0, 0}, 1.0)->Check(3), HasSubstr("centre has 2 values"));
  EXPECT_THAT(NewBall({0}, 0.0)->Check(1), HasSubstr("radius is not positive"));
  EXPECT_THAT(NewSimplex(-1.0)->Check(2), HasSubstr("sum is not positive"));
  EXPECT_THAT(NewAffineSet(MatrixXd::Ones(2, 3), Eigen::Vector2d(0, 1))->Check(3),
              HasSubstr("without a point"));
  EXPECT_THAT(NewAffineSet(MatrixXd::Ones(2, 3), VectorXd::Ones(3))->Check(3),
              HasSubstr("of as many rows as b"));
  EXPECT_THAT(NewAffineSet(MatrixXd(0, 0), VectorXd())->Check(3), HasSubstr("3 columns"));
  EXPECT_THAT(NewPolyhedron(MatrixXd::Ones(1, 2), VectorXd::Ones(1))->Check(3),
              HasSubstr("a polyhedron whose"));
  EXPECT_THAT(NewConvexSet(nullptr)->Check(1), HasSubstr("empty function"));
}

}  // namespace
}  // namespace bilevel
