#include "bilevel/upper_level/safe_learning.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/text.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/upper_level/internal/coordinate_names.h"
#include "bilevel/upper_level/internal/coordinate_prior.h"
#include "bilevel/upper_level/internal/gain_by_chance.h"
#include "bilevel/upper_level/internal/independent_errors.h"
#include "bilevel/upper_level/internal/recordings.h"

namespace bilevel {
namespace {

constexpr int kFewestToLeaveOut = 3, kMostRounds = 20;
constexpr double kRoundTolerance = 1e-3;  // Of F.
constexpr double kShownShare = 0.1;       // Of the prior's information: the data show a coordinate.
constexpr double kVanished = 1e-12;       // Of f at the start: no more is left.
constexpr double kFrozenShare = 1e-4;     // Of the prior's sigma, where a coordinate is held.
constexpr double kNumErrors = 3.5;        // Of one trajectory, where they cannot be counted.

using Values = std::vector<double>;
enum : char { kMoves, kHeld, kFitted };

class Learner {
 public:
  Learner(const SafeLearningOptions& options, Problem* problem)
      : options_(options), problem_(*problem), recordings_(options, problem) {}

  SafeLearning Run() {
    result_.message.clear();
    if (!Prepare()) return result_;
    const std::string thrown = Thrown([&] { result_.ok = Learn(); });
    if (!thrown.empty()) result_.ok = Fail("learning" + thrown);
    if (!result_.ok) result_.kind = Verdict::kNotEnoughData;
    recordings_.Restore(!result_.ok);
    result_.counts = recordings_.counts();
    return result_;
  }

 private:
  bool Fail(const std::string& why) {
    result_.message = why;
    return false;
  }
  bool Prepare();
  void AddPrior();
  bool Learn();
  // Whether there is something to learn from; what it counts, and what of x it shows.
  bool Begin(bool* any);
  void CountErrors();

  bool Score(Values* x, const std::vector<int>& recordings, Values* f) {
    return recordings_.Score(x, recordings, f) || Fail(recordings_.message());
  }
  double LogF(const std::vector<int>& recordings, const Values& f) const;
  // n / (2 f), for an f that may have vanished.
  double Weight(int recording, double f) const {
    const double least = f_base_.empty() ? 0.0 : kVanished * f_base_[recording];
    return 0.5 * result_.num_errors[recording] / std::max(f, least);
  }
  double LogPrior(const Values& x) const;
  // The maximum a posteriori of recordings, from the centre, and f there.
  bool Maximize(const std::vector<int>& recordings, Values* x, Values* f);
  // Whether coordinates are found of which the data say next to nothing, by Gauss-Newton.
  bool FindNotShown(bool* any);
  bool LeaveEachOut();
  int num_moving() const {
    return static_cast<int>(std::count(role_.begin(), role_.end(), kMoves));
  }
  bool CanPass() const {
    return num_moving() > 0 &&
           (all_.size() >= kFewestToLeaveOut || num_moving() < total_num_errors());
  }
  double total_num_errors() const {
    return std::accumulate(result_.num_errors.begin(), result_.num_errors.end(), 0.0);
  }
  bool Passes();
  bool PassesAlone();
  std::string DescribeMoves() const;

  const SafeLearningOptions& options_;
  Problem& problem_;
  Recordings recordings_;
  std::vector<int> all_;
  std::vector<std::string> names_;                   // Of coordinates.
  Values *centre_ = nullptr, *sigma_ = nullptr;      // Of the prior, owned by the problem.
  std::vector<char> role_;                           // Of coordinates.
  Values f_before_, f_centre_, f_base_, f_learned_;  // f_base_: the better of the first two.
  bool centre_loses_ = false;
  std::string remark_;
  SafeLearning result_;
};

bool Learner::Prepare() {
  std::string error;
  if (!options_.IsValid(&error)) return Fail(error);
  if (!recordings_.Prepare()) return Fail(recordings_.message());
  all_.resize(recordings_.num());
  std::iota(all_.begin(), all_.end(), 0);
  result_.before = recordings_.before();
  result_.centre = options_.centre.empty() ? result_.before : options_.centre;
  if (result_.centre.size() != result_.before.size()) {
    return Fail("centre has " + std::to_string(result_.centre.size()) + " values, and x has " +
                std::to_string(result_.before.size()));
  }
  role_.assign(result_.before.size(), kMoves);
  for (const double* user : options_.fitted_blocks) {
    const Space::Block& block = recordings_.x().blocks()[recordings_.x().Find(user)];
    std::fill_n(role_.begin() + block.offset, block.size, kFitted);
  }
  names_ = NameCoordinates(problem_, recordings_.x());
  AddPrior();
  return true;
}

void Learner::AddPrior() {
  centre_ = problem_.Own(std::make_unique<Values>(result_.centre));
  sigma_ = problem_.Own(std::make_unique<Values>(result_.centre.size(), options_.prior_sigma));
  Scenario* prior = recordings_.AddPriorScenario();
  for (const Space::Block& block : recordings_.x().blocks()) {
    const bool is_fitted = role_[block.offset] == kFitted;
    if (is_fitted) std::fill_n(sigma_->begin() + block.offset, block.size, kInfinity);
    prior->upper()->AddResidualBlock(
        new CoordinatePrior(
            centre_->data() + block.offset, sigma_->data() + block.offset, block.size),
        nullptr,
        block.user);
  }
}

double Learner::LogF(const std::vector<int>& recordings, const Values& f) const {
  double sum = 0.0;
  for (size_t k = 0; k < f.size(); ++k) {
    sum += 0.5 * result_.num_errors[recordings[k]] * std::log(f[k]);
  }
  return sum;
}

double Learner::LogPrior(const Values& x) const {
  double sum = 0.0;
  for (size_t j = 0; j < x.size(); ++j) {
    const double r = (x[j] - (*centre_)[j]) / (*sigma_)[j];
    sum += 0.5 * r * r;
  }
  return sum;
}

bool Learner::Maximize(const std::vector<int>& recordings, Values* x, Values* f) {
  *x = *centre_;
  if (!Score(x, recordings, f)) return false;
  double least = LogF(recordings, *f) + LogPrior(*x);
  // Where a recording has no error left, there is nothing more to learn from it.
  for (int round = 0; round < kMostRounds && std::isfinite(least); ++round) {
    Values weights, there(x->size()), f_there;
    for (size_t k = 0; k < f->size(); ++k) weights.push_back(Weight(recordings[k], (*f)[k]));
    recordings_.SetWeights(recordings, weights);
    if (!recordings_.SolveWith(options_.solver.max_num_iterations)) {
      return Fail(recordings_.message());
    }
    result_.summary = recordings_.summary();
    recordings_.x().ReadUser(there.data());
    if (!Score(&there, recordings, &f_there)) return false;
    const double objective = LogF(recordings, f_there) + LogPrior(there);
    const double gain = least - objective;
    if (!(gain > 0.0)) break;
    *x = there;
    *f = f_there;
    least = objective;
    if (gain < kRoundTolerance) break;
  }
  recordings_.x().WriteUser(x->data());
  return true;
}

bool Learner::FindNotShown(bool* any) {
  Values weights;
  for (const int r : all_) weights.push_back(Weight(r, f_learned_[r]));
  recordings_.x().WriteUser(result_.learned.data());
  recordings_.SetWeights(all_, weights);
  Uncertainty uncertainty;
  std::string error;
  if (!ComputeUncertainty(
          options_.solver, HessianKind::kGaussNewton, &problem_, &uncertainty, &error)) {
    return Fail("what the data show of x is not known: " + error);
  }
  uncertainty.SetNoiseVariance(1.0);
  const Matrix& covariance = uncertainty.covariance();
  result_.standard_errors.clear();
  std::vector<int> free;  // At no bound.
  for (int j = 0; j < covariance.cols(); ++j) {
    result_.standard_errors.push_back(
        role_[j] == kHeld ? options_.prior_sigma : std::sqrt(std::max(0.0, covariance(j, j))));
    if (covariance(j, j) > 0.0 && role_[j] != kFitted) free.push_back(j);
  }
  Matrix part(free.size(), free.size());
  for (size_t a = 0; a < free.size(); ++a) {
    for (size_t b = 0; b < free.size(); ++b) part(a, b) = covariance(free[a], free[b]);
  }
  const Matrix information = part.inverse();
  *any = false;
  for (size_t a = 0; a < free.size(); ++a) {
    const int j = free[a];
    const double of_prior = 1.0 / ((*sigma_)[j] * (*sigma_)[j]);
    if (role_[j] == kHeld || information(a, a) - of_prior >= kShownShare * of_prior) continue;
    role_[j] = kHeld;
    result_.standard_errors[j] = options_.prior_sigma;
    (*sigma_)[j] *= kFrozenShare;
    result_.not_shown.push_back(names_[j]);
    *any = true;
  }
  return true;
}

bool Learner::LeaveEachOut() {
  for (const int r : all_) {
    std::vector<int> others;
    for (const int other : all_) {
      if (other != r) others.push_back(other);
    }
    Values x, f;
    if (!Maximize(others, &x, &f) || !Score(&x, {r}, &f)) return false;
    result_.log_ratios.push_back(std::log(f[0] / f_base_[r]));
  }
  return true;
}

bool Learner::PassesAlone() {
  result_.needed_gain = GainByChance(total_num_errors(), num_moving());
  if (!CanPass()) {
    result_.message = "Not enough data: the errors count as " +
                      Format("%.2g independent ones, and %d coordinates would move; ",
                             total_num_errors(),
                             num_moving()) +
                      "three recordings or more would tell";
    return false;
  }
  result_.gain = LogF(all_, f_base_) - LogF(all_, f_learned_) - LogPrior(result_.learned);
  const bool passes = result_.gain > result_.needed_gain;
  result_.kind = passes ? Verdict::kUseLearned : Verdict::kNotEnoughData;
  result_.message = (passes ? "Use the learned values: the log-posterior gains "
                            : "Not enough data: the log-posterior gains ") +
                    Format("%.3g, and %.3g would be chance", result_.gain, result_.needed_gain) +
                    (passes ? "" : "; three recordings or more would tell");
  return passes;
}

bool Learner::Passes() {
  if (num_moving() == 0) {
    result_.message = Format(
        "Not enough data: the errors count as %.2g independent ones, and show "
        "no coordinate of x",
        total_num_errors());
    return false;
  }
  const size_t n = result_.log_ratios.size();
  if (n == 0) return PassesAlone();
  const Eigen::Map<const Vector> ratios(result_.log_ratios.data(), static_cast<Eigen::Index>(n));
  const double mean = ratios.mean();
  const double error =
      std::sqrt((ratios.array() - mean).square().sum() / double(n - 1) / double(n));
  const std::string figures =
      Format("f of a recording left out changes by %+.1f %%", 100.0 * std::expm1(mean)) +
      Format(", within two standard errors by %+.1f %% to %+.1f %%",
             100.0 * std::expm1(mean - 2.0 * error),
             100.0 * std::expm1(mean + 2.0 * error));
  const bool passes = mean + 2.0 * error < 0.0;
  result_.kind = passes               ? Verdict::kUseLearned
                 : mean + error < 0.0 ? Verdict::kNotEnoughData
                                      : Verdict::kKeepYours;
  result_.message = passes               ? "Use the learned values: " + figures
                    : mean + error < 0.0 ? "Not enough data: " + figures + "; more would tell"
                                         : "Keep what you have: " + figures;
  return passes;
}

std::string Learner::DescribeMoves() const {
  std::string text;
  const bool any = result_.learned != result_.centre;
  for (size_t j = 0; any && j < names_.size(); ++j) {
    if (role_[j] != kMoves) continue;
    const double move = result_.learned[j] - result_.centre[j];
    text += (text.empty() ? ". The maximum a posteriori moves " : ", ") + names_[j] + " by " +
            Format("%+.3g", move);
    if (const double error = result_.standard_errors[j]; error > 0.0) {
      text += Format(" (%.1f standard errors)", move / error);
    }
  }
  for (size_t k = 0; k < result_.not_shown.size(); ++k) {
    text += (k == 0 ? ". What the data do not show stays: " : ", ") + result_.not_shown[k];
  }
  return text + remark_ + ". This holds for recordings like these";
}

void Learner::CountErrors() {
  result_.num_errors.assign(all_.size(), options_.num_errors_a_recording);
  if (options_.num_errors_a_recording > 0.0) return;
  recordings_.SetWeights(all_, Values(all_.size(), 1.0));
  std::string error;
  const std::vector<const double*> fitted(options_.fitted_blocks.begin(),
                                          options_.fitted_blocks.end());
  if (CountIndependentErrors(options_.solver,
                             recordings_.scenarios(),
                             fitted,
                             &problem_,
                             &result_.num_errors,
                             &error)) {
    return;
  }
  result_.num_errors.assign(all_.size(), kNumErrors);
  remark_ = Format(
                ". Each recording counts as %.2g errors, since it is not known how many are "
                "independent: ",
                kNumErrors) +
            error;
}

bool Learner::Begin(bool* any) {
  *any = false;
  if (!Score(&result_.before, all_, &f_before_) || !Score(&result_.centre, all_, &f_centre_)) {
    return false;
  }
  result_.learned = result_.centre;
  CountErrors();
  centre_loses_ = LogF(all_, f_before_) < LogF(all_, f_centre_);
  f_base_ = centre_loses_ ? f_before_ : f_centre_;
  for (const int r : all_) {
    if (f_base_[r] > 0.0) continue;
    result_.kind = Verdict::kKeepYours;
    result_.message =
        "Keep what you have: f of scenario '" + recordings_.name(r) + "' is 0 already";
    return true;
  }
  *any = true;
  f_learned_ = f_centre_;
  bool more;
  return CanPass() || FindNotShown(&more);  // What is not shown cannot be learned by chance.
}

bool Learner::Learn() {
  bool any;
  if (!Begin(&any)) return false;
  for (bool more = any && CanPass(); more;) {
    if (!Maximize(all_, &result_.learned, &f_learned_) || !FindNotShown(&more)) return false;
  }
  if (any && CanPass() && all_.size() >= kFewestToLeaveOut && !LeaveEachOut()) return false;
  const bool passes = any && Passes();
  Values answer = result_.learned;
  if (!passes) {
    // A centre that was given is the answer, unless it loses.
    answer = centre_loses_ ? result_.before : result_.centre;
    if (!options_.centre.empty() && centre_loses_) {
      result_.message += ". The centre loses: x is what it was";
    } else if (any && !options_.centre.empty()) {
      double mean = 0.0;
      for (const int r : all_) mean += std::log(f_centre_[r] / f_before_[r]) / all_.size();
      result_.message =
          Format("x is the centre: f changes by %+.3g %%, and nothing beyond is shown. ",
                 100.0 * std::expm1(mean)) +
          result_.message;
    }
  }
  result_.message += DescribeMoves() + ".";
  Values f;
  if (!Score(&answer, all_, &f)) return false;
  if (result_.learned == result_.centre) result_.summary = recordings_.summary();
  return true;
}

}  // namespace

SafeLearning LearnSafely(const SafeLearningOptions& options, Problem* problem) {
  if (problem) return Learner(options, problem).Run();
  SafeLearning nothing;
  nothing.message = "there is no problem: null";
  return nothing;
}

}  // namespace bilevel
