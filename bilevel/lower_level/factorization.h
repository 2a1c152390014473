#ifndef BILEVEL_LOWER_LEVEL_FACTORIZATION_H_
#define BILEVEL_LOWER_LEVEL_FACTORIZATION_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/program/level_function.h"

namespace bilevel {

class SchurElimination;
struct SupernodalFactor;

/// Cholesky factorisation of a sparse symmetric matrix H, scaled to a unit diagonal: analysed once,
/// factorised often.
///
///     A = D (S + damping I) D,   D = diag(|H_ii|)^(1/2)
///
/// so that damping and rank tolerances are free of units. Independent small blocks that make up
/// nearly all of it, such as the points of a bundle adjustment, are eliminated block by block. The
/// rest is factorised as a dense matrix where it is tiny or nearly full, by CHOLMOD where that is
/// built in, with supernodes where the factor is dense enough to pay, and by Eigen's simplicial
/// method otherwise.
class Factorization {
 public:
  /// lower: the pattern of the lower triangle, diagonal included. space: its blocks, for
  /// elimination; may be nullptr.
  explicit Factorization(const SparseMatrix& lower, const Space* space = nullptr);
  ~Factorization();

  enum class Status {
    kPositiveDefinite,
    kNotPositiveDefinite,  ///< Singular (a pivot below kRankTolerance) or indefinite.
    kNotFinite,
  };
  /// Coordinates with fixed[i] != 0 are taken out: their row and column become the identity's.
  /// fixed may be nullptr.
  Status Factorize(const SparseMatrix& lower, double damping, const std::vector<char>* fixed);

  /// x = A^-1 b. Zero where fixed. x may alias b.
  void Solve(const Matrix& b, Matrix* x) const;
  void Solve(const Vector& b, Vector* x) const;

  /// For SelectedInverse: the last factor, of the scaled matrix; and what was eliminated before it,
  /// or nullptr.
  void CopyFactor(SupernodalFactor* factor) const;
  const SchurElimination* elimination() const;

  /// For checkpoints: the last matrix, which is factorised again.
  void Remember(Memory* memory);

  /// The scaling D of the last factorisation.
  const Vector& scale() const { return scale_; }
  bool is_fixed(int i) const { return !fixed_.empty() && fixed_[i]; }
  /// Its smallest pivot, where it succeeded.
  double smallest_pivot() const { return smallest_pivot_; }
  /// log det A over the coordinates that are not fixed, where it succeeded.
  double LogDeterminant() const;
  /// "supernodal Cholesky (CHOLMOD)", and what was eliminated before.
  std::string Describe() const;

  static constexpr double kRankTolerance = 1e-11;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
  SparseMatrix scaled_;
  Vector scale_;
  std::vector<char> fixed_;
  double smallest_pivot_ = 1.0;
  mutable Vector work_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_FACTORIZATION_H_
