#include "bilevel/learnable/losses.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/learnable/internal/loss_domain.h"

namespace bilevel {
namespace {

std::string DescribeLoss(const char* name, double scale) {
  return std::string("new ") + name + "(" + Number(scale) + ")";
}

// exp(-y) - 1 + y = y^2/2 - y^3/6 + ... for |y| <= 0.1, where subtracting cancels.
double ExpRemainder(double y) {
  constexpr double kCoefficients[] = {1.0 / 1814400,
                                      -1.0 / 181440,
                                      1.0 / 20160,
                                      -1.0 / 2520,
                                      1.0 / 360,
                                      -1.0 / 60,
                                      1.0 / 12,
                                      -1.0 / 3,
                                      1.0};
  double sum = 0.0;
  for (const double c : kCoefficients) sum = sum * y + c;
  return 0.5 * y * y * sum;
}

// The same for every y >= 0, given q = 1 - exp(-y). For y = log(1 + v) it is log(1+v) - v/(1+v).
double ExpRemainder(double y, double q) { return y > 0.1 ? y - q : ExpRemainder(y); }

}  // namespace

ScaleLoss::ScaleLoss(double scale)
    : LearnableLoss({{&fixed_log_scale_, 1}}), fixed_log_scale_(std::log(scale)) {}

double ScaleLoss::scale() const { return std::exp(parameter_blocks()[0].values[0]); }

void ScaleLoss::Evaluate(double s,
                         double const* const* theta,
                         double rho[3],
                         double* rho_theta,
                         double* rho_s_theta) const {
  if (!InDomain(s, theta[0], 1, 1, rho, rho_theta, rho_s_theta)) return;
  const double a = std::exp(theta[0][0]);
  const double a2 = a * a;
  const double u = s / a2;
  const Shape shape = EvaluateShape(u);
  rho[0] = a2 * shape.h;
  rho[1] = shape.h1;
  rho[2] = shape.h2 / a2;
  if (rho_theta != nullptr) rho_theta[0] = 2.0 * a2 * shape.h_minus_u_h1;
  if (rho_s_theta != nullptr) rho_s_theta[0] = -2.0 * u * shape.h2;
}

ScaleLoss::Shape CauchyLoss::EvaluateShape(double u) const {
  const double r = 1.0 / (1.0 + u);
  const double log = std::log1p(u);
  return {log, r, -r * r, ExpRemainder(log, u * r)};
}

std::string CauchyLoss::Describe() const { return DescribeLoss("ceres::CauchyLoss", scale()); }

ScaleLoss::Shape HuberLoss::EvaluateShape(double u) const {
  if (u <= 1.0) return {u, 1.0, 0.0, 0.0};
  const double root = std::sqrt(u);
  return {2.0 * root - 1.0, 1.0 / root, -0.5 / (u * root), root - 1.0};
}

std::string HuberLoss::Describe() const { return DescribeLoss("ceres::HuberLoss", scale()); }

ScaleLoss::Shape GemanMcClureLoss::EvaluateShape(double u) const {
  const double r = 1.0 / (1.0 + u);
  const double h = u * r;
  return {h, r * r, -2.0 * r * r * r, h * h};
}

std::string GemanMcClureLoss::Describe() const {
  return DescribeLoss("bilevel::GemanMcClureLoss", scale());
}

ScaleLoss::Shape WelschLoss::EvaluateShape(double u) const {
  const double e = std::exp(-u);
  const double h = -std::expm1(-u);
  return {h, e, -e, u > 0.1 ? h - u * e : e * ExpRemainder(-u)};
}

std::string WelschLoss::Describe() const { return DescribeLoss("bilevel::WelschLoss", scale()); }

ScaleLoss::Shape TukeyLoss::EvaluateShape(double u) const {
  if (u > 1.0) return {1.0 / 3.0, 0.0, 0.0, 1.0 / 3.0};
  const double r = 1.0 - u;
  return {u * (1.0 - u * (1.0 - u / 3.0)), r * r, -2.0 * r, u * u * (1.0 - u * 2.0 / 3.0)};
}

std::string TukeyLoss::Describe() const { return DescribeLoss("ceres::TukeyLoss", scale()); }

namespace {

// (exp(z) - 1) / z
double Phi(double z) { return z == 0.0 ? 1.0 : std::expm1(z) / z; }

// Its derivative.
double PhiPrime(double z) {
  if (std::abs(z) > 0.5) return ((z - 1.0) * std::exp(z) + 1.0) / (z * z);
  double sum = 0.0;
  double power = 1.0;  // z^n / n!
  for (int n = 0; n < 15; ++n) {
    sum += power / (n + 2);
    power *= z / (n + 1);
  }
  return sum;
}

// The integrals of exp(m y) (1 - exp(-y)) and of exp(m y) (exp(-y) - 1 + y) over 0 <= y <= length,
// of which Barron's parameter derivatives are made; m_minus_1 is m - 1 without rounding.
struct BarronIntegrals {
  double first, second;
};

BarronIntegrals IntegrateBarron(double m, double m_minus_1, double length) {
  if (length >= 0.1 && m >= -20.0) {
    const double first = length * (Phi(m * length) - Phi(m_minus_1 * length));
    return {first, length * length * PhiPrime(m * length) - first};
  }
  // The closed form cancels here. The integrands are positive, so that Gauss-Legendre panels of
  // at most three e-folds keep the relative accuracy; beyond 45 e-folds nothing is left.
  constexpr double kNodes[] = {
      0.1834346424956498, 0.5255324099163290, 0.7966664774136267, 0.9602898564975363};
  constexpr double kWeights[] = {
      0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763};
  if (m < 0.0) length = std::min(length, -45.0 / m);
  const int panels = 1 + static_cast<int>(std::min(std::abs(m) * length, 750.0) / 3.0);
  const double half = 0.5 * length / panels;
  BarronIntegrals sum = {0.0, 0.0};
  for (int panel = 0; panel < panels; ++panel) {
    for (int node = 0; node < 8; ++node) {
      const double offset = node < 4 ? kNodes[node] : -kNodes[node - 4];
      const double y = half * (2 * panel + 1 + offset);
      const double weight = half * kWeights[node % 4] * std::exp(m * y);
      const double q = -std::expm1(-y);
      sum.first += weight * q;
      sum.second += weight * ExpRemainder(y, q);
    }
  }
  return sum;
}

}  // namespace

BarronLoss::BarronLoss(double alpha, double scale)
    : LearnableLoss({{&fixed_[0], 1}, {&fixed_[1], 1}}), fixed_{alpha, std::log(scale)} {}

void BarronLoss::Evaluate(double s,
                          double const* const* theta,
                          double rho[3],
                          double* rho_theta,
                          double* rho_s_theta) const {
  const double alpha = theta[0][0];
  const double parameters[] = {alpha, theta[1][0]};
  if (!InDomain(s, parameters, 2, 2, rho, rho_theta, rho_s_theta)) return;
  const double c = std::exp(theta[1][0]);
  const double c2 = c * c;
  const double u = s / c2;
  if (alpha == 2.0) {
    const double alpha_derivative = u > 0.0 ? std::numeric_limits<double>::infinity() : 0.0;
    rho[0] = s;
    rho[1] = 1.0;
    rho[2] = 0.0;
    for (double* derivative : {rho_theta, rho_s_theta}) {
      if (derivative == nullptr) continue;
      derivative[0] = alpha_derivative;
      derivative[1] = 0.0;
    }
    return;
  }
  // Everything in terms of L = log(1 + u/b): rho = c^2 b L Phi(alpha L / 2), and
  // log rho' = (alpha/2 - 1) L, whose derivative by alpha is (L - v/(1+v)) / 2 with v = u/b.
  const double sign = alpha < 2.0 ? 1.0 : -1.0;
  const double b = sign * (2.0 - alpha);
  const double v = u / b;
  const double L = std::log1p(v);
  const double m = 0.5 * alpha;
  const double m_minus_1 = -0.5 * sign * b;
  rho[0] = c2 * b * L * Phi(m * L);
  rho[1] = std::exp(m_minus_1 * L);
  const double h2 = -0.5 * sign * rho[1] / (1.0 + v);
  rho[2] = h2 / c2;
  if (rho_theta != nullptr) {
    const BarronIntegrals integrals = IntegrateBarron(m, m_minus_1, L);
    rho_theta[0] = 0.5 * c2 * b * integrals.second;
    rho_theta[1] = sign * c2 * b * b * integrals.first;
  }
  if (rho_s_theta != nullptr) {
    rho_s_theta[0] = 0.5 * rho[1] * ExpRemainder(L, v / (1.0 + v));
    rho_s_theta[1] = -2.0 * u * h2;
  }
}

std::string BarronLoss::Describe() const {
  return "new bilevel::BarronLoss(" + Number(parameter_blocks()[0].values[0]) + ", " +
         Number(std::exp(parameter_blocks()[1].values[0])) + ")";
}

}  // namespace bilevel
