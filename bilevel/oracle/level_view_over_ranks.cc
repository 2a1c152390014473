// What ranks have evaluated of their scenarios, handed on and added in the order of all.
#include <cstring>
#include <string>
#include <vector>

#include "bilevel/oracle/internal/per_scenario.h"
#include "bilevel/oracle/level_view.h"
#include "bilevel/oracle/oracle.h"

namespace bilevel {
namespace {

constexpr int kInFront = 4;  // Whether it was evaluated, samples, weight, value.

}  // namespace

// Of the scenario at that place among those in use; empty where it is another rank's.
std::string LevelView::ErrorOf(int place) const {
  const int index = place + (oracle_->uses_scenario_batch() ? oracle_->first_used_ : 0);
  for (const auto& part : oracle_->parts_) {
    if (part->index == index) {
      return oracle_->program_->exchange.Signed((upper_ ? part->f : part->g).error());
    }
  }
  return "";
}

// As Sum adds, where other ranks have evaluated theirs.
bool LevelView::SumOverRanks(const Point& x, double* sum, Vector* in_x, Vector* in_y) {
  const auto [first, count] = oracle_->UsedParts();
  Matrix own(kInFront + (in_x ? x.dim() : 0), count);
  for (int k = 0; k < count; ++k) {
    Oracle::PerScenario& part = *oracle_->parts_[first + k];
    const double weight = WeightOf(*part.scenario);
    const long samples = LevelOf(*part.scenario).NumSamples(batch_);
    own.col(k).head(kInFront) << part.evaluated, static_cast<double>(samples), weight, part.value;
    if (in_x) own.col(k).tail(x.dim()) = part.gx;
    if (in_y && weight != 1.0) {
      in_y->segment(part.scenario->tangent_offset, part.scenario->y.tangent_size()) *= weight;
    }
  }
  const Exchange exchange = oracle_->UsedExchange();
  const Matrix all =
      exchange.Columns(upper_ ? "at the upper level" : "at the lower level", &x.value(), own);
  for (int s = 0; s < all.cols(); ++s) {
    counts().samples += static_cast<long>(all(1, s));
    if (all(0, s) == 0.0) {
      oracle_->Fail(exchange.FromOwner(s, ErrorOf(s)));
      return false;
    }
    *sum += all(2, s) * all(3, s);
    if (in_x) *in_x += all(2, s) * all.col(s).tail(x.dim());
  }
  return true;
}

// Of all ranks' scenarios, in their order: their rows, until one of them was not evaluated.
bool LevelView::JoinRows(double* sum, Vector* r, Matrix* j) {
  const int m = static_cast<int>(j->cols());
  const Exchange& exchange = oracle_->program_->exchange;
  std::vector<std::string> own;
  int row = 0;
  for (const auto& part : oracle_->parts_) {
    const LevelFunction& level = LevelOf(*part->scenario);
    const int size = level.num_residuals();
    Vector share(kInFront + size * (m + 1));
    share.head(kInFront) << part->evaluated, static_cast<double>(level.NumSamples(batch_)),
        WeightOf(*part->scenario), part->value;
    share.segment(kInFront, size) = r->segment(row, size);
    share.tail(size * m) = j->middleRows(row, size).reshaped();
    own.emplace_back(reinterpret_cast<const char*>(share.data()), share.size() * sizeof(double));
    row += size;
  }
  const std::vector<std::string> all = exchange.Texts("linearising", own);
  size_t bytes = 0;
  for (const std::string& share : all) bytes += share.size();
  const int num_rows = static_cast<int>((bytes / sizeof(double) - kInFront * all.size()) / (m + 1));
  r->resize(num_rows);
  j->resize(num_rows, m);
  *sum = 0.0;
  row = 0;
  for (size_t s = 0; s < all.size(); ++s) {
    Vector share(all[s].size() / sizeof(double));
    std::memcpy(share.data(), all[s].data(), all[s].size());
    counts().samples += static_cast<long>(share[1]);
    if (share[0] == 0.0) {
      oracle_->Fail(exchange.FromOwner(static_cast<int>(s), ErrorOf(static_cast<int>(s))));
      return false;
    }
    *sum += share[2] * share[3];
    const int size = static_cast<int>(share.size() - kInFront) / (m + 1);
    r->segment(row, size) = share.segment(kInFront, size);
    j->middleRows(row, size) = share.tail(size * m).reshaped(size, m);
    row += size;
  }
  return true;
}

}  // namespace bilevel
