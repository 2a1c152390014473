// dy* / d measurements: what single residual blocks do to the solution.
#include <algorithm>
#include <cmath>

#include "bilevel/analysis/internal/sensitivity_implementation.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {
namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace

// The y that a residual block on these blocks depends on, and where it stands in its scenario's.
void Sensitivity::Implementation::GatherOwnY(const std::vector<double*>& blocks,
                                             Observation* o,
                                             OwnY* own) const {
  const Program::Scenario& scenario = *program->scenarios[o->scenario];
  const double* all = y.value().data() + scenario.offset;
  own->point.resize(0);
  o->coordinates.clear();
  for (double* user : blocks) {
    const int b = scenario.y.Find(user);
    if (b < 0 || own->space.Find(user) >= 0) continue;
    const Space::Block& block = scenario.y.blocks()[b];
    own->space.Add(user, block.size, block.manifold, block.name);
    own->point.conservativeResize(own->point.size() + block.size);
    own->point.tail(block.size) = Eigen::Map<const Vector>(all + block.offset, block.size);
    for (int i = 0; i < block.tangent_size; ++i) {
      o->coordinates.push_back(block.tangent_offset + i);
    }
  }
}

// The residuals before their loss, and their derivatives by the y they depend on.
bool Sensitivity::Implementation::Linearize(const ceres::CostFunction& cost,
                                            const std::vector<double*>& blocks,
                                            const OwnY& own,
                                            Observation* o) const {
  const int n = static_cast<int>(blocks.size()), m = cost.num_residuals();
  std::vector<const double*> parameters(blocks.begin(), blocks.end());
  std::vector<RowMatrix> jacobians(n);
  std::vector<double*> wanted(n, nullptr);
  for (int i = 0; i < n; ++i) {
    if (const int l = own.space.Find(blocks[i]); l >= 0) {
      parameters[i] = own.point.data() + own.space.blocks()[l].offset;
      jacobians[i].resize(m, own.space.blocks()[l].size);
      wanted[i] = jacobians[i].data();
    } else if (const int u = program->x.Find(blocks[i]); u >= 0) {
      parameters[i] = x.value().data() + program->x.blocks()[u].offset;
    }
  }
  o->residuals.resize(m);
  if (!cost.Evaluate(parameters.data(), o->residuals.data(), wanted.data())) {
    return Fail("the cost function of the residual block failed");
  }
  o->jacobian = Matrix::Zero(m, own.space.tangent_size());
  for (int i = 0; i < n; ++i) {
    if (!wanted[i]) continue;
    const Space::Block& block = own.space.blocks()[own.space.Find(blocks[i])];
    auto columns = o->jacobian.middleCols(block.tangent_offset, block.tangent_size);
    if (block.manifold) {
      RowMatrix plus(block.size, block.tangent_size);
      if (!block.manifold->PlusJacobian(parameters[i], plus.data())) {
        return Fail("the manifold of " + block.name + " could not be differentiated");
      }
      columns += jacobians[i].lazyProduct(plus);
    } else {
      columns += jacobians[i];
    }
  }
  return true;
}

bool Sensitivity::Implementation::Look(ceres::ResidualBlockId id,
                                       bool with_jacobian,
                                       Observation* observation) const {
  const auto found = owner.find(id);
  if (found == owner.end()) return Fail("the residual block is not one of the lower level");
  Observation& o = *observation;
  o.scenario = found->second.scenario;
  const Program::Scenario& scenario = *program->scenarios[o.scenario];
  const ceres::Problem& problem = *scenario.lower;
  const ceres::CostFunction* cost = scenario.g->residuals()[found->second.residual].cost;
  const auto scaled = scaled_losses.find(id);
  const ceres::LossFunction* loss =
      scaled != scaled_losses.end() ? scaled->second : problem.GetLossFunctionForResidualBlock(id);
  std::vector<double*> blocks;
  problem.GetParameterBlocksForResidualBlock(id, &blocks);

  // The level of this block alone.
  OwnY own;
  GatherOwnY(blocks, &o, &own);
  LevelFunction function(&program->x, &own.space, "the lower problem");
  function.AddResidual(cost, loss, blocks);
  function.Finish();
  LevelEvaluator evaluator(&function, nullptr);
  SparseMatrix yy = function.yy_pattern();
  double value;
  o.gradient.resize(own.space.tangent_size());
  if (!evaluator.Hessian(x.value().data(),
                         own.point.data(),
                         options.hessian,
                         &value,
                         o.gradient.data(),
                         &yy,
                         nullptr)) {
    return Fail(evaluator.error());
  }
  o.hessian = Matrix(yy).selfadjointView<Eigen::Lower>();
  if (!with_jacobian) return true;
  if (!Linearize(*cost, blocks, own, &o)) return false;
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
  Matrix all = Matrix::Zero(program->scenarios[o.scenario]->y.tangent_size(), columns.cols());
  for (size_t i = 0; i < o.coordinates.size(); ++i) all.row(o.coordinates[i]) = columns.row(i);
  return solver->SolveHessian(o.scenario, all, solution) || Fail(solver->message());
}

bool Sensitivity::GetSensitivityToResiduals(const double* lower,
                                            ceres::ResidualBlockId residual_block,
                                            double* block) const {
  const Implementation& s = *implementation_;
  if (!s.ready) return false;
  Implementation::Observation o;
  if (!residual_block || residual_block != s.last_observation) {
    s.last_observation = nullptr;
    if (!s.Look(residual_block, true, &o)) return false;
    const Vector slope = o.jacobian.transpose().lazyProduct(o.residuals);
    const Matrix b =
        o.rho[1] * o.jacobian.transpose() + 2.0 * o.rho[2] * slope * o.residuals.transpose();
    if (!s.ScatterAndSolve(o, -b, &s.last_sensitivity)) return false;
    s.last_observation = residual_block;
  }
  const Program::Scenario& scenario = *s.program->scenarios[s.owner.at(residual_block).scenario];
  const int l = s.program->y.Find(lower);
  if (l < 0) return s.Fail("the lower block is not variable in the lower level");
  const int own = scenario.y.Find(lower);
  const int rows = s.program->y.blocks()[l].tangent_size;
  Eigen::Map<RowMatrix> out(block, rows, s.last_sensitivity.cols());
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
  if (!s.ready) return false;
  const int l = s.program->y.Find(lower);
  if (l < 0) return s.Fail("the lower block is not variable in the lower level");
  Implementation::Observation o;
  if (!s.Look(residual_block, false, &o)) return false;
  const int k = static_cast<int>(o.coordinates.size());
  Matrix w;
  if (!s.ScatterAndSolve(o, Matrix::Identity(k, k), &w)) return false;
  // (H - E K E')^-1 E g = W (I - K E'W)^-1 g with W = H^-1 E, by Woodbury's formula.
  const Matrix m = w(o.coordinates, Eigen::all);
  const SymmetricEigen eigen(0.5 * (m + m.transpose()));
  // Semidefinite, and but for rounding, where constraints hold the observation's blocks.
  const Matrix scaled =
      eigen.eigenvectors() * eigen.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal();
  const Matrix root = scaled.lazyProduct(eigen.eigenvectors().transpose());
  const Matrix image = o.hessian.lazyProduct(root);
  const Matrix left = Matrix::Identity(k, k) - root.lazyProduct(image);
  if (k > 0 && !(SymmetricEigen(left).eigenvalues()[0] > 1e-9)) {
    return s.Fail(
        "without that residual block the lower level's Hessian is not positive definite: y is not "
        "determined, or jumps");
  }
  const Matrix product = Matrix::Identity(k, k) - o.hessian.lazyProduct(m);
  const Vector own_motion = SolveSquare(product, o.gradient);
  const Vector all = w.lazyProduct(own_motion);
  const Space& space = s.program->scenarios[o.scenario]->y;
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
  if (!s.ready) return false;
  Vector fy;
  if (!s.Gather(lower_gradients, &fy)) return false;
  Vector z(fy.size());
  Matrix solution;
  for (size_t i = 0; i < s.program->scenarios.size(); ++i) {
    const Program::Scenario& scenario = *s.program->scenarios[i];
    const int offset = scenario.tangent_offset, size = scenario.y.tangent_size();
    if (!s.solver->SolveHessian(static_cast<int>(i), fy.segment(offset, size), &solution)) {
      return s.Fail(s.solver->message());
    }
    z.segment(offset, size) = solution;
  }
  Implementation::Observation o;
  for (size_t i = 0; i < residual_blocks.size(); ++i) {
    if (!s.Look(residual_blocks[i], false, &o)) return false;
    const int offset = s.program->scenarios[o.scenario]->tangent_offset;
    changes[i] = 0.0;
    for (size_t k = 0; k < o.coordinates.size(); ++k) {
      changes[i] += z[offset + o.coordinates[k]] * o.gradient[k];
    }
  }
  return true;
}

}  // namespace bilevel
