#include "bilevel/problem.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/internal/block_geometry.h"
#include "ceres/cost_function.h"
#include "ceres/loss_function.h"

namespace bilevel {
namespace {

ceres::Problem::Options NotOwning() {
  ceres::Problem::Options options;
  options.cost_function_ownership = ceres::DO_NOT_TAKE_OWNERSHIP;
  options.loss_function_ownership = ceres::DO_NOT_TAKE_OWNERSHIP;
  options.manifold_ownership = ceres::DO_NOT_TAKE_OWNERSHIP;
  return options;
}

// A ceres::FirstOrderFunction as a general term.
class FirstOrderTerm final : public Objective {
 public:
  explicit FirstOrderTerm(std::unique_ptr<ceres::FirstOrderFunction> function)
      : function_(std::move(function)) {}
  bool Evaluate(double const* const* blocks,
                const Batch& /*batch*/,
                double* value,
                double** gradients) const override {
    return function_->Evaluate(blocks[0], value, gradients ? gradients[0] : nullptr);
  }

 private:
  std::unique_ptr<ceres::FirstOrderFunction> function_;
};

}  // namespace

Scenario::Scenario(std::string name, double weight, ceres::Problem* upper, ceres::Problem* lower)
    : name_(std::move(name)), weight_(weight), upper_(upper), lower_(lower) {
  if (!upper_) {
    own_upper_ = std::make_unique<ceres::Problem>(NotOwning());
    upper_ = own_upper_.get();
  }
  if (!lower_) {
    own_lower_ = std::make_unique<ceres::Problem>(NotOwning());
    lower_ = own_lower_.get();
  }
}

Scenario::~Scenario() = default;

void Scenario::SetSamplingWeight(ceres::ResidualBlockId residual_block, double weight) {
  sampling_weights_[residual_block] = weight;
}

void Scenario::AddTerm(Level level,
                       std::unique_ptr<Objective> term,
                       std::vector<TermBlock> blocks) {
  auto& terms = level == Level::kUpper ? upper_terms_ : lower_terms_;
  terms.push_back({std::move(term), std::move(blocks)});
}

void Scenario::AddTerm(Level level,
                       std::unique_ptr<ceres::FirstOrderFunction> term,
                       double* values) {
  const int size = term ? term->NumParameters() : 0;
  AddTerm(
      level, term ? std::make_unique<FirstOrderTerm>(std::move(term)) : nullptr, {{values, size}});
}

void Scenario::AddLowerEquality(ceres::CostFunction* h, const std::vector<double*>& blocks) {
  lower_constraints_.push_back({h, blocks, false});
}

void Scenario::AddLowerInequality(ceres::CostFunction* c, const std::vector<double*>& blocks) {
  lower_constraints_.push_back({c, blocks, true});
}

void Scenario::SetLowerSet(double* y, std::unique_ptr<ConvexSet> set) {
  const auto at = std::find_if(
      lower_sets_.begin(), lower_sets_.end(), [y](const auto& own) { return own.first == y; });
  if (at != lower_sets_.end()) lower_sets_.erase(at);
  if (set) lower_sets_.emplace_back(y, std::move(set));
}

void Scenario::SetEvaluationCallback(Level level, ceres::EvaluationCallback* callback) {
  (level == Level::kUpper ? upper_callback_ : lower_callback_) = callback;
}

Problem::Problem() : Problem(nullptr, nullptr) {}

Problem::Problem(ceres::Problem* upper, ceres::Problem* lower) {
  scenarios_.emplace_back(new Scenario("", 1.0, upper, lower));
}

Problem::~Problem() {
  // What stands in both problems is deleted once; the problems themselves own nothing.
  std::unordered_set<const ceres::CostFunction*> costs;
  std::unordered_set<const ceres::LossFunction*> losses;
  std::unordered_set<const ceres::Manifold*> manifolds;
  for (const auto& scenario : scenarios_) {
    for (const auto& constraint : scenario->lower_constraints_) costs.insert(constraint.cost);
    for (ceres::Problem* problem : {scenario->own_upper_.get(), scenario->own_lower_.get()}) {
      if (!problem) continue;
      std::vector<ceres::ResidualBlockId> residuals;
      problem->GetResidualBlocks(&residuals);
      for (ceres::ResidualBlockId id : residuals) {
        costs.insert(problem->GetCostFunctionForResidualBlock(id));
        losses.insert(problem->GetLossFunctionForResidualBlock(id));
      }
      std::vector<double*> blocks;
      problem->GetParameterBlocks(&blocks);
      for (double* block : blocks) {
        if (!IsParameterization(*problem, block)) manifolds.insert(problem->GetManifold(block));
      }
    }
  }
  for (const auto& [cost, loss] : adopted_) {
    costs.insert(cost);
    losses.insert(loss);
  }
  for (const UpperBlock& block : upper_blocks_) manifolds.insert(block.manifold);
  manifolds.insert(rejected_manifolds_.begin(), rejected_manifolds_.end());
  for (const auto* loss : own_losses_) losses.erase(loss);
  for (const auto* cost : own_costs_) costs.erase(cost);
  for (const auto* manifold : own_manifolds_) manifolds.erase(manifold);
  scenarios_.clear();
  for (const auto* cost : costs) delete cost;
  for (const auto* loss : losses) delete loss;
  for (const auto* manifold : manifolds) delete manifold;
}

Scenario* Problem::AddScenario(const std::string& name, double weight) {
  return AddScenario(name, nullptr, nullptr, weight);
}

Scenario* Problem::AddScenario(const std::string& name,
                               ceres::Problem* upper,
                               ceres::Problem* lower,
                               double weight) {
  scenarios_.emplace_back(new Scenario(name, weight, upper, lower));
  return scenarios_.back().get();
}

const Problem::UpperBlock* Problem::FindUpper(const double* values) const {
  const auto at = upper_index_.find(values);
  return at == upper_index_.end() ? nullptr : &upper_blocks_[at->second];
}

void Problem::AddUpperParameterBlock(double* values, int size, ceres::Manifold* manifold) {
  std::string error;
  if (!values) {
    error = "AddUpperParameterBlock was given a null pointer";
  } else if (FindUpper(values)) {
    error = NameOf(values, "an upper parameter block") + " was declared twice";
  } else if (size <= 0) {
    error = NameOf(values, "an upper parameter block") + " was declared with size " +
            std::to_string(size);
  } else if (manifold && manifold->AmbientSize() != size) {
    error = NameOf(values, "an upper parameter block") + " has size " + std::to_string(size) +
            " but its manifold has ambient size " + std::to_string(manifold->AmbientSize());
  }
  if (!error.empty()) {
    if (first_error_.empty()) first_error_ = error;
    rejected_manifolds_.push_back(manifold);
    return;
  }
  upper_index_[values] = upper_blocks_.size();
  upper_blocks_.push_back({values, size, manifold, {}});
  upper_blocks_.back().bounds.assign(size, {-kInfinity, kInfinity});
}

void Problem::SetBound(const double* values, int index, double bound, bool lower) {
  UpperBlock* block = const_cast<UpperBlock*>(FindUpper(values));
  std::string error;
  if (!block) {
    error = "a bound was set on " + NameOf(values, "a block") +
            ", which is not a declared upper parameter block";
  } else if (index < 0 || index >= block->size) {
    error = NameOf(values, "an upper parameter block") + " has no coordinate " +
            std::to_string(index) + " to set a bound on";
  } else if (std::isnan(bound)) {
    error = "a bound of " + NameOf(values, "an upper parameter block") + " is not a number";
  }
  if (!error.empty()) {
    if (first_error_.empty()) first_error_ = error;
    return;
  }
  (lower ? block->bounds[index].first : block->bounds[index].second) = bound;
}

void Problem::SetParameterLowerBound(const double* values, int index, double bound) {
  SetBound(values, index, bound, true);
}

void Problem::SetParameterUpperBound(const double* values, int index, double bound) {
  SetBound(values, index, bound, false);
}

void Problem::AddTerm(Level level,
                      std::unique_ptr<Objective> term,
                      std::vector<Scenario::TermBlock> blocks) {
  scenarios_[0]->AddTerm(level, std::move(term), std::move(blocks));
}
void Problem::AddTerm(Level level,
                      std::unique_ptr<ceres::FirstOrderFunction> term,
                      double* values) {
  scenarios_[0]->AddTerm(level, std::move(term), values);
}

void Problem::Adopt(const ceres::CostFunction* cost, const ceres::LossFunction* loss) {
  adopted_.emplace_back(cost, loss);
}

void Problem::SetParameterName(const double* values, const std::string& name) {
  names_[values] = name;
}

std::string Problem::NameOf(const double* values, const std::string& otherwise) const {
  const auto it = names_.find(values);
  return it == names_.end() ? otherwise : "'" + it->second + "'";
}

}  // namespace bilevel
