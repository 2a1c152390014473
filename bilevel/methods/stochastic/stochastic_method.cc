#include "bilevel/methods/stochastic/stochastic_method.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/vector_passes.h"
#include "bilevel/base/memory.h"
#include "bilevel/lower_level/block_jacobi.h"
#include "bilevel/lower_level/gauss_newton_metric.h"
#include "bilevel/methods/estimators/bias.h"
#include "bilevel/methods/estimators/curvature.h"

namespace bilevel {
namespace {

constexpr int kNumReports = 100;
// Iterates that have grown by this have diverged.
constexpr double kFar = 1e8;

}  // namespace

std::string CheckBatch(const LevelView& level,
                       const std::string& level_name,
                       std::optional<int> given,
                       Batch::Sampling sampling,
                       const std::string& option) {
  const int size = BatchSize(level, given);
  if (size < 0) return option + " must not be negative (0: all terms)";
  const std::vector<int> sums = level.DrawnFrom();
  const bool stream = std::count(sums.begin(), sums.end(), Objective::kStream) > 0;
  if (size == 0) {
    if (stream) return option + " must be positive: a term of the " + level_name + " is a stream";
    return "";
  }
  if (sums.empty()) {
    return option + " is " + std::to_string(size) + ", but the " + level_name +
           " has no terms to draw from: everything in it is in every batch; use 0";
  }
  for (const int n : sums) {
    if (n == Objective::kStream || size <= n) continue;
    return option + " is " + std::to_string(size) + ", but a sum of the " + level_name + " has " +
           std::to_string(n) + " terms; use 0 for all of them";
  }
  if (stream && sampling != Batch::kIndependent) {
    return "sampling must be kIndependent: a term of the " + level_name + " is a stream";
  }
  if (level.has_importance() && sampling != Batch::kIndependent) {
    return "sampling must be kIndependent: terms of the " + level_name + " have sampling weights";
  }
  return "";
}

int BatchSize(const LevelView& level, std::optional<int> given) {
  constexpr int kDefault = 64;
  if (given) return *given;
  const std::vector<int> sums = level.DrawnFrom();
  const bool stream = std::count(sums.begin(), sums.end(), Objective::kStream) > 0;
  int size = sums.empty() ? 0 : kDefault;
  bool all = !stream;  // A batch of as many terms as there are is better without chance.
  for (const int n : sums) {
    if (n == Objective::kStream) continue;
    size = std::min(size, n);
    all = all && n <= kDefault;
  }
  return all ? 0 : size;
}

int NumBlocks(const LevelView& level, int size) {
  const std::vector<int> sums = level.DrawnFrom();
  if (size == 0 || sums.empty()) return 1;
  for (const int n : sums) {
    if (n == Objective::kStream || n != sums[0]) return 0;
  }
  return Batch::Block(size, 0).NumBlocks(sums[0]);
}

std::string StochasticMethod::Check(const Oracle& oracle) {
  std::string complaint = CheckBatch(
      oracle.g, "lower level", common_.lower_batch, common_.sampling, name_ + ".lower_batch");
  if (complaint.empty()) {
    complaint = CheckBatch(
        oracle.f, "upper level", common_.upper_batch, common_.sampling, name_ + ".upper_batch");
  }
  const Preconditioner preconditioner = common_.preconditioner;
  if (complaint.empty() && preconditioner != Preconditioner::kNone) {
    const bool diagonal = preconditioner == Preconditioner::kBlockJacobi;
    complaint = (diagonal ? BlockJacobi::Check : GaussNewtonMetric::Check)(
        oracle.program(), name_ + ".preconditioner");
    if (complaint.empty() && !(common_.damping > 0.0))
      complaint = name_ + ".damping must be positive";
  }
  const EarlyStopping& early = common_.early_stopping;
  if (complaint.empty() && early.patience < 0) {
    complaint = name_ + ".early_stopping.patience must not be negative";
  }
  const std::vector<int> sums = oracle.f.DrawnFrom();
  if (complaint.empty() && early.patience > 0 && !early.held_out &&
      std::count(sums.begin(), sums.end(), Objective::kStream) > 0) {
    complaint =
        name_ + ".early_stopping.held_out must be given: a term of the upper level is a stream";
  }
  if (complaint.empty() && (common_.precondition_interval < 0 || common_.report_interval < 0)) {
    complaint = name_ + "'s intervals must not be negative";
  }
  return complaint.empty() ? CheckOptions(oracle) : complaint;
}

Method::Outcome StochasticMethod::Minimize(Oracle& o,
                                           State& s,
                                           Monitor* monitor,
                                           std::string* message) {
  start_x_ = s.x;
  start_y_ = s.y;
  lower_batch_ = BatchSize(o.g, common_.lower_batch);
  upper_batch_ = BatchSize(o.f, common_.upper_batch);
  next_.fill(0);
  upper_sum_ = step_norm_ = 0.0;
  num_upper_ = 0;
  const uint64_t last = monitor->max_num_iterations();
  const uint64_t interval = common_.report_interval > 0 ? common_.report_interval
                                                        : std::max<uint64_t>(1, last / kNumReports);
  const int patience = common_.early_stopping.patience;
  double least = std::numeric_limits<double>::infinity();
  long least_at = 0;
  int reports_since = 0;
  const Monitor::Remember remember = [&](Memory* memory) {
    memory->Keep("least", &least);
    memory->Keep("least_at", &least_at);
    memory->Keep("reports_since", &reports_since);
    return Remember(o, memory);
  };
  if (!monitor->Resume(&s, remember)) {
    Prepare(o, s);
    if (o.ok()) Start(o, s);
  }
  const double far_x = kFar * (1.0 + start_x_.value().norm());
  const double far_y = kFar * (1.0 + start_y_.value().norm());
  for (;; ++o.iteration) {
    if (o.ok() && !monitor->Rest(&s, remember)) return Outcome::kNoConvergence;
    const bool report = o.iteration % interval == 0 || o.iteration >= last || o.program().IsLate();
    if (o.ok() && report) {
      if (!(s.x.value().norm() <= far_x && s.y.value().norm() <= far_y)) {
        o.Fail("x or y grows without bound");
      }
    }
    double held_out = Progress::kUnknown;
    if (report && patience > 0) held_out = HeldOut(o, s);
    if (!o.ok()) {
      *message = o.Clear();
      *message += WhyDiverged(o);
      return Outcome::kFailure;
    }
    if (report) {
      Progress progress;
      progress.iteration = static_cast<long>(o.iteration);
      if (num_upper_ > 0) progress.upper_value = upper_sum_ / static_cast<double>(num_upper_);
      if (o.iteration > 0) progress.step_norm = step_norm_;
      progress.y_is_solved = false;
      progress.leave_y = !common_.solve_lower_level;
      progress.keep = Progress::kAlways;
      if (patience > 0) {
        progress.held_out = held_out;
        ++reports_since;
        if (held_out < least) {
          least = held_out;
          least_at = progress.iteration;
          reports_since = 0;
        } else {
          progress.keep = Progress::kNever;
        }
      }
      upper_sum_ = 0.0;
      num_upper_ = 0;
      if (!monitor->Report(s, progress)) return Outcome::kNoConvergence;
      if (patience > 0 && reports_since >= patience) {
        *message = "early stopping: the held-out estimate of phi was least, " + Number(least) +
                   ", in iteration " + std::to_string(least_at) + ", " +
                   std::to_string(reports_since) + " reports ago";
        return Outcome::kConverged;
      }
    }
    const int refresh = metric_ ? common_.precondition_interval : 0;
    if (refresh > 0 && o.iteration > 0 && o.iteration % refresh == 0) ComputeMetric(o, s);
    if (o.ok()) Iterate(o, s);
  }
}

void StochasticMethod::Finish(Oracle& oracle, const State& state, Assessment* assessment) {
  if (!note_.empty()) assessment->notes.push_back(note_);
  if (is_biased() && common_.solve_lower_level) {
    assessment->x_bias = EstimateDistance(oracle, state);
  }
}

void StochasticMethod::ComputeMetric(Oracle& o, const State& s) {
  metric_->Compute(o, s.x, s.y);
  metric_x_ = s.x;
  metric_y_ = s.y;
}

// What follows from the start, options above all, is made of it again.
bool StochasticMethod::Remember(Oracle& o, Memory* memory) {
  const Space &x = o.program().x, &y = o.program().y;
  start_x_.Remember("start_x", x, memory);
  start_y_.Remember("start_y", y, memory);
  State start;
  start.x = start_x_;
  start.y = start_y_;
  if (memory->recalls()) {
    o.iteration = 0;
    Prepare(o, start);
    if (o.ok()) Start(o, start);
  }
  metric_x_.Remember("metric_x", x, memory);
  metric_y_.Remember("metric_y", y, memory);
  if (memory->recalls() && metric_) metric_->Compute(o, metric_x_, metric_y_);
  memory->Keep("next", &next_);
  memory->Keep("upper_sum", &upper_sum_);
  memory->Keep("num_upper", &num_upper_);
  memory->Keep("step_norm", &step_norm_);
  RememberOwn(o, memory);
  return true;
}

// The metric, and the options that are not given: from all terms, but for a level with a stream.
void StochasticMethod::Prepare(Oracle& o, const State& s) {
  metric_.reset();
  if (common_.preconditioner == Preconditioner::kBlockJacobi) {
    metric_ = std::make_unique<BlockJacobi>();
  } else if (common_.preconditioner == Preconditioner::kGaussNewton) {
    metric_ = std::make_unique<GaussNewtonMetric>(common_.damping);
  }
  if (metric_) ComputeMetric(o, s);
  note_.clear();
  if (!o.ok()) return;
  const Batch minibatch = o.Draw(lower_batch_, kNumStreams, 0, common_.sampling);
  const auto all = [](const LevelView& level, const Batch& batch) {
    const std::vector<int> sums = level.DrawnFrom();
    return std::count(sums.begin(), sums.end(), Objective::kStream) > 0 ? batch : Batch::All();
  };
  const Batch lower = all(o.g, minibatch);
  Defaults defaults(&o,
                    lower,
                    all(o.f, o.Draw(upper_batch_, kNumStreams, 0, common_.sampling)),
                    minibatch,
                    s.x,
                    s.y,
                    metric(),
                    common_.solve_lower_level && lower.all());
  FillOptions(&defaults);
  note_ = defaults.Note();
}

// The estimate of phi at the state; what the user's memory holds is put back.
double StochasticMethod::HeldOut(Oracle& o, const State& s) {
  if (!o.ok()) return Progress::kUnknown;
  double value;
  if (!common_.early_stopping.held_out) {
    value = o.f.Value(s.x, s.y);
  } else {
    const Space &x = s.x.space(), &y = s.y.space();
    user_x_ = s.x;
    user_y_ = s.y;
    x.ReadUser(user_x_.value().data());
    y.ReadUser(user_y_.value().data());
    x.WriteUser(s.x.value().data());
    y.WriteUser(s.y.value().data());
    value = common_.early_stopping.held_out();
    x.WriteUser(user_x_.value().data());
    y.WriteUser(user_y_.value().data());
  }
  if (o.ok() && !std::isfinite(value)) o.Fail("the held-out estimate of phi is not finite");
  return value;
}

// Whether y's or z's step is above the limit of the start.
std::string StochasticMethod::WhyDiverged(Oracle& o) {
  constexpr int kProducts = 20;
  Batch batch = Batch::All();
  const std::vector<int> sums = o.g.DrawnFrom();
  if (std::count(sums.begin(), sums.end(), Objective::kStream) > 0) {
    batch = o.Draw(lower_batch_, kY, 0, common_.sampling);
  }
  const Curvature curvature = EstimateCurvature(o, batch, start_x_, start_y_, metric(), kProducts);
  if (!o.Clear().empty() || !(curvature.largest > 0.0)) return "";
  const double limit = 2.0 / curvature.largest, step = LongestLowerStep();
  char text[200];
  std::snprintf(text,
                sizeof(text),
                "; the longest step of y and z, %g, is %s the limit of stability 2 / L = %g at the "
                "start%s",
                step,
                step > limit ? "above" : "below",
                limit,
                step > limit ? "" : ": a minibatch may have a larger L, or x's steps are too long");
  return text;
}

void StochasticMethod::MoveY(Oracle& o, State& s, double step, SparseVector* d) {
  if (!o.ok()) return;
  if (metric_) metric_->Apply(d);
  if (!s.y.MoveWithin(-step, *d)) o.Fail("y is no longer finite, or its manifold failed");
}

void StochasticMethod::MoveY(Oracle& o, State& s, double step, const Vector& d) {
  if (!o.ok()) return;
  dense_ = d;
  if (metric_) metric_->Apply(&dense_);
  if (!s.y.MoveWithin(-step * dense_)) o.Fail("y is no longer finite, or its manifold failed");
}

void StochasticMethod::MoveZ(double step, SparseVector* d, SparseVector* e, Vector* v) {
  if (metric_) {
    metric_->Apply(d);
    metric_->Apply(e);
  }
  const auto is_dense = [&](const SparseVector& sparse) {
    return sparse.blocks().size() == 1 && sparse.IsWhole(sparse.blocks()[0]) &&
           sparse.space().blocks().size() == 1;
  };
  if (is_dense(*d) && is_dense(*e)) {
    return AddDifference(step, e->data(), d->data(), static_cast<int>(v->size()), v->data());
  }
  d->AddTo(-step, v);
  e->AddTo(step, v);
}

void StochasticMethod::MoveZ(double step, const Vector& d, Vector* v) {
  dense_ = d;
  if (metric_) metric_->Apply(&dense_);
  *v -= step * dense_;
}

void StochasticMethod::NoteStep(Oracle& o, double length) {
  if (length < 0.0) o.Fail("x is no longer finite, or its manifold failed");
  step_norm_ = length;
}

void StochasticMethod::MoveX(Oracle& o, State& s, const StepRule& rule, const SparseVector& d) {
  if (!o.ok()) return;
  if (rule.kind != StepRule::kGradient) return MoveX(o, s, rule, d.dense());
  const double eta = rule.At(o.iteration);
  NoteStep(o, s.x.Move(-eta, d) ? eta * std::sqrt(d.squaredNorm()) : -1.0);
}

void StochasticMethod::MoveX(Oracle& o, State& s, const StepRule& rule, const Vector& d) {
  if (!o.ok()) return;
  NoteStep(o, rule.Apply(d, "x", o.iteration, &s, &s.x));
}

void StochasticMethod::LowerSteps(Oracle& o, State& s, int num_steps, double step) {
  for (int t = 0; t < num_steps && o.ok(); ++t) {
    o.g(Lower(o, kY)).Gradient(s.x, s.y, nullptr, &gy_);
    MoveY(o, s, step, &gy_);
  }
}

}  // namespace bilevel
