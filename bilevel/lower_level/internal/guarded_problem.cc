#include "bilevel/lower_level/internal/guarded_problem.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <mutex>
#include <utility>
#include <vector>

#include "bilevel/base/internal/thrown.h"
#include "bilevel/base/internal/vector_passes.h"
#include "ceres/cost_function.h"
#include "ceres/evaluation_callback.h"
#include "ceres/loss_function.h"
#include "ceres/manifold.h"

namespace bilevel {

namespace {

// Whether Ceres would abort on it.
bool Falls(const double rho[3]) { return rho[1] < 0.0 || (rho[1] == 0.0 && rho[2] > 0.0); }

}  // namespace

// What failed first; any thread may tell.
class GuardedProblem::Culprit {
 public:
  bool Blame(const std::string& who, const std::string& what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (first_.empty()) first_ = who + " " + what;
    return false;
  }
  // body(), false where it throws; who() is a name.
  template <typename Who, typename Body>
  bool Guard(const Who& who, Body body) {
    bool is_done = false;
    const std::string thrown = Thrown([&] { is_done = body(); });
    return thrown.empty() ? is_done : Blame(who(), thrown.substr(1));
  }
  bool is_made = false;  // The problem, by Ceres.

  std::string Take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(first_, "");
  }

 private:
  std::mutex mutex_;
  std::string first_;
};

// Until it is prepared again, nothing can be evaluated at a point that the user's callback refused.
class GuardedProblem::Callback : public ceres::EvaluationCallback {
 public:
  Callback(const LevelFunction& g, Culprit* culprit) : g_(g), culprit_(culprit) {}
  void PrepareForEvaluation(bool evaluate_jacobians, bool new_evaluation_point) override {
    const auto prepare = [&] {
      g_.callback()->PrepareForEvaluation(evaluate_jacobians, new_evaluation_point);
      return true;
    };
    is_prepared_ = culprit_->Guard([this] { return Name(); }, prepare);
  }
  bool is_prepared() const { return is_prepared_; }

 private:
  std::string Name() const { return "the evaluation callback of " + g_.name(); }

  const LevelFunction& g_;
  Culprit* culprit_;
  bool is_prepared_ = true;
};

// Asks the loss too, since a cost function may fail and a loss may not.
class GuardedProblem::Cost : public ceres::CostFunction {
 public:
  Cost(const LevelFunction& g, int index, const Callback* callback, Culprit* culprit)
      : g_(g),
        index_(index),
        cost_(*g.residuals()[index].cost),
        loss_(g.residuals()[index].loss),
        callback_(callback),
        culprit_(culprit) {
    set_num_residuals(cost_.num_residuals());
    *mutable_parameter_block_sizes() = cost_.parameter_block_sizes();
  }

  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    if (callback_ && !callback_->is_prepared()) return false;
    const auto evaluate = [&] {
      if (!cost_.Evaluate(parameters, residuals, jacobians)) {
        return culprit_->Blame(Name(), "could not be evaluated: its cost function returned false");
      }
      return CheckValues(residuals, jacobians) && CheckLoss(residuals);
    };
    return culprit_->Guard([this] { return Name(); }, evaluate);
  }

 private:
  bool CheckValues(const double* residuals, double** jacobians) const {
    if (!AllFinite(residuals, num_residuals())) {
      return culprit_->Blame(Name(), "has a residual that is not finite");
    }
    for (size_t i = 0; jacobians && i < parameter_block_sizes().size(); ++i) {
      const int size = num_residuals() * parameter_block_sizes()[i];
      if (jacobians[i] && !AllFinite(jacobians[i], size)) {
        return culprit_->Blame(Name(), "has a derivative that is not finite");
      }
    }
    return true;
  }
  bool CheckLoss(const double* residuals) const {
    if (!loss_) return true;
    double squared_norm = 0.0, rho[3];
    for (int i = 0; i < num_residuals(); ++i) squared_norm += residuals[i] * residuals[i];
    loss_->Evaluate(squared_norm, rho);
    if (!AllFinite(rho, 3)) return culprit_->Blame(Name(), "has a loss that is not finite");
    return !Falls(rho) || culprit_->Blame(Name(), "has a loss with a negative slope");
  }

  std::string Name() const {
    return "residual block " + std::to_string(index_) + " of " + g_.name();
  }

  const LevelFunction& g_;
  const int index_;
  const ceres::CostFunction& cost_;
  const ceres::LossFunction* loss_;
  const Callback* callback_;
  Culprit* culprit_;
};

// Called where the cost function has found it in order; it may still throw.
class GuardedProblem::Loss : public ceres::LossFunction {
 public:
  Loss(const ceres::LossFunction* loss, Culprit* culprit) : loss_(*loss), culprit_(culprit) {}
  void Evaluate(double s, double rho[3]) const override {
    const auto evaluate = [&] {
      loss_.Evaluate(s, rho);
      return AllFinite(rho, 3) && !Falls(rho);
    };
    if (culprit_->Guard([] { return std::string("a loss of the lower problem"); }, evaluate))
      return;
    rho[0] = s;
    rho[1] = 1.0;
    rho[2] = 0.0;
  }

 private:
  const ceres::LossFunction& loss_;
  Culprit* culprit_;
};

class GuardedProblem::Manifold : public ceres::Manifold {
 public:
  Manifold(const Space::Block& block, Culprit* culprit)
      : block_(block), manifold_(*block.manifold), culprit_(culprit) {}
  int AmbientSize() const override { return manifold_.AmbientSize(); }
  int TangentSize() const override { return manifold_.TangentSize(); }
  bool Plus(const double* x, const double* delta, double* x_plus_delta) const override {
    return Guard([&] { return manifold_.Plus(x, delta, x_plus_delta); });
  }
  // Ceres aborts on a false while its problem is made, and asks again when it is solved.
  bool PlusJacobian(const double* x, double* jacobian) const override {
    const bool ok = Guard([&] { return manifold_.PlusJacobian(x, jacobian); }) &&
                    (AllFinite(jacobian, AmbientSize() * TangentSize()) ||
                     culprit_->Blame(Name(), "has a derivative of Plus that is not finite"));
    if (ok || culprit_->is_made) return ok;
    std::fill_n(jacobian, AmbientSize() * TangentSize(), 0.0);
    return true;
  }
  bool Minus(const double* y, const double* x, double* y_minus_x) const override {
    return Guard([&] { return manifold_.Minus(y, x, y_minus_x); });
  }
  bool MinusJacobian(const double* x, double* jacobian) const override {
    return Guard([&] { return manifold_.MinusJacobian(x, jacobian); });
  }

 private:
  template <typename Body>
  bool Guard(Body body) const {
    return culprit_->Guard(
        [this] { return Name(); },
        [&] { return body() || culprit_->Blame(Name(), "could not be evaluated"); });
  }

  std::string Name() const { return "the manifold of " + block_.name; }

  const Space::Block& block_;
  const ceres::Manifold& manifold_;
  Culprit* culprit_;
};

GuardedProblem::GuardedProblem(const Program& program, const Program::Scenario& scenario)
    : culprit_(std::make_unique<Culprit>()) {
  const LevelFunction& g = *scenario.g;
  ceres::Problem::Options options;
  options.disable_all_safety_checks = true;  // The user's problem has made them.
  if (g.callback()) {
    callback_ = std::make_unique<Callback>(g, culprit_.get());
    options.evaluation_callback = callback_.get();
  }
  problem_ = std::make_unique<ceres::Problem>(options);
  for (const Space::Block& block : scenario.y.blocks()) {
    problem_->AddParameterBlock(
        block.user, block.size, block.manifold ? new Manifold(block, culprit_.get()) : nullptr);
    for (int j = block.tangent_offset; j < block.tangent_offset + block.tangent_size; ++j) {
      const int i = scenario.y.AmbientIndex(j);
      if (i < 0) continue;
      const double lower = scenario.y.LowerBound(j), upper = scenario.y.UpperBound(j);
      if (std::isfinite(lower)) {
        problem_->SetParameterLowerBound(block.user, i - block.offset, lower);
      }
      if (std::isfinite(upper)) {
        problem_->SetParameterUpperBound(block.user, i - block.offset, upper);
      }
    }
  }
  std::vector<double*> blocks;
  for (const LevelFunction::Residual& r : g.residuals()) {
    blocks.clear();
    for (int k = r.first; k < r.first + r.num_arguments; ++k) {
      const LevelFunction::Argument& a = g.arguments()[k];
      const Space& space = a.kind == LevelFunction::Argument::kX ? program.x : scenario.y;
      const bool is_constant = a.kind == LevelFunction::Argument::kConstant;
      blocks.push_back(is_constant ? const_cast<double*>(a.constant)
                                   : space.blocks()[a.block].user);
      if (a.kind == LevelFunction::Argument::kY || problem_->HasParameterBlock(blocks.back())) {
        continue;
      }
      problem_->AddParameterBlock(blocks.back(), a.size);
      problem_->SetParameterBlockConstant(blocks.back());
    }
    const int index = static_cast<int>(&r - g.residuals().data());
    problem_->AddResidualBlock(new Cost(g, index, callback_.get(), culprit_.get()),
                               r.loss ? new Loss(r.loss, culprit_.get()) : nullptr,
                               blocks);
  }
  // An ordering of the user's names all blocks there are.
  scenario.lower->GetParameterBlocks(&blocks);
  for (double* block : blocks) {
    if (problem_->HasParameterBlock(block)) continue;
    problem_->AddParameterBlock(block, scenario.lower->ParameterBlockSize(block));
    problem_->SetParameterBlockConstant(block);
  }
  culprit_->is_made = true;
}

GuardedProblem::~GuardedProblem() = default;

bool GuardedProblem::Solve(const ceres::Solver::Options& options, std::string* message) {
  culprit_->Take();
  ceres::Solver::Summary summary;
  ceres::Solve(options, problem_.get(), &summary);
  const std::string culprit = culprit_->Take();
  if (summary.IsSolutionUsable()) return true;
  *message = summary.message + (culprit.empty() ? "" : " (" + culprit + ")");
  return false;
}

}  // namespace bilevel
