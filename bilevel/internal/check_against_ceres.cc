#include "bilevel/internal/check_against_ceres.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <typeindex>
#include <typeinfo>
#include <utility>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/base/internal/vector_passes.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {
namespace {

// A recorded residual may differ by this share of the block's largest, and by what moving the
// arguments by so much explains.
constexpr double kShare = 1e-6, kNoise = 1e-8;
// How far beside the user's values costs are compared, and by how much they may differ.
constexpr double kBeside = 1e-3, kCostShare = 1e-6, kSmallest = 1e-12;

using Residual = LevelFunction::Residual;
using Argument = LevelFunction::Argument;

// A residual block's arguments, and its residuals there by either way.
class Block {
 public:
  Block(const LevelFunction& level, const Residual& r, const double* x, const double* y)
      : cost_(*r.cost), taped_(*r.taped), values_(r.ambient_size), evaluated_(r.num_residuals) {
    double* value = values_.data();
    for (int k = r.first; k < r.first + r.num_arguments; ++k) {
      const Argument& a = level.arguments()[k];
      const double* from =
          a.kind == Argument::kConstant ? a.constant : (a.kind == Argument::kX ? x : y) + a.offset;
      blocks_.push_back(value);
      value = std::copy_n(from, a.size, value);
    }
    recorded_ = beside_ = evaluated_;
  }

  // Whether it is recorded as it is evaluated. What cannot be evaluated is others' to complain of.
  bool IsRecorded() {
    if (!Evaluate(&evaluated_)) return true;
    if (!Record() || !AllFinite(recorded_.data(), static_cast<int>(recorded_.size()))) return false;
    for (double& value : values_) value += kNoise * (1.0 + std::abs(value));
    const bool has_noise = Evaluate(&beside_);
    double largest = 0.0;
    for (const double value : evaluated_) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < evaluated_.size(); ++i) {
      const double noise = has_noise ? std::abs(beside_[i] - evaluated_[i]) : 0.0;
      if (!(std::abs(recorded_[i] - evaluated_[i]) <= kShare * largest + noise)) return false;
    }
    return true;
  }

 private:
  bool Evaluate(std::vector<double>* residuals) {
    return cost_.Evaluate(blocks_.data(), residuals->data(), nullptr) &&
           AllFinite(residuals->data(), static_cast<int>(residuals->size()));
  }
  bool Record() {
    internal::Recording recording(
        blocks_.data(), cost_.parameter_block_sizes(), cost_.num_residuals());
    if (!taped_.Record(&recording)) return false;
    recording.Values(recorded_.data());
    return true;
  }

  const ceres::CostFunction& cost_;
  const TapedCostFunction& taped_;
  std::vector<double> values_, evaluated_, recorded_, beside_;
  std::vector<const double*> blocks_;
};

std::string CheckRecordings(const LevelFunction& level,
                            const double* x,
                            const double* y,
                            bool every_block) {
  std::set<std::type_index> seen;
  for (const Residual& r : level.residuals()) {
    if (!r.taped) continue;
    if (!every_block && !seen.insert(std::type_index(typeid(*r.cost))).second) continue;
    bool is_recorded = true;
    const std::string thrown = Thrown([&] { is_recorded = Block(level, r, x, y).IsRecorded(); });
    if (is_recorded && thrown.empty()) continue;
    const std::string name =
        "residual block " + std::to_string(&r - level.residuals().data()) + " of " + level.name();
    if (!thrown.empty()) return name + thrown;
    return name +
           " has other residuals when its functor is recorded for second derivatives than when it "
           "is called with double: write it so that both are the same, give it to a "
           "ceres::AutoDiffCostFunction (second derivatives are then differenced), or write a "
           "SecondOrderCostFunction";
  }
  return "";
}

// x, y and the user's memory moved a little, and moved back in the end.
class Beside {
 public:
  Beside(const Program& program, const Program::Scenario& s) : x_(&program.x), y_(&s.y) {
    for (Point* point : {&x_, &y_}) {
      point->space().ReadUser(point->value().data());
      saved_.push_back(point->value());
      Vector step(point->dim());
      for (int j = 0; j < step.size(); ++j) step[j] = kBeside * std::cos(1.0 + j);
      has_moved_ = point->Move(step) && has_moved_;
    }
  }
  ~Beside() { Write(saved_[0], saved_[1]); }
  void Write() const { Write(x_.value(), y_.value()); }
  const Point& x() const { return x_; }
  const Point& y() const { return y_; }
  bool has_moved() const { return has_moved_; }

 private:
  void Write(const Vector& x, const Vector& y) const {
    x_.space().WriteUser(x.data());
    y_.space().WriteUser(y.data());
  }
  Point x_, y_;
  std::vector<Vector> saved_;
  bool has_moved_ = true;
};

std::string CheckCost(const Program& program,
                      const Program::Scenario& s,
                      const LevelFunction& level,
                      ceres::Problem* problem) {
  if (!problem || level.callback() || level.num_terms() > 0 || level.num_residual_blocks() == 0) {
    return "";
  }
  double own = 0.0, theirs = 0.0;
  bool are_known = false;
  {
    const Beside beside(program, s);
    LevelEvaluator evaluator(&level, nullptr);
    // Ours before theirs, which bring up to date what only Ceres' callback knows to.
    are_known =
        beside.has_moved() &&
        evaluator.Value(beside.x().value().data(), beside.y().value().data(), Batch::All(), &own);
    beside.Write();
    are_known = are_known && problem->Evaluate({}, &theirs, nullptr, nullptr, nullptr);
  }
  double unused;
  if (are_known) problem->Evaluate({}, &unused, nullptr, nullptr, nullptr);
  const double a = std::sqrt(std::abs(own)), b = std::sqrt(std::abs(theirs));
  if (!are_known || std::abs(a - b) <= kCostShare * std::max(a, b) + kSmallest) return "";
  return level.name() + " costs " + Number(own) + " by its residual blocks and " + Number(theirs) +
         " by ceres::Problem::Evaluate: if it has an evaluation callback, name that to "
         "Scenario::SetEvaluationCallback too";
}

}  // namespace

std::string CheckRecordings(const Program& program, bool every_block) {
  Vector x(program.x.size());
  program.x.ReadUser(x.data());
  std::string complaint;
  for (const auto& s : program.scenarios) {
    Vector y(s->y.size());
    s->y.ReadUser(y.data());
    for (const LevelFunction* level : {s->g.get(), s->constraints.get(), s->f.get()}) {
      if (!level) continue;
      if (ceres::EvaluationCallback* callback = level->callback()) {
        NameThrown([&] { return "the evaluation callback of " + level->name(); },
                   [&] { callback->PrepareForEvaluation(false, true); });
      }
      complaint = CheckRecordings(*level, x.data(), y.data(), every_block);
      if (!complaint.empty()) return complaint;
    }
  }
  return "";
}

std::string CheckCosts(const Program& program) {
  for (const auto& s : program.scenarios) {
    std::string complaint;
    // What throws here does so in every evaluation, which will say so.
    Thrown([&] { complaint = CheckCost(program, *s, *s->g, s->lower); });
    if (complaint.empty()) Thrown([&] { complaint = CheckCost(program, *s, *s->f, s->upper); });
    if (!complaint.empty()) return complaint;
  }
  return "";
}

}  // namespace bilevel
