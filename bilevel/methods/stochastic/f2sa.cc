#include "bilevel/methods/stochastic/f2sa.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/memory.h"

namespace bilevel {

std::string F2sa::NameOf(const Options& options) {
  if (options.momentum) return "f3sa";
  return options.order == 1 ? "f2sa" : "f2sa_" + std::to_string(options.order);
}

std::string F2sa::CheckOptions(const Oracle& /*oracle*/) const {
  if (given_.order != 1 && given_.order != 2 && given_.order != 4) {
    return name() + ".order must be 1, 2 or 4";
  }
  if (given_.momentum && (given_.order != 1 || given_.same_sample)) {
    return "f3sa is of order 1, with a sample of its own for each gradient";
  }
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
  // order f / lambda is to be convex beside g.
  const double share = std::max(1.0, 0.5 * options_.order);
  defaults->Fill(
      "alpha.step", &alpha.step, [&] { return gamma.step / (2.0 * share * defaults->Penalty()); });
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
  switch (options_.order) {
    case 1:
      nodes_ = {{1, 1.0, s.y}, {0, -1.0, s.y}};
      break;
    case 2:
      nodes_ = {{1, 0.5, s.y}, {-1, -0.5, s.y}};
      break;
    default:
      nodes_ = {
          {1, 2.0 / 3.0, s.y}, {-1, -2.0 / 3.0, s.y}, {2, -1.0 / 12.0, s.y}, {-2, 1.0 / 12.0, s.y}};
  }
  for (Recursion* storm :
       {&g_w_storm_, &g_y_storm_, &f_y_storm_, &f_x_storm_, &g_x_y_storm_, &g_x_w_storm_}) {
    storm->Restart();
  }
}

// A step of each point, along j f_y + lambda g_y; those that see f share their samples.
void F2sa::FollowLowerLevel(Oracle& o, State& s) {
  const double alpha = options_.alpha.At(o.iteration), gamma = options_.gamma.At(o.iteration);
  const Batch of_f = Upper(o, kZ), of_g = Lower(o, kY);
  for (Node& node : nodes_) {
    d_y_.SetZero(&o.program().y);
    if (node.j == 0) {
      o.g(options_.same_sample ? of_g : Lower(o, kW)).Gradient(s.x, node.y, nullptr, &d_y_);
    } else {
      o.f(of_f).Gradient(s.x, At(node, s), nullptr, &f_y_);
      o.g(of_g).Gradient(s.x, At(node, s), nullptr, &g_y_);
      d_y_.Add(node.j, f_y_);
      d_y_.Add(Lambda(o.iteration), g_y_);
    }
    if (!o.ok()) return;
    if (node.j == 1) {
      MoveY(o, s, alpha, &d_y_);
      continue;
    }
    if (metric()) metric()->Apply(&d_y_);
    if (!node.y.MoveWithin(node.j == 0 ? -gamma : -alpha, d_y_)) {
      return o.Fail("what follows the lower level is no longer finite, or its manifold failed");
    }
  }
}

void F2sa::Iterate(Oracle& o, State& s) {
  if (options_.momentum) return IterateWithMomentum(o, s);
  for (int t = 0; t < options_.num_lower_steps && o.ok(); ++t) FollowLowerLevel(o, s);
  const double lambda = Lambda(o.iteration);
  const bool same_sample = options_.same_sample || options_.order > 1;
  const Batch of_f = Upper(o, kF), of_g = Lower(o, kJ);
  d_x_.SetZero(&o.program().x);
  for (const Node& node : nodes_) {
    if (node.j != 0) {
      const double value = o.f(of_f).Gradient(s.x, At(node, s), &f_x_, nullptr);
      if (node.j == 1) Note(value);
      d_x_.Add(node.weight * node.j, f_x_);
    }
    const bool is_first = node.j == 1 || same_sample;
    o.g(is_first ? of_g : Lower(o, kP)).Gradient(s.x, At(node, s), &g_x_, nullptr);
    d_x_.Add(node.weight * lambda, g_x_);
  }
  if (!o.ok()) return;
  const double step = options_.xi * options_.alpha.At(o.iteration);
  NoteStep(o, s.x.Move(-step, d_x_) ? step * std::sqrt(d_x_.squaredNorm()) : -1.0);
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
  Point& w = nodes_[1].y;
  for (int t = 0; t < options_.num_lower_steps && o.ok(); ++t) {
    direction_ = storm(&g_w_storm_, o.g(Lower(o, kW)), w, false);
    const Vector& f_y = storm(&f_y_storm_, o.f(Upper(o, kZ)), s.y, false);
    const Vector& g_y = storm(&g_y_storm_, o.g(Lower(o, kY)), s.y, false);
    if (!o.ok()) return;
    if (metric()) metric()->Apply(&direction_);
    if (!w.MoveWithin(-gamma * direction_))
      return o.Fail("w is no longer finite, or its manifold failed");
    direction_ = f_y + lambda * g_y;
    MoveY(o, s, alpha, direction_);
  }
  direction_ = storm(&f_x_storm_, o.f(Upper(o, kF)), s.y, true);
  direction_ += lambda * storm(&g_x_y_storm_, o.g(Lower(o, kJ)), s.y, true);
  direction_ -= lambda * storm(&g_x_w_storm_, o.g(Lower(o, kP)), w, true);
  if (!o.ok()) return;
  const double step = options_.xi * alpha;
  NoteStep(o, s.x.Move(-step * direction_) ? step * direction_.norm() : -1.0);
}

void F2sa::RememberOwn(Oracle& oracle, Memory* memory) {
  for (Node& node : nodes_) {
    if (node.j != 1) node.y.Remember("y_" + std::to_string(node.j), oracle.program().y, memory);
  }
  g_w_storm_.Remember("g_w", oracle, memory);
  g_y_storm_.Remember("g_y", oracle, memory);
  f_y_storm_.Remember("f_y", oracle, memory);
  f_x_storm_.Remember("f_x", oracle, memory);
  g_x_y_storm_.Remember("g_x_y", oracle, memory);
  g_x_w_storm_.Remember("g_x_w", oracle, memory);
}

}  // namespace bilevel
