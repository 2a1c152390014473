#include "examples/support/baselines.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "bilevel/methods/estimators/discontinuity.h"
#include "examples/support/flags.h"

namespace examples {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

Phi::Phi(const bilevel::Solver::Options& options,
         std::vector<double*> coordinates,
         std::function<double()> score,
         bilevel::Problem* problem)
    : coordinates_(std::move(coordinates)), score_(std::move(score)) {
  bilevel::PreparedProblem::Needs needs;
  needs.compile.need_f = needs.compile.need_x = !score_;
  prepared_ = bilevel::PreparedProblem::Create(options, needs, problem, &error_);
  if (!prepared_) return;
  state_ = prepared_->Start();
  first_ = start_ = state_.y;
}

void Phi::Restart() {
  counts_ = counts();
  prepared_->Restart();
  start_ = first_;
  started_ = false;
}

void Phi::StartHere() {
  Restart();
  start_ = prepared_->Start().y;
}

bilevel::LowerSolverCounts Phi::counts() const {
  bilevel::LowerSolverCounts all = counts_;
  if (prepared_) all += prepared_->lower().counts();
  return all;
}

void Phi::Continue() {
  start_ = state_.y;
  started_ = false;
}

// Whatever of x is not searched stays as it stands in the user's memory.
void Phi::MoveTo(const std::vector<double>& x) {
  for (size_t i = 0; i < coordinates_.size(); ++i) *coordinates_[i] = x[i];
  state_.x = prepared_->Start().x;
  state_.y = start_;
}

std::string Phi::FindJump(const std::vector<double>& a, const std::vector<double>& b, int steps) {
  const double begin = Now();
  bilevel::Discontinuity pair;
  bilevel::Point last;
  double last_phi = 0.0;
  std::vector<double> at(a.size());
  bilevel::Oracle& oracle = prepared_->oracle();
  for (int k = 0; k <= steps; ++k) {
    for (size_t i = 0; i < at.size(); ++i) at[i] = a[i] + (b[i] - a[i]) * k / steps;
    MoveTo(at);
    const bool solved = oracle.Solve(state_.x, &state_.y);
    const double phi = solved ? oracle.f.Value(state_.x, state_.y) : std::nan("");
    oracle.Clear();
    if (k > 0) pair.Add(last, last_phi, state_.x, phi, start_);
    last = state_.x;
    last_phi = phi;
  }
  const std::string jump = pair.FindJump(oracle);
  seconds_ += Now() - begin;
  return jump;
}

double Phi::operator()(const std::vector<double>& x) {
  const double begin = Now();
  MoveTo(x);
  bilevel::Oracle& oracle = prepared_->oracle();
  double phi = kInfinity;
  if (oracle.Solve(state_.x, &state_.y)) {
    if (!started_) start_ = state_.y;
    started_ = true;
    prepared_->WriteUser(state_.x, state_.y);
    phi = score_ ? score_() : oracle.f.Value(state_.x, state_.y);
  }
  if (!oracle.ok()) {
    oracle.Clear();
    phi = kInfinity;
  }
  seconds_ += Now() - begin;
  return std::isnan(phi) ? kInfinity : phi;
}

SearchResult GridSearch(const Score& score, const std::vector<std::vector<double>>& axes) {
  SearchResult best;
  best.value = kInfinity;
  std::vector<size_t> at(axes.size(), 0);
  std::vector<double> x(axes.size());
  for (;;) {
    for (size_t i = 0; i < axes.size(); ++i) x[i] = axes[i][at[i]];
    const double value = score(x);
    ++best.evaluations;
    if (best.x.empty() || value < best.value) {
      best.x = x;
      best.value = value;
    }
    size_t i = 0;
    while (i < axes.size() && ++at[i] == axes[i].size()) at[i++] = 0;
    if (i == axes.size()) return best;
  }
}

SearchResult NelderMead(const Score& score,
                        const std::vector<double>& start,
                        double step,
                        double tolerance,
                        int max_evaluations) {
  const size_t n = start.size();
  using Corner = std::pair<double, std::vector<double>>;
  std::vector<Corner> simplex;
  int evaluations = 0;
  const auto evaluate = [&](const std::vector<double>& x) {
    ++evaluations;
    const double value = score(x);
    return Corner(std::isnan(value) ? kInfinity : value, x);
  };
  for (size_t i = 0; i <= n; ++i) {
    std::vector<double> x = start;
    if (i > 0) x[i - 1] += step;
    simplex.push_back(evaluate(x));
  }
  for (;;) {
    std::sort(simplex.begin(), simplex.end());
    const double best = simplex[0].first, worst = simplex[n].first;
    if (worst - best <= tolerance * std::abs(best) || evaluations >= max_evaluations) break;
    std::vector<double> centre(n, 0.0);
    for (size_t k = 0; k < n; ++k) {
      for (size_t i = 0; i < n; ++i) centre[i] += simplex[k].second[i] / static_cast<double>(n);
    }
    // centre + factor (centre - worst).
    const auto try_at = [&](double factor) {
      std::vector<double> x(n);
      for (size_t i = 0; i < n; ++i) x[i] = centre[i] + factor * (centre[i] - simplex[n].second[i]);
      return evaluate(x);
    };
    const Corner reflected = try_at(1.0);
    if (reflected.first < best) {
      simplex[n] = std::min(reflected, try_at(2.0));
    } else if (reflected.first < simplex[n - 1].first) {
      simplex[n] = reflected;
    } else {
      const bool outside = reflected.first < worst;
      const Corner contracted = try_at(outside ? 0.5 : -0.5);
      if (contracted.first < std::min(reflected.first, worst)) {
        simplex[n] = contracted;
      } else {
        for (size_t k = 1; k <= n; ++k) {
          for (size_t i = 0; i < n; ++i) {
            simplex[k].second[i] = 0.5 * (simplex[k].second[i] + simplex[0].second[i]);
          }
          simplex[k] = evaluate(simplex[k].second);
        }
      }
    }
  }
  return {simplex[0].second, simplex[0].first, evaluations};
}

}  // namespace examples
