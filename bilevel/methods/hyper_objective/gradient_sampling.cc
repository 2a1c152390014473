#include "bilevel/methods/hyper_objective/gradient_sampling.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/memory.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"
#include "bilevel/methods/estimators/internal/min_norm.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

constexpr double kBeta = 1e-4;      // Share of the promised decrease that a step must bring.
constexpr double kShrink = 0.1;     // Of the radius.
constexpr double kNoSlope = 1e-10;  // A common slope below this share of the largest is none.

// The run of one solve.
class Run {
 public:
  Run(Oracle& oracle, State& state, Monitor* monitor)
      : oracle_(oracle), state_(state), monitor_(monitor), phi_(&oracle, state.y) {}

  Method::Outcome Minimize(const GradientSampling::Options& options, std::string* message) {
    double length = options.initial_radius, radius = length;
    const Monitor::Remember remember = [&](Memory* memory) {
      memory->Keep("length", &length);
      memory->Keep("radius", &radius);
      memory->Keep("value", &value_);
      memory->Keep("gradient", &gradient_);
      phi_.Remember(memory);
      return true;
    };
    if (!monitor_->Resume(&state_, remember)) {
      if (!phi_.Evaluate(state_.x, &value_, &gradient_)) {
        *message = phi_.message();
        return Method::Outcome::kFailure;
      }
      Accept(state_.x);
      Progress progress;
      progress.objective = value_;
      progress.gradient_max_norm = ProjectedMaxNorm(state_.x, gradient_);
      if (!monitor_->Report(state_, progress)) return Method::Outcome::kNoConvergence;
    }
    while (radius >= options.smallest_radius) {
      if (!monitor_->Rest(&state_, remember)) return Method::Outcome::kNoConvergence;
      Progress progress;
      progress.trust_region_radius = radius;
      const double size = 1.0 + state_.x.value().norm();
      const Vector common = CommonGradient(radius * size);
      progress.step_is_successful = Descend(common, radius, size, &length);
      if (progress.step_is_successful) {
        progress.step_norm = length * size;
        length *= 2.0;
      } else {
        progress.note = "no direction decreases phi for all gradients around";
        radius *= kShrink;
      }
      progress.objective = value_;
      progress.gradient_max_norm = ProjectedMaxNorm(state_.x, gradient_);
      ++oracle_.iteration;
      if (!monitor_->Report(state_, progress)) return Method::Outcome::kNoConvergence;
    }
    *message = "no direction decreases phi for all gradients within the smallest radius";
    return Method::Outcome::kConverged;
  }

 private:
  void Accept(const Point& x) {
    phi_.Accept();
    state_.x = x;
    state_.y = phi_.y();
  }

  // The point of least norm in the hull of the gradients in the ball.
  Vector CommonGradient(double radius) {
    const int m = state_.x.dim();
    Matrix columns(m, 2 * m + 1);
    int num = 0;
    const auto add = [&](const Point& at, Vector gradient) {
      ClearHeld(at, gradient, &gradient);
      columns.col(num++) = gradient;
    };
    add(state_.x, gradient_);
    Vector direction(m), gradient;
    for (int k = 0; k < 2 * m; ++k) {
      oracle_.RandomDirection(k, &direction);
      Point x = state_.x;
      double value;
      if (!x.Move(radius * std::pow((k + 1.0) / (2.0 * m), 1.0 / m) * direction)) continue;
      if (phi_.Evaluate(x, &value, &gradient)) {
        add(x, gradient);
      } else {
        monitor_->Reject(phi_.message());
      }
    }
    return MinNormInHull(columns.leftCols(num));
  }

  // One step against the common gradient, if any is short enough to succeed.
  bool Descend(const Vector& common, double radius, double size, double* length) {
    const double slope = common.norm();
    if (!(slope > std::max(monitor_->gradient_tolerance(), kNoSlope * gradient_.norm()))) {
      return false;
    }
    Vector gradient;
    for (double t = std::max(*length, radius); t >= 0.1 * radius; t *= 0.5) {
      Point x = state_.x;
      double value;
      if (!x.Move(-t * size / slope * common)) continue;
      if (!phi_.Evaluate(x, &value, &gradient)) {
        monitor_->Reject(phi_.message());
        continue;
      }
      if (!(value < value_ - kBeta * t * size * slope)) continue;
      value_ = value;
      gradient_ = gradient;
      *length = t;
      Accept(x);
      return true;
    }
    return false;
  }

  Oracle& oracle_;
  State& state_;
  Monitor* monitor_;
  HyperObjective phi_;
  double value_ = 0.0;
  Vector gradient_;  // At state_.x.
};

}  // namespace

std::string GradientSampling::Check(const Oracle& oracle) {
  const std::string wrong =
      FirstNotPositive({{"gradient_sampling.initial_radius", options_.initial_radius},
                        {"gradient_sampling.smallest_radius", options_.smallest_radius}});
  return wrong.empty() ? oracle.lower().WhyNoDerivative() : wrong;
}

Method::Outcome GradientSampling::Minimize(Oracle& oracle,
                                           State& state,
                                           Monitor* monitor,
                                           std::string* message) {
  return Run(oracle, state, monitor).Minimize(options_, message);
}

}  // namespace bilevel
