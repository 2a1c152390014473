// What random problems hand to the library, and what the check evaluates by itself.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "bilevel/learnable/losses.h"
#include "bilevel/learnable/noise.h"
#include "campaign/random_problems.h"

namespace bilevel {
namespace {

// All ambient coordinates of a level are differentiated in passes of so many.
constexpr int kStride = 8;

template <typename Cost>
ceres::CostFunction* Fill(Cost* cost, const RandomResidual& residual) {
  for (const int size : residual.sizes) cost->AddParameterBlock(size);
  cost->SetNumResiduals(residual.num_residuals());
  return cost;
}

// The objective of blocks of these sizes, by recursion over the sizes it is instantiated for.
template <int... Ns>
std::unique_ptr<Objective> Make(const RandomFunction& function) {
  return std::make_unique<AutoDiffObjective<RandomFunction, Ns...>>(function);
}

std::unique_ptr<Objective> MakeObjective(const RandomFunction& function) {
  using Factory = std::unique_ptr<Objective> (*)(const RandomFunction&);
  const std::vector<int>& n = function.residual.sizes;
  static const Factory one[] = {Make<1>, Make<2>, Make<3>, Make<4>, Make<5>, Make<6>, Make<7>};
  static const Factory two[7][3] = {{Make<1, 1>, Make<1, 2>, Make<1, 3>},
                                    {Make<2, 1>, Make<2, 2>, Make<2, 3>},
                                    {Make<3, 1>, Make<3, 2>, Make<3, 3>},
                                    {Make<4, 1>, Make<4, 2>, Make<4, 3>},
                                    {nullptr, nullptr, nullptr},
                                    {Make<6, 1>, Make<6, 2>, Make<6, 3>},
                                    {Make<7, 1>, Make<7, 2>, Make<7, 3>}};
  if (n.size() == 1) return one[n[0] - 1](function);
  if (n.size() != 2 || n[1] > 3 || !two[n[0] - 1][0]) return nullptr;
  return two[n[0] - 1][n[1] - 1](function);
}

}  // namespace

void RandomProblem::BuildProblem() {
  problem_ = std::make_unique<Problem>();
  scenarios_ = {problem_->scenario(0)};
  for (int s = 1; s < num_scenarios_; ++s) {
    scenarios_.push_back(problem_->AddScenario("s" + std::to_string(s), weights_[s]));
  }
  DeclareBlocks();
  for (RandomTerm& term : terms_) {
    if (term.form == RandomTerm::kObjective && !MakeObjective(term.function)) {
      term.form = RandomTerm::kExact;
      term.function.sine = 0.0;
    }
    AddTerm(term);
  }
}

void RandomProblem::DeclareBlocks() {
  for (RandomBlock& block : blocks_) {
    double* values = block.values.data();
    problem_->SetParameterName(values, block.name);
    if (block.role == RandomBlock::kUpper) {
      problem_->AddUpperParameterBlock(
          values, block.size(), MakeManifold(block.kind, block.size()));
      for (int i = 0; i < block.size(); ++i) {
        if (std::isfinite(block.lower[i])) {
          problem_->SetParameterLowerBound(values, i, block.lower[i]);
        }
        if (std::isfinite(block.upper[i])) {
          problem_->SetParameterUpperBound(values, i, block.upper[i]);
        }
      }
      continue;
    }
    for (int s = 0; s < num_scenarios_; ++s) {
      if (block.scenario >= 0 && block.scenario != s) continue;
      ceres::Problem* lower = scenarios_[s]->lower();
      lower->AddParameterBlock(values, block.size(), MakeManifold(block.kind, block.size()));
      if (block.role == RandomBlock::kConstant) lower->SetParameterBlockConstant(values);
      for (int i = 0; i < block.size(); ++i) {
        if (std::isfinite(block.lower[i])) lower->SetParameterLowerBound(values, i, block.lower[i]);
        if (std::isfinite(block.upper[i])) lower->SetParameterUpperBound(values, i, block.upper[i]);
      }
    }
  }
}

ceres::CostFunction* RandomProblem::MakeCost(const RandomTerm& term) {
  const RandomResidual& residual = term.function.residual;
  if (term.form == RandomTerm::kCeres) {
    return Fill(
        new ceres::DynamicAutoDiffCostFunction<RandomResidual>(new RandomResidual(residual)),
        residual);
  }
  return Fill(new DynamicAutoDiffCostFunction<RandomResidual>(new RandomResidual(residual)),
              residual);
}

ceres::LossFunction* RandomProblem::BuildShape(const RandomLoss& loss) {
  const double a = loss.scale;
  if (!loss.is_ours) {
    switch (loss.shape) {
      case RandomLoss::kHuber:
        return new ceres::HuberLoss(a);
      case RandomLoss::kCauchy:
        return new ceres::CauchyLoss(a);
      case RandomLoss::kSoftLOne:
        return new ceres::SoftLOneLoss(a);
      case RandomLoss::kArctan:
        return new ceres::ArctanLoss(a);
      case RandomLoss::kTolerant:
        return new ceres::TolerantLoss(a, 0.5 * a);
      case RandomLoss::kTukey:
        return new ceres::TukeyLoss(a);
      default:
        return nullptr;
    }
  }
  double* learned = loss.log_scale < 0 ? nullptr : blocks_[loss.log_scale].values.data();
  const auto make = [&](auto type) -> ceres::LossFunction* {
    using Loss = typename decltype(type)::type;
    return learned ? new Loss(learned) : new Loss(a);
  };
  switch (loss.shape) {
    case RandomLoss::kHuber:
      return make(std::common_type<HuberLoss>());
    case RandomLoss::kCauchy:
      return make(std::common_type<CauchyLoss>());
    case RandomLoss::kTukey:
      return make(std::common_type<TukeyLoss>());
    case RandomLoss::kGemanMcClure:
      return make(std::common_type<GemanMcClureLoss>());
    case RandomLoss::kWelsch:
      return make(std::common_type<WelschLoss>());
    case RandomLoss::kBarron:
      return new BarronLoss(blocks_[loss.alpha].values.data(), learned);
    default:
      return nullptr;
  }
}

ceres::LossFunction* RandomProblem::BuildLoss(const RandomLoss& loss) {
  ceres::LossFunction* base = BuildShape(loss);
  if (loss.wrapper == RandomLoss::kPlain) return base;
  double* parameter = blocks_[loss.wrapper_block].values.data();
  switch (loss.wrapper) {
    case RandomLoss::kNoiseScale:
      return new NoiseScaleLoss(base, parameter, ceres::TAKE_OWNERSHIP);
    case RandomLoss::kWeighted:
      return new WeightedLoss(base, parameter, ceres::TAKE_OWNERSHIP);
    default:
      return new SwitchLoss(base, parameter, ceres::TAKE_OWNERSHIP);
  }
}

void RandomProblem::AddObjective(const RandomTerm& term) {
  std::vector<Scenario::TermBlock> blocks;
  for (const int b : term.blocks) blocks.push_back({blocks_[b].values.data(), blocks_[b].size()});
  scenarios_[term.scenario]->AddTerm(term.level, MakeObjective(term.function), blocks);
}

void RandomProblem::AddTerm(const RandomTerm& term) {
  if (term.form == RandomTerm::kObjective) return AddObjective(term);
  Scenario* scenario = scenarios_[term.scenario];
  ceres::Problem* level = term.level == Level::kUpper ? scenario->upper() : scenario->lower();
  std::vector<double*> blocks;
  for (const int b : term.blocks) blocks.push_back(blocks_[b].values.data());
  ceres::CostFunction* cost = MakeCost(term);
  ceres::LossFunction* loss = BuildLoss(term.loss);
  if (term.log_sigmas < 0) {
    level->AddResidualBlock(cost, loss, blocks);
  } else {
    ScalarNoise(blocks_[term.log_sigmas].values.data(), cost->num_residuals())
        .AddResidualBlock(cost, loss, blocks, level);
  }
  for (const int b : term.blocks) {
    const RandomBlock& block = blocks_[b];
    double* values = blocks_[b].values.data();
    if (term.level == Level::kUpper && block.role == RandomBlock::kConstant) {
      level->SetParameterBlockConstant(values);
    }
  }
}

// ---- The check's own evaluation.

BlockValues RandomProblem::Values() const {
  BlockValues values;
  for (const RandomBlock& block : blocks_) values.push_back(block.values);
  return values;
}

template <typename T>
T RandomProblem::Value(const RandomTerm& term, const std::vector<std::vector<T>>& values) const {
  using std::exp;
  std::vector<const T*> blocks;
  for (const int b : term.blocks) blocks.push_back(values[b].data());
  T result(0.0);
  if (term.form == RandomTerm::kObjective) {
    term.function.Sum(blocks.data(), &result);
    return result;
  }
  T s = term.function.residual.SquaredNorm(blocks.data());
  if (term.log_sigmas >= 0) s *= exp(-2.0 * values[term.log_sigmas][0]);
  const RandomLoss& loss = term.loss;
  const T w = loss.wrapper_block < 0 ? T(0.0) : values[loss.wrapper_block][0];
  if (loss.wrapper == RandomLoss::kNoiseScale) s *= exp(-2.0 * w);
  const T a = loss.log_scale < 0 ? T(loss.scale) : exp(values[loss.log_scale][0]);
  const T alpha = loss.alpha < 0 ? T(1.0) : values[loss.alpha][0];
  result = RhoOfShape(loss.shape, s, a, alpha);
  if (loss.wrapper == RandomLoss::kWeighted) result *= exp(w);
  if (loss.wrapper == RandomLoss::kSwitch) result = result / (1.0 + exp(-w));
  return 0.5 * result;
}

double RandomProblem::Evaluate(Level level,
                               int scenario,
                               const BlockValues& values,
                               double* size) const {
  double sum = 0.0;
  for (const RandomTerm& term : terms_) {
    if (term.level != level || term.scenario != scenario) continue;
    const double value = Value(term, values);
    sum += value;
    if (size) *size += std::abs(value);
  }
  return sum;
}

double RandomProblem::LargestSquare(const BlockValues& values) const {
  double largest = 0.0;
  for (const RandomTerm& term : terms_) {
    std::vector<const double*> blocks;
    for (const int b : term.blocks) blocks.push_back(values[b].data());
    largest = std::max(largest, term.function.residual.SquaredNorm(blocks.data()));
  }
  return largest;
}

double RandomProblem::F(const BlockValues& values, double* size) const {
  double sum = 0.0;
  if (size) *size = 0.0;
  for (int s = 0; s < num_scenarios_; ++s) {
    double own = 0.0;
    sum += weights_[s] * Evaluate(Level::kUpper, s, values, &own);
    if (size) *size += weights_[s] * own;
  }
  return sum;
}

std::vector<double> RandomProblem::Gradient(Level level,
                                            int scenario,
                                            const std::vector<int>& of,
                                            const BlockValues& values) const {
  using Jet = ceres::Jet<double, kStride>;
  std::vector<std::vector<Jet>> jets;
  for (const auto& block : values) jets.emplace_back(block.begin(), block.end());
  std::vector<double> result;
  for (const int b : of) {
    const int n = blocks_[b].size(), m = blocks_[b].tangent_size();
    Eigen::VectorXd ambient = Eigen::VectorXd::Zero(n);
    for (int i = 0; i < n; ++i) jets[b][i].v[i] = 1.0;  // No block is longer than a pass.
    for (const RandomTerm& term : terms_) {
      if (term.level == level && term.scenario == scenario) {
        ambient += Value(term, jets).v.head(n);
      }
    }
    for (int i = 0; i < n; ++i) jets[b][i].v[i] = 0.0;
    if (blocks_[b].manifold) {
      Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> plus(n, m);
      blocks_[b].manifold->PlusJacobian(values[b].data(), plus.data());
      ambient = (plus.transpose() * ambient).eval();
    }
    result.insert(result.end(), ambient.data(), ambient.data() + ambient.size());
  }
  return result;
}

}  // namespace bilevel
