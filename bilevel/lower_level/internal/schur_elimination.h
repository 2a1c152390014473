#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_SCHUR_ELIMINATION_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_SCHUR_ELIMINATION_H_

#include <vector>

#include "bilevel/program/level_function.h"
#include "bilevel/program/space.h"

namespace bilevel {

/// Block elimination of many small blocks without a common neighbour, such as the points of a
/// bundle adjustment, from a symmetric positive definite matrix:
///
///     [ E  W' ] [u]   [a]        S = C - W E^-1 W',   E block diagonal.
///     [ W  C  ] [v] = [b],
///
/// Blocks of the matrix are dense or absent, as in a Hessian over a Space.
class SchurElimination {
 public:
  /// lower: the pattern of the lower triangle. Pays() is false, and nothing else may be called,
  /// unless the independent blocks that it finds are nearly all there is.
  SchurElimination(const SparseMatrix& lower, const Space& space);
  bool Pays() const { return !eliminated_.empty(); }

  /// The lower triangle of S: its pattern from the start, its values after Reduce.
  const SparseMatrix& reduced() const { return reduced_; }
  /// From a matrix of the pattern given. Returns the smallest pivot met; S is not valid where it
  /// is not positive.
  double Reduce(const SparseMatrix& lower);

  /// log det E, after Reduce.
  double LogDeterminant() const;

  /// The right-hand side b - W E^-1 a of S; `rhs` becomes what Back wants.
  void Forward(Vector* rhs, Vector* reduced_rhs) const;
  /// From the solution v of S to the whole one, in place.
  void Back(const Vector& v, Vector* rhs) const;

  /// Some coordinates of the whole matrix A by those of S, after Reduce: with two such ranges
  ///
  ///     A^-1's block = T_1 (S^-1)_{columns_1, columns_2} T_2' (+ R_1' R_2 of one eliminated block)
  struct Expression {
    int eliminated;            ///< The block eliminated; -1: it was kept.
    std::vector<int> columns;  ///< Of S.
    Matrix t, r;
  };
  /// Coordinates first, ..., first + count - 1, all of one block.
  void Express(int first, int count, Expression* expression) const;

 private:
  static constexpr int kMostRows = 6;  // Of a block to eliminate.
  struct Neighbour {
    int first, size;  // In reduced coordinates.
    int column;       // Of the whole matrix: where W's block, or its transpose, begins.
    int source;       // Its first entry's place in that column.
    bool transposed;  // The columns are the neighbour's.
  };
  struct Eliminated {
    int offset, size;
    int first_neighbour, num_neighbours;
    int num_columns;  // Of Z = L^-1 W', where E = L L'.
    int first_value;  // Into values_: L and Z, row-major.
    int first_target;
  };
  struct Run {  // Entries of C and their places in S.
    int from, to, count;
  };
  struct Link;
  struct Graph;
  void Keep(Graph* graph);
  void AllocateReduced(const Graph& graph, long num_entries);
  void MapKept(const Graph& graph, const SparseMatrix& lower);
  void MapEliminated(Graph* graph);

  std::vector<Eliminated> eliminated_;
  std::vector<Neighbour> neighbours_;
  // For each pair (p, q <= p) of an eliminated block's neighbours, where p begins in S's column q.
  std::vector<int> targets_;
  std::vector<Run> runs_;
  std::vector<int> kept_;  // The coordinates of S.
  std::vector<double> values_;
  SparseMatrix reduced_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_SCHUR_ELIMINATION_H_
