#ifndef BILEVEL_TESTS_LOWER_LEVEL_MATRICES_H_
#define BILEVEL_TESTS_LOWER_LEVEL_MATRICES_H_

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "bilevel/program/level_function.h"
#include "bilevel/program/space.h"

// Symmetric positive definite matrices, by their lower triangles.
namespace bilevel {

/// L L' + diagonal, of about `share` of the entries.
inline SparseMatrix RandomLower(int n, double share) {
  std::mt19937 generator(n);
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  SparseMatrix factor(n, n);
  for (int j = 0; j < n; ++j) {
    factor.insert(j, j) = 3.0 + uniform(generator);
    for (int i = j + 1; i < n; ++i) {
      if (std::abs(uniform(generator)) < share) factor.insert(i, j) = uniform(generator);
    }
  }
  const SparseMatrix product = factor * factor.transpose();
  return product.triangularView<Eigen::Lower>();
}

/// A chain: nearly diagonal.
inline SparseMatrix Chain(int n) {
  SparseMatrix chain(n, n);
  for (int j = 0; j < n; ++j) {
    chain.insert(j, j) = 2.1;
    if (j + 1 < n) chain.insert(j + 1, j) = -1.0;
  }
  chain.makeCompressed();
  return chain;
}

/// J'J + I of random observations of points (3 coordinates) by cameras (6), which also see their
/// successors; points come before, between and after the cameras that see them, which stand beside
/// each other where they are `near`.
struct Network {
  Network(int num_cameras, int num_points, bool near = false)
      : memory(6 * num_cameras + 3 * num_points) {
    std::mt19937 generator(1);
    std::vector<int> cameras, points;
    double* next = memory.data();
    const auto add = [&](int size) {
      const int block = space.Add(next, size, nullptr, "block");
      next += size;
      return block;
    };
    for (int p = 0, c = 0; p < num_points; ++p) {
      points.push_back(add(3));
      if (c < num_cameras && p % (num_points / num_cameras) == 0) cameras.push_back(add(6)), ++c;
    }
    dense = Matrix::Identity(space.tangent_size(), space.tangent_size());
    pattern = Matrix::Identity(space.tangent_size(), space.tangent_size());
    for (const Space::Block& b : space.blocks()) Touch(b, b);
    std::normal_distribution<double> normal;
    const auto observe = [&](int a, int b) {
      const Space::Block &first = space.blocks()[a], &second = space.blocks()[b];
      Matrix j(2, first.tangent_size + second.tangent_size);
      for (int k = 0; k < j.cols(); ++k) {
        j(0, k) = normal(generator);
        j(1, k) = normal(generator);
      }
      const Matrix product = j.transpose() * j;
      std::vector<int> own(j.cols());
      for (int k = 0; k < j.cols(); ++k) {
        own[k] = k < first.tangent_size ? first.tangent_offset + k
                                        : second.tangent_offset + k - first.tangent_size;
      }
      dense(own, own) += product;
      Touch(first, second);
    };
    for (int p = 0; p < num_points; ++p) {
      for (int k = 0; k < 3; ++k) {
        const int any = static_cast<int>(generator() % cameras.size());
        const int beside = std::min(p * num_cameras / num_points + k, num_cameras - 1);
        observe(points[p], cameras[near ? beside : any]);
      }
    }
    for (size_t c = 1; c < cameras.size(); ++c) observe(cameras[c - 1], cameras[c]);
    std::vector<Eigen::Triplet<double>> entries;
    for (int j = 0; j < dense.cols(); ++j) {
      for (int i = j; i < dense.rows(); ++i) {
        if (pattern(i, j) != 0.0) entries.emplace_back(i, j, dense(i, j));
      }
    }
    lower.resize(dense.rows(), dense.cols());
    lower.setFromTriplets(entries.begin(), entries.end());
  }
  void Touch(const Space::Block& a, const Space::Block& b) {
    pattern.block(a.tangent_offset, b.tangent_offset, a.tangent_size, b.tangent_size).setOnes();
    pattern.block(b.tangent_offset, a.tangent_offset, b.tangent_size, a.tangent_size).setOnes();
  }
  std::vector<double> memory;
  Space space;
  Matrix dense, pattern;
  SparseMatrix lower;
};

/// J'J + I of blocks that stand on a grid and see their neighbours, and a few further ones.
inline SparseMatrix Grid(int side, int block_size, int num_far) {
  const int n = side * side * block_size;
  std::mt19937 generator(side);
  std::normal_distribution<double> normal;
  std::vector<Eigen::Triplet<double>> entries;
  for (int i = 0; i < n; ++i) entries.emplace_back(i, i, 1.0);
  const auto observe = [&](int a, int b) {
    Matrix j(block_size, 2 * block_size);
    for (int k = 0; k < j.size(); ++k) j.data()[k] = normal(generator);
    const Matrix product = j.transpose() * j;
    const auto coordinate = [&](int i) {
      return i < block_size ? a * block_size + i : (b - 1) * block_size + i;
    };
    for (int r = 0; r < 2 * block_size; ++r) {
      for (int c = 0; c < 2 * block_size; ++c) {
        if (coordinate(r) < coordinate(c)) continue;
        entries.emplace_back(coordinate(r), coordinate(c), product(r, c));
      }
    }
  };
  for (int i = 0; i < side * side; ++i) {
    if ((i + 1) % side != 0) observe(i, i + 1);
    if (i + side < side * side) observe(i, i + side);
  }
  for (int k = 0; k < num_far; ++k) {
    const int a = generator() % (side * side), b = generator() % (side * side);
    if (a != b) observe(a, b);
  }
  SparseMatrix lower(n, n);
  lower.setFromTriplets(entries.begin(), entries.end());
  return lower;
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_LOWER_LEVEL_MATRICES_H_
