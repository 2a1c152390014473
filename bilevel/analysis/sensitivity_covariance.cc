// The covariance of y*: blocks of the inverse of d^2g/dy^2.
#include <string>
#include <vector>

#include "bilevel/analysis/internal/sensitivity_implementation.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/lower_level/internal/beyond_losses.h"

namespace bilevel {
namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// A residual that sees a free direction; others have rounding there.
constexpr double kVisible = 1e-6;

}  // namespace

// `which` is for the message.
bool Sensitivity::Implementation::FindLower(const double* user,
                                            const char* which,
                                            LowerBlock* found) const {
  const std::string who = std::string("the ") + which + " block";
  if (!user) return Fail(who + " is null");
  for (size_t i = 0; i < program->scenarios.size(); ++i) {
    const Program::Scenario& scenario = *program->scenarios[i];
    if (const int b = scenario.y.Find(user); b >= 0) {
      const Space::Block& block = scenario.y.blocks()[b];
      *found = {static_cast<int>(i), b, block.size, block.tangent_size};
      return true;
    }
  }
  if (const int u = program->x.Find(user); u >= 0) {
    return Fail(who + ", " + program->x.blocks()[u].name +
                ", is an upper parameter block: ComputeUncertainty has the covariance of x");
  }
  for (const auto& scenario : program->scenarios) {
    const ceres::Problem* lower = scenario->lower;
    if (!lower || !lower->HasParameterBlock(user)) continue;
    const int size = lower->ParameterBlockSize(user);
    const int tangent_size = lower->ParameterBlockTangentSize(user);
    if (!lower->IsParameterBlockConstant(user) && tangent_size > 0) {
      return Fail(who + " is in no residual block of the lower level: its covariance is infinite");
    }
    *found = {-1, -1, size, tangent_size};
    return true;
  }
  return Fail(who + " is no parameter block of the lower level");
}

// Whether the free directions are those of the residuals too, without their losses.
bool Sensitivity::Implementation::CheckLosses(int index) const {
  const Matrix& null = solver->system(index).null_space();
  if (null.cols() == 0 || options.singular_handling == SingularHandling::kMinimumNorm) return true;
  const Program::Scenario& scenario = *program->scenarios[index];
  if (!scenario.lower) return true;
  std::vector<ceres::ResidualBlockId> ids;
  scenario.lower->GetResidualBlocks(&ids);
  for (const int r :
       ResidualsBeyondLosses(*scenario.g, x.value().data(), y.value().data() + scenario.offset)) {
    Observation o;
    if (!Look(ids[r], true, &o)) return false;
    const Matrix seen = null(o.coordinates, Eigen::all);
    if ((o.jacobian * seen).norm() > kVisible * o.jacobian.norm() * seen.norm()) {
      return Fail("residual block " + std::to_string(r) +
                  " of the lower problem is beyond its loss's scale, where the loss is flat, and y "
                  "is free without it: its covariance is infinite; start with a larger scale, or "
                  "ask for the pseudo-inverse by SingularHandling::kMinimumNorm");
    }
  }
  return true;
}

bool Sensitivity::Implementation::GetInverse(int index, InverseHessian** inverse) const {
  inverses.resize(program->scenarios.size());
  if (!inverses[index]) {
    if (!CheckLosses(index)) return false;
    auto made =
        std::make_unique<InverseHessian>(&solver->system(index), &program->scenarios[index]->y);
    if (!made->Prepare()) return Fail(made->message());
    inverses[index] = std::move(made);
  }
  *inverse = inverses[index].get();
  return true;
}

// Tangent.
bool Sensitivity::Implementation::Covariance(const LowerBlock& rows,
                                             const LowerBlock& columns,
                                             Matrix* block) const {
  if (rows.block < 0 || columns.block < 0 || rows.scenario != columns.scenario) {
    block->setZero(rows.tangent_size, columns.tangent_size);
    return true;
  }
  if (program->scenarios[rows.scenario]->constraints) {  // Of y within them.
    const Space& space = program->scenarios[rows.scenario]->y;
    const int first = space.blocks()[columns.block].tangent_offset;
    const Matrix unit = Matrix::Identity(space.tangent_size(), space.tangent_size())
                            .middleCols(first, columns.tangent_size);
    Matrix solution;
    if (!solver->SolveHessian(rows.scenario, unit, &solution)) return Fail(solver->message());
    *block = solution.middleRows(space.blocks()[rows.block].tangent_offset, rows.tangent_size);
    return true;
  }
  InverseHessian* inverse;
  if (!GetInverse(rows.scenario, &inverse)) return false;
  return inverse->GetBlock(rows.block, columns.block, block) || Fail(inverse->message());
}

// Its rows, by PlusJacobian.
bool Sensitivity::Implementation::ToAmbient(const LowerBlock& rows, Matrix* block) const {
  const ceres::Manifold* manifold = nullptr;
  if (rows.block >= 0) {
    const Program::Scenario& scenario = *program->scenarios[rows.scenario];
    const Space::Block& own = scenario.y.blocks()[rows.block];
    manifold = own.manifold;
    if (manifold) {
      RowMatrix plus(own.size, own.tangent_size);
      const double* at = y.value().data() + scenario.offset + own.offset;
      if (!manifold->PlusJacobian(at, plus.data())) {
        return Fail("the manifold of " + own.name + " could not be differentiated");
      }
      *block = plus.lazyProduct(*block).eval();
    }
  } else {
    block->setZero(rows.size, block->cols());
  }
  return true;
}

bool Sensitivity::Implementation::WriteCovariance(const double* lower1,
                                                  const double* lower2,
                                                  bool is_ambient,
                                                  double* block) const {
  if (!ready) return false;
  bool ok = false;
  const std::string thrown = Thrown([&] {
    LowerBlock rows, columns;
    Matrix covariance;
    ok = FindLower(lower1, "first", &rows) && FindLower(lower2, "second", &columns) &&
         (block || Fail("there is no memory for the covariance: null")) &&
         Covariance(rows, columns, &covariance) && (!is_ambient || ToAmbient(rows, &covariance));
    if (!ok) return;
    covariance.transposeInPlace();
    ok = !is_ambient || ToAmbient(columns, &covariance);
    // Transposed and by columns: by rows.
    if (ok) Eigen::Map<Matrix>(block, covariance.rows(), covariance.cols()) = covariance;
  });
  return thrown.empty() ? ok : Fail("the covariance" + thrown);
}

bool Sensitivity::GetCovarianceBlockInTangentSpace(const double* lower1,
                                                   const double* lower2,
                                                   double* block) const {
  return implementation_->WriteCovariance(lower1, lower2, false, block);
}

bool Sensitivity::GetCovarianceBlock(const double* lower1,
                                     const double* lower2,
                                     double* block) const {
  return implementation_->WriteCovariance(lower1, lower2, true, block);
}

}  // namespace bilevel
