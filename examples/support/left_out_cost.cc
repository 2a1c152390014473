#include "examples/support/left_out_cost.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "examples/support/dense.h"

namespace examples {

LeftOutCost::LeftOutCost(std::vector<Part> parts,
                         const std::vector<int>& block_sizes,
                         std::vector<double> start)
    : parts_(std::move(parts)),
      start_(Eigen::Map<Eigen::VectorXd>(start.data(), static_cast<Eigen::Index>(start.size()))) {
  int rows = 0;
  for (const Part& part : parts_) rows += part.cost->num_residuals();
  set_num_residuals(rows);
  mutable_parameter_block_sizes()->assign(block_sizes.begin(), block_sizes.end());
}

bool LeftOutCost::EvaluateAt(double const* const* y,
                             const Eigen::VectorXd& z,
                             double* residuals,
                             Matrix* by_z,
                             double** by_y) const {
  if (by_y) {  // A part has not all blocks.
    for (size_t b = 0; b < parameter_block_sizes().size(); ++b) {
      if (by_y[b]) std::fill_n(by_y[b], num_residuals() * parameter_block_sizes()[b], 0.0);
    }
  }
  std::vector<const double*> blocks;
  std::vector<double*> jacobians;
  int row = 0;
  for (const Part& part : parts_) {
    blocks.clear();
    jacobians.clear();
    for (const int b : part.blocks) {
      if (b == kUnknown) {
        blocks.push_back(z.data());
        jacobians.push_back(by_z->data() + row * z.size());
      } else {
        blocks.push_back(y[b]);
        jacobians.push_back(by_y && by_y[b] ? by_y[b] + row * parameter_block_sizes()[b] : nullptr);
      }
    }
    if (!part.cost->Evaluate(blocks.data(), residuals + row, jacobians.data())) return false;
    row += part.cost->num_residuals();
  }
  return true;
}

bool LeftOutCost::Evaluate(double const* const* y, double* residuals, double** jacobians) const {
  const Eigen::Index rows = num_residuals(), size = start_.size();
  Eigen::Map<Eigen::VectorXd> r(residuals, rows);
  Matrix by_z(rows, size);
  const auto evaluate = [&](const Eigen::VectorXd& z) {
    return EvaluateAt(y, z, residuals, &by_z, nullptr) ? r.squaredNorm() : HUGE_VAL;
  };
  // Levenberg-Marquardt until rounding: quadratic convergence in practice, as errors are small.
  Eigen::VectorXd z = start_;
  double value = evaluate(z), damping = 1e-6;
  for (int k = 0; k < 60 && std::isfinite(value) && damping < 1e6; ++k) {
    Eigen::MatrixXd h = by_z.transpose() * by_z;
    h.diagonal() *= 1.0 + damping;
    const Eigen::VectorXd gradient = by_z.transpose() * r;
    const Eigen::VectorXd step = -SolveSymmetric(h, gradient);
    if (-step.dot(gradient) <= 1e-24 * value) break;
    const double trial = evaluate(z + step);
    if (trial < value * (1.0 + 1e-14)) {
      value = trial;
      z += step;
      damping = std::max(1e-12, 0.1 * damping);
    } else {
      damping = std::max(1e-3, 10.0 * damping);
      evaluate(z);
    }
  }
  if (!std::isfinite(value) || !EvaluateAt(y, z, residuals, &by_z, jacobians)) return false;
  if (!jacobians) return true;
  const Matrix q = HouseholderQ(by_z, size);
  for (size_t b = 0; b < parameter_block_sizes().size(); ++b) {
    if (!jacobians[b]) continue;
    Eigen::Map<Matrix> j(jacobians[b], rows, parameter_block_sizes()[b]);
    j -= q * (q.transpose() * j);
  }
  return true;
}

}  // namespace examples
