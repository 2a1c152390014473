#ifndef BILEVEL_EXAMPLES_SUPPORT_EXPERIMENT_H_
#define BILEVEL_EXAMPLES_SUPPORT_EXPERIMENT_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "gflags/gflags.h"

/// Flags of all experiments of papers.
DECLARE_string(methods);
DECLARE_int32(seeds);
DECLARE_double(budget);
DECLARE_string(data);
DECLARE_string(csv);

/// What the experiments of papers share: runs of several methods and seeds, kept in a file so that
/// an interrupted table is resumed run by run, with curves beside it.
namespace examples {

/// One place of a curve.
struct CurvePoint {
  int iteration = 0;
  double calls = 0.0;    ///< Gradients and products of f and g, those of lower solves included.
  double samples = 0.0;  ///< Samples in them, and in values; NaN where lower solves have some.
  /// Without what measuring took; of the processor with --num_threads=1, else of the clock.
  double seconds = 0.0;
  std::vector<double> metrics;
};

/// Solves, and measures every so many iterations, at the first and at the last; the time that takes
/// is not counted. `measure` finds the iterate in the memory of x and y; options.callbacks come
/// before it. Ends at options.max_num_iterations without the lower solves and the assessment that
/// Solve would make there. Lower levels are solved as well as single precision allows. False:
/// *error says why it failed.
bool Follow(bilevel::Solver::Options options,
            bilevel::Problem* problem,
            int every,
            const std::function<std::vector<double>()>& measure,
            std::vector<CurvePoint>* curve,
            std::string* error);

/// Runs of one experiment: a CSV file with a row a run, and one with their curves (".curves").
class Runs {
 public:
  struct Run {
    std::string setting, method;
    int seed = 0;
    double seconds = 0.0;
    std::vector<double> metrics;  ///< As named.
    std::vector<CurvePoint> curve;
  };

  /// Reads the runs that the file has; an empty path keeps them in memory alone. False: the file is
  /// another experiment's or cannot be read, *error says so.
  bool Open(const std::string& path,
            std::vector<std::string> metric_names,
            std::vector<std::string> curve_names,
            std::string* error);
  bool Has(const std::string& setting, const std::string& method, int seed) const {
    return Find(setting, method, seed) != nullptr;
  }
  /// nullptr: there is none. Until the next Add.
  const Run* Find(const std::string& setting, const std::string& method, int seed) const;
  /// Appends and flushes.
  bool Add(const Run& run);
  const std::vector<Run>& runs() const { return runs_; }
  /// All curves, a row a place.
  std::string CurvesCsv() const;

  /// Mean and standard deviation over the seeds, by method in the order of their first runs.
  /// scales: what each metric is multiplied by, 100 for per cent, 0: not shown.
  std::string Table(const std::string& setting, const std::vector<double>& scales) const;
  /// Mean of a metric over the seeds; NaN where there is no run.
  double Mean(const std::string& setting, const std::string& method, int metric) const;
  /// The curves of the first seed of each method: one metric against iterations, calls, seconds.
  bool Plot(const std::string& path,
            const std::string& title,
            const std::string& setting,
            int curve_metric,
            const std::vector<std::pair<std::string, double>>& lines) const;

 private:
  std::string CurveHeader() const;
  std::string CurveRows(const Run& run) const;
  std::string path_;
  std::vector<std::string> metric_names_, curve_names_;
  std::vector<Run> runs_;
};

/// The folder with a file of a data set: --data, else below BILEVEL_DATA_DIR, else one of the other
/// places. Empty: *error says what was looked for and `how` to get it.
std::string FindData(const std::string& name,
                     const std::string& file,
                     const std::vector<std::string>& other_places,
                     const std::string& how,
                     std::string* error);

/// Handwritten digits or clothes in 28 x 28 pixels, 60,000 for training and 10,000 for tests.
struct Digits {
  Eigen::Matrix<unsigned char, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> train, test;
  std::vector<int> train_labels, test_labels;
  static constexpr int kPixels = 784, kClasses = 10;
};

/// name: mnist or fashion_mnist.
bool ReadDigits(const std::string& name, Digits* digits, std::string* error);

/// Minimises a sum of terms over Theta by L-BFGS, until an iteration changes it relatively by less
/// than the tolerance. What else a term depends on comes after it.
struct FitTerm {
  const bilevel::Objective* objective;
  const double* second_block;  ///< nullptr: Theta is all.
};
void Fit(const std::vector<FitTerm>& terms,
         int max_iterations,
         std::vector<double>* theta,
         double tolerance = 1e-8);

/// The parts of text between commas.
std::vector<std::string> SplitList(const std::string& text);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_EXPERIMENT_H_
