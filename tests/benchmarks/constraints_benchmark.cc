// The hypergradient of a lower level with 50 active constraints beside that without any, at equal
// size: one warm lower solve where x has moved a little, and the derivative of phi there. In turns,
// on one thread. And the KKT systems that a solve takes which follows x over changes of the active
// set.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "constrained_problems.h"
#include "figures.h"

namespace bilevel {
namespace {

constexpr int kConstraints = 50, kRounds = 15;

double Seconds(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void Require(bool ok, const std::string& why) {
  if (ok) return;
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

struct Pull {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::exp;
    r[0] = exp(x[0]) * (y[0] - a);
    r[1] = exp(x[1]) * (y[1] - 0.5);
    return true;
  }
  double a;
};

struct Neighbours {
  template <typename T>
  bool operator()(const T* x, const T* y, const T* z, T* r) const {
    using std::exp;
    using std::sin;
    r[0] = exp(x[2]) * (y[0] - z[0] + 0.1 * sin(y[1]));
    r[1] = exp(x[2]) * (y[1] - z[1]);
    return true;
  }
};

struct Circle {
  template <typename T>
  bool operator()(const T* x, const T* y, T* c) const {
    c[0] = y[0] * y[0] + y[1] * y[1] - 0.5 - x[0];
    return true;
  }
};

// side^2 blocks of two on a grid, some of them on a circle.
class Plane {
 public:
  Plane(int side, int num_constraints) : y_(2 * side * side, 0.3) {
    problem_.AddUpperParameterBlock(x_, 3);
    const auto at = [&](int i, int j) { return &y_[2 * (i * side + j)]; };
    const auto link = [&](double* a, double* b) {
      problem_.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Neighbours, 2, 3, 2, 2>(new Neighbours), nullptr, x_, a, b);
    };
    for (int i = 0; i < side; ++i) {
      for (int j = 0; j < side; ++j) {
        problem_.lower()->AddResidualBlock(
            new AutoDiffCostFunction<Pull, 2, 3, 2>(new Pull{1.0 + 0.1 * std::sin(i + j)}),
            nullptr,
            x_,
            at(i, j));
        if (i > 0) link(at(i, j), at(i - 1, j));
        if (j > 0) link(at(i, j), at(i, j - 1));
        problem_.upper()->AddResidualBlock(new NormalPrior({0.7, 0.3}, 1.0), nullptr, at(i, j));
      }
    }
    for (int k = 0; k < num_constraints; ++k) {
      problem_.AddLowerInequality(new AutoDiffCostFunction<Circle, 1, 3, 2>(new Circle),
                                  x_,
                                  &y_[2 * (k * (side * side / num_constraints))]);
    }
    std::string error;
    program_ = problem_.Compile({}, &error);
    Require(program_ != nullptr, error);
    NewtonLowerSolver::Options options;
    options.ceres.logging_type = ceres::SILENT;
    solver_ = MakeNewtonLowerSolver(program_.get(), options);
    oracle_ = std::make_unique<Oracle>(program_.get(), solver_.get(), 0);
    at_ = Point(&program_->x);
    solution_ = Point(&program_->y);
    program_->x.ReadUser(at_.value().data());
    program_->y.ReadUser(solution_.value().data());
    Hypergradient();
  }

  void Hypergradient() {
    Require(at_.Move(0.001 * Vector::Ones(3)), "x does not move");
    Require(solver_->Solve(at_, &solution_) && solver_->Differentiate(at_, solution_),
            solver_->message());
    Vector gradient, fy, product;
    oracle_->f.Gradient(at_, solution_, &gradient, &fy);
    Require(solver_->Adjoint(fy, &product), solver_->message());
  }

 private:
  double x_[3] = {0.1, 0.2, 0.3};
  std::vector<double> y_;
  Problem problem_;
  std::unique_ptr<Program> program_;
  std::unique_ptr<NewtonLowerSolver> solver_;
  std::unique_ptr<Oracle> oracle_;
  Point at_, solution_;
};

void CompareHypergradients(int side) {
  Plane free(side, 0), constrained(side, kConstraints);
  std::vector<double> ratios;
  for (int k = 0; k < kRounds; ++k) {
    const double alone = Seconds([&] { free.Hypergradient(); });
    ratios.push_back(Seconds([&] { constrained.Hypergradient(); }) / alone);
  }
  Row(std::to_string(2 * side * side) +
          " unknowns, 50 active: hypergradient / one without constraints",
      Median(ratios),
      "1.5");
}

// The path of the tests, around two discs whose margin grows: five changes.
void FollowAPath() {
  constexpr int kSteps = 60;
  PathPastDiscs path(0.0);
  Constrained c(&path.problem, 1e-10);
  Vector gradient;
  c.Phi(&gradient);
  const long before = c.solver->num_kkt_systems();
  for (int k = 0; k < kSteps; ++k) {
    Require(c.x.Move(0.001 * Vector::Unit(3, 2)), "x does not move");
    c.Phi(&gradient);
  }
  Row("a path past discs: KKT systems a lower solve and its derivative",
      static_cast<double>(c.solver->num_kkt_systems() - before) / kSteps,
      "3.5");
  Row("a path past discs: fallbacks to the augmented Lagrangian",
      static_cast<double>(c.solver->num_fallbacks()),
      "0");
}

}  // namespace
}  // namespace bilevel

int main() {
  for (const int side : {20, 50, 80}) bilevel::CompareHypergradients(side);
  bilevel::FollowAPath();
  return 0;
}
