// The problems of BOLIB (S. Zhou, A. Zemkoho and A. Tin, "BOLIB: Bilevel Optimization LIBrary of
// test problems", 2018) without constraints or with bounds only, beside those of Mitsos and Barton
// and TP9, TP10, which have files of their own. The starts are the library's. Its "simple" problems
// have no x, and OptimalControl needs the data of a discretised differential equation; all others
// have constraints that are no bounds, or bound y by x or x by y.
#include <cmath>

#include "bilevel_problems/levels.h"

namespace bilevel {
namespace {

using std::abs;
using std::exp;
using std::pow;

constexpr Interval kUnit{-1.0, 1.0}, kFree;
constexpr auto kLocal = KnownMinimum::kLocal;
constexpr auto kBranch = KnownMinimum::kBranch;

Values Clamped(Values x, double lower, double upper) {
  for (double& value : x) value = std::min(std::max(value, lower), upper);
  return x;
}

void AddQuadratics(Problems* problems) {
  const auto nearest = Squares<2>([](auto* x, auto* y, auto* r) {
    r[0] = x[0] - y[0];
    r[1] = x[1] - y[1];
  });
  const auto clamped = [](const Values& x) { return Clamped(x, 0.5, 1.5); };
  problems->push_back(Make<2, 2>(
      "DeSilva1978",
      "De Silva 1978",
      "weak_bound",
      [](auto* x, auto* y, auto* f) {
        f[0] = Square(x[0] - 1.0) + Square(x[1] - 1.0) + y[0] * y[0] + y[1] * y[1] - 2.0;
      },
      nearest,
      {0, 0},
      {1, 1},
      kFree,
      {0.5, 1.5},
      {{{0.5, 0.5}, -1.0, {0.5, 0.5}}},
      clamped,
      "both bounds of y are weakly active at the answer, a kink of phi"));
  problems->push_back(Make<2, 2>(
      "FalkLiu1995",
      "Falk and Liu 1995",
      "smooth",
      [](auto* x, auto* y, auto* f) {
        f[0] = Square(x[0] - 1.5) + Square(x[1] - 1.5) + y[0] * y[0] + y[1] * y[1] - 4.5;
      },
      nearest,
      {0, 0},
      {1, 1},
      kFree,
      {0.5, 1.5},
      {{{0.75, 0.75}, -2.25, {0.75, 0.75}}},
      clamped,
      "BOLIB lists -2.1962, at x = sqrt(3)/2; x = 3/4 is better"));
  problems->push_back(Make<1, 2>(
      "HatzEtal2013",
      "Hatz et al. 2013",
      "weak_bound",
      [](auto* x, auto* y, auto* f) { f[0] = 2.0 * y[0] - x[0] + y[1]; },
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = x[0] - y[0];
        r[1] = y[1];
      }),
      {1},
      {1, 1},
      kFree,
      {0, kFree.upper},
      {{{0}, 0.0, {0, 0}}},
      [](const Values& x) {
        return Values{std::max(x[0], 0.0), 0.0};
      },
      "phi = |x|: both bounds of y are weakly active at its kink"));
  // y = 50 - x/4, phi = 3/8 x^2 - 70 x.
  problems->push_back(Make<1, 1>(
      "HendersonQuandt1958",
      "Henderson and Quandt 1958",
      "smooth",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] * (0.5 * x[0] + 0.5 * y[0] - 95.0); },
      [](auto* x, auto* y, auto* g) { g[0] = y[0] * (0.5 * x[0] + y[0] - 100.0); },
      {0},
      {0},
      {0, 200},
      {0, kFree.upper},
      {{{280.0 / 3.0}, -9800.0 / 3.0, {80.0 / 3.0}}},
      [](const Values& x) { return Values{std::max(50.0 - x[0] / 4.0, 0.0)}; }));
  problems->push_back(Make<1, 1>(
      "HenrionSurowiec2011",
      "Henrion and Surowiec 2011",
      "smooth",
      Squares<1>([](auto* x, auto*, auto* r) { r[0] = x[0]; }),
      [](auto* x, auto* y, auto* g) { g[0] = -y[0] * (x[0] - 0.5 * y[0]); },
      {1},
      {1},
      kFree,
      kFree,
      {{{0}, 0.0, {0}}},
      [](const Values& x) { return x; },
      "with the parameter c = 0"));
  problems->push_back(
      Make<1, 1>("LamparielloSagratella2017Ex32",
                 "Lampariello and Sagratella 2017",
                 "smooth",
                 Squares<2>([](auto* x, auto* y, auto* r) {
                   r[0] = x[0];
                   r[1] = y[0];
                 }),
                 Squares<1>([](auto* x, auto* y, auto* r) { r[0] = x[0] + y[0] - 1.0; }),
                 {1},
                 {1},
                 kFree,
                 kFree,
                 {{{0.5}, 0.5, {0.5}}},
                 [](const Values& x) { return Values{1.0 - x[0]}; }));
  // y = 50 x - 500, phi = (x - 1)^2 + (50 x - 501)^2.
  problems->push_back(Make<1, 1>(
      "MacalHurter1997",
      "Macal and Hurter 1997",
      "smooth",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = x[0] - 1.0;
        r[1] = y[0] - 1.0;
      }),
      [](auto* x, auto* y, auto* g) {
        g[0] = 500.0 * y[0] - 50.0 * x[0] * y[0] + 0.5 * y[0] * y[0];
      },
      {1},
      {1},
      kFree,
      kFree,
      {{{25051.0 / 2501.0}, 203401.0 / 2501.0, {50.0 * 25051.0 / 2501.0 - 500.0}}},
      [](const Values& x) { return Values{50.0 * x[0] - 500.0}; }));
}

void AddLinear(Problems* problems) {
  const Interval y01{0, 1};
  problems->push_back(Make<1, 1>(
      "DempeEtal2012",
      "Dempe et al. 2012",
      "active_bound",
      [](auto* x, auto*, auto* f) { f[0] = x[0]; },
      [](auto* x, auto* y, auto* g) { g[0] = x[0] * y[0]; },
      {1},
      {1},
      kUnit,
      y01,
      {{{-1}, -1.0, {1}}},
      [](const Values& x) { return Values{x[0] < 0.0 ? 1.0 : 0.0}; }));
  problems->push_back(Make<1, 1>(
      "LucchettiEtal1987",
      "Lucchetti et al. 1987",
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] * y[0] - 0.5 * x[0] + 0.5; },
      [](auto* x, auto* y, auto* g) { g[0] = y[0] * (x[0] - 1.0); },
      {1},
      {1},
      {0, 1},
      y01,
      {{{1}, 0.0, {0}}, {{0}, 0.5, {1}, kLocal}},
      [](const Values& x) { return Values{x[0] < 1.0 ? 1.0 : 0.0}; },
      "optimistic; the least value is isolated, at a bound of x where every y serves"));
  const auto morgan = [&](const char* name, double width, double flat) {
    const double end = width;
    problems->push_back(Make<1, 1>(
        name,
        "Morgan and Patrone 2006",
        "jump",
        [](auto* x, auto* y, auto* f) { f[0] = -x[0] - y[0]; },
        [flat](auto* x, auto* y, auto* g) {
          g[0] = 0.0 * y[0];
          if (x[0] <= -flat) g[0] = (x[0] + flat) * y[0];
          if (x[0] >= flat) g[0] = (x[0] - flat) * y[0];
        },
        {1},
        {1},
        {-end, end},
        kUnit,
        {{{flat}, -flat - 1.0, {1}}, {{end}, 1.0 - end, {-1}, kLocal}},
        [flat](const Values& x) { return Values{x[0] > flat ? -1.0 : 1.0}; },
        "optimistic; where g is flat every y serves; the published start is moved to the bound"));
    problems->back().x = {std::min(1.0, end)};
  };
  morgan("MorganPatrone2006a", 0.5, 0.0);
  morgan("MorganPatrone2006b", 0.5, 0.25);
  morgan("MorganPatrone2006c", 2.0, 1.75);
  problems->push_back(Make<1, 1>(
      "Yezza1996Ex31",
      "Yezza 1996",
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = 2.0 * x[0] - y[0] * (4.0 * x[0] - 3.0) + 1.0; },
      [](auto* x, auto* y, auto* g) { g[0] = y[0] * (4.0 * x[0] - 1.0) - 2.0 * x[0] - 2.0; },
      {1},
      {1},
      {0, 1},
      y01,
      {{{0.25}, 1.5, {0}}},
      [](const Values& x) { return Values{x[0] < 0.25 ? 1.0 : 0.0}; }));
}

// The lowest y of Mirrlees' g: of a grid over [-2, 2], brought to the stationary point by Newton's
// method. Where two are alike, f prefers y > 0.
Values LowestOfMirrlees(const Values& x) {
  const auto well = [](double s) { return exp(-s * s); };
  const auto g = [&](double y) { return -well(y - 1.0) - x[0] * well(y + 1.0); };
  double y = -2.0;
  for (int k = 1; k <= 400; ++k) {
    const double trial = -2.0 + 0.01 * k;
    if (g(trial) < g(y) + 1e-13) y = trial;
  }
  for (int k = 0; k < 20; ++k) {
    const double a = y - 1.0, b = y + 1.0;
    const double slope = 2.0 * a * well(a) + 2.0 * x[0] * b * well(b);
    const double curvature = (2.0 - 4.0 * a * a) * well(a) + x[0] * (2.0 - 4.0 * b * b) * well(b);
    if (curvature > 0.0) y = std::min(std::max(y - slope / curvature, -2.0), 2.0);
  }
  return {y};
}

void AddNonconvex(Problems* problems) {
  problems->push_back(Make<1, 1>(
      "KleniatiAdjiman2014Ex3",
      "Kleniati and Adjiman 2014",
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] - y[0]; },
      [](auto* x, auto* y, auto* g) {
        g[0] = 0.5 * x[0] * y[0] * y[0] - x[0] * y[0] * y[0] * y[0];
      },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{0}, -1.0, {1}}, {{-1}, 0.0, {-1}, kLocal}, {{-1}, -4.0 / 3.0, {1.0 / 3.0}, kBranch}},
      [](const Values& x) { return Values{x[0] < 0.0 ? -1.0 : 1.0}; }));
  problems->push_back(Make<1, 1>(
      "PaulaviciusAdjiman2017a",
      "Paulavicius and Adjiman 2017",
      "jump",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = x[0];
        r[1] = y[0];
      }),
      [](auto* x, auto* y, auto* g) { g[0] = x[0] * y[0] * y[0] - 0.5 * Square(y[0] * y[0]); },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{0.5}, 0.25, {0}}, {{0}, 1.0, {1}, kLocal}},
      [](const Values& x) { return Values{x[0] < 0.5 ? 1.0 : 0.0}; },
      "the start is a maximum of g at a bound; y = 0 goes on as a local minimum down to x = 0"));
  problems->push_back(Make<1, 1>(
      "PaulaviciusAdjiman2017b",
      "Paulavicius and Adjiman 2017",
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] + y[0]; },
      [](auto* x, auto* y, auto* g) {
        g[0] = 0.5 * x[0] * y[0] * y[0] - x[0] * x[0] * x[0] * y[0];
      },
      {1},
      {1},
      kUnit,
      kUnit,
      {{{-1}, -2.0, {-1}}},
      [](const Values& x) { return Values{x[0] > 0.0 ? x[0] * x[0] : -1.0}; }));
  // At x = 1 both minima of g are equal; right of it the one near y = -1 is the global one.
  problems->push_back(Make<1, 1>(
      "Mirrlees1999",
      "Mirrlees 1999",
      "jump",
      Squares<2>([](auto* x, auto* y, auto* r) {
        r[0] = x[0] - 2.0;
        r[1] = y[0] - 1.0;
      }),
      [](auto* x, auto* y, auto* g) {
        g[0] = -exp(-Square(y[0] - 1.0)) - x[0] * exp(-Square(y[0] + 1.0));
      },
      {1},
      {1},
      kFree,
      {-2, 2},
      {{{1}, 1.00180590797, {0.957504024077}},
       {{1.97866144606}, 3.92147441568, {-0.980156327617}, kLocal},
       {{1.99122382384}, 0.0111634268694, {0.894707997731}, kBranch}},
      LowestOfMirrlees,
      "phi jumps at the answer, which the published start has for x; the branch y > 0 goes on to "
      "the third minimum"));
}

// T. Lu, K. Deb and A. Sinha; y's bounds are the upper level's there, and never active. The power
// 0.4 of a negative number is taken of its modulus.
template <typename T>
T Ridge(const T& x, const T& y, double of_y, double sign_x, double offset) {
  return exp(-pow(abs(of_y * y + sign_x * x + offset) / 0.055, 0.4));
}

void AddLuDebSinha(Problems* problems) {
  const auto upper = [](auto* x, auto* y, auto* f) {
    f[0] = 2.0 - Ridge(x[0], y[0], 0.2, -1.0, 0.6) -
           0.8 * exp(-Square((0.15 * y[0] + x[0] - 0.4) / 0.3));
  };
  const auto lower = [](auto* x, auto* y, auto* g) {
    g[0] = 2.0 - Ridge(x[0], y[0], 1.5, -1.0, 0.0) -
           0.8 * exp(-Square((2.0 * y[0] + x[0] - 3.0) / 0.5));
  };
  const auto target = Squares<2>([](auto* x, auto* y, auto* r) {
    r[0] = x[0] - 0.5;
    r[1] = y[0] - 1.0;
  });
  const auto cusp = [](const Values& x) { return Values{x[0] / 1.5}; };
  const Interval y02{0, 2}, x01{0, 1};
  problems->push_back(Make<1, 1>(
      "LuDebSinha2016a",
      "Lu, Deb and Sinha 2016",
      "cusp",
      upper,
      lower,
      {1},
      {1},
      x01,
      y02,
      {{{0.9 / 1.3}, 0.812782994261, {0.6 / 1.3}},
       {{0.380746429858}, 1.05203874511, {0.253830953239}, kLocal},
       {{0.196819690193}, 1.13583987201, {1.4007714939}, kBranch},
       {{0.817365000775}, 0.981149221251, {1.0868250038}, kBranch}},
      cusp,
      "BOLIB lists 1.14 on the smooth lower minimum; the global one is the cusp y = x / 1.5"));
  problems->push_back(Make<1, 1>("LuDebSinha2016b",
                                 "Lu, Deb and Sinha 2016",
                                 "cusp",
                                 target,
                                 lower,
                                 {1},
                                 {1},
                                 x01,
                                 y02,
                                 {{{10.5 / 13.0}, 4.0 / 13.0, {7.0 / 13.0}},
                                  {{0.600124856662}, 0.0491332507491, {1.19775809421}, kBranch}},
                                 cusp,
                                 "BOLIB lists 0 at (0.5, 1), which is no lower minimum"));
  problems->push_back(Make<1, 1>(
      "LuDebSinha2016c",
      "Lu, Deb and Sinha 2016",
      "cusp",
      upper,
      target,
      {1},
      {1},
      x01,
      y02,
      {{{0.8}, 0.972244399037, {1}}, {{0.258554172677}, 1.11825149463, {1}, kLocal}},
      [](const Values&) { return Values{1.0}; },
      "BOLIB lists the local one; phi has a cusp at 0.8"));
}

}  // namespace

void AddLibraryProblems(Problems* problems) {
  AddQuadratics(problems);
  AddLinear(problems);
  AddNonconvex(problems);
  AddLuDebSinha(problems);
}

}  // namespace bilevel
