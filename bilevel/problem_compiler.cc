#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <typeinfo>
#include <unordered_set>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/problem.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/program/program.h"
#include "ceres/cost_function.h"
#include "ceres/loss_function.h"

namespace bilevel {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool AllFinite(const double* values, int size) {
  return std::all_of(values, values + size, [](double v) { return std::isfinite(v); });
}

// The same kind twice is one manifold, as when both levels were built by one function.
bool SameManifold(const ceres::Manifold& a, const ceres::Manifold& b, const double* values) {
  if (typeid(a) != typeid(b) || a.AmbientSize() != b.AmbientSize() ||
      a.TangentSize() != b.TangentSize()) {
    return false;
  }
  Matrix plus_a(a.TangentSize(), a.AmbientSize()), plus_b = plus_a;
  return a.PlusJacobian(values, plus_a.data()) == b.PlusJacobian(values, plus_b.data()) &&
         plus_a == plus_b;
}

double OrInfinite(double bound) {
  return std::abs(bound) >= std::numeric_limits<double>::max() ? std::copysign(kInfinity, bound)
                                                               : bound;
}

}  // namespace

// The layout is made block by block; the first thing wrong ends it with a sentence.
class ProblemCompiler {
 public:
  ProblemCompiler(const Problem& problem,
                  const Problem::CompileOptions& options,
                  std::string* error)
      : problem_(problem), options_(options), error_(error) {}

  std::unique_ptr<Program> Run() {
    if (!problem_.first_error_.empty()) return Fail(problem_.first_error_);
    // A callback's evaluations write to the user's x, which the scenarios share.
    const bool callbacks =
        std::any_of(problem_.scenarios_.begin(), problem_.scenarios_.end(), [](const auto& s) {
          return s->lower_callback_ || s->upper_callback_;
        });
    program_ = std::make_unique<Program>(callbacks ? 1 : options_.num_threads);
    if (!AddUpperBlocks()) return nullptr;
    for (const auto& scenario : problem_.scenarios_) {
      if (IsEmpty(*scenario)) continue;
      if (!AddScenario(*scenario)) return nullptr;
    }
    if (program_->scenarios.empty()) {
      return Fail("the lower level is empty: it has no residual block and no term");
    }
    JoinScenarios();
    if (!CheckOverlap() || !CheckUse() || !CheckValues()) return nullptr;
    return std::move(program_);
  }

 private:
  std::nullptr_t Fail(const std::string& what) {
    *error_ = what;
    return nullptr;
  }
  bool Refuse(const std::string& what) {
    *error_ = what;
    return false;
  }
  static bool IsEmpty(const Scenario& s) {
    return s.lower_->NumResidualBlocks() == 0 && s.lower_terms_.empty() &&
           s.upper_->NumResidualBlocks() == 0 && s.upper_terms_.empty();
  }
  static bool IsCurved(const ceres::Manifold* manifold) {
    return manifold && !ManifoldCurvature(manifold).is_zero();
  }

  // The block's manifold in the ceres::Problems, nullptr where there is none; two different ones
  // are refused.
  bool FindManifold(double* values,
                    const std::string& name,
                    const std::vector<ceres::Problem*>& problems,
                    const ceres::Manifold* first,
                    const ceres::Manifold** manifold) {
    *manifold = first;
    for (ceres::Problem* problem : problems) {
      if (!problem->HasParameterBlock(values)) continue;
      const ceres::Manifold* other = problem->GetManifold(values);
      if (!other || other == *manifold) continue;
      if (*manifold) {
        if (!SameManifold(**manifold, *other, values)) {
          return Refuse(name + " has two different manifolds");
        }
        continue;
      }
      *manifold = other;
    }
    return true;
  }

  bool SetBounds(Space* space, int index, ceres::Problem* problem) {
    const Space::Block& block = space->blocks()[index];
    if (!problem->HasParameterBlock(block.user)) return true;
    for (int i = 0; i < block.size; ++i) {
      const double lower = OrInfinite(problem->GetParameterLowerBound(block.user, i));
      const double upper = OrInfinite(problem->GetParameterUpperBound(block.user, i));
      if (!SetBound(space, index, i, lower, upper)) return false;
    }
    return true;
  }

  bool SetBound(Space* space, int index, int coordinate, double lower, double upper) {
    if (std::isinf(lower) && std::isinf(upper)) return true;
    const Space::Block& block = space->blocks()[index];
    if (IsCurved(block.manifold)) {
      return Refuse(block.name + " has bounds and a curved manifold; bounds work on flat blocks");
    }
    const int j = space->TangentIndex(index, coordinate);
    if (j >= 0) {
      lower = std::max(lower, space->LowerBound(j));
      upper = std::min(upper, space->UpperBound(j));
    }
    const auto name = [&] { return block.name + "[" + std::to_string(coordinate) + "]"; };
    if (lower > upper) {
      return Refuse("the bounds of " + name() + " are infeasible: lower " + Number(lower) +
                    ", upper " + std::to_string(upper));
    }
    const double value = block.user[coordinate];
    if (value < lower || value > upper) {
      return Refuse("the start of " + name() + ", " + Number(value) + ", is outside its bounds [" +
                    Number(lower) + ", " + std::to_string(upper) + "]");
    }
    if (j >= 0) space->SetBounds(j, lower, upper);
    return true;
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
      const ceres::Manifold* manifold = nullptr;
      if (!FindManifold(block.values, name, problems, block.manifold, &manifold)) return false;
      const int index = program_->x.Add(block.values, block.size, manifold, name);
      for (int i = 0; i < block.size; ++i) {
        if (!SetBound(&program_->x, index, i, block.bounds[i].first, block.bounds[i].second)) {
          return false;
        }
      }
      for (ceres::Problem* problem : problems) {
        if (!SetBounds(&program_->x, index, problem)) return false;
      }
    }
    for (double* scalar : options_.more_upper) {
      program_->x.Add(
          scalar,
          1,
          nullptr,
          problem_.NameOf(scalar, "noise scale " + std::to_string(program_->x.blocks().size())));
    }
    if (program_->x.tangent_size() == 0 && options_.need_upper_level) {
      return Refuse("there is nothing to learn: no upper parameter block was declared");
    }
    return true;
  }

  bool AddScenario(const Scenario& s) {
    const std::string suffix = s.name_.empty() ? "" : " of scenario '" + s.name_ + "'";
    auto scenario = std::make_unique<Program::Scenario>();
    scenario->name = s.name_;
    scenario->weight = s.weight_;
    scenario->lower = s.lower_;
    if (!(s.weight_ > 0.0) || !std::isfinite(s.weight_)) {
      return Refuse("the weight" + suffix + " is " + std::to_string(s.weight_) +
                    "; it must be positive");
    }
    // y: what is variable below, in the order of its residual blocks (Ceres lists parameter blocks
    // by address, which differs from run to run).
    std::vector<double*> blocks;
    std::unordered_set<const double*> in_residual;
    std::vector<ceres::ResidualBlockId> lower_ids, upper_ids;
    s.lower_->GetResidualBlocks(&lower_ids);
    s.upper_->GetResidualBlocks(&upper_ids);
    std::vector<double*> arguments;
    for (ceres::ResidualBlockId id : lower_ids) {
      s.lower_->GetParameterBlocksForResidualBlock(id, &arguments);
      for (double* values : arguments) {
        if (in_residual.insert(values).second) blocks.push_back(values);
      }
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      double* values = blocks[i];
      if (program_->x.Find(values) >= 0 || s.lower_->IsParameterBlockConstant(values)) continue;
      const std::string name = problem_.NameOf(values, "lower block " + std::to_string(i) + suffix);
      if (!AddLower(s, values, s.lower_->ParameterBlockSize(values), name, scenario.get())) {
        return false;
      }
    }
    for (const Scenario::Term& term : s.lower_terms_) {
      if (!term.objective)
        return Refuse("a general term of the lower problem" + suffix + " is null");
      for (const Scenario::TermBlock& block : term.blocks) {
        if (!CheckTermBlock(block, s, *scenario)) return false;
        if (program_->x.Find(block.values) >= 0 || scenario->y.Find(block.values) >= 0 ||
            (s.lower_->HasParameterBlock(block.values) &&
             s.lower_->IsParameterBlockConstant(block.values))) {
          continue;
        }
        const std::string name = problem_.NameOf(
            block.values, "lower block " + std::to_string(scenario->y.blocks().size()) + suffix);
        if (!AddLower(s, block.values, block.size, name, scenario.get())) return false;
      }
    }
    if (scenario->y.blocks().empty()) {
      return Refuse("the lower level" + suffix +
                    " has nothing to solve for: no variable parameter block");
    }

    scenario->g =
        std::make_unique<LevelFunction>(&program_->x, &scenario->y, "the lower problem" + suffix);
    scenario->f =
        std::make_unique<LevelFunction>(&program_->x, &scenario->y, "the upper problem" + suffix);
    size_t num_weights = 0;
    for (const auto* ids : {&lower_ids, &upper_ids}) {
      for (ceres::ResidualBlockId id : *ids) num_weights += s.sampling_weights_.count(id);
    }
    if (num_weights != s.sampling_weights_.size()) {
      return Refuse("a sampling weight was given to a residual block that is not in the problem" +
                    suffix);
    }
    for (const auto& [id, weight] : s.sampling_weights_) {
      if (!(weight > 0.0)) {
        return Refuse("a residual block has the sampling weight " + std::to_string(weight) +
                      ": it must be positive" + suffix);
      }
    }
    const auto weight_of = [&](ceres::ResidualBlockId id) {
      const auto it = s.sampling_weights_.find(id);
      return it == s.sampling_weights_.end() ? 1.0 : it->second;
    };
    for (ceres::ResidualBlockId id : lower_ids) {
      s.lower_->GetParameterBlocksForResidualBlock(id, &arguments);
      const auto it = options_.lower_losses.find(id);
      const ceres::LossFunction* loss = it != options_.lower_losses.end()
                                            ? it->second
                                            : s.lower_->GetLossFunctionForResidualBlock(id);
      if (!CheckLoss(loss, *scenario, suffix)) return false;
      scenario->g->AddResidual(
          s.lower_->GetCostFunctionForResidualBlock(id), loss, arguments, weight_of(id));
    }
    const std::string of_upper = " of the upper problem" + suffix;
    for (ceres::ResidualBlockId id : upper_ids) {
      s.upper_->GetParameterBlocksForResidualBlock(id, &arguments);
      for (double* values : arguments) {
        const std::string where =
            "residual block " + std::to_string(scenario->f->num_residual_blocks()) + of_upper;
        if (!CheckUpperArgument(s, values, *scenario, where)) return false;
      }
      const ceres::LossFunction* loss = s.upper_->GetLossFunctionForResidualBlock(id);
      if (!CheckLoss(loss, *scenario, suffix)) return false;
      scenario->f->AddResidual(
          s.upper_->GetCostFunctionForResidualBlock(id), loss, arguments, weight_of(id));
    }
    for (const Scenario::Term& term : s.lower_terms_) {
      if (!AddTerm(term, scenario->g.get())) return false;
    }
    for (const Scenario::Term& term : s.upper_terms_) {
      if (!term.objective)
        return Refuse("a general term of the upper problem" + suffix + " is null");
      for (const Scenario::TermBlock& block : term.blocks) {
        if (!CheckTermBlock(block, s, *scenario) ||
            !CheckUpperArgument(s, block.values, *scenario, "a general term" + of_upper)) {
          return false;
        }
      }
      if (!AddTerm(term, scenario->f.get())) return false;
    }
    scenario->g->SetCallback(s.lower_callback_);
    scenario->f->SetCallback(s.upper_callback_);
    scenario->g->Finish();
    scenario->f->Finish();
    program_->scenarios.push_back(std::move(scenario));
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
    if (!FindManifold(values, name, {s.lower_, s.upper_}, nullptr, &manifold)) return false;
    if (manifold && manifold->TangentSize() == 0) return true;  // A constant.
    const int index = scenario->y.Add(values, size, manifold, name);
    return SetBounds(&scenario->y, index, s.lower_);
  }

  bool CheckTermBlock(const Scenario::TermBlock& block,
                      const Scenario& s,
                      const Program::Scenario& scenario) {
    if (!block.values || block.size <= 0) {
      return Refuse("a general term was given a null or empty parameter block");
    }
    for (ceres::Problem* problem : {s.lower_, s.upper_}) {
      if (problem->HasParameterBlock(block.values) &&
          problem->ParameterBlockSize(block.values) != block.size) {
        return Refuse(problem_.NameOf(block.values, "a block") + " of a general term has size " +
                      std::to_string(block.size) + " there and " +
                      std::to_string(problem->ParameterBlockSize(block.values)) +
                      " in a ceres::Problem");
      }
    }
    const Space* const spaces[] = {&program_->x, &scenario.y};
    for (const Space* space : spaces) {
      const int index = space->Find(block.values);
      if (index >= 0 && space->blocks()[index].size != block.size) {
        return Refuse(space->blocks()[index].name + " has size " +
                      std::to_string(space->blocks()[index].size) + " but " +
                      std::to_string(block.size) + " in a general term");
      }
    }
    return true;
  }

  // The parameters of a learnable loss are whole blocks of x, or constants.
  bool CheckLoss(const ceres::LossFunction* loss,
                 const Program::Scenario& scenario,
                 const std::string& suffix) {
    const auto* learnable = dynamic_cast<const LearnableLoss*>(loss);
    if (!learnable) return true;
    for (const LearnableLoss::ParameterBlock& theta : learnable->parameter_blocks()) {
      for (const Space::Block& block : program_->x.blocks()) {
        const std::less<const double*> before;
        const bool apart = !before(theta.values, block.user + block.size) ||
                           !before(block.user, theta.values + theta.size);
        if (apart || (theta.values == block.user && theta.size == block.size)) continue;
        return Refuse("a learnable loss" + suffix + " has a parameter of size " +
                      std::to_string(theta.size) + " that is a part of " + block.name +
                      " of size " + std::to_string(block.size) + ", not the whole block");
      }
      if (const int y = scenario.y.Find(theta.values); y >= 0) {
        return Refuse("a learnable loss" + suffix + " has the lower-level block " +
                      scenario.y.blocks()[y].name +
                      " as its parameter: declare it upper, or constant");
      }
    }
    return true;
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
    if (const std::string complaint = term.objective->CheckBlocks(sizes); !complaint.empty()) {
      return Refuse("general term " + std::to_string(function->num_terms()) + " of " +
                    function->name() + ": " + complaint);
    }
    const int own = term.objective->block_of_terms();
    if (own >= static_cast<int>(sizes.size()) ||
        (own >= 0 && sizes[own] != term.objective->num_terms())) {
      return Refuse("general term " + std::to_string(function->num_terms()) + " of " +
                    function->name() +
                    ": its block_of_terms() must have a coordinate for each term");
    }
    function->AddTerm(term.objective.get(), blocks, sizes);
    return true;
  }

  void JoinScenarios() {
    for (auto& scenario : program_->scenarios) {
      scenario->offset = program_->y.size();
      scenario->tangent_offset = program_->y.tangent_size();
      for (const Space::Block& block : scenario->y.blocks()) {
        program_->y.Add(block.user, block.size, block.manifold, block.name);
      }
      for (int j = 0; scenario->y.has_bounds() && j < scenario->y.tangent_size(); ++j) {
        program_->y.SetBounds(
            scenario->tangent_offset + j, scenario->y.LowerBound(j), scenario->y.UpperBound(j));
      }
    }
  }

  bool CheckOverlap() {
    std::vector<const Space::Block*> blocks;
    for (const Space* space : {&program_->x, &program_->y}) {
      for (const Space::Block& block : space->blocks()) blocks.push_back(&block);
    }
    std::sort(blocks.begin(), blocks.end(), [](const Space::Block* a, const Space::Block* b) {
      return std::less<const double*>()(a->user, b->user);
    });
    for (size_t i = 1; i < blocks.size(); ++i) {
      if (!std::less<const double*>()(blocks[i]->user, blocks[i - 1]->user + blocks[i - 1]->size)) {
        continue;
      }
      return Refuse(blocks[i - 1]->name + " and " + blocks[i]->name + " overlap in memory");
    }
    return true;
  }

  // A block of x nothing depends on cannot be learned, and is often one hidden in a loss.
  bool CheckUse() {
    int upper_terms = 0;
    for (const auto& s : program_->scenarios) {
      upper_terms += s->f->num_residual_blocks() + s->f->num_terms();
    }
    if (options_.need_upper_level && upper_terms == 0) {
      return Refuse("the upper level is empty: it has no residual block and no term");
    }
    for (size_t b = 0; b < program_->x.blocks().size(); ++b) {
      bool used = false;
      for (const auto& s : program_->scenarios) {
        used = used || s->f->UsesX(static_cast<int>(b)) || s->g->UsesX(static_cast<int>(b));
      }
      if (used) continue;
      return Refuse(program_->x.blocks()[b].name +
                    " appears in no residual block, term or learnable loss (inside a "
                    "ceres::ScaledLoss or ceres::ComposedLoss a learnable loss cannot be seen: use "
                    "the bilevel ones)");
    }
    return true;
  }

  bool CheckValues() {
    for (const Space* space : {&program_->x, &program_->y}) {
      for (const Space::Block& block : space->blocks()) {
        if (!AllFinite(block.user, block.size)) {
          return Refuse("the start of " + block.name + " is not finite");
        }
      }
    }
    Vector x(program_->x.size());
    program_->x.ReadUser(x.data());
    for (const auto& s : program_->scenarios) {
      Vector y(s->y.size()), gx(program_->x.tangent_size()), gy(s->y.tangent_size());
      s->y.ReadUser(y.data());
      for (const LevelFunction* function : {s->g.get(), s->f.get()}) {
        LevelEvaluator evaluator(function, nullptr);
        double value = 0.0;
        const std::vector<int> sums = function->DrawnFrom();
        const bool stream = std::count(sums.begin(), sums.end(), Objective::kStream) > 0;
        const Batch batch = stream ? Batch{1, 0} : Batch::All();
        if (!evaluator.Gradient(x.data(), y.data(), batch, &value, gx.data(), gy.data())) {
          return Refuse("at the start, " + evaluator.error());
        }
      }
    }
    return true;
  }

  const Problem& problem_;
  const Problem::CompileOptions& options_;
  std::string* error_;
  std::unique_ptr<Program> program_;
};

std::unique_ptr<Program> Problem::Compile(const CompileOptions& options, std::string* error) const {
  std::string unwanted;
  if (!error) error = &unwanted;
  try {
    return ProblemCompiler(*this, options, error).Run();
  } catch (const std::exception& e) {
    *error = std::string("laying out the problem threw: ") + e.what();
  } catch (...) {
    *error = "laying out the problem threw something that is not a std::exception";
  }
  return nullptr;
}

bool Problem::IsValid(std::string* error) const { return Compile({}, error) != nullptr; }

}  // namespace bilevel
