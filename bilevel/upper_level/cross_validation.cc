#include "bilevel/upper_level/cross_validation.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace bilevel {
namespace {

using Kind = HoldoutOptions::Kind;

bool Refuse(const std::string& what, std::string* error) {
  if (error) *error = what;
  return false;
}

struct ResidualBlock {
  ceres::CostFunction* cost;
  ceres::LossFunction* loss;
  std::vector<double*> blocks;
};

// The fold of each candidate; -1: none.
std::vector<int> Assign(const CrossValidationOptions& options,
                        const std::vector<const ResidualBlock*>& candidates,
                        int num_folds) {
  const int n = static_cast<int>(candidates.size());
  std::vector<int> fold(n, -1), order(n);
  std::iota(order.begin(), order.end(), 0);
  if (options.kind == Kind::kByBlock) {
    std::unordered_map<const double*, int> group;
    for (size_t g = 0; g < options.blocks.size(); ++g) {
      group.emplace(options.blocks[g], static_cast<int>(g));
    }
    for (int i = 0; i < n; ++i) {
      int first = -1;
      for (const double* block : candidates[i]->blocks) {
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
  Scenario* whole = problem->scenario(0);
  if (whole->is_wrapped(Level::kLower)) {
    return Refuse("the lower problem is the user's own, whose functions the folds cannot share",
                  error);
  }
  if (whole->num_terms(Level::kLower) > 0) {
    return Refuse("the lower level has general terms, which cannot be divided among folds", error);
  }
  ceres::Problem& lower = *whole->lower();
  std::vector<ceres::ResidualBlockId> ids;
  lower.GetResidualBlocks(&ids);
  std::unordered_map<ceres::ResidualBlockId, int> index;
  std::vector<ResidualBlock> residuals(ids.size());
  std::unordered_map<const double*, int> rows;  // Of each variable block of y.
  const auto is_y = [&](const double* block) {
    return !lower.IsParameterBlockConstant(block) && !problem->IsUpperParameterBlock(block);
  };
  for (size_t i = 0; i < ids.size(); ++i) {
    index.emplace(ids[i], static_cast<int>(i));
    ResidualBlock& r = residuals[i];
    r.cost = const_cast<ceres::CostFunction*>(lower.GetCostFunctionForResidualBlock(ids[i]));
    r.loss = const_cast<ceres::LossFunction*>(lower.GetLossFunctionForResidualBlock(ids[i]));
    lower.GetParameterBlocksForResidualBlock(ids[i], &r.blocks);
    for (const double* block : r.blocks) {
      if (is_y(block)) rows[block] += r.cost->num_residuals();
    }
  }
  std::vector<int> chosen;
  std::vector<char> seen(ids.size(), 0);
  for (ceres::ResidualBlockId id : candidates.empty() ? ids : candidates) {
    const auto it = index.find(id);
    if (it == index.end()) return Refuse("a candidate is not in the lower problem", error);
    if (std::exchange(seen[it->second], char(1))) {
      return Refuse("a candidate was given twice", error);
    }
    chosen.push_back(it->second);
  }
  if (options.kind == Kind::kByTime && !options.times.empty() &&
      options.times.size() != chosen.size()) {
    return Refuse("there are " + std::to_string(options.times.size()) + " times for " +
                      std::to_string(chosen.size()) + " candidates",
                  error);
  }
  const int num_folds =
      options.num_folds > 0 ? options.num_folds : static_cast<int>(options.blocks.size());
  std::vector<const ResidualBlock*> chosen_blocks;
  for (int i : chosen) chosen_blocks.push_back(&residuals[i]);
  const std::vector<int> fold = Assign(options, chosen_blocks, num_folds);

  // Who leaves: nothing is added before it is known that every fold holds something out.
  std::vector<std::vector<char>> leaves(num_folds, std::vector<char>(ids.size(), 0));
  std::vector<int> num_left(num_folds, 0);
  for (int f = 0; f < num_folds; ++f) {
    std::unordered_map<const double*, int> left = rows;
    for (size_t k = 0; k < chosen.size(); ++k) {
      if (fold[k] != f) continue;
      const ResidualBlock& r = residuals[chosen[k]];
      const int own = r.cost->num_residuals();
      const bool may_leave = std::all_of(r.blocks.begin(), r.blocks.end(), [&](double* block) {
        return !is_y(block) || left[block] - own >= lower.ParameterBlockTangentSize(block);
      });
      if (!may_leave) continue;
      for (double* block : r.blocks) {
        if (is_y(block)) left[block] -= own;
      }
      leaves[f][chosen[k]] = 1;
      ++num_left[f];
    }
    if (num_left[f] == 0) {
      return Refuse("fold " + std::to_string(f) + " is empty: no candidate of it may leave", error);
    }
  }

  for (int f = 0; f < num_folds; ++f) {
    Scenario* scenario = problem->AddScenario("fold " + std::to_string(f));
    std::unordered_map<const double*, double*> copies;
    const auto copy = [&](double* block) {
      if (!is_y(block)) return block;
      auto [it, is_new] = copies.emplace(block, nullptr);
      if (is_new) {
        const int size = lower.ParameterBlockSize(block);
        it->second =
            problem->Own(std::make_unique<std::vector<double>>(block, block + size))->data();
      }
      return it->second;
    };
    const auto add = [&](const ResidualBlock& r, bool held_out) {
      std::vector<double*> blocks;
      for (double* block : r.blocks) blocks.push_back(copy(block));
      ceres::Problem& to = held_out ? *scenario->upper() : *scenario->lower();
      to.AddResidualBlock(r.cost, held_out ? score_loss : r.loss, blocks);
      for (size_t b = 0; b < blocks.size(); ++b) {
        if (!is_y(r.blocks[b]) && lower.IsParameterBlockConstant(r.blocks[b])) {
          to.SetParameterBlockConstant(blocks[b]);
        }
        if (held_out || blocks[b] == r.blocks[b] || to.HasManifold(blocks[b])) continue;
        if (lower.HasManifold(r.blocks[b])) {
          to.SetManifold(blocks[b], const_cast<ceres::Manifold*>(lower.GetManifold(r.blocks[b])));
        }
        for (int i = 0; i < lower.ParameterBlockSize(r.blocks[b]); ++i) {
          const double low = lower.GetParameterLowerBound(r.blocks[b], i);
          const double high = lower.GetParameterUpperBound(r.blocks[b], i);
          if (low > -1e300) to.SetParameterLowerBound(blocks[b], i, low);
          if (high < 1e300) to.SetParameterUpperBound(blocks[b], i, high);
        }
      }
      return blocks;
    };
    for (size_t i = 0; i < ids.size(); ++i) {
      if (!leaves[f][i]) add(residuals[i], false);
    }
    std::vector<HeldOutResidual> held_out;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (!leaves[f][i]) continue;
      held_out.push_back({static_cast<int>(i), residuals[i].cost, add(residuals[i], true)});
    }
    if (folds) folds->push_back(std::move(held_out));
  }
  return true;
}

}  // namespace bilevel
