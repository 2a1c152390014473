#include "bilevel/methods/stochastic/neumann_method.h"

#include <algorithm>

namespace bilevel {

std::string NeumannMethod::CheckOptions(const Oracle& /*oracle*/) const {
  if (given_.num_lower_steps <= 0) return name() + ".num_lower_steps must be positive";
  std::string complaint = CheckGiven(given_.y, name() + ".y");
  if (complaint.empty()) complaint = CheckGiven(given_.x, name() + ".x");
  return complaint.empty() ? given_.neumann.Check(name() + ".neumann") : complaint;
}

void NeumannMethod::FillOptions(Defaults* defaults) {
  options_ = given_;
  defaults->FillSteps({{"y", &options_.y}}, options_.num_lower_steps, &options_.x);
  defaults->FillSeries(&options_.neumann);
  neumann_ = Neumann(options_.neumann);
}

double NeumannMethod::LongestLowerStep() const {
  return std::max(options_.y.step, options_.neumann.step);
}

void NeumannMethod::Draw(Oracle& o, Neumann::Samples* samples) {
  samples->f = Upper(o, kF);
  samples->j = Lower(o, kJ);
  samples->length = options_.neumann.Length(o.iteration);
  int products = samples->length;
  if (options_.neumann.kind == Neumann::kRandomised) {
    products = o.Draw(1, kP).Term(0, samples->length);
  }
  samples->h.clear();
  // The length grows slowly; what is under way is not to allocate.
  if (samples->h.capacity() < static_cast<size_t>(samples->length)) {
    samples->h.reserve(3 * samples->length);
  }
  for (int q = 0; q < products; ++q) samples->h.push_back(Lower(o, kZ));
}

void NeumannMethod::Iterate(Oracle& o, State& s) {
  LowerPhase(o, s);
  Draw(o, &samples_);
  Note(neumann_.Evaluate(o, metric(), s.x, s.y, samples_, &d_));
  MoveX(o, s, options_.x, d_);
}

}  // namespace bilevel
