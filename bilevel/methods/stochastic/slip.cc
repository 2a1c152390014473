#include "bilevel/methods/stochastic/slip.h"

#include <algorithm>

#include "bilevel/base/internal/vector_passes.h"

namespace bilevel {

std::string Slip::CheckOptions(const Oracle& /*oracle*/) const {
  const Options& p = given_;
  std::string complaint = CheckGiven(p.y, name() + ".y");
  if (complaint.empty()) complaint = CheckGiven(p.z, name() + ".z");
  if (complaint.empty()) complaint = CheckGiven(p.x, name() + ".x");
  if (complaint.empty()) complaint = CheckGiven(p.average, name() + ".average");
  if (!complaint.empty()) return complaint;
  if (p.average.step > 1.0) return name() + ".average.step must be at most 1";
  if (p.num_warm_start_steps < 0) return name() + ".num_warm_start_steps must not be negative";
  if (!(p.warm_start_step >= 0.0)) return name() + ".warm_start_step must be positive";
  return "";
}

void Slip::FillOptions(Defaults* defaults) {
  options_ = given_;
  Options& p = options_;
  Schedule plain = p.x;  // Of x, were its steps not normalised.
  defaults->FillSteps({{"y", &p.y}, {"z", &p.z}}, 1, {"plain x", &plain});
  if (p.num_warm_start_steps > 0) {
    defaults->Fill("warm_start_step", &p.warm_start_step, [&] { return defaults->LowerStep(); });
  }
  defaults->Fill("x.step", &p.x.step, [&] { return plain.step * defaults->GradientNorm(); });
  for (Schedule* s : {&p.x, &p.average}) Defaults::FillDecayTime(plain, s);
}

double Slip::LongestLowerStep() const {
  const double warm_start = options_.num_warm_start_steps > 0 ? options_.warm_start_step : 0.0;
  return std::max({options_.y.step, options_.z.step, warm_start});
}

void Slip::Start(Oracle& o, State& s) {
  LowerSteps(o, s, options_.num_warm_start_steps, options_.warm_start_step);
}

void Slip::Evaluate(Oracle& o, State& s) {
  const Vector& z = s.Get("z", s.y.dim());
  if (options_.one_sample) {
    o.g(Lower(o, kY)).GradientAndProduct(s.x, s.y, z, &g_y_, &h_z_, &j_z_);
  } else {
    o.g(Lower(o, kZ)).HessianProduct(s.x, s.y, z, &h_z_, &j_z_);
  }
  Note(o.f(Upper(o, kF)).Gradient(s.x, s.y, &f_x_, &f_y_));
}

void Slip::MoveXAndZ(Oracle& o, State& s) {
  if (!o.ok()) return;
  Vector& z = s.Get("z", s.y.dim());
  Vector& m = s.Get("m", s.x.dim());
  const double eta = options_.x.At(o.iteration), theta = options_.average.At(o.iteration);
  Scale(1.0 - theta, &m);
  f_x_.AddTo(theta, &m);
  j_z_.AddTo(-theta, &m);
  MoveZ(options_.z.At(o.iteration), &h_z_, &f_y_, &z);
  const double norm = Norm(m);
  if (norm > 0.0) NoteStep(o, s.x.Move(-(eta / norm) * m) ? eta : -1.0);
}

void Slip::Iterate(Oracle& o, State& s) {
  if (!options_.one_sample) o.g(Lower(o, kY)).Gradient(s.x, s.y, nullptr, &g_y_);
  Evaluate(o, s);
  MoveY(o, s, options_.y.At(o.iteration), &g_y_);
  MoveXAndZ(o, s);
}

}  // namespace bilevel
