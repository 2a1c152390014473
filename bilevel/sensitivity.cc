#include "bilevel/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <sstream>
#include <unordered_map>

#include "Eigen/Eigenvalues"
#include "Eigen/LU"
#include "bilevel/learnable/losses.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/objective/program.h"

namespace bilevel {

struct Sensitivity::Implementation {
  Options options;
  struct Scale {
    std::vector<ceres::ResidualBlockId> residual_blocks;
    double* log_sigma;
  };
  std::vector<Scale> scales;
  std::vector<std::unique_ptr<ceres::LossFunction>> losses;
  std::unique_ptr<Program> program;
  std::unique_ptr<NewtonLowerSolver> solver;
  Point x, y;
  std::vector<char> computed;  // By block of x.
  bool ready = false;
  mutable std::string message;

  // A scenario's systems with d^2g/dy^2, for right-hand sides that no x causes.
  struct Stationary {
    Stationary(Program* program, Program::Scenario* s)
        : scenario(s),
          g(s->g.get(), &program->pool),
          yy(s->g->yy_pattern()),
          gradient(s->y.tangent_size()),
          fixed(s->y.tangent_size(), 0),
          system(s->g->yy_pattern(), &s->y) {}
    Program::Scenario* scenario;
    LevelEvaluator g;
    SparseMatrix yy;
    Vector gradient;
    std::vector<char> fixed;
    HessianSystem system;
  };
  // One lower residual block at the solution.
  struct Observation {
    Stationary* at;
    std::vector<int> coordinates;  // Of the scenario's y (tangent), those it depends on.
    Vector gradient;               // Its part of g's derivatives, by these coordinates.
    Matrix hessian;
    Vector residuals;
    Matrix jacobian;
    double rho[3];
  };
  mutable std::vector<std::unique_ptr<Stationary>> stationary;
  mutable std::unordered_map<ceres::ResidualBlockId, Stationary*> owner;
  std::unordered_map<ceres::ResidualBlockId, const ceres::LossFunction*> scaled_losses;
  // The last residual block asked for, and dy*/dr.
  mutable ceres::ResidualBlockId last_observation = nullptr;
  mutable Matrix last_sensitivity;

  bool FactorizeStationary() const;
  bool Look(ceres::ResidualBlockId id, bool with_jacobian, Observation* observation) const;
  bool ScatterAndSolve(const Observation& observation,
                       const Matrix& columns,
                       Matrix* solution) const;

  // The gradient in all of y.
  bool Gather(const std::vector<BlockVector>& lower_gradients, Vector* fy) const {
    *fy = Vector::Zero(program->y.tangent_size());
    for (const BlockVector& entry : lower_gradients) {
      const int l = program->y.Find(entry.block);
      if (l < 0) return Fail("a lower block is not variable in the lower level");
      const Space::Block& block = program->y.blocks()[l];
      fy->segment(block.tangent_offset, block.tangent_size) +=
          Eigen::Map<const Vector>(entry.values, block.tangent_size);
    }
    return true;
  }

  bool Fail(const std::string& what) const {
    message = what;
    return false;
  }

  // The loss of a residual block with its noise scaled.
  bool ScaleLosses(Problem* problem, Problem::CompileOptions* compile) {
    losses.clear();
    std::unordered_map<ceres::ResidualBlockId, const ceres::Problem*> owners;
    for (int i = 0; !scales.empty() && i < problem->num_scenarios(); ++i) {
      const ceres::Problem* lower = problem->scenario(i)->lower();
      std::vector<ceres::ResidualBlockId> ids;
      lower->GetResidualBlocks(&ids);
      for (ceres::ResidualBlockId id : ids) owners[id] = lower;
    }
    for (const Scale& scale : scales) {
      if (!scale.log_sigma) return Fail("ScaleNoise was given a null pointer");
      const auto& added = compile->more_upper;
      if (!problem->IsUpperParameterBlock(scale.log_sigma) &&
          std::find(added.begin(), added.end(), scale.log_sigma) == added.end()) {
        compile->more_upper.push_back(scale.log_sigma);
      }
      for (ceres::ResidualBlockId id : scale.residual_blocks) {
        const auto found = owners.find(id);
        if (found == owners.end()) {
          return Fail("ScaleNoise was given a residual block that is not in the problem");
        }
        if (compile->lower_losses.count(id)) {
          return Fail("ScaleNoise was given the same residual block twice");
        }
        losses.push_back(
            std::make_unique<NoiseScaleLoss>(found->second->GetLossFunctionForResidualBlock(id),
                                             scale.log_sigma,
                                             ceres::DO_NOT_TAKE_OWNERSHIP));
        compile->lower_losses[id] = losses.back().get();
      }
    }
    return true;
  }
};

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

Sensitivity::Sensitivity() : Sensitivity(Options()) {}

Sensitivity::Sensitivity(const Options& options)
    : implementation_(std::make_unique<Implementation>()) {
  implementation_->options = options;
  implementation_->message = "Sensitivity::Compute was not called.";
}

Sensitivity::~Sensitivity() = default;

bool Sensitivity::Options::IsValid(std::string* error) const {
  if (!(stationarity_tolerance > 0.0)) {
    if (error) *error = "stationarity_tolerance must be positive";
    return false;
  }
  if (num_threads <= 0) {
    if (error) *error = "num_threads must be positive";
    return false;
  }
  return true;
}

void Sensitivity::ScaleNoise(const std::vector<ceres::ResidualBlockId>& residual_blocks,
                             double* log_sigma) {
  implementation_->scales.push_back({residual_blocks, log_sigma});
}

bool Sensitivity::Compute(Problem* problem, const std::vector<const double*>& upper_blocks) {
  Implementation& s = *implementation_;
  s.ready = false;
  s.message.clear();
  std::string error;
  if (!problem) return s.Fail("the problem is null");
  if (!s.options.IsValid(&error)) return s.Fail(error);
  Problem::CompileOptions compile;
  compile.num_threads = s.options.num_threads;
  compile.need_upper_level = false;
  if (!s.ScaleLosses(problem, &compile)) return false;
  s.scaled_losses = compile.lower_losses;
  s.last_observation = nullptr;
  s.owner.clear();
  s.stationary.clear();
  s.solver.reset();
  s.program = problem->Compile(compile, &error);
  if (!s.program) return s.Fail(error);
  s.computed.assign(s.program->x.blocks().size(), 0);
  for (const double* block : upper_blocks) {
    const int index = s.program->x.Find(block);
    if (index < 0) {
      return s.Fail(
          "Compute was asked for a block that is not an upper parameter block: declare "
          "it with AddUpperParameterBlock or ScaleNoise");
    }
    s.computed[index] = 1;
  }

  NewtonLowerSolver::Options options;
  options.use_ceres = false;
  options.hessian = s.options.hessian;
  options.singular_handling = s.options.singular_handling;
  options.tolerance = std::min(1e-10, s.options.stationarity_tolerance);
  options.fixed_blocks = s.options.fixed_blocks;
  for (const double* block : s.options.fixed_blocks) {
    if (s.program->y.Find(block) < 0) {
      return s.Fail("fixed_blocks has a block that is not variable in the lower level");
    }
  }
  s.solver = std::make_unique<NewtonLowerSolver>(s.program.get(), options);
  s.x = Point(&s.program->x);
  s.y = Point(&s.program->y);
  s.program->x.ReadUser(s.x.value().data());
  s.program->y.ReadUser(s.y.value().data());
  try {
    if (s.options.polish && !s.solver->Solve(s.x, &s.y)) return s.Fail(s.solver->message());
    if (!s.solver->Differentiate(s.x, s.y)) return s.Fail(s.solver->message());
  } catch (const std::exception& e) {
    return s.Fail(std::string("computing it threw: ") + e.what());
  }
  if (!(s.solver->MeasureDecrement() <= s.options.stationarity_tolerance) &&
      !s.solver->at_rounding()) {
    std::ostringstream text;
    text << "the lower level is not solved: y is a relative " << s.solver->relative_decrement()
         << " away from stationary (allowed: " << s.options.stationarity_tolerance
         << "); solve it more tightly or set Options::polish";
    return s.Fail(text.str());
  }
  for (size_t b = 0; b < s.computed.size(); ++b) {
    if (!s.computed[b]) continue;
    const Space::Block& block = s.program->x.blocks()[b];
    if (!s.solver->ComputeColumns(block.tangent_offset, block.tangent_size)) {
      return s.Fail(s.solver->message());
    }
  }
  if (s.options.polish) s.program->y.WriteUser(s.y.value().data());
  s.ready = true;
  return true;
}

bool Sensitivity::GetSensitivityBlockInTangentSpace(const double* lower,
                                                    const double* upper,
                                                    double* block) const {
  const Implementation& s = *implementation_;
  if (!s.ready) return false;
  const int l = s.program->y.Find(lower), u = s.program->x.Find(upper);
  if (l < 0) return s.Fail("the lower block is not variable in the lower level");
  if (u < 0 || !s.computed[u]) return s.Fail("the upper block was not given to Compute");
  const Space::Block &rows = s.program->y.blocks()[l], &columns = s.program->x.blocks()[u];
  Eigen::Map<Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
      block, rows.tangent_size, columns.tangent_size) =
      s.solver->columns().block(
          rows.tangent_offset, columns.tangent_offset, rows.tangent_size, columns.tangent_size);
  return true;
}

bool Sensitivity::GetSensitivityBlock(const double* lower,
                                      const double* upper,
                                      double* block) const {
  const Implementation& s = *implementation_;
  if (!s.ready) return false;
  const int l = s.program->y.Find(lower), u = s.program->x.Find(upper);
  if (l < 0 || u < 0) return s.Fail("a block is not known");
  const Space::Block &rows = s.program->y.blocks()[l], &columns = s.program->x.blocks()[u];
  using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  RowMatrix tangent(rows.tangent_size, columns.tangent_size);
  if (!GetSensitivityBlockInTangentSpace(lower, upper, tangent.data())) return false;
  RowMatrix ambient = tangent;
  if (rows.manifold) {
    RowMatrix plus(rows.size, rows.tangent_size);
    if (!rows.manifold->PlusJacobian(s.y.value().data() + rows.offset, plus.data())) {
      return s.Fail("the manifold of " + rows.name + " could not be differentiated");
    }
    ambient = plus * tangent;
  }
  if (columns.manifold) {
    RowMatrix minus(columns.tangent_size, columns.size);
    if (!columns.manifold->MinusJacobian(s.x.value().data() + columns.offset, minus.data())) {
      return s.Fail("the manifold of " + columns.name + " could not be differentiated");
    }
    ambient = ambient * minus;
  }
  Eigen::Map<RowMatrix>(block, ambient.rows(), ambient.cols()) = ambient;
  return true;
}

bool Sensitivity::Pullback(const std::vector<BlockVector>& lower_gradients,
                           const double* upper,
                           double* gradient) const {
  const Implementation& s = *implementation_;
  if (!s.ready) return false;
  const int u = s.program->x.Find(upper);
  if (u < 0) return s.Fail("the upper block is not known");
  Vector fy, product;
  if (!s.Gather(lower_gradients, &fy)) return false;
  if (!s.solver->Adjoint(fy, &product)) return s.Fail(s.solver->message());
  const Space::Block& block = s.program->x.blocks()[u];
  Eigen::Map<Vector>(gradient, block.tangent_size) =
      product.segment(block.tangent_offset, block.tangent_size);
  return true;
}

bool Sensitivity::Directional(const std::vector<BlockVector>& upper_directions,
                              const double* lower,
                              double* motion) const {
  const Implementation& s = *implementation_;
  if (!s.ready) return false;
  const int l = s.program->y.Find(lower);
  if (l < 0) return s.Fail("the lower block is not variable in the lower level");
  Vector direction = Vector::Zero(s.program->x.tangent_size()), all;
  for (const BlockVector& entry : upper_directions) {
    const int u = s.program->x.Find(entry.block);
    if (u < 0) return s.Fail("an upper block is not known");
    const Space::Block& block = s.program->x.blocks()[u];
    direction.segment(block.tangent_offset, block.tangent_size) +=
        Eigen::Map<const Vector>(entry.values, block.tangent_size);
  }
  if (!s.solver->Tangent(direction, &all)) return s.Fail(s.solver->message());
  const Space::Block& block = s.program->y.blocks()[l];
  Eigen::Map<Vector>(motion, block.tangent_size) =
      all.segment(block.tangent_offset, block.tangent_size);
  return true;
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

const std::string& Sensitivity::message() const { return implementation_->message; }

double Sensitivity::relative_decrement() const {
  return implementation_->solver ? implementation_->solver->relative_decrement() : -1.0;
}

int Sensitivity::num_free_directions() const {
  return implementation_->solver ? implementation_->solver->num_free_directions() : 0;
}

std::string Sensitivity::free_directions() const {
  return implementation_->solver ? implementation_->solver->free_directions() : "";
}

int Sensitivity::num_active_bounds() const {
  return implementation_->solver ? implementation_->solver->num_active_bounds() : 0;
}

std::string Sensitivity::weakly_active() const {
  return implementation_->solver ? implementation_->solver->weakly_active() : "";
}

int Sensitivity::num_exact_residual_blocks() const {
  int count = 0;
  if (implementation_->program) {
    for (const auto& s : implementation_->program->scenarios) count += s->g->num_exact_blocks();
  }
  return count;
}

int Sensitivity::num_numeric_residual_blocks() const {
  int count = 0;
  if (implementation_->program) {
    for (const auto& s : implementation_->program->scenarios) {
      count += s->g->num_residual_blocks() - s->g->num_exact_blocks();
    }
  }
  return count;
}

std::string Sensitivity::FullReport() const {
  std::ostringstream out;
  if (!implementation_->ready) {
    out << "Sensitivity: " << message() << "\n";
    return out.str();
  }
  out << "Sensitivity of " << implementation_->program->y.tangent_size() << " lower to "
      << implementation_->program->x.tangent_size() << " upper parameters\n"
      << "  second derivatives        " << num_exact_residual_blocks() << " exact, "
      << num_numeric_residual_blocks() << " differenced residual blocks\n";
  if (implementation_->options.hessian == HessianKind::kGaussNewton) {
    out << "  lower Hessian             Gauss-Newton: the result is approximate\n";
  }
  out << "  distance to y*, relative  " << relative_decrement() << "\n";
  if (num_free_directions() > 0) {
    out << "  free directions           " << num_free_directions() << ", in " << free_directions()
        << "\n";
  }
  if (num_active_bounds() > 0) out << "  active bounds             " << num_active_bounds() << "\n";
  if (!weakly_active().empty()) {
    out << "  weakly active (one-sided) " << weakly_active() << "\n";
  }
  return out.str();
}

}  // namespace bilevel
