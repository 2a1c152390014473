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

SchurElimination::SchurElimination(const SparseMatrix& lower, const Space& space) {
  const int n = static_cast<int>(lower.rows());
  if (n < kLeastSize) return;
  const int* const outer = lower.outerIndexPtr();
  const int* const inner = lower.innerIndexPtr();

  // The graph of blocks. (r, c), r >= c, stands in the whole matrix where r begins in c's first
  // column; every later column is one entry shorter at the top.
  struct Link {
    int block, place;
    bool below;
  };
  const std::vector<Space::Block>& blocks = space.blocks();
  const int num_blocks = static_cast<int>(blocks.size());
  std::vector<int> block_of(n);
  for (int b = 0; b < num_blocks; ++b) {
    std::fill_n(block_of.begin() + blocks[b].tangent_offset, blocks[b].tangent_size, b);
  }
  std::vector<std::vector<Link>> links(num_blocks);
  for (int c = 0; c < num_blocks; ++c) {
    if (blocks[c].tangent_size == 0) continue;
    const int begin = outer[blocks[c].tangent_offset], end = outer[blocks[c].tangent_offset + 1];
    for (int k = begin + blocks[c].tangent_size; k < end;) {
      const int r = block_of[inner[k]];
      links[c].push_back({r, k - begin, true});
      links[r].push_back({c, k - begin, false});
      k += blocks[r].tangent_size;
    }
  }

  // Independent blocks, those with the fewest neighbours first.
  std::vector<int> order(num_blocks);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(
      order.begin(), order.end(), [&](int a, int b) { return links[a].size() < links[b].size(); });
  std::vector<char> eliminate(num_blocks, 0);
  int num_eliminated = 0;
  for (const int b : order) {
    const int size = blocks[b].tangent_size;
    if (size == 0 || size > kMostRows) continue;
    if (std::any_of(links[b].begin(), links[b].end(), [&](const Link& l) {
          return eliminate[l.block] != 0;
        })) {
      continue;
    }
    eliminate[b] = 1;
    num_eliminated += size;
  }
  if (num_eliminated < kLeastShare * n) return;

  // The pattern of S, by blocks.
  std::vector<int> reduced_offset(num_blocks, -1);
  for (int b = 0; b < num_blocks; ++b) {
    if (eliminate[b] || blocks[b].tangent_size == 0) continue;
    reduced_offset[b] = static_cast<int>(kept_.size());
    for (int i = 0; i < blocks[b].tangent_size; ++i) {
      kept_.push_back(blocks[b].tangent_offset + i);
    }
  }
  if (kept_.empty()) return;  // Block-diagonal: nothing would be left to factorise.
  std::vector<std::vector<int>> rows(num_blocks);  // Of each kept block column.
  for (int b = 0; b < num_blocks; ++b) {
    std::vector<int> kept_links;
    for (const Link& l : links[b]) {
      if (!eliminate[b] && !eliminate[l.block] && l.below) rows[b].push_back(l.block);
      if (eliminate[b]) kept_links.push_back(l.block);
    }
    std::sort(kept_links.begin(), kept_links.end());
    for (size_t p = 0; p < kept_links.size(); ++p) {
      for (size_t q = 0; q < p; ++q) rows[kept_links[q]].push_back(kept_links[p]);
    }
  }
  const int size = static_cast<int>(kept_.size());
  long num_entries = 0;
  for (int b = 0; b < num_blocks; ++b) {
    if (reduced_offset[b] < 0) continue;
    std::sort(rows[b].begin(), rows[b].end());
    rows[b].erase(std::unique(rows[b].begin(), rows[b].end()), rows[b].end());
    long height = blocks[b].tangent_size;
    for (const int r : rows[b]) height += blocks[r].tangent_size;
    num_entries += height * blocks[b].tangent_size;
  }
  if (num_entries > std::numeric_limits<int>::max() / 2) return;
  reduced_.resize(size, size);
  reduced_.reserve(num_entries);
  for (int b = 0; b < num_blocks; ++b) {
    if (reduced_offset[b] < 0) continue;
    const int width = blocks[b].tangent_size;
    for (int j = 0; j < width; ++j) {
      reduced_.startVec(reduced_offset[b] + j);
      for (int i = j; i < width; ++i) {
        reduced_.insertBack(reduced_offset[b] + i, reduced_offset[b] + j) = 0.0;
      }
      for (const int r : rows[b]) {
        for (int i = 0; i < blocks[r].tangent_size; ++i) {
          reduced_.insertBack(reduced_offset[r] + i, reduced_offset[b] + j) = 0.0;
        }
      }
    }
  }
  reduced_.finalize();
  const auto place = [&](int r, int c) {  // Where block r begins in column block c of S.
    if (r == c) return 0;
    int k = blocks[c].tangent_size;
    for (const int other : rows[c]) {
      if (other == r) return k;
      k += blocks[other].tangent_size;
    }
    return -1;
  };

  // Where the entries of C go.
  for (int c = 0; c < num_blocks; ++c) {
    if (reduced_offset[c] < 0) continue;
    const auto copy = [&](int r, int from_place) {
      const int to_place = place(r, c);
      for (int j = 0; j < blocks[c].tangent_size; ++j) {
        const int skip = r == c ? j : 0;
        runs_.push_back({outer[blocks[c].tangent_offset + j] + from_place - j + skip,
                         reduced_.outerIndexPtr()[reduced_offset[c] + j] + to_place - j + skip,
                         blocks[r].tangent_size - skip});
      }
    };
    copy(c, 0);
    for (const Link& l : links[c]) {
      if (l.below && !eliminate[l.block]) copy(l.block, l.place);
    }
  }

  // The eliminated blocks, in their order.
  long num_values = 0;
  for (int b = 0; b < num_blocks; ++b) {
    if (!eliminate[b]) continue;
    std::sort(links[b].begin(), links[b].end(), [](const Link& l, const Link& m) {
      return l.block < m.block;
    });
    Eliminated e;
    e.offset = blocks[b].tangent_offset;
    e.size = blocks[b].tangent_size;
    e.first_neighbour = static_cast<int>(neighbours_.size());
    e.num_neighbours = static_cast<int>(links[b].size());
    e.num_columns = 0;
    e.first_value = static_cast<int>(num_values);
    e.first_target = static_cast<int>(targets_.size());
    for (size_t p = 0; p < links[b].size(); ++p) {
      const Link& l = links[b][p];
      const Space::Block& block = blocks[l.block];
      neighbours_.push_back({reduced_offset[l.block],
                             block.tangent_size,
                             l.below ? e.offset : block.tangent_offset,
                             l.place,
                             !l.below});
      e.num_columns += block.tangent_size;
      for (size_t q = 0; q <= p; ++q) targets_.push_back(place(l.block, links[b][q].block));
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

}  // namespace bilevel
