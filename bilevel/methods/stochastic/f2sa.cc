#include "bilevel/methods/stochastic/f2sa.h"

#include <cmath>

#include "bilevel/base/memory.h"

namespace bilevel {

std::string F2sa::CheckOptions(const Oracle& /*oracle*/) const {
  if (given_.num_lower_steps <= 0) return name() + ".num_lower_steps must be positive";
  if (!(given_.xi >= 0.0)) return name() + ".xi must be positive";
  std::string complaint = CheckGiven(given_.alpha, name() + ".alpha");
  if (complaint.empty()) complaint = CheckGiven(given_.gamma, name() + ".gamma");
  if (complaint.empty()) complaint = CheckGiven(given_.eta, name() + ".eta");
  if (complaint.empty() && given_.eta.step > 1.0) complaint = name() + ".eta must be at most 1";
  return complaint;
}

void F2sa::FillOptions(Defaults* defaults) {
  options_ = given_;
  Schedule &alpha = options_.alpha, &gamma = options_.gamma;
  defaults->Fill("gamma.step", &gamma.step, [&] { return defaults->LowerStep(); });
  defaults->Fill(
      "alpha.step", &alpha.step, [&] { return gamma.step / (2.0 * defaults->Penalty()); });
  defaults->Fill("xi", &options_.xi, [&] {
    return defaults->UpperStep(gamma.step, options_.num_lower_steps) / alpha.step;
  });
  const bool given = given_.gamma.step != 0.0 && given_.alpha.step != 0.0;
  for (Schedule* s : {&alpha, &gamma}) {
    if (s->decay_time != 0.0) continue;
    s->decay_time = given ? Defaults::kDecayTime : defaults->DecayTime(options_.xi * alpha.step);
  }
  Defaults::FillDecayTime(alpha, &options_.eta);
}

void F2sa::Start(Oracle& /*oracle*/, State& s) {
  w_ = s.y;
  for (Recursion* storm :
       {&g_w_storm_, &g_y_storm_, &f_y_storm_, &f_x_storm_, &g_x_y_storm_, &g_x_w_storm_}) {
    storm->Restart();
  }
}

void F2sa::Iterate(Oracle& o, State& s) {
  if (options_.momentum) return IterateWithMomentum(o, s);
  const double alpha = options_.alpha.At(o.iteration), gamma = options_.gamma.At(o.iteration);
  const double lambda = Lambda(o.iteration);
  for (int t = 0; t < options_.num_lower_steps && o.ok(); ++t) {
    o.g(Lower(o, kW)).Gradient(s.x, w_, nullptr, &g_w_);
    o.f(Upper(o, kZ)).Gradient(s.x, s.y, nullptr, &f_y_);
    o.g(Lower(o, kY)).Gradient(s.x, s.y, nullptr, &g_y_);
    if (!o.ok()) return;
    if (metric()) metric()->Apply(&g_w_);
    if (!w_.Move(-gamma, g_w_)) return o.Fail("w is no longer finite, or its manifold failed");
    f_y_.Add(lambda, g_y_);
    MoveY(o, s, alpha, &f_y_);
  }
  Note(o.f(Upper(o, kF)).Gradient(s.x, s.y, &f_x_, nullptr));
  o.g(Lower(o, kJ)).Gradient(s.x, s.y, &g_x_, nullptr);
  f_x_.Add(lambda, g_x_);
  o.g(Lower(o, kP)).Gradient(s.x, w_, &g_x_, nullptr);
  f_x_.Add(-lambda, g_x_);
  if (!o.ok()) return;
  const double step = options_.xi * alpha;
  NoteStep(o, s.x.Move(-step, f_x_) ? step * std::sqrt(f_x_.squaredNorm()) : -1.0);
}

void F2sa::IterateWithMomentum(Oracle& o, State& s) {
  const double alpha = options_.alpha.At(o.iteration), gamma = options_.gamma.At(o.iteration);
  const double lambda = Lambda(o.iteration), eta = options_.eta.At(o.iteration);
  // The gradient in x or y of a level over one sample, by STORM.
  const auto storm =
      [&](Recursion* recursion, LevelView level, const Point& y, bool in_x) -> const Vector& {
    return recursion->Next(
        eta,
        s.x,
        y,
        nothing_,
        [&](const Point& at_x, const Point& at_y, const Vector&, Vector* gradient) {
          level.Gradient(at_x, at_y, in_x ? &own_x_ : nullptr, in_x ? nullptr : &g_y_);
          *gradient = in_x ? own_x_.dense() : g_y_.dense();
        });
  };
  for (int t = 0; t < options_.num_lower_steps && o.ok(); ++t) {
    direction_ = storm(&g_w_storm_, o.g(Lower(o, kW)), w_, false);
    const Vector& f_y = storm(&f_y_storm_, o.f(Upper(o, kZ)), s.y, false);
    const Vector& g_y = storm(&g_y_storm_, o.g(Lower(o, kY)), s.y, false);
    if (!o.ok()) return;
    if (metric()) metric()->Apply(&direction_);
    if (!w_.Move(-gamma * direction_))
      return o.Fail("w is no longer finite, or its manifold failed");
    direction_ = f_y + lambda * g_y;
    MoveY(o, s, alpha, direction_);
  }
  direction_ = storm(&f_x_storm_, o.f(Upper(o, kF)), s.y, true);
  direction_ += lambda * storm(&g_x_y_storm_, o.g(Lower(o, kJ)), s.y, true);
  direction_ -= lambda * storm(&g_x_w_storm_, o.g(Lower(o, kP)), w_, true);
  if (!o.ok()) return;
  const double step = options_.xi * alpha;
  NoteStep(o, s.x.Move(-step * direction_) ? step * direction_.norm() : -1.0);
}

void F2sa::RememberOwn(Oracle& oracle, Memory* memory) {
  w_.Remember("w", oracle.program().y, memory);
  g_w_storm_.Remember("g_w", oracle, memory);
  g_y_storm_.Remember("g_y", oracle, memory);
  f_y_storm_.Remember("f_y", oracle, memory);
  f_x_storm_.Remember("f_x", oracle, memory);
  g_x_y_storm_.Remember("g_x_y", oracle, memory);
  g_x_w_storm_.Remember("g_x_w", oracle, memory);
}

}  // namespace bilevel
