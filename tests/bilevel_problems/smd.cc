// SMD1 to SMD8: A. Sinha, P. Malo and K. Deb, "Test problem construction for single-objective
// bilevel optimization", Evolutionary Computation 22 (2014). x = (x1 of size p, x2 of size r),
// y = (y1 of size q + s, y2 of size r); s is SMD6's alone. Levels in 2 + 3, 5 + 5 and 10 + 10
// variables, sized as the authors do: r is half of x, rounded down.
//
// SMD9 to SMD12 have general constraints in both levels and do not fit.
//
// No start is published (theirs are random populations): every coordinate starts at seven tenths of
// its interval, where no answer lies. The open ends of y2's intervals are closed 1e-6 inside.
#include <cmath>

#include "bilevel_problems/levels.h"

namespace bilevel {
namespace {

using std::abs;
using std::cos;
using std::exp;
using std::log;
using std::sqrt;
using std::tan;

constexpr double kPi = 3.14159265358979323846, kE = 2.71828182845904523536;
constexpr Interval kWide{-5.0, 10.0};
constexpr double kInside = 1e-6;

// n + sum of v^2 - cos(2 pi v): Rastrigin's function with amplitude 1.
template <typename T>
T Rastrigin(const T* v, int n) {
  T sum(n);
  for (int i = 0; i < n; ++i) sum += v[i] * v[i] - cos(2.0 * kPi * v[i]);
  return sum;
}

// The residuals of Rosenbrock's function as SMD has it, without the factor 100.
template <typename T>
void Rosenbrock(const T* v, int n, T* r) {
  for (int i = 0; i + 1 < n; ++i) {
    r[2 * i] = v[i + 1] - v[i] * v[i];
    r[2 * i + 1] = v[i] - 1.0;
  }
}

template <typename T>
T RosenbrockSquares(const T* v, int n) {
  T sum(0.0);
  for (int i = 0; i + 1 < n; ++i) sum += Square(v[i + 1] - v[i] * v[i]) + Square(v[i] - 1.0);
  return sum;
}

// f = F1(x1) + F2(y1) + F3(x2, y2) with the least value 0 at x = 0. y1_best is y1's value below,
// y2 of x2 what annihilates the follower's part of x2 and y2.
template <int p, int q, int r, typename Upper, typename Lower>
void Add(const std::string& name,
         const std::string& category,
         Upper upper,
         Lower lower,
         Interval x2,
         Interval y2,
         double y1_best,
         double (*y2_of)(double),
         const std::string& note,
         Problems* problems) {
  const auto solution = [y1_best, y2_of](const Values& x) {
    Values y(q, y1_best);
    for (int i = 0; i < r; ++i) y.push_back(y2_of(x[p + i]));
    return y;
  };
  const Values zero(p + r, 0.0);
  BilevelProblem problem =
      Make<p + r, q + r>(name + "_" + std::to_string(p + r) + "+" + std::to_string(q + r),
                         "Sinha, Malo and Deb 2014",
                         category,
                         upper,
                         lower,
                         zero,
                         Values(q + r),
                         kWide,
                         kWide,
                         {{zero, 0.0, solution(zero)}},
                         solution,
                         note);
  for (int i = 0; i < r; ++i) {
    problem.x_lower[p + i] = x2.lower;
    problem.x_upper[p + i] = x2.upper;
    problem.y_lower[q + i] = y2.lower;
    problem.y_upper[q + i] = y2.upper;
  }
  const auto start = [](const Values& lower_end, const Values& upper_end, Values* at) {
    for (size_t i = 0; i < at->size(); ++i) {
      (*at)[i] = lower_end[i] + 0.7 * (upper_end[i] - lower_end[i]);
    }
  };
  start(problem.x_lower, problem.x_upper, &problem.x);
  start(problem.y_lower, problem.y_upper, &problem.y);
  problem.has_more_minima = name == "SMD7" || name == "SMD8";
  problems->push_back(std::move(problem));
}

// q is that of SMD6 plus its s in the other problems: both levels' sizes agree.
template <int p, int q, int r, int q6, int s6>
void AddSizes(Problems* problems) {
  static_assert(q6 + s6 == q, "The sizes of the levels must not depend on the problem.");
  const Interval half_circle{-kPi / 2.0 + kInside, kPi / 2.0 - kInside};
  const auto exponential = [](double x) { return std::exp(x); };

  Add<p, q, r>(
      "SMD1",
      "smooth",
      Squares<p + q + 2 * r>([](auto* x, auto* y, auto* v) {
        for (int i = 0; i < p; ++i) v[i] = x[i];
        for (int i = 0; i < q; ++i) v[p + i] = y[i];
        for (int i = 0; i < r; ++i) {
          v[p + q + 2 * i] = x[p + i];
          v[p + q + 2 * i + 1] = x[p + i] - tan(y[q + i]);
        }
      }),
      Squares<p + q + r>([](auto* x, auto* y, auto* v) {
        for (int i = 0; i < p; ++i) v[i] = x[i];
        for (int i = 0; i < q; ++i) v[p + i] = y[i];
        for (int i = 0; i < r; ++i) v[p + q + i] = x[p + i] - tan(y[q + i]);
      }),
      kWide,
      half_circle,
      0.0,
      [](double x) { return std::atan(x); },
      "",
      problems);

  const auto logarithm = Squares<p + q + r>([](auto* x, auto* y, auto* v) {
    for (int i = 0; i < p; ++i) v[i] = x[i];
    for (int i = 0; i < q; ++i) v[p + i] = y[i];
    for (int i = 0; i < r; ++i) v[p + q + i] = x[p + i] - log(y[q + i]);
  });
  Add<p, q, r>(
      "SMD2",
      "smooth",
      [](auto* x, auto* y, auto* f) {
        f[0] = SumOfSquares(x, p + r) - SumOfSquares(y, q);
        for (int i = 0; i < r; ++i) f[0] -= Square(x[p + i] - log(y[q + i]));
      },
      logarithm,
      {-5.0, 1.0},
      {kInside, kE},
      0.0,
      exponential,
      "",
      problems);

  Add<p, q, r>(
      "SMD3",
      "several_minima",
      Squares<p + q + 2 * r>([](auto* x, auto* y, auto* v) {
        for (int i = 0; i < p; ++i) v[i] = x[i];
        for (int i = 0; i < q; ++i) v[p + i] = y[i];
        for (int i = 0; i < r; ++i) {
          v[p + q + 2 * i] = x[p + i];
          v[p + q + 2 * i + 1] = x[p + i] * x[p + i] - tan(y[q + i]);
        }
      }),
      [](auto* x, auto* y, auto* g) {
        g[0] = SumOfSquares(x, p) + Rastrigin(y, q);
        for (int i = 0; i < r; ++i) g[0] += Square(x[p + i] * x[p + i] - tan(y[q + i]));
      },
      kWide,
      half_circle,
      0.0,
      [](double x) { return std::atan(x * x); },
      "every lower minimum has its upper minimum at the same x",
      problems);

  Add<p, q, r>(
      "SMD4",
      "kink",
      [](auto* x, auto* y, auto* f) {
        f[0] = SumOfSquares(x, p + r) - SumOfSquares(y, q);
        for (int i = 0; i < r; ++i) f[0] -= Square(abs(x[p + i]) - log(1.0 + y[q + i]));
      },
      [](auto* x, auto* y, auto* g) {
        g[0] = SumOfSquares(x, p) + Rastrigin(y, q);
        for (int i = 0; i < r; ++i) g[0] += Square(abs(x[p + i]) - log(1.0 + y[q + i]));
      },
      {-1.0, 1.0},
      {0.0, kE},
      0.0,
      [](double x) { return std::exp(std::abs(x)) - 1.0; },
      "y2 has a kink at the answer, where its bound is weakly active; several lower minima",
      problems);

  Add<p, q, r>(
      "SMD5",
      "kink",
      [](auto* x, auto* y, auto* f) {
        f[0] = SumOfSquares(x, p + r) - RosenbrockSquares(y, q);
        for (int i = 0; i < r; ++i) f[0] -= Square(abs(x[p + i]) - y[q + i] * y[q + i]);
      },
      Squares<p + 2 * (q - 1) + r>([](auto* x, auto* y, auto* v) {
        for (int i = 0; i < p; ++i) v[i] = x[i];
        Rosenbrock(y, q, v + p);
        for (int i = 0; i < r; ++i) v[p + 2 * (q - 1) + i] = abs(x[p + i]) - y[q + i] * y[q + i];
      }),
      kWide,
      kWide,
      1.0,
      [](double x) { return std::sqrt(std::abs(x)); },
      "the lower Hessian is singular at the answer, where y2 has an infinite slope; -y2 serves too",
      problems);

  Add<p, q, r>(
      "SMD6",
      "set",
      [](auto* x, auto* y, auto* f) {
        f[0] = SumOfSquares(x, p + r) - SumOfSquares(y, q6) + SumOfSquares(y + q6, s6);
        for (int i = 0; i < r; ++i) f[0] -= Square(x[p + i] - y[q + i]);
      },
      Squares<p + q6 + s6 / 2 + r>([](auto* x, auto* y, auto* v) {
        for (int i = 0; i < p; ++i) v[i] = x[i];
        for (int i = 0; i < q6; ++i) v[p + i] = y[i];
        for (int i = 0; i < s6 / 2; ++i) v[p + q6 + i] = y[q6 + 2 * i + 1] - y[q6 + 2 * i];
        for (int i = 0; i < r; ++i) v[p + q6 + s6 / 2 + i] = x[p + i] - y[q + i];
      }),
      kWide,
      kWide,
      0.0,
      [](double x) { return x; },
      "optimistic: pairs of y1 need only be equal",
      problems);

  Add<p, q, r>(
      "SMD7",
      "several_minima",
      [](auto* x, auto* y, auto* f) {
        auto product = cos(x[0]);
        for (int i = 1; i < p; ++i) product *= cos(x[i] / sqrt(i + 1.0));
        f[0] = 1.0 + SumOfSquares(x, p) / 400.0 - product - SumOfSquares(y, q) +
               SumOfSquares(x + p, r);
        for (int i = 0; i < r; ++i) f[0] -= Square(x[p + i] - log(y[q + i]));
      },
      [](auto* x, auto* y, auto* g) {
        g[0] = SumOfSquares(y, q);
        for (int i = 0; i < p; ++i) g[0] += x[i] * x[i] * x[i];
        for (int i = 0; i < r; ++i) g[0] += Square(x[p + i] - log(y[q + i]));
      },
      {-5.0, 1.0},
      {kInside, kE},
      0.0,
      exponential,
      "Griewank's function of x1 has many local minima",
      problems);

  Add<p, q, r>(
      "SMD8",
      "several_minima",
      [](auto* x, auto* y, auto* f) {
        auto waves = cos(2.0 * kPi * x[0]);
        for (int i = 1; i < p; ++i) waves += cos(2.0 * kPi * x[i]);
        f[0] = 20.0 + kE - 20.0 * exp(-0.2 * sqrt(SumOfSquares(x, p) / p)) - exp(waves / p) -
               RosenbrockSquares(y, q) + SumOfSquares(x + p, r);
        for (int i = 0; i < r; ++i) {
          f[0] -= Square(x[p + i] - y[q + i] * y[q + i] * y[q + i]);
        }
      },
      [](auto* x, auto* y, auto* g) {
        g[0] = RosenbrockSquares(y, q);
        for (int i = 0; i < p; ++i) g[0] += abs(x[i]);
        for (int i = 0; i < r; ++i) {
          g[0] += Square(x[p + i] - y[q + i] * y[q + i] * y[q + i]);
        }
      },
      kWide,
      kWide,
      1.0,
      [](double x) { return std::cbrt(x); },
      "Ackley's function of x1 has many local minima and a cone at the answer, where the lower "
      "Hessian is singular and y2 has an infinite slope",
      problems);
}

}  // namespace

void AddSmdProblems(Problems* problems) {
  AddSizes<1, 2, 1, 0, 2>(problems);
  AddSizes<3, 3, 2, 1, 2>(problems);
  AddSizes<5, 5, 5, 2, 3>(problems);
}

}  // namespace bilevel
