#include "bilevel/upper_level/internal/half_log_determinant.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "Eigen/SparseCholesky"
#include "bilevel/lower_level/internal/supernodal_factor.h"
#include "bilevel/lower_level/selected_inverse.h"
#include "bilevel/upper_level/internal/torn_level.h"

namespace bilevel {
namespace {

using Ldlt = Eigen::SimplicialLDLT<SparseMatrix, Eigen::Lower, Eigen::AMDOrdering<int>>;

}  // namespace

HalfLogDeterminant::HalfLogDeterminant(std::shared_ptr<const Program> program,
                                       const Program::Scenario* scenario)
    : program_(std::move(program)),
      g_(*scenario->g),
      evaluator_(&g_, nullptr),
      factorization_(g_.yy_pattern(), &g_.y()),
      yy_(g_.yy_pattern()),
      x_(g_.x().size()),
      y_(g_.y().size()),
      gy_(g_.y().tangent_size()) {}

HalfLogDeterminant::~HalfLogDeterminant() = default;

bool HalfLogDeterminant::Evaluate(double const* const* blocks,
                                  const Batch& /*batch*/,
                                  double* value,
                                  double** gradients) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto& in_x = g_.x().blocks();
  const auto& in_y = g_.y().blocks();
  for (size_t b = 0; b < in_x.size(); ++b) {
    std::copy_n(blocks[b], in_x[b].size, x_.data() + in_x[b].offset);
  }
  for (size_t b = 0; b < in_y.size(); ++b) {
    std::copy_n(blocks[in_x.size() + b], in_y[b].size, y_.data() + in_y[b].offset);
  }
  if (!Value(gradients != nullptr, value)) return false;
  return !gradients || WriteGradients(gradients);
}

bool HalfLogDeterminant::Value(bool with_inverse, double* value) const {
  inverse_.reset();
  if (!evaluator_.Hessian(
          x_.data(), y_.data(), HessianKind::kExact, nullptr, gy_.data(), &yy_, nullptr)) {
    return false;
  }
  switch (factorization_.Factorize(yy_, 0.0, nullptr)) {
    case Factorization::Status::kPositiveDefinite:
      *value = 0.5 * factorization_.LogDeterminant();
      if (with_inverse) inverse_ = std::make_unique<SelectedInverse>(factorization_);
      return std::isfinite(*value);
    case Factorization::Status::kNotPositiveDefinite:
      return ValueOfIndefinite(with_inverse, value);
    case Factorization::Status::kNotFinite:
      break;
  }
  return false;
}

bool HalfLogDeterminant::ValueOfIndefinite(bool with_inverse, double* value) const {
  // The diagonal, of which a column of the lower triangle begins with its entry.
  Vector scale(yy_.cols());
  for (int j = 0; j < yy_.cols(); ++j) {
    const double diagonal = yy_.valuePtr()[yy_.outerIndexPtr()[j]];
    scale[j] = diagonal == 0.0 ? 1.0 : std::sqrt(std::abs(diagonal));
  }
  const Vector inverse_scale = scale.cwiseInverse();
  const SparseMatrix scaled = inverse_scale.asDiagonal() * yy_ * inverse_scale.asDiagonal();
  const Ldlt ldlt(scaled);
  if (ldlt.info() != Eigen::Success ||
      !(ldlt.vectorD().cwiseAbs().minCoeff() > Factorization::kRankTolerance)) {
    return false;
  }
  *value = 0.5 * ldlt.vectorD().array().abs().log().sum() + scale.array().log().sum();
  if (with_inverse) {
    SupernodalFactor factor;
    factor.GatherLdlt(ldlt);
    inverse_ = std::make_unique<SelectedInverse>(std::move(factor), scale);
  }
  return std::isfinite(*value);
}

bool HalfLogDeterminant::WriteGradients(double** gradients) const {
  if (!torn_) torn_ = std::make_unique<TornLevel>(g_);
  if (!torn_->Gradient(x_, y_, *inverse_, yy_.diagonal(), &gx_, &gy_)) return false;
  const auto& in_x = g_.x().blocks();
  const auto& in_y = g_.y().blocks();
  for (size_t b = 0; b < in_x.size(); ++b) {
    if (gradients[b]) std::copy_n(gx_.data() + in_x[b].offset, in_x[b].size, gradients[b]);
  }
  using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  for (size_t b = 0; b < in_y.size(); ++b) {
    double* const to = gradients[in_x.size() + b];
    if (!to) continue;
    const Space::Block& block = in_y[b];
    const auto own = gy_.segment(block.tangent_offset, block.tangent_size);
    if (!block.manifold) {
      std::copy_n(own.data(), block.size, to);
      continue;
    }
    // An ambient gradient with this tangent one: Minus takes Plus back.
    RowMatrix minus(block.tangent_size, block.size);
    if (!block.manifold->MinusJacobian(y_.data() + block.offset, minus.data())) return false;
    Eigen::Map<Vector>(to, block.size) = minus.transpose() * own;
  }
  return true;
}

}  // namespace bilevel
