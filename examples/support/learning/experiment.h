#ifndef BILEVEL_EXAMPLES_SUPPORT_LEARNING_EXPERIMENT_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEARNING_EXPERIMENT_H_

#include <functional>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "examples/support/learning/runs.h"
#include "gflags/gflags.h"

/// Flags of all experiments of papers.
DECLARE_string(methods);
DECLARE_int32(seeds);
DECLARE_double(budget);
DECLARE_string(data);
DECLARE_string(csv);

/// What the experiments of papers share.
namespace examples {

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

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEARNING_EXPERIMENT_H_
