// Losses around other losses.
#include <cmath>
#include <string>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/learnable/internal/loss_domain.h"
#include "bilevel/learnable/losses.h"

namespace bilevel {
namespace {

using Blocks = std::vector<LearnableLoss::ParameterBlock>;

Blocks BlocksOf(const ceres::LossFunction* loss) {
  const auto* learnable = dynamic_cast<const LearnableLoss*>(loss);
  return learnable == nullptr ? Blocks() : learnable->parameter_blocks();
}

Blocks Concatenate(Blocks first, const Blocks& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

std::string DescribeScaled(const std::string& base, double weight) {
  return "new ceres::ScaledLoss(" + base + ", " + Number(weight) + ", ceres::TAKE_OWNERSHIP)";
}

std::string DescribeComposed(const std::string& f, const std::string& g) {
  return "new ceres::ComposedLoss(" + f + ", ceres::TAKE_OWNERSHIP, " + g +
         ", ceres::TAKE_OWNERSHIP)";
}

void ScaleInPlace(double factor, double* values, int size) {
  if (values == nullptr) return;
  for (int i = 0; i < size; ++i) values[i] *= factor;
}

}  // namespace

namespace internal {

HeldLoss::HeldLoss(const ceres::LossFunction* loss, ceres::Ownership ownership)
    : loss_(loss), learnable_(dynamic_cast<const LearnableLoss*>(loss)), ownership_(ownership) {}

HeldLoss::~HeldLoss() {
  if (ownership_ == ceres::DO_NOT_TAKE_OWNERSHIP) static_cast<void>(loss_.release());
}

int HeldLoss::num_parameters() const {
  return learnable_ == nullptr ? 0 : learnable_->num_parameters();
}

void HeldLoss::Evaluate(double s,
                        double const* const* theta,
                        int block,
                        int entry,
                        double rho[3],
                        double* rho_theta,
                        double* rho_s_theta) const {
  if (learnable_ != nullptr) {
    learnable_->Evaluate(s,
                         theta + block,
                         rho,
                         rho_theta == nullptr ? nullptr : rho_theta + entry,
                         rho_s_theta == nullptr ? nullptr : rho_s_theta + entry);
  } else if (loss_ != nullptr) {
    loss_->Evaluate(s, rho);
  } else {
    rho[0] = s;
    rho[1] = 1.0;
    rho[2] = 0.0;
  }
}

std::string HeldLoss::Describe() const {
  if (learnable_ != nullptr) return learnable_->Describe();
  return loss_ == nullptr ? "nullptr" : "/* the user's loss */";
}

}  // namespace internal

WrapperLoss::WrapperLoss(const ceres::LossFunction* base,
                         double* parameter,
                         ceres::Ownership ownership)
    : LearnableLoss(Concatenate({{parameter, 1}}, BlocksOf(base))), base_(base, ownership) {}

void NoiseScaleLoss::Evaluate(double s,
                              double const* const* theta,
                              double rho[3],
                              double* rho_theta,
                              double* rho_s_theta) const {
  if (!InDomain(s, theta[0], 1, num_parameters(), rho, rho_theta, rho_s_theta)) return;
  const double w = std::exp(-2.0 * theta[0][0]);
  const double u = w * s;
  double base[3];
  base_.Evaluate(u, theta, 1, 1, base, rho_theta, rho_s_theta);
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
  const std::string base = base_.Describe();
  return base == "nullptr" ? scaled : DescribeComposed(base, scaled);
}

void WeightedLoss::Evaluate(double s,
                            double const* const* theta,
                            double rho[3],
                            double* rho_theta,
                            double* rho_s_theta) const {
  if (!InDomain(s, theta[0], 1, num_parameters(), rho, rho_theta, rho_s_theta)) return;
  const double w = std::exp(theta[0][0]);
  base_.Evaluate(s, theta, 1, 1, rho, rho_theta, rho_s_theta);
  if (rho_theta != nullptr) rho_theta[0] = rho[0];
  if (rho_s_theta != nullptr) rho_s_theta[0] = rho[1];
  ScaleInPlace(w, rho, 3);
  ScaleInPlace(w, rho_theta, num_parameters());
  ScaleInPlace(w, rho_s_theta, num_parameters());
}

std::string WeightedLoss::Describe() const {
  return DescribeScaled(base_.Describe(), std::exp(parameter_blocks()[0].values[0]));
}

void SwitchLoss::Evaluate(double s,
                          double const* const* theta,
                          double rho[3],
                          double* rho_theta,
                          double* rho_s_theta) const {
  if (!InDomain(s, theta[0], 1, num_parameters(), rho, rho_theta, rho_s_theta)) return;
  const double w = 1.0 / (1.0 + std::exp(-theta[0][0]));
  const double one_minus_w = 1.0 / (1.0 + std::exp(theta[0][0]));  // w' = w (1 - w)
  base_.Evaluate(s, theta, 1, 1, rho, rho_theta, rho_s_theta);
  if (rho_theta != nullptr) rho_theta[0] = rho[0] * one_minus_w;
  if (rho_s_theta != nullptr) rho_s_theta[0] = rho[1] * one_minus_w;
  ScaleInPlace(w, rho, 3);
  ScaleInPlace(w, rho_theta, num_parameters());
  ScaleInPlace(w, rho_s_theta, num_parameters());
}

std::string SwitchLoss::Describe() const {
  return DescribeScaled(base_.Describe(), 1.0 / (1.0 + std::exp(-parameter_blocks()[0].values[0])));
}

ComposedLoss::ComposedLoss(const ceres::LossFunction* f,
                           ceres::Ownership ownership_f,
                           const ceres::LossFunction* g,
                           ceres::Ownership ownership_g)
    : LearnableLoss(Concatenate(BlocksOf(f), BlocksOf(g))),
      f_(f, ownership_f),
      g_(g, ownership_g),
      num_blocks_f_(static_cast<int>(BlocksOf(f).size())) {}

void ComposedLoss::Evaluate(double s,
                            double const* const* theta,
                            double rho[3],
                            double* rho_theta,
                            double* rho_s_theta) const {
  const int p = num_parameters();
  if (!InDomain(s, nullptr, 0, p, rho, rho_theta, rho_s_theta)) return;
  // d^2 f(g(s)) / (ds dtheta_g) = f'' g_s g_theta + f' g_s_theta needs g_theta in any case.
  double small_buffer[16];
  std::vector<double> large_buffer;
  if (rho_theta == nullptr && rho_s_theta != nullptr) {
    rho_theta = small_buffer;
    if (p > 16) {
      large_buffer.resize(p);
      rho_theta = large_buffer.data();
    }
  }
  const int p_f = f_.num_parameters();
  double f[3], g[3];
  g_.Evaluate(s, theta, num_blocks_f_, p_f, g, rho_theta, rho_s_theta);
  f_.Evaluate(g[0], theta, 0, 0, f, rho_theta, rho_s_theta);
  rho[0] = f[0];
  rho[1] = f[1] * g[1];
  rho[2] = f[2] * g[1] * g[1] + f[1] * g[2];
  if (rho_s_theta != nullptr) {
    ScaleInPlace(g[1], rho_s_theta, p_f);
    for (int i = p_f; i < p; ++i) {
      rho_s_theta[i] = f[2] * g[1] * rho_theta[i] + f[1] * rho_s_theta[i];
    }
  }
  if (rho_theta != nullptr) ScaleInPlace(f[1], rho_theta + p_f, p - p_f);
}

std::string ComposedLoss::Describe() const {
  return DescribeComposed(f_.Describe(), g_.Describe());
}

}  // namespace bilevel
