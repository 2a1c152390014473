#include "bilevel/lower_level/optimistic_lower_solver.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/lower_level/internal/component_eigen.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kShortestStep = 1e-10;
// A vector with a larger share in a null space sees it.
constexpr double kVisibleShare = 1e-6;

// What rounding of y is worth in the norm of a matrix with the diagonal d.
double Rounding(const Space& space, const Vector& d, const Vector& y) {
  double squared = 0.0;
  for (const Space::Block& block : space.blocks()) {
    const auto scale = d.segment(block.tangent_offset, block.tangent_size);
    const auto values = y.segment(block.offset, block.size);
    squared +=
        block.manifold ? scale.maxCoeff() * values.squaredNorm() : scale.dot(values.cwiseAbs2());
  }
  return 16.0 * kEpsilon * std::sqrt(squared);
}

}  // namespace

// One scenario.
struct OptimisticLowerSolver::PerScenario {
  PerScenario(Program* program, Program::Scenario* s, const Options& o)
      : scenario(s),
        space(s->y),
        options(o),
        f(s->f.get(), &program->pool),
        g(s->g.get(), &program->pool),
        y(&s->y),
        trial(&s->y),
        gradient(s->y.tangent_size()),
        fy(s->y.tangent_size()),
        h(s->g->yy_pattern()),
        jacobian(s->g->yx_pattern()),
        fyy(s->f->yy_pattern()),
        fyx(s->f->yx_pattern()),
        third_yy(h),
        third_yx(jacobian),
        eigen(h) {}

  // g, g_y, H, g_yx and the eigenvalues at y.
  bool Evaluate() {
    {
      Stopwatch watch(&counts.seconds_in_evaluation);
      if (!g.Hessian(x.data(),
                     y.value().data(),
                     HessianKind::kExact,
                     &value,
                     gradient.data(),
                     &h,
                     &jacobian)) {
        return Fail(g.error());
      }
    }
    Stopwatch watch(&counts.seconds_in_linear_algebra);
    ++counts.factorizations;
    return eigen.Compute(h, eigen.UnitDiagonal(h), options.rank_tolerance) ||
           Fail("its Hessian is not finite");
  }

  // The Newton step and decrement of g; returns the rounding of the latter. As far as y is from
  // the set, directions along it look curved: the step ignores eigenvalues that this explains,
  // unless nothing else is left.
  double Measure() {
    Stopwatch watch(&counts.seconds_in_linear_algebra);
    const auto decrement_of = [&] { return std::sqrt(std::max(0.0, gradient.dot(step))); };
    const double rounding = Rounding(space, eigen.d(), y.value());
    eigen.SolveAbsolute(gradient, 0.0, &step);
    decrement = decrement_of();
    const double distance = decrement / (decrement + rounding / (16.0 * kEpsilon));
    if (decrement > rounding) {
      eigen.SolveAbsolute(gradient, 0.1 * std::min(1.0, 10.0 * distance), &step);
      if (decrement_of() < 0.1 * decrement) eigen.SolveAbsolute(gradient, 0.0, &step);
    }
    const double unit = std::sqrt(2.0 * std::abs(value));
    relative_decrement = unit > 0.0 ? decrement / unit : decrement;
    return rounding;
  }

  // Newton's method on g, without the directions that are null, until rounding stops it; then
  // everything is evaluated at y, and N is known.
  bool Approach() {
    if (!Evaluate()) return false;
    double previous = std::numeric_limits<double>::infinity();
    for (int iteration = 0;; ++iteration) {
      const double rounding = Measure(), slope = gradient.dot(step);
      const double unit = std::sqrt(2.0 * std::abs(value));
      const bool stalled = decrement > 0.5 * previous && decrement <= 1e-5 * unit + 1e4 * rounding;
      if (decrement <= rounding || stalled) return FindNullSpace(rounding);
      if (iteration >= options.max_num_iterations) {
        return Fail("no stationary point after " + std::to_string(iteration) +
                    " Newton iterations (relative decrement " + Scientific(relative_decrement) +
                    ")");
      }
      const bool too_small_to_see =
          slope < 1e3 * kEpsilon * std::abs(value) || decrement <= 1e3 * rounding;
      double share = 1.0, trial_value = 0.0;
      for (;; share *= 0.5) {
        trial.value() = y.value();
        if (trial.Move(-share * step)) {
          Stopwatch watch(&counts.seconds_in_evaluation);
          const double allowed =
              too_small_to_see ? 1e4 * kEpsilon * std::abs(value) + slope : -1e-4 * share * slope;
          if (g.Value(x.data(), trial.value().data(), Batch::All(), &trial_value) &&
              trial_value <= value + allowed) {
            break;
          }
        }
        if (share < kShortestStep) return Fail("no step decreases its cost");
      }
      previous = share == 1.0 ? decrement : std::numeric_limits<double>::infinity();
      std::swap(y, trial);
      if (!Evaluate()) return false;
    }
  }

  bool FindNullSpace(double rounding) {
    if (eigen.is_ambiguous()) {
      return Fail(
          "the rank of its Hessian cannot be told: the scaled eigenvalues either side of "
          "the cut are " +
          Scientific(eigen.largest_null()) + " and " + Scientific(eigen.smallest_kept()) +
          "; set rank_tolerance between those that are zero and those that are not");
    }
    if (eigen.null_dimension() < space.tangent_size() &&
        eigen.lowest_eigenvalue() <= -eigen.smallest_kept()) {
      return Fail("its stationary point is a saddle: the Hessian has a negative eigenvalue there");
    }
    null = eigen.NullBasis();
    const Vector free = null * (null.transpose() * gradient);
    if (free.cwiseQuotient(eigen.d().cwiseSqrt()).norm() > 1e6 * rounding + 1e3 * decrement) {
      return Fail("its Hessian vanishes along a direction along which the gradient does not");
    }
    return true;
  }

  // D^3 g along lambda in (y, y) and in (y, x), by central differences of exact Hessians.
  bool DifferentiateHessian() {
    std::fill_n(third_yy.valuePtr(), third_yy.nonZeros(), 0.0);
    std::fill_n(third_yx.valuePtr(), third_yx.nonZeros(), 0.0);
    double longest = std::numeric_limits<double>::infinity();  // Along lambda, relative to y.
    const double largest = y.value().lpNorm<Eigen::Infinity>();
    for (const Space::Block& block : space.blocks()) {
      const double own = y.value().segment(block.offset, block.size).lpNorm<Eigen::Infinity>();
      const double along =
          lambda.segment(block.tangent_offset, block.tangent_size).lpNorm<Eigen::Infinity>();
      const double size = own > 0.0 ? own : largest > 0.0 ? largest : 1.0;
      if (along > 0.0) longest = std::min(longest, size / along);
    }
    if (!std::isfinite(longest)) return true;
    Stopwatch watch(&counts.seconds_in_evaluation);
    const Eigen::Index num_yy = h.nonZeros(), num = num_yy + jacobian.nonZeros();
    SparseMatrix yy = h, yx = jacobian;
    Vector at[2], base(num), differences[3], best;
    base << Eigen::Map<Vector>(h.valuePtr(), num_yy),
        Eigen::Map<Vector>(jacobian.valuePtr(), num - num_yy);
    double best_error = std::numeric_limits<double>::infinity();
    for (double share : {2e-2, 2e-3, 2e-4}) {
      bool usable = true;
      for (int level = 0; level < 3 && usable; ++level) {
        const double size = share * longest / (1 << level);
        for (int side = 0; side < 2 && usable; ++side) {
          trial.value() = y.value();
          usable = trial.Move((side ? -size : size) * lambda) && g.Hessian(x.data(),
                                                                           trial.value().data(),
                                                                           HessianKind::kExact,
                                                                           nullptr,
                                                                           step.data(),
                                                                           &yy,
                                                                           &yx);
          at[side].resize(num);
          at[side] << Eigen::Map<Vector>(yy.valuePtr(), num_yy),
              Eigen::Map<Vector>(yx.valuePtr(), num - num_yy);
        }
        if (!usable) break;
        const double change = std::max((at[0] - base).lpNorm<Eigen::Infinity>(),
                                       (at[1] - base).lpNorm<Eigen::Infinity>());
        // g is quadratic, as far as can be seen.
        if (level == 0 && change <= 16.0 * kEpsilon * base.lpNorm<Eigen::Infinity>()) return true;
        differences[level] = (at[0] - at[1]) / (2.0 * size);
      }
      if (!usable) continue;
      const Vector coarse = (4.0 * differences[1] - differences[0]) / 3.0;
      const Vector fine = (4.0 * differences[2] - differences[1]) / 3.0;
      const Vector finest = (16.0 * fine - coarse) / 15.0;
      const double error = (finest - fine).norm();
      if (error < best_error) {
        best_error = error;
        best = finest;
      }
      if (error <= 1e-9 * finest.norm()) break;
    }
    if (best.size() == 0) return Fail("its Hessian cannot be evaluated near y: " + g.error());
    std::copy_n(best.data(), num_yy, third_yy.valuePtr());
    std::copy_n(best.data() + num_yy, num - num_yy, third_yx.valuePtr());
    return true;
  }

  // f along the set: lambda, r = N'f_y, W and R = N'W N, from what Approach has left.
  bool Project() {
    {
      Stopwatch watch(&counts.seconds_in_evaluation);
      if (!f.Hessian(
              x.data(), y.value().data(), HessianKind::kExact, &f_value, fy.data(), &fyy, &fyx)) {
        return Fail(f.error());
      }
    }
    eigen.Solve(fy, &lambda);
    lambda = -lambda;
    if (!DifferentiateHessian()) return false;
    Stopwatch watch(&counts.seconds_in_linear_algebra);
    SparseMatrix lower = fyy + third_yy;
    w = lower.selfadjointView<Eigen::Lower>();
    reduced_gradient = null.transpose() * fy;
    SparseMatrix reduced = null.transpose() * SparseMatrix(w * null);
    reduced = SparseMatrix(reduced.triangularView<Eigen::Lower>());
    // R may be nothing but rounding: its scale is that of what it is a sum of.
    lower = fyy.cwiseAbs() + third_yy.cwiseAbs();
    w_diagonal = lower.diagonal();
    const SparseMatrix terms = lower.selfadjointView<Eigen::Lower>(), basis = null.cwiseAbs();
    Vector scale = basis.cwiseProduct(terms * basis).transpose() * Vector::Ones(basis.rows());
    const double largest = scale.size() > 0 ? scale.maxCoeff() : 0.0;
    for (double& entry : scale) {
      entry = std::max(entry, largest > 0.0 ? 1e-12 * largest : 1.0);
    }
    reduced_eigen = std::make_unique<ComponentEigen>(reduced);
    return reduced_eigen->Compute(reduced, scale, 0.0) ||
           Fail("the upper level's Hessian along the lower level's solutions is not finite");
  }

  bool Minimize(const Vector& at_x, const Vector& at_y) {
    evaluated = false;
    x = at_x;
    y.value() = at_y;
    if (!Approach() || !Project()) return false;
    double previous = std::numeric_limits<double>::infinity();
    Vector t, best_y, predicted;
    for (int iteration = 0;; ++iteration) {
      reduced_eigen->SolveAbsolute(reduced_gradient, 0.0, &t);
      t = -t;
      // Expected change of f for a share s of the step: s * slope + s^2 * bend / 2.
      double slope = reduced_gradient.dot(t), bend = 0.0;
      const double reduced_decrement = std::sqrt(std::max(0.0, -slope));
      const double unit = std::sqrt(2.0 * std::abs(f_value));
      const double rounding = Rounding(space, w_diagonal, y.value());
      const bool stalled =
          reduced_decrement > 0.5 * previous && reduced_decrement <= 1e-5 * unit + 1e4 * rounding;
      const bool stationary = reduced_decrement <= rounding || stalled;
      if (stationary) {
        const bool saddle = reduced_eigen->lowest_eigenvalue() < -ComponentEigen::kSurelyNot;
        if (!saddle) {
          least_dimension = std::min(least_dimension, static_cast<int>(null.cols()));
          most_dimension = std::max(most_dimension, static_cast<int>(null.cols()));
          return evaluated = CheckSmoothness();
        }
        t = reduced_eigen->LowestDirection();  // Down from the saddle, either way.
        t *= 0.5 * (unit > 0.0 ? unit : 1.0) / std::sqrt(-reduced_eigen->lowest_eigenvalue());
        slope = 0.0;
        bend = unit > 0.0 ? -0.25 * unit * unit : -0.25;
      }
      if (iteration >= options.max_num_iterations) {
        return Fail("f has no minimum among its solutions after " + std::to_string(iteration) +
                    " Newton iterations (decrement " + Scientific(reduced_decrement) + ")");
      }
      const bool too_small_to_see = !stationary && (-slope < 1e3 * kEpsilon * std::abs(f_value) ||
                                                    reduced_decrement <= 1e3 * rounding);
      best_y = y.value();
      const Vector direction = null * t;
      const double before = f_value;
      const int dimension = static_cast<int>(null.cols());
      double share = 1.0;
      for (;; share *= 0.5) {
        double trial_value = 0.0;
        y.value() = best_y;
        // Back on the set, where the tangent space is still of use.
        const bool arrived = y.Move(share * direction) && (predicted = y.value(), Approach()) &&
                             (y.value() - predicted).norm() <= 0.5 * (predicted - best_y).norm();
        if (arrived && f.Value(x.data(), y.value().data(), Batch::All(), &trial_value)) {
          const double allowed = too_small_to_see ? 1e4 * kEpsilon * std::abs(before) - slope
                                                  : 1e-4 * share * (slope + 0.5 * share * bend);
          if (trial_value <= before + allowed) break;
        }
        if (share < kShortestStep) {
          y.value() = best_y;
          return Fail("no step along its solutions decreases f" +
                      (message.empty() ? std::string() : " (" + message + ")"));
        }
      }
      message.clear();
      if (null.cols() != dimension) {
        return Fail("the rank of its Hessian changes along its solutions: the set has " +
                    std::to_string(dimension) + " dimension(s) here and " +
                    std::to_string(null.cols()) + " there");
      }
      previous =
          share == 1.0 && !stationary ? reduced_decrement : std::numeric_limits<double>::infinity();
      if (!Project()) return false;
    }
  }

  // Y*(x) moves smoothly with x only if g_yx has no part in the null space.
  bool CheckSmoothness() {
    if (null.cols() == 0) return true;
    const SparseMatrix seen = null * SparseMatrix(null.transpose() * jacobian);
    const Vector scale = eigen.d().cwiseInverse();
    const auto size = [&](const SparseMatrix& m, int column) {
      return std::sqrt(Vector(m.col(column).cwiseAbs2()).dot(scale));
    };
    for (int j = 0; j < jacobian.cols(); ++j) {
      if (size(seen, j) <= kVisibleShare * size(jacobian, j)) continue;
      return Fail(
          "its solutions do not move smoothly with x: d^2g/dydx has a part in the "
          "directions that d^2g/dy^2 leaves free, where g is not Morse-Bott");
    }
    return true;
  }

  // R^+ N'v; false where that part of v sees what neither level determines.
  bool SolveReduced(const Vector& v, Vector* t) {
    const Vector own = null.transpose() * v;
    reduced_eigen->Solve(own, t);
    if (reduced_eigen->null_dimension() == 0) return true;
    const SparseMatrix free = reduced_eigen->NullBasis();
    if ((free.transpose() * own).norm() <= kVisibleShare * v.norm()) return true;
    return Fail("what is asked depends on " + std::to_string(free.cols()) +
                " direction(s) that neither level determines, in " + FreeBlocks());
  }

  // (f_yx + D^2_y D_x g[lambda])'v - g_yx' H^+ W v.
  void PullBack(const Vector& v, Vector* product) const {
    Vector u;
    eigen.Solve(w * v, &u);
    *product += fyx.transpose() * v + third_yx.transpose() * v - jacobian.transpose() * u;
  }

  std::string FreeBlocks() const {
    constexpr size_t kMostNames = 5;
    const SparseMatrix basis = null * reduced_eigen->NullBasis();
    Vector share = Vector::Zero(space.tangent_size());
    for (int j = 0; j < basis.cols(); ++j) share += basis.col(j).cwiseAbs2();
    std::vector<std::pair<double, const Space::Block*>> shares;
    for (const Space::Block& block : space.blocks()) {
      const double own = share.segment(block.tangent_offset, block.tangent_size).sum();
      if (own > 1e-12 * share.sum()) shares.emplace_back(-own, &block);
    }
    std::sort(shares.begin(), shares.end(), [](const auto& a, const auto& b) {
      return a.first < b.first;
    });
    std::string names;
    for (size_t i = 0; i < shares.size() && i < kMostNames; ++i) {
      names += (i ? ", " : "") + shares[i].second->name;
    }
    if (shares.size() > kMostNames) {
      names += " and " + std::to_string(shares.size() - kMostNames) + " more";
    }
    return names;
  }

  bool Fail(const std::string& what) {
    message = what;
    return false;
  }

  Program::Scenario* scenario;
  const Space& space;
  const Options& options;
  LevelEvaluator f, g;
  Vector x;
  Point y, trial;
  double value = 0.0, f_value = 0.0, decrement = -1.0, relative_decrement = -1.0;
  Vector gradient, fy, step, lambda;
  SparseMatrix h, jacobian;         // g_yy (lower triangle), g_yx.
  SparseMatrix fyy, fyx;            // fyy: lower triangle.
  SparseMatrix third_yy, third_yx;  // D^3 g along lambda; third_yy: lower triangle.
  SparseMatrix null, w;
  Vector w_diagonal, reduced_gradient;
  ComponentEigen eigen;
  std::unique_ptr<ComponentEigen> reduced_eigen;  // Of R.
  bool evaluated = false;                         // All of it is that of x and y.
  int least_dimension = std::numeric_limits<int>::max(), most_dimension = 0;  // Met so far.
  bool solved = true;
  std::string message;
  LowerSolverCounts counts;
};

OptimisticLowerSolver::OptimisticLowerSolver(Program* program,
                                             LowerSolver* start,
                                             const Options& options)
    : program_(program), start_(start), options_(options), refusal_(Check(*program, options)) {
  if (!refusal_.empty()) return;
  for (auto& scenario : program->scenarios) {
    parts_.push_back(std::make_unique<PerScenario>(program, scenario.get(), options_));
  }
}

OptimisticLowerSolver::~OptimisticLowerSolver() = default;

std::string OptimisticLowerSolver::Check(const Program& program, const Options& options) {
  if (options.max_num_iterations < 1) {
    return "the optimistic path's max_num_iterations must be positive";
  }
  if (!(options.rank_tolerance >= 0.0 && options.rank_tolerance < 1.0)) {
    return "the optimistic path's rank_tolerance must be at least 0 and below 1";
  }
  for (const auto& s : program.scenarios) {
    if (s->y.has_bounds()) {
      return "the optimistic path cannot honour bounds on the lower level's blocks";
    }
    for (const LevelFunction* function : {s->f.get(), s->g.get()}) {
      if (function->has_sparse_hessian()) continue;
      return "the optimistic path needs assembled Hessians, and a general term of " +
             function->name() + " is too long for one";
    }
    const int largest = ComponentEigen(s->g->yy_pattern()).largest_component();
    if (largest > kMostCoordinates) {
      return "the optimistic path needs all eigenvalues of the lower level's Hessian, and " +
             std::to_string(largest) + " coordinates hang together in it; " +
             std::to_string(kMostCoordinates) + " is the most it takes";
    }
  }
  return "";
}

std::unique_ptr<LowerSolver> OptimisticLowerSolver::Fork() const {
  std::unique_ptr<LowerSolver> start = start_->Fork();
  auto fork = std::make_unique<OptimisticLowerSolver>(program_, start.get(), options_);
  fork->own_start_ = std::move(start);
  return fork;
}

bool OptimisticLowerSolver::SolveFrom(const Point& x, const Point& y) {
  message_.clear();
  program_->pool.ParallelFor(static_cast<int>(parts_.size()), 1, [&](int, int i) {
    PerScenario* part = parts_[i].get();
    part->message.clear();
    try {
      part->solved = part->Minimize(
          x.value(), y.value().segment(part->scenario->offset, part->scenario->y.size()));
    } catch (const std::exception& e) {
      part->solved = part->Fail(std::string("solving it threw: ") + e.what());
    } catch (...) {
      part->solved = part->Fail("solving it threw something that is not a std::exception");
    }
  });
  for (auto& part : parts_) {
    own_counts_ += std::exchange(part->counts, {});
    if (part->solved || !message_.empty()) continue;
    message_ = "the lower level" +
               (parts_.size() > 1 ? " of scenario '" + part->scenario->name + "'" : std::string()) +
               " has no optimistic solution: " + part->message;
  }
  return message_.empty();
}

bool OptimisticLowerSolver::Solve(const Point& x, Point* y) {
  have_dy_dx_ = false;
  message_ = refusal_;
  if (!message_.empty()) return false;
  ++own_counts_.warm_solves;
  bool solved = solved_before_ && SolveFrom(x, *y);
  if (!solved) {
    const std::string warm_message = message_;
    Point first = *y;
    const bool started = start_->Solve(x, &first);
    solved = SolveFrom(x, first);
    if (!solved && !started) message_ += " (before that: " + start_->message() + ")";
    if (!solved && !warm_message.empty()) message_ = warm_message + "; and anew: " + message_;
  }
  if (!solved) {
    ++own_counts_.failed_solves;
    return false;
  }
  for (auto& part : parts_) {
    y->value().segment(part->scenario->offset, part->scenario->y.size()) = part->y.value();
  }
  solved_before_ = true;
  return true;
}

bool OptimisticLowerSolver::Differentiate(const Point& x, const Point& y) {
  have_dy_dx_ = false;
  message_ = refusal_;
  if (!message_.empty()) return false;
  for (auto& part : parts_) {
    const auto own = y.value().segment(part->scenario->offset, part->scenario->y.size());
    if (part->evaluated && part->x == x.value() && part->y.value() == own) continue;
    part->x = x.value();
    part->y.value() = own;
    part->evaluated = part->Evaluate() && part->FindNullSpace(part->Measure()) && part->Project() &&
                      part->CheckSmoothness();
    own_counts_ += std::exchange(part->counts, {});
    if (part->evaluated) continue;
    message_ = "the lower level cannot be differentiated: " + part->message;
    return false;
  }
  return true;
}

const Matrix& OptimisticLowerSolver::dy_dx() {
  if (have_dy_dx_) return dy_dx_;
  Stopwatch watch(&own_counts_.seconds_in_linear_algebra);
  have_dy_dx_ = true;
  dy_dx_.resize(program_->y.tangent_size(), program_->x.tangent_size());
  Vector column, z, t;
  for (auto& part : parts_) {
    for (int j = 0; j < dy_dx_.cols(); ++j) {
      column = part->jacobian.col(j);
      part->eigen.Solve(column, &z);
      column = part->fyx.col(j) + part->third_yx.col(j);
      column -= part->w * z;
      part->reduced_eigen->Solve(part->null.transpose() * column, &t);
      dy_dx_.col(j).segment(part->scenario->tangent_offset, z.size()) = -z - part->null * t;
    }
  }
  return dy_dx_;
}

bool OptimisticLowerSolver::Adjoint(const Vector& fy, Vector* product) {
  Stopwatch watch(&own_counts_.seconds_in_linear_algebra);
  *product = Vector::Zero(program_->x.tangent_size());
  Vector own, u, t, correction;
  for (auto& part : parts_) {
    own = fy.segment(part->scenario->tangent_offset, part->space.tangent_size());
    part->eigen.Solve(own, &u);
    *product -= part->jacobian.transpose() * u;
    if (part->null.cols() == 0) continue;
    if (!part->SolveReduced(own, &t)) {
      message_ = part->message;
      return false;
    }
    correction = Vector::Zero(product->size());
    if (t.norm() > 0.0) part->PullBack(part->null * t, &correction);
    *product -= correction;
  }
  return true;
}

bool OptimisticLowerSolver::IsDetermined(const Vector& fy) {
  Vector t;
  for (auto& part : parts_) {
    if (part->null.cols() == 0) continue;
    if (!part->SolveReduced(fy.segment(part->scenario->tangent_offset, part->space.tangent_size()),
                            &t)) {
      message_ = part->message;
      return false;
    }
  }
  return true;
}

const LowerSolverCounts& OptimisticLowerSolver::counts() const {
  counts_ = own_counts_;
  return counts_ += start_->counts();
}

double OptimisticLowerSolver::relative_decrement() const {
  double largest = -1.0;
  for (auto& part : parts_) largest = std::max(largest, part->relative_decrement);
  return largest;
}

LowerSolverReport OptimisticLowerSolver::Report() const {
  LowerSolverReport report;
  long dimension = 0;
  bool changed = false;
  double largest_null = 0.0, smallest_kept = std::numeric_limits<double>::infinity();
  for (auto& part : parts_) {
    if (!part->evaluated) continue;
    dimension += part->null.cols();
    changed = changed || part->least_dimension < part->most_dimension;
    largest_null = std::max(largest_null, part->eigen.largest_null());
    smallest_kept = std::min(smallest_kept, part->eigen.smallest_kept());
    const int free = part->reduced_eigen->null_dimension();
    if (free == 0) continue;
    report.num_free_directions += free;
    report.free_directions += (report.free_directions.empty() ? "" : "; ") + part->FreeBlocks();
  }
  report.remark =
      "solutions of dimension " + std::to_string(dimension) +
      ", f's minimiser among them taken; scaled eigenvalues of the Hessian: zero up to " +
      Scientific(largest_null) + ", others from " + Scientific(smallest_kept);
  if (changed) report.remark += "; their dimension was not the same at all x, where phi may jump";
  return report;
}

}  // namespace bilevel
