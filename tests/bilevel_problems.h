#ifndef BILEVEL_TESTS_BILEVEL_PROBLEMS_H_
#define BILEVEL_TESTS_BILEVEL_PROBLEMS_H_

// Bilevel problems with known answers, on which the default method is measured. Each was chosen
// from its source before any method ran on it; that a method fails is no reason to take one out.
// Levels keep the scale of their source: a sum of squares is not halved.

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/problem.h"

namespace bilevel {

using Values = std::vector<double>;

// A local minimum of the upper level, and what y is there.
struct KnownMinimum {
  enum Kind {
    kGlobal,  // phi(x), the least f over all global minima y of g (optimistic), is least.
    kLocal,   // It is no greater than nearby.
    kBranch,  // A local minimum of f along y(x), an isolated local minimum of g that is not the
              // global one, or not the one that f prefers: a method that follows y may find it.
  };
  Values x;
  double phi;
  Values y;
  Kind kind = kGlobal;
  // x is one of a set of minima (a plateau, a flat direction, an infimum that lies at infinity), so
  // that an answer is judged by phi instead.
  bool by_phi = false;
};

struct BilevelProblem {
  std::string name;
  std::string source;    // Authors and year.
  std::string category;  // One word for what is special.
  std::string note;      // What deviates from the source, and why.

  Values x, y;  // The start.
  Values x_lower, x_upper, y_lower, y_upper;
  std::vector<KnownMinimum> minima;
  // phi has more local minima than can be listed: from a minimum, a compass search stays there.
  bool has_more_minima = false;
  double tolerance = 1e-3;  // |x - listed| <= tolerance * (1 + |listed|) in every coordinate.

  // The levels as plain functions, and the y*(x) that f prefers where it is known in closed form.
  std::function<double(const double*x, const double*y)> f, g;
  std::function<Values(const Values& x)> solution;

  enum Form { kResidualBlocks, kGeneralTerms };
  // Residual blocks stand only where a level is a sum of squares; else both forms are the same.
  bool has_residual_blocks = false;
  std::function<void(Form form, double* x, double* y, Problem* problem)> add_levels;

  // The problem on the caller's x and y, which hold the start or any other values.
  std::unique_ptr<Problem> Build(double* x, double* y, Form form = kResidualBlocks) const;

  // The listed minimum that x is at (with several, the one whose phi is nearest to f(x, y)), or
  // nullptr. A minimum beyond those listed is put into *found.
  const KnownMinimum* MinimumAt(const Values& x, const Values& y, KnownMinimum* found) const;
};

// The same list in every call, in a fixed order.
const std::vector<BilevelProblem>& AllBilevelProblems();

// x within the bounds from which no step along a coordinate, of `radius` or half of it and so on,
// decreases phi(x) = f(x, solution(x)): for problems with a closed-form solution.
Values CompassSearch(const BilevelProblem& problem, Values x, double radius);

}  // namespace bilevel

#endif  // BILEVEL_TESTS_BILEVEL_PROBLEMS_H_
