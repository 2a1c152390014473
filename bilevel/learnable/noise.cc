#include "bilevel/learnable/noise.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <unordered_set>
#include <utility>

#include "Eigen/Cholesky"
#include "Eigen/Core"
#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/terms/objective.h"

namespace bilevel {
namespace {

using Entries = std::vector<NoiseModel::Entry>;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Scratch on the stack, on the heap where it is unusually long.
template <int kSize>
class Buffer {
 public:
  explicit Buffer(int size) : large_(size > kSize ? size : 0) {}
  operator double*() { return large_.empty() ? small_ : large_.data(); }

 private:
  double small_[kSize];
  std::vector<double> large_;
};

double Value(const NoiseModel::Entry& e, const double* theta) {
  return e.sign == 0 ? theta[e.parameter] : std::exp(e.sign * theta[e.parameter]);
}

// d W_entry / d theta, given the entry's value.
double Slope(const NoiseModel::Entry& e, double value) {
  return e.sign == 0 ? 1.0 : e.sign * value;
}

// W(theta) r(p). An Interface of ceres::CostFunction leaves second derivatives to differences.
template <typename Interface>
class Whitened : public Interface {
 public:
  Whitened(Interface* cost, ceres::Ownership ownership, Entries entries, int num_parameters)
      : cost_(cost), ownership_(ownership), entries_(std::move(entries)) {
    this->set_num_residuals(cost->num_residuals());
    *this->mutable_parameter_block_sizes() = cost->parameter_block_sizes();
    for (const int size : cost->parameter_block_sizes()) cost_size_ += size;
    this->mutable_parameter_block_sizes()->push_back(num_parameters);
  }
  ~Whitened() override {
    if (ownership_ == ceres::DO_NOT_TAKE_OWNERSHIP) static_cast<void>(cost_.release());
  }

  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    if (!cost_->Evaluate(parameters, residuals, jacobians)) return false;
    const std::vector<int>& sizes = this->parameter_block_sizes();
    const int theta_block = static_cast<int>(sizes.size()) - 1;
    const double* theta = parameters[theta_block];
    double* by_theta = jacobians ? jacobians[theta_block] : nullptr;
    const int num_parameters = sizes[theta_block];
    if (by_theta) std::fill_n(by_theta, this->num_residuals() * num_parameters, 0.0);
    // Row i of W r needs rows j >= i of r only: all in place, its diagonal entry comes first.
    for (const NoiseModel::Entry& e : entries_) {
      const double w = Value(e, theta);
      if (by_theta) {
        by_theta[e.row * num_parameters + e.parameter] += Slope(e, w) * residuals[e.column];
      }
      const bool diagonal = e.row == e.column;
      residuals[e.row] = (diagonal ? 0.0 : residuals[e.row]) + w * residuals[e.column];
      if (!jacobians) continue;
      for (int b = 0; b < theta_block; ++b) {
        if (!jacobians[b]) continue;
        double* row = jacobians[b] + e.row * sizes[b];
        const double* from = jacobians[b] + e.column * sizes[b];
        for (int k = 0; k < sizes[b]; ++k) row[k] = (diagonal ? 0.0 : row[k]) + w * from[k];
      }
    }
    return true;
  }

 protected:
  // With w the weights: the cost function's own curvature is that of W'w, and
  // d^2/(dp dtheta) = J' (dW/dtheta)' w, d^2/dtheta^2 = w' (d^2W/dtheta^2) r.
  bool Hessian(double const* const* parameters, const double* weights, double* hessian) const {
    const int n = cost_size_, m = this->parameter_block_sizes().back();
    return Prepare(parameters, weights, [&](const Parts& parts) {
      // The cost function's Hessian is packed: spread it from its end.
      if (!cost_->EvaluateHessian(parameters, parts.weights, hessian)) return false;
      for (int i = n - 1; i >= 0; --i) {
        std::copy_backward(hessian + i * n, hessian + (i + 1) * n, hessian + i * (n + m) + n);
      }
      for (int i = 0; i < n; ++i) std::fill_n(hessian + i * (n + m) + n, m, 0.0);
      std::fill_n(hessian + n * (n + m), m * (n + m), 0.0);
      for (const NoiseModel::Entry& e : entries_) {
        const double w = Value(e, parts.theta), factor = Slope(e, w) * weights[e.row];
        const int column = n + e.parameter;
        for (int k = 0; k < n; ++k) {
          hessian[k * (n + m) + column] += factor * parts.jacobian[e.column * n + k];
        }
        if (e.sign != 0) {
          hessian[column * (n + m) + column] += w * weights[e.row] * parts.residuals[e.column];
        }
      }
      for (int j = n; j < n + m; ++j) {
        for (int k = 0; k < n; ++k) hessian[j * (n + m) + k] = hessian[k * (n + m) + j];
      }
      return true;
    });
  }

  bool HessianProduct(double const* const* parameters,
                      const double* weights,
                      const double* direction,
                      double* product) const {
    const int n = cost_size_, m = this->parameter_block_sizes().back();
    return Prepare(parameters, weights, [&](const Parts& parts) {
      if (!cost_->EvaluateHessianProduct(parameters, parts.weights, direction, product)) {
        return false;
      }
      std::fill_n(product + n, m, 0.0);
      for (const NoiseModel::Entry& e : entries_) {
        const double w = Value(e, parts.theta), factor = Slope(e, w) * weights[e.row];
        const double* row = parts.jacobian + e.column * n;
        const double by_theta = direction[n + e.parameter];
        double jd = 0.0;
        for (int k = 0; k < n; ++k) {
          jd += row[k] * direction[k];
          product[k] += factor * by_theta * row[k];
        }
        product[n + e.parameter] += factor * jd;
        if (e.sign != 0) {
          product[n + e.parameter] += w * weights[e.row] * parts.residuals[e.column] * by_theta;
        }
      }
      return true;
    });
  }

 private:
  struct Parts {
    const double* theta;
    const double* weights;    // W'w.
    const double* residuals;  // r.
    const double* jacobian;   // dr/dp, all blocks side by side.
  };

  template <typename Body>
  bool Prepare(double const* const* parameters, const double* weights, Body body) const {
    const std::vector<int>& sizes = this->parameter_block_sizes();
    const int num_blocks = static_cast<int>(sizes.size()) - 1;
    const int rows = this->num_residuals(), n = cost_size_;
    Buffer<32> w(rows), residuals(rows);
    Buffer<256> blocks(rows * n), jacobian(rows * n);
    constexpr int kBlocks = 16;
    double* small[kBlocks];
    std::vector<double*> large(num_blocks > kBlocks ? num_blocks : 0);
    double** pointers = large.empty() ? small : large.data();
    for (int b = 0, at = 0; b < num_blocks; at += rows * sizes[b], ++b) pointers[b] = blocks + at;
    if (!cost_->Evaluate(parameters, residuals, pointers)) return false;
    for (int b = 0, at = 0; b < num_blocks; at += sizes[b], ++b) {
      for (int i = 0; i < rows; ++i) {
        std::copy_n(pointers[b] + i * sizes[b], sizes[b], jacobian + i * n + at);
      }
    }
    const double* theta = parameters[num_blocks];
    std::fill_n(static_cast<double*>(w), rows, 0.0);
    for (const NoiseModel::Entry& e : entries_) w[e.column] += Value(e, theta) * weights[e.row];
    return body(Parts{theta, w, residuals, jacobian});
  }

  std::unique_ptr<Interface> cost_;
  const ceres::Ownership ownership_;
  const Entries entries_;
  int cost_size_ = 0;
};

class ExactWhitened final : public Whitened<SecondOrderCostFunction> {
 public:
  using Whitened::Whitened;
  bool EvaluateHessian(double const* const* parameters,
                       const double* weights,
                       double* hessian) const override {
    return Hessian(parameters, weights, hessian);
  }
  bool EvaluateHessianProduct(double const* const* parameters,
                              const double* weights,
                              const double* direction,
                              double* product) const override {
    return HessianProduct(parameters, weights, direction, product);
  }
};

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

bool Refuse(const std::string& what, std::string* error) {
  if (error) *error = what;
  return false;
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
  const Eigen::LLT<Eigen::MatrixXd> llt(
      Eigen::MatrixXd(Eigen::Map<const RowMatrix>(information, n, n)));
  if (llt.info() != Eigen::Success) return false;
  const Eigen::MatrixXd l = llt.matrixL();
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
  for (const Entry& e : entries()) w(e.row, e.column) = Value(e, parameters());
  Eigen::Map<RowMatrix>(information, n, n) = w.transpose() * w;
}

std::string FullNoise::Describe(const std::string& name) const {
  const int n = num_residuals();
  std::vector<double> w(static_cast<size_t>(n) * n, 0.0);
  for (const Entry& e : entries()) w[e.row * n + e.column] = Value(e, parameters());
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
    : LinearPrior(static_cast<int>(mean.size()), static_cast<int>(mean.size())),
      mean_(std::move(mean)),
      sigma_(sigma) {}

bool NormalPrior::Evaluate(double const* const* parameters,
                           double* residuals,
                           double** jacobians) const {
  const int n = num_residuals();
  for (int i = 0; i < n; ++i) residuals[i] = (parameters[0][i] - mean_[i]) / sigma_;
  if (jacobians && jacobians[0]) {
    Eigen::Map<RowMatrix>(jacobians[0], n, n) = RowMatrix::Identity(n, n) / sigma_;
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
