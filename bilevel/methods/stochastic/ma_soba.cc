#include "bilevel/methods/stochastic/ma_soba.h"

#include <algorithm>

namespace bilevel {

std::string MaSoba::CheckOptions(const Oracle& /*oracle*/) const {
  std::string complaint = CheckGiven(given_.x, "ma_soba.x");
  if (complaint.empty()) complaint = CheckGiven(given_.y, "ma_soba.y");
  if (complaint.empty()) complaint = CheckGiven(given_.z, "ma_soba.z");
  if (complaint.empty()) complaint = CheckGiven(given_.average, "ma_soba.average");
  if (complaint.empty() && given_.average.step > 1.0) {
    complaint = "ma_soba.average.step must be at most 1";
  }
  return complaint;
}

void MaSoba::FillOptions(Defaults* defaults) {
  options_ = given_;
  Schedule *x = &options_.x, *average = &options_.average;
  defaults->FillSteps({{"y", &options_.y}, {"z", &options_.z}}, 1, {"x", x});
  defaults->Fill("average.step", &average->step, [&] {
    return std::min(1.0, 4.0 * defaults->UpperCurvatureBound() * x->step);
  });
  Defaults::FillDecayTime(*x, average);
}

double MaSoba::LongestLowerStep() const { return std::max(options_.y.step, options_.z.step); }

void MaSoba::Iterate(Oracle& o, State& s) {
  const uint64_t k = o.iteration;
  Vector& z = s.Get("z", s.y.dim());
  Vector& h = s.Get("h", s.x.dim());
  const double alpha = options_.x.At(k), theta = options_.average.At(k);
  Note(d_.Evaluate(o, Lower(o, kY), Upper(o, kF), s.x, s.y, z));
  if (!o.ok()) return;
  NoteStep(o, s.x.Move(-alpha * h) ? alpha * h.norm() : -1.0);
  MoveY(o, s, options_.y.At(k), &d_.g_y);
  MoveZ(options_.z.At(k), &d_.h_z, &d_.f_y, &z);
  h *= 1.0 - theta;
  d_.f_x.AddTo(theta, &h);
  d_.j_z.AddTo(-theta, &h);
}

}  // namespace bilevel
