#ifndef BILEVEL_EXAMPLES_SUPPORT_LEARNING_RUNS_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEARNING_RUNS_H_

#include <string>
#include <utility>
#include <vector>

/// Runs of several methods and seeds, kept in a file so that an interrupted table is resumed run by
/// run, with curves beside it.
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

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEARNING_RUNS_H_
