#ifndef BILEVEL_METHODS_STOCHASTIC_BO_REP_H_
#define BILEVEL_METHODS_STOCHASTIC_BO_REP_H_

#include <string>

#include "bilevel/methods/stochastic/slip.h"

namespace bilevel {

/// BO-REP (Hao, Gong and Liu, "Bilevel optimization under unbounded smoothness: a new algorithm and
/// convergence analysis", ICLR 2024). y_0 by epoch-SGD; every I-th iteration y takes N steps of
/// projected SGD, in between it stays; z, m and x move as in SLIP:
///
///   epoch s = 1..S:  2^(s-1) T1 steps of length alpha1 / 2^(s-1) in the ball of radius
///                    D1 / 2^((s-1)/2) around the epoch's first y; y <- their average
///   t > 0, I divides t:  N steps y <- P_B(y_t, R)(y - alpha g_y(zeta))
///
/// Distances are of tangent coordinates at the ball's centre. The paper leaves open whether the
/// refinement returns its last iterate or their average: this is the last. The authors' code has
/// neither the ball nor the epochs. Dense in x, and in y where it projects.
class BoRep : public Slip {
 public:
  struct Options : Slip::Options {
    Options() { num_warm_start_steps = 0; }  // It has the epochs.
    int update_interval = 2;                 ///< I, the authors'.
    int num_lower_steps = 3;                 ///< N.
    double radius = 1.0;                     ///< R.
    int num_epochs = 3;                      ///< S; 0: y starts where it stands.
    int first_epoch = 8;                     ///< T1.
    double epoch_step = 0.0;                 ///< alpha1; 0: 1 / L.
    double epoch_radius = 1.0;               ///< D1.
  };

  BoRep() : BoRep(Options()) {}
  explicit BoRep(const Options& options) : Slip("bo_rep", options), given_(options) {}

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override;
  void Start(Oracle& oracle, State& state) override;
  void Iterate(Oracle& oracle, State& state) override;
  void RememberOwn(Oracle& oracle, Memory* memory) override;

 private:
  void ProjectedStep(Oracle& oracle, State& state, double step, double radius);

  Options given_, options_;
  Point centre_;
  Vector offset_, mean_;
  SparseVector g_y_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_BO_REP_H_
