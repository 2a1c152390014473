#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_SUPERNODAL_FACTOR_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_SUPERNODAL_FACTOR_H_

#include <cmath>
#include <functional>
#include <vector>

#include "Eigen/Core"
#include "bilevel/program/space.h"

namespace bilevel {

/// A symmetric matrix's Cholesky factor, P A P' = L L', or L E L' with E of signs, or what is
/// computed in its place: columns whose rows below are the same stand together as a dense block,
/// whatever back end they are from.
struct SupernodalFactor {
  struct Supernode {
    int first, num_columns;
    int first_row, num_rows;  ///< Into rows; the columns themselves come first.
    long first_value;         ///< Into values: column-major.
    int stride;

    int num_below() const { return num_rows - num_columns; }
  };
  using Block = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
  using ConstBlock = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;

  std::vector<int> position;  ///< Of A's rows in P A P'.
  std::vector<Supernode> supernodes;
  std::vector<int> supernode_of;  ///< By column.
  std::vector<int> rows;          ///< Ascending within a supernode.
  Vector values;
  Vector signs;  ///< E; empty: the identity.

  Block block(const Supernode& s) {
    return Block(
        values.data() + s.first_value, s.num_rows, s.num_columns, Eigen::OuterStride<>(s.stride));
  }
  ConstBlock block(const Supernode& s) const {
    return ConstBlock(
        values.data() + s.first_value, s.num_rows, s.num_columns, Eigen::OuterStride<>(s.stride));
  }

  /// Appends columns with their rows, in panels narrow enough for their triangles to cost little.
  /// Returns where in `values`, once Allocate was called, the first of these whole columns goes.
  long Append(int num_columns, const int* rows_begin, const int* rows_end);
  void Allocate() { values.setZero(num_values_); }

  /// One column of a simplicial factor, its rows below the diagonal ascending.
  struct Column {
    double diagonal;
    double scale;  ///< Of the values.
    int num_below;
    const int* rows;
    const double* values;
  };
  /// From such columns; the permutation is the caller's to set.
  void Gather(int size, const std::function<Column(int)>& column);
  /// From an Eigen::SimplicialLDLT, its permutation and signs included.
  template <typename Ldlt>
  void GatherLdlt(const Ldlt& ldlt);

 private:
  long num_values_ = 0;
};

template <typename Ldlt>
void SupernodalFactor::GatherLdlt(const Ldlt& ldlt) {
  const int n = static_cast<int>(ldlt.rows());
  const Vector d = ldlt.vectorD();
  if ((d.array() < 0.0).any()) signs = d.cwiseSign();
  position.resize(n);
  const auto& permutation = ldlt.permutationP().indices();
  for (int i = 0; i < n; ++i) position[i] = permutation.size() > 0 ? permutation[i] : i;
  const auto& l = ldlt.matrixL().nestedExpression();
  Gather(n, [&](int j) {
    const int begin = l.outerIndexPtr()[j], end = l.outerIndexPtr()[j + 1];
    const double root = std::sqrt(std::abs(d[j]));
    return Column{root, root, end - begin, l.innerIndexPtr() + begin, l.valuePtr() + begin};
  });
}

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_SUPERNODAL_FACTOR_H_
