#include "bilevel/lower_level/internal/component_eigen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "bilevel/base/internal/decompositions.h"

namespace bilevel {
namespace {

// Diagonal entries are scaled up to one unless they are this far below their component's largest.
constexpr double kDiagonalFloor = 1e-4;
// A component this far below the largest is nothing but rounding.
constexpr double kComponentFloor = 1e-14;
constexpr double kClearGap = 100.0;

}  // namespace

ComponentEigen::ComponentEigen(const SparseMatrix& lower)
    : component_(lower.cols()), position_(lower.cols()) {
  const int n = static_cast<int>(lower.cols());
  std::vector<int> root(n);  // Union-find.
  std::iota(root.begin(), root.end(), 0);
  const auto find = [&](int i) {
    while (root[i] != i) i = root[i] = root[root[i]];
    return i;
  };
  for (int j = 0; j < n; ++j) {
    for (SparseMatrix::InnerIterator entry(lower, j); entry; ++entry) {
      root[find(static_cast<int>(entry.row()))] = find(j);
    }
  }
  std::vector<int> number(n, -1);
  for (int i = 0; i < n; ++i) {
    int& c = number[find(i)];
    if (c < 0) {
      c = static_cast<int>(components_.size());
      components_.emplace_back();
    }
    component_[i] = c;
    position_[i] = static_cast<int>(components_[c].members.size());
    components_[c].members.push_back(i);
    largest_component_ = std::max(largest_component_, position_[i] + 1);
  }
}

Vector ComponentEigen::UnitDiagonal(const SparseMatrix& lower) const {
  Vector d = lower.diagonal().cwiseAbs();
  const double all = d.size() > 0 && d.maxCoeff() > 0.0 ? d.maxCoeff() : 1.0;
  for (const Component& c : components_) {
    double largest = 0.0;
    for (int i : c.members) largest = std::max(largest, d[i]);
    for (int i : c.members) {
      d[i] = largest > kComponentFloor * all ? std::max(d[i], kDiagonalFloor * largest) : all;
    }
  }
  return d;
}

bool ComponentEigen::Compute(const SparseMatrix& lower, const Vector& d, double tolerance) {
  d_ = d;
  root_ = d.cwiseSqrt();
  for (Component& c : components_) {
    c.vectors.setZero(c.members.size(), c.members.size());
    for (int j : c.members) {
      for (SparseMatrix::InnerIterator entry(lower, j); entry; ++entry) {
        const int i = static_cast<int>(entry.row());
        c.vectors(position_[i], position_[j]) = entry.value() / (root_[i] * root_[j]);
      }
    }
    if (!c.vectors.allFinite()) return false;
    if (c.members.size() == 1) {
      c.values = c.vectors.col(0);
      c.vectors(0, 0) = 1.0;
      continue;
    }
    const SymmetricEigen eigen(c.vectors);  // Reads the lower triangle.
    c.values = eigen.eigenvalues();
    c.vectors = eigen.eigenvectors();
  }

  cut_ = tolerance;
  if (tolerance == 0.0) {
    std::vector<double> window{kSurelyZero, kSurelyNot};
    for (const Component& c : components_) {
      for (double value : c.values) {
        window.push_back(std::min(std::max(std::abs(value), kSurelyZero), kSurelyNot));
      }
    }
    std::sort(window.begin(), window.end());
    double widest = 0.0;
    for (size_t i = 1; i < window.size(); ++i) {
      const double gap = window[i] / window[i - 1];
      if (gap <= widest) continue;
      widest = gap;
      cut_ = std::sqrt(window[i] * window[i - 1]);
    }
  }
  null_dimension_ = 0;
  largest_null_ = 0.0;
  lowest_ = smallest_kept_ = std::numeric_limits<double>::infinity();
  for (Component& c : components_) {
    c.null = DroppedBasis(c.members, c.vectors, c.values, cut_);
    for (double value : c.values) {
      lowest_ = std::min(lowest_, value);
      if (IsNull(value)) {
        ++null_dimension_;
        largest_null_ = std::max(largest_null_, std::abs(value));
      } else {
        smallest_kept_ = std::min(smallest_kept_, std::abs(value));
      }
    }
  }
  return true;
}

bool ComponentEigen::is_ambiguous() const {
  return null_dimension_ > 0 && smallest_kept_ < kClearGap * largest_null_;
}

// Orthonormal columns that span D^-1 v over the eigenvectors v with a magnitude up to `cut`.
Matrix ComponentEigen::DroppedBasis(const std::vector<int>& members,
                                    const Matrix& vectors,
                                    const Vector& values,
                                    double cut) const {
  const int size = static_cast<int>(members.size());
  Matrix basis(size, (values.array().abs() <= cut).count());
  int column = 0;
  for (int k = 0; k < size; ++k) {
    if (std::abs(values[k]) > cut) continue;
    for (int i = 0; i < size; ++i) basis(i, column) = vectors(i, k) / root_[members[i]];
    ++column;
  }
  if (basis.cols() == 0) return basis;
  return HouseholderQ(basis, column);
}

void ComponentEigen::Apply(const Vector& b, bool absolute, double floor, Vector* x) const {
  x->resize(size());
  Vector own, share;
  Matrix wider;
  for (const Component& c : components_) {
    const Matrix* dropped = &c.null;
    if (floor > cut_) {
      wider = DroppedBasis(c.members, c.vectors, c.values, floor);
      dropped = &wider;
    }
    own = b(c.members);
    own -= *dropped * (dropped->transpose() * own);
    own.array() /= root_(c.members).array();
    share.noalias() = c.vectors.transpose() * own;
    for (int k = 0; k < share.size(); ++k) {
      const double value = absolute ? std::abs(c.values[k]) : c.values[k];
      share[k] = std::abs(value) <= std::max(cut_, floor) ? 0.0 : share[k] / value;
    }
    own.noalias() = c.vectors * share;
    own.array() /= root_(c.members).array();
    own -= *dropped * (dropped->transpose() * own);
    (*x)(c.members) = own;
  }
}

SparseMatrix ComponentEigen::NullBasis() const {
  std::vector<Eigen::Triplet<double>> entries;
  int column = 0;
  for (const Component& c : components_) {
    for (int k = 0; k < c.null.cols(); ++k, ++column) {
      for (size_t i = 0; i < c.members.size(); ++i) {
        entries.emplace_back(c.members[i], column, c.null(i, k));
      }
    }
  }
  SparseMatrix basis(size(), column);
  basis.setFromTriplets(entries.begin(), entries.end());
  return basis;
}

Vector ComponentEigen::LowestDirection() const {
  Vector direction = Vector::Zero(size());
  for (const Component& c : components_) {
    if (c.values[0] != lowest_) continue;
    for (size_t i = 0; i < c.members.size(); ++i) {
      direction[c.members[i]] = c.vectors(i, 0) / root_[c.members[i]];
    }
    break;
  }
  return direction;
}

}  // namespace bilevel
