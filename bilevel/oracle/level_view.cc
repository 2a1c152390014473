#include "bilevel/oracle/level_view.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/oracle/internal/per_scenario.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/terms/objective.h"

namespace bilevel {
FunctionCounts& LevelView::counts() { return upper_ ? oracle_->f_counts_ : oracle_->g_counts_; }

const LevelFunction& LevelView::LevelOf(const Program::Scenario& scenario) const {
  return upper_ ? *scenario.f : *scenario.g;
}

// Whether any scenario's level is so.
template <typename Is>
bool LevelView::Any(Is is) const {
  const auto& parts = oracle_->parts_;
  return oracle_->program_->exchange.Any(std::any_of(
      parts.begin(), parts.end(), [&](const auto& part) { return is(LevelOf(*part->scenario)); }));
}

std::vector<int> LevelView::DrawnFrom() const {
  std::vector<std::string> own;
  for (const auto& part : oracle_->parts_) {
    const std::vector<int> sizes = LevelOf(*part->scenario).DrawnFrom();
    own.emplace_back(reinterpret_cast<const char*>(sizes.data()), sizes.size() * sizeof(int));
  }
  std::vector<int> all;
  for (const std::string& part : oracle_->program_->exchange.Texts("counting terms", own)) {
    const size_t size = all.size();
    all.resize(size + part.size() / sizeof(int));
    std::copy(part.begin(), part.end(), reinterpret_cast<char*>(all.data() + size));
  }
  return all;
}

long LevelView::num_terms() const {
  Matrix own(1, oracle_->parts_.size());
  for (size_t k = 0; k < oracle_->parts_.size(); ++k) {
    own(0, k) =
        static_cast<double>(LevelOf(*oracle_->parts_[k]->scenario).NumSamples(Batch::All()));
  }
  return static_cast<long>(
      oracle_->program_->exchange.Columns("counting terms", nullptr, own).sum());
}

double LevelView::Epochs(const FunctionCounts& counts) const {
  std::optional<long>& n = oracle_->num_epoch_terms_[upper_];
  if (!n) {
    const std::vector<int> sums = DrawnFrom();
    n = std::count(sums.begin(), sums.end(), Objective::kStream) > 0 ? -1 : num_terms();
  }
  if (*n < 0) return kNaN;
  return *n > 0 ? static_cast<double>(counts.samples) / static_cast<double>(*n) : 0.0;
}

bool LevelView::has_importance() const {
  return Any([](const LevelFunction& level) { return level.has_importance(); });
}

double LevelView::WeightOf(const Program::Scenario& scenario) const {
  return upper_ ? oracle_->used_scale_ * scenario.weight : 1.0;
}

// body(part, evaluator, weight) returns false where the evaluator failed.
template <typename Body>
bool LevelView::ForEachPart(Body body) {
  const auto [first, count] = oracle_->UsedParts();
  for (int k = first; k < first + count && oracle_->ok(); ++k) {
    Oracle::PerScenario& part = *oracle_->parts_[k];
    LevelEvaluator& evaluator = upper_ ? part.f : part.g;
    counts().samples += LevelOf(*part.scenario).NumSamples(batch_);
    if (!body(part, evaluator, WeightOf(*part.scenario))) oracle_->Fail(evaluator.error());
  }
  return oracle_->ok();
}

// evaluate(part, evaluator) for all scenarios on the program's threads; then their values and
// gradients in x are added in the order of scenarios, wherever they were evaluated. A scenario
// alone has the threads to itself. in_x, in_y may be nullptr.
template <typename Evaluate>
bool LevelView::Sum(const Point& x, Evaluate evaluate, double* sum, Vector* in_x, Vector* in_y) {
  if (!oracle_->ok()) return false;
  const auto [first, count] = oracle_->UsedParts();
  const auto run = [&, begin = first](int, int i) {
    Oracle::PerScenario& part = *oracle_->parts_[begin + i];
    part.evaluated = evaluate(part, upper_ ? part.f : part.g);
  };
  if (count == 1) run(0, 0);
  if (count > 1) oracle_->program_->pool.ParallelFor(count, 1, std::ref(run));
  if (!oracle_->program_->exchange.is_alone()) return SumOverRanks(x, sum, in_x, in_y);
  return ForEachPart([&](Oracle::PerScenario& part, LevelEvaluator&, double weight) {
    if (!part.evaluated) return false;
    *sum += weight * part.value;
    if (in_x) *in_x += weight * part.gx;
    if (in_y && weight != 1.0) {
      in_y->segment(part.scenario->tangent_offset, part.scenario->y.tangent_size()) *= weight;
    }
    return true;
  });
}

// Each scenario draws its own.
Batch LevelView::BatchOf(int scenario) const {
  Batch batch = batch_;
  if (scenario > 0) batch.seed = Mix(batch.seed + static_cast<uint64_t>(scenario) * 0x5851F42Dull);
  return batch;
}

double LevelView::Value(const Point& x, const Point& y) {
  ++counts().values;
  double sum = 0.0;
  const bool ok = Sum(
      x,
      [&](Oracle::PerScenario& part, LevelEvaluator& evaluator) {
        return evaluator.Value(x.value().data(),
                               y.value().data() + part.scenario->offset,
                               BatchOf(part.index),
                               &part.value);
      },
      &sum,
      nullptr,
      nullptr);
  return ok ? sum : kNaN;
}

double LevelView::Gradient(const Point& x, const Point& y, Vector* gx, Vector* gy) {
  ++counts().gradients;
  if (gx) gx->setZero(x.dim());
  if (gy) gy->resize(y.dim());
  if (gy && oracle_->uses_scenario_batch()) gy->setZero();
  double sum = 0.0;
  const bool ok = Sum(
      x,
      [&](Oracle::PerScenario& part, LevelEvaluator& evaluator) {
        return evaluator.Gradient(x.value().data(),
                                  y.value().data() + part.scenario->offset,
                                  BatchOf(part.index),
                                  &part.value,
                                  gx ? part.gx.data() : nullptr,
                                  gy ? gy->data() + part.scenario->tangent_offset : nullptr);
      },
      &sum,
      gx,
      gy);
  return ok ? sum : kNaN;
}

void LevelView::HessianProduct(
    const Point& x, const Point& y, const Vector& v, Vector* yy_v, Vector* xy_v) {
  ++counts().products;
  yy_v->resize(y.dim());
  if (oracle_->uses_scenario_batch()) yy_v->setZero();
  if (xy_v) xy_v->setZero(x.dim());
  double unused = 0.0;
  Sum(
      x,
      [&](Oracle::PerScenario& part, LevelEvaluator& evaluator) {
        const int at = part.scenario->tangent_offset;
        part.value = 0.0;
        return evaluator.HessianProduct(x.value().data(),
                                        y.value().data() + part.scenario->offset,
                                        BatchOf(part.index),
                                        v.data() + at,
                                        yy_v->data() + at,
                                        xy_v ? part.gx.data() : nullptr);
      },
      &unused,
      xy_v,
      yy_v);
}

// evaluate(evaluator, batch, x, y, offset, weight's outputs): one scenario's, added at what it
// touches.
template <typename Evaluate>
double LevelView::ForEachSparsePart(const Point& x,
                                    const Point& y,
                                    SparseVector* in_x,
                                    SparseVector* in_y,
                                    SparseVector* more_in_y,
                                    Evaluate evaluate) {
  if (in_x) in_x->SetZero(&x.space());
  if (in_y) in_y->SetZero(&y.space());
  if (more_in_y) more_in_y->SetZero(&y.space());
  double sum = 0.0;
  const bool ok =
      ForEachPart([&](Oracle::PerScenario& part, LevelEvaluator& evaluator, double weight) {
        const int at = part.scenario->tangent_offset;
        double value = 0.0;
        if (in_x) part.in_x.SetZero(&x.space());
        evaluator.SetSparse(true);
        const bool evaluated = evaluate(evaluator,
                                        BatchOf(part.index),
                                        x.value().data(),
                                        y.value().data() + part.scenario->offset,
                                        at,
                                        &value,
                                        in_x ? part.in_x.data() : nullptr,
                                        in_y ? in_y->data() + at : nullptr,
                                        more_in_y ? more_in_y->data() + at : nullptr);
        evaluator.SetSparse(false);
        if (in_x) {
          for (const int b : evaluator.touched_x()) part.in_x.Touch(b);
          for (const SparseVector::Range& r : evaluator.touched_parts_of_x()) part.in_x.Touch(r);
          in_x->Add(weight, part.in_x);
        }
        for (SparseVector* in : {in_y, more_in_y}) {
          if (!in) continue;
          for (const int b : evaluator.touched_y()) {
            in->Touch(part.first_block + b);
            if (weight == 1.0) continue;
            const Space::Block& block = y.space().blocks()[part.first_block + b];
            Eigen::Map<Vector>(in->data() + block.tangent_offset, block.tangent_size) *= weight;
          }
        }
        sum += weight * value;
        return evaluated;
      });
  return ok ? sum : kNaN;
}

double LevelView::Gradient(const Point& x, const Point& y, SparseVector* gx, SparseVector* gy) {
  ++counts().gradients;
  return ForEachSparsePart(x,
                           y,
                           gx,
                           gy,
                           nullptr,
                           [](LevelEvaluator& e,
                              const Batch& batch,
                              const double* px,
                              const double* py,
                              int,
                              double* value,
                              double* in_x,
                              double* in_y,
                              double*) { return e.Gradient(px, py, batch, value, in_x, in_y); });
}

void LevelView::HessianProduct(
    const Point& x, const Point& y, const Vector& v, SparseVector* yy_v, SparseVector* xy_v) {
  ++counts().products;
  ForEachSparsePart(
      x,
      y,
      xy_v,
      yy_v,
      nullptr,
      [&](LevelEvaluator& e,
          const Batch& batch,
          const double* px,
          const double* py,
          int at,
          double*,
          double* in_x,
          double* in_y,
          double*) { return e.HessianProduct(px, py, batch, v.data() + at, in_y, in_x); });
}

double LevelView::GradientAndProduct(const Point& x,
                                     const Point& y,
                                     const Vector& v,
                                     SparseVector* gy,
                                     SparseVector* yy_v,
                                     SparseVector* xy_v) {
  ++counts().gradients;
  ++counts().products;
  return ForEachSparsePart(x,
                           y,
                           xy_v,
                           yy_v,
                           gy,
                           [&](LevelEvaluator& e,
                               const Batch& batch,
                               const double* px,
                               const double* py,
                               int at,
                               double* value,
                               double* in_x,
                               double* in_y,
                               double* more_in_y) {
                             return e.GradientAndProduct(
                                 px, py, batch, v.data() + at, value, more_in_y, in_y, in_x);
                           });
}

bool LevelView::CanLinearize() const {
  return !Any([](const LevelFunction& level) { return !level.CanLinearize(); });
}

bool LevelView::IsLeastSquares() const {
  return !Any([](const LevelFunction& level) { return !level.IsLeastSquares(); });
}

bool LevelView::ResidualsUseY() const {
  return Any([](const LevelFunction& level) { return level.ResidualsUseY(); });
}

double LevelView::Linearize(
    const Point& x, const Point& y, const Matrix& dy_dx, Vector* r, Matrix* j) {
  ++counts().linearizations;
  int rows = 0;
  for (const auto& part : oracle_->parts_) {
    rows += LevelOf(*part->scenario).num_residuals();
  }
  r->resize(rows);
  j->resize(rows, x.dim());
  int row = 0;
  double sum = 0.0;
  const auto add = [&](Oracle::PerScenario& part, LevelEvaluator& evaluator, double weight) {
    if (!evaluator.Linearize(x.value().data(),
                             y.value().data() + part.scenario->offset,
                             &part.value,
                             &part.r,
                             &part.jx,
                             &part.jy)) {
      return false;
    }
    sum += weight * part.value;
    const int size = static_cast<int>(part.r.size());
    const double root = std::sqrt(weight);
    r->segment(row, size) = root * part.r;
    j->middleRows(row, size) = root * part.jx;
    j->middleRows(row, size) +=
        root * (part.jy *
                dy_dx.middleRows(part.scenario->tangent_offset, part.scenario->y.tangent_size()));
    row += size;
    return true;
  };
  if (oracle_->program_->exchange.is_alone()) return ForEachPart(add) ? sum : kNaN;
  if (!oracle_->ok()) return kNaN;
  for (auto& part : oracle_->parts_) {
    LevelEvaluator& evaluator = upper_ ? part->f : part->g;
    part->evaluated = add(*part, evaluator, WeightOf(*part->scenario));
    if (!part->evaluated) row += LevelOf(*part->scenario).num_residuals();
  }
  return JoinRows(&sum, r, j) ? sum : kNaN;
}

// body(scenario, lower triangle of its Gauss-Newton Hessian in y, weight).
template <typename Body>
void LevelView::ForEachHessian(const Point& x, const Point& y, Body body) {
  ++counts().linearizations;
  ForEachPart([&](Oracle::PerScenario& part, LevelEvaluator& evaluator, double weight) {
    SparseMatrix& yy = part.yy[upper_];
    if (yy.rows() == 0) yy = LevelOf(*part.scenario).yy_pattern();
    const bool ok = evaluator.Hessian(x.value().data(),
                                      y.value().data() + part.scenario->offset,
                                      HessianKind::kGaussNewton,
                                      nullptr,
                                      nullptr,
                                      &yy,
                                      nullptr);
    if (ok) body(*part.scenario, yy, weight);
    return ok;
  });
}

void LevelView::HessianBlocks(const Point& x, const Point& y, Vector* blocks) {
  int size = 0;
  for (const Space::Block& block : y.space().blocks()) {
    size += block.tangent_size * block.tangent_size;
  }
  blocks->resize(size);
  double* to = blocks->data();
  ForEachHessian(
      x, y, [&](const Program::Scenario& scenario, const SparseMatrix& yy, double weight) {
        // In the lower triangle a column of a diagonal block begins at the diagonal.
        for (const Space::Block& block : scenario.y.blocks()) {
          const int t = block.tangent_size;
          for (int j = 0; j < t; ++j) {
            const double* column = yy.valuePtr() + yy.outerIndexPtr()[block.tangent_offset + j];
            for (int i = j; i < t; ++i) to[i * t + j] = to[j * t + i] = weight * column[i - j];
          }
          to += t * t;
        }
      });
}

void LevelView::GaussNewtonHessian(const Point& x, const Point& y, SparseMatrix* lower) {
  std::vector<Eigen::Triplet<double>> entries;
  ForEachHessian(
      x, y, [&](const Program::Scenario& scenario, const SparseMatrix& yy, double weight) {
        for (int j = 0; j < yy.outerSize(); ++j) {
          for (SparseMatrix::InnerIterator it(yy, j); it; ++it) {
            entries.emplace_back(static_cast<int>(it.row()) + scenario.tangent_offset,
                                 j + scenario.tangent_offset,
                                 weight * it.value());
          }
        }
      });
  lower->resize(y.dim(), y.dim());
  lower->setFromTriplets(entries.begin(), entries.end());
}

}  // namespace bilevel
