#include "bilevel/oracle/level_view.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/oracle/internal/per_scenario.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/terms/objective.h"

namespace bilevel {
namespace {}  // namespace

FunctionCounts& LevelView::counts() { return upper_ ? oracle_->f_counts_ : oracle_->g_counts_; }

const LevelFunction& LevelView::LevelOf(const Program::Scenario& scenario) const {
  return upper_ ? *scenario.f : *scenario.g;
}

std::vector<int> LevelView::DrawnFrom() const {
  std::vector<int> sizes;
  for (const auto& part : oracle_->parts_) {
    const std::vector<int> own = LevelOf(*part->scenario).DrawnFrom();
    sizes.insert(sizes.end(), own.begin(), own.end());
  }
  return sizes;
}

long LevelView::num_terms() const {
  long sum = 0;
  for (const auto& part : oracle_->parts_) sum += LevelOf(*part->scenario).NumSamples(Batch::All());
  return sum;
}

double LevelView::Epochs(const FunctionCounts& counts) const {
  const std::vector<int> sums = DrawnFrom();
  if (std::count(sums.begin(), sums.end(), Objective::kStream) > 0) return kNaN;
  const long n = num_terms();
  return n > 0 ? static_cast<double>(counts.samples) / static_cast<double>(n) : 0.0;
}

bool LevelView::has_importance() const {
  for (const auto& part : oracle_->parts_) {
    if (LevelOf(*part->scenario).has_importance()) return true;
  }
  return false;
}

// body(part, evaluator, weight) returns false where the evaluator failed.
template <typename Body>
bool LevelView::ForEachPart(Body body) {
  for (auto& part : oracle_->parts_) {
    if (!oracle_->ok()) return false;
    const int place = part->index - oracle_->first_used_;
    if (oracle_->num_used_ >= 0 && (place < 0 || place >= oracle_->num_used_)) continue;
    LevelEvaluator& evaluator = upper_ ? part->f : part->g;
    counts().samples += LevelOf(*part->scenario).NumSamples(batch_);
    if (!body(*part, evaluator, upper_ ? oracle_->used_scale_ * part->scenario->weight : 1.0)) {
      oracle_->Fail(evaluator.error());
    }
  }
  return oracle_->ok();
}

// evaluate(part, evaluator) for all scenarios on the program's threads, then add(part, weight) in
// their order. A scenario alone has the threads to itself.
template <typename Evaluate, typename Add>
bool LevelView::EvaluateParts(Evaluate evaluate, Add add) {
  if (!oracle_->ok()) return false;
  auto& parts = oracle_->parts_;
  const bool all = !oracle_->uses_scenario_batch();
  const int n = all ? static_cast<int>(parts.size()) : oracle_->num_used_;
  const int first = all ? 0 : oracle_->first_used_;
  const auto run = [&](int, int i) {
    Oracle::PerScenario& part = *parts[first + i];
    part.evaluated = evaluate(part, upper_ ? part.f : part.g);
  };
  if (n == 1) run(0, 0);
  if (n > 1) oracle_->program_->pool.ParallelFor(n, 1, std::ref(run));
  return ForEachPart([&](Oracle::PerScenario& part, LevelEvaluator&, double weight) {
    if (part.evaluated) add(part, weight);
    return part.evaluated;
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
  const bool ok = EvaluateParts(
      [&](Oracle::PerScenario& part, LevelEvaluator& evaluator) {
        return evaluator.Value(x.value().data(),
                               y.value().data() + part.scenario->offset,
                               BatchOf(part.index),
                               &part.value);
      },
      [&](Oracle::PerScenario& part, double weight) { sum += weight * part.value; });
  return ok ? sum : kNaN;
}

double LevelView::Gradient(const Point& x, const Point& y, Vector* gx, Vector* gy) {
  ++counts().gradients;
  if (gx) gx->setZero(x.dim());
  if (gy) gy->resize(y.dim());
  if (gy && oracle_->uses_scenario_batch()) gy->setZero();
  double sum = 0.0;
  const bool ok = EvaluateParts(
      [&](Oracle::PerScenario& part, LevelEvaluator& evaluator) {
        return evaluator.Gradient(x.value().data(),
                                  y.value().data() + part.scenario->offset,
                                  BatchOf(part.index),
                                  &part.value,
                                  gx ? part.gx.data() : nullptr,
                                  gy ? gy->data() + part.scenario->tangent_offset : nullptr);
      },
      [&](Oracle::PerScenario& part, double weight) {
        sum += weight * part.value;
        if (gx) *gx += weight * part.gx;
        if (gy && weight != 1.0) {
          gy->segment(part.scenario->tangent_offset, part.scenario->y.tangent_size()) *= weight;
        }
      });
  return ok ? sum : kNaN;
}

void LevelView::HessianProduct(
    const Point& x, const Point& y, const Vector& v, Vector* yy_v, Vector* xy_v) {
  ++counts().products;
  yy_v->resize(y.dim());
  if (oracle_->uses_scenario_batch()) yy_v->setZero();
  if (xy_v) xy_v->setZero(x.dim());
  EvaluateParts(
      [&](Oracle::PerScenario& part, LevelEvaluator& evaluator) {
        const int at = part.scenario->tangent_offset;
        return evaluator.HessianProduct(x.value().data(),
                                        y.value().data() + part.scenario->offset,
                                        BatchOf(part.index),
                                        v.data() + at,
                                        yy_v->data() + at,
                                        xy_v ? part.gx.data() : nullptr);
      },
      [&](Oracle::PerScenario& part, double weight) {
        if (xy_v) *xy_v += weight * part.gx;
        if (weight == 1.0) return;
        yy_v->segment(part.scenario->tangent_offset, part.scenario->y.tangent_size()) *= weight;
      });
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
  for (const auto& part : oracle_->parts_) {
    if (!LevelOf(*part->scenario).CanLinearize()) return false;
  }
  return true;
}

bool LevelView::IsLeastSquares() const {
  for (const auto& part : oracle_->parts_) {
    if (!LevelOf(*part->scenario).IsLeastSquares()) return false;
  }
  return true;
}

bool LevelView::ResidualsUseY() const {
  for (const auto& part : oracle_->parts_) {
    if (LevelOf(*part->scenario).ResidualsUseY()) return true;
  }
  return false;
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
  const bool ok =
      ForEachPart([&](Oracle::PerScenario& part, LevelEvaluator& evaluator, double weight) {
        double value = 0.0;
        if (!evaluator.Linearize(x.value().data(),
                                 y.value().data() + part.scenario->offset,
                                 &value,
                                 &part.r,
                                 &part.jx,
                                 &part.jy)) {
          return false;
        }
        sum += weight * value;
        const int size = static_cast<int>(part.r.size());
        const double root = std::sqrt(weight);
        r->segment(row, size) = root * part.r;
        j->middleRows(row, size) = root * part.jx;
        j->middleRows(row, size) +=
            root * (part.jy * dy_dx.middleRows(part.scenario->tangent_offset,
                                               part.scenario->y.tangent_size()));
        row += size;
        return true;
      });
  return ok ? sum : kNaN;
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
