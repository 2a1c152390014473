#ifndef BILEVEL_LOWER_LEVEL_FACTORIZATION_H_
#define BILEVEL_LOWER_LEVEL_FACTORIZATION_H_

#include <memory>

#include "bilevel/objective/level_function.h"

namespace bilevel {

/// LDL' of a sparse symmetric matrix, scaled to a unit diagonal: analysed once, factorised often.
///
///     A = D (S + damping I) D,   D = diag(|H_ii|)^(1/2)
///
/// so that damping and rank tolerances are free of units.
class Factorization {
 public:
  /// lower: the pattern of the lower triangle, diagonal included.
  explicit Factorization(const SparseMatrix& lower);
  ~Factorization();

  enum class Status {
    kPositiveDefinite,
    /// Pivots below `rank_tolerance` (of either sign), none clearly negative: singular.
    kSingular,
    kIndefinite,
    kFailed,  ///< Not finite.
  };
  /// Coordinates with fixed[i] != 0 are taken out: their row and column become the identity's.
  /// fixed may be nullptr.
  Status Factorize(const SparseMatrix& lower, double damping, const std::vector<char>* fixed);

  /// x = A^-1 b, column by column. Zero where fixed.
  void Solve(const Matrix& b, Matrix* x) const;
  void Solve(const Vector& b, Vector* x) const;

  /// The scaling D of the last factorisation, and its smallest pivot (1 is the largest possible
  /// diagonal).
  const Vector& scale() const { return scale_; }
  double min_pivot() const { return min_pivot_; }

  static constexpr double kRankTolerance = 1e-11;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
  SparseMatrix scaled_;
  Vector scale_;
  std::vector<char> fixed_;
  double min_pivot_ = 0.0;
  mutable Vector work_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_FACTORIZATION_H_
