#ifndef BILEVEL_LOWER_LEVEL_HESSIAN_SYSTEM_H_
#define BILEVEL_LOWER_LEVEL_HESSIAN_SYSTEM_H_

#include <string>
#include <vector>

#include "bilevel/lower_level/factorization.h"
#include "bilevel/program/level_function.h"
#include "bilevel/types.h"

namespace bilevel {

/// Linear systems with H = d^2g/dy^2 at one point, singular ones included (gauge freedom is the
/// normal state of bundle adjustment).
class HessianSystem {
 public:
  /// pattern: of the lower triangle. The space is y's, for names; not owned.
  HessianSystem(const SparseMatrix& pattern, const Space* y);

  /// The factorisation, for Newton steps between calls of Prepare.
  Factorization& factorization() { return factorization_; }

  /// H is kept by pointer until the next call. fixed: coordinates at active bounds, see
  /// Factorization; may be nullptr. factorized: the factorisation of this very matrix without
  /// damping is already there. False: see message().
  bool Prepare(const SparseMatrix* lower,
               const std::vector<char>* fixed,
               SingularHandling handling,
               bool factorized);

  /// x = H^+ b, zero where fixed; x may alias b. False: see message().
  bool Solve(const Matrix& b, Matrix* x);
  bool Solve(const Vector& b, Vector* x);

  /// Orthonormal basis of the null space (tangent coordinates); no columns where H is regular.
  const Matrix& null_space() const { return null_space_; }
  /// "points 3 and 7": the blocks the null space lives on.
  std::string NullSpaceBlocks() const;
  /// |N'b| / |b|.
  double NullSpaceShare(const Vector& b) const;
  /// Eigenvalues of the scaled matrix either side of the cut; 0 where H is regular.
  double largest_null_eigenvalue() const { return largest_null_; }
  double smallest_kept_eigenvalue() const { return smallest_kept_; }
  /// Largest |Hx - b| / |b| of the solves since Prepare.
  double residual() const { return residual_; }
  int num_factorizations() const { return num_factorizations_; }
  const std::string& message() const { return message_; }

 private:
  bool FindNullSpace();
  void Multiply(const Matrix& v, Matrix* hv) const;

  Factorization factorization_;
  const Space* y_;
  const SparseMatrix* lower_ = nullptr;
  std::vector<char> fixed_;
  SingularHandling handling_ = SingularHandling::kAutomatic;
  bool singular_ = false;
  Matrix null_space_;
  double largest_null_ = 0.0, smallest_kept_ = 0.0, residual_ = 0.0;
  int num_factorizations_ = 0;
  std::string message_;
  Matrix rhs_, product_, correction_, column_;
};

/// The damping, relative to a unit diagonal, that stands in for regularity in a singular system;
/// far below any eigenvalue that counts, far above rounding.
constexpr double kSingularDamping = 1e-10;

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_HESSIAN_SYSTEM_H_
