#ifndef BILEVEL_EXAMPLES_SUPPORT_LEARNING_LIBSVM_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEARNING_LIBSVM_H_

#include <string>
#include <vector>

#include "Eigen/SparseCore"

namespace examples {

/// Samples with few features that are not 0, as counts of words are.
struct SparseSamples {
  Eigen::SparseMatrix<double, Eigen::RowMajor> features;  ///< A row a sample, of length 1 or empty.
  std::vector<int> labels;                                ///< Places in `classes`.
};

/// Reads LIBSVM's and SVMlight's lines "label index:value index:value ...": labels of `classes`,
/// ascending indices from `first_index` on. Rows are brought to length 1. num_features 0: as many
/// as the file has, at most 2^22. *error names the line.
bool ReadLibsvm(const std::string& path,
                const std::vector<int>& classes,
                int first_index,
                int num_features,
                SparseSamples* samples,
                std::string* error);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEARNING_LIBSVM_H_
