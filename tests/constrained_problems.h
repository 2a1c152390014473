#ifndef BILEVEL_TESTS_CONSTRAINED_PROBLEMS_H_
#define BILEVEL_TESTS_CONSTRAINED_PROBLEMS_H_

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/constrained_lower_solver.h"
#include "bilevel/oracle/oracle.h"
#include "gtest/gtest.h"

namespace bilevel {

// A y + B x - c, row by row, over one block of each.
class Affine : public SecondOrderCostFunction {
 public:
  Affine(Matrix a, Matrix b, Vector c) : a_(std::move(a)), b_(std::move(b)), c_(std::move(c)) {
    set_num_residuals(static_cast<int>(c_.size()));
    *mutable_parameter_block_sizes() = {static_cast<int>(a_.cols()), static_cast<int>(b_.cols())};
  }
  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    const Eigen::Map<const Vector> y(parameters[0], a_.cols()), x(parameters[1], b_.cols());
    Eigen::Map<Vector>(residuals, c_.size()) = a_ * y + b_ * x - c_;
    using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    if (jacobians && jacobians[0]) {
      Eigen::Map<RowMatrix>(jacobians[0], a_.rows(), a_.cols()) = a_;
    }
    if (jacobians && jacobians[1]) {
      Eigen::Map<RowMatrix>(jacobians[1], b_.rows(), b_.cols()) = b_;
    }
    return true;
  }
  bool EvaluateHessian(double const* const*, const double*, double* hessian) const override {
    const int64_t n = a_.cols() + b_.cols();
    std::fill_n(hessian, n * n, 0.0);
    return true;
  }
  bool EvaluateHessianProduct(double const* const*,
                              const double*,
                              const double*,
                              double* product) const override {
    std::fill_n(product, a_.cols() + b_.cols(), 0.0);
    return true;
  }

 private:
  Matrix a_, b_;
  Vector c_;
};

inline Matrix Rows(int columns, const std::vector<double>& entries) {
  Matrix m(entries.size() / columns, columns);
  for (int i = 0; i < m.rows(); ++i) {
    for (int j = 0; j < columns; ++j) m(i, j) = entries[i * columns + j];
  }
  return m;
}
inline Vector Entries(const std::vector<double>& entries) {
  return Eigen::Map<const Vector>(entries.data(), static_cast<int64_t>(entries.size()));
}

// 40 points from (0, 0) to (1, 0), short and smooth, which keep off two discs by r + x[2].
constexpr int kPoints = 40;

struct Segment {  // y_i - y_{i-1}, weight e^x0.
  template <typename T>
  bool operator()(const T* x, const T* a, const T* b, T* r) const {
    using std::exp;
    for (int k = 0; k < 2; ++k) r[k] = exp(x[0]) * (b[k] - a[k]) * std::sqrt(double(kPoints));
    return true;
  }
};
struct Bend {  // Second differences, weight e^x1.
  template <typename T>
  bool operator()(const T* x, const T* a, const T* b, const T* c, T* r) const {
    using std::exp;
    for (int k = 0; k < 2; ++k) {
      r[k] = exp(x[1]) * (a[k] - 2.0 * b[k] + c[k]) * 0.1 * std::pow(double(kPoints), 1.5);
    }
    return true;
  }
};
struct Disc {
  template <typename T>
  bool operator()(const T* x, const T* y, T* c) const {
    const T dx = y[0] - m[0], dy = y[1] - m[1], off = r + x[2];
    c[0] = off * off - dx * dx - dy * dy;
    return true;
  }
  double m[2], r;
};

struct PathPastDiscs {
  explicit PathPastDiscs(double margin) : x{0.0, -1.0, margin} {
    problem.AddUpperParameterBlock(x, 3);
    const Disc discs[2] = {{{0.35, 0.03}, 0.15}, {{0.7, -0.05}, 0.13}};
    for (int i = 0; i < kPoints + 2; ++i) {
      const double s = i / (kPoints + 1.0);
      y[i][0] = s;
      y[i][1] = 0.25 * std::sin(M_PI * s);
    }
    y[kPoints + 1][1] = 0.0;
    for (int i = 1; i < kPoints + 2; ++i) {
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Segment, 2, 3, 2, 2>(new Segment), nullptr, x, y[i - 1], y[i]);
      if (i == 1) continue;
      problem.lower()->AddResidualBlock(new AutoDiffCostFunction<Bend, 2, 3, 2, 2, 2>(new Bend),
                                        nullptr,
                                        x,
                                        y[i - 2],
                                        y[i - 1],
                                        y[i]);
    }
    problem.lower()->SetParameterBlockConstant(y[0]);
    problem.lower()->SetParameterBlockConstant(y[kPoints + 1]);
    for (const Disc& disc : discs) {
      for (int i = 1; i <= kPoints; ++i) {
        problem.AddLowerInequality(
            new AutoDiffCostFunction<Disc, 1, 3, 2>(new Disc(disc)), x, y[i]);
      }
    }
    for (int i = 1; i <= kPoints; ++i) {
      const double s = i / (kPoints + 1.0);
      problem.upper()->AddResidualBlock(
          new NormalPrior({s, 0.28 * std::sin(M_PI * s) * (1.0 - 0.3 * s)}, 1.0), nullptr, y[i]);
    }
  }
  double x[3], y[kPoints + 2][2];
  Problem problem;
};

// phi(x), its gradient and y* from the user's values, by the solver under test.
struct Constrained {
  explicit Constrained(Problem* problem, double tolerance = 1e-13) {
    std::string error;
    program = problem->Compile({}, &error);
    EXPECT_TRUE(program) << error;
    NewtonLowerSolver::Options options;
    options.ceres.logging_type = ceres::SILENT;
    options.tolerance = tolerance;
    solver = std::make_unique<ConstrainedLowerSolver>(program.get(), options);
    oracle = std::make_unique<Oracle>(program.get(), solver.get(), 0);
    x = Point(&program->x);
    y = Point(&program->y);
    program->x.ReadUser(x.value().data());
    program->y.ReadUser(y.value().data());
  }

  double Phi(const Point& at, Vector* gradient = nullptr) {
    EXPECT_TRUE(solver->Solve(at, &y)) << solver->message();
    Vector gx, fy, product;
    const double phi = oracle->f.Gradient(at, y, &gx, &fy);
    if (gradient) {
      EXPECT_TRUE(solver->Differentiate(at, y)) << solver->message();
      EXPECT_TRUE(solver->Adjoint(fy, &product)) << solver->message();
      *gradient = gx + product;
    }
    return phi;
  }
  double Phi(Vector* gradient = nullptr) { return Phi(x, gradient); }

  std::unique_ptr<Program> program;
  std::unique_ptr<ConstrainedLowerSolver> solver;
  std::unique_ptr<Oracle> oracle;
  Point x, y;
};

}  // namespace bilevel

#endif  // BILEVEL_TESTS_CONSTRAINED_PROBLEMS_H_
