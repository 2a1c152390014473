// The instances of Chen, Xu and Zhang, "Bilevel optimization without lower-level strong convexity
// from the hyper-objective perspective" (2023). Where its appendices have the formulas
// (propositions 4.1 and 4.2), which we did not have, the instance is one of the statement, with its
// proof below. Example 4.1 is "sgm_jump" and example 5.3, halved, "bda_convex" (toys.cc); the value
// function's KKT conditions fail at the solution of "penalty_sum" (appendix A).
#include <cmath>

#include "bilevel_problems/levels.h"

namespace bilevel {
namespace {

using std::abs;

constexpr Interval kFree;
const char kSource[] = "Chen, Xu and Zhang 2023";

// Proposition 4.1: g = 0, so phi = min over y of f = -x^2/2; with lambda y^2 added to g, however
// small lambda, y = 0 and phi_lambda = 0, a linear function.
void AddRegularised(Problems* problems) {
  problems->push_back(Make<1, 1>(
      "sgm_regularised",
      kSource,
      "set",
      [](auto* x, auto* y, auto* f) { f[0] = 0.5 * y[0] * y[0] - x[0] * y[0]; },
      [](auto*, auto* y, auto* g) { g[0] = 0.0 * y[0]; },
      {0.3},
      {0},
      {-2, 2},
      kFree,
      {{{2}, -2.0, {2}}, {{-2}, -2.0, {-2}}},
      [](const Values& x) { return x; },
      "proposition 4.1: with a regularisation of g phi would be 0; bounds give it minima"));
}

// Proposition 4.2: a chain of q coordinates tied to x at one end, of which one more is known with
// every gradient; f is the mean of the far half. y* = (x, ..., x).
constexpr int kChain = 8;

void AddChains(Problems* problems) {
  const auto far_half = [](auto* x, auto* y, auto* f) {
    f[0] = 0.5 * x[0] * x[0];
    for (int i = kChain / 2; i < kChain; ++i) f[0] += 2.0 / kChain * y[i];
  };
  const auto all = [](const Values& x) { return Values(kChain, x[0]); };
  problems->push_back(Make<1, kChain>("sgm_chain",
                                      kSource,
                                      "smooth",
                                      far_half,
                                      Squares<kChain>([](auto* x, auto* y, auto* r) {
                                        r[0] = std::sqrt(0.125) * (y[0] - x[0]);
                                        for (int i = 1; i < kChain; ++i) {
                                          r[i] = std::sqrt(0.125) * (y[i] - y[i - 1]);
                                        }
                                      }),
                                      {1},
                                      Values(kChain, 0.0),
                                      kFree,
                                      kFree,
                                      {{{-1}, -0.5, Values(kChain, -1.0)}},
                                      all,
                                      "proposition 4.2: hard for first-order methods alone"));
  // Its Lipschitz version: the greatest link, a weak sharp minimum.
  problems->push_back(Make<1, kChain>(
      "sgm_sharp_chain",
      kSource,
      "kink",
      far_half,
      [](auto* x, auto* y, auto* g) {
        g[0] = std::sqrt(0.5) * abs(y[0] - x[0]);
        for (int i = 1; i < kChain; ++i) {
          const auto link = std::sqrt(0.5) * abs(y[i] - y[i - 1]);
          if (link > g[0]) g[0] = link;
        }
      },
      {1},
      Values(kChain, 0.0),
      kFree,
      kFree,
      {{{-1}, -0.5, Values(kChain, -1.0)}},
      all,
      "appendix D: g is not smooth at its minimum"));
}

// Example 5.1 as printed, where phi = -|x| has no minimum: bounds give it two.
void AddPrintedKink(Problems* problems) {
  problems->push_back(Make<1, 1>(
      "sgm_printed_kink",
      kSource,
      "set",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] * y[0]; },
      [](auto*, auto* y, auto* g) { g[0] = 0.0 * y[0]; },
      {0.1},
      {0},
      {-1, 1},
      {-1, 1},
      {{{1}, -1.0, {-1}}, {{-1}, -1.0, {1}}},
      [](const Values& x) { return Values{x[0] > 0.0 ? -1.0 : 1.0}; },
      "example 5.1: phi = -|x|"));
}

// Example 5.4: with M = diag(m) and lambda = 1, y_i = (a_i'x + b_i) / 2 where m_i > 0, and a_i'x,
// f's choice, elsewhere; phi = 1/(8 n) sum over m_i > 0 of (a_i'x - b_i)^2, whatever these m_i are.
void AddLeastSquares(Problems* problems) {
  static constexpr double kA[6][2] = {{1, 0}, {0, 1}, {1, 1}, {2, -1}, {1, 3}, {-1, 1}};
  static constexpr double kB[6] = {1, 2, 0, 5, -4, 3};
  static constexpr double kM[6] = {0.9, 0.3, 0.05, 0, 0, 0};
  problems->push_back(Make<2, 6>(
      "sgm_least_squares",
      kSource,
      "set",
      Squares<6>([](auto* x, auto* y, auto* r) {
        for (int i = 0; i < 6; ++i) {
          r[i] = std::sqrt(1.0 / 12.0) * (kA[i][0] * x[0] + kA[i][1] * x[1] - y[i]);
        }
      }),
      Squares<12>([](auto* x, auto* y, auto* r) {
        for (int i = 0; i < 6; ++i) {
          const double weight = std::sqrt(kM[i] / 12.0);
          r[i] = weight * (kA[i][0] * x[0] + kA[i][1] * x[1] - y[i]);
          r[6 + i] = weight * (y[i] - kB[i]);
        }
      }),
      {3, -1},
      Values(6, 0.0),
      kFree,
      kFree,
      // Of x1 = 1, x2 = 2 and x1 + x2 = 0, by least squares.
      {{{0, 1}, 3.0 / 48.0, {0.5, 1.5, 0.5, -1, 3, 1}}},
      [](const Values& x) {
        Values y(6);
        for (int i = 0; i < 6; ++i) {
          const double prediction = kA[i][0] * x[0] + kA[i][1] * x[1];
          y[i] = kM[i] > 0.0 ? 0.5 * (prediction + kB[i]) : prediction;
        }
        return y;
      },
      "example 5.4 with six samples"));
}

}  // namespace

void AddHyperObjectiveProblems(Problems* problems) {
  AddRegularised(problems);
  AddChains(problems);
  AddPrintedKink(problems);
  AddLeastSquares(problems);
}

}  // namespace bilevel
