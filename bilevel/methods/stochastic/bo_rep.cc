#include "bilevel/methods/stochastic/bo_rep.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/memory.h"

namespace bilevel {

std::string BoRep::CheckOptions(const Oracle& oracle) const {
  if (const std::string complaint = Slip::CheckOptions(oracle); !complaint.empty()) {
    return complaint;
  }
  const Options& p = given_;
  if (p.one_sample) return "bo_rep.one_sample must be false: y mostly has no sample";
  if (p.update_interval <= 0) return "bo_rep.update_interval must be positive";
  if (p.num_lower_steps <= 0) return "bo_rep.num_lower_steps must be positive";
  if (!(p.radius > 0.0)) return "bo_rep.radius must be positive";
  if (p.num_epochs < 0 || p.num_epochs > 30) return "bo_rep.num_epochs must be in [0, 30]";
  if (p.first_epoch <= 0) return "bo_rep.first_epoch must be positive";
  if (!(p.epoch_step >= 0.0)) return "bo_rep.epoch_step must be positive";
  if (!(p.epoch_radius > 0.0)) return "bo_rep.epoch_radius must be positive";
  return "";
}

void BoRep::FillOptions(Defaults* defaults) {
  Slip::FillOptions(defaults);
  options_ = given_;
  static_cast<Slip::Options&>(options_) = Slip::options();
  defaults->Fill("epoch_step", &options_.epoch_step, [&] { return defaults->LowerStep(); });
}

double BoRep::LongestLowerStep() const {
  return std::max(
      {options_.y.step, options_.z.step, options_.num_epochs ? options_.epoch_step : 0});
}

// y <- P(y - step g_y), P on the ball around centre_.
void BoRep::ProjectedStep(Oracle& o, State& s, double step, double radius) {
  o.g(Lower(o, kY)).Gradient(s.x, s.y, nullptr, &g_y_);
  MoveY(o, s, step, &g_y_);
  offset_.resize(s.y.dim());
  if (!o.ok() || !s.y.space().Minus(s.y.value().data(), centre_.value().data(), offset_.data())) {
    return;
  }
  const double distance = offset_.norm();
  if (distance <= radius) return;
  s.y = centre_;
  s.y.Move(radius / distance * offset_);
}

void BoRep::Start(Oracle& o, State& s) {
  const Options& p = options_;
  double step = p.epoch_step, radius = p.epoch_radius;
  int num_steps = p.first_epoch;
  for (int epoch = 0; epoch < p.num_epochs && o.ok(); ++epoch) {
    centre_ = s.y;
    mean_.setZero(s.y.dim());
    for (int t = 0; t < num_steps && o.ok(); ++t) {
      ProjectedStep(o, s, step, radius);
      if (!s.y.space().Minus(s.y.value().data(), centre_.value().data(), offset_.data())) return;
      mean_ += offset_ / num_steps;
    }
    s.y = centre_;
    s.y.Move(mean_);
    num_steps *= 2;
    step /= 2.0;
    radius /= std::sqrt(2.0);
  }
}

void BoRep::Iterate(Oracle& o, State& s) {
  if (o.iteration > 0 && o.iteration % options_.update_interval == 0) {
    centre_ = s.y;
    for (int t = 0; t < options_.num_lower_steps && o.ok(); ++t) {
      ProjectedStep(o, s, options_.y.At(o.iteration), options_.radius);
    }
  }
  Evaluate(o, s);
  MoveXAndZ(o, s);
}

void BoRep::RememberOwn(Oracle& oracle, Memory* memory) {
  centre_.Remember("centre", oracle.program().y, memory);
}

}  // namespace bilevel
