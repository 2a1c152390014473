#include "bilevel/lower_level/internal/schur_elimination.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace bilevel {
namespace {

// Below these, elimination saves nothing.
constexpr double kLeastShare = 0.8;
constexpr int kLeastSize = 200;

}  // namespace

// Blocks that stand beside each other in the matrix.
struct SchurElimination::Link {
  int block, place;
  bool below;
};

// What only the constructor needs: the blocks of the matrix as a graph, and those of S.
struct SchurElimination::Graph {
  Graph(const SparseMatrix& lower, const Space& space);

  int size(int block) const { return blocks[block].tangent_size; }
  bool is_kept(int block) const { return reduced_offset[block] >= 0; }
  void ChooseIndependent();
  void FindRows();
  long NumEntries() const;
  int Place(int r, int c) const;

  const std::vector<Space::Block>& blocks;
  const int num_blocks;
  std::vector<std::vector<Link>> links;  // Of each block, to all its neighbours.
  std::vector<char> eliminate;
  int num_eliminated = 0;              // Coordinates.
  std::vector<int> reduced_offset;     // Of each block in S; -1: it is not there.
  std::vector<std::vector<int>> rows;  // The blocks below the diagonal in each block column of S.
};

// (r, c), r >= c, stands in the whole matrix where r begins in c's first column; every later column
// is one entry shorter at the top.
SchurElimination::Graph::Graph(const SparseMatrix& lower, const Space& space)
    : blocks(space.blocks()),
      num_blocks(static_cast<int>(blocks.size())),
      links(num_blocks),
      eliminate(num_blocks, 0),
      reduced_offset(num_blocks, -1),
      rows(num_blocks) {
  const int* const outer = lower.outerIndexPtr();
  const int* const inner = lower.innerIndexPtr();
  std::vector<int> block_of(lower.rows());
  for (int b = 0; b < num_blocks; ++b) {
    std::fill_n(block_of.begin() + blocks[b].tangent_offset, size(b), b);
  }
  for (int c = 0; c < num_blocks; ++c) {
    if (size(c) == 0) continue;
    const int begin = outer[blocks[c].tangent_offset], end = outer[blocks[c].tangent_offset + 1];
    for (int k = begin + size(c); k < end;) {
      const int r = block_of[inner[k]];
      links[c].push_back({r, k - begin, true});
      links[r].push_back({c, k - begin, false});
      k += size(r);
    }
  }
}

// Those with the fewest neighbours first.
void SchurElimination::Graph::ChooseIndependent() {
  std::vector<int> order(num_blocks);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(
      order.begin(), order.end(), [&](int a, int b) { return links[a].size() < links[b].size(); });
  for (const int b : order) {
    if (size(b) == 0 || size(b) > kMostRows) continue;
    const bool is_independent = std::none_of(
        links[b].begin(), links[b].end(), [&](const Link& l) { return eliminate[l.block] != 0; });
    if (!is_independent) continue;
    eliminate[b] = 1;
    num_eliminated += size(b);
  }
}

// The pattern of S: C's, and all pairs of an eliminated block's neighbours.
void SchurElimination::Graph::FindRows() {
  for (int b = 0; b < num_blocks; ++b) {
    std::vector<int> neighbours;
    for (const Link& l : links[b]) {
      if (!eliminate[b] && !eliminate[l.block] && l.below) rows[b].push_back(l.block);
      if (eliminate[b]) neighbours.push_back(l.block);
    }
    std::sort(neighbours.begin(), neighbours.end());
    for (size_t p = 0; p < neighbours.size(); ++p) {
      for (size_t q = 0; q < p; ++q) rows[neighbours[q]].push_back(neighbours[p]);
    }
  }
  for (std::vector<int>& column : rows) {
    std::sort(column.begin(), column.end());
    column.erase(std::unique(column.begin(), column.end()), column.end());
  }
}

// At most, of S's lower triangle.
long SchurElimination::Graph::NumEntries() const {
  long num_entries = 0;
  for (int b = 0; b < num_blocks; ++b) {
    if (!is_kept(b)) continue;
    long height = size(b);
    for (const int r : rows[b]) height += size(r);
    num_entries += height * size(b);
  }
  return num_entries;
}

// Where block r begins in column block c of S.
int SchurElimination::Graph::Place(int r, int c) const {
  if (r == c) return 0;
  int k = size(c);
  for (const int other : rows[c]) {
    if (other == r) return k;
    k += size(other);
  }
  return -1;
}

SchurElimination::SchurElimination(const SparseMatrix& lower, const Space& space) {
  const int n = static_cast<int>(lower.rows());
  if (n < kLeastSize) return;
  Graph graph(lower, space);
  graph.ChooseIndependent();
  if (graph.num_eliminated < kLeastShare * n) return;
  Keep(&graph);
  if (kept_.empty()) return;  // Block-diagonal: nothing would be left to factorise.
  graph.FindRows();
  const long num_entries = graph.NumEntries();
  if (num_entries > std::numeric_limits<int>::max() / 2) return;
  AllocateReduced(graph, num_entries);
  MapKept(graph, lower);
  MapEliminated(&graph);
}

// The coordinates of S.
void SchurElimination::Keep(Graph* graph) {
  for (int b = 0; b < graph->num_blocks; ++b) {
    if (graph->eliminate[b] || graph->size(b) == 0) continue;
    graph->reduced_offset[b] = static_cast<int>(kept_.size());
    for (int i = 0; i < graph->size(b); ++i) {
      kept_.push_back(graph->blocks[b].tangent_offset + i);
    }
  }
}

void SchurElimination::AllocateReduced(const Graph& graph, long num_entries) {
  const int size = static_cast<int>(kept_.size());
  reduced_.resize(size, size);
  reduced_.reserve(num_entries);
  for (int b = 0; b < graph.num_blocks; ++b) {
    if (!graph.is_kept(b)) continue;
    const int offset = graph.reduced_offset[b], width = graph.size(b);
    for (int j = 0; j < width; ++j) {
      reduced_.startVec(offset + j);
      for (int i = j; i < width; ++i) reduced_.insertBack(offset + i, offset + j) = 0.0;
      for (const int r : graph.rows[b]) {
        for (int i = 0; i < graph.size(r); ++i) {
          reduced_.insertBack(graph.reduced_offset[r] + i, offset + j) = 0.0;
        }
      }
    }
  }
  reduced_.finalize();
}

// Where the entries of C go.
void SchurElimination::MapKept(const Graph& graph, const SparseMatrix& lower) {
  for (int c = 0; c < graph.num_blocks; ++c) {
    if (!graph.is_kept(c)) continue;
    const auto copy = [&](int r, int from_place) {
      const int to_place = graph.Place(r, c);
      for (int j = 0; j < graph.size(c); ++j) {
        const int skip = r == c ? j : 0;
        const int from = lower.outerIndexPtr()[graph.blocks[c].tangent_offset + j];
        const int to = reduced_.outerIndexPtr()[graph.reduced_offset[c] + j];
        runs_.push_back(
            {from + from_place - j + skip, to + to_place - j + skip, graph.size(r) - skip});
      }
    };
    copy(c, 0);
    for (const Link& l : graph.links[c]) {
      if (l.below && !graph.eliminate[l.block]) copy(l.block, l.place);
    }
  }
}

// The eliminated blocks, in their order. None, where they need more memory than an int counts.
void SchurElimination::MapEliminated(Graph* graph) {
  long num_values = 0;
  for (int b = 0; b < graph->num_blocks; ++b) {
    if (!graph->eliminate[b]) continue;
    std::vector<Link>& links = graph->links[b];
    std::sort(
        links.begin(), links.end(), [](const Link& l, const Link& m) { return l.block < m.block; });
    Eliminated e;
    e.offset = graph->blocks[b].tangent_offset;
    e.size = graph->size(b);
    e.first_neighbour = static_cast<int>(neighbours_.size());
    e.num_neighbours = static_cast<int>(links.size());
    e.num_columns = 0;
    e.first_value = static_cast<int>(num_values);
    e.first_target = static_cast<int>(targets_.size());
    for (size_t p = 0; p < links.size(); ++p) {
      const Link& l = links[p];
      const Space::Block& block = graph->blocks[l.block];
      neighbours_.push_back({graph->reduced_offset[l.block],
                             block.tangent_size,
                             l.below ? e.offset : block.tangent_offset,
                             l.place,
                             !l.below});
      e.num_columns += block.tangent_size;
      for (size_t q = 0; q <= p; ++q) targets_.push_back(graph->Place(l.block, links[q].block));
    }
    num_values += e.size * (e.size + e.num_columns);
    eliminated_.push_back(e);
  }
  if (num_values > std::numeric_limits<int>::max()) {
    eliminated_.clear();
    return;
  }
  values_.resize(num_values);
}

double SchurElimination::Reduce(const SparseMatrix& lower) {
  const int* const outer = lower.outerIndexPtr();
  const double* const entries = lower.valuePtr();
  const int* const reduced_outer = reduced_.outerIndexPtr();
  double* const s = reduced_.valuePtr();
  std::fill_n(s, reduced_.nonZeros(), 0.0);
  for (const Run& run : runs_) std::copy_n(entries + run.from, run.count, s + run.to);

  double smallest_pivot = std::numeric_limits<double>::infinity();
  for (const Eliminated& e : eliminated_) {
    const int n = e.size, columns = e.num_columns;
    double* const l = &values_[e.first_value];
    double* const z = l + n * n;
    for (int j = 0; j < n; ++j) {
      for (int i = j; i < n; ++i) {
        double sum = entries[outer[e.offset + j] + i - j];
        for (int k = 0; k < j; ++k) sum -= l[i * n + k] * l[j * n + k];
        if (i == j) {
          smallest_pivot = std::min(smallest_pivot, sum);
          if (!(sum > 0.0)) return sum;
          l[j * n + j] = std::sqrt(sum);
        } else {
          l[i * n + j] = sum / l[j * n + j];
        }
      }
    }
    // Z, whose column r belongs to row r of W.
    const Neighbour* const neighbours = &neighbours_[e.first_neighbour];
    int r = 0;
    for (int p = 0; p < e.num_neighbours; ++p) {
      const Neighbour& w = neighbours[p];
      for (int i = 0; i < w.size; ++i, ++r) {
        for (int k = 0; k < n; ++k) {
          double sum = w.transposed ? entries[outer[w.column + i] + w.source - i + k]
                                    : entries[outer[w.column + k] + w.source - k + i];
          for (int m = 0; m < k; ++m) sum -= l[k * n + m] * z[m * columns + r];
          z[k * columns + r] = sum / l[k * n + k];
        }
      }
    }
    // S -= Z'Z.
    const int* target = &targets_[e.first_target];
    int row = 0;
    for (int p = 0; p < e.num_neighbours; ++p) {
      int column = 0;
      for (int q = 0; q <= p; ++q, ++target) {
        for (int j = 0; j < neighbours[q].size; ++j) {
          double* const to = s + reduced_outer[neighbours[q].first + j] + *target - j;
          for (int k = 0; k < n; ++k) {
            const double factor = z[k * columns + column + j];
            const double* const from = z + k * columns + row;
            for (int i = p == q ? j : 0; i < neighbours[p].size; ++i) to[i] -= factor * from[i];
          }
        }
        column += neighbours[q].size;
      }
      row += neighbours[p].size;
    }
  }
  return smallest_pivot;
}

double SchurElimination::LogDeterminant() const {
  double sum = 0.0;
  for (const Eliminated& e : eliminated_) {
    for (int k = 0; k < e.size; ++k) sum += std::log(values_[e.first_value + k * (e.size + 1)]);
  }
  return 2.0 * sum;
}

void SchurElimination::Forward(Vector* rhs, Vector* reduced_rhs) const {
  reduced_rhs->resize(static_cast<int>(kept_.size()));
  for (size_t i = 0; i < kept_.size(); ++i) (*reduced_rhs)[i] = (*rhs)[kept_[i]];
  for (const Eliminated& e : eliminated_) {
    const int n = e.size;
    const double* const l = &values_[e.first_value];
    const double* z = l + n * n;
    double* const u = rhs->data() + e.offset;
    for (int k = 0; k < n; ++k, z += e.num_columns) {
      for (int m = 0; m < k; ++m) u[k] -= l[k * n + m] * u[m];
      u[k] /= l[k * n + k];
      const double* from = z;
      for (int p = 0; p < e.num_neighbours; ++p) {
        const Neighbour& w = neighbours_[e.first_neighbour + p];
        double* const to = reduced_rhs->data() + w.first;
        for (int i = 0; i < w.size; ++i) to[i] -= u[k] * from[i];
        from += w.size;
      }
    }
  }
}

void SchurElimination::Back(const Vector& v, Vector* rhs) const {
  for (size_t i = 0; i < kept_.size(); ++i) (*rhs)[kept_[i]] = v[i];
  for (const Eliminated& e : eliminated_) {
    const int n = e.size;
    const double* const l = &values_[e.first_value];
    double* const u = rhs->data() + e.offset;
    for (int k = n - 1; k >= 0; --k) {
      const double* z = l + n * n + k * e.num_columns;
      for (int p = 0; p < e.num_neighbours; ++p) {
        const Neighbour& w = neighbours_[e.first_neighbour + p];
        for (int i = 0; i < w.size; ++i) u[k] -= *z++ * v[w.first + i];
      }
      for (int m = k + 1; m < n; ++m) u[k] -= l[m * n + k] * u[m];
      u[k] /= l[k * n + k];
    }
  }
}

// What was eliminated is E^-1 W' v away from where it would be alone: T = -E^-1 W', E^-1 = R'R.
void SchurElimination::Express(int first, int count, Expression* e) const {
  const auto kept = std::lower_bound(kept_.begin(), kept_.end(), first);
  if (kept != kept_.end() && *kept == first) {
    e->eliminated = -1;
    e->columns.resize(count);
    std::iota(e->columns.begin(), e->columns.end(), static_cast<int>(kept - kept_.begin()));
    e->t.setIdentity(count, count);
    return;
  }
  const auto after = std::upper_bound(
      eliminated_.begin(), eliminated_.end(), first, [](int i, const Eliminated& block) {
        return i < block.offset;
      });
  const Eliminated& block = *(after - 1);
  using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const int n = block.size;
  const double* const values = &values_[block.first_value];
  const Eigen::Map<const RowMatrix> l(values, n, n), z(values + n * n, n, block.num_columns);
  e->eliminated = static_cast<int>(after - 1 - eliminated_.begin());
  e->r.setZero(n, count);
  for (int j = 0; j < count; ++j) e->r(first - block.offset + j, j) = 1.0;
  l.triangularView<Eigen::Lower>().solveInPlace(e->r);
  e->t.noalias() = -e->r.transpose() * z;
  e->columns.clear();
  for (int p = 0; p < block.num_neighbours; ++p) {
    const Neighbour& w = neighbours_[block.first_neighbour + p];
    for (int i = 0; i < w.size; ++i) e->columns.push_back(w.first + i);
  }
}

}  // namespace bilevel
