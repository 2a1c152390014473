#ifndef BILEVEL_TERMS_CONVEX_SET_H_
#define BILEVEL_TERMS_CONVEX_SET_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "Eigen/Core"
#include "ceres/cost_function.h"

namespace bilevel {

/// A closed convex set that a block of y lies in, see Scenario::SetLowerSet. Boxes are the bounds
/// of ceres::Problem and need none of this. Thread-safe.
class ConvexSet {
 public:
  virtual ~ConvexSet() = default;

  /// Why it is no set of that many values, in a sentence; empty where it is one.
  virtual std::string Check(int /*size*/) const { return ""; }

  /// values <- the nearest point of the set.
  virtual void Project(double* values, int size) const = 0;

  /// v <- P'(values) v, the derivative of the projection where it has one, a side of it elsewhere.
  /// It is symmetric, since P is the gradient of a convex function. By differences where it is not
  /// overridden.
  virtual void ProjectDerivative(const double* values, int size, double* v) const;

  /// The same set as constraints, h = 0 or c <= 0 by row, new ones; none: the projection is all
  /// that is known of it, and y*(x) takes a lower solver that projects (Sgm).
  struct Constraint {
    std::unique_ptr<ceres::CostFunction> cost;
    bool is_inequality;
  };
  virtual std::vector<Constraint> NewConstraints(int /*size*/) const { return {}; }
};

/// |values - centre| <= radius.
std::unique_ptr<ConvexSet> NewBall(std::vector<double> centre, double radius);
/// values >= 0, their sum = sum.
std::unique_ptr<ConvexSet> NewSimplex(double sum = 1.0);
/// a values = b.
std::unique_ptr<ConvexSet> NewAffineSet(Eigen::MatrixXd a, Eigen::VectorXd b);
/// a values <= b. The projection is a quadratic program, solved by Goldfarb's and Idnani's dual
/// active sets (1983).
std::unique_ptr<ConvexSet> NewPolyhedron(Eigen::MatrixXd a, Eigen::VectorXd b);
/// A set of your own, by its projection.
using ProjectionFunction = std::function<void(double* values, int size)>;
std::unique_ptr<ConvexSet> NewConvexSet(ProjectionFunction projection);

}  // namespace bilevel

#endif  // BILEVEL_TERMS_CONVEX_SET_H_
