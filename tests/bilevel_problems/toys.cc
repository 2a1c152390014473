// Small problems of papers on methods, with the starts that those give or, where they draw one, a
// fixed point away from the answers.
#include <cmath>

#include "bilevel_problems/levels.h"

namespace bilevel {
namespace {

using std::cos;
using std::exp;
using std::log;
using std::sin;

constexpr double kPi = 3.14159265358979323846;
constexpr Interval kFree;
constexpr auto kLocal = KnownMinimum::kLocal;
constexpr auto kBranch = KnownMinimum::kBranch;
constexpr auto kGlobal = KnownMinimum::kGlobal;

void AddSets(Problems* problems) {
  const auto half_line = Squares<2>([](auto* x, auto* y, auto* r) {
    r[0] = std::sqrt(0.5) * (x[0] - y[1]);
    r[1] = std::sqrt(0.5) * (y[0] - 1.0);
  });
  problems->push_back(Make<1, 2>(
      "bda_convex",
      "Liu, Mu, Yuan, Zeng and Zhang 2020",
      "set",
      half_line,
      [](auto* x, auto* y, auto* g) { g[0] = 0.5 * y[0] * y[0] - x[0] * y[0]; },
      {0},
      {0, 0},
      kFree,
      kFree,
      {{{1}, 0.0, {1, 1}}},
      [](const Values& x) {
        return Values{x[0], x[0]};
      },
      "optimistic: g says nothing of y2"));
  // y = p + (x - 3) / 2 (1, 1) with p = (1, 2): phi = (x - 3)^2 / 4 + (x - 1)^2 / 2.
  problems->push_back(Make<1, 2>(
      "sgm_line",
      "Chen, Xu and Zhang 2023",
      "set",
      Squares<3>([](auto* x, auto* y, auto* r) {
        r[0] = std::sqrt(0.5) * (y[0] - 1.0);
        r[1] = std::sqrt(0.5) * (y[1] - 2.0);
        r[2] = std::sqrt(0.5) * (x[0] - 1.0);
      }),
      Squares<1>([](auto* x, auto* y, auto* r) { r[0] = std::sqrt(0.5) * (y[0] + y[1] - x[0]); }),
      {0},
      {0, 0},
      kFree,
      kFree,
      {{{5.0 / 3.0}, 2.0 / 3.0, {1.0 / 3.0, 4.0 / 3.0}}},
      [](const Values& x) {
        return Values{0.5 * (x[0] - 1.0), 0.5 * (x[0] + 1.0)};
      },
      "optimistic: a line of lower minima"));
  problems->push_back(Make<1, 1>(
      "sgm_jump",
      "Chen, Xu and Zhang 2023",
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] * x[0] + y[0]; },
      [](auto* x, auto* y, auto* g) { g[0] = -x[0] * y[0]; },
      {0.8},
      {0.5},
      kFree,
      {-1, 1},
      {{{0}, -1.0, {-1}}},
      [](const Values& x) { return Values{x[0] > 0.0 ? 1.0 : -1.0}; },
      "phi = x^2 + sign(x), least on the left side of its jump"));
  // phi = sum of x_i^2 - |x_i|.
  problems->push_back(Make<2, 2>(
      "sgm_free_y",
      "Chen, Xu and Zhang 2023",
      "set",
      [](auto* x, auto* y, auto* f) {
        f[0] = x[0] * x[0] + x[0] * y[0] + x[1] * x[1] + x[1] * y[1];
      },
      [](auto*, auto* y, auto* g) { g[0] = 0.0 * y[0]; },
      {-0.2, 0.1},
      {0, 0},
      kFree,
      {-1, 1},
      {{{0.5, 0.5}, -0.5, {-1, -1}},
       {{0.5, -0.5}, -0.5, {-1, 1}},
       {{-0.5, 0.5}, -0.5, {1, -1}},
       {{-0.5, -0.5}, -0.5, {1, 1}}},
      [](const Values& x) {
        return Values{x[0] > 0.0 ? -1.0 : 1.0, x[1] > 0.0 ? -1.0 : 1.0};
      },
      "optimistic: g = 0; the squares of x are added to give it minima"));
  problems->push_back(Make<1, 1>(
      "bome_min_max",
      "Liu, Ye, Wright, Stone and Liu 2022",
      "kink",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] * y[0]; },
      [](auto* x, auto* y, auto* g) { g[0] = -x[0] * y[0]; },
      {4},
      {4},
      {-10, 10},
      {-10, 10},
      {{{0}, 0.0, {0}}},
      [](const Values& x) { return Values{x[0] < 0.0 ? -10.0 : 10.0}; },
      "phi = 10 |x|"));
}

// The point of a convex hull that is nearest to (3, -2); f is 1/10 of the squared distance.
void AddCoreset(Values start, const char* name, Problems* problems) {
  const auto hull = [](auto* x, auto* p) {
    constexpr double kPoints[4][2] = {{1, 3}, {3, 1}, {-2, 2}, {-3, -2}};
    auto sum = exp(x[0]);
    p[0] = kPoints[0][0] * sum;
    p[1] = kPoints[0][1] * sum;
    for (int i = 1; i < 4; ++i) {
      const auto weight = exp(x[i]);
      sum += weight;
      p[0] += kPoints[i][0] * weight;
      p[1] += kPoints[i][1] * weight;
    }
    p[0] /= sum;
    p[1] /= sum;
  };
  // The nearest point (1.8, 0.4) = 0.8 (3, 1) + 0.2 (-3, -2) is reached as x1 and x3 go to
  // -infinity.
  const double log4 = std::log(4.0);
  problems->push_back(Make<4, 2>(
      name,
      "Liu, Ye, Wright, Stone and Liu 2022",
      "flat",
      Squares<2>([](auto*, auto* y, auto* r) {
        r[0] = std::sqrt(0.1) * (y[0] - 3.0);
        r[1] = std::sqrt(0.1) * (y[1] + 2.0);
      }),
      Squares<2>([hull](auto* x, auto* y, auto* r) {
        hull(x, r);
        r[0] = y[0] - r[0];
        r[1] = y[1] - r[1];
      }),
      {0, 0, 0, 0},
      start,
      kFree,
      kFree,
      {{{-30, log4, -30, 0}, 0.72, {1.8, 0.4}, kGlobal, true}},
      [hull](const Values& x) {
        Values y(2);
        hull(x.data(), y.data());
        return y;
      },
      "an infimum at infinity, judged by phi"));
}

void AddSines(Problems* problems) {
  // x y = pi/2 - 2 pi m: the best y is -2 at x = pi m - pi/4 and less negative right of it.
  const auto sine_y = [](const Values& x) {
    const double m = std::floor((2.0 * x[0] + kPi / 2.0) / (2.0 * kPi) + 1e-12);
    return Values{(kPi / 2.0 - 2.0 * kPi * m) / x[0]};
  };
  problems->push_back(Make<1, 1>(
      "iaptt_sine",
      "Liu, Liu, Zeng and Zhang 2021",
      "jump",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] + x[0] * y[0]; },
      [](auto* x, auto* y, auto* g) { g[0] = -sin(x[0] * y[0]); },
      {7},
      {-1},
      {1, 10},
      {-2, 2},
      {{{2.75 * kPi}, -2.75 * kPi, {-2}},
       {{1.75 * kPi}, -1.75 * kPi, {-2}, kLocal},
       {{0.75 * kPi}, -0.75 * kPi, {-2}, kLocal},
       {{1}, 1.0 + kPi / 2.0, {kPi / 2.0}, kLocal}},
      sine_y,
      "optimistic: a lower minimum in every period; phi jumps at its minima"));
  // x + y_i - 2 = C_k = 3 pi/2 + 2 pi k: with both y alike, f is least at x = 2 (C_k - 1) / 3.
  BilevelProblem sines = Make<1, 2>(
      "bvfsm_sines",
      "Liu, Liu, Yuan, Zeng and Zhang 2021",
      "several_minima",
      Squares<3>([](auto* x, auto* y, auto* r) {
        r[0] = x[0] - 2.0;
        r[1] = y[0] - 4.0;
        r[2] = y[1] - 4.0;
      }),
      [](auto* x, auto* y, auto* g) { g[0] = sin(x[0] + y[0] - 2.0) + sin(x[0] + y[1] - 2.0); },
      {3},
      {3, 3},
      kFree,
      kFree,
      {},
      [](const Values& x) {
        const double k = std::round((x[0] + 2.0 - 1.5 * kPi) / (2.0 * kPi));
        return Values(2, 1.5 * kPi + 2.0 * kPi * k + 2.0 - x[0]);
      },
      "optimistic: a lower minimum in every period of each y; the branches are f's minima there");
  for (int k1 = -3; k1 <= 3; ++k1) {
    for (int k2 = k1; k2 <= 3; ++k2) {
      const double c1 = 1.5 * kPi + 2.0 * kPi * k1, c2 = 1.5 * kPi + 2.0 * kPi * k2;
      const double x = (c1 + c2 - 2.0) / 3.0;
      const Values y{c1 + 2.0 - x, c2 + 2.0 - x};
      const auto kind = k1 != k2 || std::abs(k1) > 1 ? kBranch : k1 ? kLocal : kGlobal;
      sines.minima.push_back({{x}, sines.f(&x, y.data()), y, kind});
    }
  }
  problems->push_back(std::move(sines));
}

void AddSmooth(Problems* problems) {
  problems->push_back(Make<1, 1>(
      "penalty_sum",
      "Mehra and Hamm 2021",
      "smooth",
      [](auto* x, auto* y, auto* f) { f[0] = x[0] * x[0] + y[0] * y[0] - 1.0; },
      Squares<1>([](auto* x, auto* y, auto* r) { r[0] = 1.0 - x[0] - y[0]; }),
      {2},
      {-3},
      kFree,
      kFree,
      {{{0.5}, -0.5, {0.5}}},
      [](const Values& x) { return Values{1.0 - x[0]}; }));
  constexpr int kSize = 10;
  Values x(kSize), y(kSize);
  for (int i = 0; i < kSize; ++i) x[i] = std::sin(1.0 + i), y[i] = std::cos(1.0 + i);
  problems->push_back(Make<kSize, kSize>("penalty_sum_10",
                                         "Mehra and Hamm 2021",
                                         "smooth",
                                         Squares<2 * kSize>([](auto* a, auto* b, auto* r) {
                                           for (int i = 0; i < kSize; ++i)
                                             r[i] = a[i], r[kSize + i] = b[i];
                                         }),
                                         Squares<kSize>([](auto* a, auto* b, auto* r) {
                                           for (int i = 0; i < kSize; ++i) r[i] = 1.0 - a[i] - b[i];
                                         }),
                                         x,
                                         y,
                                         kFree,
                                         kFree,
                                         {{Values(kSize, 0.5), 5.0, Values(kSize, 0.5)}},
                                         [](const Values& at) {
                                           Values best;
                                           for (const double value : at)
                                             best.push_back(1.0 - value);
                                           return best;
                                         }));
  problems->push_back(Make<1, 1>(
      "pbgd_cosine",
      "Shen and Chen 2023",
      "several_minima",
      [](auto* a, auto* b, auto* f) {
        f[0] = cos(4.0 * b[0] + 2.0) / (1.0 + exp(2.0 - 4.0 * a[0])) +
               0.5 * log(Square(4.0 * a[0] - 2.0) + 1.0);
      },
      [](auto* a, auto* b, auto* g) {
        const auto s = a[0] + b[0];
        g[0] = s * s + a[0] * Square(sin(s));
      },
      {2},
      {0},
      {0, 3},
      kFree,
      {{{1.21514547757}, 0.1999108877, {-1.21514547757}},
       {{0.382360078779}, 0.4427057224445, {-0.382360078779}, kLocal},
       {{2.82964180194}, 1.24345827282, {-2.82964180194}, kLocal}},
      [](const Values& a) { return Values{-a[0]}; },
      "g is not convex, with one minimum"));
}

}  // namespace

void AddToys(Problems* problems) {
  AddSets(problems);
  AddCoreset({0, 0}, "bome_coreset", problems);
  AddCoreset({-3, 3}, "bome_coreset_far", problems);
  AddSines(problems);
  AddSmooth(problems);
}

}  // namespace bilevel
