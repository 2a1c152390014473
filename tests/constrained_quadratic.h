#ifndef BILEVEL_TESTS_CONSTRAINED_QUADRATIC_H_
#define BILEVEL_TESTS_CONSTRAINED_QUADRATIC_H_

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "Eigen/Cholesky"
#include "Eigen/LU"
#include "constrained_problems.h"

namespace bilevel {

// Of a constraint, at an x where the lower level is only just feasible.
constexpr double kMet = 1e-8;

// y in argmin { 1/2 y'Qy - (R x + q)'y : C y <= E x + e }, the first rows being equalities;
// f = 1/2 |A y + B x - t|^2; lower <= x <= upper.
struct Quadratic {
  std::string name;
  Matrix q_matrix, r;
  Vector q;
  Matrix c, e_matrix;
  Vector e;
  int num_equalities;
  Matrix a, b;
  Vector t;
  std::vector<double> lower, upper, start_x, start_y;
  double known = std::numeric_limits<double>::quiet_NaN();  // The least phi, where published.
};

class Instance {
 public:
  explicit Instance(const Quadratic& p) : p_(p), x(p.start_x), y(p.start_y) {
    const int m = static_cast<int>(x.size()), k = p.num_equalities;
    problem.AddUpperParameterBlock(x.data(), m);
    for (int j = 0; j < m; ++j) {
      problem.SetParameterLowerBound(x.data(), j, p.lower[j]);
      problem.SetParameterUpperBound(x.data(), j, p.upper[j]);
    }
    // 1/2 |L'y - L^-1 (R x + q)|^2.
    const Eigen::LLT<Matrix> llt(p.q_matrix);
    const Matrix l = llt.matrixL();
    problem.lower()->AddResidualBlock(
        new Affine(l.transpose(), -llt.matrixL().solve(p.r), llt.matrixL().solve(p.q)),
        nullptr,
        y.data(),
        x.data());
    problem.upper()->AddResidualBlock(new Affine(p.a, p.b, p.t), nullptr, y.data(), x.data());
    const int rows = static_cast<int>(p.e.size());
    if (k > 0) {
      problem.AddLowerEquality(
          new Affine(p.c.topRows(k), -p.e_matrix.topRows(k), p.e.head(k)), y.data(), x.data());
    }
    for (int i = k; i < rows; ++i) {
      problem.AddLowerInequality(
          new Affine(p.c.row(i), -p.e_matrix.row(i), p.e.segment(i, 1)), y.data(), x.data());
    }
  }

  // y* and its derivative by all active sets, of which the first that fits is taken; *margin is the
  // least multiplier or distance of an inequality. False: there is no feasible point.
  bool Enumerate(const Vector& at, Vector* y_star, Matrix* dy_dx, double* margin) const {
    const int n = static_cast<int>(p_.q.size()), rows = static_cast<int>(p_.e.size());
    const int m = static_cast<int>(at.size());
    const Vector right = p_.e_matrix * at + p_.e, linear = p_.r * at + p_.q;
    for (int set = 0; set < 1 << rows; ++set) {
      if ((set & ((1 << p_.num_equalities) - 1)) != (1 << p_.num_equalities) - 1) continue;
      std::vector<int> in;
      for (int i = 0; i < rows; ++i) {
        if (set >> i & 1) in.push_back(i);
      }
      const int s = static_cast<int>(in.size());
      if (s > n) continue;
      Matrix k = Matrix::Zero(n + s, n + s), b(n + s, 1 + m);
      k.topLeftCorner(n, n) = p_.q_matrix;
      b.topRows(n) << linear, p_.r;
      for (int i = 0; i < s; ++i) {
        k.row(n + i).head(n) = p_.c.row(in[i]);
        k.col(n + i).head(n) = p_.c.row(in[i]).transpose();
        b.row(n + i) << right[in[i]], p_.e_matrix.row(in[i]);
      }
      const Eigen::FullPivLU<Matrix> lu(k);
      if (!lu.isInvertible()) continue;
      const Matrix z = lu.solve(b);
      const Vector slack = right - p_.c * z.col(0).head(n);
      *margin = std::numeric_limits<double>::infinity();
      bool is_solution = (slack.array() >= -kMet).all();
      for (int i = 0; i < rows; ++i) {
        if (!(set >> i & 1)) *margin = std::min(*margin, slack[i]);
      }
      for (int i = 0; i < s; ++i) {
        if (in[i] < p_.num_equalities) continue;
        is_solution &= z(n + i, 0) >= -kMet;
        *margin = std::min(*margin, z(n + i, 0));
      }
      if (!is_solution) continue;
      *y_star = z.col(0).head(n);
      *dy_dx = z.topRightCorner(n, m);
      return true;
    }
    return false;
  }

  // Infinite where there is none.
  double Phi(const Vector& at) const {
    Vector y_star;
    Matrix unused;
    double margin;
    if (!Enumerate(at, &y_star, &unused, &margin)) return std::numeric_limits<double>::infinity();
    return 0.5 * (p_.a * y_star + p_.b * at - p_.t).squaredNorm();
  }

  // The least on a grid around `centre`, within the bounds, again and again; *at is where.
  double Least(const Vector& centre, double half_width, int num, Vector* at) const {
    const int m = static_cast<int>(centre.size());
    *at = centre;
    double least = Phi(centre);
    for (double width = half_width; width > 1e-9; width *= 0.3) {
      const Vector middle = *at;
      const int total = m == 1 ? num : num * num;
      for (int k = 0; k < total; ++k) {
        Vector trial(m);
        for (int j = 0; j < m; ++j) {
          const int step = j == 0 ? k % num : k / num;
          trial[j] =
              std::min(std::max(middle[j] + width * (2.0 * step / (num - 1) - 1.0), p_.lower[j]),
                       p_.upper[j]);
        }
        const double value = Phi(trial);
        if (value < least) {
          least = value;
          *at = trial;
        }
      }
    }
    return least;
  }

  double Global() const {
    Vector middle(x.size()), at;
    double width = 0.0;
    for (size_t j = 0; j < x.size(); ++j) {
      middle[j] = 0.5 * (p_.lower[j] + p_.upper[j]);
      width = std::max(width, 0.5 * (p_.upper[j] - p_.lower[j]));
    }
    return Least(middle, width, x.size() == 1 ? 2001 : 101, &at);
  }

 private:
  const Quadratic p_;

 public:
  std::vector<double> x, y;
  Problem problem;
};

}  // namespace bilevel

#endif  // BILEVEL_TESTS_CONSTRAINED_QUADRATIC_H_
