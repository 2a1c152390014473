#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_IA_GM_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_IA_GM_H_

#include <string>

#include "bilevel/methods/estimators/unroll.h"
#include "bilevel/methods/method.h"
#include "bilevel/methods/step_rule.h"

namespace bilevel {

/// IA-GM and IAPTT-GM (Liu, Liu, Zeng and Zhang, "Towards gradient-based bilevel optimization with
/// non-convex followers and beyond", NeurIPS 2021): the start w of the lower level's steps is a
/// variable of the upper level too (initialisation auxiliary). In each iteration
///
///   y_0 = w,   y_{k+1} = P(y_k - lower_step g_y(x, y_k)),   k = 0, ..., K - 1
///   n = K; with pessimistic trajectory truncation the k >= 1 of largest f(x, y_k)
///   (x, w) <- P((x, w) - step grad f(x, y_n(x, w)))         by reverse accumulation
///
/// Momentum in the lower steps (LowerSteps::nesterov) makes it IA-GM (A). IA-GM is for convex lower
/// levels, with one solution or many, the truncation for others. The method's own y is y_K.
/// Assessment::x_bias is the distance to a stationary point of phi, where y*(x) is unique.
class IaGm : public Method {
 public:
  struct Options : LowerSteps {
    /// All from the authors' numerical example.
    Options() {
      num_lower_steps = 40;  // K
      lower_step = 5e-4;
      x.step = w.step = 0.1;
    }
    bool truncate_pessimistically = false;
    StepRule x, w;
  };

  IaGm() = default;
  explicit IaGm(const Options& options) : options_(options), unroll_(options) {}

  std::string name() const override {
    return options_.truncate_pessimistically ? "iaptt_gm" : "ia_gm";
  }
  std::string Check(const Oracle& oracle) override;
  bool ProjectsY() const override { return true; }
  bool Remember(Oracle& oracle, Memory* memory) override;
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override;

 protected:
  void Start(Oracle& oracle, State& state) override;
  void Step(Oracle& oracle, State& state, Progress* progress) override;

 private:
  Options options_;
  Unroll unroll_{options_};
  bool first_ = true;
  Point w_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_IA_GM_H_
