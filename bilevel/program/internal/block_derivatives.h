#ifndef BILEVEL_PROGRAM_INTERNAL_BLOCK_DERIVATIVES_H_
#define BILEVEL_PROGRAM_INTERNAL_BLOCK_DERIVATIVES_H_

#include <cstddef>

#include "Eigen/Core"
#include "bilevel/program/internal/evaluation.h"

namespace bilevel {

using MatrixMap =
    Eigen::Map<Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using ConstMatrixMap =
    Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

// Value and derivatives of one residual block or general term, in memory that its owner reuses.
// `local` is the tangent size of its variables, in which Argument::local counts, and `ambient` the
// size of all its arguments. An order's evaluation writes what Evaluation asks for; derivatives by
// variables that nobody asks for are not written.
class BlockDerivatives {
 public:
  BlockDerivatives(double* memory, int local, int ambient)
      : memory_(memory), local_(local), ambient_(ambient) {}
  // How many doubles the memory must have.
  static std::size_t Size(Evaluation::Order order, int local, int ambient) {
    const std::size_t n = local;
    switch (order) {
      case Evaluation::kValue:
      case Evaluation::kRows:
        return 1;
      case Evaluation::kGradient:
        return 1 + n;
      case Evaluation::kProduct:
      case Evaluation::kGradientAndProduct:
        return 1 + 2 * n + ambient;
      case Evaluation::kHessian:
        break;
    }
    return 1 + 2 * n + ambient + n * n;
  }

  int local() const { return local_; }
  int ambient() const { return ambient_; }
  double* value() { return memory_; }
  // `local` numbers each; a product of the Hessian with the evaluation's direction.
  double* gradient() { return memory_ + 1; }
  double* product() { return gradient() + local_; }
  // `ambient` numbers, for the curvature of manifolds.
  double* ambient_gradient() { return product() + local_; }
  // local x local, row-major: the blocks that LevelFunction::ForEachHessianBlock looks at.
  double* hessian() { return ambient_gradient() + ambient_; }

 private:
  double* memory_;
  int local_, ambient_;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_INTERNAL_BLOCK_DERIVATIVES_H_
