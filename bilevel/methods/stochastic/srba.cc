#include "bilevel/methods/stochastic/srba.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/memory.h"

namespace bilevel {
namespace {

Svrb::Options SvrbOptions(const Srba::Options& options) {
  Svrb::Options svrb;
  static_cast<StochasticOptions&>(svrb) = options;
  svrb.lower = options.lower;
  svrb.x = options.x;
  return svrb;
}

}  // namespace

std::string Svrb::CheckOptions(const Oracle& /*oracle*/) const {
  std::string complaint = CheckGiven(given_.lower, name() + ".lower");
  if (complaint.empty()) complaint = CheckGiven(given_.x, name() + ".x");
  if (complaint.empty()) complaint = CheckGiven(given_.eta, name() + ".eta");
  if (complaint.empty() && given_.eta.step > 1.0) complaint = name() + ".eta must be at most 1";
  return complaint;
}

void Svrb::FillOptions(Defaults* defaults) {
  options_ = given_;
  defaults->FillSteps({{"lower", &options_.lower}}, 1, {"x", &options_.x});
  Defaults::FillDecayTime(options_.x, &options_.eta);
}

void Svrb::Start(Oracle& /*oracle*/, State& /*state*/) { recursion_.Restart(); }

void Svrb::Iterate(Oracle& o, State& s) {
  Iterate(o, s, options_.eta.At(o.iteration), Lower(o, kY), Upper(o, kF));
}

void Svrb::Iterate(Oracle& o, State& s, double eta, const Batch& i, const Batch& j) {
  const int m = s.x.dim(), n = s.y.dim();
  Vector& z = s.Get("z", n);
  bool first = true;
  const Vector& d = recursion_.Next(
      eta, s.x, s.y, z, [&](const Point& x, const Point& y, const Vector& at_z, Vector* value) {
        const double f = direction_.Evaluate(o, i, j, x, y, at_z);
        if (first) Note(f);
        first = false;
        direction_.Stack(value);
      });
  if (!o.ok()) return;
  const double rho = options_.lower.At(o.iteration);
  d_x_ = d.head(m);
  d_y_ = d.segment(m, n);
  d_z_ = d.tail(n);
  MoveY(o, s, rho, d_y_);
  MoveZ(rho, d_z_, &z);
  MoveX(o, s, options_.x, d_x_);
}

Srba::Srba(const Options& options) : Svrb("srba", SvrbOptions(options)), own_(options) {}

std::string Srba::CheckOptions(const Oracle& oracle) const {
  if (own_.period < 0) return "srba.period must not be negative";
  if (own_.period == 0 && !(own_.fraction > 0.0)) return "srba.fraction must be positive";
  for (const LevelView* level : {&oracle.g, &oracle.f}) {
    const std::vector<int> sums = level->DrawnFrom();
    if (std::count(sums.begin(), sums.end(), Objective::kStream) > 0) {
      return "srba needs finite sums: it evaluates both levels in full now and then";
    }
  }
  return Svrb::CheckOptions(oracle);
}

void Srba::Start(Oracle& o, State& s) {
  Svrb::Start(o, s);
  period_ = own_.period;
  if (own_.period > 0) return;
  const double terms = static_cast<double>(o.g.num_terms() + o.f.num_terms());
  const int batch = lower_batch() + upper_batch();
  period_ = std::max<uint64_t>(
      1, batch > 0 ? static_cast<uint64_t>(std::ceil(own_.fraction * terms / batch)) : 1);
}

void Srba::Iterate(Oracle& o, State& s) {
  if (o.iteration % period_ == 0) {
    recursion_.Restart();
    Svrb::Iterate(o, s, 0.0, Batch::All(), Batch::All());
  } else {
    Svrb::Iterate(o, s, 0.0, Lower(o, kY), Upper(o, kF));
  }
}

void Svrb::RememberOwn(Oracle& oracle, Memory* memory) {
  recursion_.Remember("recursion", oracle, memory);
}

}  // namespace bilevel
