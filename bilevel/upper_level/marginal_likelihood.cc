#include "bilevel/upper_level/marginal_likelihood.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/program/program.h"
#include "bilevel/upper_level/internal/half_log_determinant.h"

namespace bilevel {
namespace {

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
    if (scenario.num_lower_constraints() > 0) {
      return Refuse("the lower level of scenario " + std::to_string(s) +
                        " has constraints, which no Gaussian around y* knows of",
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
  for (const auto& scenario : program->scenarios) {
    if (!scenario->g->callback()) continue;
    return Refuse(
        scenario->g->name() +
            " has an evaluation callback, and its residual blocks are looked at one by one",
        error);
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
