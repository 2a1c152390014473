#include "bilevel/lower_level/selected_inverse.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "bilevel/lower_level/factorization.h"
#include "bilevel/lower_level/internal/schur_elimination.h"
#include "bilevel/lower_level/internal/supernodal_factor.h"

namespace bilevel {
namespace {

using Supernode = SupernodalFactor::Supernode;

constexpr int kWide = 24;  // Triangles as such are a gain from here on.

// Takes the place of a factor by the inverse's entries, supernode by supernode from the last one;
// the blocks on the diagonal become whole.
class Inversion {
 public:
  explicit Inversion(SupernodalFactor* factor) : f_(*factor) {}

  void Run() {
    for (size_t k = f_.supernodes.size(); k-- > 0;) Invert(f_.supernodes[k]);
  }

 private:
  void Invert(const Supernode& s) {
    const int w = s.num_columns, h = s.num_below();
    SupernodalFactor::Block all = f_.block(s);
    auto own = all.topRows(w);
    Eigen::Ref<Matrix> below = all.bottomRows(h);
    InvertTriangle(own);
    if (w < kWide || h == 0) {
      m_.noalias() = below * triangle_;
    } else {
      m_.noalias() = below * triangle_.triangularView<Eigen::Lower>();
    }
    below.setZero();
    for (int begin = 0, end; begin < h; begin = end) {
      const int* const rows = &f_.rows[s.first_row + w];
      const Supernode& above = f_.supernodes[f_.supernode_of[rows[begin]]];
      end = static_cast<int>(
          std::lower_bound(rows + begin, rows + h, above.first + above.num_columns) - rows);
      SubtractProduct(above, rows, begin, end, h, &below);
    }
    if (f_.signs.size() > 0) {
      own.noalias() = triangle_.transpose() * f_.signs.segment(s.first, w).asDiagonal() * triangle_;
    } else {
      own.noalias() = triangle_.transpose() * triangle_;
    }
    own.noalias() -= m_.transpose() * below;
    // Both triangles of later products are to be the same.
    for (int j = 0; j < w; ++j) own.row(j).tail(w - j - 1) = own.col(j).tail(w - j - 1).transpose();
  }

  // L_ss^-1. Eigen's solver is slow on narrow ones, and wide ones are rare.
  template <typename Derived>
  void InvertTriangle(const Eigen::MatrixBase<Derived>& l) {
    const int w = static_cast<int>(l.cols());
    triangle_.setZero(w, w);
    for (int j = 0; j < w; ++j) {
      triangle_(j, j) = 1.0;
      for (int k = j; k < w; ++k) {
        const double x = triangle_(k, j) / l(k, k);
        triangle_(k, j) = x;
        for (int i = k + 1; i < w; ++i) triangle_(i, j) -= l(i, k) * x;
      }
    }
  }

  // The part of Z_ps -= Z_pp M that is from columns begin to end - 1 of Z_pp's lower triangle, and
  // from their mirror image: they stand in one supernode above.
  void SubtractProduct(const Supernode& above,
                       const int* rows,
                       int begin,
                       int end,
                       int h,
                       Eigen::Ref<Matrix>* z_ps) {
    const int count = end - begin, height = h - begin;
    const int* const first = &f_.rows[above.first_row];
    const int* const last = first + above.num_rows;
    place_.resize(height);
    const int* at = first;
    for (int i = 0; i < height; ++i) {
      at = std::lower_bound(at, last, rows[begin + i]);
      place_[i] = static_cast<int>(at - first);
    }
    const SupernodalFactor::Block z = f_.block(above);
    if (place_.back() - place_.front() == height - 1) {
      Subtract(z.block(place_[0], place_[0], height, count), begin, z_ps);
      return;
    }
    z_.resize(height, count);
    for (int j = 0; j < count; ++j) {
      const double* const from = &z.coeffRef(0, place_[j]);
      for (int i = 0; i < height; ++i) z_(i, j) = from[place_[i]];
    }
    Subtract(z_, begin, z_ps);
  }

  template <typename Derived>
  void Subtract(const Eigen::MatrixBase<Derived>& z, int begin, Eigen::Ref<Matrix>* z_ps) {
    const int count = static_cast<int>(z.cols()), below = static_cast<int>(z.rows()) - count;
    z_ps->bottomRows(count + below).noalias() -= z * m_.middleRows(begin, count);
    z_ps->middleRows(begin, count).noalias() -=
        z.bottomRows(below).transpose() * m_.bottomRows(below);
  }

  SupernodalFactor& f_;
  Matrix triangle_, m_, z_;
  std::vector<int> place_;
};

}  // namespace

struct SelectedInverse::Implementation {
  Implementation(SupernodalFactor factor, const Vector& of_scale)
      : scale(of_scale), inverse(std::move(factor)) {
    Inversion(&inverse).Run();
  }

  // Of S or, where nothing was eliminated, of the whole matrix: entries between given coordinates.
  // False where one is outside of the pattern.
  bool Gather(const std::vector<int>& rows, const std::vector<int>& columns, Matrix* block) const {
    block->resize(rows.size(), columns.size());
    for (size_t j = 0; j < columns.size(); ++j) {
      for (size_t i = 0; i < rows.size(); ++i) {
        const int p = inverse.position[rows[i]], q = inverse.position[columns[j]];
        const double* const entry = Find(std::max(p, q), std::min(p, q));
        if (!entry) return false;
        (*block)(i, j) = *entry;
      }
    }
    return true;
  }

  // In the lower triangle.
  const double* Find(int row, int column) const {
    const Supernode& s = inverse.supernodes[inverse.supernode_of[column]];
    int place = row - s.first;
    if (place >= s.num_columns) {
      const auto begin = inverse.rows.begin() + s.first_row, end = begin + s.num_rows;
      const auto found = std::lower_bound(begin + s.num_columns, end, row);
      if (found == end || *found != row) return nullptr;
      place = static_cast<int>(found - begin);
    }
    return &inverse.values[s.first_value + static_cast<long>(column - s.first) * s.stride + place];
  }

  // Of the scaled matrix.
  bool GetBlock(int row, int num_rows, int column, int num_columns, Matrix* block) const {
    if (!schur) {
      std::vector<int>& rows = left.columns;
      std::vector<int>& columns = right.columns;
      rows.resize(num_rows);
      columns.resize(num_columns);
      std::iota(rows.begin(), rows.end(), row);
      std::iota(columns.begin(), columns.end(), column);
      return Gather(rows, columns, block);
    }
    schur->Express(row, num_rows, &left);
    schur->Express(column, num_columns, &right);
    if (!Gather(left.columns, right.columns, &kept)) return false;
    product.noalias() = left.t * kept;
    block->noalias() = product * right.t.transpose();
    if (left.eliminated >= 0 && left.eliminated == right.eliminated) {
      block->noalias() += left.r.transpose() * right.r;
    }
    return true;
  }

  Vector scale;
  const Factorization* factorization = nullptr;  // None: nothing is fixed.
  const SchurElimination* schur = nullptr;
  SupernodalFactor inverse;
  // Scratch.
  mutable SchurElimination::Expression left, right;
  mutable Matrix kept, product;
};

SelectedInverse::SelectedInverse(const Factorization& factorization) {
  SupernodalFactor factor;
  factorization.CopyFactor(&factor);
  implementation_ = std::make_unique<Implementation>(std::move(factor), factorization.scale());
  implementation_->factorization = &factorization;
  implementation_->schur = factorization.elimination();
}

SelectedInverse::SelectedInverse(SupernodalFactor factor, const Vector& scale)
    : implementation_(std::make_unique<Implementation>(std::move(factor), scale)) {}

SelectedInverse::~SelectedInverse() = default;

bool SelectedInverse::GetBlock(
    int row, int num_rows, int column, int num_columns, Matrix* block) const {
  const Implementation& s = *implementation_;
  if (!s.GetBlock(row, num_rows, column, num_columns, block)) return false;
  for (int j = 0; j < num_columns; ++j) {
    for (int i = 0; i < num_rows; ++i) {
      double& entry = (*block)(i, j);
      const bool is_fixed = s.factorization && (s.factorization->is_fixed(row + i) ||
                                                s.factorization->is_fixed(column + j));
      entry = is_fixed ? 0.0 : entry / (s.scale[row + i] * s.scale[column + j]);
    }
  }
  return true;
}

}  // namespace bilevel
