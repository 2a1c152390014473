// dy* / d measurements: what single residual blocks do to the solution.
#include <algorithm>
#include <cmath>

#include "Eigen/Eigenvalues"
#include "Eigen/LU"
#include "bilevel/sensitivity_implementation.h"

namespace bilevel {

bool Sensitivity::Implementation::FactorizeStationary() const {
  if (!stationary.empty()) return true;
  for (auto& scenario : program->scenarios) {
    if (!scenario->g->has_sparse_hessian()) {
      return Fail("a general term of the lower level is too long for a Hessian to be assembled");
    }
    auto part = std::make_unique<Stationary>(program.get(), scenario.get());
    const Space& space = scenario->y;
    const double* own = y.value().data() + scenario->offset;
    double value;
    if (!part->g.Hessian(x.value().data(),
                         own,
                         options.hessian,
                         &value,
                         part->gradient.data(),
                         &part->yy,
                         nullptr)) {
      stationary.clear();
      return Fail(part->g.error());
    }
    for (int j = 0; j < space.tangent_size(); ++j) {
      part->fixed[j] = space.IsHeld(own, j, part->gradient[j]);
    }
    for (const double* block : options.fixed_blocks) {
      if (const int b = space.Find(block); b >= 0) {
        std::fill_n(part->fixed.begin() + space.blocks()[b].tangent_offset,
                    space.blocks()[b].tangent_size,
                    char(1));
      }
    }
    if (!part->system.Prepare(&part->yy, &part->fixed, options.singular_handling, false)) {
      stationary.clear();
      return Fail(part->system.message());
    }
    if (scenario->lower) {
      std::vector<ceres::ResidualBlockId> ids;
      scenario->lower->GetResidualBlocks(&ids);
      for (ceres::ResidualBlockId id : ids) owner[id] = part.get();
    }
    stationary.push_back(std::move(part));
  }
  return true;
}

bool Sensitivity::Implementation::Look(ceres::ResidualBlockId id,
                                       bool with_jacobian,
                                       Observation* observation) const {
  const auto found = owner.find(id);
  if (found == owner.end()) return Fail("the residual block is not one of the lower level");
  Observation& o = *observation;
  o.at = found->second;
  const ceres::Problem& problem = *o.at->scenario->lower;
  const ceres::CostFunction* cost = problem.GetCostFunctionForResidualBlock(id);
  const auto scaled = scaled_losses.find(id);
  const ceres::LossFunction* loss =
      scaled != scaled_losses.end() ? scaled->second : problem.GetLossFunctionForResidualBlock(id);
  std::vector<double*> blocks;
  problem.GetParameterBlocksForResidualBlock(id, &blocks);

  // The level of this block alone, over the y it depends on.
  const Space& space = o.at->scenario->y;
  const double* own = y.value().data() + o.at->scenario->offset;
  Space local;
  Vector point(0);
  o.coordinates.clear();
  for (double* user : blocks) {
    const int b = space.Find(user);
    if (b < 0 || local.Find(user) >= 0) continue;
    const Space::Block& block = space.blocks()[b];
    local.Add(user, block.size, block.manifold, block.name);
    point.conservativeResize(point.size() + block.size);
    point.tail(block.size) = Eigen::Map<const Vector>(own + block.offset, block.size);
    for (int i = 0; i < block.tangent_size; ++i) o.coordinates.push_back(block.tangent_offset + i);
  }
  LevelFunction function(&program->x, &local, "the lower problem");
  function.AddResidual(cost, loss, blocks);
  function.Finish();
  LevelEvaluator evaluator(&function, nullptr);
  SparseMatrix yy = function.yy_pattern();
  double value;
  o.gradient.resize(local.tangent_size());
  if (!evaluator.Hessian(x.value().data(),
                         point.data(),
                         options.hessian,
                         &value,
                         o.gradient.data(),
                         &yy,
                         nullptr)) {
    return Fail(evaluator.error());
  }
  o.hessian = Matrix(yy).selfadjointView<Eigen::Lower>();
  if (!with_jacobian) return true;

  using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const int n = static_cast<int>(blocks.size()), m = cost->num_residuals();
  std::vector<const double*> parameters(blocks.begin(), blocks.end());
  std::vector<RowMatrix> jacobians(n);
  std::vector<double*> wanted(n, nullptr);
  for (int i = 0; i < n; ++i) {
    if (const int l = local.Find(blocks[i]); l >= 0) {
      parameters[i] = point.data() + local.blocks()[l].offset;
      jacobians[i].resize(m, local.blocks()[l].size);
      wanted[i] = jacobians[i].data();
    } else if (const int u = program->x.Find(blocks[i]); u >= 0) {
      parameters[i] = x.value().data() + program->x.blocks()[u].offset;
    }
  }
  o.residuals.resize(m);
  if (!cost->Evaluate(parameters.data(), o.residuals.data(), wanted.data())) {
    return Fail("the cost function of the residual block failed");
  }
  o.jacobian = Matrix::Zero(m, local.tangent_size());
  for (int i = 0; i < n; ++i) {
    if (!wanted[i]) continue;
    const Space::Block& block = local.blocks()[local.Find(blocks[i])];
    auto columns = o.jacobian.middleCols(block.tangent_offset, block.tangent_size);
    if (block.manifold) {
      RowMatrix plus(block.size, block.tangent_size);
      if (!block.manifold->PlusJacobian(parameters[i], plus.data())) {
        return Fail("the manifold of " + block.name + " could not be differentiated");
      }
      columns += jacobians[i] * plus;
    } else {
      columns += jacobians[i];
    }
  }
  o.rho[0] = o.residuals.squaredNorm();
  o.rho[1] = 1.0;
  o.rho[2] = 0.0;
  if (loss) loss->Evaluate(o.residuals.squaredNorm(), o.rho);
  return true;
}

// solution = H^-1 E columns, E taking an observation's coordinates to those of its scenario.
bool Sensitivity::Implementation::ScatterAndSolve(const Observation& o,
                                                  const Matrix& columns,
                                                  Matrix* solution) const {
  Matrix all = Matrix::Zero(o.at->scenario->y.tangent_size(), columns.cols());
  for (size_t i = 0; i < o.coordinates.size(); ++i) all.row(o.coordinates[i]) = columns.row(i);
  for (size_t j = 0; j < o.at->fixed.size(); ++j) {
    if (o.at->fixed[j]) all.row(j).setZero();
  }
  return o.at->system.Solve(all, solution) || Fail(o.at->system.message());
}

bool Sensitivity::GetSensitivityToResiduals(const double* lower,
                                            ceres::ResidualBlockId residual_block,
                                            double* block) const {
  const Implementation& s = *implementation_;
  if (!s.ready || !s.FactorizeStationary()) return false;
  Implementation::Observation o;
  if (!residual_block || residual_block != s.last_observation) {
    s.last_observation = nullptr;
    if (!s.Look(residual_block, true, &o)) return false;
    const Matrix b = o.jacobian.transpose() *
                     (o.rho[1] * Matrix::Identity(o.residuals.size(), o.residuals.size()) +
                      2.0 * o.rho[2] * o.residuals * o.residuals.transpose());
    if (!s.ScatterAndSolve(o, -b, &s.last_sensitivity)) return false;
    s.last_observation = residual_block;
  }
  const Program::Scenario& scenario = *s.owner.at(residual_block)->scenario;
  const int l = s.program->y.Find(lower);
  if (l < 0) return s.Fail("the lower block is not variable in the lower level");
  const int own = scenario.y.Find(lower);
  const int rows = s.program->y.blocks()[l].tangent_size;
  Eigen::Map<Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> out(
      block, rows, s.last_sensitivity.cols());
  if (own < 0) {
    out.setZero();  // Of another scenario.
  } else {
    out = s.last_sensitivity.middleRows(scenario.y.blocks()[own].tangent_offset, rows);
  }
  return true;
}

bool Sensitivity::LeaveOut(ceres::ResidualBlockId residual_block,
                           const double* lower,
                           double* motion) const {
  const Implementation& s = *implementation_;
  if (!s.ready || !s.FactorizeStationary()) return false;
  const int l = s.program->y.Find(lower);
  if (l < 0) return s.Fail("the lower block is not variable in the lower level");
  Implementation::Observation o;
  if (!s.Look(residual_block, false, &o)) return false;
  const int k = static_cast<int>(o.coordinates.size());
  Matrix w;
  if (!s.ScatterAndSolve(o, Matrix::Identity(k, k), &w)) return false;
  // (H - E K E')^-1 E g = W (I - K E'W)^-1 g with W = H^-1 E, by Woodbury's formula.
  const Matrix m = w(o.coordinates, Eigen::all);
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(0.5 * (m + m.transpose()));
  const Matrix root = eigen.operatorSqrt();
  const Matrix left = Matrix::Identity(k, k) - root * o.hessian * root;
  if (k > 0 && !(Eigen::SelfAdjointEigenSolver<Matrix>(left).eigenvalues()[0] > 1e-9)) {
    return s.Fail(
        "without that residual block the lower level's Hessian is not positive definite: y is not "
        "determined, or jumps");
  }
  const Matrix product = Matrix::Identity(k, k) - o.hessian * m;
  const Vector all = w * product.partialPivLu().solve(o.gradient);
  const Space& space = o.at->scenario->y;
  const int own = space.Find(lower);
  Eigen::Map<Vector> out(motion, s.program->y.blocks()[l].tangent_size);
  if (own < 0) {
    out.setZero();  // Of another scenario.
  } else {
    out = all.segment(space.blocks()[own].tangent_offset, out.size());
  }
  return true;
}

bool Sensitivity::Influence(const std::vector<BlockVector>& lower_gradients,
                            const std::vector<ceres::ResidualBlockId>& residual_blocks,
                            double* changes) const {
  const Implementation& s = *implementation_;
  if (!s.ready || !s.FactorizeStationary()) return false;
  Vector fy;
  if (!s.Gather(lower_gradients, &fy)) return false;
  Vector z(fy.size()), own;
  for (auto& part : s.stationary) {
    const int offset = part->scenario->tangent_offset, size = part->scenario->y.tangent_size();
    own = fy.segment(offset, size);
    for (int j = 0; j < size; ++j) {
      if (part->fixed[j]) own[j] = 0.0;
    }
    if (!part->system.Solve(own, &own)) return s.Fail(part->system.message());
    z.segment(offset, size) = own;
  }
  Implementation::Observation o;
  for (size_t i = 0; i < residual_blocks.size(); ++i) {
    if (!s.Look(residual_blocks[i], false, &o)) return false;
    const int offset = o.at->scenario->tangent_offset;
    changes[i] = 0.0;
    for (size_t k = 0; k < o.coordinates.size(); ++k) {
      changes[i] += z[offset + o.coordinates[k]] * o.gradient[k];
    }
  }
  return true;
}

}  // namespace bilevel
