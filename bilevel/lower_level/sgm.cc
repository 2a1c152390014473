#include "bilevel/lower_level/sgm.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/memory.h"
#include "bilevel/oracle/internal/remember_counts.h"

namespace bilevel {

bool Sgm::ByTheorem(const Constants& constants,
                    double zeta_f,
                    double zeta_g,
                    Options* options,
                    std::string* error) {
  if (const std::string complaint = FirstNotPositive({{"f_lipschitz", constants.f_lipschitz},
                                                      {"g_lipschitz", constants.g_lipschitz},
                                                      {"diameter", constants.diameter},
                                                      {"exponent", constants.exponent},
                                                      {"growth", constants.growth},
                                                      {"zeta_f", zeta_f},
                                                      {"zeta_g", zeta_g}});
      !complaint.empty()) {
    return Refuse(complaint, error);
  }
  const double by_bound =
      constants.growth / 3.0 * std::pow(zeta_f / constants.f_lipschitz, constants.exponent);
  const double theta = std::min({zeta_f, zeta_g / 3.0, by_bound});
  const double c = std::max(constants.f_lipschitz, constants.g_lipschitz);
  const double per_theta = constants.diameter / theta;
  const double k = std::ceil(2.0 * per_theta * per_theta * c * c);
  const double k0 = std::ceil(std::pow(per_theta * constants.g_lipschitz, 2.0));
  constexpr int kMost = std::numeric_limits<int>::max();
  if (!(std::max(k, k0) <= kMost)) {
    return Refuse("theorem 6.1 asks for " + Number(std::max(k, k0)) + " steps of a solve", error);
  }
  options->theta = theta;
  options->step = theta / (c * c);
  options->num_steps = static_cast<int>(k);
  // Of subgradients: the least g of k0 steps of R / (C sqrt(k0)) is R C / sqrt(k0) off at most.
  options->lower_step = theta / (constants.g_lipschitz * constants.g_lipschitz);
  options->num_lower_steps = static_cast<int>(k0);
  return true;
}

Sgm::Sgm(Program* program, const Options& options)
    : program_(program),
      options_(options),
      oracle_(program, nullptr, 0),
      now_(&program->y),
      best_(&program->y),
      least_(&program->y),
      difference_(program->y.tangent_size()) {}

Sgm::~Sgm() = default;

std::string Sgm::CheckOptions() const {
  if (const std::string complaint =
          FirstNotPositive({{"sgm.theta", options_.theta},
                            {"sgm.step", options_.step},
                            {"sgm.lower_step", options_.lower_step},
                            {"sgm.num_steps", options_.num_steps},
                            {"sgm.num_lower_steps", options_.num_lower_steps}});
      !complaint.empty()) {
    return complaint;
  }
  if (options_.jacobi) {
    const std::string complaint = BlockJacobi::Check(*program_, "sgm.jacobi");
    if (!complaint.empty()) return complaint;
    if (program_->y.has_sets()) return "sgm.jacobi does not go with convex sets of y";
  }
  return "";
}

std::unique_ptr<LowerSolver> Sgm::Fork() const { return std::make_unique<Sgm>(program_, options_); }

std::string Sgm::WhyNoDerivative() const {
  return "the switching gradient method in options.lower_solver gives y*(x) without a derivative: "
         "igfm needs none";
}

bool Sgm::Differentiate(const Point& /*x*/, const Point& /*y*/) {
  message_ = WhyNoDerivative();
  return false;
}

LowerSolverReport Sgm::Report() const {
  LowerSolverReport report;
  if (num_unsettled_ > 0) {
    report.remark = std::to_string(num_unsettled_) +
                    " switching gradient solves did not reach min g: it still fell by more than "
                    "theta in the second half of sgm.num_lower_steps, so that f(x, y) says little "
                    "of phi";
  }
  if (num_empty_ > 0) {
    if (!report.remark.empty()) report.remark += "; ";
    report.remark += std::to_string(num_empty_) +
                     " switching gradient solves met no y within 2 theta of min g and took the y "
                     "of least g: sgm.step is too long, or sgm.num_steps too few";
  }
  return report;
}

bool Sgm::Move(double step, const Vector& gradient, Point* y) {
  ++counts_.gradient_steps;
  if (!oracle_.ok()) {
    message_ = oracle_.error();
    return false;
  }
  if (!y->MoveWithin(-step * gradient)) {
    message_ =
        "the switching gradient method's y is no longer finite, or its manifold failed: its steps "
        "may be too long";
    return false;
  }
  return true;
}

// Along g, whose gradient is in gradient_.
bool Sgm::MoveDown(double step, Point* y) {
  if (options_.jacobi) {
    step = options_.lower_step;
    jacobi_.Apply(&gradient_);
  }
  return Move(step, gradient_, y);
}

bool Sgm::Solve(const Point& x, Point* y) {
  message_.clear();
  oracle_.Clear();
  ++counts_.warm_solves;
  ++counts_.failed_solves;  // Taken back in the end.
  if (options_.jacobi) jacobi_.Compute(oracle_, x, *y);
  if (!oracle_.ok()) {
    message_ = oracle_.error();
    return false;
  }
  now_ = *y;
  g_star_ = std::numeric_limits<double>::infinity();
  double half_way = g_star_;
  for (int k = 0; k <= options_.num_lower_steps; ++k) {
    if (IsLate()) return false;
    if (2 * k == options_.num_lower_steps || 2 * k == options_.num_lower_steps + 1) {
      half_way = g_star_;
    }
    const double g = oracle_.g.Gradient(x, now_, nullptr, &gradient_);
    if (g < g_star_) {
      g_star_ = g;
      least_ = now_;
    }
    if (k < options_.num_lower_steps && !MoveDown(options_.lower_step, &now_)) return false;
  }

  if (std::isfinite(half_way) && half_way - g_star_ > options_.theta) ++num_unsettled_;

  now_ = *y;
  num_feasible_ = 0;
  double least_f = std::numeric_limits<double>::infinity();
  for (int k = 0; k < options_.num_steps; ++k) {
    if (IsLate()) return false;
    const bool feasible =
        oracle_.g.Gradient(x, now_, nullptr, &gradient_) - g_star_ <= 2.0 * options_.theta;
    if (feasible) {
      ++num_feasible_;
      const double f = oracle_.f.Gradient(x, now_, nullptr, &gradient_);
      if (options_.output == kAverage) {
        // The mean so far, moved towards the new y by its share: a mean on manifolds as well.
        if (num_feasible_ == 1) {
          best_ = now_;
        } else if (!program_->y.Minus(
                       now_.value().data(), best_.value().data(), difference_.data()) ||
                   !best_.Move(difference_ / num_feasible_)) {
          message_ = "the average of the switching gradient method's y could not be formed";
          return false;
        }
      } else if (options_.output == kLastFeasible || f < least_f) {
        best_ = now_;
        least_f = f;
      }
    }
    if (!(feasible ? Move(options_.step, gradient_, &now_) : MoveDown(options_.step, &now_))) {
      return false;
    }
  }
  if (num_feasible_ == 0) ++num_empty_;
  *y = num_feasible_ > 0 ? best_ : least_;
  --counts_.failed_solves;
  return true;
}

bool Sgm::IsLate() {
  if (!program_->IsLate()) return false;
  message_ = Program::kTimeIsOver;
  return true;
}

bool Sgm::Remember(Memory* memory) {
  memory->Keep("g_star", &g_star_);
  memory->Keep("num_feasible", &num_feasible_);
  memory->Keep("num_empty", &num_empty_);
  memory->Keep("num_unsettled", &num_unsettled_);
  RememberCounts("counts", &counts_, memory);
  return true;  // Every solve begins anew.
}

}  // namespace bilevel
