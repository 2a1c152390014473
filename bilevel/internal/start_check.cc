#include "bilevel/internal/start_check.h"

#include <cmath>

#include "bilevel/base/internal/thrown.h"
#include "bilevel/internal/prepared_problem.h"

namespace bilevel {
namespace {

// Looked at from where g's distance from the answer's has fallen to this share.
constexpr double kNear = 1e-2;
// What g and its slope towards the answer may differ from its quadratic model there.
constexpr double kModelError = 0.1;

// Ends Ceres' solve where the answer's y is sure to be the minimum ahead: on the way there g and
// its slope are those of the quadratic model around the answer, which no other minimum's are.
class Arrival : public ceres::IterationCallback {
 public:
  Arrival(Oracle* oracle, const State& end)
      : oracle_(*oracle), end_(end), y_(end.y), least_(oracle->g.Value(end.x, end.y)) {}

  ceres::CallbackReturnType operator()(const ceres::IterationSummary& summary) override {
    if (summary.iteration == 0) first_ = summary.cost;
    const bool may_be_near = summary.step_is_successful && summary.iteration > 0 &&
                             std::abs(summary.cost - least_) <= kNear * std::abs(first_ - least_);
    if (may_be_near) {
      oracle_.program().y.ReadUser(y_.value().data());
      has_arrived_ = IsLedBack();
      oracle_.Clear();
    }
    return has_arrived_ ? ceres::SOLVER_ABORT : ceres::SOLVER_CONTINUE;
  }
  bool has_arrived() const { return has_arrived_; }

 private:
  bool IsLedBack() {
    const Space& space = y_.space();
    Vector away(y_.dim()), back(y_.dim()), bent, gradient;
    if (!space.Minus(y_.value().data(), end_.y.value().data(), away.data()) ||
        !space.Minus(end_.y.value().data(), y_.value().data(), back.data())) {
      return false;
    }
    oracle_.g.HessianProduct(end_.x, end_.y, away, &bent, nullptr);
    const double value = oracle_.g.Gradient(end_.x, y_, nullptr, &gradient);
    if (!oracle_.ok()) return false;
    const double bend = away.dot(bent), slope = -gradient.dot(back);
    return bend > 0.0 && std::abs(slope - bend) <= kModelError * bend &&
           std::abs(value - least_ - 0.5 * bend) <= kModelError * 0.5 * bend;
  }

  Oracle& oracle_;
  const State& end_;
  Point y_;  // Ceres', of an iteration.
  const double least_;
  double first_ = 0.0;
  bool has_arrived_ = false;
};

}  // namespace

double PhiFromStart(const Solver::Options& options,
                    const Point& first_y,
                    const State& end,
                    double phi,
                    Oracle* oracle) {
  Arrival arrival(oracle, end);
  Solver::Options cold = options;
  const Program& program = oracle->program();
  // Within ceres::Solve the values that an evaluation callback has seen are Ceres'; and with
  // constraints its cost is not g.
  const bool may_arrive = program.FirstConstraint().empty() && program.num_scenarios() == 1 &&
                          program.exchange.is_alone() && !program.scenarios[0]->g->callback() &&
                          options.lower_starts == 1 && !oracle->lower_is_the_methods();
  if (may_arrive) {
    cold.lower_solver_options.callbacks.push_back(&arrival);
    cold.lower_solver_options.update_state_every_iteration = true;
  }
  double result = Progress::kUnknown;
  Thrown([&] {  // Whatever it is, the answer is then not reproduced.
    const auto lower = MakeLowerSolver(cold, oracle->mutable_program());
    Point y = first_y;
    bool is_solved = lower->Solve(end.x, &y);
    if (is_solved && oracle->lower_is_the_methods()) {
      is_solved = oracle->lower().Fork()->Solve(end.x, &y);
    }
    if (is_solved) result = oracle->f.Value(end.x, y);
    if (arrival.has_arrived()) result = phi;
  });
  return oracle->Clear().empty() ? result : Progress::kUnknown;
}

}  // namespace bilevel
