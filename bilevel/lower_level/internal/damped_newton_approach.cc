// To where the Hessian is positive definite, by Gauss-Newton's, which always is.
#include <algorithm>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/damped_newton.h"

namespace bilevel {
namespace {

// Such steps may be so many times as many as Newton's.
constexpr int kMoreIterations = 10;
// The Hessian is looked at again after so many of them, or when their decrement, where it is not
// of the damping's making, has shrunk to this share.
constexpr int kMostSteps = 10;
constexpr double kNearer = 0.1, kLittleDamping = 1e-2;
// With more, it is no better than the Hessian.
constexpr double kMuchDamping = 1.0;

}  // namespace

bool DampedNewton::MayApproach() const {
  return !has_approached_ && solver_.options_.hessian == HessianKind::kExact &&
         part_.scenario->g->num_residual_blocks() > 0 &&
         num_approach_ < kMoreIterations * max_num_iterations_;
}

bool DampedNewton::Approach() {
  double first = 0.0;
  damping_ = kLeastDamping;
  for (int k = 0; k < kMostSteps; ++k, ++num_approach_) {
    if (solver_.program_->IsLate()) return Fail(Program::kTimeIsOver);
    if (!EvaluateGaussNewton() || !FactorizeGaussNewton()) return false;
    Step();
    has_approached_ =
        part_.decrement <= std::max({solver_.tolerance_ * part_.Unit(), rounding_, kUnderflow});
    if (has_approached_) break;
    if (damping_ <= kLittleDamping) {
      if (part_.decrement <= kNearer * first) break;
      first = std::max(first, part_.decrement);
    }
    while (!Try()) {
      damping_ = std::max(kFirstDamping, 10.0 * damping_);
      has_approached_ = damping_ > kMuchDamping;
      if (has_approached_) break;
      if (!FactorizeGaussNewton()) return false;
      Step();
    }
    if (has_approached_) break;
    Accept();
  }
  is_full_step_ = false;
  damping_ = floor_;
  return true;
}

bool DampedNewton::EvaluateGaussNewton() {
  Stopwatch watch(&part_.counts.seconds_in_evaluation);
  part_.evaluated = part_.factorized = false;
  if (part_.g.Hessian(x_,
                      part_.y.value().data(),
                      HessianKind::kGaussNewton,
                      &part_.value,
                      part_.gradient.data(),
                      &part_.yy,
                      nullptr)) {
    return true;
  }
  return Fail(part_.g.error());
}

// General terms may be indefinite still.
bool DampedNewton::FactorizeGaussNewton() {
  solver_.FindActive(&part_);
  damping_ = std::max(damping_, kLeastDamping);  // It may be singular.
  for (;;) {
    const Status status = FactorizeDamped(damping_);
    if (status == Status::kPositiveDefinite) return true;
    if (status == Status::kNotFinite || damping_ > kMostDamping) {
      return Fail("its Hessian is not finite");
    }
    damping_ = std::max(kFirstDamping, 4.0 * damping_);
  }
}

}  // namespace bilevel
