// Constructed problems whose lower level has one minimum and no bounds: bad scaling, plateaus, flat
// directions and starts where nothing tells the way. The answers follow from the formulas by hand.
#include <cmath>

#include "bilevel_problems/levels.h"

namespace bilevel {
namespace {

using std::exp;

constexpr Interval kFree;
constexpr auto kLocal = KnownMinimum::kLocal;
constexpr auto kGlobal = KnownMinimum::kGlobal;
const char kSource[] = "constructed";

// |y - x|^2, so that y* = x.
template <int n>
auto Follow() {
  return Squares<n>([](auto* x, auto* y, auto* r) {
    for (int i = 0; i < n; ++i) r[i] = y[i] - x[i];
  });
}

Values Same(const Values& x) { return x; }

void AddScales(Problems* problems) {
  problems->push_back(
      Make<1, 1>("quartic",
                 kSource,
                 "flat",
                 Squares<2>([](auto* x, auto* y, auto* r) {
                   r[0] = x[0] - 1.0;
                   r[1] = y[0];
                 }),
                 Squares<1>([](auto* x, auto* y, auto* r) { r[0] = Square(y[0] - x[0]); }),
                 {3},
                 {0},
                 kFree,
                 kFree,
                 {{{0.5}, 0.5, {0.5}}},
                 Same,
                 "g = (y - x)^4 has no curvature at its minimum"));
  problems->push_back(Make<2, 1>(
      "flat_direction",
      kSource,
      "flat",
      Squares<1>([](auto*, auto* y, auto* r) { r[0] = y[0] - 1.0; }),
      Squares<1>([](auto* x, auto* y, auto* r) { r[0] = y[0] - x[0] - 2.0 * x[1]; }),
      {3, 2},
      {0},
      kFree,
      kFree,
      {{{1, 0}, 0.0, {1}, kGlobal, true}},
      [](const Values& x) { return Values{x[0] + 2.0 * x[1]}; },
      "x is determined along a line"));
  problems->push_back(Make<2, 2>("badly_scaled",
                                 kSource,
                                 "scale",
                                 Squares<2>([](auto*, auto* y, auto* r) {
                                   r[0] = 1e3 * (y[0] - 1.0);
                                   r[1] = y[1] - 2.0;
                                 }),
                                 Squares<2>([](auto* x, auto* y, auto* r) {
                                   r[0] = 1e3 * (y[0] - x[0]);
                                   r[1] = 1e-3 * (y[1] - x[1]);
                                 }),
                                 {-2, 5},
                                 {0, 0},
                                 kFree,
                                 kFree,
                                 {{{1, 2}, 0.0, {1, 2}}},
                                 Same));
  problems->push_back(
      Make<1, 1>("far_x",
                 kSource,
                 "scale",
                 Squares<1>([](auto*, auto* y, auto* r) { r[0] = y[0] - 1.0; }),
                 Squares<1>([](auto* x, auto* y, auto* r) { r[0] = y[0] - 1e-4 * x[0]; }),
                 {0},
                 {0},
                 kFree,
                 kFree,
                 {{{1e4}, 0.0, {1}}},
                 [](const Values& x) { return Values{1e-4 * x[0]}; }));
  problems->push_back(Make<2, 2>("rosenbrock",
                                 "Rosenbrock 1960, with y = x below",
                                 "scale",
                                 Squares<2>([](auto*, auto* y, auto* r) {
                                   r[0] = 1.0 - y[0];
                                   r[1] = 10.0 * (y[1] - y[0] * y[0]);
                                 }),
                                 Follow<2>(),
                                 {-1.2, 1},
                                 {0, 0},
                                 kFree,
                                 kFree,
                                 {{{1, 1}, 0.0, {1, 1}}},
                                 Same));
  // phi = (1 / (1 + e^x) - 1/2)^2: its slope is 6e-6 at the start.
  problems->push_back(Make<1, 1>(
      "plateau_start",
      kSource,
      "flat",
      Squares<1>([](auto*, auto* y, auto* r) { r[0] = y[0] - 0.5; }),
      [](auto* x, auto* y, auto* g) { g[0] = Square(y[0] - 1.0) + exp(x[0]) * y[0] * y[0]; },
      {12},
      {0.3},
      kFree,
      kFree,
      {{{0}, 0.0, {0.5}}},
      [](const Values& x) { return Values{1.0 / (1.0 + std::exp(x[0]))}; }));
  problems->push_back(Make<3, 3>(
      "ridge",
      kSource,
      "smooth",
      Squares<3>([](auto*, auto* y, auto* r) {
        for (int i = 0; i < 3; ++i) r[i] = y[i] - 1.0;
      }),
      [](auto* x, auto* y, auto* g) {
        g[0] = 0.0 * x[0];
        for (int i = 0; i < 3; ++i) {
          g[0] += Square(y[i] - (3.0 + i)) + exp(x[i]) * y[i] * y[i];
        }
      },
      {-2, 0, 3},
      {0, 0, 0},
      kFree,
      kFree,
      {{{std::log(2.0), std::log(3.0), std::log(4.0)}, 0.0, {1, 1, 1}}},
      [](const Values& x) {
        Values y(3);
        for (int i = 0; i < 3; ++i) y[i] = (3.0 + i) / (1.0 + std::exp(x[i]));
        return y;
      },
      "a weight for each coordinate"));
  problems->push_back(Make<2, 2>("infimum_at_infinity",
                                 kSource,
                                 "flat",
                                 Squares<2>([](auto*, auto* y, auto* r) {
                                   r[0] = 1e-3 * exp(-y[0]);
                                   r[1] = y[1] - 1.0;
                                 }),
                                 Follow<2>(),
                                 {0, 0},
                                 {0, 0},
                                 kFree,
                                 kFree,
                                 {{{30, 1}, 0.0, {30, 1}, kGlobal, true}},
                                 Same));
}

void AddStarts(Problems* problems) {
  problems->push_back(
      Make<1, 1>("start_at_maximum",
                 kSource,
                 "stationary_start",
                 Squares<1>([](auto*, auto* y, auto* r) { r[0] = y[0] * y[0] - 1.0; }),
                 Follow<1>(),
                 {0},
                 {0},
                 kFree,
                 kFree,
                 {{{1}, 0.0, {1}}, {{-1}, 0.0, {-1}}},
                 Same,
                 "the start is a maximum of phi"));
  problems->push_back(Make<2, 2>(
      "towards_saddle",
      kSource,
      "stationary_start",
      [](auto*, auto* y, auto* f) { f[0] = y[0] * y[0] - y[1] * y[1] + 0.5 * Square(y[1] * y[1]); },
      Follow<2>(),
      {1, 0},
      {0, 0},
      kFree,
      kFree,
      {{{0, 1}, -0.5, {0, 1}}, {{0, -1}, -0.5, {0, -1}}},
      Same,
      "the gradient leads from the start to a saddle"));
  problems->push_back(Make<1, 1>(
      "stationary_x_unsolved_y",
      kSource,
      "stationary_start",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] * x[0] + y[0]; },
      Squares<1>([](auto*, auto* y, auto* r) { r[0] = y[0] - 3.0; }),
      {0},
      {0},
      kFree,
      kFree,
      {{{0}, 3.0, {3}}},
      [](const Values&) { return Values{3.0}; }));
  problems->push_back(Make<1, 1>(
      "two_upper_minima",
      kSource,
      "several_minima",
      [](auto*, auto* y, auto* f) { f[0] = Square(y[0] * y[0] - 1.0) + 0.2 * y[0]; },
      Follow<1>(),
      {0.6},
      {0},
      kFree,
      kFree,
      {{{-1.0241203002}, -0.202440434345, {-1.0241203002}},
       {{0.973994353231}, 0.197434152858, {0.973994353231}, kLocal}},
      Same));
}

}  // namespace

void AddConstructedSmooth(Problems* problems) {
  AddScales(problems);
  AddStarts(problems);
}

}  // namespace bilevel
