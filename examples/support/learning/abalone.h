#ifndef BILEVEL_EXAMPLES_SUPPORT_LEARNING_ABALONE_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEARNING_ABALONE_H_

#include <string>

#include "Eigen/Core"

namespace examples {

/// The abalone data (Nash et al., 1994; UCI): 4,177 shells, their rings to be told from sex, coded
/// M = 1, F = 2, I = 3, and seven measures.
struct Abalone {
  Eigen::MatrixXd features;  ///< A row a shell, eight columns, unscaled.
  Eigen::VectorXd rings;
};

/// Reads lines "M,0.455,0.365,0.095,0.514,0.2245,0.101,0.15,15", with or without a header.
/// *error names the line.
bool ReadAbalone(const std::string& path, Abalone* data, std::string* error);

/// Shells of the same kind that never lived.
Abalone SimulateAbalone(int num_shells, unsigned seed);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEARNING_ABALONE_H_
