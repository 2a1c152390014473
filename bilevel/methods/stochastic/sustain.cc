#include "bilevel/methods/stochastic/sustain.h"

namespace bilevel {

std::string Sustain::CheckOptions(const Oracle& oracle) const {
  std::string complaint = NeumannMethod::CheckOptions(oracle);
  if (complaint.empty()) complaint = own_.eta_g.Check(name() + ".eta_g");
  if (complaint.empty()) complaint = own_.eta_f.Check(name() + ".eta_f");
  if (complaint.empty() && (own_.eta_g.step > 1.0 || own_.eta_f.step > 1.0)) {
    complaint = name() + "'s etas must be at most 1";
  }
  return complaint;
}

void Sustain::Start(Oracle& /*oracle*/, State& /*state*/) {
  u_.Restart();
  v_.Restart();
}

void Sustain::Iterate(Oracle& o, State& s) {
  const Batch zeta = Lower(o, kY);
  const Vector& u = u_.Next(own_.eta_g.At(o.iteration),
                            s.x,
                            s.y,
                            nothing_,
                            [&](const Point& x, const Point& y, const Vector&, Vector* g) {
                              o.g(zeta).Gradient(x, y, nullptr, &g_y_);
                              *g = g_y_.dense();
                            });
  Draw(o, &samples_);
  bool first = true;
  const Vector& v = v_.Next(own_.eta_f.At(o.iteration),
                            s.x,
                            s.y,
                            nothing_,
                            [&](const Point& x, const Point& y, const Vector&, Vector* d) {
                              const double f = neumann_.Evaluate(o, metric(), x, y, samples_, &d_);
                              if (first) Note(f);
                              first = false;
                              *d = d_.dense();
                            });
  MoveY(o, s, options_.y.At(o.iteration), u);
  MoveX(o, s, options_.x, v);
}

}  // namespace bilevel
