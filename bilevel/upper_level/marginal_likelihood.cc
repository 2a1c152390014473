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

bool AreSame(const Space& a, const Space& b) {
  return std::equal(a.blocks().begin(),
                    a.blocks().end(),
                    b.blocks().begin(),
                    b.blocks().end(),
                    [](const Space::Block& p, const Space::Block& q) {
                      return p.user == q.user && p.tangent_size == q.tangent_size;
                    });
}

bool AreSame(const LevelFunction& a, const LevelFunction& b) {
  return a.num_terms() == b.num_terms() && a.callback() == b.callback() &&
         std::equal(a.residuals().begin(),
                    a.residuals().end(),
                    b.residuals().begin(),
                    b.residuals().end(),
                    [](const LevelFunction::Residual& p, const LevelFunction::Residual& q) {
                      return p.num_residuals == q.num_residuals &&
                             p.ambient_size == q.ambient_size && p.theta_size == q.theta_size;
                    });
}

// What the log-determinants, made when the program was `before`, miss of it as it is `now`.
std::string CheckSince(const Program& before, const Program& now) {
  std::string changed;
  if (!AreSame(before.x, now.x)) changed = "the blocks of x";
  for (const auto& s : now.scenarios) {
    const auto old =
        std::find_if(before.scenarios.begin(), before.scenarios.end(), [&](const auto& candidate) {
          return candidate->lower == s->lower;
        });
    if (!changed.empty()) break;
    if (old == before.scenarios.end()) {
      changed = s->g->name();
    } else if (s->constraints) {
      changed = "the constraints (" + s->row_names[0] + ")";
    } else if (!AreSame((*old)->y, s->y)) {
      changed = "the blocks of y in " + s->g->name();
    } else if (!AreSame(*(*old)->g, *s->g)) {
      changed = "the residual blocks or terms of " + s->g->name();
    }
  }
  if (changed.empty()) return "";
  return changed +
         " changed after AddMarginalLikelihood, which is to be called once the lower "
         "levels and the declaration of x are complete";
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
  problem->AddCheck([program](const Program& now) { return CheckSince(*program, now); });
  return true;
}

}  // namespace bilevel
