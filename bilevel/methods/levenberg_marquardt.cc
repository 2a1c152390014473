#include "bilevel/methods/levenberg_marquardt.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "Eigen/Eigenvalues"
#include "bilevel/lower_level/lower_solver.h"

namespace bilevel {
namespace {

// Minimiser of g's + s'Bs/2 over |s| <= radius within the span of the eigenvectors that are not
// flat; B may be indefinite.
class TrustRegionStep {
 public:
  TrustRegionStep(const Matrix& b, const Vector& g, double flat_tolerance) : eigen_(b) {
    const Vector& values = eigen_.eigenvalues();
    const double largest = values.cwiseAbs().maxCoeff();
    c_ = eigen_.eigenvectors().transpose() * g;
    for (int i = 0; i < values.size(); ++i) {
      // Flat: neither curvature nor slope.
      if (std::abs(values[i]) <= flat_tolerance * largest &&
          std::abs(c_[i]) <= std::sqrt(flat_tolerance) * c_.cwiseAbs().maxCoeff()) {
        c_[i] = 0.0;
      }
    }
  }

  Vector Solve(double radius) const {
    const Vector& values = eigen_.eigenvalues();
    double smallest = std::numeric_limits<double>::infinity();
    for (int i = 0; i < values.size(); ++i) {
      if (c_[i] != 0.0) smallest = std::min(smallest, values[i]);
    }
    const auto step = [&](double mu) -> Vector {
      Vector s = Vector::Zero(c_.size());
      for (int i = 0; i < c_.size(); ++i) {
        if (c_[i] != 0.0) s[i] = -c_[i] / (values[i] + mu);
      }
      return s;
    };
    if (!std::isfinite(smallest)) return Vector::Zero(c_.size());
    if (smallest > 0.0 && step(0.0).norm() <= radius) return eigen_.eigenvectors() * step(0.0);
    // |s(mu)| falls with mu: bisect its logarithm above -smallest.
    const double scale = std::max(values.cwiseAbs().maxCoeff(), c_.norm() / radius);
    const double base = std::max(0.0, -smallest);
    double low = 1e-16 * scale, high = 2.0 * scale;
    while (step(base + high).norm() > radius) high *= 4.0;
    for (int k = 0; k < 200 && high > low * (1.0 + 1e-10); ++k) {
      const double middle = std::sqrt(low * high);
      (step(base + middle).norm() > radius ? low : high) = middle;
    }
    return eigen_.eigenvectors() * step(base + high);
  }

 private:
  Eigen::SelfAdjointEigenSolver<Matrix> eigen_;
  Vector c_;
};

}  // namespace

std::string LevenbergMarquardt::Check(const Oracle& oracle) const {
  if (!(options_.initial_trust_region_radius > 0.0)) {
    return "initial_trust_region_radius must be positive";
  }
  if (!oracle.f.IsLeastSquares()) {
    return "levenberg_marquardt needs an upper level of residual blocks alone, without general "
           "terms and without learned losses; \"lbfgs\" takes any";
  }
  return "";
}

Method::Outcome LevenbergMarquardt::Minimize(Oracle& oracle,
                                             State& state,
                                             Monitor* monitor,
                                             std::string* message) {
  const Space& space = state.x.space();
  const int m = state.x.dim();
  Vector r, gradient, new_gradient, old_part, dx, full(m);
  Matrix j, new_j, secant = Matrix::Zero(m, m), gauss_newton, model;
  Point x = state.x, y = state.y;
  Vector fy;
  bool use_secant = false;

  const auto fail = [&](const std::string& what) {
    *message = what;
    return Outcome::kFailure;
  };
  // J and r at a solved point; false where the lower level cannot be differentiated there.
  const auto linearize =
      [&](const Point& at_x, const Point& at_y, Matrix* jacobian, Vector* rest, double* value) {
        if (!oracle.Differentiate(at_x, at_y)) {
          *message = oracle.message();
          return false;
        }
        oracle.f.Gradient(at_x, at_y, nullptr, &fy);
        if (!oracle.ok() || !oracle.lower().IsDetermined(fy)) {
          *message = oracle.ok() ? oracle.lower().message() : oracle.error();
          return false;
        }
        *value = oracle.f.Linearize(at_x, at_y, oracle.lower().dy_dx(), rest, jacobian);
        if (oracle.ok() && jacobian->allFinite()) return true;
        *message = !oracle.ok() ? oracle.error()
                   : !oracle.lower().message().empty()
                       ? oracle.lower().message()
                       : "the derivative of the upper residuals is not finite";
        return false;
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

  if (!oracle.Solve(state.x, &state.y)) return fail(oracle.message());
  double phi;
  if (!linearize(state.x, state.y, &j, &r, &phi)) return Outcome::kFailure;
  gradient = j.transpose() * r;
  Matrix slope = oracle.lower().dy_dx();
  double radius = options_.initial_trust_region_radius;
  Progress progress;
  progress.objective = phi;
  progress.gradient_norm = find_active(gradient);
  if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;

  int rejected = 0;
  for (;;) {
    if (progress.gradient_norm <= monitor->gradient_tolerance()) {
      *message = "the gradient is below the gradient tolerance";
      return Outcome::kConverged;
    }
    gauss_newton = j.transpose() * j;
    model = use_secant ? Matrix(gauss_newton + secant) : gauss_newton;
    Vector reduced = gradient;
    for (int i = 0; i < m; ++i) {
      if (!fixed[i]) continue;
      model.row(i).setZero();
      model.col(i).setZero();
      reduced[i] = 0.0;
    }
    dx = TrustRegionStep(model, reduced, options_.flat_tolerance).Solve(radius);
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
    const double ratio = solved ? (phi - new_phi) / expected : -1.0;
    // Steps too short for phi to tell are judged by the gradient.
    const bool too_small_to_see = solved && std::abs(expected) < 1e-13 * std::abs(phi) &&
                                  std::abs(new_phi - phi) < 1e-12 * std::abs(phi);
    double linearized_phi;
    bool accept = solved && expected > 0.0 && (ratio > 1e-4 || too_small_to_see);
    if (accept && !linearize(x, y, &new_j, &r, &linearized_phi)) {
      progress.note = *message;
      oracle.Clear();
      accept = false;
    }
    if (!accept) {
      progress.accepted = false;
      progress.objective = phi;
      progress.gradient_norm = find_active(gradient);
      if (solved && progress.note.empty()) progress.note = "phi did not decrease as predicted";
      radius = 0.25 * std::min(radius, step_norm);
      ++oracle.iteration;
      if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
      if (++rejected > options_.max_num_rejected_steps) {
        return fail("no step decreases the objective; the last was rejected because " +
                    progress.note);
      }
      continue;
    }
    rejected = 0;
    new_gradient = new_j.transpose() * r;
    if (options_.use_secant) {
      // The secant condition S dx = (J+ - J)' r+, in the DFP metric of the gradients' change.
      old_part = new_gradient - j.transpose() * r;
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
      use_secant = std::abs(secant_change - actual) <= std::abs(gn_change - actual) ||
                   std::abs(dx.dot(secant * dx)) > 0.1 * std::abs((j * dx).squaredNorm());
    }
    if (ratio > 0.75) {
      radius = std::min(options_.max_trust_region_radius, std::max(radius, 3.0 * step_norm));
    } else if (ratio < 0.25 && !too_small_to_see) {
      radius = 0.5 * std::min(radius, step_norm);
    }
    const double decrease = phi - new_phi;
    std::swap(state.x, x);
    std::swap(state.y, y);
    j.swap(new_j);
    gradient.swap(new_gradient);
    slope = oracle.lower().dy_dx();
    phi = new_phi;
    progress.objective = phi;
    progress.gradient_norm = find_active(gradient);
    ++oracle.iteration;
    if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
    if (std::abs(decrease) <= monitor->function_tolerance() * std::abs(phi) && ratio > 0.25) {
      *message = "the objective's relative change is below the function tolerance";
      return Outcome::kConverged;
    }
  }
}

}  // namespace bilevel
