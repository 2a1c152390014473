#include "bilevel/methods/step_rule.h"

#include <cmath>

#include "bilevel/base/internal/vector_passes.h"

namespace bilevel {

double Schedule::At(uint64_t k) const {
  if (decay_exponent == 0.0) return step;
  return step * std::pow(1.0 + static_cast<double>(k) / decay_time, -decay_exponent);
}

std::string Schedule::Check(const std::string& name) const {
  if (!(step > 0.0) || !std::isfinite(step)) return name + ".step must be positive";
  if (!(decay_exponent >= 0.0)) return name + ".decay_exponent must not be negative";
  if (!(decay_time > 0.0)) return name + ".decay_time must be positive";
  return "";
}

std::string StepRule::Check(const std::string& name) const {
  if (!(momentum >= 0.0 && momentum < 1.0)) return name + ".momentum must be in [0, 1)";
  return Schedule::Check(name);
}

double StepRule::Apply(const Vector& d,
                       const std::string& memory,
                       uint64_t iteration,
                       State* state,
                       Point* point) const {
  const double k = static_cast<double>(iteration);
  const double eta = At(iteration);
  const int n = static_cast<int>(d.size());
  switch (kind) {
    case kGradient:
      return point->MoveWithin(-eta * d) ? eta * Norm(d) : -1.0;
    case kMomentum: {
      Vector& m = state->Get(memory + ".momentum", n);
      m = momentum * m + d;
      return point->MoveWithin(-eta * m) ? eta * Norm(m) : -1.0;
    }
    case kNormalized: {
      Vector& m = state->Get(memory + ".momentum", n);
      m = momentum * m + (1.0 - momentum) * d;
      const double norm = Norm(m);
      if (norm == 0.0) return 0.0;
      return point->MoveWithin(-(eta / norm) * m) ? eta : -1.0;
    }
    case kOptimistic: {
      Vector& before = state->vectors.try_emplace(memory + ".before", d).first->second;
      before = 2.0 * d - before;
      const double length = eta * Norm(before);
      const bool moved = point->MoveWithin(-eta * before);
      before = d;
      return moved ? length : -1.0;
    }
    case kAdam: {
      constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
      Vector& m = state->Get(memory + ".adam_mean", n);
      Vector& v = state->Get(memory + ".adam_square", n);
      Vector& change = state->Get(memory + ".adam_step", n);
      m = kBeta1 * m + (1.0 - kBeta1) * d;
      v = kBeta2 * v + (1.0 - kBeta2) * d.cwiseAbs2();
      const double c1 = 1.0 - std::pow(kBeta1, k + 1.0), c2 = 1.0 - std::pow(kBeta2, k + 1.0);
      change = (m / c1).array() / ((v / c2).array().sqrt() + kEpsilon);
      return point->MoveWithin(-eta * change) ? eta * Norm(change) : -1.0;
    }
  }
  return -1.0;
}

}  // namespace bilevel
