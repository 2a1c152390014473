#ifndef BILEVEL_METHODS_STOCHASTIC_F2SA_H_
#define BILEVEL_METHODS_STOCHASTIC_F2SA_H_

#include <string>
#include <vector>

#include "bilevel/methods/estimators/recursion.h"
#include "bilevel/methods/stochastic/stochastic_method.h"

namespace bilevel {

/// F2SA (Kwon, Kwon, Wright and Nowak, "A fully first-order method for stochastic bilevel
/// optimization", ICML 2023): no second derivatives. w follows the minimiser of g, y that of
/// f / lambda + g; every gradient has a sample of its own:
///
///   T times:  w <- w - gamma_k g_y(x, w),    y <- y - alpha_k (f_y(x, y) + lambda_k g_y(x, y))
///   x <- x - xi alpha_k (f_x(x, y) + lambda_k (g_x(x, y) - g_x(x, w)))
///   lambda_k = gamma_k / (2 alpha_k)
///
/// x is biased by O(1 / lambda), which Summary::assessment.x_bias estimates: with constant steps
/// for good. Published exponents (alpha, gamma):
/// (5/7, 4/7) for noise in both levels, (3/5, 2/5) in f only, (1/3, 0) without. With momentum it is
/// F3SA: STORM on each of the six gradients.
///
/// Orders 2 and 4 are F2SA-p (Chen et al., "Faster gradient methods for highly-smooth stochastic
/// bilevel optimization", 2025): with y_j following the minimiser of j f / lambda + g,
///
///   x <- x - xi alpha_k sum over j of c_j (j f_x(x, y_j) + lambda_k g_x(x, y_j))
///
/// in which c are the weights of a difference of that order, (y_-1, y_1) with (-1, 1) / 2 or
/// (y_-2, ... y_2) with (1, -8, 8, -1) / 12; order 1 has (w = y_0, y_1) with (-1, 1). The bias is
/// O(lambda^-order).
class F2sa : public StochasticMethod {
 public:
  struct Options : StochasticOptions {
    Options() {
      FromCurvature(5.0 / 7.0, &alpha);
      FromCurvature(4.0 / 7.0, &gamma);
      eta = {0.5, 2.0 / 3.0, 0.0};
    }
    int num_lower_steps = 1;  ///< T.
    Schedule alpha, gamma;    ///< alpha's step, where it is not given, makes lambda_0 = 2 L_f / mu.
    double xi = 0.0;          ///< 0: what makes xi alpha a step of x's.
    int order = 1;            ///< 1, 2 or 4.
    /// Gradients of g at w and y, which cancel but for 1 / lambda, are over the same samples, as
    /// all of order 2 and 4 are: their noise is not multiplied by lambda. As published each has its
    /// own.
    bool same_sample = false;
    bool momentum = false;  ///< F3SA. Dense; of order 1, with samples of their own.
    Schedule eta;           ///< Of its STORM. A decay time that is not given, 0, is alpha's.
  };

  F2sa() : F2sa(Options()) {}
  explicit F2sa(const Options& options)
      : StochasticMethod(NameOf(options), options), given_(options) {}

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  bool ProjectsY() const override { return true; }
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override { return options_.gamma.step; }
  bool is_biased() const override { return true; }
  void Start(Oracle& oracle, State& state) override;
  void Iterate(Oracle& oracle, State& state) override;
  void RememberOwn(Oracle& oracle, Memory* memory) override;

 private:
  // One of the points that follow the lower level; y itself is that of j = 1.
  struct Node {
    int j;
    double weight;
    Point y;
  };
  static std::string NameOf(const Options& options);
  const Point& At(const Node& node, const State& state) const {
    return node.j == 1 ? state.y : node.y;
  }
  void FollowLowerLevel(Oracle& oracle, State& state);
  void IterateWithMomentum(Oracle& oracle, State& state);
  double Lambda(uint64_t k) const { return options_.gamma.At(k) / (2.0 * options_.alpha.At(k)); }

  Options given_, options_;
  std::vector<Node> nodes_;  // In the order of differences; y's first.
  SparseVector d_y_, d_x_, g_y_, f_y_, f_x_, g_x_, own_x_;
  Recursion g_w_storm_, g_y_storm_, f_y_storm_, f_x_storm_, g_x_y_storm_, g_x_w_storm_;
  Vector direction_, nothing_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_F2SA_H_
