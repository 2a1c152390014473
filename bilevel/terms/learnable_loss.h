#ifndef BILEVEL_TERMS_LEARNABLE_LOSS_H_
#define BILEVEL_TERMS_LEARNABLE_LOSS_H_

#include <string>
#include <utility>
#include <vector>

#include "ceres/loss_function.h"

namespace bilevel {

/// A loss rho(s; theta), s = |r|^2, whose parameters theta can be learned: noise scales, weights,
/// switches, loss scales and shapes are all this one concept.
///
/// It *is a* ceres::LossFunction bound to theta's memory, so that ceres::Solve and
/// ceres::Problem::Evaluate use the current value of theta. theta stands in no residual block:
/// declare its blocks with Problem::AddUpperParameterBlock, undeclared ones are constants.
/// As with any Ceres loss, the cost of a residual block is rho(s; theta) / 2.
///
/// Combine learnable losses with the wrappers of bilevel/learnable/losses.h: inside a
/// ceres::ScaledLoss or ceres::ComposedLoss theta is hidden, and the loss becomes a constant one.
/// A derived class says `using LearnableLoss::Evaluate;` next to its override of the explicit form.
class LearnableLoss : public ceres::LossFunction {
 public:
  /// One block of theta; values is the user's memory, not null, and must outlive the loss.
  struct ParameterBlock {
    double* values;
    int size;
  };

  // theta may live in the loss itself.
  LearnableLoss(const LearnableLoss&) = delete;
  LearnableLoss& operator=(const LearnableLoss&) = delete;

  /// In the order of the theta of Evaluate. A block may occur twice; its derivatives then add up.
  const std::vector<ParameterBlock>& parameter_blocks() const { return parameter_blocks_; }

  /// Sum of the block sizes, written p below.
  int num_parameters() const { return num_parameters_; }

  /// ceres::LossFunction at the bound theta.
  void Evaluate(double s, double rho[3]) const final {
    Evaluate(s, theta_.data(), rho, nullptr, nullptr);
  }

  /// The same at an explicit theta, theta[i] being block i. Must be thread-safe.
  ///   rho          rho, d rho/ds, d^2 rho/ds^2
  ///   rho_theta    d rho / d theta,        p entries in the order of the blocks, or nullptr
  ///   rho_s_theta  d^2 rho / (ds dtheta),  p entries, or nullptr
  /// A value outside theta's domain gives NaN, which the caller reports by name.
  virtual void Evaluate(double s,
                        double const* const* theta,
                        double rho[3],
                        double* rho_theta,
                        double* rho_s_theta) const = 0;

  /// A line of C++ that creates the same loss with the current theta as constants, from Ceres'
  /// own losses where Ceres has them: "new ceres::CauchyLoss(1.07)".
  virtual std::string Describe() const { return "/* a user's learnable loss */"; }

 protected:
  explicit LearnableLoss(std::vector<ParameterBlock> parameter_blocks)
      : parameter_blocks_(std::move(parameter_blocks)) {
    for (const ParameterBlock& block : parameter_blocks_) {
      num_parameters_ += block.size;
      theta_.push_back(block.values);
    }
  }

 private:
  std::vector<ParameterBlock> parameter_blocks_;
  std::vector<const double*> theta_;
  int num_parameters_ = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_TERMS_LEARNABLE_LOSS_H_
