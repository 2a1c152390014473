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

// Tries to compute it; returns what stands in the way, or nothing.
std::string Compute(const Solver::Options& options,
                    HessianKind kind,
                    Problem* problem,
                    Uncertainty* uncertainty) {
  std::string error;
  PreparedProblem::Needs needs;
  needs.derivative = true;
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
  return uncertainty->message();
}

}  // namespace

bool ComputeUncertainty(const Solver::Options& options,
                        HessianKind kind,
                        Problem* problem,
                        Uncertainty* uncertainty,
                        std::string* message) {
  std::string unwanted;
  if (!message) message = &unwanted;
  *uncertainty = Uncertainty();
  const std::string thrown =
      Thrown([&] { *message = Compute(options, kind, problem, uncertainty); });
  if (!thrown.empty()) *message = "computing it" + thrown;
  return message->empty();
}

}  // namespace bilevel
