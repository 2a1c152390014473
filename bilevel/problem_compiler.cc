#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <unordered_set>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/internal/block_geometry.h"
#include "bilevel/internal/check_against_ceres.h"
#include "bilevel/internal/check_program.h"
#include "bilevel/internal/join_ranks.h"
#include "bilevel/internal/lay_out_constraints.h"
#include "bilevel/internal/true_jacobian.h"
#include "bilevel/problem.h"
#include "bilevel/program/level_function.h"
#include "bilevel/program/program.h"
#include "ceres/cost_function.h"
#include "ceres/loss_function.h"

namespace bilevel {

// The layout is made block by block; the first thing wrong ends it with a sentence.
class ProblemCompiler {
 public:
  ProblemCompiler(const Problem& problem,
                  const Problem::CompileOptions& options,
                  std::string* error)
      : problem_(problem), options_(options), error_(error) {}

  std::unique_ptr<Program> Run() {
    error_->clear();
    bool is_laid_out = false;
    const std::string thrown = Thrown([&] { is_laid_out = LayOut(); });
    if (!thrown.empty()) *error_ = "laying out the problem" + thrown;
    if (problem_.ranks_) {
      if (!JoinRanks(problem_.ranks_, DeclaredScenarios(), program_.get(), error_)) return nullptr;
    } else if (!is_laid_out) {
      return nullptr;
    }
    if (program_->scenarios.empty()) {
      return Fail("the lower level is empty: it has no residual block and no term");
    }
    JoinScenarios();
    const std::string complaint = program_->exchange.Complaint("checking the problem", Check());
    if (!complaint.empty()) return Fail(complaint);
    return std::move(program_);
  }

 private:
  std::string Check() const {
    std::string complaint;
    const std::string thrown = Thrown([&] {
      complaint = CheckProgram(*program_, options_.need_f);
      if (complaint.empty()) complaint = CheckRecordings(*program_, false);
      // With other losses than the user's the costs differ, and so does what was built on them.
      if (!options_.lower_losses.empty()) return;
      if (complaint.empty()) complaint = CheckCosts(*program_);
      for (const auto& check : problem_.checks_) {
        if (complaint.empty()) complaint = check(*program_);
      }
    });
    return thrown.empty() ? complaint : "laying out the problem" + thrown;
  }

  // All that can be said of each scenario by itself. False: *error_ says what is wrong.
  bool LayOut() {
    if (!problem_.first_error_.empty()) return Refuse(problem_.first_error_);
    // A callback's evaluations write to the user's x, which the scenarios share.
    const bool callbacks =
        std::any_of(problem_.scenarios_.begin(), problem_.scenarios_.end(), [](const auto& s) {
          return s->lower_callback_ || s->upper_callback_;
        });
    program_ = std::make_unique<Program>(callbacks ? 1 : options_.num_threads);
    true_jacobians_.emplace(program_.get());
    if (!AddUpperBlocks()) return false;
    for (const auto& scenario : problem_.scenarios_) {
      if (!IsLeftOut(*scenario) && !AddScenario(*scenario)) return false;
      if (!IsLeftOut(*scenario)) {
        program_->scenarios.back()->index = static_cast<int>(program_->scenarios.size()) - 1;
      }
    }
    return true;
  }

  std::vector<DeclaredScenario> DeclaredScenarios() const {
    std::vector<DeclaredScenario> all;
    for (const auto& scenario : problem_.scenarios_) {
      all.push_back({scenario->name_, scenario->weight_, !IsLeftOut(*scenario)});
    }
    return all;
  }

  std::nullptr_t Fail(const std::string& what) {
    *error_ = what;
    return nullptr;
  }
  bool Refuse(const std::string& what) {
    *error_ = what;
    return false;
  }
  static bool IsLeftOut(const Scenario& s) {
    return s.weight_ == 0.0 || (s.lower_->NumResidualBlocks() == 0 && s.lower_terms_.empty() &&
                                s.upper_->NumResidualBlocks() == 0 && s.upper_terms_.empty());
  }
  bool AddUpperBlocks() {
    std::vector<ceres::Problem*> problems;
    for (const auto& s : problem_.scenarios_) {
      problems.push_back(s->lower_);
      problems.push_back(s->upper_);
    }
    for (const Problem::UpperBlock& block : problem_.upper_blocks_) {
      const std::string name = problem_.NameOf(
          block.values, "upper block " + std::to_string(program_->x.blocks().size()));
      for (ceres::Problem* problem : problems) {
        if (problem->HasParameterBlock(block.values) &&
            problem->ParameterBlockSize(block.values) != block.size) {
          return Refuse(
              name + " was declared with size " + std::to_string(block.size) + " but has size " +
              std::to_string(problem->ParameterBlockSize(block.values)) + " in a ceres::Problem");
        }
      }
      const ceres::Manifold* manifold = block.manifold;
      if (!FindManifold(block.values, name, problems, &program_->own_manifolds, &manifold, error_))
        return false;
      manifold = true_jacobians_->OfManifold(manifold, block.values, name);
      const int index = program_->x.Add(block.values, block.size, manifold, name);
      for (int i = 0; i < block.size; ++i) {
        const auto& [lower, upper] = block.bounds[i];
        if (!SetBound(&program_->x, index, i, lower, upper, error_)) return false;
      }
      for (ceres::Problem* problem : problems) {
        if (!SetBounds(&program_->x, index, *problem, error_)) return false;
      }
    }
    for (double* scalar : options_.more_upper) {
      program_->x.Add(
          scalar,
          1,
          nullptr,
          problem_.NameOf(scalar, "noise scale " + std::to_string(program_->x.blocks().size())));
    }
    x_in_memory_.emplace(program_->x);
    if (program_->x.tangent_size() == 0 && options_.need_x) {
      return Refuse(
          "there is nothing to learn: no upper parameter block was declared (SolveSimpleBilevel "
          "minimises f over the lower level's solutions, without any)");
    }
    return true;
  }

  // A scenario under way.
  struct Draft {
    explicit Draft(const Scenario& scenario)
        : s(scenario), suffix(s.name_.empty() ? "" : " of scenario '" + s.name_ + "'") {
      s.lower_->GetResidualBlocks(&lower_ids);
      s.upper_->GetResidualBlocks(&upper_ids);
    }
    double SamplingWeight(ceres::ResidualBlockId id) const {
      const auto it = s.sampling_weights_.find(id);
      return it == s.sampling_weights_.end() ? 1.0 : it->second;
    }
    const Scenario& s;
    const std::string suffix;  // Of messages.
    std::vector<ceres::ResidualBlockId> lower_ids, upper_ids;
    std::vector<LowerConstraint> constraints;
    std::unique_ptr<Program::Scenario> made = std::make_unique<Program::Scenario>();
  };

  bool AddScenario(const Scenario& s) {
    Draft draft(s);
    Program::Scenario& made = *draft.made;
    made.name = s.name_;
    made.weight = s.weight_;
    made.lower = s.lower_;
    made.upper = s.upper_;
    if (!(s.weight_ > 0.0) || !std::isfinite(s.weight_)) {
      return Refuse("the weight" + draft.suffix + " is " + Number(s.weight_) +
                    "; it must be positive, or 0 to leave the scenario out");
    }
    if (!AddLowerBlocks(&draft) || !AddLowerBlocksOfTerms(&draft) ||
        !AddLowerBlocksOfConstraints(&draft) || !AddLowerSets(&draft)) {
      return false;
    }
    if (made.y.blocks().empty()) {
      return Refuse("the lower level" + draft.suffix +
                    " has nothing to solve for: no variable parameter block");
    }
    made.g =
        std::make_unique<LevelFunction>(&program_->x, &made.y, "the lower problem" + draft.suffix);
    made.f =
        std::make_unique<LevelFunction>(&program_->x, &made.y, "the upper problem" + draft.suffix);
    std::string complaint =
        CheckSamplingWeights(s.sampling_weights_, {&draft.lower_ids, &draft.upper_ids});
    if (!complaint.empty()) return Refuse(complaint + draft.suffix);
    if (!AddLowerResiduals(&draft) || !AddUpperResiduals(&draft)) return false;
    for (const Scenario::Term& term : s.lower_terms_) {
      if (!AddTerm(term, made.g.get())) return false;
    }
    if (!AddUpperTerms(&draft)) return false;
    complaint =
        LayOutConstraints(draft.constraints, &program_->x, draft.suffix, &*true_jacobians_, &made);
    if (!complaint.empty()) return Refuse(complaint);
    made.g->SetCallback(s.lower_callback_);
    if (made.constraints) made.constraints->SetCallback(s.lower_callback_);
    made.f->SetCallback(s.upper_callback_);
    made.g->Finish();
    made.f->Finish();
    program_->scenarios.push_back(std::move(draft.made));
    return true;
  }

  // y: what is variable below, in the order of its residual blocks (Ceres lists parameter blocks
  // by address, which differs from run to run).
  bool AddLowerBlocks(Draft* draft) {
    const Scenario& s = draft->s;
    std::vector<double*> blocks, arguments;
    std::unordered_set<const double*> seen;
    for (ceres::ResidualBlockId id : draft->lower_ids) {
      s.lower_->GetParameterBlocksForResidualBlock(id, &arguments);
      for (double* values : arguments) {
        if (seen.insert(values).second) blocks.push_back(values);
      }
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      double* values = blocks[i];
      if (program_->x.Find(values) >= 0 || s.lower_->IsParameterBlockConstant(values)) continue;
      const std::string name =
          problem_.NameOf(values, "lower block " + std::to_string(i) + draft->suffix);
      const int size = s.lower_->ParameterBlockSize(values);
      if (!AddLower(s, values, size, name, draft->made.get())) return false;
    }
    return true;
  }

  bool AddLowerBlocksOfTerms(Draft* draft) {
    for (const Scenario::Term& term : draft->s.lower_terms_) {
      if (!term.objective) {
        return Refuse("a general term of the lower problem" + draft->suffix + " is null");
      }
      for (const Scenario::TermBlock& block : term.blocks) {
        if (!AddLowerBlock(block, "a general term", draft)) return false;
      }
    }
    return true;
  }

  bool AddLowerBlocksOfConstraints(Draft* draft) {
    std::array<int, 2> count = {0, 0};
    for (const Scenario::Constraint& c : draft->s.lower_constraints_) {
      const std::string kind = c.is_inequality ? "inequality " : "equality ";
      const std::string name =
          kind + std::to_string(count[c.is_inequality]++) + " of the lower problem" + draft->suffix;
      draft->constraints.push_back({c.cost, c.blocks, c.is_inequality, name});
      const std::string complaint = CheckConstraint(draft->constraints.back());
      if (!complaint.empty()) return Refuse(complaint);
      for (size_t i = 0; i < c.blocks.size(); ++i) {
        const int size = c.cost->parameter_block_sizes()[i];
        if (!AddLowerBlock({c.blocks[i], size}, name, draft)) return false;
      }
    }
    return true;
  }

  // Each is the projection of its block, and constraints.
  bool AddLowerSets(Draft* draft) {
    Space& y = draft->made->y;
    for (const auto& own : draft->s.lower_sets_) {
      double* const values = own.first;
      const ConvexSet& set = *own.second;
      const int index = y.Find(values);
      if (index < 0) {
        return Refuse("a convex set is of a block that is no variable one of the lower problem" +
                      draft->suffix);
      }
      if (!SetConvexSet(&y, index, set, error_)) return false;
      const Space::Block& block = y.blocks()[index];
      const std::string name = "the convex set of " + block.name;
      std::vector<ConvexSet::Constraint> constraints;
      const std::string thrown = Thrown([&] { constraints = set.NewConstraints(block.size); });
      if (!thrown.empty()) return Refuse(name + thrown);
      if (constraints.empty()) draft->made->projected_only = name;
      for (ConvexSet::Constraint& c : constraints) {
        draft->constraints.push_back({c.cost.get(), {values}, c.is_inequality, name, true});
        program_->own_costs.push_back(std::move(c.cost));
      }
    }
    return true;
  }

  // Of what is no residual block, called `where`.
  bool AddLowerBlock(const Scenario::TermBlock& block, const std::string& where, Draft* draft) {
    const Scenario& s = draft->s;
    const Space& y = draft->made->y;
    if (!CheckTermBlock(block, where, s, *draft->made)) return false;
    if (program_->x.Find(block.values) >= 0 || y.Find(block.values) >= 0 ||
        (s.lower_->HasParameterBlock(block.values) &&
         s.lower_->IsParameterBlockConstant(block.values))) {
      return true;
    }
    const std::string name = problem_.NameOf(
        block.values, "lower block " + std::to_string(y.blocks().size()) + draft->suffix);
    return AddLower(s, block.values, block.size, name, draft->made.get());
  }

  bool AddLowerResiduals(Draft* draft) {
    const ceres::Problem& lower = *draft->s.lower_;
    std::vector<double*> arguments;
    for (ceres::ResidualBlockId id : draft->lower_ids) {
      lower.GetParameterBlocksForResidualBlock(id, &arguments);
      const auto it = options_.lower_losses.find(id);
      const ceres::LossFunction* loss = it != options_.lower_losses.end()
                                            ? it->second
                                            : lower.GetLossFunctionForResidualBlock(id);
      if (!AddResidual(lower, id, arguments, loss, *draft, draft->made->g.get())) return false;
    }
    return true;
  }

  bool AddUpperResiduals(Draft* draft) {
    const ceres::Problem& upper = *draft->s.upper_;
    LevelFunction& f = *draft->made->f;
    std::vector<double*> arguments;
    for (ceres::ResidualBlockId id : draft->upper_ids) {
      upper.GetParameterBlocksForResidualBlock(id, &arguments);
      for (double* values : arguments) {
        const std::string where =
            "residual block " + std::to_string(f.num_residual_blocks()) + " of " + f.name();
        if (!CheckUpperArgument(draft->s, values, *draft->made, where)) return false;
      }
      const ceres::LossFunction* loss = upper.GetLossFunctionForResidualBlock(id);
      if (!AddResidual(upper, id, arguments, loss, *draft, &f)) return false;
    }
    return true;
  }

  bool AddResidual(const ceres::Problem& problem,
                   ceres::ResidualBlockId id,
                   const std::vector<double*>& arguments,
                   const ceres::LossFunction* loss,
                   const Draft& draft,
                   LevelFunction* level) {
    if (!CheckLoss(loss, *x_in_memory_, draft.made->y, draft.suffix, error_)) return false;
    const ceres::CostFunction* cost = problem.GetCostFunctionForResidualBlock(id);
    if (const std::string complaint = true_jacobians_->OfCost(arguments, &cost);
        !complaint.empty()) {
      return Refuse("residual block " + std::to_string(level->num_residual_blocks()) + " of " +
                    level->name() + " " + complaint);
    }
    level->AddResidual(cost, loss, arguments, draft.SamplingWeight(id));
    return true;
  }

  bool AddUpperTerms(Draft* draft) {
    LevelFunction& f = *draft->made->f;
    for (const Scenario::Term& term : draft->s.upper_terms_) {
      if (!term.objective) {
        return Refuse("a general term of " + f.name() + " is null");
      }
      const std::string where = "a general term of " + f.name();
      for (const Scenario::TermBlock& block : term.blocks) {
        if (!CheckTermBlock(block, "a general term", draft->s, *draft->made) ||
            !CheckUpperArgument(draft->s, block.values, *draft->made, where)) {
          return false;
        }
      }
      if (!AddTerm(term, &f)) return false;
    }
    return true;
  }

  bool AddLower(const Scenario& s,
                double* values,
                int size,
                const std::string& name,
                Program::Scenario* scenario) {
    for (const auto& other : program_->scenarios) {
      if (other->y.Find(values) >= 0) {
        return Refuse(name +
                      " is a lower-level block of two scenarios; shared blocks must be "
                      "declared upper");
      }
    }
    const ceres::Manifold* manifold = nullptr;
    if (!FindManifold(
            values, name, {s.lower_, s.upper_}, &program_->own_manifolds, &manifold, error_))
      return false;
    if (manifold && manifold->TangentSize() == 0) return true;  // A constant.
    manifold = true_jacobians_->OfManifold(manifold, values, name);
    const int index = scenario->y.Add(values, size, manifold, name);
    return SetBounds(&scenario->y, index, *s.lower_, error_);
  }

  bool CheckTermBlock(const Scenario::TermBlock& block,
                      const std::string& where,
                      const Scenario& s,
                      const Program::Scenario& scenario) {
    const std::string name = problem_.NameOf(block.values, "a block") + " of " + where;
    const std::string complaint = CheckBlock(
        block.values, block.size, name, {s.lower_, s.upper_}, {&program_->x, &scenario.y});
    return complaint.empty() || Refuse(complaint);
  }

  bool CheckUpperArgument(const Scenario& s,
                          double* values,
                          const Program::Scenario& scenario,
                          const std::string& where) {
    if (program_->x.Find(values) >= 0 || scenario.y.Find(values) >= 0) return true;
    const bool constant =
        (s.upper_->HasParameterBlock(values) && s.upper_->IsParameterBlockConstant(values)) ||
        (s.lower_->HasParameterBlock(values) && s.lower_->IsParameterBlockConstant(values));
    if (constant) return true;
    return Refuse(problem_.NameOf(values, "a block of " + where) +
                  " is variable in the upper problem only: declare it upper, or constant");
  }

  bool AddTerm(const Scenario::Term& term, LevelFunction* function) {
    std::vector<double*> blocks;
    std::vector<int> sizes;
    for (const Scenario::TermBlock& block : term.blocks) {
      blocks.push_back(block.values);
      sizes.push_back(block.size);
    }
    const std::string name =
        "general term " + std::to_string(function->num_terms()) + " of " + function->name();
    if (!CheckTerm(*term.objective, sizes, name, error_)) return false;
    function->AddTerm(term.objective.get(), blocks, sizes);
    return true;
  }

  void JoinScenarios() {
    for (auto& scenario : program_->scenarios) {
      scenario->offset = program_->y.size();
      scenario->tangent_offset = program_->y.tangent_size();
      Append(scenario->y, &program_->y);
    }
  }

  const Problem& problem_;
  const Problem::CompileOptions& options_;
  std::string* error_;
  std::unique_ptr<Program> program_;
  std::optional<TrueJacobians> true_jacobians_;
  std::optional<BlocksInMemory> x_in_memory_;
};

std::unique_ptr<Program> Problem::Compile(const CompileOptions& options, std::string* error) const {
  std::string unwanted;
  if (!error) error = &unwanted;
  std::unique_ptr<Program> program;
  const std::string thrown =
      Thrown([&] { program = ProblemCompiler(*this, options, error).Run(); });
  if (!thrown.empty()) *error = "laying out the problem" + thrown;
  return program;
}

bool Problem::IsValid(std::string* error) const { return Compile({}, error) != nullptr; }

}  // namespace bilevel
