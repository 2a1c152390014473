#include "bilevel/methods/estimators/discontinuity.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bilevel/base/memory.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

constexpr double kRounding = 1e-9;  // Of values of phi, relative.

}  // namespace

void Discontinuity::Add(
    const Point& xa, double phi_a, const Point& xb, double phi_b, const Point& y) {
  const double slope = std::abs(phi_b - phi_a) / (xb.value() - xa.value()).norm();
  const bool above_rounding = std::abs(phi_b - phi_a) > kRounding * (1.0 + std::abs(phi_a));
  if (!std::isfinite(slope) || slope <= slope_ || !above_rounding) return;
  slope_ = slope;
  xa_ = xa;
  xb_ = xb;
  y_ = y;
}

void Discontinuity::Set(const Point& xa, const Point& xb, const Point& y) {
  slope_ = 1.0;
  xa_ = xa;
  xb_ = xb;
  y_ = y;
}

std::string Discontinuity::FindJump(Oracle& oracle) const {
  constexpr int kMaxHalvings = 24, kFewestHalvings = 20;
  if (slope_ == 0.0) return "";
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
  const auto report = [&](const char* how) {
    char text[240];
    const double* x = a.value().data();
    std::snprintf(text,
                  sizeof(text),
                  "phi jumps from %g to %g at x = (%g%s: y*(x) is discontinuous there%s",
                  std::min(phi_a, phi_b),
                  std::max(phi_a, phi_b),
                  x[0],
                  a.value().size() > 1 ? ", ...)" : ")",
                  how);
    return std::string(text);
  };
  // A lower solver that does not know its accuracy smears jumps, and makes small ones everywhere.
  // From further away a smeared jump stays as high as it is, and what is smooth rises more.
  if (oracle.lower().relative_decrement() < 0.0) {
    constexpr int kGrowing = 5, kFlat = 5;
    if (!a.space().Minus(b.value().data(), a.value().data(), delta.data())) return "";
    double length = 0.5, rise = phi_b - phi_a;
    for (int flat = 0, doubling = 0; flat < kFlat; ++doubling, length *= 2.0) {
      if (doubling == kGrowing + flat) return "";
      Point left = xa_, right = xb_;
      if (!left.Move(-length * delta) || !right.Move(length * delta)) return "";
      phi_a = phi(left);
      phi_b = phi(right);
      const double growth = (phi_b - phi_a) / rise;
      if (!(growth > 0.7)) return "";
      flat = growth < 1.4 ? flat + 1 : 0;
      rise = phi_b - phi_a;
    }
    return report(", as far as this lower solver can tell");
  }
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
  return report("");
}

void Discontinuity::Remember(const Oracle& oracle, Memory* memory) {
  const Memory::Group group(memory, "steepest");
  memory->Keep("slope", &slope_);
  xa_.Remember("xa", oracle.program().x, memory);
  xb_.Remember("xb", oracle.program().x, memory);
  y_.Remember("y", oracle.program().y, memory);
}

}  // namespace bilevel
