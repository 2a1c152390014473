#ifndef BILEVEL_METHODS_METHOD_H_
#define BILEVEL_METHODS_METHOD_H_

#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/oracle/oracle.h"
#include "bilevel/oracle/uncertainty.h"
#include "bilevel/program/space.h"

namespace bilevel {

class Memory;
struct AnswerCheck;

/// All that a method carries from one iteration to the next: what a checkpoint holds.
struct State {
  Point x, y;
  std::map<std::string, Vector> vectors;  ///< The method's own, by name.
  /// Directions of x that the problem does not determine, in words, where the method can tell.
  std::vector<std::string> flat_directions;

  /// The vector of that name, made of zeros at its first use.
  Vector& Get(const std::string& name, int size);

  /// For checkpoints, in the spaces of x and y.
  void Remember(const Space& x_space, const Space& y_space, Memory* memory);
};

/// What one iteration tells. Numbers nobody computed stay NaN.
struct Progress {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  /// Where not every one is reported; -1: the next.
  long iteration = -1;
  double objective = kUnknown;    ///< phi(x) = f(x, y*(x)).
  double upper_value = kUnknown;  ///< f at the method's own y (over its minibatch), where y is
                                  ///< not y*(x): it does not rank iterates.
  double held_out = kUnknown;     ///< Early stopping's estimate of phi, on data no minibatch draws.
  double lower_gap = kUnknown;    ///< g(x, y) - g(x, y*(x)), or the method's estimate of it.
  double kkt_loss = kUnknown;  ///< min over lambda >= 0 of |grad f + lambda grad q|^2 + q (bome).
  double gradient_max_norm = kUnknown;  ///< Of the hypergradient, projected on the bounds of x.
  double step_norm = kUnknown;
  double trust_region_radius = kUnknown;
  bool step_is_successful = true;  ///< False: the trial step was rejected and x has not moved.
  std::string note;                ///< Why, for instance.

  /// Which iterate is the answer: of those that say kIfBetter the one of least objective, else the
  /// latest that says kAlways. For methods whose numbers do not rank iterates.
  enum Keep { kIfBetter, kAlways, kNever };
  Keep keep = kIfBetter;
  /// False: y is off y*(x). Solve brings it there before it returns.
  bool y_is_solved = true;
  /// True: nor is it to be, since y*(x) cannot be had (a stream) or is not worth its price.
  bool leave_y = false;
};

/// What a method can say about its own answer. Numbers nobody computed stay NaN.
struct Assessment {
  /// Estimated distance from x to the stationary point that an unbiased method would have found.
  double x_bias = Progress::kUnknown;
  /// Estimated norm of an element of the Goldstein subdifferential at x, and the half-width of its
  /// 95 % confidence interval.
  double goldstein_norm = Progress::kUnknown, goldstein_half_width = Progress::kUnknown;
  /// The covariance of x, where the method has it at hand (levenberg_marquardt); ComputeUncertainty
  /// gives it after any other.
  Uncertainty uncertainty;
  std::vector<std::string> notes;
  /// What a method that goes on by other methods has tried ("auto"), where it was more than one.
  struct Attempt {
    std::string method;
    int num_iterations = 0;
    double objective = Progress::kUnknown;  ///< The least phi.
    std::string ended;                      ///< How it ended, and why that was not the end.
  };
  std::vector<Attempt> attempts;
};

/// Where a method reports and learns whether to go on; the solver's side of it.
class Monitor {
 public:
  virtual ~Monitor() = default;
  /// After every iteration. False: stop, a limit or a callback wants it so.
  virtual bool Report(const State& state, const Progress& progress) = 0;
  /// A trial that was rejected within an iteration, and why. Iterations that Report as not accepted
  /// count by themselves.
  virtual void Reject(const std::string& /*reason*/) {}
  /// The verdict on an answer that a method has had checked, so that it need not be checked again.
  virtual void Judge(const State& /*answer*/, const AnswerCheck& /*verdict*/) {}

  /// All that a method carries between two iterations beside the state, see Memory. False: it
  /// cannot tell.
  using Remember = std::function<bool(Memory*)>;
  /// Before a method begins. True: it is not to, but to go on from where it has called Rest: the
  /// state, the oracle and what `remember` names are what they then were; without a state, what
  /// `remember` names alone, of a method that begins another.
  virtual bool Resume(State* /*state*/, const Remember& /*remember*/) { return false; }
  /// Between two iterations; a checkpoint may be written. False: stop, as after Report.
  virtual bool Rest(State* /*state*/, const Remember& /*remember*/) { return true; }
  /// Whether it ever does, for what is remembered for nothing else.
  virtual bool keeps_checkpoints() const { return false; }
  /// The tests all methods share; the first met ends the run as converged.
  virtual double gradient_tolerance() const = 0;
  virtual double function_tolerance() const = 0;
  virtual double parameter_tolerance() const = 0;
  virtual int max_num_iterations() const = 0;
};

/// How x moves. Each method is one file in this folder; a user's own derives from here too.
class Method {
 public:
  enum class Outcome { kConverged, kNoConvergence, kFailure };

  virtual ~Method() = default;
  virtual std::string name() const = 0;

  /// Sentence on what is wrong with the options or what this problem lacks; empty if nothing.
  virtual std::string Check(const Oracle& /*oracle*/) { return ""; }

  /// Repeats Start and Step until the monitor says stop. *message says why it ended.
  virtual Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message);

  /// Whether Step may see some scenarios only (Solver::Options::num_scenarios_per_iteration): what
  /// oracle.f and its derivatives by x say is then unbiased for all, see Oracle::DrawScenarios.
  virtual bool TakesScenarioBatches() const { return false; }

  /// Whether it honours constraints of the lower level, as what asks the lower solver alone for y
  /// and its derivatives does; and takes scenarios of many ranks, each of which has its own's y.
  virtual bool TakesLowerConstraints() const { return false; }
  /// Whether it projects its y onto the convex sets of y's blocks after every step.
  virtual bool ProjectsY() const { return false; }

  /// Whether it takes problems without x, min { f(y) : y in argmin g }; see SolveSimpleBilevel.
  virtual bool WorksWithoutX() const { return false; }

  /// For checkpoints: all members that one iteration leaves for the next; see Memory. False where
  /// they are not told, and the method is refused a checkpoint.
  virtual bool Remember(Oracle& /*oracle*/, Memory* /*memory*/) { return false; }

  /// After the last step, at the answer with y solved. What fails here is no failure of the solve.
  virtual void Finish(Oracle& /*oracle*/, const State& /*state*/, Assessment* /*assessment*/) {}

 protected:
  /// Before the first step: state holds the start.
  virtual void Start(Oracle& /*oracle*/, State& /*state*/) {}
  /// One iteration. Converged: progress->gradient_max_norm at or below the monitor's tolerance.
  virtual void Step(Oracle& /*oracle*/, State& /*state*/, Progress* /*progress*/) {}
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_METHOD_H_
