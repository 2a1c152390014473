#ifndef BILEVEL_LOWER_LEVEL_HESSIAN_SYSTEM_H_
#define BILEVEL_LOWER_LEVEL_HESSIAN_SYSTEM_H_

#include <functional>
#include <string>
#include <vector>

#include "bilevel/lower_level/factorization.h"
#include "bilevel/program/level_function.h"
#include "bilevel/types.h"

namespace bilevel {

/// Linear systems with H = d^2g/dy^2 at one point, singular ones included (gauge freedom is the
/// normal state of bundle adjustment). Small eigenvalues are rounding in H, but not in J, whose
/// product H is about: a direction v without |Jv| is free, any other is weak, and kept, with its
/// curvature from J.
class HessianSystem {
 public:
  /// pattern: of the lower triangle. The space is y's, for names; not owned. exact: whether J is
  /// known to rounding, and not by differences or in single precision, perhaps.
  HessianSystem(const SparseMatrix& pattern, const Space* y, bool exact);

  /// The factorisation, for Newton steps between calls of Prepare.
  Factorization& factorization() { return factorization_; }

  /// The Jacobian J of g's residuals at the point, asked for where H is singular; nullptr where
  /// there is none, and small eigenvalues are taken for zero.
  using Jacobian = std::function<const RowSparseMatrix*()>;
  /// H is kept by pointer until the next call. fixed: coordinates at active bounds, see
  /// Factorization; may be nullptr. factorized: the factorisation of this very matrix without
  /// damping is already there. False: see message().
  bool Prepare(const SparseMatrix* lower,
               const std::vector<char>* fixed,
               SingularHandling handling,
               bool factorized,
               const Jacobian& jacobian);

  /// x = H^+ b, zero where fixed; x may alias b. False: see message().
  bool Solve(const Matrix& b, Matrix* x);
  bool Solve(const Vector& b, Vector* x);

  /// What Prepare was given.
  const SparseMatrix& lower() const { return *lower_; }
  const std::vector<char>& fixed() const { return fixed_; }  ///< Empty: none.
  SingularHandling handling() const { return handling_; }
  /// Whether the factorisation is a damped one, since H's own is not positive definite.
  bool is_singular() const { return singular_; }

  /// Orthonormal basis of the null space (tangent coordinates); no columns where H is regular.
  const Matrix& null_space() const { return null_space_; }
  /// Directions of small curvature that are not free.
  int num_weak_directions() const { return static_cast<int>(weak_.cols()); }
  /// b' H^+ b without b's part in the null space. False where that is not finite.
  bool SquaredNorm(const Vector& b, Vector* x, double* squared);
  /// "points 3 and 7": the blocks the null space lives on.
  std::string NullSpaceBlocks() const;
  /// Eigenvalues of the scaled matrix either side of the cut; 0 where H is regular.
  double largest_null_eigenvalue() const { return largest_null_; }
  double smallest_kept_eigenvalue() const { return smallest_kept_; }
  /// Largest |Hx - b| / |b| of the solves since Prepare.
  double residual() const { return residual_; }
  /// What rounding of H may be of a solution, relative: by an estimate of its condition, scaled.
  /// 0 where that is no more than 1e-6, or H is singular.
  double Rounding() const;
  int num_factorizations() const { return num_factorizations_; }
  /// For checkpoints; the matrix is the one that Prepare had.
  void Remember(const SparseMatrix* lower, Memory* memory);
  const std::string& message() const { return message_; }

 private:
  void IterateSubspace(Matrix* basis) const;
  bool FindNullSpace(const Jacobian& jacobian);
  bool Separate(Matrix small, const RowSparseMatrix& jacobian);
  void SolveProjected(Matrix* rhs, Matrix* x);
  void RemoveWeak(Matrix* rhs) const;
  void Multiply(const Matrix& v, Matrix* hv) const;

  Factorization factorization_;
  const Space* y_;
  const bool exact_;
  const SparseMatrix* lower_ = nullptr;
  std::vector<char> fixed_;
  SingularHandling handling_ = SingularHandling::kAutomatic;
  bool singular_ = false;
  Matrix null_space_;
  // Of the weak directions, with an orthonormal basis V in the scaling D: W = D^-1 V, DV, HW, and
  // the inverse of W'HW.
  Matrix weak_, weak_dual_, weak_image_, weak_inverse_;
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
