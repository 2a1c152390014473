#include "campaign/random_check.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <limits>
#include <random>

#include "campaign/random_lower.h"

namespace bilevel {
namespace {

using Eigen::VectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// A violation stands so many times above what is promised and above the noise.
constexpr double kClear = 10.0;

std::string Format(const char* format, ...) {
  char text[400];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return text;
}

}  // namespace

RandomCheck::RandomCheck(const RandomProblem& problem,
                         const Solver::Options& options,
                         const Solver::Summary& summary)
    : problem_(problem),
      options_(options),
      summary_(summary),
      values_(problem.Values()),
      x_(problem.Upper()) {
  double sum = 0.0;
  for (const int b : x_) {
    const RandomBlock& block = problem.blocks()[b];
    for (int i = 0; i < block.tangent_size(); ++i) {
      const bool is_plain = !block.manifold;
      room_below_.push_back(is_plain ? block.values[i] - block.lower[i] : kInfinity);
      room_above_.push_back(is_plain ? block.upper[i] - block.values[i] : kInfinity);
    }
    for (const double v : block.values) sum += v * v;
  }
  size_ = 1.0 + std::sqrt(sum);
}

std::string RandomCheck::Memory() const {
  for (const RandomBlock& block : problem_.blocks()) {
    for (int i = 0; i < block.size(); ++i) {
      const double v = block.values[i];
      if (!std::isfinite(v)) return block.name + " is not finite";
      if (v < block.lower[i] || v > block.upper[i]) {
        return block.name + Format("[%d] is out of its bounds: %.17g", i, v);
      }
    }
    const bool is_line = block.kind == BlockKind::kLine;
    if (!block.manifold || block.kind == BlockKind::kSubset) continue;
    const int first = is_line ? 3 : 0;
    const int count = is_line || block.kind == BlockKind::kSphere ? 3 : 4;
    double norm = 0.0;
    for (int i = 0; i < count; ++i) norm += std::pow(block.values[first + i], 2);
    if (std::abs(norm - 1.0) > 1e-9) return block.name + Format(" has norm^2 - 1 = %g", norm - 1.0);
  }
  if (!summary_.IsSolutionUsable()) return "";
  double terms = 0.0;
  const double f = problem_.F(values_, &terms);
  if (std::abs(f - summary_.final_objective) > 1e-9 * (1e-3 + terms)) {
    return Format("f(x, y) in memory is %.15g, the Summary's %.15g", f, summary_.final_objective);
  }
  return "";
}

// By how much g falls within a distance of y, beyond rounding; 0: not at all.
double RandomCheck::FallOfG(int scenario, double way) const {
  std::mt19937 rng(7);
  std::normal_distribution<double> normal;
  double terms = 0.0, least = 0.0;
  const double g = problem_.Evaluate(Level::kLower, scenario, values_, &terms);
  const std::vector<int> y = problem_.Lower(scenario);
  int dim = 0;
  for (const int b : y) dim += problem_.blocks()[b].tangent_size();
  for (int k = 0; k < 50; ++k) {
    BlockValues there = values_;
    const VectorXd step = VectorXd::NullaryExpr(dim, [&] { return way * normal(rng); });
    MoveBlocks(problem_, y, step, true, &there);
    least = std::min(least, problem_.Evaluate(Level::kLower, scenario, there, nullptr) - g);
  }
  return least < -1e-12 * (1.0 + terms) ? -least : 0.0;
}

std::string RandomCheck::LowerLevel() {
  for (int s = 0; s < problem_.num_scenarios(); ++s) {
    const double g = problem_.Evaluate(Level::kLower, s, values_, nullptr);
    double fall = 0.0, way = 1e-2;
    while (fall == 0.0 && way > 1e-7) fall = FallOfG(s, way *= 0.1);
    const LowerSolution solution = SolveLower(problem_, s, &values_);
    const std::string falls =
        fall > 0.0 ? Format("; g falls by %.3g at a distance of %.1g", fall, way) : "";
    if (!solution.is_solved) {
      is_unclear_ = true;
      return Format("scenario %d: the check finds no minimum of g", s) + falls;
    }
    is_singular_ =
        is_singular_ || std::abs(solution.least_eigenvalue) < 1e-8 * solution.largest_eigenvalue;
    is_weak_ = is_weak_ || solution.weakest_multiplier < 1e-5;
    if (!is_singular_ && solution.least_eigenvalue < 0.0) {
      is_unclear_ = fall == 0.0;
      return Format("y of scenario %d is a saddle: eigenvalues of the Hessian %.3g to %.3g",
                    s,
                    solution.least_eigenvalue,
                    solution.largest_eigenvalue) +
             falls;
    }
    if (solution.moved > 1e-5 && !is_singular_ &&
        solution.decrement > 1e-7 * std::sqrt(2.0 * std::abs(g)) + 1e-7) {
      return Format("y of scenario %d is %.3g off its minimum (decrement %.3g, relative %.2g)",
                    s,
                    solution.moved,
                    solution.decrement,
                    solution.decrement / std::sqrt(2.0 * std::abs(g))) +
             falls;
    }
    // A minimum after all, with a lesser one near.
    is_unclear_ = is_unclear_ || fall > 0.0;
    if (fall > 0.0) return Format("scenario %d", s) + falls;
  }
  return "";
}

double RandomCheck::Phi(const VectorXd& step) {
  BlockValues there = values_;
  MoveBlocks(problem_, x_, step, true, &there);
  for (int s = 0; s < problem_.num_scenarios(); ++s) {
    if (!SolveLower(problem_, s, &there).is_solved) return kNaN;
  }
  return problem_.F(there);
}

RandomCheck::Slope RandomCheck::Differences(const VectorXd& direction, double h) {
  double d[2];
  double curvature = 0.0;
  for (const int k : {0, 1}) {
    const double step = k ? 0.5 * h : h;
    const double up = Phi(step * direction), down = Phi(-step * direction);
    d[k] = (up - down) / (2.0 * step);
    curvature = (up - 2.0 * phi_ + down) / (step * step);
  }
  return {(4.0 * d[1] - d[0]) / 3.0, std::abs(d[1] - d[0]), curvature};
}

// Of several widths the one whose own error is least: phi may bend within 1e-4.
RandomCheck::Slope RandomCheck::Differentiate(const VectorXd& direction, double h) {
  Slope best{kNaN, kInfinity, 0.0};
  Slope wide = Differences(direction, h);
  for (int k = 0; k < 6; ++k, h *= 0.25) {
    Slope narrow = Differences(direction, 0.25 * h);
    narrow.error = std::abs(wide.value - narrow.value) + noise_ / h;
    if (narrow.error < best.error) best = narrow;
    if (best.error < 1e-3 * options_.function_tolerance) break;
    wide = narrow;
  }
  return best;
}

// By the widest of the differences that agree; 0 where none do.
double RandomCheck::Curvature(const VectorXd& direction) {
  double wide = kNaN;
  for (double h = 2e-3; h > 1e-7; h *= 0.25) {
    const double narrow = Differences(direction, h).curvature;
    if (std::abs(narrow - wide) <= 0.1 * std::abs(narrow)) return narrow;
    wide = narrow;
  }
  return 0.0;
}

// At a bound the slope is one-sided: 2 D(h / 2) - D(h), and its error that of the same with h / 4.
void RandomCheck::Gradient() {
  const int m = static_cast<int>(room_below_.size());
  gradient_.setZero(m);
  error_.setZero(m);
  for (int j = 0; j < m; ++j) {
    const double room = std::min(room_below_[j], room_above_[j]);
    const VectorXd unit = VectorXd::Unit(m, j);
    if (room > 1e-5) {
      const Slope slope = Differentiate(unit, std::min(2e-3, 0.5 * room));
      gradient_[j] = slope.value;
      error_[j] = slope.error;
      continue;
    }
    const double side = room_below_[j] > room_above_[j] ? -1.0 : 1.0;
    if (std::max(room_below_[j], room_above_[j]) < 1e-5) continue;  // A point.
    const double h = std::min(1e-4, 0.5 * std::max(room_below_[j], room_above_[j]));
    const auto one = [&](double step) { return side * (Phi(side * step * unit) - phi_) / step; };
    const double d0 = one(h), d1 = one(0.5 * h), d2 = one(0.25 * h);
    gradient_[j] = 2.0 * d2 - d1;
    error_[j] = std::abs(2.0 * d1 - d0 - gradient_[j]) + 8.0 * noise_ / h;
    if (side * gradient_[j] > 0.0) gradient_[j] = 0.0;  // Downhill is beyond the bound.
  }
}

// Where phi has kinks or differences tell nothing: a fall that is plain to see is still a fall.
RandomVerdict RandomCheck::NoSideFalls(const std::string& why) {
  const int m = static_cast<int>(room_below_.size());
  std::mt19937 rng(3);
  std::normal_distribution<double> normal;
  double fall = 0.0, at = 0.0;
  for (const double way : {1e-6, 1e-5}) {
    for (int k = 0; k < 2 * m + 6; ++k) {
      VectorXd step = VectorXd::Unit(m, k < 2 * m ? k / 2 : 0) * (k % 2 ? 1.0 : -1.0);
      if (k >= 2 * m) {
        step = VectorXd::NullaryExpr(m, [&] { return normal(rng); });
        step.normalize();
      }
      const double here = phi_ - Phi(way * size_ * step);
      if (here > fall) {
        fall = here;
        at = way * size_;
      }
    }
  }
  if (fall > kClear * (negligible_ + noise_)) {
    return {RandomVerdict::kViolation,
            why + Format("phi falls by %.3g at a distance of %.2g; negligible is %.2g",
                         fall,
                         at,
                         negligible_)};
  }
  const bool is_kink = summary_.answer == AnswerKind::kKink || summary_.answer == AnswerKind::kJump;
  return {is_kink ? RandomVerdict::kVerifiedKink : RandomVerdict::kUnclear, why};
}

RandomVerdict RandomCheck::Stationary() {
  Gradient();
  if (!gradient_.allFinite() || !error_.allFinite()) {
    return {RandomVerdict::kUnclear, "no differences of phi"};
  }
  const double norm = gradient_.size() ? gradient_.lpNorm<Eigen::Infinity>() : 0.0;
  const double error = gradient_.size() ? error_.lpNorm<Eigen::Infinity>() : 0.0;
  const std::string figures = Format("|gradient| %.3g +- %.1g: ", norm, error);
  if (norm <= kClear * (options_.gradient_tolerance + error)) {
    if (error < 1e-4 * (1.0 + std::abs(phi_))) return {RandomVerdict::kVerified, figures};
    return NoSideFalls(figures);
  }
  // The promise is about a Newton step along the gradient.
  const VectorXd down = -gradient_.normalized();
  const double curvature = Curvature(down);
  const double predicted = curvature > 0.0 ? 0.5 * gradient_.squaredNorm() / curvature : kInfinity;
  if (predicted <= kClear * negligible_) return {RandomVerdict::kVerified, figures};
  const double newton = curvature > 0.0 ? gradient_.norm() / curvature : 0.01 * size_;
  double fall = 0.0, at = 0.0;
  for (double way = std::min(newton, 0.1 * size_); way > 1e-3 * newton; way *= 0.5) {
    const double here = phi_ - Phi(way * down);
    if (here > fall) {
      fall = here;
      at = way;
    }
  }
  const std::string more =
      Format("a Newton step down promises %.3g, phi falls by %.3g at %.2g, negligible %.2g",
             predicted,
             fall,
             at,
             negligible_);
  if (fall > kClear * (negligible_ + noise_)) return {RandomVerdict::kViolation, figures + more};
  return {RandomVerdict::kUnclear, figures + more};
}

RandomVerdict RandomCheck::Run() {
  if (const std::string wrong = Memory(); !wrong.empty()) return {RandomVerdict::kViolation, wrong};
  if (summary_.termination_type != ceres::CONVERGENCE) return {};
  // Ceres' losses keep their slope above 2e-308, which such residuals make a force of.
  if (problem_.LargestSquare(values_) > 1e290) {
    return {RandomVerdict::kUnclear, "residuals that Ceres' losses cannot hold"};
  }
  if (const std::string wrong = LowerLevel(); !wrong.empty()) {
    return {is_singular_ || is_unclear_ ? RandomVerdict::kUnclear : RandomVerdict::kViolation,
            wrong};
  }
  if (is_singular_) return {RandomVerdict::kNotChecked, "the lower level is singular"};
  double terms = 0.0;
  phi_ = problem_.F(values_, &terms);
  noise_ = 1e-14 * terms + std::abs(Phi(VectorXd::Zero(room_below_.size())) - phi_);
  negligible_ = std::max(options_.function_tolerance * std::abs(phi_),
                         1e-12 * std::max(std::abs(phi_), std::abs(summary_.initial_objective)));
  if (summary_.answer == AnswerKind::kKink || summary_.answer == AnswerKind::kJump) {
    return NoSideFalls("");
  }
  if (is_weak_) return NoSideFalls("a bound of y is weakly active: ");
  return Stationary();
}

}  // namespace bilevel
