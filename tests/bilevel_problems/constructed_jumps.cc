// Constructed problems whose lower level has several minima or a set of them: phi jumps, follows
// one of several branches, or f chooses y.
#include <cmath>

#include "bilevel_problems/levels.h"

namespace bilevel {
namespace {

using std::cos;
using std::sin;
using std::sqrt;

constexpr Interval kFree;
constexpr auto kLocal = KnownMinimum::kLocal;
constexpr auto kBranch = KnownMinimum::kBranch;
const char kSource[] = "constructed";

// The root of y^3 - y = x that has the sign of `side`, the minimum of y^4/4 - y^2/2 - x y there.
double Well(double x, double side) {
  double y = side * (1.0 + std::abs(x));
  for (int i = 0; i < 100; ++i) y -= (y * y * y - y - x) / (3.0 * y * y - 1.0);
  return y;
}

void AddWells(Problems* problems) {
  const auto tilted = [](auto* x, auto* y, auto* g) {
    g[0] = 0.25 * Square(y[0] * y[0]) - 0.5 * y[0] * y[0] - x[0] * y[0];
  };
  const auto solution = [](const Values& x) { return Values{Well(x[0], x[0] > 0.0 ? 1.0 : -1.0)}; };
  problems->push_back(Make<1, 1>(
      "wells_jump_at_answer",
      kSource,
      "jump",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = x[0] - 0.5;
        r[1] = y[0] + 1.0;
      }),
      tilted,
      {-0.8},
      {-1},
      kFree,
      kFree,
      {{{0}, 0.25, {-1}}, {{0.286406522014}, 0.0849354350994, {-0.80172427968}, kBranch}},
      solution,
      "optimistic; the branch y < 0 goes on beyond the jump to its own minimum"));
  problems->push_back(Make<1, 1>(
      "wells_two_sides",
      kSource,
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = 0.25 * Square(x[0] * x[0] - 1.0) + 0.1 * y[0]; },
      tilted,
      {0.3},
      {1},
      kFree,
      kFree,
      {{{-1.01146793196}, -0.132607006623, {-1.3274003259}},
       {{0.98799855985}, 0.132331947582, {1.3218963645}, kLocal}},
      solution,
      "a smooth minimum on either side of the jump"));
  // y = +-sqrt(x), of which f prefers +.
  problems->push_back(Make<1, 1>(
      "start_at_maximum_of_g",
      kSource,
      "several_minima",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = y[0] - 2.0;
        r[1] = x[0] - 1.0;
      }),
      [](auto* x, auto* y, auto* g) {
        g[0] = 0.25 * Square(y[0] * y[0]) - 0.5 * x[0] * y[0] * y[0];
      },
      {2},
      {0},
      kFree,
      kFree,
      {{{1.35809432955}, 0.824833706064, {1.16537304306}}},
      [](const Values& x) { return Values{x[0] > 0.0 ? sqrt(x[0]) : 0.0}; },
      "optimistic; y starts at a maximum of g"));
  // y = 0 for x > 1/2; at |y| = 1, a maximum of g at x = 1, the start.
  problems->push_back(Make<1, 1>(
      "maximum_of_g_at_bound",
      kSource,
      "several_minima",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = x[0] - 1.0;
        r[1] = y[0];
      }),
      [](auto* x, auto* y, auto* g) { g[0] = x[0] * y[0] * y[0] - 0.5 * Square(y[0] * y[0]); },
      {1},
      {1},
      kFree,
      {-1, 1},
      {{{1}, 0.0, {0}}},
      [](const Values& x) { return Values{x[0] < 0.5 ? 1.0 : 0.0}; }));
  // g = s^2 + 2 sin^2(3 s), s = y - x: minima at s_k, f's at x = -s_k / 2 along each.
  BilevelProblem ripples = Make<1, 1>(
      "ripples",
      kSource,
      "several_minima",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = y[0] - 1.0;
        r[1] = x[0] + 1.0;
      }),
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = y[0] - x[0];
        r[1] = sqrt(2.0) * sin(3.0 * (y[0] - x[0]));
      }),
      {2},
      {4},
      kFree,
      kFree,
      {{{0}, 2.0, {0}}},
      [](const Values& x) { return x; },
      "the start is nearest to the local lower minimum s = 2; y = x is the global one");
  for (const double s : {0.991083203949, 1.97465359954, 2.91868624692}) {
    ripples.minima.push_back({{-s / 2.0}, 2.0 * Square(1.0 - s / 2.0), {s / 2.0}, kBranch});
    ripples.minima.push_back({{s / 2.0}, 2.0 * Square(1.0 + s / 2.0), {-s / 2.0}, kBranch});
  }
  problems->push_back(std::move(ripples));
  // Every period of y has a lower minimum, y = x + 2 pi k; f asks for y = 1.
  BilevelProblem periods = Make<1, 1>(
      "periods",
      kSource,
      "several_minima",
      Squares<1>([](auto*, auto* y, auto* r) { r[0] = y[0] - 1.0; }),
      [](auto* x, auto* y, auto* g) { g[0] = 1.0 - cos(y[0] - x[0]); },
      {0.3},
      {2.5},
      kFree,
      kFree,
      {},
      [](const Values& x) {
        const double k = std::round((1.0 - x[0]) / (2.0 * M_PI));
        return Values{x[0] + 2.0 * M_PI * k};
      },
      "optimistic; g's least value is 0 by cancellation");
  for (int k = -5; k <= 5; ++k) periods.minima.push_back({{1.0 + 2.0 * M_PI * k}, 0.0, {1}});
  problems->push_back(std::move(periods));
}

void AddSwitches(Problems* problems) {
  const auto on = [](const Values& x) { return Values{x[0] > 0.3 ? 1.0 : 0.0}; };
  const auto switch_at = [](auto* x, auto* y, auto* g) { g[0] = (0.3 - x[0]) * y[0]; };
  problems->push_back(Make<1, 1>(
      "switch_cost",
      kSource,
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = Square(x[0] - 1.0) + 2.0 * y[0]; },
      switch_at,
      {-1},
      {0},
      kFree,
      {0, 1},
      {{{0.3}, 0.49, {0}}, {{1}, 2.0, {1}, kLocal}},
      on,
      "optimistic; the answer is the last x before a jump upwards"));
  problems->push_back(Make<1, 1>(
      "switch_gain",
      kSource,
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] * x[0] - 2.0 * y[0]; },
      switch_at,
      {-1},
      {0},
      kFree,
      {0, 1},
      {{{0.3}, -1.91, {1}}, {{0}, 0.0, {0}, kLocal}},
      [](const Values& x) { return Values{x[0] < 0.3 ? 0.0 : 1.0}; },
      "optimistic; a local minimum stands before the jump downwards"));
  problems->push_back(Make<2, 2>(
      "switches_of_two",
      kSource,
      "jump",
      [](auto* x, auto* y, auto* f) {
        f[0] = Square(x[0] - 1.0) + Square(x[1] + 1.0) + 2.0 * y[0] + 0.5 * y[1];
      },
      [](auto* x, auto* y, auto* g) { g[0] = (0.3 - x[0]) * y[0] - (x[0] + x[1] + 1.2) * y[1]; },
      {-1, -3},
      {0, 0},
      kFree,
      {0, 1},
      {{{0.3, -1.5}, 0.74, {0, 0}},
       {{0.3, -1.0}, 0.99, {0, 1}, kLocal},
       {{0.4, -1.6}, 2.72, {1, 0}, kLocal},
       {{1, -1}, 2.5, {1, 1}, kLocal}},
      [](const Values& x) {
        const double s = x[0] + x[1] + 1.2;
        return Values{x[0] > 0.3 ? 1.0 : 0.0, s > 1e-12 ? 1.0 : 0.0};  // Rounding.
      },
      "optimistic; the second switch lies aslant"));
}

void AddSets(Problems* problems) {
  // y on the circle of radius r = sqrt(1 + x^2): phi = (r - 3)^2 + x^2, least at r = 3/2.
  const double x = sqrt(1.25);
  problems->push_back(Make<1, 2>(
      "circle",
      kSource,
      "set",
      Squares<3>([](auto* a, auto* b, auto* r) {
        r[0] = b[0] - 3.0;
        r[1] = b[1];
        r[2] = a[0];
      }),
      Squares<1>(
          [](auto* a, auto* b, auto* r) { r[0] = b[0] * b[0] + b[1] * b[1] - 1.0 - a[0] * a[0]; }),
      {0.5},
      {0.5, 0.5},
      kFree,
      kFree,
      {{{x}, 3.5, {1.5, 0}}, {{-x}, 3.5, {1.5, 0}}},
      [](const Values& a) {
        return Values{sqrt(1.0 + a[0] * a[0]), 0.0};
      },
      "optimistic: a circle of lower minima"));
  problems->push_back(Make<1, 1>(
      "free_at_one_x",
      kSource,
      "set",
      Squares<2>([](auto* a, auto* b, auto* r) {
        r[0] = a[0] - 0.5;
        r[1] = b[0] - 1.0;
      }),
      Squares<1>([](auto* a, auto* b, auto* r) { r[0] = a[0] * b[0]; }),
      {1},
      {1},
      kFree,
      kFree,
      {{{0}, 0.25, {1}}, {{0.5}, 1.0, {0}, kLocal}},
      [](const Values& a) { return Values{a[0] == 0.0 ? 1.0 : 0.0}; },
      "optimistic: only at x = 0, isolated, is y free"));
  // y1 = x, y2 and y3 share what is left of 1: f wants (1, 2, 3).
  // y2 = -x/2, y3 = 1 - x/2: phi = (x - 1)^2 + 2 (2 + x/2)^2.
  problems->push_back(Make<1, 3>(
      "shares",
      kSource,
      "set",
      Squares<3>([](auto*, auto* b, auto* r) {
        for (int i = 0; i < 3; ++i) r[i] = b[i] - (1.0 + i);
      }),
      Squares<2>([](auto* a, auto* b, auto* r) {
        r[0] = b[0] - a[0];
        r[1] = a[0] + b[1] + b[2] - 1.0;
      }),
      {3},
      {0, 0, 0},
      kFree,
      kFree,
      {{{-2.0 / 3.0}, 50.0 / 9.0 + 25.0 / 9.0, {-2.0 / 3.0, 1.0 / 3.0, 4.0 / 3.0}}},
      [](const Values& a) {
        return Values{a[0], -a[0] / 2.0, 1.0 - a[0] / 2.0};
      },
      "optimistic: a line of lower minima"));
  // Every y of [x - 1, x + 1] minimises g, which is 0 there: f wants y = 3 and x = 0.
  problems->push_back(Make<1, 1>(
      "interval",
      kSource,
      "set",
      Squares<2>([](auto* a, auto* b, auto* r) {
        r[0] = a[0];
        r[1] = b[0] - 3.0;
      }),
      [](auto* a, auto* b, auto* g) {
        const auto s = b[0] - a[0];
        g[0] = 0.0 * s;
        if (s > 1.0) g[0] = Square(s - 1.0);
        if (s < -1.0) g[0] = Square(s + 1.0);
      },
      {-1},
      {-1},
      kFree,
      kFree,
      {{{1}, 2.0, {2}}},
      [](const Values& a) { return Values{std::min(std::max(3.0, a[0] - 1.0), a[0] + 1.0)}; },
      "optimistic: an interval of lower minima"));
}

}  // namespace

void AddConstructedJumpsAndSets(Problems* problems) {
  AddWells(problems);
  AddSwitches(problems);
  AddSets(problems);
}

}  // namespace bilevel
