#include "bilevel/methods/stochastic/sustain.h"

#include "bilevel/base/memory.h"

namespace bilevel {

std::string Sustain::CheckOptions(const Oracle& oracle) const {
  std::string complaint = NeumannMethod::CheckOptions(oracle);
  if (complaint.empty()) complaint = CheckGiven(own_.eta_g, name() + ".eta_g");
  if (complaint.empty()) complaint = CheckGiven(own_.eta_f, name() + ".eta_f");
  if (complaint.empty() && (own_.eta_g.step > 1.0 || own_.eta_f.step > 1.0)) {
    complaint = name() + "'s etas must be at most 1";
  }
  return complaint;
}

void Sustain::FillOptions(Defaults* defaults) {
  NeumannMethod::FillOptions(defaults);
  eta_g_ = own_.eta_g;
  eta_f_ = own_.eta_f;
  Defaults::FillDecayTime(options_.x, &eta_g_);
  Defaults::FillDecayTime(options_.x, &eta_f_);
}

void Sustain::Start(Oracle& /*oracle*/, State& /*state*/) {
  u_.Restart();
  v_.Restart();
}

void Sustain::Iterate(Oracle& o, State& s) {
  const Batch zeta = Lower(o, kY);
  const Vector& u = u_.Next(eta_g_.At(o.iteration),
                            s.x,
                            s.y,
                            nothing_,
                            [&](const Point& x, const Point& y, const Vector&, Vector* g) {
                              o.g(zeta).Gradient(x, y, nullptr, &g_y_);
                              *g = g_y_.dense();
                            });
  Draw(o, &samples_);
  bool first = true;
  const Vector& v = v_.Next(eta_f_.At(o.iteration),
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

void Sustain::RememberOwn(Oracle& oracle, Memory* memory) {
  u_.Remember("u", oracle, memory);
  v_.Remember("v", oracle, memory);
}

}  // namespace bilevel
