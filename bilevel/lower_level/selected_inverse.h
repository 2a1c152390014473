#ifndef BILEVEL_LOWER_LEVEL_SELECTED_INVERSE_H_
#define BILEVEL_LOWER_LEVEL_SELECTED_INVERSE_H_

#include <memory>

#include "bilevel/program/space.h"

namespace bilevel {

class Factorization;
struct SupernodalFactor;

/// The entries of A^-1 on the pattern of A's Cholesky factor, from a Factorization, without those
/// of the rest: about as many operations as the factorisation has, once more or twice (Takahashi,
/// Fagan and Chin, 1973). With L = [L_ss; L_ps] the columns of a supernode s and p its rows below,
/// for the supernodes from the last to the first,
///
///     M = L_ps L_ss^-1,   Z_ps = -Z_pp M,   Z_ss = (L_ss L_ss')^-1 - M' Z_ps,
///
/// where all of Z_pp that is asked for is there already. What the Factorization eliminated before,
/// the points of a bundle adjustment, follows block by block from the part that it kept:
///
///     A = [E, W'; W, C],   S = C - W E^-1 W',   B = E^-1 W',
///     A^-1 = [E^-1 + B S^-1 B', -B S^-1; -S^-1 B', S^-1].
///
/// Nothing is approximated. The scaling and the permutation are undone; rows and columns of fixed
/// coordinates are zero.
class SelectedInverse {
 public:
  /// Of the matrix that was factorised last, with success. The factorisation must outlive this, and
  /// not be made anew. Memory: that of the factor, once more.
  explicit SelectedInverse(const Factorization& factorization);
  /// Of A = D P' L E L' P D, with D diagonal: an indefinite matrix.
  SelectedInverse(SupernodalFactor factor, const Vector& scale);
  ~SelectedInverse();

  /// Rows row, ..., row + num_rows - 1 of the columns from `column` on; both ranges within a block
  /// of the space that the factorisation was made with, if it was. False where part of it is
  /// outside of the pattern: *block is undefined then. Every entry of A's own pattern is inside.
  bool GetBlock(int row, int num_rows, int column, int num_columns, Matrix* block) const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_SELECTED_INVERSE_H_
