#include "bilevel/methods/stochastic/fsla.h"

#include <algorithm>

#include "bilevel/base/memory.h"

namespace bilevel {

std::string Fsla::CheckOptions(const Oracle& /*oracle*/) const {
  std::string complaint = CheckGiven(given_.y, "fsla.y");
  if (complaint.empty()) complaint = CheckGiven(given_.z, "fsla.z");
  if (complaint.empty()) complaint = CheckGiven(given_.x, "fsla.x");
  if (complaint.empty()) complaint = CheckGiven(given_.eta, "fsla.eta");
  if (complaint.empty() && given_.eta.step > 1.0) complaint = "fsla.eta must be at most 1";
  return complaint;
}

void Fsla::FillOptions(Defaults* defaults) {
  options_ = given_;
  defaults->FillSteps({{"y", &options_.y}, {"z", &options_.z}}, 1, &options_.x);
  Defaults::FillDecayTime(options_.x, &options_.eta);
}

double Fsla::LongestLowerStep() const { return std::max(options_.y.step, options_.z.step); }

void Fsla::Iterate(Oracle& o, State& s) {
  Vector& z = s.Get("z", s.y.dim());
  LowerSteps(o, s, 1, options_.y.At(o.iteration));
  o.g(Lower(o, kZ)).HessianProduct(s.x, s.y, z, &h_z_, nullptr);
  Note(o.f(Upper(o, kF)).Gradient(s.x, s.y, nullptr, &f_y_));
  if (!o.ok()) return;
  MoveZ(options_.z.At(o.iteration), &h_z_, &f_y_, &z);
  const Batch of_f = Upper(o, kW), of_g = Lower(o, kJ);
  const Vector& d =
      storm_.Next(options_.eta.At(o.iteration),
                  s.x,
                  s.y,
                  z,
                  [&](const Point& x, const Point& y, const Vector& at_z, Vector* value) {
                    o.f(of_f).Gradient(x, y, &f_x_, nullptr);
                    o.g(of_g).HessianProduct(x, y, at_z, &h_z_, &j_z_);
                    f_x_.Add(-1.0, j_z_);
                    *value = f_x_.dense();
                  });
  MoveX(o, s, options_.x, d);
}

void Fsla::RememberOwn(Oracle& oracle, Memory* memory) { storm_.Remember("storm", oracle, memory); }

}  // namespace bilevel
