#include "bilevel/methods/estimators/jump.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bilevel/lower_level/lower_solver.h"

namespace bilevel {
namespace {

constexpr double kRounding = 1e-9;  // Of values of phi, relative.

}  // namespace

void SteepestPair::Add(
    const Point& xa, double phi_a, const Point& xb, double phi_b, const Point& y) {
  const double slope = std::abs(phi_b - phi_a) / (xb.value() - xa.value()).norm();
  const bool above_rounding = std::abs(phi_b - phi_a) > kRounding * (1.0 + std::abs(phi_a));
  if (!std::isfinite(slope) || slope <= slope_ || !above_rounding) return;
  slope_ = slope;
  xa_ = xa;
  xb_ = xb;
  y_ = y;
}

void SteepestPair::Set(const Point& xa, const Point& xb, const Point& y) {
  slope_ = 1.0;
  xa_ = xa;
  xb_ = xb;
  y_ = y;
}

std::string SteepestPair::FindJump(Oracle& oracle) const {
  constexpr int kMaxHalvings = 50, kFewestHalvings = 20;
  // A lower solver that does not know its accuracy jumps by that much everywhere.
  if (slope_ == 0.0 || oracle.lower().relative_decrement() < 0.0) return "";
  Point y = y_, a = xa_, b = xb_, middle = xa_;
  const auto phi = [&](const Point& x) {
    y = y_;
    const double value = oracle.Solve(x, &y) ? oracle.f.Value(x, y) : std::nan("");
    oracle.Clear();
    return value;
  };
  double phi_a = phi(a), phi_b = phi(b);
  const double first = std::abs(phi_b - phi_a);
  if (!(first > kRounding * (1.0 + std::abs(phi_a)))) return "";
  Vector delta(a.dim());
  int k = 0;
  for (; k < kMaxHalvings; ++k) {
    if (!a.space().Minus(b.value().data(), a.value().data(), delta.data())) return "";
    middle = a;
    if (!middle.Move(0.5 * delta) || middle.value() == a.value() || middle.value() == b.value()) {
      break;
    }
    const double phi_m = phi(middle);
    if (!std::isfinite(phi_m)) break;  // Too close to the jump for the lower solver.
    const bool left = std::abs(phi_m - phi_a) > std::abs(phi_b - phi_m);
    (left ? b : a) = middle;
    (left ? phi_b : phi_a) = phi_m;
    if (!(std::abs(phi_b - phi_a) > 0.5 * first)) return "";
  }
  if (k < kFewestHalvings) return "";
  char text[160];
  const double* x = a.value().data();
  std::snprintf(text,
                sizeof(text),
                "phi jumps from %g to %g at x = (%g%s: y*(x) is discontinuous there",
                std::min(phi_a, phi_b),
                std::max(phi_a, phi_b),
                x[0],
                a.value().size() > 1 ? ", ...)" : ")");
  return text;
}

}  // namespace bilevel
