#include "bilevel/learnable/noise.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <unordered_set>
#include <utility>

#include "Eigen/Core"
#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/learnable/internal/whitened.h"
#include "bilevel/terms/objective.h"

namespace bilevel {
namespace {

using Entries = std::vector<NoiseModel::Entry>;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// count log det S / 2, linear in theta.
class HalfLogDeterminantTerm final : public Objective {
 public:
  explicit HalfLogDeterminantTerm(std::vector<double> slope) : slope_(std::move(slope)) {}
  bool Evaluate(double const* const* blocks,
                const Batch& /*batch*/,
                double* value,
                double** gradients) const override {
    *value = 0.0;
    for (size_t i = 0; i < slope_.size(); ++i) *value += slope_[i] * blocks[0][i];
    if (gradients && gradients[0]) std::copy(slope_.begin(), slope_.end(), gradients[0]);
    return true;
  }
  bool HessianProduct(double const* const* /*blocks*/,
                      const Batch& /*batch*/,
                      double const* const* /*direction*/,
                      double** products) const override {
    if (products[0]) std::fill_n(products[0], slope_.size(), 0.0);
    return true;
  }
  bool has_hessian_product() const override { return true; }

 private:
  std::vector<double> slope_;
};

std::string Join(const std::vector<double>& values) {
  std::string text;
  for (const double v : values) text += (text.empty() ? "" : ", ") + Number(v);
  return text;
}

Entries DiagonalEntries(int n, bool shared) {
  Entries entries;
  for (int i = 0; i < n; ++i) entries.push_back({i, i, shared ? 0 : i, -1});
  return entries;
}

// W = L': row i of W is column i of L.
Entries FullEntries(int n) {
  Entries entries;
  for (int i = 0; i < n; ++i) {
    for (int j = i; j < n; ++j) {
      entries.push_back({i, j, FullNoise::NumParameters(j) + i, i == j ? 1 : 0});
    }
  }
  return entries;
}

}  // namespace

NoiseModel::NoiseModel(double* parameters,
                       int num_parameters,
                       int num_residuals,
                       std::vector<Entry> entries)
    : parameters_(parameters),
      num_parameters_(num_parameters),
      num_residuals_(num_residuals),
      entries_(std::move(entries)) {}

ceres::CostFunction* NoiseModel::Whiten(ceres::CostFunction* cost,
                                        ceres::Ownership ownership) const {
  if (cost->num_residuals() != num_residuals_) return nullptr;
  if (auto* exact = dynamic_cast<SecondOrderCostFunction*>(cost)) {
    return new ExactWhitened(exact, ownership, entries_, num_parameters_);
  }
  return new Whitened<ceres::CostFunction>(cost, ownership, entries_, num_parameters_);
}

ceres::ResidualBlockId NoiseModel::AddResidualBlock(ceres::CostFunction* cost,
                                                    ceres::LossFunction* loss,
                                                    const std::vector<double*>& blocks,
                                                    ceres::Problem* problem) const {
  ceres::CostFunction* whitened = Whiten(cost);
  if (!whitened) return nullptr;
  std::vector<double*> all = blocks;
  all.push_back(parameters_);
  return problem->AddResidualBlock(whitened, loss, all);
}

bool NoiseModel::Apply(std::vector<ceres::ResidualBlockId>* ids,
                       Problem* problem,
                       std::string* error,
                       int scenario_index,
                       bool wrapped_problems_own_nothing) const {
  if (scenario_index < 0 || scenario_index >= problem->num_scenarios()) {
    return Refuse("there is no scenario " + std::to_string(scenario_index), error);
  }
  Scenario* scenario = problem->scenario(scenario_index);
  const bool wrapped = scenario->is_wrapped(Level::kLower);
  if (wrapped && !wrapped_problems_own_nothing) {
    return Refuse(
        "the scenario wraps a ceres::Problem, which may delete cost functions removed from it: "
        "make it with DO_NOT_TAKE_OWNERSHIP and say so by wrapped_problems_own_nothing",
        error);
  }
  ceres::Problem& lower = *scenario->lower();
  std::vector<ceres::ResidualBlockId> known;
  lower.GetResidualBlocks(&known);
  std::unordered_set<ceres::ResidualBlockId> left(known.begin(), known.end());
  std::vector<double*> blocks;
  for (size_t i = 0; i < ids->size(); ++i) {
    const std::string name = "residual block " + std::to_string(i) + " of those given ";
    if (left.erase((*ids)[i]) == 0) {
      return Refuse(name + "is not in the lower problem, or was given twice", error);
    }
    const int num = lower.GetCostFunctionForResidualBlock((*ids)[i])->num_residuals();
    if (num != num_residuals_) {
      return Refuse(name + "has " + std::to_string(num) + " residuals, its noise is for " +
                        std::to_string(num_residuals_),
                    error);
    }
    lower.GetParameterBlocksForResidualBlock((*ids)[i], &blocks);
    if (std::find(blocks.begin(), blocks.end(), parameters_) != blocks.end()) {
      return Refuse(name + "has this noise already", error);
    }
  }
  for (ceres::ResidualBlockId& id : *ids) {
    auto* cost = const_cast<ceres::CostFunction*>(lower.GetCostFunctionForResidualBlock(id));
    auto* loss = const_cast<ceres::LossFunction*>(lower.GetLossFunctionForResidualBlock(id));
    lower.GetParameterBlocksForResidualBlock(id, &blocks);
    if (!wrapped) problem->Adopt(cost, loss);
    lower.RemoveResidualBlock(id);
    ceres::CostFunction* whitened = problem->Own(
        std::unique_ptr<ceres::CostFunction>(Whiten(cost, ceres::DO_NOT_TAKE_OWNERSHIP)));
    blocks.push_back(parameters_);
    id = lower.AddResidualBlock(whitened, loss, blocks);
  }
  return true;
}

double NoiseModel::HalfLogDeterminant() const {
  double sum = 0.0;
  for (const Entry& e : entries_) {
    if (e.row == e.column) sum -= e.sign * parameters_[e.parameter];
  }
  return sum;
}

void NoiseModel::AddHalfLogDeterminant(double count,
                                       Problem* problem,
                                       Level level,
                                       int scenario) const {
  std::vector<double> slope(num_parameters_, 0.0);
  for (const Entry& e : entries_) {
    if (e.row == e.column) slope[e.parameter] -= count * e.sign;
  }
  problem->scenario(scenario)->AddTerm(
      level, std::make_unique<HalfLogDeterminantTerm>(slope), {{parameters_, num_parameters_}});
}

ScalarNoise::ScalarNoise(double* log_sigma, int num_residuals)
    : NoiseModel(log_sigma, 1, num_residuals, DiagonalEntries(num_residuals, true)) {}

std::string ScalarNoise::Describe(const std::string& name) const {
  return "const double " + name + "_sigma = " + Number(std::exp(parameters()[0])) + ";";
}

DiagonalNoise::DiagonalNoise(double* log_sigmas, int num_residuals)
    : NoiseModel(log_sigmas, num_residuals, num_residuals, DiagonalEntries(num_residuals, false)) {}

std::string DiagonalNoise::Describe(const std::string& name) const {
  std::vector<double> sigmas(parameters(), parameters() + num_parameters());
  for (double& s : sigmas) s = std::exp(s);
  return "const double " + name + "_sigma[" + std::to_string(sigmas.size()) + "] = {" +
         Join(sigmas) + "};";
}

FullNoise::FullNoise(double* log_cholesky, int num_residuals)
    : NoiseModel(
          log_cholesky, NumParameters(num_residuals), num_residuals, FullEntries(num_residuals)) {}

bool FullNoise::SetInformation(const double* information) {
  const int n = num_residuals();
  Eigen::MatrixXd l;
  if (!Cholesky(Eigen::Map<const RowMatrix>(information, n, n), &l)) return false;
  if (!l.allFinite() || !(l.diagonal().minCoeff() > 0.0)) return false;
  for (const Entry& e : entries()) {
    const double value = l(e.column, e.row);
    parameters()[e.parameter] = e.sign == 0 ? value : std::log(value);
  }
  return true;
}

void FullNoise::GetInformation(double* information) const {
  const int n = num_residuals();
  RowMatrix w = RowMatrix::Zero(n, n);
  for (const Entry& e : entries()) w(e.row, e.column) = e.Value(parameters());
  Eigen::Map<RowMatrix>(information, n, n) = w.transpose() * w;
}

std::string FullNoise::Describe(const std::string& name) const {
  const int n = num_residuals();
  std::vector<double> w(static_cast<size_t>(n) * n, 0.0);
  for (const Entry& e : entries()) w[e.row * n + e.column] = e.Value(parameters());
  const std::string type =
      "Eigen::Matrix<double, " + std::to_string(n) + ", " + std::to_string(n) + ">";
  return "const " + type + " " + name + "_sqrt_information =\n    (" + type + "() << " + Join(w) +
         ").finished();";
}

LinearPrior::LinearPrior(int num_residuals, int size) {
  set_num_residuals(num_residuals);
  mutable_parameter_block_sizes()->push_back(size);
}

bool LinearPrior::EvaluateHessian(double const* const* /*parameters*/,
                                  const double* /*weights*/,
                                  double* hessian) const {
  const size_t size = parameter_block_sizes()[0];
  std::fill_n(hessian, size * size, 0.0);
  return true;
}

bool LinearPrior::EvaluateHessianProduct(double const* const* /*parameters*/,
                                         const double* /*weights*/,
                                         const double* /*direction*/,
                                         double* product) const {
  std::fill_n(product, parameter_block_sizes()[0], 0.0);
  return true;
}

NormalPrior::NormalPrior(std::vector<double> mean, double sigma)
    : NormalPrior(mean, std::vector<double>(mean.size(), sigma)) {}

NormalPrior::NormalPrior(std::vector<double> mean, std::vector<double> sigma)
    : LinearPrior(static_cast<int>(mean.size()), static_cast<int>(mean.size())),
      mean_(std::move(mean)),
      sigma_(std::move(sigma)) {}

bool NormalPrior::Evaluate(double const* const* parameters,
                           double* residuals,
                           double** jacobians) const {
  const int n = num_residuals();
  for (int i = 0; i < n; ++i) residuals[i] = (parameters[0][i] - mean_[i]) / sigma_[i];
  if (jacobians && jacobians[0]) {
    std::fill_n(jacobians[0], n * n, 0.0);
    for (int i = 0; i < n; ++i) jacobians[0][i * n + i] = 1.0 / sigma_[i];
  }
  return true;
}

SmoothnessPrior::SmoothnessPrior(int size, double sigma)
    : LinearPrior(size - 1, size), sigma_(sigma) {}

bool SmoothnessPrior::Evaluate(double const* const* parameters,
                               double* residuals,
                               double** jacobians) const {
  const int n = num_residuals();
  for (int i = 0; i < n; ++i) residuals[i] = (parameters[0][i + 1] - parameters[0][i]) / sigma_;
  if (jacobians && jacobians[0]) {
    std::fill_n(jacobians[0], n * (n + 1), 0.0);
    for (int i = 0; i < n; ++i) {
      jacobians[0][i * (n + 1) + i] = -1.0 / sigma_;
      jacobians[0][i * (n + 1) + i + 1] = 1.0 / sigma_;
    }
  }
  return true;
}

}  // namespace bilevel
