// Constructed problems whose lower level has one minimum and bounds: kinks of phi, weakly active
// bounds and bounds that are active at the answer. The answers follow from the formulas by hand.
#include <cmath>
#include <utility>

#include "bilevel_problems/levels.h"

namespace bilevel {
namespace {

using std::exp;

constexpr Interval kFree;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr auto kGlobal = KnownMinimum::kGlobal;
const char kSource[] = "constructed";

// |y - x|^2, so that y* = x, or the nearest point within the bounds.
template <int n>
auto Follow() {
  return Squares<n>([](auto* x, auto* y, auto* r) {
    for (int i = 0; i < n; ++i) r[i] = y[i] - x[i];
  });
}

Values Same(const Values& x) { return x; }

std::function<Values(const Values&)> Clamp(double lower, double upper) {
  return [lower, upper](Values x) {
    for (double& value : x) value = std::min(std::max(value, lower), upper);
    return x;
  };
}

template <int n>
void AddCorner(Problems* problems) {
  // phi = sum of x_i / 2 - clamp(x_i), which also falls from x_i = -1 to its bound.
  BilevelProblem corner = Make<n, n>(
      "corner_" + std::to_string(n),
      kSource,
      "kink",
      [](auto* x, auto* y, auto* f) {
        f[0] = 0.5 * x[0] - y[0];
        for (int i = 1; i < n; ++i) f[0] += 0.5 * x[i] - y[i];
      },
      Follow<n>(),
      Values(n, -0.5),
      Values(n, 0.0),
      {-2, 2},
      {-1, 1},
      {{Values(n, 1.0), -0.5 * n, Values(n, 1.0)}},
      Clamp(-1, 1),
      "a bound becomes active at once");
  corner.has_more_minima = true;
  problems->push_back(std::move(corner));
}

void AddKinks(Problems* problems) {
  AddCorner<2>(problems);
  AddCorner<5>(problems);
  problems->push_back(Make<1, 1>("kink_at_bound_of_y",
                                 kSource,
                                 "kink",
                                 Squares<2>([](auto* x, auto* y, auto* r) {
                                   r[0] = y[0] - 2.0;
                                   r[1] = std::sqrt(0.1) * x[0];
                                 }),
                                 Follow<1>(),
                                 {-0.5},
                                 {0},
                                 kFree,
                                 {-1, 1},
                                 {{{1}, 1.1, {1}}},
                                 Clamp(-1, 1)));
  // phi = |x - (1, 1)|^2 + 3 max(x1 + x2, 0): the kink's multiplier is 2/3.
  problems->push_back(Make<2, 1>(
      "kink_across",
      kSource,
      "kink",
      [](auto* x, auto* y, auto* f) {
        f[0] = Square(x[0] - 1.0) + Square(x[1] - 1.0) + 3.0 * y[0];
      },
      Squares<1>([](auto* x, auto* y, auto* r) { r[0] = y[0] - x[0] - x[1]; }),
      {2, -0.5},
      {0.5},
      kFree,
      {0, kInfinity},
      {{{0, 0}, 2.0, {0}}},
      [](const Values& x) { return Values{std::max(x[0] + x[1], 0.0)}; },
      "the kink is a line aslant to the axes"));
  problems->push_back(Make<1, 1>(
      "kink_of_modulus",
      kSource,
      "kink",
      [](auto* x, auto* y, auto* f) { f[0] = y[0] + Square(x[0] - 0.1); },
      Squares<1>([](auto* x, auto* y, auto* r) { r[0] = y[0] * y[0] - x[0] * x[0]; }),
      {0.7},
      {0.5},
      kFree,
      {0, kInfinity},
      {{{0}, 0.01, {0}}},
      [](const Values& x) { return Values{std::abs(x[0])}; },
      "y = |x|; the lower Hessian is singular at the answer"));
  // y = p - q shrinks 3 by e^x; no y of its sign is -1, so that 0, for x >= log 3, is best.
  const auto shrink = [](auto* x, auto* y, auto* g) {
    g[0] = 0.5 * Square(y[0] - y[1] - 3.0) + exp(x[0]) * (y[0] + y[1]);
  };
  const auto shrunk = [](const Values& x) {
    return Values{std::max(3.0 - std::exp(x[0]), 0.0), 0.0};
  };
  for (const double target : {1.0, -1.0}) {
    const auto reach =
        Squares<1>([target](auto*, auto* y, auto* r) { r[0] = y[0] - y[1] - target; });
    std::vector<KnownMinimum> minima{{{std::log(2.0)}, 0.0, {1, 0}}};
    if (target < 0.0) minima = {{{2.0}, 1.0, {0, 0}, kGlobal, true}};
    problems->push_back(Make<1, 2>(target > 0.0 ? "lasso" : "lasso_plateau",
                                   kSource,
                                   target > 0.0 ? "active_bound" : "flat",
                                   reach,
                                   shrink,
                                   {0},
                                   {2, 0.5},
                                   kFree,
                                   {0, kInfinity},
                                   minima,
                                   shrunk,
                                   "the l1 norm by two nonnegative parts"));
  }
}

void AddBounds(Problems* problems) {
  problems->push_back(
      Make<1, 1>("weak_bound_at_start",
                 kSource,
                 "weak_bound",
                 Squares<1>([](auto*, auto* y, auto* r) { r[0] = y[0] - 1.0; }),
                 Follow<1>(),
                 {0},
                 {0},
                 kFree,
                 {0, kInfinity},
                 {{{1}, 0.0, {1}}},
                 Clamp(0, kInfinity),
                 "the bound is weakly active at the start, where one of two slopes leads on"));
  problems->push_back(Make<1, 1>(
      "weak_bound_kink",
      kSource,
      "weak_bound",
      [](auto* x, auto* y, auto* f) { f[0] = Square(x[0] - 1.0) + y[0]; },
      Squares<1>([](auto* x, auto* y, auto* r) { r[0] = y[0] - x[0] + 1.0; }),
      {3},
      {1},
      kFree,
      {0, kInfinity},
      {{{1}, 0.0, {0}}},
      [](const Values& x) { return Values{std::max(x[0] - 1.0, 0.0)}; }));
  problems->push_back(Make<1, 1>("weak_bound_smooth",
                                 kSource,
                                 "weak_bound",
                                 Squares<2>([](auto* x, auto* y, auto* r) {
                                   r[0] = x[0];
                                   r[1] = y[0];
                                 }),
                                 Follow<1>(),
                                 {1},
                                 {0.5},
                                 kFree,
                                 {0, kInfinity},
                                 {{{0}, 0.0, {0}}},
                                 Clamp(0, kInfinity),
                                 "phi has a derivative at the answer, but no second one"));
  problems->push_back(
      Make<2, 2>("weak_bounds_of_two",
                 kSource,
                 "weak_bound",
                 Squares<4>([](auto* x, auto* y, auto* r) {
                   for (int i = 0; i < 2; ++i) r[i] = x[i] - 1.0, r[2 + i] = y[i];
                 }),
                 Squares<2>([](auto* x, auto* y, auto* r) {
                   r[0] = y[0] - x[0] + x[1];
                   r[1] = y[1] - x[1] + x[0];
                 }),
                 {3, -2},
                 {0.5, 0.5},
                 kFree,
                 {0, kInfinity},
                 {{{1, 1}, 0.0, {0, 0}}},
                 [](const Values& x) {
                   return Values{std::max(x[0] - x[1], 0.0), std::max(x[1] - x[0], 0.0)};
                 }));
  problems->push_back(Make<1, 1>("bound_of_x",
                                 kSource,
                                 "active_bound",
                                 Squares<1>([](auto*, auto* y, auto* r) { r[0] = y[0] - 3.0; }),
                                 Follow<1>(),
                                 {-1},
                                 {0},
                                 {-kInfinity, 2},
                                 kFree,
                                 {{{2}, 1.0, {2}}},
                                 Same));
  // Coordinates 1 and 3 end at kinks, where a bound of y is active, 2 between: 1/2 / 1.01.
  problems->push_back(Make<3, 3>("bounds_of_y",
                                 kSource,
                                 "active_bound",
                                 Squares<6>([](auto* x, auto* y, auto* r) {
                                   const double targets[] = {2.0, 0.5, -1.0};
                                   for (int i = 0; i < 3; ++i)
                                     r[i] = y[i] - targets[i], r[3 + i] = 0.1 * x[i];
                                 }),
                                 Follow<3>(),
                                 {0.4, 0.2, 0.7},
                                 {0.5, 0.5, 0.5},
                                 kFree,
                                 {0, 1},
                                 {{{1, 0.5 / 1.01, 0}, 2.01 + 0.0025 / 1.01, {1, 0.5 / 1.01, 0}}},
                                 Clamp(0, 1)));
  problems->push_back(Make<1, 1>(
      "general_f_and_bound",
      kSource,
      "active_bound",
      [](auto*, auto* y, auto* f) { f[0] = exp(y[0]) - 2.0 * y[0]; },
      Follow<1>(),
      {1.5},
      {1},
      {0.9, kInfinity},
      kFree,
      {{{0.9}, std::exp(0.9) - 1.8, {0.9}}},
      Same));
}

}  // namespace

void AddConstructedKinks(Problems* problems) {
  AddKinks(problems);
  AddBounds(problems);
}

}  // namespace bilevel
