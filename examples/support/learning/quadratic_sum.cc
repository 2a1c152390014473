#include "examples/support/learning/quadratic_sum.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>

#include "examples/support/dense.h"

namespace bilevel {
namespace {

using Map = Eigen::Map<Vector>;
using ConstMap = Eigen::Map<const Vector>;

// body(i, weight) for the terms of a batch, after the outputs that are wanted were zeroed.
template <typename Body>
void ForEach(const QuadraticSum& s, const Batch& batch, double** outputs, Body body) {
  if (outputs && outputs[0]) Map(outputs[0], s.x.size()).setZero();
  if (outputs && outputs[1]) Map(outputs[1], s.y.size()).setZero();
  const int total = s.num_terms();
  for (int k = 0; k < batch.Count(total); ++k) {
    body(batch.Term(k, total), batch.Weight(k, total) / total);
  }
}

}  // namespace

QuadraticSum::QuadraticSum(int num_terms, int m, int n, double noise, double regularization)
    : rho(regularization), x(Vector::Zero(m)), y(Vector::Zero(n)) {
  std::mt19937 generator(7);
  std::normal_distribution<double> normal;
  const auto random = [&](int rows, int columns, double scale) {
    return Matrix(Matrix::NullaryExpr(rows, columns, [&] { return scale * normal(generator); }));
  };
  const Matrix c = random(n, m, 1.0 / std::sqrt(m));
  const Vector offset = random(n, 1, 1.0), target = random(n, 1, 1.0);
  mean_h.setZero(n, n);
  mean_c.setZero(n, m);
  mean_d.setZero(n);
  mean_b.setZero(n);
  for (int i = 0; i < num_terms; ++i) {
    const Vector u = random(n, 1, 1.0).normalized();
    Matrix term = Vector::LinSpaced(n, 1.0, 2.0).asDiagonal();
    term += std::min(noise, 0.5) * (i % 2 ? -1.0 : 1.0) * u * u.transpose();
    h.push_back(term);
    cs.push_back(c + random(n, m, noise / std::sqrt(m)));
    d.push_back(offset + random(n, 1, noise));
    b.push_back(target + random(n, 1, noise));
    mean_h += h.back() / num_terms;
    mean_c += cs.back() / num_terms;
    mean_d += d.back() / num_terms;
    mean_b += b.back() / num_terms;
  }
}

bool QuadraticSum::Lower::Evaluate(double const* const* blocks,
                                   const Batch& batch,
                                   double* value,
                                   double** gradients) const {
  const Eigen::Index m = s_.x.size(), n = s_.y.size();
  const ConstMap px(blocks[0], m), py(blocks[1], n);
  *value = 0.0;
  ForEach(s_, batch, gradients, [&](int i, double weight) {
    double sum = 0.0;
    for (int r = 0; r < n; ++r) {
      const double hy = s_.h[i].row(r).dot(py), cx = s_.cs[i].row(r).dot(px) + s_.d[i][r];
      sum += py[r] * (0.5 * hy - cx);
      if (gradients && gradients[1]) gradients[1][r] += weight * (hy - cx);
    }
    *value += weight * sum;
    if (gradients && gradients[0]) {
      Map(gradients[0], m).noalias() -= weight * s_.cs[i].transpose().lazyProduct(py);
    }
  });
  return true;
}

bool QuadraticSum::Lower::HessianProduct(double const* const* /*blocks*/,
                                         const Batch& batch,
                                         double const* const* direction,
                                         double** products) const {
  const Eigen::Index m = s_.x.size(), n = s_.y.size();
  ForEach(s_, batch, products, [&](int i, double weight) {
    if (!direction[1]) return;
    const ConstMap v(direction[1], n);
    if (products[1]) Map(products[1], n).noalias() += weight * s_.h[i].lazyProduct(v);
    if (products[0]) {
      Map(products[0], m).noalias() -= weight * s_.cs[i].transpose().lazyProduct(v);
    }
  });
  return true;
}

bool QuadraticSum::Upper::Evaluate(double const* const* blocks,
                                   const Batch& batch,
                                   double* value,
                                   double** gradients) const {
  const Eigen::Index m = s_.x.size(), n = s_.y.size();
  const ConstMap px(blocks[0], m), py(blocks[1], n);
  *value = 0.0;
  ForEach(s_, batch, gradients, [&](int j, double weight) {
    *value += 0.5 * weight * ((py - s_.b[j]).squaredNorm() + s_.rho * px.squaredNorm());
    if (gradients && gradients[0]) Map(gradients[0], m) += weight * s_.rho * px;
    if (gradients && gradients[1]) Map(gradients[1], n) += weight * (py - s_.b[j]);
  });
  return true;
}

Vector QuadraticSum::LowerSolution(const Vector& at) const {
  return examples::SolveSymmetric(mean_h, mean_c * at + mean_d);
}
Vector QuadraticSum::Hypergradient(const Vector& at) const {
  const Vector z = examples::SolveSymmetric(mean_h, LowerSolution(at) - mean_b);
  return rho * at + mean_c.transpose() * z;
}
Matrix QuadraticSum::UpperHessian() const {
  const Matrix dy = examples::SolveSymmetric(mean_h, mean_c);
  return dy.transpose() * dy + rho * Matrix::Identity(x.size(), x.size());
}
Vector QuadraticSum::UpperSolution() const {
  return examples::SolveSymmetric(UpperHessian(), -Hypergradient(Vector::Zero(x.size())));
}

void QuadraticSum::AddTo(Problem* problem) {
  const int m = static_cast<int>(x.size()), n = static_cast<int>(y.size());
  problem->AddUpperParameterBlock(x.data(), m);
  problem->AddTerm(Level::kLower, std::make_unique<Lower>(this), {{x.data(), m}, {y.data(), n}});
  problem->AddTerm(Level::kUpper, std::make_unique<Upper>(this), {{x.data(), m}, {y.data(), n}});
}

}  // namespace bilevel
