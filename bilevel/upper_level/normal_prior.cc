#include "bilevel/upper_level/normal_prior.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/learnable/noise.h"

namespace bilevel {

bool AddNormalPrior(double* block,
                    const std::vector<double>& mean,
                    const std::vector<double>& sigma,
                    Problem* problem,
                    std::string* error,
                    int scenario) {
  if (!problem) return Refuse("there is no problem: null", error);
  if (scenario < 0 || scenario >= problem->num_scenarios()) {
    return Refuse("there is no scenario " + std::to_string(scenario), error);
  }
  if (!problem->IsUpperParameterBlock(block)) {
    return Refuse("the block of the prior is not declared by AddUpperParameterBlock", error);
  }
  const std::string name = "the prior of " + problem->NameOf(block, "a block of x");
  const auto is_finite = [](double v) { return std::isfinite(v); };
  if (mean.empty() || !std::all_of(mean.begin(), mean.end(), is_finite)) {
    return Refuse(name + " has a mean that is empty or not finite", error);
  }
  if (sigma.size() != 1 && sigma.size() != mean.size()) {
    return Refuse(name + " has " + std::to_string(mean.size()) + " means and " +
                      std::to_string(sigma.size()) + " sigmas",
                  error);
  }
  if (!std::all_of(sigma.begin(), sigma.end(), [](double s) { return s > 0.0; })) {
    return Refuse(name + " has a sigma that is not positive", error);
  }
  // Ceres ends the program where sizes differ.
  for (ceres::Problem* level :
       {problem->scenario(scenario)->upper(), problem->scenario(scenario)->lower()}) {
    if (!level->HasParameterBlock(block)) continue;
    if (const int size = level->ParameterBlockSize(block); size != static_cast<int>(mean.size())) {
      return Refuse(name + " has " + std::to_string(mean.size()) + " means, and the block has " +
                        std::to_string(size) + " values",
                    error);
    }
  }
  auto* prior = sigma.size() == 1 ? new NormalPrior(mean, sigma[0]) : new NormalPrior(mean, sigma);
  Scenario* of = problem->scenario(scenario);
  of->SetSamplingWeight(of->upper()->AddResidualBlock(prior, nullptr, block),
                        Scenario::kInEveryBatch);
  return true;
}

}  // namespace bilevel
