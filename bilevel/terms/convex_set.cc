#include "bilevel/terms/convex_set.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/terms/second_order_cost_function.h"

namespace bilevel {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using Values = Eigen::Map<VectorXd>;
using ConstValues = Eigen::Map<const VectorXd>;

// Rows over one block whose curvature is a multiple of the identity.
class Rows : public SecondOrderCostFunction {
 public:
  Rows(int size, int num_rows) {
    mutable_parameter_block_sizes()->push_back(size);
    set_num_residuals(num_rows);
  }
  bool EvaluateHessian(double const* const* /*parameters*/,
                       const double* weights,
                       double* hessian) const override {
    const int size = parameter_block_sizes()[0];
    Eigen::Map<MatrixXd>(hessian, size, size) =
        curvature() * weights[0] * MatrixXd::Identity(size, size);
    return true;
  }
  bool EvaluateHessianProduct(double const* const* /*parameters*/,
                              const double* weights,
                              const double* direction,
                              double* product) const override {
    const int size = parameter_block_sizes()[0];
    Values(product, size) = curvature() * weights[0] * ConstValues(direction, size);
    return true;
  }

 private:
  virtual double curvature() const { return 0.0; }  // Of the first.
};

// a values - b.
class LinearRows : public Rows {
 public:
  LinearRows(MatrixXd a, VectorXd b)
      : Rows(static_cast<int>(a.cols()), static_cast<int>(a.rows())),
        a_(std::move(a)),
        b_(std::move(b)) {}
  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    Values(residuals, a_.rows()) = a_ * ConstValues(parameters[0], a_.cols()) - b_;
    if (jacobians && jacobians[0]) {
      Eigen::Map<MatrixXd>(jacobians[0], a_.cols(), a_.rows()) = a_.transpose();  // By rows.
    }
    return true;
  }

 private:
  const MatrixXd a_;
  const VectorXd b_;
};

// Half the squared distance to the centre, less half the squared radius, in units of the latter's.
class WithinBall : public Rows {
 public:
  WithinBall(const std::vector<double>& centre, double radius)
      : Rows(static_cast<int>(centre.size()), 1),
        centre_(ConstValues(centre.data(), centre.size())),
        radius_(radius) {}
  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    const ConstValues values(parameters[0], centre_.size());
    residuals[0] = 0.5 / radius_ * ((values - centre_).squaredNorm() - radius_ * radius_);
    if (jacobians && jacobians[0]) {
      Values(jacobians[0], centre_.size()) = (values - centre_) / radius_;
    }
    return true;
  }

 private:
  double curvature() const override { return 1.0 / radius_; }

  const VectorXd centre_;
  const double radius_;
};

class Ball : public ConvexSet {
 public:
  Ball(std::vector<double> centre, double radius) : centre_(std::move(centre)), radius_(radius) {}

  std::string Check(int size) const override {
    if (size != static_cast<int>(centre_.size())) {
      return "a ball whose centre has " + std::to_string(centre_.size()) + " values";
    }
    return radius_ > 0.0 && std::isfinite(radius_) ? "" : "a ball whose radius is not positive";
  }
  void Project(double* values, int size) const override {
    Values v(values, size);
    const ConstValues c(centre_.data(), size);
    const double distance = (v - c).norm();
    if (distance > radius_) v = c + radius_ / distance * (v - c);
  }
  void ProjectDerivative(const double* values, int size, double* direction) const override {
    Values d(direction, size);
    VectorXd normal = ConstValues(values, size) - ConstValues(centre_.data(), size);
    const double distance = normal.norm();
    if (!(distance > radius_)) return;
    normal /= distance;
    d = radius_ / distance * (d - normal * normal.dot(d)).eval();
  }
  std::vector<Constraint> NewConstraints(int /*size*/) const override {
    std::vector<Constraint> constraints;
    constraints.push_back({std::make_unique<WithinBall>(centre_, radius_), true});
    return constraints;
  }

 private:
  const std::vector<double> centre_;
  const double radius_;
};

class Simplex : public ConvexSet {
 public:
  explicit Simplex(double sum) : sum_(sum) {}

  std::string Check(int /*size*/) const override {
    return sum_ > 0.0 && std::isfinite(sum_) ? "" : "a simplex whose sum is not positive";
  }
  void Project(double* values, int size) const override {
    const double threshold = Threshold(values, size);
    for (int i = 0; i < size; ++i) values[i] = std::max(0.0, values[i] - threshold);
  }
  // Within the face: less the mean of what is positive.
  void ProjectDerivative(const double* values, int size, double* direction) const override {
    const double threshold = Threshold(values, size);
    double mean = 0.0;
    int num = 0;
    for (int i = 0; i < size; ++i) {
      if (!(values[i] > threshold)) continue;
      mean += direction[i];
      ++num;
    }
    for (int i = 0; i < size; ++i) {
      direction[i] = values[i] > threshold ? direction[i] - mean / num : 0.0;
    }
  }
  std::vector<Constraint> NewConstraints(int size) const override {
    std::vector<Constraint> constraints;
    constraints.push_back(
        {std::make_unique<LinearRows>(MatrixXd::Ones(1, size), VectorXd::Constant(1, sum_)),
         false});
    constraints.push_back(
        {std::make_unique<LinearRows>(-MatrixXd::Identity(size, size), VectorXd::Zero(size)),
         true});
    return constraints;
  }

 private:
  // Held, Wolfe and Crowder (1974): t with sum of max(0, v_i - t) = sum, on the sorted values.
  double Threshold(const double* values, int size) const {
    std::vector<double> sorted(values, values + size);
    std::sort(sorted.begin(), sorted.end(), std::greater<double>());
    double total = 0.0, threshold = 0.0;
    for (int k = 0; k < size; ++k) {
      total += sorted[k];
      const double candidate = (total - sum_) / (k + 1);
      if (sorted[k] <= candidate) break;
      threshold = candidate;
    }
    return threshold;
  }

  const double sum_;
};

std::string CheckRows(const MatrixXd& a, const VectorXd& b, int size, const char* what) {
  if (a.cols() == size && a.rows() == b.size() && a.rows() > 0 && a.allFinite() && b.allFinite()) {
    return "";
  }
  return std::string(what) + " whose a is not finite, of as many rows as b and " +
         std::to_string(size) + " columns";
}

class AffineSet : public ConvexSet {
 public:
  AffineSet(MatrixXd a, VectorXd b) : a_(std::move(a)), b_(std::move(b)) {
    if (a_.size() > 0 && a_.allFinite()) inverse_ = PseudoInverse(a_);
  }

  std::string Check(int size) const override {
    if (const std::string wrong = CheckRows(a_, b_, size, "an affine set"); !wrong.empty()) {
      return wrong;
    }
    const double off = (a_ * (inverse_ * b_) - b_).norm();
    return off <= 1e-9 * (1.0 + b_.norm()) ? "" : "an affine set without a point";
  }
  void Project(double* values, int size) const override {
    Values v(values, size);
    v -= inverse_ * (a_ * v - b_);
  }
  void ProjectDerivative(const double* /*values*/, int size, double* direction) const override {
    Values d(direction, size);
    d -= inverse_ * (a_ * d);
  }
  std::vector<Constraint> NewConstraints(int /*size*/) const override {
    std::vector<Constraint> constraints;
    constraints.push_back({std::make_unique<LinearRows>(a_, b_), false});
    return constraints;
  }

 private:
  const MatrixXd a_;
  const VectorXd b_;
  MatrixXd inverse_;
};

// min 1/2 |z - v|^2 with a z <= b is z = v - a'w for w >= 0 that minimises 1/2 |a'w|^2 - (a v -
// b)'w.
class Polyhedron : public ConvexSet {
 public:
  Polyhedron(MatrixXd a, VectorXd b) : a_(std::move(a)), b_(std::move(b)) {
    // Rows of length 1, so that what is violated is a distance.
    for (int i = 0; i < a_.rows() && i < b_.size(); ++i) {
      const double norm = a_.row(i).norm();
      if (!(norm > 0.0) || !std::isfinite(norm)) continue;
      a_.row(i) /= norm;
      b_[i] /= norm;
    }
  }

  std::string Check(int size) const override {
    if (const std::string wrong = CheckRows(a_, b_, size, "a polyhedron"); !wrong.empty()) {
      return wrong;
    }
    VectorXd z = VectorXd::Zero(size);
    Project(z.data(), size);
    const double worst = (a_ * z - b_).maxCoeff();
    return worst <= 1e-8 * (1.0 + b_.lpNorm<Eigen::Infinity>()) ? ""
                                                                : "a polyhedron without a point";
  }
  void Project(double* values, int size) const override {
    Values v(values, size);
    v -= a_.transpose() * Multipliers(v);
  }
  void ProjectDerivative(const double* values, int size, double* direction) const override {
    const VectorXd w = Multipliers(ConstValues(values, size));
    const std::vector<int> active = Positive(w);
    if (active.empty()) return;
    Values d(direction, size);
    const MatrixXd normals = Columns(active);
    d -= normals * LeastSquares(normals, d);
  }
  std::vector<Constraint> NewConstraints(int /*size*/) const override {
    std::vector<Constraint> constraints;
    constraints.push_back({std::make_unique<LinearRows>(a_, b_), true});
    return constraints;
  }

 private:
  static std::vector<int> Positive(const VectorXd& w) {
    std::vector<int> positive;
    for (int i = 0; i < w.size(); ++i) {
      if (w[i] > 0.0) positive.push_back(i);
    }
    return positive;
  }
  MatrixXd Columns(const std::vector<int>& rows) const {
    MatrixXd columns(a_.cols(), rows.size());
    for (size_t k = 0; k < rows.size(); ++k) columns.col(k) = a_.row(rows[k]).transpose();
    return columns;
  }

  // Goldfarb and Idnani (Mathematical Programming 27, 1983): the row that is violated most is taken
  // in; of those that then would pull, w < 0, the first to do so goes.
  VectorXd Multipliers(const VectorXd& v) const {
    VectorXd w = VectorXd::Zero(a_.rows());
    const double tolerance = 1e-14 * (1.0 + v.norm() + b_.lpNorm<Eigen::Infinity>());
    for (int round = 0; round < 10 * a_.rows(); ++round) {
      int worst;
      const VectorXd violation = a_ * (v - a_.transpose() * w) - b_;
      if (!(violation.maxCoeff(&worst) > tolerance) || !TakeIn(v, worst, &w)) break;
    }
    return w;
  }

  // False: the row contradicts the others, and there is no point.
  bool TakeIn(const VectorXd& v, int row, VectorXd* w) const {
    const VectorXd normal = a_.row(row).transpose();
    for (;;) {
      std::vector<int> active = Positive(*w);
      active.erase(std::remove(active.begin(), active.end(), row), active.end());
      const MatrixXd normals = Columns(active);
      VectorXd share(active.size());
      if (!active.empty()) share = LeastSquares(normals, normal);
      const double free = (normal - normals * share).squaredNorm();
      const double violation = normal.dot(v - a_.transpose() * *w) - b_[row];
      double step = free > 1e-24 ? violation / free : kInfinity;
      int blocking = -1;
      for (size_t k = 0; k < active.size(); ++k) {
        const double own = (*w)[active[k]];
        if (!(share[k] > 0.0) || !(own < step * share[k])) continue;
        step = own / share[k];
        blocking = active[k];
      }
      if (!std::isfinite(step)) return false;
      (*w)[row] += step;
      for (size_t k = 0; k < active.size(); ++k) {
        (*w)[active[k]] = std::max(0.0, (*w)[active[k]] - step * share[k]);
      }
      if (blocking < 0) return true;
      (*w)[blocking] = 0.0;
    }
  }

  MatrixXd a_;
  VectorXd b_;
};

class OwnSet : public ConvexSet {
 public:
  explicit OwnSet(ProjectionFunction projection) : projection_(std::move(projection)) {}
  std::string Check(int /*size*/) const override {
    return projection_ ? "" : "a set whose projection is an empty function";
  }
  void Project(double* values, int size) const override { projection_(values, size); }

 private:
  const ProjectionFunction projection_;
};

}  // namespace

void ConvexSet::ProjectDerivative(const double* values, int size, double* v) const {
  Values direction(v, size);
  const double norm = direction.norm();
  if (!(norm > 0.0)) return;
  const ConstValues at(values, size);
  const double h = 1e-5 * (1.0 + at.norm()) / norm;
  VectorXd ahead = at + h * direction, behind = at - h * direction;
  Project(ahead.data(), size);
  Project(behind.data(), size);
  direction = (ahead - behind) / (2.0 * h);
}

std::unique_ptr<ConvexSet> NewBall(std::vector<double> centre, double radius) {
  return std::make_unique<Ball>(std::move(centre), radius);
}
std::unique_ptr<ConvexSet> NewSimplex(double sum) { return std::make_unique<Simplex>(sum); }
std::unique_ptr<ConvexSet> NewAffineSet(MatrixXd a, VectorXd b) {
  return std::make_unique<AffineSet>(std::move(a), std::move(b));
}
std::unique_ptr<ConvexSet> NewPolyhedron(MatrixXd a, VectorXd b) {
  return std::make_unique<Polyhedron>(std::move(a), std::move(b));
}
std::unique_ptr<ConvexSet> NewConvexSet(ProjectionFunction projection) {
  return std::make_unique<OwnSet>(std::move(projection));
}

}  // namespace bilevel
