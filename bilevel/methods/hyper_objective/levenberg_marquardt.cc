#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "Eigen/Cholesky"
#include "Eigen/Eigenvalues"
#include "Eigen/QR"
#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

// Relative changes of phi below this are as much y's distance to y*(x) as x's.
constexpr double kRoundingOfPhi = 1e-12;
// A step that changes phi by so many times what was expected may have crossed a jump.
constexpr double kSurprise = 10.0;
// Inner steps, in what the upper level alone has of x, and the decrease that ends them.
constexpr int kMaxInnerSteps = 5;
constexpr double kEnoughInner = 1e-6;

// Directions (columns) along which neither r's derivative nor the objective changes: eigenvectors
// of J'J with an eigenvalue and a slope that are rounding. The rest spans what can be learned.
struct Directions {
  Matrix flat, learnable;
};

Directions SplitDirections(const Matrix& j, const Vector& r, const Vector& g, double tolerance) {
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(j.transpose() * j);
  const Vector& values = eigen.eigenvalues();
  const double largest = values.size() > 0 ? values[values.size() - 1] : 0.0;
  std::vector<int> flat, learnable;
  for (int i = 0; i < values.size(); ++i) {
    const double slope = std::abs(eigen.eigenvectors().col(i).dot(g));
    const bool is_flat =
        values[i] <= tolerance * largest && slope <= std::sqrt(tolerance * largest) * r.norm();
    (is_flat ? flat : learnable).push_back(i);
  }
  return {eigen.eigenvectors()(Eigen::all, flat), eigen.eigenvectors()(Eigen::all, learnable)};
}

// Minimiser of g's + s'Bs/2 over |s| <= radius; B may be indefinite.
Vector TrustRegionStep(const Matrix& b, const Vector& g, double radius) {
  if (g.size() == 0 || g.norm() == 0.0) return Vector::Zero(g.size());
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(b);
  const Vector& values = eigen.eigenvalues();
  const Vector c = eigen.eigenvectors().transpose() * g;
  const auto step = [&](double mu) -> Vector {
    return -(c.array() / (values.array() + mu)).matrix();
  };
  if (values[0] > 0.0 && step(0.0).norm() <= radius) return eigen.eigenvectors() * step(0.0);
  // |s(mu)| falls with mu: bisect its logarithm above -smallest.
  const double scale = std::max(values.cwiseAbs().maxCoeff(), c.norm() / radius);
  const double base = std::max(0.0, -values[0]);
  double low = 1e-16 * scale, high = 2.0 * scale;
  while (step(base + high).norm() > radius) high *= 4.0;
  for (int k = 0; k < 200 && high > low * (1.0 + 1e-10); ++k) {
    const double middle = std::sqrt(low * high);
    (step(base + middle).norm() > radius ? low : high) = middle;
  }
  return eigen.eigenvectors() * step(base + high);
}

// Coordinates of x that the lower level does not have.
std::vector<int> UpperOnly(const Oracle& oracle) {
  std::vector<int> coordinates;
  const auto& blocks = oracle.program().x.blocks();
  for (size_t b = 0; b < blocks.size(); ++b) {
    bool used = false;
    for (const auto& s : oracle.program().scenarios) used |= s->g->UsesX(static_cast<int>(b));
    for (int i = 0; !used && i < blocks[b].tangent_size; ++i) {
      coordinates.push_back(blocks[b].tangent_offset + i);
    }
  }
  return coordinates;
}

}  // namespace

std::string LevenbergMarquardt::Check(const Oracle& oracle) {
  if (!(options_.initial_trust_region_radius > 0.0)) {
    return "initial_trust_region_radius must be positive";
  }
  if (!oracle.f.CanLinearize()) {
    return "levenberg_marquardt needs an upper level without learned losses; \"lbfgs\" takes any";
  }
  return oracle.lower().WhyNoDerivative();
}

Method::Outcome LevenbergMarquardt::Minimize(Oracle& oracle,
                                             State& state,
                                             Monitor* monitor,
                                             std::string* message) {
  const Space& space = state.x.space();
  const int m = state.x.dim();
  Vector r, new_r, gradient, new_gradient, old_part, dx;
  Matrix j, new_j, secant = Matrix::Zero(m, m), model;
  Point x = state.x, y = state.y;
  Vector fy;
  bool use_secant = false;

  const auto fail = [&](const std::string& what) {
    *message = what;
    return Outcome::kFailure;
  };
  // phi, its gradient, J and r at a solved point; false where the lower level cannot be
  // differentiated there.
  const auto linearize = [&](const Point& at_x,
                             Point* solved_y,
                             Matrix* jacobian,
                             Vector* rest,
                             Vector* slope,
                             double* value) {
    if (!oracle.Differentiate(at_x, solved_y)) {
      *message = oracle.message();
      return false;
    }
    const Point& at_y = *solved_y;
    *value = oracle.f.Gradient(at_x, at_y, slope, &fy);
    if (!oracle.ok() || !oracle.lower().IsDetermined(fy)) {
      *message = oracle.ok() ? oracle.lower().message() : oracle.error();
      return false;
    }
    const Matrix& dy_dx = oracle.lower().dy_dx();
    oracle.f.Linearize(at_x, at_y, dy_dx, rest, jacobian);
    slope->noalias() += dy_dx.transpose() * fy;
    if (oracle.ok() && jacobian->allFinite() && slope->allFinite()) return true;
    *message = !oracle.ok() ? oracle.error()
               : !oracle.lower().message().empty()
                   ? oracle.lower().message()
                   : "the derivative of the upper level is not finite";
    return false;
  };
  const auto keep = [&] {
    gauss_newton_ = j.transpose() * j;
    gradient_ = gradient;
    squared_residuals_ = r.squaredNorm();
    num_residuals_ = static_cast<int>(r.size());
  };
  // Coordinates at a bound that the gradient pushes against.
  std::vector<char> fixed(m);
  const auto find_active = [&](const Vector& g) {
    double norm = 0.0;
    for (int i = 0; i < m; ++i) {
      const int k = space.AmbientIndex(i);
      fixed[i] = k >= 0 && ((state.x.value()[k] <= space.LowerBound(i) && g[i] >= 0.0) ||
                            (state.x.value()[k] >= space.UpperBound(i) && g[i] <= 0.0));
      if (!fixed[i]) norm = std::max(norm, std::abs(g[i]));
    }
    return norm;
  };

  // Gauss-Newton steps in those coordinates, from a solved point and its phi.
  const std::vector<int> upper_only = UpperOnly(oracle);
  const bool has_inner = !upper_only.empty() && oracle.f.IsLeastSquares();
  const Matrix no_dy = Matrix::Zero(state.y.dim(), has_inner ? m : 0);
  const auto take_inner_steps = [&](const Point& at_y, Point* at_x, double* value) {
    for (int k = 0; k < kMaxInnerSteps; ++k) {
      oracle.f.Linearize(*at_x, at_y, no_dy, &new_r, &new_j);
      const Matrix a = new_j(Eigen::all, upper_only);
      Vector step = Vector::Zero(m);
      step(upper_only) =
          -(a.transpose() * a).completeOrthogonalDecomposition().solve(a.transpose() * new_r);
      Point next = *at_x;
      const double next_value =
          step.allFinite() && next.Move(step) ? oracle.f.Value(next, at_y) : *value;
      if (!oracle.ok()) oracle.Clear();  // Not from where it was.
      if (!(next_value < *value)) return;
      const bool is_enough = *value - next_value <= kEnoughInner * *value;
      *at_x = next;
      *value = next_value;
      if (is_enough) return;
    }
  };

  is_stuck_ = false;
  surprise_.Clear();
  largest_surprise_ = 0.0;
  if (!oracle.Solve(state.x, &state.y)) return fail(oracle.message());
  double phi;
  if (!linearize(state.x, &state.y, &j, &r, &gradient, &phi)) return Outcome::kFailure;
  keep();
  Matrix slope = oracle.lower().dy_dx();
  double radius = options_.initial_trust_region_radius;
  Progress progress;
  progress.objective = phi;
  progress.gradient_max_norm = find_active(gradient);
  if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
  if (has_inner) {
    take_inner_steps(state.y, &state.x, &phi);
    if (!linearize(state.x, &state.y, &j, &r, &gradient, &phi)) return Outcome::kFailure;
    keep();
    progress.gradient_max_norm = find_active(gradient);
    if (phi < progress.objective) {  // They belong to the answer.
      progress.objective = phi;
      ++oracle.iteration;
      if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
    }
  }

  int rejected = 0;
  for (;;) {
    if (progress.gradient_max_norm <= monitor->gradient_tolerance()) {
      *message = "the gradient is below the gradient tolerance";
      return Outcome::kConverged;
    }
    Vector reduced = gradient;
    Matrix free_j = j;
    for (int i = 0; i < m; ++i) {
      if (!fixed[i]) continue;
      free_j.col(i).setZero();
      reduced[i] = 0.0;
    }
    const Directions directions = SplitDirections(free_j, r, reduced, options_.flat_tolerance);
    const Matrix& v = directions.learnable;  // Without fixed coordinates: their rows are zero.
    model = v.transpose() * gauss_newton_ * v;
    if (use_secant) {
      // A secant from afar may deny the curvature that Gauss-Newton's part guarantees.
      const Matrix with_secant = model + v.transpose() * secant * v;
      use_secant = with_secant.llt().info() == Eigen::Success;
      if (use_secant) model = with_secant;
    }
    dx = v * TrustRegionStep(model, v.transpose() * reduced, radius);
    state.flat_directions.clear();
    for (int i = 0; i < directions.flat.cols(); ++i) {
      const std::string name = NameDirection(space, directions.flat.col(i));
      // A coordinate at a bound is no discovery.
      bool at_bound = false;
      for (int k = 0; k < m; ++k) at_bound |= fixed[k] && std::abs(directions.flat(k, i)) > 0.99;
      if (!at_bound) state.flat_directions.push_back(name);
    }
    x = state.x;
    if (!x.Move(dx)) return fail("x cannot move: its manifold failed");
    if (space.has_bounds()) {  // What is left of the step after projection.
      for (int i = 0; i < m; ++i) {
        const int k = space.AmbientIndex(i);
        if (k >= 0) dx[i] = x.value()[k] - state.x.value()[k];
      }
    }
    const double step_norm = dx.norm();
    progress = Progress();
    progress.step_norm = step_norm;
    progress.trust_region_radius = radius;
    const double x_norm = state.x.value().norm();
    if (step_norm <= monitor->parameter_tolerance() * (x_norm + monitor->parameter_tolerance())) {
      *message = "the step is below the parameter tolerance";
      is_stuck_ = step_norm > 0.9 * radius;  // The steps before failed, no Newton step is as short.
      return Outcome::kConverged;
    }

    // Predict y, correct it, and look.
    y = state.y;
    double new_phi = Progress::kUnknown;
    bool solved = y.Move(slope * dx) && oracle.Solve(x, &y);
    if (solved) new_phi = oracle.f.Value(x, y);
    if (!solved || !oracle.ok()) {
      progress.note = oracle.ok() ? oracle.message() : oracle.Clear();
      if (progress.note.empty()) progress.note = "y cannot follow x";
      solved = false;
    }
    const double gn_change = gradient.dot(dx) + 0.5 * (j * dx).squaredNorm();
    const double secant_change = gn_change + 0.5 * dx.dot(secant * dx);
    const double expected = -(use_secant ? secant_change : gn_change);
    const double first_ratio = solved ? (phi - new_phi) / expected : -1.0;
    if (solved && has_inner) {
      take_inner_steps(y, &x, &new_phi);
      if (!space.Minus(x.value().data(), state.x.value().data(), dx.data())) {
        return fail("x cannot move: its manifold failed");
      }
    }
    const double surprise = std::abs(phi - new_phi - expected);
    if (solved && expected > 0.0 && surprise > std::max(kSurprise * expected, largest_surprise_)) {
      largest_surprise_ = surprise;
      surprise_.Set(state.x, x, state.y);
    }
    const double ratio = solved ? (phi - new_phi) / expected : -1.0;
    // Steps too short for phi to tell are judged by the gradient.
    const bool too_small_to_see = solved && std::abs(expected) < 1e-13 * std::abs(phi) &&
                                  std::abs(new_phi - phi) < 1e-12 * std::abs(phi);
    bool accept = solved && expected > 0.0 && (ratio > 1e-4 || too_small_to_see);
    if (accept && !linearize(x, &y, &new_j, &new_r, &new_gradient, &new_phi)) {
      progress.note = *message;
      oracle.Clear();
      accept = false;
    }
    if (accept && too_small_to_see) {
      double norm = 0.0, new_norm = 0.0;
      for (int i = 0; i < m; ++i) {
        if (fixed[i]) continue;
        norm = std::hypot(norm, gradient[i]);
        new_norm = std::hypot(new_norm, new_gradient[i]);
      }
      if (!(new_norm < 0.5 * norm)) {
        *message = "further steps are lost in the rounding of the objective and of its gradient";
        return Outcome::kConverged;
      }
    }
    if (!accept) {
      progress.step_is_successful = false;
      progress.objective = phi;
      progress.gradient_max_norm = find_active(gradient);
      if (solved && progress.note.empty()) progress.note = "phi did not decrease as predicted";
      // To where the parabola through phi, its slope and the new phi is least.
      const double along = gradient.dot(dx), share = -0.5 * along / (new_phi - phi - along);
      radius = (solved && along < 0.0 ? std::clamp(share, 0.1, 0.5) : 0.25) *
               std::min(radius, step_norm);
      use_secant = false;
      ++oracle.iteration;
      if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
      // What the model hopes for without a radius tells convergence from trouble.
      const Vector slope_along = v.transpose() * reduced;
      const Vector full = TrustRegionStep(model, slope_along, 1e100);
      const double hope = -(slope_along.dot(full) + 0.5 * full.dot(model * full)) / std::abs(phi);
      const bool given_up = ++rejected > options_.max_num_rejected_steps;
      if (solved && hope <= (given_up ? std::max(kRoundingOfPhi, monitor->function_tolerance())
                                      : monitor->function_tolerance())) {
        *message =
            "no step decreases the objective, and the best was expected to change it by a "
            "relative " +
            Scientific(hope) + " only";
        return Outcome::kConverged;
      }
      if (given_up) {
        is_stuck_ = solved;
        return fail("no step decreases the objective; the last was rejected because " +
                    progress.note);
      }
      continue;
    }
    const double growth = rejected > 0 ? 1.0 : 2.0;  // Not back at once to what was rejected.
    rejected = 0;
    if (options_.use_secant) {
      // The secant condition S dx = (J+ - J)' r+ and the change of what else is in the gradients,
      // in the DFP metric of their change.
      old_part = new_gradient - gradient - j.transpose() * (new_r - r);
      const Vector change = new_gradient - gradient;
      const double curvature = change.dot(dx);
      const double have = dx.dot(secant * dx), want = dx.dot(old_part);
      if (have != 0.0) secant *= std::min(1.0, std::abs(want) / std::abs(have));
      if (std::abs(curvature) > 1e-14 * change.norm() * step_norm) {
        const Vector error = old_part - secant * dx;
        secant += (error * change.transpose() + change * error.transpose()) / curvature -
                  (error.dot(dx) / (curvature * curvature)) * change * change.transpose();
      }
      const double actual = new_phi - phi;
      use_secant = std::abs(secant_change - actual) <= std::abs(gn_change - actual);
    }
    if (first_ratio > 0.75) {  // Inner steps say nothing for the model.
      radius = std::min(options_.max_trust_region_radius, std::max(radius, growth * step_norm));
    } else if (ratio < 0.25 && !too_small_to_see) {
      radius = 0.5 * std::min(radius, step_norm);
    }
    const double decrease = phi - new_phi;
    std::swap(state.x, x);
    std::swap(state.y, y);
    j.swap(new_j);
    r.swap(new_r);
    gradient.swap(new_gradient);
    keep();
    slope = oracle.lower().dy_dx();
    phi = new_phi;
    progress.objective = phi;
    progress.gradient_max_norm = find_active(gradient);
    progress.keep = Progress::kAlways;  // Where phi is rounding the gradient has told.
    ++oracle.iteration;
    if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
    if (std::abs(decrease) <= monitor->function_tolerance() * std::abs(phi) && ratio > 0.25) {
      *message = "the objective's relative change is below the function tolerance";
      return Outcome::kConverged;
    }
  }
}

void LevenbergMarquardt::Finish(Oracle& oracle, const State& state, Assessment* assessment) {
  if (!surprise_.empty()) {
    // By another lower solver: this one's report is to stay that of the answer.
    oracle.ForEach(1, [&](Oracle& worker, int) {
      const std::string jump = surprise_.FindJump(worker);
      if (!jump.empty()) assessment->notes.push_back(jump);
    });
  }
  if (!oracle.f.IsLeastSquares()) return;  // A likelihood: J'J is not its curvature.
  assessment->uncertainty.Compute(state.x,
                                  gauss_newton_,
                                  gradient_,
                                  HessianKind::kGaussNewton,
                                  squared_residuals_,
                                  num_residuals_);
}

}  // namespace bilevel
