#include "bilevel/methods/stochastic/adambo.h"

#include <cmath>

#include "bilevel/base/memory.h"

namespace bilevel {

std::string AdamBo::CheckOptions(const Oracle& oracle) const {
  const std::string complaint = NeumannMethod::CheckOptions(oracle);
  if (!complaint.empty()) return complaint;
  if (own_.num_lower_steps != 1) return name() + ".num_lower_steps must be 1: all is at one point";
  if (own_.num_warm_start_steps < 0) return name() + ".num_warm_start_steps must not be negative";
  if (own_.x.kind != StepRule::kAdam) return name() + ".x.kind must be kAdam";
  if (!(own_.eta > 0.0 && own_.eta <= 1.0)) return name() + ".eta must be in (0, 1]";
  if (!(own_.square_beta >= 0.0 && own_.square_beta < 1.0)) {
    return name() + ".square_beta must be in [0, 1)";
  }
  return own_.epsilon > 0.0 ? "" : name() + ".epsilon must be positive";
}

void AdamBo::Start(Oracle& o, State& s) {
  storm_.Restart();
  LowerSteps(o, s, own_.num_warm_start_steps, options_.y.At(0));
}

void AdamBo::Iterate(Oracle& o, State& s) {
  o.g(Lower(o, kY)).Gradient(s.x, s.y, nullptr, &g_y_);
  Draw(o, &samples_);
  if (own_.variance_reduction) {
    const Vector& step = Reduced(o, s);
    MoveY(o, s, options_.y.At(o.iteration), &g_y_);
    if (o.ok()) NoteStep(o, s.x.Move(-step) ? step.norm() : -1.0);
  } else {
    Note(neumann_.Evaluate(o, metric(), s.x, s.y, samples_, &d_));
    MoveY(o, s, options_.y.At(o.iteration), &g_y_);
    MoveX(o, s, options_.x, d_);
  }
}

// VR-AdamBO's step of x.
const Vector& AdamBo::Reduced(Oracle& o, State& s) {
  bool first = true;
  const Vector& d = storm_.Next(
      own_.eta, s.x, s.y, nothing_, [&](const Point& x, const Point& y, const Vector&, Vector* h) {
        const double f = neumann_.Evaluate(o, metric(), x, y, samples_, &d_);
        *h = d_.dense();
        if (!first) return;
        Note(f);
        h_ = *h;
        first = false;
      });
  const double b = own_.square_beta;
  const double correction = 1.0 - std::pow(b, static_cast<double>(o.iteration) + 1.0);
  Vector& v = s.Get("x.adam_square", s.x.dim());
  v = b * v + (1.0 - b) * h_.cwiseAbs2();
  step_ = options_.x.At(o.iteration) * d.array() / ((v / correction).array().sqrt() + own_.epsilon);
  return step_;
}

void AdamBo::RememberOwn(Oracle& oracle, Memory* memory) {
  storm_.Remember("storm", oracle, memory);
}

}  // namespace bilevel
