// A. Mitsos and P. Barton, "A test set for bilevel programs" (2006), in the numbering of BOLIB
// (Zhou, Zemkoho and Tin 2018), whose starts these are. All with bounds only are here;
// Examples 3.1, 3.4, 3.5 and 3.6 have none but y, 3.2, 3.3, 3.8, 3.9, 3.22, 3.23 and 3.25 to 3.28
// have constraints that are no bounds, or a bound of the upper level alone on y.
#include <cmath>

#include "bilevel_problems/levels.h"

namespace bilevel {
namespace {

using std::sqrt;

constexpr Interval kUnit{-1.0, 1.0};
constexpr auto kLocal = KnownMinimum::kLocal;
constexpr auto kBranch = KnownMinimum::kBranch;
const char kSource[] = "Mitsos and Barton 2006";

// x times this is g of Examples 3.10 and 3.11: minima -1 at y = 1/2 and 0 at y = -1/2.
template <typename T>
T Quartic(const T& y) {
  return 16.0 * Square(y * y) + 2.0 * y * y * y - 8.0 * y * y - 1.5 * y + 0.5;
}

void AddOfGlobalYConstantOrAtABound(Problems* problems) {
  const auto quartic = [](auto* x, auto* y, auto* g) { g[0] = x[0] * Quartic(y[0]); };
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex310",
      kSource,
      "set",
      [](auto*, auto* y, auto* f) { f[0] = y[0]; },
      quartic,
      {1},
      {1},
      {0.1, 1},
      kUnit,
      {{{0.5}, 0.5, {0.5}, KnownMinimum::kGlobal, true}, {{0.5}, -0.5, {-0.5}, kBranch, true}},
      [](const Values&) { return Values{0.5}; },
      "every x is optimal"));
  // The maxima of the quartic over [-0.8, 1], which x < 0 makes the minima of g, are its ends and
  // y = -0.09375.
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex311",
      kSource,
      "jump",
      [](auto*, auto* y, auto* f) { f[0] = y[0]; },
      quartic,
      {1},
      {1},
      kUnit,
      {-0.8, 1},
      {{{0}, -0.8, {-0.8}},
       {{0.5}, 0.5, {0.5}, kLocal, true},
       {{-0.5}, 1.0, {1.0}, kLocal, true},
       {{0.5}, -0.5, {-0.5}, kBranch, true},
       {{-0.5}, -0.8, {-0.8}, kBranch, true},
       {{-0.5}, -0.09375, {-0.09375}, kBranch, true}},
      [](const Values& x) {
        return Values{x[0] > 0.0 ? 0.5 : x[0] < 0.0 ? 1.0 : -0.8};
      },
      "phi is flat on both sides of its isolated least value at x = 0, where every y serves"));
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex313",
      kSource,
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] - y[0]; },
      [](auto* x, auto* y, auto* g) { g[0] = x[0] * y[0] * (0.5 * y[0] - x[0] * x[0]); },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{0}, -1.0, {1}}, {{1}, 0.0, {1}, kLocal}, {{-1}, 0.0, {-1}, kLocal}},
      [](const Values& x) {
        return Values{x[0] > 0.0 ? x[0] * x[0] : x[0] < 0.0 ? -1.0 : 1.0};
      },
      "the least value is isolated; the start is a local minimum"));
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex318",
      kSource,
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = y[0] * y[0] - x[0] * x[0]; },
      [](auto* x, auto* y, auto* g) { g[0] = x[0] * y[0] * y[0] - 0.5 * Square(y[0] * y[0]); },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{1}, -1.0, {0}}, {{-1}, 0.0, {1}, kLocal}},
      [](const Values& x) { return Values{x[0] < 0.5 ? 1.0 : 0.0}; },
      "BOLIB lists -0.25, but y = 0 is the lower minimum for all x >= 1/2, and f = -x^2 there"));
}

void AddOfRoots(Problems* problems) {
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex312",
      kSource,
      "kink",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] * y[0] - x[0] + 10.0 * y[0] * y[0]; },
      [](auto* x, auto* y, auto* g) { g[0] = 0.5 * Square(y[0] * y[0]) - x[0] * y[0] * y[0]; },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{0}, 0.0, {0}}},
      [](const Values& x) { return Values{x[0] > 0.0 ? -sqrt(x[0]) : 0.0}; }));
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex314",
      kSource,
      "jump",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = x[0] - 0.25;
        r[1] = y[0];
      }),
      [](auto* x, auto* y, auto* g) { g[0] = y[0] * y[0] * y[0] / 3.0 - x[0] * y[0]; },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{0.25}, 0.25, {0.5}}, {{0.25}, 1.0, {-1}, kBranch}},
      [](const Values& x) { return Values{x[0] < 0.25 ? -1.0 : sqrt(x[0])}; },
      "y jumps at the answer"));
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex315",
      kSource,
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] + y[0]; },
      [](auto* x, auto* y, auto* g) { g[0] = 0.5 * x[0] * y[0] * y[0] - y[0] * y[0] * y[0] / 3.0; },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{-1}, 0.0, {1}}, {{2.0 / 3.0}, 2.0 / 3.0, {0}, kLocal}, {{-1}, -2.0, {-1}, kBranch}},
      [](const Values& x) { return Values{x[0] < 2.0 / 3.0 ? 1.0 : 0.0}; },
      "the local minimum is a jump of phi"));
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex316",
      kSource,
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = 2.0 * x[0] + y[0]; },
      [](auto* x, auto* y, auto* g) {
        g[0] = -0.5 * x[0] * y[0] * y[0] - 0.25 * Square(y[0] * y[0]);
      },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{-1}, -2.0, {0}}, {{-0.5}, -2.0, {-1}}},
      [](const Values& x) { return Values{x[0] < -0.5 ? 0.0 : -1.0}; },
      "two global minima, one of them a jump of phi"));
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex317",
      kSource,
      "kink",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = x[0] + 0.5;
        r[1] = std::sqrt(0.5) * y[0];
      }),
      [](auto* x, auto* y, auto* g) {
        g[0] = 0.5 * x[0] * y[0] * y[0] + 0.25 * Square(y[0] * y[0]);
      },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{-0.25}, 0.1875, {0.5}}},
      [](const Values& x) { return Values{x[0] < 0.0 ? sqrt(-x[0]) : 0.0}; },
      "y branches at x = 0, and both branches serve"));
  // With u = sqrt(x): phi = u^3 - u + u^2 / 2, 3 u^2 + u - 1 = 0.
  const double u = (sqrt(13.0) - 1.0) / 6.0;
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex319",
      kSource,
      "several_minima",
      [](auto* x, auto* y, auto* f) { f[0] = y[0] * (x[0] + 0.5 * y[0] - 1.0); },
      [](auto* x, auto* y, auto* g) { g[0] = -y[0] * y[0] * (x[0] - 0.5 * y[0] * y[0]); },
      {-1},
      {1},
      kUnit,
      kUnit,
      {{{u * u}, u * u * u - u + u * u / 2.0, {u}},
       {{-0.5}, 0.0, {0}, kLocal, true},
       {{1}, 0.5, {-1}, kBranch}},
      [](const Values& x) { return Values{x[0] > 0.0 ? sqrt(x[0]) : 0.0}; },
      "phi = 0 for every x < 0, where the start is"));
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex320",
      kSource,
      "jump",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = x[0] - 0.25;
        r[1] = y[0];
      }),
      [](auto* x, auto* y, auto* g) { g[0] = y[0] * y[0] * y[0] / 3.0 - x[0] * x[0] * y[0]; },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{0.5}, 0.3125, {0.5}},
       {{-0.5}, 0.8125, {0.5}, kLocal},
       {{0.25}, 1.0, {-1}, kLocal},
       {{0.125}, 0.03125, {0.125}, kBranch}},
      [](const Values& x) { return Values{std::abs(x[0]) < 0.5 ? -1.0 : std::abs(x[0])}; },
      "y jumps at the answer, and y = |x| goes on as a local minimum"));
}

void AddOfSeveralLowerMinima(Problems* problems) {
  // g' = 4 (y - x/10) (y - 0.4 + x/10) (y + 0.5 - x/10); the second root is best for x <= -1/2.
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex321",
      kSource,
      "several_minima",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = x[0] + 0.6;
        r[1] = y[0];
      }),
      [](auto* x, auto* y, auto* g) {
        const auto x2 = x[0] * x[0], y2 = y[0] * y[0];
        g[0] = y2 * y2 + 2.0 / 15.0 * (1.0 - x[0]) * y2 * y[0] +
               (-0.02 * x2 + 0.16 * x[0] - 0.4) * y2 +
               (0.004 * x2 * x[0] - 0.036 * x2 + 0.08 * x[0]) * y[0];
      },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{-1.12 / 2.02}, 0.209504950495, {0.4 + 0.112 / 2.02}},
       {{-1.1 / 2.02}, 0.310495049505, {-0.5 - 0.11 / 2.02}, kBranch}},
      [](const Values& x) { return Values{x[0] <= -0.5 ? 0.4 - 0.1 * x[0] : -0.5 + 0.1 * x[0]}; },
      "y jumps at x = -1/2, close to the answer"));
  // y = 1 + x/10 +- sqrt((1 + x) / 2), both global minima of g; f chooses the upper one.
  problems->push_back(Make<1, 1>(
      "MitsosBarton2006Ex324",
      kSource,
      "several_minima",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] * x[0] - y[0]; },
      Squares<1>([](auto* x, auto* y, auto* r) {
        r[0] = 0.5 * x[0] - Square(0.1 * x[0] - y[0] + 1.0) + 0.5;
      }),
      {1},
      {1},
      {0, 1},
      {0, 3},
      {{{0.210662148027}, -1.75471792683, {1.79909646744}},
       {{0}, sqrt(0.5) - 1.0, {1.0 - sqrt(0.5)}, kBranch}},
      [](const Values& x) { return Values{1.0 + 0.1 * x[0] + sqrt(0.5 + 0.5 * x[0])}; },
      "optimistic"));
}

}  // namespace

void AddMitsosBartonProblems(Problems* problems) {
  AddOfGlobalYConstantOrAtABound(problems);
  AddOfRoots(problems);
  AddOfSeveralLowerMinima(problems);
}

}  // namespace bilevel
