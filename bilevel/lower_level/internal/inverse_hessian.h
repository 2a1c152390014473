#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_INVERSE_HESSIAN_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_INVERSE_HESSIAN_H_

#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "bilevel/lower_level/hessian_system.h"
#include "bilevel/lower_level/selected_inverse.h"

namespace bilevel {

/// The inverse of the Hessian H that a HessianSystem was prepared with, by pairs of blocks of y:
/// from the selected inverse where it has them, by solves otherwise. Zero where a bound holds.
///
/// With a free gauge, of orthonormal basis N, it is the pseudo-inverse: for any symmetric G with
/// HGH = H, such as the inverse with as many coordinates held as are free,
///
///     H^+ = (I - NN') G (I - NN').
class InverseHessian {
 public:
  /// Neither is owned; valid until the system is prepared again.
  InverseHessian(HessianSystem* system, const Space* y);

  /// Once, before the rest. False: message().
  bool Prepare();
  /// The rows of one block of y and the columns of another, tangent. False, with a message, where
  /// either is not determined: a direction that is free is no gauge, but moves it alone. Unless
  /// SingularHandling::kMinimumNorm asks for the pseudo-inverse all the same.
  bool GetBlock(int row_block, int column_block, Matrix* block);
  const std::string& message() const { return message_; }

 private:
  void FindUndetermined();
  void Anchor();
  bool SetNullSpace(const Matrix& scaled, const std::vector<int>& rows);
  bool Solve(int block);

  HessianSystem& system_;
  const Space& y_;
  std::unique_ptr<Factorization> anchored_;    // Of H with a gauge's coordinates held.
  std::unique_ptr<SelectedInverse> selected_;  // None: all by solves.
  Matrix null_, g_null_, null_g_null_;         // N, GN, N'GN.
  int solved_ = -1, last_column_ = -1;         // Blocks of y.
  Matrix columns_;                             // Of the block solved_.
  Matrix unit_;
  std::unordered_set<int> undetermined_;  // Blocks.
  std::string message_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_INVERSE_HESSIAN_H_
