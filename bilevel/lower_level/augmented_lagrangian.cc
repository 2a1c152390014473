#include "bilevel/lower_level/augmented_lagrangian.h"

#include <cmath>
#include <utility>

#include "bilevel/terms/second_order_cost_function.h"

namespace bilevel {
namespace {

using Rows = AugmentedLagrangian::Rows;

// sqrt(rho) (c + shift) row by row, or 0.
template <typename Base>
class PenaltyCost : public Base {
 public:
  PenaltyCost(const Base* cost, const Rows* rows, int first_row)
      : cost_(*cost), rows_(*rows), first_(first_row) {
    this->set_num_residuals(cost->num_residuals());
    *this->mutable_parameter_block_sizes() = cost->parameter_block_sizes();
  }

  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    if (!cost_.Evaluate(parameters, residuals, jacobians)) return false;
    for (int k = 0; k < this->num_residuals(); ++k) {
      const double shifted = residuals[k] + rows_.shift[first_ + k];
      const double weight = IsOff(k, shifted) ? 0.0 : Root(k);
      residuals[k] = weight * shifted;
      for (size_t b = 0; jacobians && b < this->parameter_block_sizes().size(); ++b) {
        const int size = this->parameter_block_sizes()[b];
        for (int j = 0; jacobians[b] && j < size; ++j) jacobians[b][k * size + j] *= weight;
      }
    }
    return true;
  }

 protected:
  double Root(int k) const { return std::sqrt(rows_.rho[first_ + k]); }

  const Base& cost_;

 private:
  bool IsOff(int k, double shifted) const {
    const char mode = rows_.mode[first_ + k];
    return mode == Rows::kOut ||
           (mode == Rows::kOpen && rows_.is_inequality[first_ + k] && !(shifted > 0.0));
  }

  const Rows& rows_;
  const int first_;
};

// A row that is off has a residual, and with it a weight, of 0.
class ExactPenaltyCost final : public PenaltyCost<SecondOrderCostFunction> {
 public:
  using PenaltyCost::PenaltyCost;
  bool EvaluateHessian(double const* const* parameters,
                       const double* weights,
                       double* hessian) const override {
    return cost_.EvaluateHessian(parameters, Scaled(weights), hessian);
  }
  bool EvaluateHessianProduct(double const* const* parameters,
                              const double* weights,
                              const double* direction,
                              double* product) const override {
    return cost_.EvaluateHessianProduct(parameters, Scaled(weights), direction, product);
  }

 private:
  const double* Scaled(const double* weights) const {
    thread_local std::vector<double> scaled;
    scaled.resize(num_residuals());
    for (int k = 0; k < num_residuals(); ++k) scaled[k] = Root(k) * weights[k];
    return scaled.data();
  }
};

// The user's pointers of a residual block's or term's arguments, which are what identifies them.
std::vector<double*> Blocks(const LevelFunction& level, int first, int count) {
  std::vector<double*> blocks;
  for (int k = first; k < first + count; ++k) {
    const LevelFunction::Argument& a = level.arguments()[k];
    const Space& space = a.kind == LevelFunction::Argument::kX ? level.x() : level.y();
    blocks.push_back(a.kind == LevelFunction::Argument::kConstant ? const_cast<double*>(a.constant)
                                                                  : space.blocks()[a.block].user);
  }
  return blocks;
}

}  // namespace

AugmentedLagrangian::AugmentedLagrangian(const Program::Scenario& of, const Space* x)
    : scenario_(std::make_shared<Program::Scenario>()) {
  Program::Scenario& made = *scenario_;
  made.index = of.index;
  made.name = of.name;
  made.weight = of.weight;
  made.y = of.y;
  made.offset = of.offset;
  made.tangent_offset = of.tangent_offset;
  made.upper = of.upper;
  made.lower = of.lower;
  const LevelFunction &g = *of.g, &constraints = *of.constraints;
  made.g =
      std::make_unique<LevelFunction>(x,
                                      &made.y,
                                      g.name() + " with its constraints, from residual block " +
                                          std::to_string(g.num_residual_blocks()) + " on,");
  for (const LevelFunction::Residual& r : g.residuals()) {
    made.g->AddResidual(r.cost, r.loss, Blocks(g, r.first, r.num_arguments));
  }
  const int num_rows = constraints.num_residuals();
  rows_.rho = Vector::Ones(num_rows);
  rows_.shift = Vector::Zero(num_rows);
  rows_.mode.assign(num_rows, Rows::kOut);
  rows_.is_inequality = of.is_inequality;
  for (const LevelFunction::Residual& r : constraints.residuals()) {
    if (r.exact) {
      costs_.push_back(std::make_unique<ExactPenaltyCost>(r.exact, &rows_, r.row));
    } else {
      costs_.push_back(std::make_unique<PenaltyCost<ceres::CostFunction>>(r.cost, &rows_, r.row));
    }
    made.g->AddResidual(
        costs_.back().get(), nullptr, Blocks(constraints, r.first, r.num_arguments));
  }
  for (const LevelFunction::Term& t : g.terms()) {
    std::vector<int> sizes;
    for (int k = t.first; k < t.first + t.num_arguments; ++k) {
      sizes.push_back(g.arguments()[k].size);
    }
    made.g->AddTerm(t.objective, Blocks(g, t.first, t.num_arguments), sizes);
  }
  made.g->SetCallback(g.callback());
  made.g->Finish();
}

AugmentedLagrangian::~AugmentedLagrangian() = default;

}  // namespace bilevel
