#include "bilevel/lower_level/sgm.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace bilevel {

Projection ProjectionOnBall(std::vector<double> centre, double radius) {
  return [centre = std::move(centre), radius](double* values, int size) {
    Eigen::Map<Vector> v(values, size);
    const Eigen::Map<const Vector> c(centre.data(), size);
    const double distance = (v - c).norm();
    if (distance > radius) v = c + radius / distance * (v - c);
  };
}

// Held, Wolfe and Crowder (1974): the threshold t with sum of max(0, v_i - t) = sum, found on the
// sorted values.
Projection ProjectionOnSimplex(double sum) {
  return [sum](double* values, int size) {
    std::vector<double> sorted(values, values + size);
    std::sort(sorted.begin(), sorted.end(), std::greater<double>());
    double total = 0.0, threshold = 0.0;
    for (int k = 0; k < size; ++k) {
      total += sorted[k];
      const double candidate = (total - sum) / (k + 1);
      if (sorted[k] <= candidate) break;
      threshold = candidate;
    }
    for (int i = 0; i < size; ++i) values[i] = std::max(0.0, values[i] - threshold);
  };
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
  const auto positive = [](double value) { return value > 0.0 && std::isfinite(value); };
  if (!positive(options_.theta)) return "sgm.theta must be positive";
  if (!positive(options_.step)) return "sgm.step must be positive";
  if (!positive(options_.lower_step)) return "sgm.lower_step must be positive";
  if (options_.num_steps <= 0) return "sgm.num_steps must be positive";
  if (options_.num_lower_steps <= 0) return "sgm.num_lower_steps must be positive";
  for (const auto& [user, projection] : options_.projections) {
    const int index = program_->y.Find(user);
    if (index < 0) return "sgm.projections names a block that is not of the lower level";
    const Space::Block& block = program_->y.blocks()[index];
    if (!projection) return "sgm.projections has an empty function for " + block.name;
    if (block.manifold) return "sgm.projections names " + block.name + ", which has a manifold";
    for (int j = block.tangent_offset; j < block.tangent_offset + block.tangent_size; ++j) {
      if (std::isfinite(program_->y.LowerBound(j)) || std::isfinite(program_->y.UpperBound(j))) {
        return "sgm.projections names " + block.name + ", which has bounds: it takes one of both";
      }
    }
  }
  return "";
}

std::unique_ptr<LowerSolver> Sgm::Fork() const { return std::make_unique<Sgm>(program_, options_); }

bool Sgm::Differentiate(const Point& /*x*/, const Point& /*y*/) {
  message_ = "the switching gradient method gives y*(x) without a derivative: igfm needs none";
  return false;
}

LowerSolverReport Sgm::Report() const {
  LowerSolverReport report;
  if (num_empty_ > 0) {
    report.remark = std::to_string(num_empty_) +
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
  if (!y->Move(-step * gradient)) {
    message_ = "the switching gradient method's y is no longer finite: its steps are too long";
    return false;
  }
  for (const auto& [user, projection] : options_.projections) {
    const Space::Block& block = program_->y.blocks()[program_->y.Find(user)];
    projection(y->value().data() + block.offset, block.size);
  }
  return true;
}

bool Sgm::Solve(const Point& x, Point* y) {
  message_.clear();
  oracle_.Clear();
  ++counts_.warm_solves;
  ++counts_.failed_solves;  // Taken back in the end.
  now_ = *y;
  g_star_ = std::numeric_limits<double>::infinity();
  for (int k = 0; k <= options_.num_lower_steps; ++k) {
    const double g = oracle_.g.Gradient(x, now_, nullptr, &gradient_);
    if (g < g_star_) {
      g_star_ = g;
      least_ = now_;
    }
    if (k < options_.num_lower_steps && !Move(options_.lower_step, gradient_, &now_)) return false;
  }

  now_ = *y;
  num_feasible_ = 0;
  double least_f = std::numeric_limits<double>::infinity();
  for (int k = 0; k < options_.num_steps; ++k) {
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
    if (!Move(options_.step, gradient_, &now_)) return false;
  }
  if (num_feasible_ == 0) ++num_empty_;
  *y = num_feasible_ > 0 ? best_ : least_;
  --counts_.failed_solves;
  return true;
}

}  // namespace bilevel
