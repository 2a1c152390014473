#include "bilevel/upper_level/safe_learning.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/learnable/noise.h"
#include "bilevel/program/program.h"
#include "bilevel/upper_level/internal/coordinate_prior.h"
#include "bilevel/upper_level/internal/gain_by_chance.h"

namespace bilevel {
namespace {

constexpr int kFewestToLeaveOut = 3, kMostRounds = 20;
constexpr double kRoundTolerance = 1e-4;  // Of F.
constexpr double kShownShare = 0.1;       // Of the prior's information: the data show a coordinate.
constexpr double kVanished = 1e-12;       // Of f at the start: no more is left.
constexpr double kFrozenShare = 1e-4;     // Of the prior's sigma, where a coordinate is held.

std::string Format(const char* format, double a, double b) {
  char text[300];
  std::snprintf(text, sizeof(text), format, a, b);
  return text;
}

using Values = std::vector<double>;

class Learner {
 public:
  Learner(const SafeLearningOptions& options, Problem* problem)
      : options_(options), problem_(*problem) {}

  SafeLearning Run() {
    result_.message.clear();
    if (!Prepare()) return result_;
    const std::string thrown = Thrown([&] { result_.ok = Learn(); });
    if (!thrown.empty()) Fail("learning" + thrown);
    Restore();
    return result_;
  }

 private:
  bool Fail(const std::string& why) {
    result_.message = why;
    return false;
  }
  bool Prepare();
  void AddPrior();
  void NameCoordinates();
  bool Learn();
  void Restore();

  // Recordings weighted as said, all others left out.
  void SetWeights(const std::vector<int>& recordings, const Values& weights);
  bool SolveWith(int max_num_iterations);
  // f of recordings at x, each by a lower solve from the user's y.
  bool Score(const Values& x, const std::vector<int>& recordings, Values* f);
  double LogF(const Values& f) const;
  // n / (2 f), for an f that may have vanished.
  double Weight(int recording, double f) const {
    const double least = f_base_.empty() ? 0.0 : kVanished * f_base_[recording];
    return 0.5 * options_.num_errors_a_recording / std::max(f, least);
  }
  bool SeesY(ceres::Problem* upper) const;
  double LogPrior(const Values& x) const;
  // The maximum a posteriori of recordings, from the centre, and f there.
  bool Maximize(const std::vector<int>& recordings, Values* x, Values* f);
  // Whether coordinates are found of which the data say next to nothing, by Gauss-Newton.
  bool FindNotShown(bool* any);
  bool LeaveEachOut();
  bool Passes();
  std::string DescribeMoves() const;

  const SafeLearningOptions& options_;
  Problem& problem_;
  std::unique_ptr<Program> program_;  // For the user's memory of x and y.
  std::vector<Scenario*> recordings_;
  std::vector<int> all_;
  std::vector<std::string> names_;  // Of coordinates.
  Values weights_before_, y_before_;
  Scenario* prior_ = nullptr;
  Values *centre_ = nullptr, *sigma_ = nullptr;  // Of the prior, owned by the problem.
  std::vector<char> is_held_;
  Values f_before_, f_centre_, f_base_, f_learned_;  // f_base_: the better of the first two.
  SafeLearning result_;
};

bool Learner::Prepare() {
  std::string error;
  if (!options_.IsValid(&error)) return Fail(error);
  program_ = problem_.Compile({}, &error);
  if (!program_) return Fail(error);
  for (const Space::Block& block : program_->x.blocks()) {
    if (block.manifold) return Fail("x has a manifold, and the prior knows no way on it");
  }
  for (int s = 0; s < problem_.num_scenarios(); ++s) {
    Scenario* scenario = problem_.scenario(s);
    weights_before_.push_back(scenario->weight());
    if (scenario->weight() == 0.0) continue;
    if (scenario->num_terms(Level::kUpper) > 0) {
      return Fail("a recording's upper level has general terms: its scale is not known");
    }
    if (scenario->upper()->NumResidualBlocks() == 0) continue;
    if (!SeesY(scenario->upper())) {
      return Fail("scenario '" + scenario->name() +
                  "' has x alone above: a prior is said by centre and prior_sigma");
    }
    all_.push_back(static_cast<int>(recordings_.size()));
    recordings_.push_back(scenario);
  }
  if (recordings_.empty()) return Fail("no recording has an upper level of residual blocks");
  result_.before.resize(program_->x.size());
  program_->x.ReadUser(result_.before.data());
  y_before_.resize(program_->y.size());
  program_->y.ReadUser(y_before_.data());
  result_.centre = options_.centre.empty() ? result_.before : options_.centre;
  if (result_.centre.size() != result_.before.size()) {
    return Fail("centre has " + std::to_string(result_.centre.size()) + " values, and x has " +
                std::to_string(result_.before.size()));
  }
  is_held_.assign(result_.before.size(), 0);
  NameCoordinates();
  AddPrior();
  return true;
}

bool Learner::SeesY(ceres::Problem* upper) const {
  std::vector<double*> blocks;
  upper->GetParameterBlocks(&blocks);
  return std::any_of(blocks.begin(), blocks.end(), [&](const double* block) {
    return !problem_.IsUpperParameterBlock(block) && !upper->IsParameterBlockConstant(block);
  });
}

void Learner::NameCoordinates() {
  const std::vector<Space::Block>& blocks = program_->x.blocks();
  for (size_t b = 0; b < blocks.size(); ++b) {
    const std::string name = problem_.NameOf(blocks[b].user, "x block " + std::to_string(b));
    for (int i = 0; i < blocks[b].size; ++i) {
      names_.push_back(blocks[b].size == 1 ? name : name + "[" + std::to_string(i) + "]");
    }
  }
}

// A scenario of its own, since what a user's own problem is given cannot be taken back.
void Learner::AddPrior() {
  centre_ = problem_.Own(std::make_unique<Values>(result_.centre));
  sigma_ = problem_.Own(std::make_unique<Values>(result_.centre.size(), options_.prior_sigma));
  prior_ = problem_.AddScenario("prior of x");
  auto* nothing = problem_.Own(std::make_unique<double>(0.0));
  prior_->lower()->AddResidualBlock(new NormalPrior({0.0}, 1.0), nullptr, nothing);
  for (const Space::Block& block : program_->x.blocks()) {
    prior_->upper()->AddResidualBlock(
        new CoordinatePrior(
            centre_->data() + block.offset, sigma_->data() + block.offset, block.size),
        nullptr,
        block.user);
  }
}

void Learner::SetWeights(const std::vector<int>& recordings, const Values& weights) {
  for (int s = 0; s < problem_.num_scenarios(); ++s) problem_.scenario(s)->set_weight(0.0);
  for (size_t k = 0; k < recordings.size(); ++k) {
    recordings_[recordings[k]]->set_weight(weights[k]);
  }
  prior_->set_weight(1.0);
}

bool Learner::SolveWith(int max_num_iterations) {
  Solver::Options options = options_.solver;
  options.max_num_iterations = max_num_iterations;
  options.checkpoint = {};
  options.keep_own_y = false;
  Solver::Summary summary;
  Solve(options, &problem_, &summary);
  if (max_num_iterations > 0) result_.summary = summary;
  return summary.IsSolutionUsable() || Fail(summary.message);
}

bool Learner::Score(const Values& x, const std::vector<int>& recordings, Values* f) {
  program_->x.WriteUser(x.data());
  program_->y.WriteUser(y_before_.data());
  SetWeights(recordings, Values(recordings.size(), 1.0));
  if (!SolveWith(0)) return false;
  f->clear();
  for (const int r : recordings) {
    double cost = kNaN;
    if (!recordings_[r]->upper()->Evaluate({}, &cost, nullptr, nullptr, nullptr) ||
        !std::isfinite(cost)) {
      return Fail("f of scenario '" + recordings_[r]->name() + "' cannot be evaluated");
    }
    f->push_back(cost);
  }
  return true;
}

double Learner::LogF(const Values& f) const {
  double sum = 0.0;
  for (const double value : f) sum += 0.5 * options_.num_errors_a_recording * std::log(value);
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
  if (!Score(*x, recordings, f)) return false;
  double least = LogF(*f) + LogPrior(*x);
  // Where a recording has no error left, there is nothing more to learn from it.
  for (int round = 0; round < kMostRounds && std::isfinite(least); ++round) {
    Values weights, there(x->size()), f_there;
    for (size_t k = 0; k < f->size(); ++k) weights.push_back(Weight(recordings[k], (*f)[k]));
    SetWeights(recordings, weights);
    if (!SolveWith(options_.solver.max_num_iterations)) return false;
    program_->x.ReadUser(there.data());
    if (!Score(there, recordings, &f_there)) return false;
    const double objective = LogF(f_there) + LogPrior(there);
    const double gain = least - objective;
    if (!(gain > 0.0)) break;
    *x = there;
    *f = f_there;
    least = objective;
    if (gain < kRoundTolerance) break;
  }
  program_->x.WriteUser(x->data());
  return true;
}

bool Learner::FindNotShown(bool* any) {
  Values weights;
  for (const int r : all_) weights.push_back(Weight(r, f_learned_[r]));
  program_->x.WriteUser(result_.learned.data());
  SetWeights(all_, weights);
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
    result_.standard_errors.push_back(is_held_[j] ? options_.prior_sigma
                                                  : std::sqrt(std::max(0.0, covariance(j, j))));
    if (covariance(j, j) > 0.0) free.push_back(j);
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
    if (is_held_[j] || information(a, a) - of_prior >= kShownShare * of_prior) continue;
    is_held_[j] = 1;
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
    if (!Maximize(others, &x, &f) || !Score(x, {r}, &f)) return false;
    result_.log_ratios.push_back(std::log(f[0] / f_base_[r]));
  }
  return true;
}

bool Learner::Passes() {
  const int num_moving = static_cast<int>(std::count(is_held_.begin(), is_held_.end(), 0));
  if (num_moving == 0) {
    result_.message = "Not enough data: they show no coordinate of x";
    return false;
  }
  const size_t n = result_.log_ratios.size();
  if (n == 0) {
    const double num_errors = options_.num_errors_a_recording * static_cast<double>(all_.size());
    result_.gain = LogF(f_base_) - LogF(f_learned_) - LogPrior(result_.learned);
    result_.needed_gain = GainByChance(num_errors, num_moving);
    const bool passes = result_.gain > result_.needed_gain;
    result_.kind = passes ? Verdict::kUseLearned : Verdict::kNotEnoughData;
    result_.message = (passes ? "Use the learned values: the log-posterior gains "
                              : "Not enough data: the log-posterior gains ") +
                      Format("%.3g, and %.3g would be chance", result_.gain, result_.needed_gain) +
                      (passes ? "" : "; three recordings or more would tell");
    return passes;
  }
  const Eigen::Map<const Vector> ratios(result_.log_ratios.data(), static_cast<Eigen::Index>(n));
  const double mean = ratios.mean();
  const double error =
      std::sqrt((ratios.array() - mean).square().sum() / double(n - 1) / double(n));
  const std::string figures =
      Format("f of a recording left out changes by %+.1f %%", 100.0 * std::expm1(mean), 0.0) +
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
  for (size_t j = 0; j < names_.size(); ++j) {
    if (is_held_[j]) continue;
    const double move = result_.learned[j] - result_.centre[j];
    text += (text.empty() ? ". The maximum a posteriori moves " : ", ") + names_[j] + " by " +
            Format("%+.3g", move, 0.0);
    if (const double error = result_.standard_errors[j]; error > 0.0) {
      text += Format(" (%.1f standard errors)", move / error, 0.0);
    }
  }
  for (size_t k = 0; k < result_.not_shown.size(); ++k) {
    text += (k == 0 ? ". What the data do not show stays: " : ", ") + result_.not_shown[k];
  }
  return text + ". This holds for recordings like these";
}

bool Learner::Learn() {
  if (!Score(result_.before, all_, &f_before_) || !Score(result_.centre, all_, &f_centre_)) {
    return false;
  }
  const bool centre_loses = LogF(f_before_) < LogF(f_centre_);
  f_base_ = centre_loses ? f_before_ : f_centre_;
  for (const int r : all_) {
    if (f_base_[r] > 0.0) continue;
    return Fail("f of scenario '" + recordings_[r]->name() + "' is 0 already: none is better");
  }
  bool any = true;
  while (any) {
    if (!Maximize(all_, &result_.learned, &f_learned_) || !FindNotShown(&any)) return false;
  }
  if (all_.size() >= kFewestToLeaveOut && !LeaveEachOut()) return false;
  const bool passes = Passes();
  Values answer = result_.learned;
  if (!passes) {
    // A centre that was given is the answer, unless it loses.
    answer = centre_loses ? result_.before : result_.centre;
    if (!options_.centre.empty()) {
      result_.message +=
          centre_loses ? ". The centre loses: x is what it was" : ". x is the centre";
    }
  }
  result_.message += DescribeMoves() + ".";
  Values f;
  return Score(answer, all_, &f);
}

void Learner::Restore() {
  if (!result_.ok) {  // It may have failed late.
    program_->x.WriteUser(result_.before.data());
    program_->y.WriteUser(y_before_.data());
    result_.kind = Verdict::kNotEnoughData;
  }
  for (size_t s = 0; s < weights_before_.size(); ++s) {
    problem_.scenario(static_cast<int>(s))->set_weight(weights_before_[s]);
  }
  prior_->set_weight(0.0);
  if (result_.ok) SolveWith(0);  // y of what has no upper level, too.
}

}  // namespace

SafeLearning LearnSafely(const SafeLearningOptions& options, Problem* problem) {
  if (problem) return Learner(options, problem).Run();
  SafeLearning nothing;
  nothing.message = "there is no problem: null";
  return nothing;
}

}  // namespace bilevel
