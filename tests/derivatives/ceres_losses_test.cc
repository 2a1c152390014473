// Evaluating the exact Hessian relies on rho' and rho'' of Ceres' own losses; this checks that they
// are the derivatives of rho, away from the points where rho'' jumps.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ceres/loss_function.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

double Evaluate(const ceres::LossFunction& loss, double s, int order) {
  double rho[3];
  loss.Evaluate(s, rho);
  return rho[order];
}

// d/ds of entry `order` of rho at s by central differences with steps h, h/2, h/4, h/8 and
// Richardson extrapolation, against entry order + 1. Returns whether the error of the plain
// differences stood above rounding, in which case it must fall by four from h to h/2.
bool ExpectNextDerivative(const ceres::LossFunction& loss, double s, double step, int order) {
  const double exact = Evaluate(loss, s, order + 1);
  double table[4], size = 1.0;
  for (int k = 0; k < 4; ++k) {
    const double h = step / (1 << k);
    const double forward = Evaluate(loss, s + h, order), backward = Evaluate(loss, s - h, order);
    table[k] = (forward - backward) / (2 * h);
    size = std::max({size, std::abs(forward), std::abs(backward)});
  }
  const double noise = 8 * std::numeric_limits<double>::epsilon() * size / (step / 8);
  const double error0 = std::abs(table[0] - exact), error1 = std::abs(table[1] - exact);
  for (int i = 1; i < 4; ++i) {
    const double factor = std::pow(4.0, i);
    for (int k = 0; k + i < 4; ++k) table[k] = (factor * table[k + 1] - table[k]) / (factor - 1);
  }
  EXPECT_NEAR(table[0], exact, 1e-7 * std::abs(exact) + 4 * noise)
      << "derivative " << order + 1 << " at s = " << s;
  if (error1 <= 1e3 * noise) return false;
  EXPECT_NEAR(error0 / error1, 4.0, 0.4) << "derivative " << order + 1 << " at s = " << s;
  return true;
}

// `length` is the smallest scale of s on which the loss changes shape; rho'' may jump at `kink`.
void ExpectExact(const ceres::LossFunction& loss, double length, double kink = -1.0) {
  int checks = 0, slopes = 0;
  for (double s = 0.1 * length; s < 40.0 * length; s *= 1.3) {
    const double step = 0.05 * std::min(s, length);
    if (std::abs(s - kink) < 2 * step) continue;
    for (const int order : {0, 1}) {
      slopes += ExpectNextDerivative(loss, s, step, order);
      ++checks;
    }
  }
  EXPECT_GT(checks, 30);
  EXPECT_GT(slopes, checks / 10);
}

TEST(CeresLosses, Huber) { ExpectExact(ceres::HuberLoss(1.3), 1.69, 1.69); }

TEST(CeresLosses, SoftLOne) { ExpectExact(ceres::SoftLOneLoss(0.7), 0.49); }

TEST(CeresLosses, Cauchy) { ExpectExact(ceres::CauchyLoss(0.7), 0.49); }

TEST(CeresLosses, Arctan) { ExpectExact(ceres::ArctanLoss(1.7), 1.7); }

TEST(CeresLosses, Tolerant) { ExpectExact(ceres::TolerantLoss(3.0, 0.4), 0.4); }

TEST(CeresLosses, Tukey) { ExpectExact(ceres::TukeyLoss(1.3), 1.69, 1.69); }

TEST(CeresLosses, Composed) {
  ExpectExact(ceres::ComposedLoss(new ceres::CauchyLoss(0.9),
                                  ceres::TAKE_OWNERSHIP,
                                  new ceres::SoftLOneLoss(1.4),
                                  ceres::TAKE_OWNERSHIP),
              0.81);
}

TEST(CeresLosses, Scaled) {
  ExpectExact(ceres::ScaledLoss(new ceres::CauchyLoss(0.7), 3.5, ceres::TAKE_OWNERSHIP), 0.49);
  double rho[3];
  ceres::ScaledLoss(nullptr, 3.5, ceres::TAKE_OWNERSHIP).Evaluate(2.0, rho);
  EXPECT_EQ(rho[0], 7.0);
  EXPECT_EQ(rho[1], 3.5);
  EXPECT_EQ(rho[2], 0.0);
}

TEST(CeresLosses, Wrapper) {
  ceres::LossFunctionWrapper wrapper(new ceres::CauchyLoss(0.7), ceres::TAKE_OWNERSHIP);
  ExpectExact(wrapper, 0.49);
  wrapper.Reset(new ceres::SoftLOneLoss(0.7), ceres::TAKE_OWNERSHIP);
  ExpectExact(wrapper, 0.49);
}

// The documented values at s = 0, where central differences cannot go.
TEST(CeresLosses, AtZero) {
  const double a = 1.3;
  const auto expect = [](const ceres::LossFunction& loss, double second) {
    EXPECT_NEAR(Evaluate(loss, 0.0, 0), 0.0, 1e-15);
    EXPECT_NEAR(Evaluate(loss, 0.0, 1), 1.0, 1e-15);
    EXPECT_NEAR(Evaluate(loss, 0.0, 2), second, 1e-14);
  };
  expect(ceres::TrivialLoss(), 0.0);
  expect(ceres::HuberLoss(a), 0.0);
  expect(ceres::SoftLOneLoss(a), -0.5 / (a * a));
  expect(ceres::CauchyLoss(a), -1.0 / (a * a));
  expect(ceres::ArctanLoss(a), 0.0);
  expect(ceres::TukeyLoss(a), -2.0 / (a * a));
}

}  // namespace
}  // namespace bilevel
