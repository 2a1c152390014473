#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/memory.h"
#include "bilevel/methods/hyper_objective/internal/flat_directions.h"
#include "bilevel/methods/hyper_objective/internal/secant_hessian.h"
#include "bilevel/methods/hyper_objective/internal/trial.h"
#include "bilevel/methods/hyper_objective/internal/trust_region.h"
#include "bilevel/methods/hyper_objective/internal/variable_projection.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

// A step that changes phi by so many times what was expected may have crossed a jump.
constexpr double kSurprise = 10.0;
// After so many rejected steps in a row the run ends.
constexpr int kMaxRejected = 12;

}  // namespace

std::string LevenbergMarquardt::Check(const Oracle& oracle) {
  if (!(options_.initial_trust_region_radius > 0.0)) {
    return "initial_trust_region_radius must be positive";
  }
  if (!oracle.f.CanLinearize()) {
    return "levenberg_marquardt needs an upper level without learned losses; \"lbfgs\" takes any";
  }
  return oracle.lower().WhyNoDerivative();
}

class LevenbergMarquardt::Run {
 public:
  Run(const Options& options,
      Oracle* oracle,
      State* state,
      Monitor* monitor,
      std::string* message,
      Answer* answer)
      : options_(options),
        oracle_(*oracle),
        state_(*state),
        monitor_(*monitor),
        message_(*message),
        answer_(*answer),
        space_(state->x.space()),
        projection_(oracle),
        fixed_(state->x.dim()),
        secant_(state->x.dim()),
        trust_region_(options.initial_trust_region_radius, options.max_trust_region_radius) {
    trial_.x = state->x;
    trial_.y = state->y;
  }

  Outcome Minimize() {
    const Monitor::Remember remember = [this](Memory* memory) { return Remember(memory); };
    if (!monitor_.Resume(&state_, remember)) Start();
    while (Continue()) {
      if (!monitor_.Rest(&state_, remember)) return Outcome::kNoConvergence;
      Model();
      if (!Step() || IsTooShort() || !Follow()) break;
      const bool accepted = Accept();
      if (accepted && IsLostInRounding()) break;
      accepted ? Update() : Reject();
    }
    return *outcome_;
  }

 private:
  // The run ends; true.
  bool End(Outcome outcome, const std::string& message) {
    outcome_ = outcome;
    message_ = message;
    return true;
  }
  void Report() {
    if (!monitor_.Report(state_, progress_)) outcome_ = Outcome::kNoConvergence;
  }

  bool Remember(Memory* memory) {
    at_.Remember(memory);
    memory->Keep("dy_dx", &dy_dx_);
    memory->Keep("fixed", &fixed_);
    memory->Keep("gradient_norm", &gradient_norm_);
    secant_.Remember(memory);
    memory->Keep("use_secant", &use_secant_);
    trust_region_.Remember(memory);
    memory->Keep("largest_surprise", &largest_surprise_);
    answer_.surprise.Remember(oracle_, memory);
    memory->Keep("is_stuck", &answer_.is_stuck);
    if (memory->recalls()) KeepAnswer();
    return true;
  }

  // What Finish tells of x.
  void KeepAnswer() {
    answer_.gauss_newton = at_.j.transpose() * at_.j;
    answer_.gradient = at_.gradient;
    answer_.squared_residuals = at_.r.squaredNorm();
    answer_.num_residuals = static_cast<int>(at_.r.size());
  }

  // At the x and y of the state. False: the run ends.
  bool LinearizeHere() {
    std::string why;
    if (!Linearize(&oracle_, state_.x, &state_.y, &at_, &why)) return !End(Outcome::kFailure, why);
    SetOut();
    return true;
  }

  // To be called where x, y and the linearization there are new.
  void SetOut() {
    dy_dx_ = oracle_.lower().dy_dx();
    KeepAnswer();
    gradient_norm_ = 0.0;
    for (int i = 0; i < space_.tangent_size(); ++i) {
      fixed_[i] = space_.IsHeld(state_.x.value().data(), i, at_.gradient[i]);
      if (!fixed_[i]) gradient_norm_ = std::max(gradient_norm_, std::abs(at_.gradient[i]));
    }
    progress_.objective = at_.phi;
    progress_.gradient_max_norm = gradient_norm_;
  }

  void Start() {
    if (!oracle_.Solve(state_.x, &state_.y)) {
      End(Outcome::kFailure, oracle_.message());
      return;
    }
    if (!LinearizeHere()) return;
    Report();
    if (outcome_ || projection_.empty()) return;
    const double first_phi = at_.phi;
    double phi = first_phi;
    projection_.Minimize(state_.y, &state_.x, &phi);
    if (!LinearizeHere() || !(at_.phi < first_phi)) return;
    ++oracle_.iteration;
    Report();
  }

  bool Continue() {
    if (outcome_) return false;
    if (gradient_norm_ <= monitor_.gradient_tolerance()) {
      End(Outcome::kConverged, "the gradient is below the gradient tolerance");
    }
    return !outcome_;
  }

  // phi around x as a quadratic in the directions that are neither held by a bound nor flat.
  void Model() {
    Vector reduced = at_.gradient;
    Matrix free_j = at_.j;
    for (int i = 0; i < space_.tangent_size(); ++i) {
      if (!fixed_[i]) continue;
      free_j.col(i).setZero();
      reduced[i] = 0.0;
    }
    Directions directions = SplitDirections(free_j, at_.r, reduced);
    NameFlat(directions.flat);
    basis_ = std::move(directions.learnable);  // Zero in the rows of fixed coordinates.
    slope_ = basis_.transpose() * reduced;
    hessian_ = basis_.transpose() * answer_.gauss_newton * basis_;
    if (!use_secant_) return;
    // A secant from afar may deny the curvature that Gauss-Newton's part guarantees.
    const Matrix with_secant = hessian_ + basis_.transpose() * secant_.matrix() * basis_;
    use_secant_ = IsPositiveDefinite(with_secant);
    if (use_secant_) hessian_ = with_secant;
  }

  void NameFlat(const Matrix& flat) {
    state_.flat_directions.clear();
    for (int i = 0; i < flat.cols(); ++i) {
      bool at_bound = false;  // Such a coordinate is no discovery.
      for (int k = 0; k < flat.rows(); ++k) at_bound |= fixed_[k] && std::abs(flat(k, i)) > 0.99;
      if (!at_bound) state_.flat_directions.push_back(NameDirection(space_, flat.col(i)));
    }
  }

  // False: the run ends.
  bool Step() {
    dx_ = basis_ * TrustRegionStep(hessian_, slope_, trust_region_.radius());
    trial_.x = state_.x;
    if (!trial_.x.Move(dx_)) {
      return !End(Outcome::kFailure, "x cannot move: its manifold failed");
    }
    is_cut_ = false;
    for (int i = 0; space_.has_bounds() && i < space_.tangent_size(); ++i) {
      const int k = space_.AmbientIndex(i);
      if (k < 0) continue;
      const double left = trial_.x.value()[k] - state_.x.value()[k];
      is_cut_ |= std::abs(left) < 0.5 * std::abs(dx_[i]);
      dx_[i] = left;
    }
    progress_ = Progress();
    progress_.step_norm = dx_.norm();
    progress_.trust_region_radius = trust_region_.radius();
    return true;
  }

  bool IsTooShort() {
    const double tolerance = monitor_.parameter_tolerance();
    const double least = tolerance * (state_.x.value().norm() + tolerance);
    // To a bound the way may be short, and not end there.
    if (!(progress_.step_norm <= least) || is_cut_) return false;
    // A radius that nothing has failed within yet says nothing; else the steps before have.
    if (IsLimited() && trust_region_.num_rejected() == 0) return false;
    answer_.is_stuck = IsLimited();
    return End(Outcome::kConverged, "the step is below the parameter tolerance");
  }

  // Predicts y, corrects it, and looks at phi. False: the run ends.
  bool Follow() {
    Trial& t = trial_;
    t.y = state_.y;
    t.is_solved = oracle_.program().MoveY(dy_dx_ * dx_, &t.y) && oracle_.Solve(t.x, &t.y);
    t.phi = t.is_solved ? oracle_.f.Value(t.x, t.y) : Progress::kUnknown;
    if (!t.is_solved || !oracle_.ok()) {
      progress_.note = oracle_.ok() ? oracle_.message() : oracle_.Clear();
      if (progress_.note.empty()) progress_.note = "y cannot follow x";
      t.is_solved = false;
    }
    t.gauss_newton_change = at_.gradient.dot(dx_) + 0.5 * (at_.j * dx_).squaredNorm();
    t.secant_change = t.gauss_newton_change + 0.5 * dx_.dot(secant_.matrix() * dx_);
    t.expected = -(use_secant_ ? t.secant_change : t.gauss_newton_change);
    t.model_ratio = t.is_solved ? (at_.phi - t.phi) / t.expected : -1.0;
    if (t.is_solved && !projection_.empty()) {
      projection_.Minimize(t.y, &t.x, &t.phi);
      if (!space_.Minus(t.x.value().data(), state_.x.value().data(), dx_.data())) {
        return !End(Outcome::kFailure, "x cannot move: its manifold failed");
      }
    }
    t.ratio = t.is_solved ? (at_.phi - t.phi) / t.expected : -1.0;
    t.is_hidden = t.is_solved && std::abs(t.expected) < kHiddenInPhi * std::abs(at_.phi) &&
                  std::abs(t.phi - at_.phi) < kRoundingOfPhi * std::abs(at_.phi);
    LookForJump();
    return true;
  }

  void LookForJump() {
    const double surprise = std::abs(at_.phi - trial_.phi - trial_.expected);
    if (!trial_.is_solved || !(trial_.expected > 0.0) ||
        !(surprise > std::max(kSurprise * trial_.expected, largest_surprise_))) {
      return;
    }
    largest_surprise_ = surprise;
    answer_.surprise.Set(state_.x, trial_.x, state_.y);
  }

  bool Accept() {
    const bool is_better = trial_.ratio > kSufficientDecrease || trial_.is_hidden;
    if (!trial_.is_solved || !(trial_.expected > 0.0) || !is_better) return false;
    if (Linearize(&oracle_, trial_.x, &trial_.y, &trial_.at, &progress_.note)) return true;
    oracle_.Clear();
    return false;
  }

  // Of an accepted step. What phi cannot tell, the gradient must.
  bool IsLostInRounding() {
    if (!trial_.is_hidden) return false;
    double norm = 0.0, new_norm = 0.0;
    for (int i = 0; i < space_.tangent_size(); ++i) {
      if (fixed_[i]) continue;
      norm = std::hypot(norm, at_.gradient[i]);
      new_norm = std::hypot(new_norm, trial_.at.gradient[i]);
    }
    if (new_norm < 0.5 * norm) return false;
    return End(Outcome::kConverged,
               "further steps are lost in the rounding of the objective and of its gradient");
  }

  // By the radius, and not the least of the model.
  bool IsLimited() const { return progress_.step_norm > 0.9 * trust_region_.radius(); }

  void Update() {
    const bool was_limited = IsLimited();
    trust_region_.Accept(
        progress_.step_norm, trial_.model_ratio, trial_.is_hidden ? 1.0 : trial_.ratio);
    if (options_.use_secant) LearnSecant();
    const double decrease = at_.phi - trial_.at.phi;
    std::swap(state_.x, trial_.x);
    std::swap(state_.y, trial_.y);
    std::swap(at_, trial_.at);
    SetOut();
    progress_.keep = Progress::kAlways;  // Where phi is rounding the gradient has told.
    ++oracle_.iteration;
    Report();
    if (!outcome_ && trial_.ratio > 0.25 && !was_limited &&
        std::abs(decrease) <= monitor_.function_tolerance() * std::abs(at_.phi)) {
      End(Outcome::kConverged, "the objective's relative change is below the function tolerance");
    }
  }

  // (J+ - J)' r+ and the change of what else is in the gradient, along the step.
  void LearnSecant() {
    const Vector change = trial_.at.gradient - at_.gradient;
    secant_.Update(dx_, change, change - at_.j.transpose() * (trial_.at.r - at_.r));
    const double actual = trial_.at.phi - at_.phi;
    use_secant_ =
        std::abs(trial_.secant_change - actual) <= std::abs(trial_.gauss_newton_change - actual);
  }

  void Reject() {
    progress_.step_is_successful = false;
    progress_.objective = at_.phi;
    progress_.gradient_max_norm = gradient_norm_;
    if (progress_.note.empty()) progress_.note = "phi did not decrease as predicted";
    trust_region_.Reject(progress_.step_norm, at_.gradient.dot(dx_), trial_.phi - at_.phi);
    use_secant_ = false;
    ++oracle_.iteration;
    Report();
    if (!outcome_) GiveUp();
  }

  // Ends the run where no step is worth another trial.
  void GiveUp() {
    // What the model hopes for without a radius tells convergence from trouble.
    const Vector full = TrustRegionStep(hessian_, slope_, 1e100);
    const double hope = -(slope_.dot(full) + 0.5 * full.dot(hessian_ * full)) / std::abs(at_.phi);
    const bool is_enough = trust_region_.num_rejected() > kMaxRejected;
    const double tolerance =
        std::max(is_enough ? kRoundingOfPhi : 0.0, monitor_.function_tolerance());
    if (trial_.is_solved && hope <= tolerance) {
      End(Outcome::kConverged,
          "no step decreases the objective, and the best was expected to change it by a "
          "relative " +
              Scientific(hope) + " only");
    } else if (is_enough) {
      answer_.is_stuck = trial_.is_solved;
      // At the edge of where the lower level has a solution x is no worse for that.
      Point y = state_.y;
      const bool is_at_edge = !trial_.is_solved && oracle_.Solve(state_.x, &y);
      End(is_at_edge ? Outcome::kNoConvergence : Outcome::kFailure,
          "no step decreases the objective; the last was rejected because " + progress_.note);
    }
  }

  const Options& options_;
  Oracle& oracle_;
  State& state_;
  Monitor& monitor_;
  std::string& message_;
  Answer& answer_;
  const Space& space_;
  VariableProjection projection_;

  Linearization at_;
  Matrix dy_dx_;
  std::vector<char> fixed_;     // Coordinates at a bound that the gradient pushes against.
  double gradient_norm_ = 0.0;  // Largest entry in the others.

  // The model, in coordinates of a basis of the directions to learn.
  Matrix basis_, hessian_;
  Vector slope_;
  SecantHessian secant_;
  bool use_secant_ = false;
  TrustRegion trust_region_;
  Vector dx_;
  bool is_cut_ = false;  // By bounds of x, by half or more.
  Trial trial_;

  double largest_surprise_ = 0.0;
  Progress progress_;
  std::optional<Outcome> outcome_;  // Once the run has ended.
};

Method::Outcome LevenbergMarquardt::Minimize(Oracle& oracle,
                                             State& state,
                                             Monitor* monitor,
                                             std::string* message) {
  answer_ = Answer();
  return Run(options_, &oracle, &state, monitor, message, &answer_).Minimize();
}

void LevenbergMarquardt::Finish(Oracle& oracle, const State& state, Assessment* assessment) {
  if (!answer_.surprise.empty()) {
    // By another lower solver: this one's report is to stay that of the answer.
    oracle.ForEach(1, [&](Oracle& worker, int) {
      const std::string jump = answer_.surprise.FindJump(worker);
      if (!jump.empty()) assessment->notes.push_back(jump);
    });
  }
  if (!oracle.f.IsLeastSquares()) return;  // A likelihood: J'J is not its curvature.
  // Out of time before its first linearisation, where auto began it once more.
  if (answer_.gradient.size() != state.x.dim()) return;
  assessment->uncertainty.Compute(state.x,
                                  answer_.gauss_newton,
                                  answer_.gradient,
                                  HessianKind::kGaussNewton,
                                  answer_.squared_residuals,
                                  answer_.num_residuals);
}

}  // namespace bilevel
