#ifndef BILEVEL_EXAMPLES_SUPPORT_LEARNING_MINIBATCH_EXPERIMENT_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEARNING_MINIBATCH_EXPERIMENT_H_

#include <map>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "examples/support/learning/experiment.h"

namespace examples {

/// The methods of MinibatchMethods, with the same budget of gradients and products and with steps
/// that --search finds; and exact implicit differentiation, every y solved: "lbfgs", and "exact",
/// gradient steps with momentum. --methods, --y_step and --x_step choose, --exact_iterations,
/// --budget and --seeds limit them.
class MinibatchExperiment {
 public:
  struct Steps {
    double y, x;
  };
  struct Description {
    std::string setting;             ///< In the table of runs.
    std::vector<std::string> lines;  ///< What stands beside the methods.
    int slip_iterations = 0;         ///< Others': as many gradients and products.
    int batch = 0;                   ///< Of both levels.
    std::map<std::string, Steps> steps;
    /// Among which --search looks; x's of a fixed length in slip and bo_rep, of the gradient's in
    /// the others.
    std::vector<double> y_grid, length_grid, x_grid;
    std::vector<std::string> metrics, curve_metrics;
    std::vector<double> scales;               ///< Of the metrics; see Runs::Table.
    std::map<std::string, int> json_metrics;  ///< By name, which of them --summary_json has.
    std::string heading;                      ///< Above the table.
    std::string title;                        ///< Above the plot, of the first of curve_metrics.
  };
  virtual ~MinibatchExperiment() = default;

  /// The whole program after its own flags' check; returns main's exit code.
  int Run(const Description& description);

 protected:
  /// Draws the data of a seed.
  virtual void Split(int seed) = 0;
  /// The metrics of a line.
  virtual std::vector<double> Line(const std::string& name) = 0;
  /// The problem at its start; its x and y are in memory that lasts until the next call.
  virtual bilevel::Problem* Start() = 0;
  /// The loss on the samples for selection at x and y in memory.
  virtual double SelectionLoss() = 0;
  /// The curve's metrics at x and y in memory.
  virtual std::vector<double> Measure() = 0;
  /// The metrics of a run, after the curve's last Measure.
  virtual std::vector<double> Finish(const std::vector<CurvePoint>& curve) = 0;

 private:
  bool Search(const Description& description, const std::vector<std::string>& methods);
  bool RunMethod(const Description& description, Runs::Run* run);
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEARNING_MINIBATCH_EXPERIMENT_H_
