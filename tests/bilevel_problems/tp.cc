// TP1 to TP10: A. Sinha, P. Malo and K. Deb, "An improved bilevel evolutionary algorithm based on
// quadratic approximations", IEEE CEC (2014). Their other eight have general constraints:
//   TP1  x1 + 2 x2 >= 30, x1 + x2 <= 25       TP5  two linear ones below, in y
//   TP2  one above and two below, linear      TP6  four below, linear in x and y
//   TP3  quadratic above, two below           TP7  x1^2 + x2^2 <= 100, x1 <= x2, y <= x
//   TP4  three below, linear                  TP8  as TP2
// TP9 and TP10 bound y by -pi and pi alone. They are given twice: with the sums of absolute values
// of the authors, and with the squares that S. Zhou, A. Zemkoho and A. Tin have in "BOLIB: Bilevel
// Optimization LIBrary of test problems" (2018), with its start.
#include <cmath>

#include "bilevel_problems/levels.h"

namespace bilevel {
namespace {

using std::abs;
using std::cos;
using std::exp;
using std::sqrt;

constexpr double kPi = 3.14159265358979323846;

// exp(|x|^2 h(y)), Griewank's h.
template <int n>
auto LowerOfTp9() {
  return [](auto* x, auto* y, auto* g) {
    auto product = cos(y[0]);
    for (int i = 1; i < n; ++i) product *= cos(y[i] / sqrt(i + 1.0));
    g[0] = exp((1.0 + SumOfSquares(y, n) / 4000.0 - product) * SumOfSquares(x, n));
  };
}

// exp(h(x_i y_i)).
template <int n>
auto LowerOfTp10() {
  return [](auto* x, auto* y, auto* g) {
    auto product = cos(x[0] * y[0]);
    auto sum = Square(x[0] * y[0]);
    for (int i = 1; i < n; ++i) {
      product *= cos(x[i] * y[i] / sqrt(i + 1.0));
      sum += Square(x[i] * y[i]);
    }
    g[0] = exp(1.0 + sum / 4000.0 - product);
  };
}

// Every listed y is 0, the only minimum of g where no x_i is 0; where one is, f chooses it.
template <int n, typename Lower>
void Add(const std::string& name, Lower lower, Problems* problems) {
  const Interval y_bounds{-kPi, kPi};
  const Values ones(n, 1.0), zeros(n, 0.0);
  const auto solution = [](const Values&) { return Values(n, 0.0); };
  problems->push_back(Make<n, n>(
      name + "_" + std::to_string(n) + "+" + std::to_string(n),
      "Sinha, Malo and Deb 2014",
      "kink",
      [](auto* x, auto* y, auto* f) {
        f[0] = abs(x[0] - 1.0) + abs(y[0]);
        for (int i = 1; i < n; ++i) f[0] += abs(x[i] - 1.0) + abs(y[i]);
      },
      lower,
      Values(n, 0.5),
      ones,
      {},
      y_bounds,
      {{ones, 0.0, zeros}},
      solution,
      "f has kinks at the answer; no start is published"));
  problems->push_back(Make<n, n>(name + "_squares_" + std::to_string(n) + "+" + std::to_string(n),
                                 "Zhou, Zemkoho and Tin 2018, after Sinha, Malo and Deb 2014",
                                 "set",
                                 Squares<2 * n>([](auto* x, auto* y, auto* r) {
                                   for (int i = 0; i < n; ++i) {
                                     r[i] = x[i] - 1.0;
                                     r[n + i] = y[i];
                                   }
                                 }),
                                 lower,
                                 zeros,
                                 zeros,
                                 {},
                                 y_bounds,
                                 {{ones, 0.0, zeros}},
                                 solution,
                                 "at the published start every y minimises g"));
}

}  // namespace

void AddTpProblems(Problems* problems) {
  Add<5>("TP9", LowerOfTp9<5>(), problems);
  Add<10>("TP9", LowerOfTp9<10>(), problems);
  Add<5>("TP10", LowerOfTp10<5>(), problems);
  Add<10>("TP10", LowerOfTp10<10>(), problems);
}

}  // namespace bilevel
