#ifndef BILEVEL_METHODS_STOCHASTIC_STOCHASTIC_METHOD_H_
#define BILEVEL_METHODS_STOCHASTIC_STOCHASTIC_METHOD_H_

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bilevel/lower_level/metric.h"
#include "bilevel/methods/method.h"
#include "bilevel/methods/step_rule.h"
#include "bilevel/methods/stochastic/defaults.h"

namespace bilevel {

/// The M whose M^-1 d the steps of y and z are taken along.
enum class Preconditioner {
  kNone,
  /// BlockJacobi's: steps do not depend on the units of y, and cost what the batches touch.
  kBlockJacobi,
  /// GaussNewtonMetric's: nor do they depend on what couples the blocks of y. Dense.
  kGaussNewton,
};

/// When to end a run whose minibatches show f as a noisy trace only.
struct EarlyStopping {
  /// Reports in a row without a smaller estimate of phi that end the run; 0: it goes on to its
  /// limits. With early stopping the answer is the x and y of the smallest estimate, however the
  /// run ends.
  int patience = 0;
  /// The estimate, at the method's own x and y, which stand in the user's memory meanwhile: f on
  /// data that no minibatch draws, say. Empty: f over all its terms.
  std::function<double()> held_out;
};

/// What all methods on minibatches understand.
struct StochasticOptions {
  /// Terms of g and of f in a minibatch. 0: all of them; with both 0 a method is its deterministic
  /// limit. Where none is given: 64, or all of them where a sum has no more.
  std::optional<int> lower_batch, upper_batch;
  Batch::Sampling sampling = Batch::kIndependent;

  /// Costs one linearisation of all of g each time it is made, and a factorisation (kGaussNewton).
  Preconditioner preconditioner = Preconditioner::kNone;
  int precondition_interval = 0;  ///< Iterations until M is made anew; 0: it stays the first one.
  double damping = 0.01;          ///< Of kGaussNewton.

  /// Every how many iterations callbacks, limits, the trace and the tests for divergence have
  /// their turn; 0: a hundred times a run.
  int report_interval = 0;
  EarlyStopping early_stopping;
  /// False: y is returned as the method leaves it, for streams and where an exact solve costs too
  /// much.
  bool solve_lower_level = true;
};

/// What methods on minibatches share: samples, steps, reports, and how a run that diverges ends.
///
/// Each draw belongs to a stream; streams are independent of each other, all come from the solver's
/// seed, and none depends on the number of threads. z and all memories are tangent vectors: they
/// keep their coordinates when y moves (the frames must turn with the point: ceres' rotations and
/// Lie groups; on a SphereManifold, whose frames jump, steps must be small). Bounds are projected
/// onto after every step. Constants that are not given are Defaults', filled when a run starts and
/// told in Summary::assessment.notes. Steps cost what the batches touch, unless a method says that
/// it is dense.
class StochasticMethod : public Method {
 public:
  std::string name() const override { return name_; }
  std::string Check(const Oracle& oracle) override;
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override;
  bool Remember(Oracle& oracle, Memory* memory) override;
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override;

 protected:
  StochasticMethod(std::string name, const StochasticOptions& options)
      : name_(std::move(name)), common_(options) {}

  /// Sentence on the method's own options.
  virtual std::string CheckOptions(const Oracle& oracle) const = 0;
  /// Makes the options of a run of those given; before Start.
  virtual void FillOptions(Defaults* defaults) = 0;
  /// The longest step of y or z, against 2 / L.
  virtual double LongestLowerStep() const = 0;
  /// Whether x settles, but for noise, away from where phi is stationary.
  virtual bool is_biased() const { return false; }
  /// One iteration of the algorithm, number oracle.iteration.
  virtual void Iterate(Oracle& oracle, State& state) = 0;
  /// For checkpoints: what is the method's own, beside what Start makes of a start.
  virtual void RememberOwn(Oracle& /*oracle*/, Memory* /*memory*/) {}

  enum Stream { kY, kZ, kJ, kF, kP, kW, kNumStreams };
  /// The next batch of a stream, of terms of g and of f.
  Batch Lower(const Oracle& oracle, Stream stream) {
    return oracle.Draw(lower_batch_, stream, next_[stream]++, common_.sampling);
  }
  Batch Upper(const Oracle& oracle, Stream stream) {
    return oracle.Draw(upper_batch_, stream, next_[stream]++, common_.sampling);
  }
  /// The sizes of the batches once the run has begun.
  int lower_batch() const { return lower_batch_; }
  int upper_batch() const { return upper_batch_; }

  /// y <- y - step M^-1 d; d is overwritten.
  void MoveY(Oracle& oracle, State& state, double step, SparseVector* d);
  void MoveY(Oracle& oracle, State& state, double step, const Vector& d);
  /// v <- v - step M^-1 (d - e), tangent vectors of y; d and e are overwritten.
  void MoveZ(double step, SparseVector* d, SparseVector* e, Vector* v);
  void MoveZ(double step, const Vector& d, Vector* v);
  /// x along d by the rule.
  void MoveX(Oracle& oracle, State& state, const StepRule& rule, const SparseVector& d);
  void MoveX(Oracle& oracle, State& state, const StepRule& rule, const Vector& d);
  /// num_steps times y <- y - step M^-1 g_y(x, y; a fresh sample of the stream).
  void LowerSteps(Oracle& oracle, State& state, int num_steps, double step);

  /// f over a minibatch, for the report; the step's length.
  void Note(double upper_value) {
    upper_sum_ += upper_value;
    ++num_upper_;
  }
  void NoteStep(Oracle& oracle, double length);

  /// nullptr: the identity.
  const Metric* metric() const { return metric_.get(); }
  const StochasticOptions& common() const { return common_; }

 private:
  void Prepare(Oracle& oracle, const State& state);
  void ComputeMetric(Oracle& oracle, const State& state);
  std::string WhyDiverged(Oracle& oracle);
  double HeldOut(Oracle& oracle, const State& state);

  std::string name_, note_;
  StochasticOptions common_;
  int lower_batch_ = 0, upper_batch_ = 0;
  std::unique_ptr<Metric> metric_;
  std::array<uint64_t, kNumStreams> next_{};
  double upper_sum_ = 0.0, step_norm_ = 0.0;
  long num_upper_ = 0;
  Point start_x_, start_y_, user_x_, user_y_;
  Point metric_x_, metric_y_;  // Where it was computed.
  SparseVector gy_;
  Vector dense_;
};

/// Sentence on a batch size or a way of sampling that the level does not allow; empty if nothing.
std::string CheckBatch(const LevelView& level,
                       const std::string& level_name,
                       std::optional<int> size,
                       Batch::Sampling sampling,
                       const std::string& option);

/// The size of a minibatch: the one given, else the default for this level.
int BatchSize(const LevelView& level, std::optional<int> given);

/// The number of blocks of `size` neighbours a level is made of, for tables by block; 0 where its
/// sums differ in length or are streams.
int NumBlocks(const LevelView& level, int size);

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_STOCHASTIC_METHOD_H_
