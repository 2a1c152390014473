#include "campaign/random_lower.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "Eigen/Eigenvalues"

namespace bilevel {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

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
    const double h = 1e-6;  // Losses may be as narrow as 1e-4.
    MatrixXd hessian(free.size(), free.size());
    for (size_t k = 0; k < free.size(); ++k) {
      VectorXd g[2];
      for (const int side : {0, 1}) {
        BlockValues there = values_;
        MoveBlocks(problem_, y_, (side ? h : -h) * VectorXd::Unit(n, free[k]), false, &there);
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
      MoveBlocks(problem_, y_, t * step, true, &values_);
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

void MoveBlocks(const RandomProblem& problem,
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

LowerSolution SolveLower(const RandomProblem& problem, int scenario, BlockValues* values) {
  return Newton(problem, scenario, values).Run();
}

}  // namespace bilevel
