#include "bilevel/upper_level/internal/gain_by_chance.h"

#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"

namespace bilevel {

double GainByChance(double n, int k) {
  constexpr double kChance = 0.1;
  if (!(n > k)) return kInfinity;
  const double a = 0.5 * (n - k), b = 0.5 * k;
  // With u = r^a the density has no pole at 0.
  const auto distribution = [&](double r) {
    constexpr int kSteps = 2000;
    const double end = std::pow(r, a);
    double sum = 0.0;
    for (int i = 0; i < kSteps; ++i) {
      sum += std::pow(1.0 - std::pow(end * (i + 0.5) / kSteps, 1.0 / a), b - 1.0);
    }
    return sum * end / kSteps / a * std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b));
  };
  double low = 0.0, high = 1.0;
  for (int i = 0; i < 50; ++i) {
    const double middle = 0.5 * (low + high);
    (distribution(middle) < kChance ? low : high) = middle;
  }
  return -0.5 * n * std::log(high);
}

}  // namespace bilevel
