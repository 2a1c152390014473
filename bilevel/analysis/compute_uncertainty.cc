#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/internal/prepared_problem.h"
#include "bilevel/oracle/hyper_hessian.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/program/program.h"
#include "bilevel/solver.h"

namespace bilevel {
namespace {

// The gradients of the scenarios' parts of phi, by dy*/dx.
std::string AddScores(Oracle& oracle, const Point& x, const Point& y, Uncertainty* uncertainty) {
  const Program& program = oracle.program();
  Matrix num_terms(1, program.scenarios.size());
  for (size_t s = 0; s < program.scenarios.size(); ++s) {
    const LevelFunction& f = *program.scenarios[s]->f;
    num_terms(0, s) = f.num_residual_blocks() + f.num_terms();
  }
  num_terms = program.exchange.Columns("counting terms", nullptr, num_terms);
  const Matrix& dy_dx = oracle.lower().dy_dx();
  Matrix scores(x.dim(), num_terms.cols());
  int count = 0;
  Vector fx, fy;
  for (int s = 0; s < scores.cols(); ++s) {
    if (num_terms(0, s) == 0.0) continue;
    oracle.UseScenario(s);
    oracle.f.Gradient(x, y, &fx, &fy);
    scores.col(count++) = fx + program.PullBack(dy_dx, fy);
  }
  oracle.UseAllScenarios();
  if (!oracle.ok()) return oracle.error();
  if (count < 2) return "it takes two scenarios with terms above to see how they differ";
  uncertainty->UseScores(scores.leftCols(count));
  return "";
}

// Tries to compute it; returns what stands in the way, or nothing.
std::string Compute(const Solver::Options& options,
                    HessianKind kind,
                    bool across_scenarios,
                    Problem* problem,
                    Uncertainty* uncertainty) {
  std::string error;
  PreparedProblem::Needs needs;
  needs.derivative = true;
  needs.ranks = true;
  const auto prepared = PreparedProblem::Create(options, needs, problem, &error);
  if (!prepared) return error;
  Oracle& oracle = prepared->oracle();
  const State start = prepared->Start();
  const Point& x = start.x;
  HyperObjective phi(&oracle, start.y);
  double value;
  Vector gradient, residuals;
  if (!phi.Evaluate(x, &value, &gradient)) return phi.message();
  phi.Accept();
  double squared_residuals = kNaN;
  int num_residuals = -1;
  Matrix second;
  double relative_error = 0.0;
  if (oracle.f.IsLeastSquares()) {
    Matrix jacobian;
    oracle.f.Linearize(x, phi.y(), oracle.lower().dy_dx(), &residuals, &jacobian);
    if (!oracle.ok()) return oracle.error();
    squared_residuals = residuals.squaredNorm();
    num_residuals = static_cast<int>(residuals.size());
    second = jacobian.transpose() * jacobian;
  } else if (kind == HessianKind::kGaussNewton) {
    return "Gauss-Newton needs an upper level of residual blocks alone, without general terms and "
           "without learned losses; HessianKind::kExact takes any";
  }
  if (kind == HessianKind::kExact) {
    std::vector<char> held(x.dim());
    for (int i = 0; i < x.dim(); ++i) {
      held[i] = x.space().IsHeld(x.value().data(), i, gradient[i]);
    }
    HyperHessian hessian(&oracle);
    if (!hessian.Evaluate(x, phi.y(), held, &second)) return hessian.message();
    relative_error = hessian.relative_error();
  }
  uncertainty->Compute(x, second, gradient, kind, squared_residuals, num_residuals, relative_error);
  if (!across_scenarios || !uncertainty->available()) return uncertainty->message();
  error = AddScores(oracle, x, phi.y(), uncertainty);
  if (!error.empty()) *uncertainty = Uncertainty();
  return error;
}

bool ComputeGuarded(const Solver::Options& options,
                    HessianKind kind,
                    bool across_scenarios,
                    Problem* problem,
                    Uncertainty* uncertainty,
                    std::string* message) {
  std::string unwanted;
  if (!message) message = &unwanted;
  *uncertainty = Uncertainty();
  const std::string thrown =
      Thrown([&] { *message = Compute(options, kind, across_scenarios, problem, uncertainty); });
  if (!thrown.empty()) *message = "computing it" + thrown;
  return message->empty();
}

}  // namespace

bool ComputeUncertainty(const Solver::Options& options,
                        HessianKind kind,
                        Problem* problem,
                        Uncertainty* uncertainty,
                        std::string* message) {
  return ComputeGuarded(options, kind, false, problem, uncertainty, message);
}

bool ComputeUncertaintyAcrossScenarios(const Solver::Options& options,
                                       HessianKind kind,
                                       Problem* problem,
                                       Uncertainty* uncertainty,
                                       std::string* message) {
  return ComputeGuarded(options, kind, true, problem, uncertainty, message);
}

}  // namespace bilevel
