#ifndef BILEVEL_SOLVER_H_
#define BILEVEL_SOLVER_H_

#include <csignal>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/lower_level/hessian_system.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/methods/method.h"
#include "bilevel/methods/registry.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/problem.h"
#include "ceres/iteration_callback.h"
#include "ceres/solver.h"
#include "ceres/types.h"

namespace bilevel {

/// What one iteration did, as its method tells and as Solve has counted; handed to callbacks and
/// kept in the Summary.
struct IterationSummary : Progress {
  /// phi of the iteration before minus this one's.
  double objective_change = kUnknown;
  /// How far y is from y*(x), relative, in the norm of the lower level's Hessian.
  double lower_level_decrement = kUnknown;
  /// x, block after block; Summary::iterations keep it up to 1000 coordinates.
  std::vector<double> x;
  /// All since the start of the solve.
  FunctionCounts upper, lower;
  double upper_epochs = kUnknown, lower_epochs = kUnknown;  ///< As in the Summary.
  LowerSolverCounts lower_solver;
  double cumulative_time_in_seconds = 0.0;
};

class IterationCallback {
 public:
  virtual ~IterationCallback() = default;
  /// After every iteration. SOLVER_ABORT ends the solve with USER_FAILURE,
  /// SOLVER_TERMINATE_SUCCESSFULLY with USER_SUCCESS.
  virtual ceres::CallbackReturnType operator()(const IterationSummary& summary) = 0;
};

class Solver {
 public:
  struct Options {
    Options();
    /// Names the first option that makes no sense.
    bool IsValid(std::string* error) const;

    /// From CreateMethod, or a method of your own; CreateMethod("auto") where nothing is said.
    std::shared_ptr<Method> method;

    /// How y*(x) is found; empty: NewtonLowerSolver with the options below. For instance
    ///     [](Program* program) { return std::make_unique<Sgm>(program, Sgm::Options()); }
    std::function<std::unique_ptr<LowerSolver>(Program*)> lower_solver;

    /// For the lower level's cold solves; linear solver, trust region and limits are yours. Its
    /// callbacks and logging stay with it.
    ceres::Solver::Options lower_solver_options;
    /// Newton's method polishes y until sqrt(g' H^-1 g) <= lower_tolerance * sqrt(2 g), the
    /// relative distance to y*(x) in the norm of the Hessian H, or until rounding stops it.
    double lower_tolerance = 1e-10;
    int max_num_lower_newton_iterations = 50;
    /// Where d^2g/dy^2 is singular (gauge freedom).
    SingularHandling singular_handling = SingularHandling::kAutomatic;
    /// kGaussNewton drops the curvature of residuals and losses from d^2g/dy^2: an approximation,
    /// reported in the Summary.
    HessianKind lower_hessian = HessianKind::kExact;

    /// For lower levels with several minima: y*(x) is the least g found from so many starts, the
    /// user's y among them; see ManyStartsLowerSolver. Each costs a lower solve.
    int lower_starts = 1;
    /// Standard deviation of the other starts around the user's, where y has no bounds.
    double lower_start_spread = 1.0;
    /// Methods whose y is not y*(x), bome say, have it solved in the end. True: y is left as the
    /// method had it where that is at the answer's x, for instance at the saddle of a min-max
    /// problem. All else in the Summary, phi included, stays that of y*(x).
    bool keep_own_y = false;
    /// Solves the lower level once more in the end, at the answer's x from the user's first y, and
    /// reports whether that gives the answer's phi: Summary::reproducible_from_start.
    bool check_from_start = true;

    int max_num_iterations = 50;
    double max_solver_time_in_seconds = 1e9;
    /// Stop when max_i |d phi / d x_i| <= gradient_tolerance.
    double gradient_tolerance = 1e-10;
    /// Stop when |change of phi| <= function_tolerance * |phi|.
    double function_tolerance = 1e-8;
    /// Stop when |dx| <= parameter_tolerance * (|x| + parameter_tolerance).
    double parameter_tolerance = 1e-8;

    int num_threads = 1;
    /// Scenarios in a minibatch; 0: all of them in every iteration. Groups of so many neighbouring
    /// scenarios are drawn, each once before any comes again, and their f counted for all: an
    /// unbiased hypergradient for the price of one group's lower solves. For the first-order
    /// methods. All scenarios are solved in the end.
    int num_scenarios_per_iteration = 0;
    /// For methods that draw random numbers.
    unsigned seed = 0;

    /// What a run needs to go on after the end of its process, bit for bit as if nothing had
    /// happened, and nothing of it changes by being written.
    struct Checkpoint {
      /// Empty: none. Written beside and renamed, so that it is always whole; numpy.load reads it.
      std::string file;
      /// Goes on from the file where there is one, whatever x and y the memory holds, and from the
      /// start where there is none. A file of another problem, method, seed or version is refused;
      /// with other tolerances or limits the run goes on by these. False: always from the start.
      bool resume = false;
      /// Between two iterations, when so many or so much time have passed since the last; 0: never
      /// for that reason. One is written at first, and before what may be the last iteration.
      int every_num_iterations = 0;
      double every_seconds = 60.0;
      /// Where it is not null and no longer 0, set by a signal handler or a callback, a checkpoint
      /// is written after the iteration and the solve ends. Not owned.
      const volatile std::sig_atomic_t* stop = nullptr;
    };
    Checkpoint checkpoint;

    /// A table of the iterations, as Ceres'.
    bool minimizer_progress_to_stdout = false;
    /// Not owned.
    std::vector<IterationCallback*> callbacks;
    /// Put x and y into the user's memory before the callbacks of every iteration, as Ceres does.
    bool update_state_every_iteration = false;

    /// The lower level's part, as its solver wants it.
    NewtonLowerSolver::Options LowerSolverOptions() const;
  };

  struct Summary {
    /// Trial steps rejected for one reason (numbers in it are written #).
    struct Rejection {
      std::string reason;
      int count = 0;
    };

    std::string BriefReport() const;
    std::string FullReport() const;
    /// One row an iteration, with a header.
    std::string Csv() const;
    std::string Json() const;

    /// Whether x and y hold something better than, or as good as, the start.
    bool IsSolutionUsable() const;

    ceres::TerminationType termination_type = ceres::FAILURE;
    /// What kind of answer x is.
    AnswerKind answer = AnswerKind::kNone;
    std::string message = "bilevel::Solve was not called.";
    std::string method;

    /// The answer's x as the user's memory has it, block after block; up to 1000 coordinates.
    std::vector<double> x;
    /// phi at the start and at the end, both with y solved. -1: not known.
    double initial_objective = -1.0;
    double final_objective = -1.0;
    double final_gradient_max_norm = -1.0;
    double final_lower_level_decrement = -1.0;

    /// Whether phi at the end is what a lower solve from the user's first y gives there: 1 or 0;
    /// -1: not looked at. The y that is followed as x moves may be of another minimum of g.
    int reproducible_from_start = -1;
    double objective_from_start = -1.0;  ///< That phi.

    /// g(x, y) - g(x, y*(x)) of the method's own last y, before it was solved. -1: y was y*(x).
    double final_lower_gap = -1.0;
    /// f at that y, where it is what y was left at (Options::keep_own_y). NaN: y is y*(x).
    double final_objective_at_own_y = std::numeric_limits<double>::quiet_NaN();
    /// What the method says about its own answer.
    Assessment assessment;

    std::vector<IterationSummary> iterations;
    int num_successful_steps = 0;
    int num_unsuccessful_steps = 0;
    /// Why trials were rejected and how often, the most frequent first. Counts those within line
    /// searches as well.
    std::vector<Rejection> rejections;

    int num_upper_parameters = -1, num_lower_parameters = -1;  ///< Tangent sizes.
    int num_scenarios = -1;
    int num_upper_residual_blocks = -1, num_lower_residual_blocks = -1;
    /// Second derivatives below: exact (ours or the user's own), the others differenced.
    int num_exact_residual_blocks = -1, num_numeric_residual_blocks = -1;
    HessianKind lower_hessian = HessianKind::kExact;

    FunctionCounts upper, lower;
    /// Samples over the level's number of terms (residual blocks, and those of general terms): an
    /// evaluation over everything is an epoch. Without the lower solver's own. NaN: a term is a
    /// stream.
    double upper_epochs = std::numeric_limits<double>::quiet_NaN();
    double lower_epochs = std::numeric_limits<double>::quiet_NaN();
    LowerSolverCounts lower_solver;
    double total_time_in_seconds = -1.0;

    /// Directions of x that the upper level does not see ("0.71 a[0] + 0.71 b[0]"): x is left
    /// unmoved along them. Filled by levenberg_marquardt.
    std::vector<std::string> flat_upper_directions;
    /// Coordinates of x that ended on a bound ("alpha[0]").
    std::vector<std::string> active_upper_bounds;
    /// Directions the lower level leaves free (dimension of the null space), and their blocks.
    int num_free_directions = 0;
    std::string free_directions;
    int num_active_lower_bounds = 0;
    /// Those of them, and constraints of the lower level, where y* has one-sided derivatives only.
    std::string weakly_active_lower_bounds;
    /// Largest relative residual of the linear systems with d^2g/dy^2.
    double linear_residual = -1.0;
    /// What else the lower solver has to say.
    std::string lower_level_remark;

    int num_threads_given = -1, num_threads_used = -1;

    /// Options::checkpoint: how many were written, the iteration the run went on from (-1: from its
    /// start), and why the last could not be written.
    int num_checkpoints = 0;
    long resumed_from_iteration = -1;
    std::string checkpoint_error;
  };

  virtual ~Solver() = default;
  virtual void Solve(const Options& options, Problem* problem, Summary* summary);
};

/// x and y are left at the best point found, also after a failure; as they were where no step
/// succeeded or a callback aborted.
/// The summary may be nullptr.
void Solve(const Solver::Options& options, Problem* problem, Solver::Summary* summary);

/// min over y of f(y)  subject to  y in argmin g: the least f among the lower level's solutions, of
/// a problem without upper parameter blocks. For "auto", "optimistic" and "bome", or "auto" around
/// an Sgm in Options::lower_solver, where neither level has derivatives to speak of.
void SolveSimpleBilevel(const Solver::Options& options, Problem* problem, Solver::Summary* summary);

/// The uncertainty of x at the current x, an optimum found by any method or means; the lower level
/// is solved with `options`, and nothing of the user's is changed.
///   kGaussNewton: (J'J)^-1, for an upper level of least squares; one factorisation.
///   kExact: the inverse of d^2 phi/dx^2 by that factorisation, without further lower solves, see
///       HyperHessian. Without least squares above, phi is taken for a negative log-likelihood.
/// False: *message (may be nullptr) says why, for instance that x is no minimum of phi.
bool ComputeUncertainty(const Solver::Options& options,
                        HessianKind kind,
                        Problem* problem,
                        Uncertainty* uncertainty,
                        std::string* message = nullptr);

/// The same by how the recordings differ among themselves, whatever their noise is like: correlated
/// errors, or a noise that is not as f has it. With phi = sum over the S scenarios that have terms
/// above, and A its second derivative by x (`kind`), Huber's and White's sandwich
///
///     C = S / (S - 1) A^-1 (sum over scenarios of g_s g_s') A^-1,   g_s = d phi_s / dx
///
/// (White, "Maximum likelihood estimation of misspecified models", Econometrica 50, 1982), good for
/// many scenarios, independent of each other: with fewer than ten it is too small. A prior among
/// them counts as a recording. False with fewer than two.
bool ComputeUncertaintyAcrossScenarios(const Solver::Options& options,
                                       HessianKind kind,
                                       Problem* problem,
                                       Uncertainty* uncertainty,
                                       std::string* message = nullptr);

}  // namespace bilevel

#endif  // BILEVEL_SOLVER_H_
