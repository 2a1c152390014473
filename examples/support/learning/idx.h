#ifndef BILEVEL_EXAMPLES_SUPPORT_LEARNING_IDX_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEARNING_IDX_H_

#include <string>
#include <vector>

#include "Eigen/Core"

namespace examples {

/// Images of one size, as MNIST's (LeCun, Cortes and Burges): a row of `pixels` is an image, its
/// rows from top to bottom, 0 to 255.
struct IdxImages {
  int height = 0, width = 0;
  Eigen::Matrix<unsigned char, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> pixels;
};

/// Read the IDX format, packed or not: bytes in three dimensions (train-images-idx3-
/// ubyte.gz) or in one (train-labels-idx1-ubyte.gz). A file that is shorter or longer than its
/// header says is an error; *error says what is wrong with which file.
bool ReadIdxImages(const std::string& path, IdxImages* images, std::string* error);
bool ReadIdxLabels(const std::string& path, std::vector<unsigned char>* labels, std::string* error);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEARNING_IDX_H_
