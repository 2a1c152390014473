#include "campaign/random_check.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <limits>
#include <random>

#include "Eigen/Eigenvalues"

namespace bilevel {
namespace {

using Eigen::MatrixXd;
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

// Moves blocks along a tangent vector, and back onto their bounds.
void Move(const RandomProblem& problem,
          const std::vector<int>& blocks,
          const VectorXd& step,
          bool project,
          BlockValues* values) {
  int at = 0;
  for (const int b : blocks) {
    const RandomBlock& block = problem.blocks()[b];
    std::vector<double>& v = (*values)[b];
    if (block.manifold) {
      const std::vector<double> from = v;
      block.manifold->Plus(from.data(), step.data() + at, v.data());
    } else {
      for (int i = 0; i < block.size(); ++i) {
        v[i] += step[at + i];
        if (project) v[i] = std::clamp(v[i], block.lower[i], block.upper[i]);
      }
    }
    at += block.tangent_size();
  }
}

class Newton {
 public:
  Newton(const RandomProblem& problem, int scenario, BlockValues* values)
      : problem_(problem), scenario_(scenario), y_(problem.Lower(scenario)), values_(*values) {
    for (const int b : y_) {
      const RandomBlock& block = problem.blocks()[b];
      for (int i = 0; i < block.tangent_size(); ++i) {
        coordinates_.push_back({b, block.manifold ? -1 : i});
      }
    }
  }

  LowerSolution Run() {
    const BlockValues start = values_;
    for (int k = 0; k < 100 && !result_.is_solved; ++k) {
      if (!Step(k == 0)) break;
    }
    for (const int b : y_) {
      for (size_t i = 0; i < start[b].size(); ++i) {
        result_.moved = std::max(result_.moved, std::abs(start[b][i] - values_[b][i]));
      }
    }
    return result_;
  }

 private:
  VectorXd Gradient(const BlockValues& values) const {
    const std::vector<double> g = problem_.Gradient(Level::kLower, scenario_, y_, values);
    return Eigen::Map<const VectorXd>(g.data(), g.size());
  }

  std::vector<int> Free(const VectorXd& g) {
    std::vector<int> free;
    result_.weakest_multiplier = kInfinity;
    for (int j = 0; j < g.size(); ++j) {
      const auto [b, i] = coordinates_[j];
      if (i < 0) {
        free.push_back(j);
        continue;
      }
      const RandomBlock& block = problem_.blocks()[b];
      const double v = values_[b][i];
      const bool at_lower = v <= block.lower[i], at_upper = v >= block.upper[i];
      const bool held = (at_lower && g[j] > 0.0) || (at_upper && g[j] < 0.0);
      if (!held) free.push_back(j);
      if (at_lower || at_upper) {
        result_.weakest_multiplier =
            std::min(result_.weakest_multiplier, held ? std::abs(g[j]) : 0.0);
      }
    }
    return free;
  }

  MatrixXd Hessian(const std::vector<int>& free, int n) const {
    const double h = 1e-5;
    MatrixXd hessian(free.size(), free.size());
    for (size_t k = 0; k < free.size(); ++k) {
      VectorXd g[2];
      for (const int side : {0, 1}) {
        BlockValues there = values_;
        Move(problem_, y_, (side ? h : -h) * VectorXd::Unit(n, free[k]), false, &there);
        g[side] = Gradient(there);
      }
      for (size_t l = 0; l < free.size(); ++l) {
        hessian(l, k) = (g[1][free[l]] - g[0][free[l]]) / (2.0 * h);
      }
    }
    return 0.5 * (hessian + hessian.transpose());
  }

  bool Step(bool is_first) {
    const VectorXd g = Gradient(values_);
    if (!g.allFinite()) return false;
    const std::vector<int> free = Free(g);
    if (free.empty()) {
      result_.least_eigenvalue = result_.largest_eigenvalue = 1.0;
      return result_.is_solved = true;
    }
    VectorXd g_free(free.size());
    for (size_t k = 0; k < free.size(); ++k) g_free[k] = g[free[k]];
    const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(Hessian(free, g.size()));
    const VectorXd& lambda = eigen.eigenvalues();
    result_.least_eigenvalue = lambda[0];
    result_.largest_eigenvalue = lambda.cwiseAbs().maxCoeff();
    const double least = 1e-10 * result_.largest_eigenvalue + 1e-300;
    const VectorXd along = eigen.eigenvectors().transpose() * g_free;
    const VectorXd scaled = along.cwiseQuotient(lambda.cwiseAbs().cwiseMax(least));
    if (is_first) result_.decrement = std::sqrt(std::max(0.0, along.dot(scaled)));
    VectorXd step = VectorXd::Zero(g.size());
    const VectorXd step_free = -eigen.eigenvectors() * scaled;
    for (size_t k = 0; k < free.size(); ++k) step[free[k]] = step_free[k];
    if (step.norm() > 1.0) step *= 1.0 / step.norm();
    return Search(step, g_free.norm());
  }

  // Where the step is so short that g is all rounding, the gradient decides.
  bool Search(const VectorXd& step, double norm) {
    const double value = problem_.Evaluate(Level::kLower, scenario_, values_, nullptr);
    const double length = step.norm();
    const BlockValues before = values_;
    for (double t = 1.0; t > 1e-10; t *= 0.5) {
      values_ = before;
      Move(problem_, y_, t * step, true, &values_);
      const VectorXd g = Gradient(values_);
      double new_norm = 0.0;
      for (const int j : Free(g)) new_norm = std::hypot(new_norm, g[j]);
      if (length < 1e-4 && new_norm < 0.7 * norm) return true;
      const double new_value = problem_.Evaluate(Level::kLower, scenario_, values_, nullptr);
      if (length > 1e-8 && new_value < value) return true;
    }
    values_ = before;
    result_.is_solved = length < 1e-7;
    return false;
  }

  const RandomProblem& problem_;
  const int scenario_;
  const std::vector<int> y_;
  std::vector<std::pair<int, int>> coordinates_;
  BlockValues& values_;
  LowerSolution result_;
};

}  // namespace

LowerSolution SolveLower(const RandomProblem& problem, int scenario, BlockValues* values) {
  return Newton(problem, scenario, values).Run();
}

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

std::string RandomCheck::LowerLevel() {
  std::mt19937 rng(7);
  std::normal_distribution<double> normal;
  for (int s = 0; s < problem_.num_scenarios(); ++s) {
    double terms = 0.0;
    const double g = problem_.Evaluate(Level::kLower, s, values_, &terms);
    const std::vector<int> y = problem_.Lower(s);
    int dim = 0;
    for (const int b : y) dim += problem_.blocks()[b].tangent_size();
    for (int k = 0; k < 200; ++k) {
      BlockValues there = values_;
      const double way = std::pow(10.0, -(k % 4) - 3.0);
      Move(problem_, y, VectorXd::NullaryExpr(dim, [&] { return way * normal(rng); }), true, &there);
      const double less = g - problem_.Evaluate(Level::kLower, s, there, nullptr);
      if (less > 1e-12 * (1.0 + terms)) {
        return Format("g of scenario %d falls by %.3g at a distance of %.1g from y", s, less, way);
      }
    }
    const LowerSolution solution = SolveLower(problem_, s, &values_);
    if (!solution.is_solved) {
      is_unclear_ = true;
      return Format("scenario %d: the check finds no minimum of g", s);
    }
    is_singular_ = is_singular_ ||
                   std::abs(solution.least_eigenvalue) < 1e-8 * solution.largest_eigenvalue;
    is_weak_ = is_weak_ || solution.weakest_multiplier < 1e-5;
    if (!is_singular_ && solution.least_eigenvalue < 0.0) {
      return Format("y of scenario %d is a saddle: eigenvalues of the Hessian %.3g to %.3g", s,
                    solution.least_eigenvalue, solution.largest_eigenvalue);
    }
    if (solution.moved > 1e-5 && !is_singular_ &&
        solution.decrement > 1e-7 * std::sqrt(2.0 * std::abs(g)) + 1e-7) {
      return Format("y of scenario %d is %.3g off its minimum (decrement %.3g, g %.3g)", s,
                    solution.moved, solution.decrement, g);
    }
  }
  return "";
}

double RandomCheck::Phi(const VectorXd& step) {
  BlockValues there = values_;
  Move(problem_, x_, step, true, &there);
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

RandomCheck::Slope RandomCheck::Differentiate(const VectorXd& direction, double h) {
  const Slope wide = Differences(direction, h), narrow = Differences(direction, 0.25 * h);
  Slope result = narrow;
  result.error = std::abs(wide.value - narrow.value) + noise_ / h;
  return result;
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
Verdict RandomCheck::NoSideFalls(const std::string& why) {
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
    return {Verdict::kViolation,
            why + Format("phi falls by %.3g at a distance of %.2g; negligible is %.2g", fall, at,
                         negligible_)};
  }
  const bool is_kink =
      summary_.answer == AnswerKind::kKink || summary_.answer == AnswerKind::kJump;
  return {is_kink ? Verdict::kVerifiedKink : Verdict::kUnclear, why};
}

Verdict RandomCheck::Stationary() {
  Gradient();
  if (!gradient_.allFinite() || !error_.allFinite()) {
    return {Verdict::kUnclear, "no differences of phi"};
  }
  const double norm = gradient_.size() ? gradient_.lpNorm<Eigen::Infinity>() : 0.0;
  const double error = gradient_.size() ? error_.lpNorm<Eigen::Infinity>() : 0.0;
  const std::string figures = Format("|gradient| %.3g +- %.1g: ", norm, error);
  if (norm <= kClear * (options_.gradient_tolerance + error)) {
    if (error < 1e-4 * (1.0 + std::abs(phi_))) return {Verdict::kVerified, figures};
    return NoSideFalls(figures);
  }
  // The promise is about a Newton step along the gradient.
  const VectorXd down = -gradient_.normalized();
  const double h = 1e-3;
  const double curvature = (Phi(h * down) - 2.0 * phi_ + Phi(-h * down)) / (h * h);
  const double predicted = curvature > 0.0 ? 0.5 * gradient_.squaredNorm() / curvature : kInfinity;
  if (predicted <= kClear * negligible_) return {Verdict::kVerified, figures};
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
             predicted, fall, at, negligible_);
  if (fall > kClear * (negligible_ + noise_)) return {Verdict::kViolation, figures + more};
  return {Verdict::kUnclear, figures + more};
}

Verdict RandomCheck::Run() {
  if (const std::string wrong = Memory(); !wrong.empty()) return {Verdict::kViolation, wrong};
  if (summary_.termination_type != ceres::CONVERGENCE) return {};
  if (const std::string wrong = LowerLevel(); !wrong.empty()) {
    return {is_singular_ || is_unclear_ ? Verdict::kUnclear : Verdict::kViolation, wrong};
  }
  if (is_singular_) return {Verdict::kNotChecked, "the lower level is singular"};
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
