#include "bilevel/internal/true_jacobian.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <typeinfo>
#include <utility>

#include "Eigen/Core"
#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/internal/inverted_manifold.h"

namespace bilevel {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Relative errors that are none of the differences'.
constexpr double kWrongPlusJacobian = 1e-3, kWrongJacobian = 1e-4;

double Largest(const MatrixXd& m) { return m.size() > 0 ? m.cwiseAbs().maxCoeff() : 0.0; }

// d function(delta) / d delta_j at 0, by central differences of eighth order, whose difference to
// those of sixth order tells where the step is too long, or too short. function(delta, &value) is
// false where it cannot be evaluated; the error is infinite where that is so for all steps.
template <typename Function>
VectorXd DifferenceAlong(int j, int num_rows, int num_columns, Function function, double* error) {
  constexpr double kOrder8[] = {4.0 / 5, -1.0 / 5, 4.0 / 105, -1.0 / 280};
  constexpr double kOrder6[] = {3.0 / 4, -3.0 / 20, 1.0 / 60, 0.0};
  constexpr double kTolerance = 1e-11;
  VectorXd delta = VectorXd::Zero(num_columns), ahead(num_rows), behind(num_rows);
  VectorXd best = VectorXd::Zero(num_rows);
  *error = std::numeric_limits<double>::infinity();
  double step = 1.0 / 64.0;
  for (int trial = 0; trial < 6; ++trial, step /= 4.0) {
    VectorXd order8 = VectorXd::Zero(num_rows), order6 = order8;
    bool is_evaluated = true;
    for (int k = 0; k < 4 && is_evaluated; ++k) {
      delta[j] = (k + 1) * step;
      is_evaluated = function(delta, &ahead);
      delta[j] = -delta[j];
      is_evaluated = is_evaluated && function(delta, &behind);
      order8 += kOrder8[k] / step * (ahead - behind);
      order6 += kOrder6[k] / step * (ahead - behind);
    }
    const double own = Largest(order8 - order6);
    if (!is_evaluated || !(own < *error)) continue;
    *error = own;
    best = order8;
    if (own <= kTolerance * Largest(order8)) break;
  }
  return best;
}

// For all coordinates. False where it cannot be evaluated, or not to a thousandth.
template <typename Function>
bool Difference(int num_rows, int num_columns, Function function, MatrixXd* derivative) {
  derivative->resize(num_rows, num_columns);
  double largest_error = 0.0;
  for (int j = 0; j < num_columns; ++j) {
    double error;
    derivative->col(j) = DifferenceAlong(j, num_rows, num_columns, function, &error);
    largest_error = std::max(largest_error, error);
  }
  return largest_error <= 1e-3 * Largest(*derivative);
}

bool DifferencePlus(const ceres::Manifold& manifold, const double* x, MatrixXd* derivative) {
  return Difference(
      manifold.AmbientSize(),
      manifold.TangentSize(),
      [&](const VectorXd& delta, VectorXd* y) { return manifold.Plus(x, delta.data(), y->data()); },
      derivative);
}

// One central difference, along all coordinates at once: not to be trusted, but quick.
bool LooksWrong(const ceres::Manifold& manifold, const double* x) {
  constexpr double kStep = 1e-4;
  RowMatrix jacobian(manifold.AmbientSize(), manifold.TangentSize());
  VectorXd delta(manifold.TangentSize()), ahead(manifold.AmbientSize()), behind = ahead;
  for (int j = 0; j < delta.size(); ++j) delta[j] = kStep * std::cos(1.0 + j);
  if (jacobian.size() == 0 || !manifold.PlusJacobian(x, jacobian.data()) ||
      !manifold.Plus(x, delta.data(), ahead.data())) {
    return false;
  }
  delta = -delta;
  if (!manifold.Plus(x, delta.data(), behind.data())) return false;
  const VectorXd difference = 0.5 * (ahead - behind), claimed = -jacobian.lazyProduct(delta);
  const double size = std::max(Largest(difference), Largest(claimed));
  return Largest(difference - claimed) > 0.1 * kWrongPlusJacobian * size;
}

}  // namespace

double PlusJacobianError(const ceres::Manifold& manifold, const double* x) {
  RowMatrix jacobian(manifold.AmbientSize(), manifold.TangentSize());
  MatrixXd differences;
  if (jacobian.size() == 0 || !DifferencePlus(manifold, x, &differences) ||
      !manifold.PlusJacobian(x, jacobian.data())) {
    return 0.0;
  }
  const double size = std::max(Largest(differences), Largest(jacobian));
  return size > 0.0 ? Largest(differences - jacobian) / size : 0.0;
}

class TrueJacobians::DifferencedManifold : public InvertedManifold {
 public:
  /// Not owned.
  explicit DifferencedManifold(const ceres::Manifold* manifold)
      : InvertedManifold(manifold), theirs_(*manifold) {}
  bool PlusJacobian(const double* x, double* jacobian) const override {
    MatrixXd differences;
    if (!DifferencePlus(theirs_, x, &differences)) return false;
    Eigen::Map<RowMatrix>(jacobian, AmbientSize(), TangentSize()) = differences;
    return true;
  }
  const ceres::Manifold& theirs() const { return theirs_; }

 private:
  const ceres::Manifold& theirs_;
};

// Jacobians that are tangent in some arguments, lifted to the ambient ones that vanish off the
// manifold: J P (P'P)^-1 P', with P of theirs first and the true one then.
class TrueJacobians::LiftedCost : public ceres::CostFunction {
 public:
  LiftedCost(const ceres::CostFunction* cost, std::vector<const DifferencedManifold*> lifted)
      : cost_(*cost), lifted_(std::move(lifted)) {
    set_num_residuals(cost->num_residuals());
    *mutable_parameter_block_sizes() = cost->parameter_block_sizes();
  }
  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    if (!cost_.Evaluate(parameters, residuals, jacobians)) return false;
    for (size_t i = 0; jacobians && i < lifted_.size(); ++i) {
      if (!lifted_[i] || !jacobians[i]) continue;
      const int size = parameter_block_sizes()[i], tangent_size = lifted_[i]->TangentSize();
      RowMatrix theirs(size, tangent_size), plus(size, tangent_size);
      if (!lifted_[i]->theirs().PlusJacobian(parameters[i], theirs.data()) ||
          !lifted_[i]->PlusJacobian(parameters[i], plus.data())) {
        return false;
      }
      Eigen::Map<RowMatrix> jacobian(jacobians[i], num_residuals(), size);
      const RowMatrix tangent = jacobian.lazyProduct(theirs);
      jacobian = tangent.lazyProduct(PseudoInverse(plus));
    }
    return true;
  }

 private:
  const ceres::CostFunction& cost_;
  const std::vector<const DifferencedManifold*> lifted_;
};

bool TrueJacobians::IsWrong(const ceres::Manifold& manifold,
                            const double* values,
                            const std::string& name) {
  if (wrong_types_.count(typeid(manifold))) return true;
  double error = 0.0;
  // What throws here does so in every evaluation, which will say so.
  Thrown([&] {
    if (LooksWrong(manifold, values)) error = PlusJacobianError(manifold, values);
  });
  if (!(error > kWrongPlusJacobian)) return false;
  // One tells for all of its type; any LocalParameterization may stand behind an inverted one.
  if (!dynamic_cast<const InvertedManifold*>(&manifold)) wrong_types_.insert(typeid(manifold));
  if (program_.remark.empty()) {
    program_.remark = "PlusJacobian of the manifold of " + name +
                      " is not the derivative of its Plus (a relative " + Scientific(error) +
                      " off): derivatives were differenced along Plus";
  }
  return true;
}

const ceres::Manifold* TrueJacobians::OfManifold(const ceres::Manifold* manifold,
                                                 const double* values,
                                                 const std::string& name) {
  if (!manifold || !IsWrong(*manifold, values, name)) return manifold;
  auto differenced = std::make_unique<DifferencedManifold>(manifold);
  differenced_[values] = differenced.get();
  program_.own_manifolds.push_back(std::move(differenced));
  return program_.own_manifolds.back().get();
}

std::string TrueJacobians::OfCost(const std::vector<double*>& blocks,
                                  const ceres::CostFunction** cost) {
  if (differenced_.empty()) return "";
  std::vector<const DifferencedManifold*> manifolds;
  for (const double* block : blocks) {
    const auto found = differenced_.find(block);
    manifolds.push_back(found == differenced_.end() ? nullptr : found->second);
  }
  std::string complaint;
  Thrown([&] { complaint = Lift(manifolds, blocks, cost); });
  return complaint;
}

std::string TrueJacobians::Lift(const std::vector<const DifferencedManifold*>& manifolds,
                                const std::vector<double*>& blocks,
                                const ceres::CostFunction** cost) {
  const int num_rows = (*cost)->num_residuals(), num_arguments = static_cast<int>(blocks.size());
  std::vector<RowMatrix> jacobians(num_arguments);
  std::vector<double*> wanted(num_arguments, nullptr);
  for (int i = 0; i < num_arguments; ++i) {
    if (!manifolds[i]) continue;
    jacobians[i].resize(num_rows, (*cost)->parameter_block_sizes()[i]);
    wanted[i] = jacobians[i].data();
  }
  VectorXd residuals(num_rows);
  // What cannot be evaluated here cannot be later, which will say so.
  if (!(*cost)->Evaluate(blocks.data(), residuals.data(), wanted.data())) return "";
  std::vector<const DifferencedManifold*> lifted(num_arguments, nullptr);
  for (int i = 0; i < num_arguments; ++i) {
    if (!manifolds[i]) continue;
    std::vector<const double*> moved(blocks.begin(), blocks.end());
    VectorXd x(manifolds[i]->AmbientSize());
    moved[i] = x.data();
    MatrixXd differences;
    const auto residuals_along = [&](const VectorXd& delta, VectorXd* r) {
      return manifolds[i]->Plus(blocks[i], delta.data(), x.data()) &&
             (*cost)->Evaluate(moved.data(), r->data(), nullptr);
    };
    // Where it cannot be had, no Jacobian will fit.
    Difference(num_rows, manifolds[i]->TangentSize(), residuals_along, &differences);
    RowMatrix plus(x.size(), manifolds[i]->TangentSize()), theirs = plus;
    if (!manifolds[i]->PlusJacobian(blocks[i], plus.data()) ||
        !manifolds[i]->theirs().PlusJacobian(blocks[i], theirs.data())) {
      continue;
    }
    const double size = std::max(Largest(differences), Largest(jacobians[i]));
    const auto error = [&](const RowMatrix& p) {
      return Largest(differences - jacobians[i].lazyProduct(p)) / size;
    };
    if (size == 0.0 || error(plus) <= kWrongJacobian) continue;
    if (!(error(theirs) <= kWrongJacobian)) {
      return "has a Jacobian by its parameter block " + std::to_string(i) +
             " that is neither ambient nor, by the manifold's own PlusJacobian, along Plus: it is "
             "a relative " +
             Scientific(std::min(error(plus), error(theirs))) + " off differences along it";
    }
    lifted[i] = manifolds[i];
  }
  if (std::any_of(lifted.begin(), lifted.end(), [](const auto* m) { return m != nullptr; })) {
    program_.own_costs.push_back(std::make_unique<LiftedCost>(*cost, std::move(lifted)));
    *cost = program_.own_costs.back().get();
  }
  return "";
}

}  // namespace bilevel
