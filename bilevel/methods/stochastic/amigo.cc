#include "bilevel/methods/stochastic/amigo.h"

#include <algorithm>

namespace bilevel {

std::string Amigo::CheckOptions(const Oracle& /*oracle*/) const {
  if (given_.num_lower_steps <= 0) return "amigo.num_lower_steps must be positive";
  if (given_.num_linear_steps <= 0) return "amigo.num_linear_steps must be positive";
  std::string complaint = CheckGiven(given_.y, "amigo.y");
  if (complaint.empty()) complaint = CheckGiven(given_.z, "amigo.z");
  return complaint.empty() ? CheckGiven(given_.x, "amigo.x") : complaint;
}

void Amigo::FillOptions(Defaults* defaults) {
  options_ = given_;
  const int num_steps = std::min(options_.num_lower_steps, options_.num_linear_steps);
  defaults->FillSteps({{"y", &options_.y}, {"z", &options_.z}}, num_steps, &options_.x);
}

double Amigo::LongestLowerStep() const { return std::max(options_.y.step, options_.z.step); }

void Amigo::Iterate(Oracle& o, State& s) {
  Vector& z = s.Get("z", s.y.dim());
  LowerSteps(o, s, options_.num_lower_steps, options_.y.At(o.iteration));
  Note(o.f(Upper(o, kF)).Gradient(s.x, s.y, &f_x_, &f_y_));
  const double gamma = options_.z.At(o.iteration);
  for (int q = 0; q < options_.num_linear_steps && o.ok(); ++q) {
    o.g(Lower(o, kZ)).HessianProduct(s.x, s.y, z, &h_z_, nullptr);
    own_f_y_.SetZero(&s.y.space());
    own_f_y_.Add(1.0, f_y_);
    MoveZ(gamma, &h_z_, &own_f_y_, &z);
  }
  o.g(Lower(o, kJ)).HessianProduct(s.x, s.y, z, &h_z_, &j_z_);
  if (!o.ok()) return;
  f_x_.Add(-1.0, j_z_);
  MoveX(o, s, options_.x, f_x_);
}

}  // namespace bilevel
