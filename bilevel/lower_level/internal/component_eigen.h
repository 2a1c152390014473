#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_COMPONENT_EIGEN_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_COMPONENT_EIGEN_H_

#include <cmath>
#include <vector>

#include "bilevel/program/level_function.h"

namespace bilevel {

/// All eigenvalues of a sparse symmetric matrix A = D S D, those of S that count told from those
/// that are zero. Coordinates that the pattern does not connect are decomposed apart, so that a
/// matrix of many small blocks costs no more than they do.
class ComponentEigen {
 public:
  /// lower: the pattern of the lower triangle.
  explicit ComponentEigen(const SparseMatrix& lower);

  /// A scaling d = diag(D)^2 to the unit diagonal. Entries far below the largest they are connected
  /// with may be rounding, and are not scaled up to it.
  Vector UnitDiagonal(const SparseMatrix& lower) const;

  /// tolerance: eigenvalues of S up to it, in magnitude, are zero; 0: cut at the largest gap (as a
  /// ratio) between kSurelyZero and kSurelyNot. False: not finite.
  bool Compute(const SparseMatrix& lower, const Vector& d, double tolerance);

  /// x = A^+ b, the pseudo-inverse: b's part in the null space is dropped, x has none.
  void Solve(const Vector& b, Vector* x) const { Apply(b, false, 0.0, x); }
  /// The same with |S| in the place of S, and eigenvalues up to `floor` taken for zero.
  void SolveAbsolute(const Vector& b, double floor, Vector* x) const { Apply(b, true, floor, x); }
  /// An orthonormal basis of A's null space.
  SparseMatrix NullBasis() const;
  /// D^-1 v for S's lowest eigenvector v.
  Vector LowestDirection() const;

  int size() const { return static_cast<int>(component_.size()); }
  int largest_component() const { return largest_component_; }
  int null_dimension() const { return null_dimension_; }
  double lowest_eigenvalue() const { return lowest_; }
  /// Magnitudes either side of the cut; 0 and infinity where there are none.
  double largest_null() const { return largest_null_; }
  double smallest_kept() const { return smallest_kept_; }
  /// Whether they are too close to each other for a decision that means something.
  bool is_ambiguous() const;
  const Vector& d() const { return d_; }

  static constexpr double kSurelyZero = 1e-13, kSurelyNot = 1e-7;

 private:
  void Apply(const Vector& b, bool absolute, double floor, Vector* x) const;
  Matrix DroppedBasis(const std::vector<int>& members,
                      const Matrix& vectors,
                      const Vector& values,
                      double cut) const;
  bool IsNull(double eigenvalue) const { return std::abs(eigenvalue) <= cut_; }

  struct Component {
    std::vector<int> members;
    Matrix vectors;  // Of S.
    Vector values;
    Matrix null;  // Of A, orthonormal.
  };
  std::vector<Component> components_;
  std::vector<int> component_, position_;  // Of each coordinate.
  int largest_component_ = 0, null_dimension_ = 0;
  double cut_ = 0.0, lowest_ = 0.0, largest_null_ = 0.0, smallest_kept_ = 0.0;
  Vector d_, root_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_COMPONENT_EIGEN_H_
