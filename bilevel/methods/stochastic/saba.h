#ifndef BILEVEL_METHODS_STOCHASTIC_SABA_H_
#define BILEVEL_METHODS_STOCHASTIC_SABA_H_

#include <string>

#include "bilevel/methods/estimators/joint_direction.h"
#include "bilevel/methods/estimators/saga.h"
#include "bilevel/methods/stochastic/stochastic_method.h"

namespace bilevel {

/// SABA (Dagreou, Ablin, Vaiter and Moreau, NeurIPS 2022): SOBA with SAGA on each of g_y,i, H_i z,
/// J_i z and f_x,j, f_y,j, constant steps; it converges without noise on finite sums.
///
/// An entry of the tables is a block of `lower_batch` (`upper_batch`) neighbours, so sampling must
/// be kBlocks or kShuffledBlocks; batches of 1 give an entry to each term. With n_b blocks below
/// and m_b above, x of length m and y of length n, the tables take
/// 8 (n_b (2 n + m) + m_b (m + n)) bytes: see TableBytes. Dense.
class Saba : public StochasticMethod {
 public:
  struct Options : StochasticOptions {
    Options() {
      sampling = Batch::kBlocks;
      FromCurvature(0.0, &lower);
      FromCurvature(0.0, &x);
    }
    Schedule lower;  ///< rho; not given: 1 / (3 L), that of SAGA.
    StepRule x;      ///< gamma.
  };

  Saba() : Saba(Options()) {}
  explicit Saba(const Options& options) : StochasticMethod("saba", options), given_(options) {}

  /// Of the tables, for this problem.
  double TableBytes(const Oracle& oracle) const;

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override { return options_.lower.step; }
  void Start(Oracle& oracle, State& state) override;
  void Iterate(Oracle& oracle, State& state) override;
  void RememberOwn(Oracle& oracle, Memory* memory) override;

 private:
  Options given_, options_;
  JointDirection d_;
  Saga lower_, upper_;
  Vector g_, f_, d_y_, d_z_, d_x_;
  int lower_terms_ = 0, upper_terms_ = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_SABA_H_
