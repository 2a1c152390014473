#include "bilevel/methods/internal/answer_check.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"
#include "bilevel/methods/estimators/internal/min_norm.h"
#include "bilevel/methods/internal/surroundings.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

// Relative to 1 + |x|: how far a curvature, the sides of a kink, and its corners are looked at.
constexpr double kCurvatureWay = 1e-4, kShortestWay = 1e-10, kKinkWay = 1e-6, kCornerWay = 1e-3;
// phi jumps where it changes by so many times what its gradients say.
constexpr double kJump = 1e3;
constexpr double kNearestShare = 1e-4;  // Of kKinkWay.
// Gradients around a kink cancel up to this share of the largest.
constexpr double kCancelled = 1e-3;
// The share of the way back to the start at which a gradient must be felt, and of the decrease.
constexpr double kBack = 1e-2, kFlat = 1e-9;
// A long x that has made no more steps may stand on a saddle that symmetry has led it to.
constexpr int kFewSteps = 3;
// The corners between so many coordinates are looked at one by one.
constexpr int kMostCorners = 4;

// The check of one answer.
class Check {
 public:
  Check(Oracle& oracle, const Monitor& tolerances, const Evidence& evidence, const State& end)
      : oracle_(oracle),
        gradient_tolerance_(tolerances.gradient_tolerance()),
        function_tolerance_(tolerances.function_tolerance()),
        evidence_(evidence),
        end_(end),
        phi_(evidence.phi),
        at_(&oracle, end.y) {}

  AnswerCheck Run() {
    double value;
    if (!at_.Evaluate(end_.x, &value, &gradient_)) {
      result_.kind = AnswerKind::kUndetermined;
      if (!(evidence_.kkt_loss <= gradient_tolerance_)) {
        result_.doubt = "but phi has no derivative there: " + at_.message();
      }
      return result_;
    }
    at_.Accept();
    if (std::isnan(phi_)) phi_ = value;
    negligible_ = Negligible(function_tolerance_, phi_, evidence_.first_phi);
    around_.emplace(&oracle_, &at_, end_, phi_, Negligible(0.0, phi_, evidence_.first_phi));
    weak_ = oracle_.lower().Report().weakly_active;
    ClearHeld(end_.x, gradient_, &gradient_);
    result_.gradient_max_norm = gradient_.size() ? gradient_.lpNorm<Eigen::Infinity>() : 0.0;
    const bool is_flat = result_.gradient_max_norm <= gradient_tolerance_;
    if (weak_.empty() && (is_flat || PromisesLittle())) {
      ConfirmStationary(is_flat);
      return result_;
    }
    what_ = weak_.empty()
                ? "|gradient| is " + Scientific(result_.gradient_max_norm)
                : "phi has a kink there, since a bound or constraint of y is only weakly active (" +
                      weak_ + "), and its gradient sees one side of it";
    if (end_.x.dim() > kVeryShortX) {
      result_.is_at_kink = true;
      result_.doubt = "but " + what_ + ": it is stuck";
    } else {
      LookAround();
    }
    return result_;
  }

 private:
  void ConfirmStationary(bool is_flat) {
    result_.kind = AnswerKind::kStationary;
    if (is_flat && HasRunOff()) {
      result_.kind = AnswerKind::kStuck;
      result_.doubt = "but phi is flat all around: x has run off to where it no longer matters";
      return;
    }
    around_->LookAtOtherSolutions();
    if (Falls()) {
      result_.kind = AnswerKind::kUndetermined;
      result_.doubt =
          "but the lower level leaves directions of y free, and along those f falls: "
          "this y is no best one for f";
      return;
    }
    if (end_.x.dim() <= kVeryShortX) {
      around_->LookWithin(evidence_.path.Unexplored(end_.x.dim()), gradient_);
    } else if (evidence_.num_steps <= kFewSteps) {
      around_->LookEverywhere(gradient_);
    }
    if (Falls()) {
      result_.doubt = "but phi falls along a direction in which x has never moved" + Unbounded();
    } else if (evidence_.num_steps == 0) {
      LookFar();
    }
  }

  // Whether the gradient has vanished for the way back to the start too.
  bool HasRunOff() {
    if (end_.x.dim() == 0 || !evidence_.first_x || !(evidence_.first_phi > phi_)) return false;
    Point x = end_.x;
    Vector back(x.dim()), beside;
    if (!x.space().Minus(evidence_.first_x->value().data(), x.value().data(), back.data())) {
      return false;
    }
    back *= kBack;
    double value;
    if (!around_->Look(back, &value, &beside)) return false;
    return beside.norm() * back.norm() <= kFlat * (evidence_.first_phi - phi_);
  }

  // Whether a Newton step along the gradient, by the curvature of phi a little way down, promises
  // too little to be worth it. Beside a kink that curvature grows as the way gets shorter: no
  // answer.
  bool PromisesLittle() {
    const double norm = gradient_.norm();
    double curvature = 0.0, before = 0.0;
    // A shorter way has no more to promise.
    const double shortest = std::clamp(
        20.0 * negligible_ / (norm * around_->size()), kShortestWay, 0.5 * kCurvatureWay);
    for (double way = kCurvatureWay; way > shortest; way *= 0.1) {
      const double length = way * around_->size() / norm;
      bool fits = false;
      if (!LookDown(length, &curvature, &fits)) return false;
      // Halfway to a kink values fit too, by chance, and then not halfway to there.
      double closer = 0.0;
      const bool is_confirmed = fits && LookDown(0.5 * length, &closer, &fits) && fits;
      if (is_confirmed || std::abs(curvature - before) <= 0.5 * curvature) {
        return 0.5 * std::pow(norm, 4) / curvature <= negligible_ && ArrivesBy(curvature);
      }
      before = curvature;
    }
    return false;
  }

  // Whether the gradient has vanished, or a good part of it, where that Newton step leads: several
  // kinks on the way look like a curvature, too.
  bool ArrivesBy(double curvature) {
    double value;
    Vector there;
    const Vector step = -gradient_.squaredNorm() / curvature * gradient_;
    return !around_->Look(step, &value, &there) ||
           std::abs(there.dot(gradient_)) <= 0.5 * gradient_.squaredNorm();
  }

  // The curvature of phi from x to so many gradients down, times norm^2, by the gradients at both
  // ends; whether phi there agrees, where rounding does not hide it. False: it is not positive.
  bool LookDown(double length, double* curvature, bool* fits) {
    double value;
    Vector beside;
    if (!around_->Look(-length * gradient_, &value, &beside)) return false;
    *curvature = gradient_.dot(gradient_ - beside) / length;
    const double bend = 0.5 * length * length * *curvature;
    const double error = value - phi_ + length * gradient_.squaredNorm() - bend;
    *fits = std::abs(error) <= 0.25 * bend && bend > RoundingOfValue(std::abs(phi_));
    return *curvature > 0.0;
  }

  bool Falls() {
    if (!(around_->lowest() < phi_ - negligible_)) return false;
    result_.kind = AnswerKind::kStuck;
    if (!around_->seems_unbounded()) result_.better = around_->lowest_state();
    return true;
  }
  std::string Unbounded() const {
    return around_->seems_unbounded() ? ", on and on: it seems to have no lower bound, and is " +
                                            Scientific(around_->lowest()) + " already"
                                      : "";
  }

  // Where x has not moved at all phi may be a plateau: so far from where x matters that its
  // gradient is small all around.
  void LookFar() {
    double largest = -1.0, value;
    const double size = around_->size();
    for (int k = 0; k < 2 * end_.x.dim() && end_.x.dim() <= kVeryShortX; ++k) {
      const Vector step = (k % 2 ? size : -size) * Vector::Unit(end_.x.dim(), k / 2);
      if (around_->Look(step, &value, nullptr)) largest = std::max(largest, std::abs(value - phi_));
    }
    if (largest < 0.0 || !(largest <= kFlat * std::abs(phi_)) || phi_ == 0.0) return;
    result_.kind = AnswerKind::kStuck;
    result_.doubt = "but phi does not feel x there: steps of length " + Number(size) +
                    " change it by a relative " + Scientific(largest / std::abs(phi_)) + " at most";
  }

  // At a kink or a jump all sides decide: phi falls to none, and the gradients around either cancel
  // or lead to where it jumps up.
  void LookAround() {
    const int m = end_.x.dim();
    const double way = kKinkWay * around_->size();
    std::vector<Vector> steps;
    steps.reserve(2 * m + 1);
    for (int k = 0; k < 2 * m; ++k) steps.push_back((k % 2 ? way : -way) * Vector::Unit(m, k / 2));
    if (gradient_.norm() > 0.0) steps.push_back(-way * gradient_.normalized());
    gradients_ = {gradient_};
    largest_ = gradient_.norm();
    around_->ForgetUnseen();
    for (const Vector& step : steps) {
      if (!LookBeside(step)) return;
    }
    const Vector common = DescentForAll(way);
    const std::string unseen = around_->unseen();
    const bool cancel = common.norm() <= kCancelled * largest_;
    const bool jumps = Jumps(way);
    result_.is_at_kink = cancel || jumps;
    // Gradients so near tell nothing of what is farther.
    for (double far = 10.0 * way; common.norm() > 0.0 && far < 0.1 * around_->size(); far *= 10.0) {
      if (around_->Falls(-far * common.normalized())) break;
    }
    for (int k = 0; k < 2 * m; ++k) {
      if (!around_->Falls(10.0 * steps[k]) && jumps) around_->LookOnBranch(10.0 * steps[k]);
    }
    // And a smooth minimum may lie nearer than they.
    for (double share = 0.25; weak_.empty() && share > kNearestShare; share *= 0.125) {
      if (around_->Falls(-share * way * gradient_.normalized())) break;
    }
    LookIntoCorners();
    if (Falls()) {
      result_.doubt = "but " + what_ + ", and phi falls by " +
                      Scientific(phi_ - around_->lowest()) + " nearby" + Unbounded();
    } else if (!unseen.empty()) {
      result_.kind = AnswerKind::kStuck;
      result_.doubt =
          "but " + what_ + ", and phi cannot be evaluated on every side of it: " + unseen;
    } else if (cancel || is_blocked_) {
      result_.kind = jumps                             ? AnswerKind::kJump
                     : largest_ <= gradient_tolerance_ ? AnswerKind::kStationary
                                                       : AnswerKind::kKink;
    } else {
      result_.kind = AnswerKind::kStuck;
      result_.doubt = "but " + what_ +
                      ", the same all around, and phi changes too little to tell "
                      "whether it falls";
    }
  }

  // Whether phi changes by more than its gradients say, or by as much however short the way: beside
  // a fold of y*(x) it has no largest gradient.
  bool Jumps(double way) {
    double largest = 0.0, nearest;
    for (const double change : changes_) largest = std::max(largest, change);
    if (largest > kJump * way * largest_) return true;
    return gradient_.norm() > 0.0 && largest > negligible_ &&
           around_->Look(-kNearestShare * way * gradient_.normalized(), &nearest, nullptr) &&
           nearest - phi_ > 0.5 * largest;
  }

  // False: the other side of a jump has settled it.
  bool LookBeside(const Vector& step) {
    double value;
    Vector gradient;
    if (!around_->Look(step, &value, &gradient)) return true;
    if (OtherSolution(value, step.norm() * std::max(largest_, gradient.norm()))) return false;
    ClearHeld(end_.x, gradient, &gradient);
    largest_ = std::max(largest_, gradient.norm());
    gradients_.push_back(gradient);
    changes_.push_back(std::abs(value - phi_));
    around_->Falls(step);
    return true;
  }

  // The shortest in the hull of the gradients within so far: those along it are taken in until they
  // are nothing new (Goldstein's subgradients, as in Mahdavi-Amiri and Yousefpour, 2012).
  Vector DescentForAll(double way) {
    const int m = end_.x.dim();
    for (;;) {
      Matrix columns(m, gradients_.size());
      for (size_t k = 0; k < gradients_.size(); ++k) columns.col(k) = gradients_[k];
      const Vector common = MinNormInHull(columns);
      double value;
      Vector gradient;
      if (common.norm() <= kFlat * largest_ || static_cast<int>(gradients_.size()) > 4 * m + 8 ||
          !around_->Look(-way * common.normalized(), &value, &gradient)) {
        return common;
      }
      is_blocked_ = value - phi_ > kJump * way * largest_;
      if (is_blocked_ || gradient.dot(common) > 0.9 * common.squaredNorm()) return common;
      ClearHeld(end_.x, gradient, &gradient);
      gradients_.push_back(gradient);
    }
  }

  // Between the coordinates, where bounds of y change the pieces of phi; all of them or a few.
  void LookIntoCorners() {
    const int m = end_.x.dim();
    if (m < 2) return;
    const int num_corners = 1 << std::min(m, kMostCorners);
    for (int k = 0; k < num_corners; ++k) {
      Vector corner(m);
      for (int j = 0; j < m; ++j) corner[j] = (k >> (j % kMostCorners)) & 1 ? 1.0 : -1.0;
      around_->Falls(kCornerWay * around_->size() * corner.normalized());
    }
  }

  // Beyond a jump y is another. Where that other has less g at this very x, y was no minimiser.
  bool OtherSolution(double value, double expected) {
    if (!(std::abs(value - phi_) > kJump * expected + negligible_)) return false;
    State other = end_;
    other.y = at_.y();
    const double g = oracle_.g.Value(end_.x, end_.y);
    const bool solved = oracle_.Solve(end_.x, &other.y);
    const double other_g = solved ? oracle_.g.Value(end_.x, other.y) : g;
    if (!oracle_.Clear().empty() || !(other_g < g - 1e-9 * (std::abs(g) + std::abs(other_g)))) {
      return false;
    }
    result_.kind = AnswerKind::kStuck;
    result_.better = other;
    result_.doubt = "but y is not the lower level's best there: g is " + Number(g) + ", and " +
                    Number(other_g) + " at another y, which phi jumps to nearby";
    return true;
  }

  Oracle& oracle_;
  const double gradient_tolerance_, function_tolerance_;
  const Evidence& evidence_;
  const State& end_;
  double phi_;
  double negligible_ = 0.0;
  HyperObjective at_;
  std::optional<Surroundings> around_;
  Vector gradient_;
  std::string weak_, what_;
  std::vector<Vector> gradients_;  // Around.
  std::vector<double> changes_;    // Of phi, there.
  double largest_ = 0.0;           // Of the gradients' norms.
  bool is_blocked_ = false;        // By a jump, the way down.
  AnswerCheck result_;
};

}  // namespace

AnswerCheck CheckAnswer(Oracle& oracle,
                        const Monitor& tolerances,
                        const Evidence& evidence,
                        const State& end) {
  AnswerCheck result;
  result.kind = AnswerKind::kStationary;
  result.gradient_max_norm = evidence.gradient_max_norm;
  if (!oracle.lower().WhyNoDerivative().empty()) return result;  // As far as values tell.
  // What the run has reported is enough where nothing speaks against it.
  const LowerSolverReport lower = oracle.lower().Report();
  const bool has_moved_everywhere = end.x.dim() > kVeryShortX
                                        ? evidence.num_steps > kFewSteps
                                        : evidence.path.Unexplored(end.x.dim()).cols() == 0;
  if (evidence.gradient_max_norm <= tolerances.gradient_tolerance() && has_moved_everywhere &&
      lower.weakly_active.empty() && lower.num_free_directions == 0) {
    return result;
  }
  const std::string thrown =
      Thrown([&] { result = Check(oracle, tolerances, evidence, end).Run(); });
  if (!thrown.empty()) {
    result.kind = AnswerKind::kStuck;
    result.doubt = "but looking at it once more" + thrown;
  }
  oracle.Clear();
  return result;
}

}  // namespace bilevel
