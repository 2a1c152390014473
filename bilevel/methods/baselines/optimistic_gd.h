#ifndef BILEVEL_METHODS_BASELINES_OPTIMISTIC_GD_H_
#define BILEVEL_METHODS_BASELINES_OPTIMISTIC_GD_H_

#include <string>

#include "bilevel/methods/method.h"
#include "bilevel/methods/step_rule.h"

namespace bilevel {

/// Optimistic gradient descent (Daskalakis, Ilyas, Syrgkanis and Zeng, "Training GANs with
/// optimism", ICLR 2018) for min over x of max over y of L(x, y), which is f = L, g = -L. Both at
/// once, with the gradients of the iteration before (in the first: its own)
///
///   x <- P(x - step (2 L_x - L_x_before)),   y <- P(y + step (2 L_y - L_y_before))
///
/// On L = x y it converges if and only if step < 1 / sqrt(3), where plain steps always spiral
/// outwards. g must be -L + c(x): refused where g_y is not -f_y.
class OptimisticGd : public Method {
 public:
  struct Options {
    Options() {
      x.kind = y.kind = StepRule::kOptimistic;
      x.step = y.step = 0.05;  // That of BOME's authors, for x y.
    }
    StepRule x, y;
  };

  OptimisticGd() = default;
  explicit OptimisticGd(const Options& options) : options_(options) {}

  std::string name() const override { return "optimistic_gd"; }
  std::string Check(const Oracle& oracle) override;
  bool Remember(Oracle& oracle, Memory* memory) override;

 protected:
  void Start(Oracle& oracle, State& state) override;
  void Step(Oracle& oracle, State& state, Progress* progress) override;

 private:
  Options options_;
  bool first_ = true;
  Vector fy_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_BASELINES_OPTIMISTIC_GD_H_
