#ifndef BILEVEL_TESTS_BILEVEL_PROBLEMS_LEVELS_H_
#define BILEVEL_TESTS_BILEVEL_PROBLEMS_LEVELS_H_

// Makes a BilevelProblem of two generic lambdas, each `void(auto* x, auto* y, auto* value)`.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "bilevel/derivatives/auto_diff_objective.h"
#include "bilevel_problems.h"

namespace bilevel {

using Problems = std::vector<BilevelProblem>;

// The families, each in a file of its own.
void AddSmdProblems(Problems* problems);
void AddTpProblems(Problems* problems);
void AddLibraryProblems(Problems* problems);
void AddMitsosBartonProblems(Problems* problems);
void AddToys(Problems* problems);
void AddHyperObjectiveProblems(Problems* problems);
void AddConstructedKinks(Problems* problems);
void AddConstructedSmooth(Problems* problems);
void AddConstructedJumpsAndSets(Problems* problems);

// A level that is the sum of the squares of kNum residuals.
template <int kNum, typename F>
struct SquaresOf {
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    T r[kNum];
    residuals(x, y, r);
    value[0] = r[0] * r[0];
    for (int i = 1; i < kNum; ++i) value[0] += r[i] * r[i];
    return true;
  }
  F residuals;
};
template <int kNum, typename F>
SquaresOf<kNum, F> Squares(F residuals) {
  return {std::move(residuals)};
}

// The same as residuals of Ceres, which halves their squares.
template <int kNum, typename F>
struct ResidualsOf {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    residuals(x, y, r);
    for (int i = 0; i < kNum; ++i) r[i] = std::sqrt(2.0) * r[i];
    return true;
  }
  F residuals;
};

template <typename F>
struct TermOf {
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    function(x, y, value);
    return true;
  }
  F function;
};

namespace internal {

template <int kX, int kY, typename Functor>
void AddTerm(Level level, const Functor& functor, double* x, double* y, Problem* problem) {
  problem->AddTerm(
      level, std::make_unique<AutoDiffObjective<Functor, kX, kY>>(functor), {{x, kX}, {y, kY}});
}

template <int kX, int kY, typename F>
void AddLevel(
    BilevelProblem::Form, Level level, const F& f, double* x, double* y, Problem* problem) {
  AddTerm<kX, kY>(level, TermOf<F>{f}, x, y, problem);
}

template <int kX, int kY, int kNum, typename F>
void AddLevel(BilevelProblem::Form form,
              Level level,
              const SquaresOf<kNum, F>& f,
              double* x,
              double* y,
              Problem* problem) {
  if (form == BilevelProblem::kGeneralTerms) return AddTerm<kX, kY>(level, f, x, y, problem);
  using Functor = ResidualsOf<kNum, F>;
  ceres::Problem* target = level == Level::kUpper ? problem->upper() : problem->lower();
  target->AddResidualBlock(
      new AutoDiffCostFunction<Functor, kNum, kX, kY>(new Functor{f.residuals}), nullptr, x, y);
}

template <typename F>
struct IsSquares : std::false_type {};
template <int kNum, typename F>
struct IsSquares<SquaresOf<kNum, F>> : std::true_type {};

}  // namespace internal

struct Interval {
  double lower = -std::numeric_limits<double>::infinity();
  double upper = std::numeric_limits<double>::infinity();
};

// Intervals are every coordinate's; more detailed bounds are set in what is returned.
template <int kX, int kY, typename Upper, typename Lower>
BilevelProblem Make(std::string name,
                    std::string source,
                    std::string category,
                    Upper upper,
                    Lower lower,
                    Values x,
                    Values y,
                    Interval x_bounds,
                    Interval y_bounds,
                    std::vector<KnownMinimum> minima,
                    std::function<Values(const Values& x)> solution = nullptr,
                    std::string note = "") {
  BilevelProblem problem;
  problem.name = std::move(name);
  problem.source = std::move(source);
  problem.category = std::move(category);
  problem.note = std::move(note);
  problem.x = std::move(x);
  problem.y = std::move(y);
  problem.x_lower.assign(kX, x_bounds.lower);
  problem.x_upper.assign(kX, x_bounds.upper);
  problem.y_lower.assign(kY, y_bounds.lower);
  problem.y_upper.assign(kY, y_bounds.upper);
  problem.minima = std::move(minima);
  problem.solution = std::move(solution);
  problem.f = [upper](const double* at_x, const double* at_y) {
    double value = 0.0;
    upper(at_x, at_y, &value);
    return value;
  };
  problem.g = [lower](const double* at_x, const double* at_y) {
    double value = 0.0;
    lower(at_x, at_y, &value);
    return value;
  };
  problem.has_residual_blocks =
      internal::IsSquares<Upper>::value || internal::IsSquares<Lower>::value;
  problem.add_levels = [upper, lower](
                           BilevelProblem::Form form, double* own_x, double* own_y, Problem* to) {
    internal::AddLevel<kX, kY>(form, Level::kUpper, upper, own_x, own_y, to);
    internal::AddLevel<kX, kY>(form, Level::kLower, lower, own_x, own_y, to);
  };
  return problem;
}

template <typename T>
T SumOfSquares(const T* v, int n) {
  T sum(0.0);
  for (int i = 0; i < n; ++i) sum += v[i] * v[i];
  return sum;
}

template <typename T>
T Square(const T& v) {
  return v * v;
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_BILEVEL_PROBLEMS_LEVELS_H_
