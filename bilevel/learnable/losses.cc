#include "bilevel/learnable/losses.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>
#include <vector>

namespace bilevel {
namespace {

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", value);
  return text;
}

std::string DescribeLoss(const char* name, double scale) {
  return std::string("new ") + name + "(" + Number(scale) + ")";
}

std::string DescribeScaled(const std::string& base, double weight) {
  return "new ceres::ScaledLoss(" + base + ", " + Number(weight) + ", ceres::TAKE_OWNERSHIP)";
}

// Whether s and the p parameters are usable; fills the outputs with NaN otherwise.
bool InDomain(double s,
              const double* parameters,
              int p,
              int num_outputs,
              double rho[3],
              double* rho_theta,
              double* rho_s_theta) {
  bool valid = s >= 0.0;
  for (int i = 0; i < p; ++i) valid = valid && std::isfinite(parameters[i]);
  if (valid) return true;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::fill_n(rho, 3, nan);
  if (rho_theta != nullptr) std::fill_n(rho_theta, num_outputs, nan);
  if (rho_s_theta != nullptr) std::fill_n(rho_s_theta, num_outputs, nan);
  return false;
}

void ScaleInPlace(double factor, double* values, int size) {
  if (values == nullptr) return;
  for (int i = 0; i < size; ++i) values[i] *= factor;
}

// y - q for q = 1 - exp(-y), y >= 0, given both: y^2/2 - y^3/6 + ... where subtracting cancels.
double LogMinusFraction(double y, double q) {
  if (y > 0.1) return y - q;
  double sum = 1.0;
  for (int n = 11; n >= 3; --n) sum = 1.0 - sum * y / n;
  return 0.5 * y * y * sum;
}

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
  return {log, r, -r * r, LogMinusFraction(log, u * r)};
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
  // 1 - (1 + u) exp(-u) = exp(-u) (exp(u) - 1 - u)
  return {h, e, -e, h - u * e};
}

std::string WelschLoss::Describe() const { return DescribeLoss("bilevel::WelschLoss", scale()); }

ScaleLoss::Shape TukeyLoss::EvaluateShape(double u) const {
  if (u > 1.0) return {1.0 / 3.0, 0.0, 0.0, 1.0 / 3.0};
  const double r = 1.0 - u;
  return {u * (1.0 - u * (1.0 - u / 3.0)), r * r, -2.0 * r, u * u * (1.0 - u * 2.0 / 3.0)};
}

std::string TukeyLoss::Describe() const { return DescribeLoss("ceres::TukeyLoss", scale()); }

namespace {

std::vector<LearnableLoss::ParameterBlock> OwnThenBase(double* parameter,
                                                       const ceres::LossFunction* base) {
  std::vector<LearnableLoss::ParameterBlock> blocks = {{parameter, 1}};
  if (const auto* learnable = dynamic_cast<const LearnableLoss*>(base)) {
    const auto& more = learnable->parameter_blocks();
    blocks.insert(blocks.end(), more.begin(), more.end());
  }
  return blocks;
}

}  // namespace

WrapperLoss::WrapperLoss(const ceres::LossFunction* base,
                         double* parameter,
                         ceres::Ownership ownership)
    : LearnableLoss(OwnThenBase(parameter, base)),
      base_(base),
      learnable_base_(dynamic_cast<const LearnableLoss*>(base)),
      ownership_(ownership) {}

WrapperLoss::~WrapperLoss() {
  if (ownership_ == ceres::DO_NOT_TAKE_OWNERSHIP) static_cast<void>(base_.release());
}

void WrapperLoss::EvaluateBase(double s,
                               double const* const* theta,
                               double rho[3],
                               double* rho_theta,
                               double* rho_s_theta) const {
  if (learnable_base_ != nullptr) {
    learnable_base_->Evaluate(s,
                              theta + 1,
                              rho,
                              rho_theta == nullptr ? nullptr : rho_theta + 1,
                              rho_s_theta == nullptr ? nullptr : rho_s_theta + 1);
  } else if (base_ != nullptr) {
    base_->Evaluate(s, rho);
  } else {
    rho[0] = s;
    rho[1] = 1.0;
    rho[2] = 0.0;
  }
}

std::string WrapperLoss::DescribeBase() const {
  if (learnable_base_ != nullptr) return learnable_base_->Describe();
  return base_ == nullptr ? "nullptr" : "/* the base loss */";
}

void NoiseScaleLoss::Evaluate(double s,
                              double const* const* theta,
                              double rho[3],
                              double* rho_theta,
                              double* rho_s_theta) const {
  if (!InDomain(s, theta[0], 1, num_parameters(), rho, rho_theta, rho_s_theta)) return;
  const double w = std::exp(-2.0 * theta[0][0]);
  const double u = w * s;
  double base[3];
  EvaluateBase(u, theta, base, rho_theta, rho_s_theta);
  rho[0] = base[0];
  rho[1] = w * base[1];
  rho[2] = w * w * base[2];
  if (rho_theta != nullptr) rho_theta[0] = -2.0 * u * base[1];
  if (rho_s_theta != nullptr) {
    rho_s_theta[0] = -2.0 * (base[1] + u * base[2]);
    ScaleInPlace(w, rho_s_theta, num_parameters());
  }
}

std::string NoiseScaleLoss::Describe() const {
  const std::string scaled =
      DescribeScaled("nullptr", std::exp(-2.0 * parameter_blocks()[0].values[0]));
  const std::string base = DescribeBase();
  if (base == "nullptr") return scaled;
  return "new ceres::ComposedLoss(" + base + ", ceres::TAKE_OWNERSHIP, " + scaled +
         ", ceres::TAKE_OWNERSHIP)";
}

void WeightedLoss::Evaluate(double s,
                            double const* const* theta,
                            double rho[3],
                            double* rho_theta,
                            double* rho_s_theta) const {
  if (!InDomain(s, theta[0], 1, num_parameters(), rho, rho_theta, rho_s_theta)) return;
  const double w = std::exp(theta[0][0]);
  EvaluateBase(s, theta, rho, rho_theta, rho_s_theta);
  if (rho_theta != nullptr) rho_theta[0] = rho[0];
  if (rho_s_theta != nullptr) rho_s_theta[0] = rho[1];
  ScaleInPlace(w, rho, 3);
  ScaleInPlace(w, rho_theta, num_parameters());
  ScaleInPlace(w, rho_s_theta, num_parameters());
}

std::string WeightedLoss::Describe() const {
  return DescribeScaled(DescribeBase(), std::exp(parameter_blocks()[0].values[0]));
}

void SwitchLoss::Evaluate(double s,
                          double const* const* theta,
                          double rho[3],
                          double* rho_theta,
                          double* rho_s_theta) const {
  if (!InDomain(s, theta[0], 1, num_parameters(), rho, rho_theta, rho_s_theta)) return;
  const double w = 1.0 / (1.0 + std::exp(-theta[0][0]));
  const double one_minus_w = 1.0 / (1.0 + std::exp(theta[0][0]));  // w' = w (1 - w)
  EvaluateBase(s, theta, rho, rho_theta, rho_s_theta);
  if (rho_theta != nullptr) rho_theta[0] = rho[0] * one_minus_w;
  if (rho_s_theta != nullptr) rho_s_theta[0] = rho[1] * one_minus_w;
  ScaleInPlace(w, rho, 3);
  ScaleInPlace(w, rho_theta, num_parameters());
  ScaleInPlace(w, rho_s_theta, num_parameters());
}

std::string SwitchLoss::Describe() const {
  return DescribeScaled(DescribeBase(), 1.0 / (1.0 + std::exp(-parameter_blocks()[0].values[0])));
}

}  // namespace bilevel
