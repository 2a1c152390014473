#include "bilevel/upper_level/cross_validation.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <unordered_map>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/program/program.h"

namespace bilevel {
namespace {

using Kind = HoldoutOptions::Kind;

struct ResidualBlock {
  ceres::CostFunction* cost;
  ceres::LossFunction* loss;
  std::vector<double*> blocks;
};

// The first scenario's lower level, which the folds share.
struct LowerLevel {
  explicit LowerLevel(Problem* of);

  bool IsY(const double* block) const {
    return !lower.IsParameterBlockConstant(block) && !problem.IsUpperParameterBlock(block);
  }

  const Problem& problem;
  const ceres::Problem& lower;
  std::vector<ceres::ResidualBlockId> ids;
  std::vector<ResidualBlock> residuals;         // In the order of ids.
  std::unordered_map<const double*, int> rows;  // Of each variable block of y.
};

LowerLevel::LowerLevel(Problem* of) : problem(*of), lower(*of->lower()) {
  lower.GetResidualBlocks(&ids);
  residuals.resize(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    ResidualBlock& r = residuals[i];
    r.cost = const_cast<ceres::CostFunction*>(lower.GetCostFunctionForResidualBlock(ids[i]));
    r.loss = const_cast<ceres::LossFunction*>(lower.GetLossFunctionForResidualBlock(ids[i]));
    lower.GetParameterBlocksForResidualBlock(ids[i], &r.blocks);
    for (const double* block : r.blocks) {
      if (IsY(block)) rows[block] += r.cost->num_residuals();
    }
  }
}

// The candidates' indices among the level's residual blocks; none given: all.
bool FindCandidates(const LowerLevel& level,
                    const std::vector<ceres::ResidualBlockId>& candidates,
                    std::vector<int>* chosen,
                    std::string* error) {
  std::unordered_map<ceres::ResidualBlockId, int> index;
  for (size_t i = 0; i < level.ids.size(); ++i) index.emplace(level.ids[i], static_cast<int>(i));
  std::vector<char> seen(level.ids.size(), 0);
  for (ceres::ResidualBlockId id : candidates.empty() ? level.ids : candidates) {
    const auto it = index.find(id);
    if (it == index.end()) return Refuse("a candidate is not in the lower problem", error);
    if (std::exchange(seen[it->second], char(1))) {
      return Refuse("a candidate was given twice", error);
    }
    chosen->push_back(it->second);
  }
  return true;
}

// The fold of each candidate; -1: none.
std::vector<int> Assign(const CrossValidationOptions& options,
                        const LowerLevel& level,
                        const std::vector<int>& chosen,
                        int num_folds) {
  const int n = static_cast<int>(chosen.size());
  std::vector<int> fold(n, -1), order(n);
  std::iota(order.begin(), order.end(), 0);
  if (options.kind == Kind::kByBlock) {
    std::unordered_map<const double*, int> group;
    for (size_t g = 0; g < options.blocks.size(); ++g) {
      group.emplace(options.blocks[g], static_cast<int>(g));
    }
    for (int i = 0; i < n; ++i) {
      int first = -1;
      for (const double* block : level.residuals[chosen[i]].blocks) {
        const auto it = group.find(block);
        if (it != group.end() && (first < 0 || it->second < first)) first = it->second;
      }
      if (first >= 0) fold[i] = first % num_folds;
    }
    return fold;
  }
  if (options.kind == Kind::kRandom) {
    std::mt19937 generator(options.seed);
    for (int i = n; i > 1; --i) std::swap(order[i - 1], order[generator() % i]);
  } else if (!options.times.empty()) {
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return options.times[a] < options.times[b];
    });
  }
  for (int k = 0; k < n; ++k) {
    fold[order[k]] = static_cast<int>(static_cast<int64_t>(k) * num_folds / n);
  }
  return fold;
}

// Marks those of a fold's residual blocks that may leave: as many as leave each block of y at least
// as many rows as its tangent size. Returns how many.
int MarkLeaving(const LowerLevel& level,
                const std::vector<int>& members,
                std::vector<char>* leaves) {
  leaves->assign(level.ids.size(), 0);
  std::unordered_map<const double*, int> left = level.rows;
  int num_left = 0;
  for (const int i : members) {
    const ResidualBlock& r = level.residuals[i];
    const int own = r.cost->num_residuals();
    const bool may_leave = std::all_of(r.blocks.begin(), r.blocks.end(), [&](double* block) {
      return !level.IsY(block) || left[block] - own >= level.lower.ParameterBlockTangentSize(block);
    });
    if (!may_leave) continue;
    for (double* block : r.blocks) {
      if (level.IsY(block)) left[block] -= own;
    }
    (*leaves)[i] = 1;
    ++num_left;
  }
  return num_left;
}

// A scenario with copies of y.
class Fold {
 public:
  Fold(const std::string& name, const LowerLevel& level, Problem* problem)
      : level_(level), problem_(problem), scenario_(problem->AddScenario(name)) {}

  void AddBelow(const ResidualBlock& r) {
    const std::vector<double*> blocks = Add(r, r.loss, scenario_->lower());
    for (size_t b = 0; b < blocks.size(); ++b) {
      if (blocks[b] != r.blocks[b]) Constrain(r.blocks[b], blocks[b]);
    }
  }
  // Returns its blocks here.
  std::vector<double*> AddAbove(const ResidualBlock& r, ceres::LossFunction* score_loss) {
    return Add(r, score_loss, scenario_->upper());
  }

 private:
  double* Copy(double* block) {
    if (!level_.IsY(block)) return block;
    double*& copy = copies_[block];
    if (!copy) {
      const int size = level_.lower.ParameterBlockSize(block);
      copy = problem_->Own(std::make_unique<std::vector<double>>(block, block + size))->data();
    }
    return copy;
  }

  std::vector<double*> Add(const ResidualBlock& r, ceres::LossFunction* loss, ceres::Problem* to) {
    std::vector<double*> blocks;
    for (double* block : r.blocks) blocks.push_back(Copy(block));
    to->AddResidualBlock(r.cost, loss, blocks);
    for (double* block : r.blocks) {
      if (!level_.IsY(block) && level_.lower.IsParameterBlockConstant(block)) {
        to->SetParameterBlockConstant(block);
      }
    }
    return blocks;
  }

  // Gives a copy below the manifold and the bounds of its original.
  void Constrain(double* original, double* copy) {
    ceres::Problem& to = *scenario_->lower();
    if (to.HasManifold(copy)) return;
    const ceres::Problem& lower = level_.lower;
    if (lower.HasManifold(original)) {
      to.SetManifold(copy, const_cast<ceres::Manifold*>(lower.GetManifold(original)));
    }
    for (int i = 0; i < lower.ParameterBlockSize(original); ++i) {
      const double low = lower.GetParameterLowerBound(original, i);
      const double high = lower.GetParameterUpperBound(original, i);
      if (low > -1e300) to.SetParameterLowerBound(copy, i, low);
      if (high < 1e300) to.SetParameterUpperBound(copy, i, high);
    }
  }

  const LowerLevel& level_;
  Problem* const problem_;
  Scenario* const scenario_;
  std::unordered_map<const double*, double*> copies_;
};

// What folds made of n residual blocks over num_y blocks of y miss of the lower level as it is now.
std::string CheckWhole(const Program& program, const ceres::Problem* lower, int n, int num_y) {
  for (const auto& whole : program.scenarios) {
    if (whole->lower != lower) continue;
    if (whole->constraints) {
      return whole->row_names[0] + " was added after AddCrossValidation, whose folds have none";
    }
    if (whole->g->num_terms() > 0) {
      return whole->g->name() +
             " was given general terms after AddCrossValidation, whose folds have none";
    }
    if (whole->g->num_residual_blocks() != n) {
      return whole->g->name() + " has " + std::to_string(whole->g->num_residual_blocks()) +
             " residual blocks and had " + std::to_string(n) +
             " when AddCrossValidation made its folds: call it once the lower level is complete";
    }
    if (static_cast<int>(whole->y.blocks().size()) != num_y) {
      return whole->g->name() + " has " + std::to_string(whole->y.blocks().size()) +
             " blocks of y and had " + std::to_string(num_y) +
             " when AddCrossValidation copied them: call it once x is declared and the constant "
             "blocks are set";
    }
  }
  return "";
}

}  // namespace

bool CrossValidationOptions::IsValid(std::string* error) const {
  if (kind == Kind::kByBlock) {
    if (blocks.size() < 2) return Refuse("kByBlock needs two blocks or more", error);
    if (num_folds < 0 || num_folds == 1 || num_folds > static_cast<int>(blocks.size())) {
      return Refuse("num_folds must be 0 or from 2 to the number of blocks", error);
    }
  } else if (num_folds < 2) {
    return Refuse("num_folds must be 2 or more", error);
  }
  if (std::any_of(times.begin(), times.end(), [](double t) { return std::isnan(t); })) {
    return Refuse("a time is not a number", error);
  }
  return true;
}

bool AddCrossValidation(const CrossValidationOptions& options,
                        const std::vector<ceres::ResidualBlockId>& candidates,
                        ceres::LossFunction* score_loss,
                        Problem* problem,
                        std::vector<std::vector<HeldOutResidual>>* folds,
                        std::string* error) {
  if (folds) folds->clear();
  if (!options.IsValid(error)) return false;
  const Scenario* whole = problem->scenario(0);
  if (whole->is_wrapped(Level::kLower)) {
    return Refuse("the lower problem is the user's own, whose functions the folds cannot share",
                  error);
  }
  if (whole->num_terms(Level::kLower) > 0) {
    return Refuse("the lower level has general terms, which cannot be divided among folds", error);
  }
  if (whole->num_lower_constraints() > 0) {
    return Refuse("the lower level has constraints, which folds would leave out", error);
  }
  const LowerLevel level(problem);
  std::vector<int> chosen;
  if (!FindCandidates(level, candidates, &chosen, error)) return false;
  if (options.kind == Kind::kByTime && !options.times.empty() &&
      options.times.size() != chosen.size()) {
    return Refuse("there are " + std::to_string(options.times.size()) + " times for " +
                      std::to_string(chosen.size()) + " candidates",
                  error);
  }
  const int num_folds =
      options.num_folds > 0 ? options.num_folds : static_cast<int>(options.blocks.size());
  std::vector<std::vector<int>> members(num_folds);
  const std::vector<int> fold = Assign(options, level, chosen, num_folds);
  for (size_t k = 0; k < chosen.size(); ++k) {
    if (fold[k] >= 0) members[fold[k]].push_back(chosen[k]);
  }
  // Nothing is added before it is known that every fold holds something out.
  std::vector<std::vector<char>> leaves(num_folds);
  for (int f = 0; f < num_folds; ++f) {
    if (MarkLeaving(level, members[f], &leaves[f]) > 0) continue;
    return Refuse("fold " + std::to_string(f) + " is empty: no candidate of it may leave", error);
  }
  for (int f = 0; f < num_folds; ++f) {
    Fold scenario("fold " + std::to_string(f), level, problem);
    for (size_t i = 0; i < level.residuals.size(); ++i) {
      if (!leaves[f][i]) scenario.AddBelow(level.residuals[i]);
    }
    std::vector<HeldOutResidual> held_out;
    for (size_t i = 0; i < level.residuals.size(); ++i) {
      if (!leaves[f][i]) continue;
      const ResidualBlock& r = level.residuals[i];
      held_out.push_back({static_cast<int>(i), r.cost, scenario.AddAbove(r, score_loss)});
    }
    if (folds) folds->push_back(std::move(held_out));
  }
  problem->AddCheck([lower = problem->lower(),
                     n = static_cast<int>(level.residuals.size()),
                     num_y = static_cast<int>(level.rows.size())](const Program& program) {
    return CheckWhole(program, lower, n, num_y);
  });
  return true;
}

}  // namespace bilevel
