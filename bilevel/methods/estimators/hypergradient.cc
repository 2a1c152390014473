#include "bilevel/methods/estimators/hypergradient.h"

#include <algorithm>
#include <limits>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/memory.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {

double ExactHypergradient::Estimate(Oracle& o, State& s, Vector* gradient) {
  if (!o.Solve(s.x, &s.y) || !o.Differentiate(s.x, &s.y)) {
    o.Fail(o.message());
    return kNaN;
  }
  const double f = o.f.Gradient(s.x, s.y, gradient, &fy_);
  if (!o.ok()) return kNaN;
  if (!o.lower().Adjoint(fy_, &pulled_back_)) {
    o.Fail(o.lower().message());
    return kNaN;
  }
  *gradient += pulled_back_;
  return f;
}

std::string HoagHypergradient::Check(const Oracle& oracle) const {
  if (!(options_.accuracy > 0.0 && options_.accuracy < 1.0)) {
    return "accuracy must be between 0 and 1";
  }
  return oracle.lower().has_tolerance()
             ? ""
             : "lower_solver has no tolerance that could follow the hypergradient";
}

std::string HoagHypergradient::Remark() const {
  return "the last hypergradient came from a lower level solved to " + Scientific(tolerance_) +
         ", for an error of " + Scientific(error_) + " of its norm, as measured";
}

double HoagHypergradient::Estimate(Oracle& o, State& s, Vector* gradient) {
  constexpr double kLoosest = 1e-2, kTightest = 1e-14;
  constexpr double kShare = 0.5;  // Of what is allowed: errors are not quite in proportion.
  constexpr int kPeriod = 10;
  // Error per tolerance, iterations since it was measured, the gradient's norm then.
  Vector& memory = s.Get("hoag", 4);
  double &tolerance = memory[0], &rate = memory[1], &age = memory[2], &norm = memory[3];
  struct Restored {
    ~Restored() { lower.SetTolerance(0.0); }
    LowerSolver& lower;
  } restored{o.lower()};
  const auto estimate = [&] {
    o.lower().SetTolerance(tolerance);
    return estimator_.Estimate(o, s, gradient);
  };
  const bool first = tolerance == 0.0;
  if (first) tolerance = kLoosest;
  double f = estimate();
  bool measure = first || ++age >= kPeriod || gradient->norm() < 0.1 * norm;
  while (o.ok() && tolerance > kTightest &&
         (measure || rate * tolerance > kShare * options_.accuracy * gradient->norm())) {
    coarse_.swap(*gradient);
    tolerance *= 0.1;
    f = estimate();
    if (!o.ok()) break;
    norm = gradient->norm();
    rate = (coarse_ - *gradient).norm() / (10.0 * tolerance);
    age = 0.0;
    measure = false;
  }
  if (!o.ok()) return kNaN;
  tolerance_ = tolerance;
  error_ = rate * tolerance / std::max(gradient->norm(), std::numeric_limits<double>::min());
  const double allowed = 0.5 * kShare * options_.accuracy * gradient->norm();
  tolerance = allowed < rate * kLoosest ? std::max(kTightest, allowed / rate) : kLoosest;
  return f;
}

std::string AidHypergradient::Remark() const {
  return "the last adjoint was iterated to a relative residual of " +
         Scientific(adjoint_.residual());
}

std::string AidHypergradient::Check(const Oracle& oracle) const {
  const std::string complaint = options_.LowerSteps::Check(oracle);
  return complaint.empty() ? options_.AdjointSteps::Check() : complaint;
}

double AidHypergradient::Estimate(Oracle& o, State& s, Vector* gradient) {
  if (solves_lower_level()) {
    if (!o.Solve(s.x, &s.y)) {
      o.Fail(o.message());
      return kNaN;
    }
  } else if (!unroll_.Run(o, s.x, 0, &s.y)) {
    return kNaN;
  }
  const double f = o.f.Gradient(s.x, s.y, gradient, &fy_);
  Vector& z = s.Get("z", s.y.dim());
  if (!o.ok() || !adjoint_.Solve(o, s.x, s.y, fy_, &z)) return kNaN;
  o.g.HessianProduct(s.x, s.y, z, &hz_, &jz_);
  if (!o.ok()) return kNaN;
  *gradient -= jz_;
  return f;
}

std::string UnrolledHypergradient::Check(const Oracle& oracle) const {
  if (options_.num_lower_steps == 0) return "num_lower_steps must be positive";
  if (options_.num_reverse_steps < 0) return "num_reverse_steps must not be negative";
  return options_.LowerSteps::Check(oracle);
}

double UnrolledHypergradient::Estimate(Oracle& o, State& s, Vector* gradient) {
  const int t = options_.num_lower_steps, k = options_.num_reverse_steps;
  const int kept = k > 0 ? std::min(k, t) : t;
  if (!unroll_.Run(o, s.x, kept, &s.y)) return kNaN;
  const double f = o.f.Gradient(s.x, s.y, gradient, &a_);
  return o.ok() && unroll_.Reverse(o, s.x, kept, &a_, gradient) ? f : kNaN;
}

bool HoagHypergradient::Remember(Oracle& /*oracle*/, Memory* memory) {
  memory->Keep("tolerance", &tolerance_);
  memory->Keep("error", &error_);
  return true;
}

}  // namespace bilevel
