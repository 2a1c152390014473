#include "bilevel/methods/stochastic/soba.h"

namespace bilevel {

std::string Soba::CheckOptions(const Oracle& /*oracle*/) const {
  const std::string complaint = CheckGiven(given_.lower, "soba.lower");
  return complaint.empty() ? CheckGiven(given_.x, "soba.x") : complaint;
}

void Soba::FillOptions(Defaults* defaults) {
  options_ = given_;
  defaults->FillSteps({{"lower", &options_.lower}}, 1, {"x", &options_.x});
}

void Soba::Iterate(Oracle& o, State& s) {
  Vector& z = s.Get("z", s.y.dim());
  const double rho = options_.lower.At(o.iteration);
  Note(d_.Evaluate(o, Lower(o, kY), Upper(o, kF), s.x, s.y, z));
  if (!o.ok()) return;
  MoveY(o, s, rho, &d_.g_y);
  MoveZ(rho, &d_.h_z, &d_.f_y, &z);
  d_.f_x.Add(-1.0, d_.j_z);
  MoveX(o, s, options_.x, d_.f_x);
}

}  // namespace bilevel
