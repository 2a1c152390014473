#include "bilevel/upper_level/internal/recordings.h"

#include <algorithm>
#include <cmath>

#include "Eigen/QR"
#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/learnable/noise.h"

namespace bilevel {
namespace {

constexpr int kMostFits = 20;
constexpr double kFitTolerance = 1e-9;  // Of f.

}  // namespace

Recordings::Recordings(const SafeLearningOptions& options, Problem* problem)
    : options_(options), problem_(*problem) {}

bool Recordings::Prepare() {
  program_ = problem_.Compile({}, &message_);
  if (!program_) return false;
  for (const Space::Block& block : program_->x.blocks()) {
    if (block.manifold) return Fail("x has a manifold, and the prior knows no way on it");
  }
  for (const double* block : options_.fitted_blocks) {
    if (program_->x.Find(block) < 0) return Fail("a fitted block is no block of x");
  }
  for (int s = 0; s < problem_.num_scenarios(); ++s) {
    Scenario* scenario = problem_.scenario(s);
    weights_before_.push_back(scenario->weight());
    if (scenario->weight() != 0.0 && !Take(scenario)) return false;
  }
  if (scenarios_.empty()) return Fail("no recording has an upper level of residual blocks");
  x_before_.resize(program_->x.size());
  program_->x.ReadUser(x_before_.data());
  y_before_.resize(program_->y.size());
  program_->y.ReadUser(y_before_.data());
  return true;
}

bool Recordings::Take(Scenario* scenario) {
  if (scenario->num_terms(Level::kUpper) > 0) {
    return Fail("a recording's upper level has general terms: its scale is not known");
  }
  ceres::Problem* upper = scenario->upper();
  std::vector<ceres::ResidualBlockId> ids;
  upper->GetResidualBlocks(&ids);
  std::vector<double*> blocks;
  for (const ceres::ResidualBlockId id : ids) {
    upper->GetParameterBlocksForResidualBlock(id, &blocks);
    const bool sees_y = std::any_of(blocks.begin(), blocks.end(), [&](const double* block) {
      return !problem_.IsUpperParameterBlock(block) && !upper->IsParameterBlockConstant(block);
    });
    if (sees_y) continue;
    return Fail("scenario '" + scenario->name() +
                "' has x alone above: a prior is said by centre and prior_sigma");
  }
  if (!ids.empty()) scenarios_.push_back(scenario);
  return true;
}

// A scenario of its own, since what a user's own problem is given cannot be taken back.
Scenario* Recordings::AddPriorScenario() {
  prior_ = problem_.AddScenario("prior of x");
  auto* nothing = problem_.Own(std::make_unique<double>(0.0));
  prior_->lower()->AddResidualBlock(new NormalPrior({0.0}, 1.0), nullptr, nothing);
  return prior_;
}

void Recordings::SetWeights(const std::vector<int>& recordings, const Values& weights) {
  for (int s = 0; s < problem_.num_scenarios(); ++s) problem_.scenario(s)->set_weight(0.0);
  for (size_t k = 0; k < recordings.size(); ++k) {
    scenarios_[recordings[k]]->set_weight(weights[k]);
  }
  if (prior_) prior_->set_weight(1.0);
}

bool Recordings::SolveWith(int max_num_iterations) {
  scored_.clear();
  Solver::Options options = options_.solver;
  options.max_num_iterations = max_num_iterations;
  options.checkpoint = {};
  options.keep_own_y = false;
  options.check_from_start = false;  // Scores are from there.
  Solve(options, &problem_, &summary_);
  counts_ += summary_.lower_solver;
  return summary_.IsSolutionUsable() || Fail(summary_.message);
}

bool Recordings::Score(Values* x, const std::vector<int>& recordings, Values* f) {
  program_->x.WriteUser(x->data());
  if (*x == scored_x_ && recordings == scored_) {
    *f = scored_f_;
    return true;
  }
  program_->y.WriteUser(y_before_.data());
  if (options_.start_y) options_.start_y();
  SetWeights(recordings, Values(recordings.size(), 1.0));
  if (!SolveWith(0)) return false;
  f->clear();
  for (const int r : recordings) {
    f->push_back(kNaN);
    if (!Fit(scenarios_[r], &f->back()) || !std::isfinite(f->back())) {
      return Fail("f of scenario '" + name(r) + "' cannot be evaluated");
    }
  }
  program_->x.ReadUser(x->data());
  scored_ = recordings;
  scored_x_ = *x;
  scored_f_ = *f;
  return true;
}

bool Recordings::Fit(Scenario* scenario, double* f) const {
  ceres::Problem* upper = scenario->upper();
  ceres::Problem::EvaluateOptions options;
  std::vector<int> sizes;
  int num = 0;
  for (double* block : options_.fitted_blocks) {
    if (!upper->HasParameterBlock(block)) continue;
    options.parameter_blocks.push_back(block);
    sizes.push_back(upper->ParameterBlockSize(block));
    num += sizes.back();
  }
  if (num == 0) return upper->Evaluate({}, f, nullptr, nullptr, nullptr);
  const auto move = [&](const Vector& step) {
    const double* from = step.data();
    for (size_t b = 0; b < sizes.size(); ++b) {
      for (int i = 0; i < sizes[b]; ++i) options.parameter_blocks[b][i] += *from++;
    }
  };
  Vector step = Vector::Zero(num);
  *f = kInfinity;
  for (int k = 0; k < kMostFits; ++k) {
    double value;
    std::vector<double> residuals;
    ceres::CRSMatrix jacobian;
    if (!upper->Evaluate(options, &value, &residuals, nullptr, &jacobian)) return false;
    if (!(value < *f)) {  // As good as it gets.
      move(-step);
      return true;
    }
    const bool is_done = *f - value <= kFitTolerance * value;
    *f = value;
    if (is_done) return true;
    const Matrix j = Eigen::Map<const Eigen::SparseMatrix<double, Eigen::RowMajor>>(
        jacobian.num_rows,
        jacobian.num_cols,
        static_cast<Eigen::Index>(jacobian.values.size()),
        jacobian.rows.data(),
        jacobian.cols.data(),
        jacobian.values.data());
    const Eigen::Map<const Vector> r(residuals.data(), jacobian.num_rows);
    step = -j.colPivHouseholderQr().solve(r);
    move(step);
  }
  return upper->Evaluate({}, f, nullptr, nullptr, nullptr);
}

void Recordings::Restore(bool values) {
  if (values) {  // It may have failed late.
    program_->x.WriteUser(x_before_.data());
    program_->y.WriteUser(y_before_.data());
  }
  for (size_t s = 0; s < weights_before_.size(); ++s) {
    problem_.scenario(static_cast<int>(s))->set_weight(weights_before_[s]);
  }
  if (prior_) prior_->set_weight(0.0);
  if (values) return;
  SolveWith(0);  // y of what has no upper level, too.
}

}  // namespace bilevel
