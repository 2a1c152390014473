#include "bilevel/upper_level/residual_statistics.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/program/program.h"
#include "bilevel/terms/learnable_loss.h"
#include "bilevel/upper_level/internal/coordinate_names.h"

namespace bilevel {
namespace {

constexpr double kOutlier = 5.0;     // |r / sigma| - sqrt(n); Gaussian concentration: exp(-12.5).
constexpr double kAside = 1e-4;      // Where derivatives are looked at, relative.
constexpr double kMedian = 0.6745;   // Of |r / sigma|.
constexpr double kTolerance = 1e-4;  // Of a derivative, which may be a difference.

enum class Kind { kUnknown, kSigma, kScale, kOther };

// What a coordinate of x is, as far as has been seen, and its residuals.
struct Coordinate {
  Kind kind = Kind::kUnknown;
  int num = 0;
  double sum = 0.0;           // Of w (r / sigma_0)^2.
  std::vector<double> sizes;  // |r|.
  double typical = 0.0;       // Sigma by their median, which outliers leave alone.
  double change = 0.0;        // A sigma's log; a scale's sum over the residual blocks it is for.
  int num_blocks = 0;
  bool has_outliers = false;

  void See(Kind seen) {
    if (kind == Kind::kUnknown) kind = seen;
    if (kind != seen) kind = Kind::kOther;
  }
};

// What a parameter of a loss does at all sizes of residuals.
Kind KindOfParameter(const LearnableLoss& loss, int entry) {
  bool is_sigma = true, is_scale = true;
  std::vector<const double*> theta;
  for (const LearnableLoss::ParameterBlock& b : loss.parameter_blocks()) theta.push_back(b.values);
  std::vector<double> by_theta(loss.num_parameters());
  double largest = 0.0;
  for (double s = 1e-8; s < 1e9; s *= 10.0) {
    double rho[3];
    loss.Evaluate(s, theta.data(), rho, by_theta.data(), nullptr);
    const double tolerance = kTolerance * (std::abs(rho[0]) + std::abs(s * rho[1]));
    const double slope = by_theta[entry];
    is_sigma &= std::abs(slope + 2.0 * s * rho[1]) <= tolerance;
    is_scale &= std::abs(slope - 2.0 * (rho[0] - s * rho[1])) <= tolerance;
    largest = std::max(largest, std::abs(slope) / std::abs(rho[0]));
  }
  if (!(largest > kTolerance) || is_sigma == is_scale) return Kind::kOther;
  return is_sigma ? Kind::kSigma : Kind::kScale;
}

class Statistics {
 public:
  Statistics(const ResidualStatisticsOptions& options, Problem* problem)
      : options_(options), problem_(*problem) {}

  ResidualStatistics Run() {
    result_.message.clear();
    const std::string thrown = Thrown([&] { result_.ok = Measure(); });
    if (!thrown.empty()) Fail("measuring residuals" + thrown);
    result_.ok &= thrown.empty();
    return result_;
  }

 private:
  // A residual block: residuals r and what x does to them.
  struct Block {
    std::vector<double> r;
    std::vector<std::pair<int, int>> sigmas;  // Residual and its coordinate of x.
    std::vector<int> of_loss;                 // The loss's coordinates.
    double s = 0.0, weight = 1.0;             // |r|^2, rho'.
    bool is_robust = false;                   // Its loss makes less of it.
  };

  bool Fail(const std::string& why) {
    result_.message = why;
    return false;
  }
  bool Measure();
  template <typename Body>
  bool ForEachBlock(Body body);
  bool Look(ceres::Problem* lower, ceres::ResidualBlockId id, Block* block);
  bool FindSigmas(ceres::Problem* lower, ceres::ResidualBlockId id, Block* block);
  void LookAtLoss(const ceres::LossFunction* loss, Block* block);
  void Collect(const Block& block);
  bool IsOutlier(const Block& block) const;
  void Count(const Block& block);
  void MoveScales(const Block& block);
  void Conclude();

  const ResidualStatisticsOptions& options_;
  Problem& problem_;
  std::unique_ptr<Program> program_;
  std::vector<Coordinate> coordinates_;
  ResidualStatistics result_;
};

template <typename Body>
bool Statistics::ForEachBlock(Body body) {
  for (int i = 0; i < problem_.num_scenarios(); ++i) {
    Scenario* scenario = problem_.scenario(i);
    if (scenario->weight() == 0.0) continue;
    std::vector<ceres::ResidualBlockId> ids;
    scenario->lower()->GetResidualBlocks(&ids);
    for (size_t k = 0; k < ids.size(); ++k) {
      Block block;
      if (!Look(scenario->lower(), ids[k], &block)) {
        return Fail("residual block " + std::to_string(k) + " of the lower problem of scenario '" +
                    scenario->name() + "' cannot be evaluated");
      }
      body(block);
    }
  }
  return true;
}

bool Statistics::Look(ceres::Problem* lower, ceres::ResidualBlockId id, Block* block) {
  const ceres::CostFunction* cost = lower->GetCostFunctionForResidualBlock(id);
  block->r.resize(cost->num_residuals());
  double value;
  if (!lower->EvaluateResidualBlock(id, false, &value, block->r.data(), nullptr)) return false;
  for (const double r : block->r) block->s += r * r;
  if (!FindSigmas(lower, id, block)) return false;
  LookAtLoss(lower->GetLossFunctionForResidualBlock(id), block);
  return true;
}

// By derivatives close by: a residual that is zero tells nothing of what it is divided by.
bool Statistics::FindSigmas(ceres::Problem* lower, ceres::ResidualBlockId id, Block* block) {
  const ceres::CostFunction* cost = lower->GetCostFunctionForResidualBlock(id);
  const int n = cost->num_residuals();
  std::vector<double*> arguments;
  lower->GetParameterBlocksForResidualBlock(id, &arguments);
  std::vector<std::vector<double>> values, memory(arguments.size());
  std::vector<double*> at, jacobians(arguments.size(), nullptr);
  int k = 0;
  for (size_t a = 0; a < arguments.size(); ++a) {
    const int size = lower->ParameterBlockSize(arguments[a]);
    values.emplace_back(arguments[a], arguments[a] + size);
    if (program_->x.Find(arguments[a]) >= 0) {
      memory[a].resize(static_cast<size_t>(n) * size);
      jacobians[a] = memory[a].data();
      continue;
    }
    for (double& v : values[a]) v += kAside * (1.5 + std::sin(++k)) * (1.0 + std::abs(v));
  }
  if (std::all_of(jacobians.begin(), jacobians.end(), [](double* j) { return !j; })) return true;
  for (std::vector<double>& v : values) at.push_back(v.data());
  std::vector<double> r(n);
  if (!cost->Evaluate(at.data(), r.data(), jacobians.data())) return false;
  for (size_t a = 0; a < arguments.size(); ++a) {
    if (!jacobians[a]) continue;
    const Space::Block& of_x = program_->x.blocks()[program_->x.Find(arguments[a])];
    for (int j = 0; j < of_x.size; ++j) {
      for (int i = 0; i < n; ++i) {
        const double slope = jacobians[a][i * of_x.size + j];
        if (slope == 0.0) continue;
        const bool is_sigma =
            !of_x.manifold && std::abs(slope + r[i]) <= kTolerance * std::abs(r[i]);
        coordinates_[of_x.offset + j].See(is_sigma ? Kind::kSigma : Kind::kOther);
        block->sigmas.push_back({i, of_x.offset + j});
      }
    }
  }
  return true;
}

void Statistics::LookAtLoss(const ceres::LossFunction* loss, Block* block) {
  if (!loss) return;
  double rho[3];
  loss->Evaluate(block->s, rho);
  block->weight = rho[1];
  loss->Evaluate(0.0, rho);
  block->is_robust = block->weight < rho[1];
  const auto* learnable = dynamic_cast<const LearnableLoss*>(loss);
  if (!learnable) return;
  int entry = 0;
  for (const LearnableLoss::ParameterBlock& b : learnable->parameter_blocks()) {
    const int of_x = program_->x.Find(b.values);
    for (int j = 0; j < b.size; ++j, ++entry) {
      if (of_x < 0) continue;
      block->of_loss.push_back(program_->x.blocks()[of_x].offset + j);
      // A loss is shared by many residual blocks: looked at once.
      Coordinate& c = coordinates_[block->of_loss.back()];
      if (c.kind != Kind::kOther && c.num_blocks++ == 0) c.See(KindOfParameter(*learnable, entry));
    }
  }
}

void Statistics::Collect(const Block& block) {
  for (const auto& [i, j] : block.sigmas) coordinates_[j].sizes.push_back(std::abs(block.r[i]));
  for (const int j : block.of_loss) {
    for (const double r : block.r) coordinates_[j].sizes.push_back(std::abs(r));
  }
}

bool Statistics::IsOutlier(const Block& block) const {
  if (!block.is_robust) return false;
  Vector sigma = Vector::Ones(static_cast<Eigen::Index>(block.r.size()));
  for (const int j : block.of_loss) {
    if (coordinates_[j].kind == Kind::kSigma) sigma.fill(coordinates_[j].typical);
  }
  for (const auto& [i, j] : block.sigmas) {
    if (coordinates_[j].kind == Kind::kSigma) sigma[i] = coordinates_[j].typical;
  }
  const Eigen::Map<const Vector> r(block.r.data(), sigma.size());
  return r.cwiseQuotient(sigma).norm() > std::sqrt(static_cast<double>(r.size())) + kOutlier;
}

void Statistics::Count(const Block& block) {
  const bool is_outlier = IsOutlier(block);
  for (const int j : block.of_loss) coordinates_[j].has_outliers |= is_outlier;
  result_.num_outliers += is_outlier;
  if (is_outlier) return;
  for (const auto& [i, j] : block.sigmas) {
    coordinates_[j].sum += block.weight * block.r[i] * block.r[i];
    ++coordinates_[j].num;
  }
  for (const int j : block.of_loss) {
    coordinates_[j].sum += block.weight * block.s;
    coordinates_[j].num += static_cast<int>(block.r.size());
  }
}

// How the sigmas of residuals change that a scale is for.
void Statistics::MoveScales(const Block& block) {
  double change = 0.0;
  for (const auto& [i, j] : block.sigmas) {
    if (coordinates_[j].kind != Kind::kSigma) continue;
    change += coordinates_[j].change / static_cast<double>(block.r.size());
  }
  for (const int j : block.of_loss) {
    if (coordinates_[j].kind == Kind::kSigma) change += coordinates_[j].change;
  }
  for (const int j : block.of_loss) {
    Coordinate& c = coordinates_[j];
    if (c.kind != Kind::kScale) continue;
    c.change -= change;
    ++c.num;
  }
}

bool Statistics::Measure() {
  std::string error;
  if (!options_.IsValid(&error)) return Fail(error);
  Problem::CompileOptions compile;
  compile.need_f = false;
  program_ = problem_.Compile(compile, &error);
  if (!program_) return Fail(error);
  const Space& x = program_->x;
  result_.x.resize(x.size());
  x.ReadUser(result_.x.data());
  coordinates_.resize(x.size());
  if (!ForEachBlock([&](const Block& block) { Collect(block); })) return false;
  for (Coordinate& c : coordinates_) {
    if (c.sizes.empty()) continue;
    const auto middle = c.sizes.begin() + static_cast<std::ptrdiff_t>(c.sizes.size() / 2);
    std::nth_element(c.sizes.begin(), middle, c.sizes.end());
    c.typical = *middle / kMedian;
  }
  if (!ForEachBlock([&](const Block& block) { Count(block); })) return false;
  for (Coordinate& c : coordinates_) {
    if (c.kind == Kind::kSigma && c.num > 0) {
      c.change = 0.5 * std::log((options_.pseudo_count + c.sum) / (options_.pseudo_count + c.num));
    }
    if (!std::isfinite(c.change)) c.kind = Kind::kOther;  // All of its residuals have weight 0.
    if (c.kind == Kind::kScale) c.num = 0;                // Counted anew, in blocks.
  }
  if (!ForEachBlock([&](const Block& block) { MoveScales(block); })) return false;
  Conclude();
  return true;
}

void Statistics::Conclude() {
  const Space& space = program_->x;
  const std::vector<std::string> names = NameCoordinates(problem_, space);
  std::string left;
  for (const Space::Block& block : space.blocks()) {
    for (int j = 0; j < block.size; ++j) {
      const int i = block.offset + j;
      const Coordinate& c = coordinates_[i];
      const bool is_sigma = c.kind == Kind::kSigma && c.num > 0;
      result_.num_residuals.push_back(is_sigma ? c.num : 0);
      result_.standard_errors.push_back(
          is_sigma ? 1.0 / std::sqrt(2.0 * (options_.pseudo_count + c.num)) : kInfinity);
      double change = is_sigma ? c.change : 0.0;
      if (c.kind == Kind::kScale && c.num > 0 && !c.has_outliers) change = c.change / c.num;
      if (const int t = space.TangentIndex(space.Find(block.user), j); !block.manifold && t >= 0) {
        result_.x[i] = std::clamp(result_.x[i] + change, space.LowerBound(t), space.UpperBound(t));
      }
      if (is_sigma) {
        result_.message += (result_.message.empty() ? "Measured: " : ", ") + names[i] +
                           " changes by " + Number(change) + " (standard error " +
                           Number(result_.standard_errors[i]) + ", " + std::to_string(c.num) +
                           " residuals)";
      } else if (change == 0.0) {
        left += (left.empty() ? "Left alone: " : ", ") + names[i];
      }
    }
  }
  if (result_.message.empty()) result_.message = "No coordinate of x is a level of noise";
  result_.message += "." + (left.empty() ? left : " " + left + ".");
  if (result_.num_outliers > 0) {
    result_.message += " Outliers: " + std::to_string(result_.num_outliers) +
                       ", left out; the scales of their losses stay.";
  }
}

}  // namespace

bool ResidualStatisticsOptions::IsValid(std::string* error) const {
  if (pseudo_count >= 0.0 && std::isfinite(pseudo_count)) return true;
  *error = "pseudo_count must not be negative";
  return false;
}

ResidualStatistics MeasureResiduals(const ResidualStatisticsOptions& options, Problem* problem) {
  if (problem) return Statistics(options, problem).Run();
  ResidualStatistics nothing;
  nothing.message = "there is no problem: null";
  return nothing;
}

}  // namespace bilevel
