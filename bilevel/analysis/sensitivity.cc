#include "bilevel/analysis/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <sstream>
#include <utility>

#include "bilevel/analysis/internal/sensitivity_implementation.h"
#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/lower_level/constrained_lower_solver.h"

namespace bilevel {

Sensitivity::Sensitivity() : Sensitivity(Options()) {}

Sensitivity::Sensitivity(const Options& options)
    : implementation_(std::make_unique<Implementation>()) {
  implementation_->options = options;
  implementation_->message = "Sensitivity::Compute was not called.";
}

Sensitivity::~Sensitivity() = default;

bool Sensitivity::Options::IsValid(std::string* error) const {
  if (!(stationarity_tolerance > 0.0)) {
    return Refuse("stationarity_tolerance must be positive", error);
  }
  if (max_num_newton_iterations < 0) {
    return Refuse("max_num_newton_iterations must not be negative", error);
  }
  return num_threads > 0 || Refuse("num_threads must be positive", error);
}

void Sensitivity::ScaleNoise(const std::vector<ceres::ResidualBlockId>& residual_blocks,
                             double* log_sigma) {
  implementation_->scales.push_back({residual_blocks, log_sigma});
}

// Opens the problem with the noise scaled and with Newton's method below.
bool Sensitivity::Implementation::Prepare(Problem* problem) {
  prepared.reset();
  program = nullptr;
  solver = nullptr;
  PreparedProblem::Needs needs;
  needs.compile.need_f = needs.compile.need_x = false;
  if (!ScaleLosses(problem, &needs.compile)) return false;
  scaled_losses = needs.compile.lower_losses;
  NewtonLowerSolver::Options newton;
  newton.first_is_warm = true;
  newton.ceres.logging_type = ceres::SILENT;
  newton.max_num_newton_iterations = options.max_num_newton_iterations;
  newton.hessian = options.hessian;
  newton.singular_handling = options.singular_handling;
  newton.tolerance = std::min(1e-10, options.stationarity_tolerance);
  newton.tolerance_name = "stationarity_tolerance";
  newton.fixed_blocks = options.fixed_blocks;
  Solver::Options solver_options;
  solver_options.num_threads = options.num_threads;
  solver_options.lower_solver = [newton](Program* of) { return MakeNewtonLowerSolver(of, newton); };
  std::string error;
  prepared = PreparedProblem::Create(solver_options, needs, problem, &error);
  if (!prepared) return Fail(error);
  program = &prepared->program();
  solver = static_cast<NewtonLowerSolver*>(&prepared->lower());
  const State start = prepared->Start();
  x = start.x;
  y = start.y;
  return true;
}

// To rounding or, where noise in the residuals comes before, as far as is asked for.
bool Sensitivity::Implementation::Polish() {
  if (solver->Solve(x, &y)) return true;
  solver->SetTolerance(options.stationarity_tolerance);
  const bool is_solved = solver->Solve(x, &y);
  solver->SetTolerance(0.0);
  return is_solved;
}

bool Sensitivity::Compute(Problem* problem, const std::vector<const double*>& upper_blocks) {
  Implementation& s = *implementation_;
  s.ready = false;
  s.message.clear();
  std::string error;
  if (!problem) return s.Fail("the problem is null");
  if (!s.options.IsValid(&error)) return s.Fail(error);
  s.last_observation = nullptr;
  s.inverses.clear();
  s.owner.clear();
  if (!s.Prepare(problem)) return false;
  for (size_t i = 0; i < s.program->scenarios.size(); ++i) {
    if (!s.program->scenarios[i]->lower) continue;
    std::vector<ceres::ResidualBlockId> ids;
    s.program->scenarios[i]->lower->GetResidualBlocks(&ids);
    for (size_t k = 0; k < ids.size(); ++k) {
      s.owner[ids[k]] = {static_cast<int>(i), static_cast<int>(k)};
    }
  }
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

  for (const double* block : s.options.fixed_blocks) {
    if (s.program->y.Find(block) < 0) {
      return s.Fail("fixed_blocks has a block that is not variable in the lower level");
    }
  }
  bool is_ready = false;
  const std::string thrown = Thrown(
      [&] { is_ready = (!s.options.polish || s.Polish()) && s.solver->Differentiate(s.x, s.y); });
  if (!is_ready) return s.Fail(thrown.empty() ? s.solver->message() : "computing it" + thrown);
  if (!(s.solver->MeasureDecrement() <= s.options.stationarity_tolerance) &&
      !s.solver->at_rounding()) {
    std::ostringstream text;
    text << "the lower level is not solved: y is a relative " << s.solver->relative_decrement()
         << " away from stationary (allowed: " << s.options.stationarity_tolerance << "); "
         << (s.options.polish ? "noise in its values lets it come no nearer: only a larger "
                                "stationarity_tolerance will do"
                              : "solve it more tightly or set Options::polish");
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

const std::string& Sensitivity::message() const { return implementation_->message; }

double Sensitivity::relative_rounding() const {
  return implementation_->solver ? implementation_->solver->rounding() : 0.0;
}

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
  if (const double rounding = relative_rounding(); rounding > 0.0) {
    out << "  rounding, relative        up to " << rounding << ": the Hessian is ill-conditioned\n";
  }
  if (const std::string& remark = implementation_->program->remark; !remark.empty()) {
    out << "  manifolds                 " << remark << "\n";
  }
  if (num_free_directions() > 0) {
    out << "  free directions           " << num_free_directions() << ", in " << free_directions()
        << "\n";
  }
  if (!implementation_->inverses.empty()) {
    const bool is_exact = implementation_->options.hessian == HessianKind::kExact;
    out << "  covariance of y           inverse of the " << (is_exact ? "exact" : "Gauss-Newton")
        << " Hessian";
    if (num_free_directions() > 0) out << ", of minimal norm in the free directions";
    out << "\n";
  }
  if (num_active_bounds() > 0) out << "  active bounds             " << num_active_bounds() << "\n";
  if (!weakly_active().empty()) {
    out << "  weakly active (one-sided) " << weakly_active() << "\n";
  }
  return out.str();
}

}  // namespace bilevel
