#ifndef BILEVEL_TESTS_ORACLE_PHI_AROUND_H_
#define BILEVEL_TESTS_ORACLE_PHI_AROUND_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/oracle/hyper_hessian.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/program/program.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {

// phi of a problem around where the user's values are.
struct Phi {
  using MakeLower = std::function<std::unique_ptr<LowerSolver>(Program*)>;
  static std::unique_ptr<LowerSolver> Newton(Program* program) {
    NewtonLowerSolver::Options options;
    options.tolerance = 1e-14;
    return std::make_unique<NewtonLowerSolver>(program, options);
  }

  explicit Phi(Problem* problem, int num_threads = 1, const MakeLower& make = Newton) {
    Problem::CompileOptions options;
    options.num_threads = num_threads;
    std::string error;
    program = problem->Compile(options, &error);
    EXPECT_TRUE(program) << error;
    lower = make(program.get());
    oracle = std::make_unique<Oracle>(program.get(), lower.get(), 0);
    hessian = std::make_unique<HyperHessian>(oracle.get());
    x = Point(&program->x);
    y = Point(&program->y);
    program->x.ReadUser(x.value().data());
    program->y.ReadUser(y.value().data());
    EXPECT_TRUE(oracle->Solve(x, &y)) << oracle->message();
  }

  // Of the second derivative; false where it is refused.
  bool Evaluate(Matrix* result, const std::vector<char>& held = {}) {
    EXPECT_TRUE(oracle->Differentiate(x, &y)) << oracle->message();
    return hessian->Evaluate(x, y, held, result);
  }
  Matrix Hessian(const std::vector<char>& held = {}) {
    Matrix result;
    EXPECT_TRUE(Evaluate(&result, held)) << hessian->message();
    return result;
  }

  double Value(const Vector& step, Vector* gradient = nullptr) {
    Point moved = x;
    EXPECT_TRUE(moved.Move(step));
    HyperObjective phi(oracle.get(), y);
    double value = 0.0;
    Vector unused;
    EXPECT_TRUE(phi.Evaluate(moved, &value, gradient, &y.value())) << phi.message();
    return value;
  }
  // x must be flat: gradients elsewhere are in other coordinates.
  Matrix DifferencedGradients() {
    const int m = x.dim();
    Matrix result(m, m);
    for (int a = 0; a < m; ++a) {
      result.col(a) = Derivative<Vector>([&](double h) -> Vector {
        Vector gradient;
        Value(h * Vector::Unit(m, a), &gradient);
        return gradient;
      });
    }
    return result;
  }
  Matrix DifferencedValues() {
    const int m = x.dim();
    Matrix result(m, m);
    for (int a = 0; a < m; ++a) {
      for (int b = 0; b < m; ++b) {
        result(a, b) = Derivative<double>([&](double s) {
          return Derivative<double>(
              [&](double t) { return Value(s * Vector::Unit(m, a) + t * Vector::Unit(m, b)); });
        });
      }
    }
    return result;
  }

  std::unique_ptr<Program> program;
  std::unique_ptr<LowerSolver> lower;
  std::unique_ptr<Oracle> oracle;
  std::unique_ptr<HyperHessian> hessian;
  Point x, y;
};

inline double Off(const Matrix& a, const Matrix& b) { return (a - b).norm() / b.norm(); }

}  // namespace bilevel

#endif  // BILEVEL_TESTS_ORACLE_PHI_AROUND_H_
