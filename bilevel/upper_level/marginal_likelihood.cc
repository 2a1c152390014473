#include "bilevel/upper_level/marginal_likelihood.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "Eigen/SparseCholesky"
#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/finite_differences.h"
#include "bilevel/lower_level/factorization.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/program/program.h"

namespace bilevel {
namespace {

// Of x's entries; x is logarithms as a rule.
constexpr double kStep = 1e-3;

// 1/2 log det d^2g/dy^2 of one scenario, over all of x and its y.
class HalfLogDeterminant final : public Objective {
 public:
  HalfLogDeterminant(std::shared_ptr<const Program> program, const Program::Scenario* scenario)
      : program_(std::move(program)),
        g_(*scenario->g),
        evaluator_(&g_, nullptr),
        yy_(g_.yy_pattern()),
        yx_(g_.yx_pattern()),
        x_(g_.x().size()),
        y_(g_.y().size()),
        gy_(g_.y().tangent_size()),
        scale_(g_.y().tangent_size()) {
    ldlt_.analyzePattern(yy_);
  }

  bool Evaluate(double const* const* blocks,
                const Batch& /*batch*/,
                double* value,
                double** gradients) const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto& in_x = g_.x().blocks();
    const auto& in_y = g_.y().blocks();
    for (size_t b = 0; b < in_x.size(); ++b) {
      std::copy_n(blocks[b], in_x[b].size, x_.data() + in_x[b].offset);
    }
    for (size_t b = 0; b < in_y.size(); ++b) {
      std::copy_n(blocks[in_x.size() + b], in_y[b].size, y_.data() + in_y[b].offset);
    }
    if (!Value(x_, y_, gradients ? &yx_ : nullptr, value)) return false;
    if (!gradients) return true;
    // y follows x: dy*/dx = -H^-1 d^2g/dydx.
    dy_dx_ = scale_.asDiagonal() * ldlt_.solve(Matrix(-(scale_.asDiagonal() * yx_)));
    for (size_t b = 0; b < in_y.size(); ++b) {
      if (double* gradient = gradients[in_x.size() + b]) std::fill_n(gradient, in_y[b].size, 0.0);
    }
    for (size_t b = 0; b < in_x.size(); ++b) {
      if (!gradients[b]) continue;
      std::fill_n(gradients[b], in_x[b].size, 0.0);
      if (!g_.UsesX(static_cast<int>(b))) continue;
      for (int i = 0; i < in_x[b].size; ++i) {
        if (!Slope(in_x[b].offset + i, &gradients[b][i])) return false;
      }
    }
    return true;
  }

 private:
  using Ldlt = Eigen::SimplicialLDLT<SparseMatrix, Eigen::Lower, Eigen::AMDOrdering<int>>;

  // Leaves the factorisation of H, scaled to a unit diagonal. False where H is singular. Where it
  // is indefinite, the y at hand is not y*(x), which is looked for from there: |det H| then.
  bool Value(const Vector& x, const Vector& y, SparseMatrix* yx, double* value) const {
    if (!evaluator_.Hessian(
            x.data(), y.data(), HessianKind::kExact, nullptr, gy_.data(), &yy_, yx)) {
      return false;
    }
    // In the lower triangle a column begins at the diagonal.
    double sum = 0.0;
    for (int j = 0; j < yy_.cols(); ++j) {
      const double diagonal = yy_.valuePtr()[yy_.outerIndexPtr()[j]];
      scale_[j] = diagonal == 0.0 ? 1.0 : 1.0 / std::sqrt(std::abs(diagonal));
      sum -= 2.0 * std::log(scale_[j]);
    }
    for (int j = 0; j < yy_.cols(); ++j) {
      for (SparseMatrix::InnerIterator entry(yy_, j); entry; ++entry) {
        entry.valueRef() *= scale_[entry.row()] * scale_[j];
      }
    }
    ldlt_.factorize(yy_);
    if (ldlt_.info() != Eigen::Success ||
        !(ldlt_.vectorD().cwiseAbs().minCoeff() > Factorization::kRankTolerance)) {
      return false;
    }
    *value = 0.5 * (sum + ldlt_.vectorD().array().abs().log().sum());
    return std::isfinite(*value);
  }

  // Along y*(x). x has no manifolds: its entries are its tangent coordinates.
  bool Slope(int i, double* slope) const {
    *slope = 0.0;
    moved_x_ = x_;
    moved_y_ = y_;
    const double step = kStep * std::max(1.0, std::abs(x_[i]));
    for (const DifferencePoint& point : kFourthOrder) {
      double value;
      moved_x_[i] = x_[i] + point.at * step;
      motion_ = point.at * step * dy_dx_.col(i);
      if (!g_.y().Plus(y_.data(), motion_.data(), moved_y_.data()) ||
          !Value(moved_x_, moved_y_, nullptr, &value)) {
        return false;
      }
      *slope += point.Weight(step) * value;
    }
    return true;
  }

  const std::shared_ptr<const Program> program_;  // Owns g.
  const LevelFunction& g_;
  mutable std::mutex mutex_;
  mutable LevelEvaluator evaluator_;
  mutable SparseMatrix yy_, yx_;
  mutable Ldlt ldlt_;
  mutable Vector x_, y_, moved_x_, moved_y_, motion_, gy_, scale_;
  mutable Matrix dy_dx_;
};

// The lower level's residual blocks, above.
void ShareResiduals(Problem* problem, Scenario* scenario) {
  ceres::Problem &lower = *scenario->lower(), &upper = *scenario->upper();
  std::vector<ceres::ResidualBlockId> ids;
  lower.GetResidualBlocks(&ids);
  std::vector<double*> blocks;
  for (const ceres::ResidualBlockId id : ids) {
    lower.GetParameterBlocksForResidualBlock(id, &blocks);
    upper.AddResidualBlock(
        const_cast<ceres::CostFunction*>(lower.GetCostFunctionForResidualBlock(id)),
        const_cast<ceres::LossFunction*>(lower.GetLossFunctionForResidualBlock(id)),
        blocks);
    for (double* block : blocks) {
      if (!problem->IsUpperParameterBlock(block) && lower.IsParameterBlockConstant(block)) {
        upper.SetParameterBlockConstant(block);
      }
    }
  }
}

}  // namespace

bool AddMarginalLikelihood(Problem* problem, std::string* error) {
  for (int s = 0; s < problem->num_scenarios(); ++s) {
    const Scenario& scenario = *problem->scenario(s);
    if (scenario.is_wrapped(Level::kLower) || scenario.is_wrapped(Level::kUpper)) {
      return Refuse("scenario " + std::to_string(s) +
                        " is around the user's own ceres::Problems, which cannot share functions",
                    error);
    }
    if (scenario.num_terms(Level::kLower) > 0) {
      return Refuse("the lower level of scenario " + std::to_string(s) + " has general terms",
                    error);
    }
  }
  Problem::CompileOptions options;
  options.need_f = options.need_x = false;
  const std::shared_ptr<const Program> program = problem->Compile(options, error);
  if (!program) return false;
  for (const Space::Block& block : program->x.blocks()) {
    if (block.manifold) return Refuse(block.name + " has a manifold", error);
  }
  for (int s = 0; s < problem->num_scenarios(); ++s) {
    Scenario* scenario = problem->scenario(s);
    const auto compiled = std::find_if(
        program->scenarios.begin(), program->scenarios.end(), [&](const auto& candidate) {
          return candidate->lower == scenario->lower();
        });
    if (compiled == program->scenarios.end()) continue;  // Empty.
    std::vector<Scenario::TermBlock> blocks;
    const Space *const x = &program->x, *const y = &(*compiled)->y;
    for (const Space* space : {x, y}) {
      for (const Space::Block& block : space->blocks()) blocks.push_back({block.user, block.size});
    }
    ShareResiduals(problem, scenario);
    scenario->AddTerm(Level::kUpper,
                      std::make_unique<HalfLogDeterminant>(program, compiled->get()),
                      std::move(blocks));
  }
  return true;
}

}  // namespace bilevel
