#include "bilevel/upper_level/holdout.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"

namespace bilevel {
namespace {

// What a block has, and must keep.
struct Stock {
  int residuals = 0, rows = 0;
  int least_residuals = 0, least_rows = 0;
};

struct Candidate {
  std::vector<int> stocks;  // Without repetition.
  int rows;
  int group = -1;  // Those of one group leave together.
};

// Whether the members can leave all together; takes them out of stock if so.
bool TakeOut(const std::vector<int>& members,
             const std::vector<Candidate>& candidates,
             std::vector<Stock>* stocks) {
  const auto add = [&](int sign) {
    bool enough = true;
    for (int i : members) {
      for (int b : candidates[i].stocks) {
        Stock& stock = (*stocks)[b];
        stock.residuals += sign;
        stock.rows += sign * candidates[i].rows;
        enough =
            enough && stock.residuals >= stock.least_residuals && stock.rows >= stock.least_rows;
      }
    }
    return enough;
  };
  if (add(-1)) return true;
  add(+1);
  return false;
}

// The same on every platform, unlike std::shuffle.
void Shuffle(unsigned seed, std::vector<int>* order) {
  std::mt19937 generator(seed);
  for (size_t i = order->size(); i > 1; --i) std::swap((*order)[i - 1], (*order)[generator() % i]);
}

bool Choose(const HoldoutOptions& options,
            const std::vector<Candidate>& candidates,
            std::vector<Stock> stocks,
            std::vector<int>* set,
            std::string* error) {
  if (!options.IsValid(error)) return false;
  const int n = static_cast<int>(candidates.size());
  const int num_sets = static_cast<int>(options.fractions.size());
  const bool by_time = options.kind == HoldoutOptions::Kind::kByTime;
  if (by_time && !options.times.empty() && static_cast<int>(options.times.size()) != n) {
    return Refuse("there are " + std::to_string(options.times.size()) + " times for " +
                      std::to_string(n) + " candidates",
                  error);
  }

  // The groups, in the order in which they are asked to leave.
  std::vector<std::vector<int>> groups;
  if (options.kind == HoldoutOptions::Kind::kByBlock) {
    groups.resize(options.blocks.size());
    for (int i = 0; i < n; ++i) {
      if (candidates[i].group >= 0) groups[candidates[i].group].push_back(i);
    }
  } else {
    for (int i = 0; i < n; ++i) groups.push_back({i});
  }
  std::vector<int> order(groups.size());
  std::iota(order.begin(), order.end(), 0);
  if (by_time) {
    if (!options.times.empty()) {
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return options.times[a] < options.times[b];
      });
    }
    std::reverse(order.begin(), order.end());
  } else {
    Shuffle(options.seed, &order);
  }

  set->assign(n, 0);
  std::vector<double> missing;
  for (double fraction : options.fractions) missing.push_back(std::round(fraction * n));
  const std::vector<double> wanted = missing;
  for (int group : order) {
    const std::vector<int>& members = groups[group];
    if (members.empty()) continue;
    // By time the last set is filled first; otherwise all grow in proportion, so that none is
    // left with what the others' constraints allow.
    int to = num_sets - 1;
    if (by_time) {
      while (to >= 0 && missing[to] <= 0.0) --to;
      if (to < 0) break;
    } else {
      for (int k = 0; k < num_sets; ++k) {
        if (missing[k] * wanted[to] > missing[to] * wanted[k]) to = k;
      }
    }
    if (missing[to] <= 0.0) break;
    if (missing[to] < 0.5 * static_cast<double>(members.size())) continue;
    if (!TakeOut(members, candidates, &stocks)) continue;
    missing[to] -= static_cast<double>(members.size());
    for (int i : members) (*set)[i] = to + 1;
  }
  for (int k = 0; k < num_sets; ++k) {
    if (missing[k] < wanted[k]) continue;
    return Refuse(
        "held-out set " + std::to_string(k + 1) + " is empty: of " + std::to_string(n) +
            " candidates too few may leave (min_left = " + std::to_string(options.min_left) + ")",
        error);
  }
  return true;
}

}  // namespace

bool HoldoutOptions::IsValid(std::string* error) const {
  double sum = 0.0;
  for (double fraction : fractions) {
    if (!(fraction > 0.0)) return Refuse("every fraction must be positive", error);
    sum += fraction;
  }
  if (fractions.empty() || !(sum < 1.0)) {
    return Refuse("fractions must name at least one set and sum to less than 1", error);
  }
  if (min_left < 0) return Refuse("min_left must not be negative", error);
  if (kind == Kind::kByBlock && blocks.empty()) return Refuse("kByBlock needs blocks", error);
  if (std::any_of(times.begin(), times.end(), [](double t) { return std::isnan(t); })) {
    return Refuse("a time is not a number", error);
  }
  return true;
}

namespace {

std::unordered_map<const double*, int> GroupOfBlock(const HoldoutOptions& options) {
  std::unordered_map<const double*, int> groups;
  if (options.kind != HoldoutOptions::Kind::kByBlock) return groups;
  for (size_t g = 0; g < options.blocks.size(); ++g) {
    groups.emplace(options.blocks[g], static_cast<int>(g));
  }
  return groups;
}

template <typename Blocks>
int FindGroup(const std::unordered_map<const double*, int>& groups, const Blocks& blocks) {
  int first = -1;
  for (const double* block : blocks) {
    const auto it = groups.find(block);
    if (it != groups.end() && (first < 0 || it->second < first)) first = it->second;
  }
  return first;
}

}  // namespace

bool ChooseHoldout(const HoldoutOptions& options,
                   const std::vector<std::vector<const double*>>& blocks,
                   std::vector<int>* set,
                   std::string* error) {
  const auto groups = GroupOfBlock(options);
  std::unordered_map<const double*, int> index;
  std::vector<Stock> stocks;
  std::vector<Candidate> candidates(blocks.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    candidates[i].rows = 1;
    candidates[i].group = FindGroup(groups, blocks[i]);
    for (const double* block : blocks[i]) {
      const int b = index.emplace(block, static_cast<int>(stocks.size())).first->second;
      if (b == static_cast<int>(stocks.size())) stocks.push_back({0, 0, options.min_left, 0});
      std::vector<int>& own = candidates[i].stocks;
      if (std::find(own.begin(), own.end(), b) != own.end()) continue;
      own.push_back(b);
      ++stocks[b].residuals;
      ++stocks[b].rows;
    }
  }
  return Choose(options, candidates, std::move(stocks), set, error);
}

namespace {

// What the variable blocks of a lower level have, by the residual blocks on them.
class Inventory {
 public:
  Inventory(const HoldoutOptions& options, const Problem& problem, const ceres::Problem& lower)
      : problem_(problem),
        lower_(lower),
        min_left_(options.min_left),
        groups_(GroupOfBlock(options)) {}

  Candidate Describe(ceres::ResidualBlockId id) {
    Candidate candidate;
    candidate.rows = lower_.GetCostFunctionForResidualBlock(id)->num_residuals();
    std::vector<double*> blocks;
    lower_.GetParameterBlocksForResidualBlock(id, &blocks);
    candidate.group = FindGroup(groups_, blocks);
    for (double* block : blocks) {
      const auto [it, is_new] = stock_of_block_.emplace(block, static_cast<int>(stocks_.size()));
      if (is_new) {
        if (lower_.IsParameterBlockConstant(block) || problem_.IsUpperParameterBlock(block)) {
          it->second = -1;
        } else {
          stocks_.push_back({0, 0, min_left_, lower_.ParameterBlockTangentSize(block)});
          block_of_stock_.push_back(block);
        }
      }
      if (it->second >= 0) candidate.stocks.push_back(it->second);
    }
    return candidate;
  }

  void Add(ceres::ResidualBlockId id) {
    const Candidate residual = Describe(id);
    for (int b : residual.stocks) {
      ++stocks_[b].residuals;
      stocks_[b].rows += residual.rows;
    }
  }

  // False where a block has too few rows before anything leaves.
  bool IsEnough(std::string* error) const {
    for (size_t b = 0; b < stocks_.size(); ++b) {
      const Stock& stock = stocks_[b];
      if (stock.rows >= stock.least_rows) continue;
      return Refuse(problem_.NameOf(block_of_stock_[b], "lower block " + std::to_string(b)) +
                        " has " + std::to_string(stock.rows) +
                        " residual rows, fewer than its tangent size " +
                        std::to_string(stock.least_rows) + ", before anything is held out",
                    error);
    }
    return true;
  }

  const std::vector<Stock>& stocks() const { return stocks_; }

 private:
  const Problem& problem_;
  const ceres::Problem& lower_;
  const int min_left_;
  const std::unordered_map<const double*, int> groups_;
  std::unordered_map<const double*, int> stock_of_block_;
  std::vector<Stock> stocks_;
  std::vector<const double*> block_of_stock_;
};

// Takes a residual block out of the lower problem, which keeps its functions alive.
HeldOutResidual Remove(ceres::ResidualBlockId id, int index, Scenario* scenario, Problem* problem) {
  ceres::Problem& lower = *scenario->lower();
  HeldOutResidual removed{index, lower.GetCostFunctionForResidualBlock(id), {}};
  lower.GetParameterBlocksForResidualBlock(id, &removed.blocks);
  if (!scenario->is_wrapped(Level::kLower)) {
    problem->Adopt(removed.cost, lower.GetLossFunctionForResidualBlock(id));
  }
  lower.RemoveResidualBlock(id);
  return removed;
}

}  // namespace

bool SplitHoldout(const HoldoutOptions& options,
                  const std::vector<ceres::ResidualBlockId>& candidates,
                  ceres::LossFunction* score_loss,
                  Problem* problem,
                  std::vector<std::vector<HeldOutResidual>>* sets,
                  std::string* error,
                  int scenario_index,
                  bool wrapped_problems_own_nothing) {
  sets->clear();
  if (scenario_index < 0 || scenario_index >= problem->num_scenarios()) {
    return Refuse("there is no scenario " + std::to_string(scenario_index), error);
  }
  Scenario* scenario = problem->scenario(scenario_index);
  if (!wrapped_problems_own_nothing &&
      (scenario->is_wrapped(Level::kLower) || scenario->is_wrapped(Level::kUpper))) {
    return Refuse(
        "the scenario wraps a ceres::Problem, which may delete cost functions removed from it: "
        "make it with DO_NOT_TAKE_OWNERSHIP and say so by wrapped_problems_own_nothing",
        error);
  }
  std::vector<ceres::ResidualBlockId> ids;
  scenario->lower()->GetResidualBlocks(&ids);
  std::unordered_map<ceres::ResidualBlockId, int> index_of_id;
  Inventory inventory(options, *problem, *scenario->lower());
  for (size_t i = 0; i < ids.size(); ++i) {
    index_of_id.emplace(ids[i], static_cast<int>(i));
    inventory.Add(ids[i]);
  }
  if (!inventory.IsEnough(error)) return false;
  const std::vector<ceres::ResidualBlockId>& from = candidates.empty() ? ids : candidates;
  std::vector<Candidate> described;
  std::unordered_set<ceres::ResidualBlockId> seen;
  for (ceres::ResidualBlockId id : from) {
    if (!index_of_id.count(id)) return Refuse("a candidate is not in the lower problem", error);
    if (!seen.insert(id).second) return Refuse("a candidate was given twice", error);
    described.push_back(inventory.Describe(id));
  }
  std::vector<int> set;
  if (!Choose(options, described, inventory.stocks(), &set, error)) return false;

  sets->resize(options.fractions.size());
  for (size_t i = 0; i < from.size(); ++i) {
    if (set[i] == 0) continue;
    HeldOutResidual removed = Remove(from[i], index_of_id.at(from[i]), scenario, problem);
    if (set[i] == 1) {
      scenario->upper()->AddResidualBlock(
          const_cast<ceres::CostFunction*>(removed.cost), score_loss, removed.blocks);
    }
    (*sets)[set[i] - 1].push_back(std::move(removed));
  }
  return true;
}

std::vector<double> HoldoutErrors(const std::vector<HeldOutResidual>& set,
                                  const ceres::LossFunction* loss) {
  std::vector<double> errors, residuals;
  for (const HeldOutResidual& held_out : set) {
    residuals.resize(held_out.cost->num_residuals());
    double rho[3] = {0.0, 0.0, 0.0};
    if (held_out.cost->Evaluate(held_out.blocks.data(), residuals.data(), nullptr)) {
      for (double r : residuals) rho[0] += r * r;
      if (loss) loss->Evaluate(rho[0], rho);
    } else {
      rho[0] = std::numeric_limits<double>::quiet_NaN();
    }
    errors.push_back(std::sqrt(rho[0]));
  }
  return errors;
}

double EvaluateHoldout(const std::vector<HeldOutResidual>& set, const ceres::LossFunction* loss) {
  double score = 0.0;
  for (const double error : HoldoutErrors(set, loss)) score += 0.5 * error * error;
  return score;
}

}  // namespace bilevel
