#include "bilevel/methods/stochastic/pnpbo.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/memory.h"

namespace bilevel {
namespace {

// The drawn block, by its number: the same of every sum.
Batch Block(const Batch& batch, int num_terms) {
  return batch.all() ? Batch::All() : Batch::Block(batch.size, batch.First(num_terms) / batch.size);
}

}  // namespace

std::string PnpBo::CheckOptions(const Oracle& oracle) const {
  const Options& p = given_;
  std::string complaint = CheckGiven(p.lower, name() + ".lower");
  if (complaint.empty() && p.z) complaint = CheckGiven(*p.z, name() + ".z");
  if (complaint.empty()) complaint = CheckGiven(p.x, name() + ".x");
  if (complaint.empty() && p.average) complaint = CheckGiven(*p.average, name() + ".average");
  if (complaint.empty()) complaint = CheckGiven(p.eta, name() + ".eta");
  if (!complaint.empty()) return complaint;
  if (p.average && p.average->step > 1.0) return name() + ".average.step must be at most 1";
  if (p.eta.step > 1.0) return name() + ".eta must be at most 1";
  if (p.period < 0) return name() + ".period must not be negative";
  if (p.period == 0 && !(p.fraction > 0.0)) return name() + ".fraction must be positive";
  const bool has_blocks = p.sampling == Batch::kBlocks || p.sampling == Batch::kShuffledBlocks;
  if (UsesTables() && !has_blocks) {
    return name() + ".sampling must be kBlocks or kShuffledBlocks: its tables are by block";
  }
  for (const auto& [level, size] :
       {std::make_pair(&oracle.g, p.lower_batch), std::make_pair(&oracle.f, p.upper_batch)}) {
    if (UsesTables() && NumBlocks(*level, BatchSize(*level, size)) == 0) {
      return name() + " needs a finite sum of one length in each level for its tables";
    }
    const std::vector<int> sums = level->DrawnFrom();
    if (Uses(kPage) && std::count(sums.begin(), sums.end(), Objective::kStream) > 0) {
      return name() + " needs finite sums: it evaluates both levels in full now and then";
    }
  }
  return "";
}

bool PnpBo::Uses(Estimator estimator) const {
  return given_.of_y == estimator || given_.of_z == estimator || given_.of_x == estimator;
}

bool PnpBo::UsesTables() const { return Uses(kSaga) || Uses(kZeroSarah); }

void PnpBo::FillOptions(Defaults* defaults) {
  options_ = given_;
  Options& p = options_;
  if (UsesTables()) {
    defaults->Fill("lower.step", &p.lower.step, [&] { return defaults->LowerStep() / 3.0; });
  }
  std::vector<Defaults::Named> lower = {{"lower", &p.lower}};
  if (p.z) lower.push_back({"z", &*p.z});
  defaults->FillSteps(lower, 1, &p.x);
  if (p.average) {
    defaults->Fill("average.step", &p.average->step, [&] {
      return std::min(1.0, 4.0 * defaults->UpperCurvatureBound() * p.x.step);
    });
    Defaults::FillDecayTime(p.x, &*p.average);
  }
  Defaults::FillDecayTime(p.x, &p.eta);
}

double PnpBo::LongestLowerStep() const {
  return std::max(options_.lower.step, options_.z ? options_.z->step : 0.0);
}

void PnpBo::Start(Oracle& o, State& s) {
  const double terms = static_cast<double>(o.g.num_terms() + o.f.num_terms());
  const int batch = lower_batch() + upper_batch();
  period_ = options_.period;
  if (period_ == 0) {
    period_ = std::max<uint64_t>(
        1, batch > 0 ? static_cast<uint64_t>(std::ceil(options_.fraction * terms / batch)) : 1);
  }
  terms_of_g_ = o.g.DrawnFrom().empty() ? 0 : o.g.DrawnFrom()[0];
  terms_of_f_ = o.f.DrawnFrom().empty() ? 0 : o.f.DrawnFrom()[0];
  directions_[kOfY] = Direction(options_.of_y, true, false);
  directions_[kOfZ] = Direction(options_.of_z, true, true);
  directions_[kOfX] = Direction(options_.of_x, false, true);
  for (Direction& d : directions_) {
    if (!d.has_tables()) continue;
    const int size = &d == &directions_[kOfX] ? s.x.dim() : s.y.dim();
    const int of_g = NumBlocks(o.g, lower_batch()), of_f = NumBlocks(o.f, upper_batch());
    const int a = d.a_is_of_g ? of_g : of_f, b = !d.has_b ? 0 : d.a_is_of_g ? of_f : of_g;
    if (d.kind == kSaga) d.saga_a.Start(a, size), d.saga_b.Start(b, size);
    if (d.kind == kZeroSarah) d.zero_a.Start(a, size), d.zero_b.Start(b, size);
  }
}

// Whether kPage sums over all terms in this iteration.
bool PnpBo::BeginsAnew(const Oracle& o) const {
  if (!Uses(kPage)) return false;
  if (o.iteration == 0 || !options_.tosses_coin) return o.iteration % period_ == 0;
  return o.Draw(1, kP).Term(0, static_cast<int>(period_)) == 0;
}

// What the directions' estimators want of what was just evaluated.
void PnpBo::Read(bool in_full, bool before) {
  const auto read = [&](Direction* d, const SparseVector& a, const SparseVector* b) {
    if (d->in_full != in_full || d->kind == kSgd) return;
    (before ? d->a_before : d->a) = a.dense();
    if (b) (before ? d->b_before : d->b) = b->dense();
  };
  read(&directions_[kOfY], d_.g_y, nullptr);
  read(&directions_[kOfZ], d_.h_z, &d_.f_y);
  read(&directions_[kOfX], d_.f_x, &d_.j_z);
}

void PnpBo::Direction::Estimate(double eta, const Batch& i, const Batch& j) {
  // The entries of tables.
  const int of_a = static_cast<int>((a_is_of_g ? i : j).position);
  const int of_b = static_cast<int>((a_is_of_g ? j : i).position);
  switch (kind) {
    case kSgd:
      return;
    case kSaga:
      u = saga_a.Next(of_a, a);
      if (has_b) u -= saga_b.Next(of_b, b);
      return;
    case kZeroSarah:
      u = zero_a.Next(of_a, a, a_before);
      if (has_b) u -= zero_b.Next(of_b, b, b_before);
      break;
    case kStorm:
    case kPage:
      if (has_b) a -= b;
      if (has_b && begun) a_before -= b_before;
      if (begun) {
        u = a + (kind == kPage ? 1.0 : 1.0 - eta) * (u - a_before);
      } else {
        u = a;
      }
      break;
  }
  begun = true;
}

// The estimates of the directions that are over these samples.
void PnpBo::Estimate(Oracle& o, State& s, bool in_full, const Batch& i, const Batch& j) {
  const Vector& z = s.Get("z", s.y.dim());
  if (std::any_of(directions_.begin(), directions_.end(), [&](const Direction& d) {
        return d.in_full == in_full && d.looks_back();
      })) {
    d_.Evaluate(o, i, j, last_x_, last_y_, last_z_);
    Read(in_full, true);
  }
  Note(d_.Evaluate(o, i, j, s.x, s.y, z));
  if (!o.ok()) return;
  Read(in_full, false);
  const double eta = options_.eta.At(o.iteration);
  for (Direction& d : directions_) {
    if (d.in_full == in_full) d.Estimate(eta, i, j);
  }
}

void PnpBo::Iterate(Oracle& o, State& s) {
  const bool begins_anew = BeginsAnew(o);
  bool all_in_full = true;
  for (Direction& d : directions_) {
    d.in_full = begins_anew && d.kind == kPage;
    if (d.in_full) d.begun = false;
    all_in_full = all_in_full && d.in_full;
  }
  if (begins_anew) Estimate(o, s, true, Batch::All(), Batch::All());
  if (!all_in_full) {
    Batch i = Lower(o, kY), j = Upper(o, kF);
    if (UsesTables()) {
      i = Block(i, terms_of_g_);
      j = Block(j, terms_of_f_);
    }
    Estimate(o, s, false, i, j);
  }
  if (!o.ok()) return;
  Vector& z = s.Get("z", s.y.dim());
  if (Uses(kStorm) || Uses(kPage) || Uses(kZeroSarah)) {
    last_x_ = s.x;
    last_y_ = s.y;
    last_z_ = z;
  }
  const double rho = options_.lower.At(o.iteration);
  const double rho_z = options_.z ? options_.z->At(o.iteration) : rho;
  MoveX(o, s);
  if (options_.of_y == kSgd) {
    MoveY(o, s, rho, &d_.g_y);
  } else {
    MoveY(o, s, rho, directions_[kOfY].u);
  }
  if (options_.of_z == kSgd) {
    MoveZ(rho_z, &d_.h_z, &d_.f_y, &z);
  } else {
    MoveZ(rho_z, directions_[kOfZ].u, &z);
  }
}

// Along the estimate or, with an average, along that of those before.
void PnpBo::MoveX(Oracle& o, State& s) {
  const Vector& u = directions_[kOfX].u;
  const bool is_sampled = options_.of_x == kSgd;
  if (!options_.average) {
    if (!is_sampled) return StochasticMethod::MoveX(o, s, options_.x, u);
    d_.f_x.Add(-1.0, d_.j_z);
    return StochasticMethod::MoveX(o, s, options_.x, d_.f_x);
  }
  Vector& h = s.Get("h", s.x.dim());
  StochasticMethod::MoveX(o, s, options_.x, h);
  const double theta = options_.average->At(o.iteration);
  h *= 1.0 - theta;
  if (is_sampled) {
    d_.f_x.AddTo(theta, &h);
    d_.j_z.AddTo(-theta, &h);
  } else {
    h += theta * u;
  }
}

void PnpBo::RememberOwn(Oracle& oracle, Memory* memory) {
  last_x_.Remember("last_x", oracle.program().x, memory);
  last_y_.Remember("last_y", oracle.program().y, memory);
  memory->Keep("last_z", &last_z_);
  const char* names[] = {"of_y", "of_z", "of_x"};
  for (int k = 0; k < 3; ++k) {
    Direction& d = directions_[k];
    const Memory::Group group(memory, names[k]);
    memory->Keep("begun", &d.begun);
    memory->Keep("u", &d.u);
    d.saga_a.Remember("saga_a", memory);
    d.saga_b.Remember("saga_b", memory);
    d.zero_a.Remember("zero_a", memory);
    d.zero_b.Remember("zero_b", memory);
  }
}

}  // namespace bilevel
