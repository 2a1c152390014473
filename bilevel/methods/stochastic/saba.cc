#include "bilevel/methods/stochastic/saba.h"

#include "bilevel/base/memory.h"

namespace bilevel {
namespace {

// The number of a drawn block.
int Entry(const Batch& batch, int num_terms) {
  return batch.all() ? 0 : batch.First(num_terms) / batch.size;
}

}  // namespace

std::string Saba::CheckOptions(const Oracle& oracle) const {
  if (given_.sampling != Batch::kBlocks && given_.sampling != Batch::kShuffledBlocks) {
    return "saba.sampling must be kBlocks or kShuffledBlocks: its tables are by block";
  }
  for (const auto& [level, size] : {std::make_pair(&oracle.g, given_.lower_batch),
                                    std::make_pair(&oracle.f, given_.upper_batch)}) {
    if (NumBlocks(*level, BatchSize(*level, size)) > 0) continue;
    return "saba needs a finite sum of one length in each level for its tables";
  }
  const std::string complaint = CheckGiven(given_.lower, "saba.lower");
  return complaint.empty() ? CheckGiven(given_.x, "saba.x") : complaint;
}

double Saba::TableBytes(const Oracle& o) const {
  const double m = o.program().x.tangent_size(), n = o.program().y.tangent_size();
  return 8.0 * (NumBlocks(o.g, BatchSize(o.g, given_.lower_batch)) * (2.0 * n + m) +
                NumBlocks(o.f, BatchSize(o.f, given_.upper_batch)) * (m + n));
}

void Saba::FillOptions(Defaults* defaults) {
  options_ = given_;
  defaults->Fill("lower.step", &options_.lower.step, [&] { return defaults->LowerStep() / 3.0; });
  defaults->FillSteps({{"lower", &options_.lower}}, 1, {"x", &options_.x});
}

void Saba::Start(Oracle& o, State& s) {
  const int m = s.x.dim(), n = s.y.dim();
  lower_.Start(NumBlocks(o.g, lower_batch()), 2 * n + m);
  upper_.Start(NumBlocks(o.f, upper_batch()), m + n);
  lower_terms_ = lower_batch() > 0 ? o.g.DrawnFrom()[0] : 0;
  upper_terms_ = upper_batch() > 0 ? o.f.DrawnFrom()[0] : 0;
  g_.resize(2 * n + m);
  f_.resize(m + n);
}

void Saba::Iterate(Oracle& o, State& s) {
  const int m = s.x.dim(), n = s.y.dim();
  Vector& z = s.Get("z", n);
  const int i = Entry(Lower(o, kY), lower_terms_), j = Entry(Upper(o, kF), upper_terms_);
  Note(d_.Evaluate(o, Batch::Block(lower_batch(), i), Batch::Block(upper_batch(), j), s.x, s.y, z));
  if (!o.ok()) return;
  g_ << d_.g_y.dense(), d_.h_z.dense(), d_.j_z.dense();
  f_ << d_.f_x.dense(), d_.f_y.dense();
  const Vector& g = lower_.Next(i, g_);
  const Vector& f = upper_.Next(j, f_);
  const double rho = options_.lower.At(o.iteration);
  d_y_ = g.head(n);
  MoveY(o, s, rho, d_y_);
  d_z_ = g.segment(n, n) - f.tail(n);
  MoveZ(rho, d_z_, &z);
  d_x_ = f.head(m) - g.tail(m);
  MoveX(o, s, options_.x, d_x_);
}

void Saba::RememberOwn(Oracle& /*oracle*/, Memory* memory) {
  lower_.Remember("lower_table", memory);
  upper_.Remember("upper_table", memory);
}

}  // namespace bilevel
