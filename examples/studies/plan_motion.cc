// Learns from demonstrations how far from obstacles a motion planner should keep, and how much that
// matters.
//
//   lower level   y*(x) = argmin  GP prior(y) + integral of |w hinge(eps - distance(y))|^2 dt / 2
//   upper level   x     = argmin  sum over demonstrations of |y*(x) - demonstrated|^2, positions
//
// y: position and velocity at support times; the prior is white noise on acceleration, whose mean
// between two states is the cubic Hermite spline (Mukadam et al., "Continuous-time Gaussian process
// motion planning via probabilistic inference", IJRR 2018), and obstacles are looked for there too.
// x: logarithms of the safety distance eps and of the obstacle weight w = 1 / sigma. The
// demonstrations were made with secret values of both and some jitter.
//
// A plan is a local minimum in its homotopy class: which side of every obstacle it passes on. The
// derivative of a plan says nothing about a demonstration in another class, so every lower level
// starts from its demonstration, a trial step on which a plan leaves its class is rejected, and a
// scene that has no plan in its class at all is set aside until the next round.
//
// --hard: the demonstrator keeps a clearance whatever it costs. A sigma of 0 makes the distance a
// constraint of the lower level instead of a penalty,
//
//     y*(x) = argmin { GP prior(y) : distance(y) >= eps where obstacles are looked for },
//
// and x is eps alone. Both planners learn from the same demonstrations.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/constrained_lower_solver.h"
#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"
#include "ceres/ceres.h"
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/position_error.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"

DEFINE_int32(train, 10, "demonstrations to learn from");
DEFINE_int32(test, 20, "held-out scenes");
DEFINE_double(jitter, 0.01, "standard deviation of the demonstrations, in metres");
DEFINE_double(start_distance, 0.3, "the safety distance set by hand, in metres");
DEFINE_double(start_sigma, 0.2, "the obstacle sigma set by hand, in metres");
DEFINE_bool(hard,
            false,
            "the demonstrator keeps a clearance, as a constraint; nothing is searched");
DEFINE_bool(grid, true, "search a grid of 81 values as well");
DEFINE_int32(seed, 0, "of the scenes");
DEFINE_bool(progress, false, "print the iterations");

namespace {

using examples::Format;
using examples::Now;
using examples::PositionError;
using State = std::array<double, 4>;  // Position [m], velocity [m/s].
using Trajectory = std::vector<State>;

constexpr int kIntervals = 24;
constexpr int kChecks = 4;           // Looks for obstacles in an interval.
constexpr double kInterval = 0.4;    // s
constexpr double kPsd = 0.05;        // Of the acceleration, m^2/s^3.
constexpr double kSmoothing = 0.05;  // Of the hinge, m: plans have second derivatives.
constexpr double kSecretDistance = 0.62, kSecretSigma = 0.08;  // m
constexpr double kSecretClearance = 0.15;                      // m, of --hard.

struct Disc {
  double x, y, radius;
};

// Logarithms of the safety distance and of the obstacle weight. A sigma of 0: the distance is kept.
struct Parameters {
  double log_distance, log_weight;
  bool is_hard() const { return std::isinf(log_weight); }
  double distance() const { return std::exp(log_distance); }
  double sigma() const { return std::exp(-log_weight); }
};
Parameters MakeParameters(double distance, double sigma) {
  return {std::log(distance), -std::log(sigma)};
}

Parameters Secret() {
  return FLAGS_hard ? MakeParameters(kSecretClearance, 0.0)
                    : MakeParameters(kSecretDistance, kSecretSigma);
}

// Cubic Hermite interpolation, s in [0, 1]: the prior's mean between two states.
template <typename T>
void Interpolate(const T* a, const T* b, double s, T* p) {
  const double h00 = (1.0 + 2.0 * s) * (1.0 - s) * (1.0 - s), h10 = s * (1.0 - s) * (1.0 - s);
  const double h01 = s * s * (3.0 - 2.0 * s), h11 = s * s * (s - 1.0);
  for (int i = 0; i < 2; ++i) {
    p[i] = h00 * a[i] + kInterval * h10 * a[2 + i] + h01 * b[i] + kInterval * h11 * b[2 + i];
  }
}

struct PriorError {  // Whitened by the Cholesky factor of the prior's covariance.
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    const double dt = kInterval, scale = 1.0 / std::sqrt(kPsd * dt);
    for (int i = 0; i < 2; ++i) {
      const T dp = b[i] - a[i] - dt * a[2 + i], dv = b[2 + i] - a[2 + i];
      r[i] = scale * dv;
      r[2 + i] = scale * (dp * (2.0 / dt) - dv) * std::sqrt(3.0);
    }
    return true;
  }
};

struct ObstacleError {
  template <typename T>
  bool operator()(const T* a, const T* b, const T* log_distance, const T* log_weight, T* r) const {
    T p[2];
    Interpolate(a, b, s, p);
    const T dx = p[0] - disc.x, dy = p[1] - disc.y;
    const T clearance = sqrt(dx * dx + dy * dy + 1e-6) - disc.radius;
    const T inside = exp(log_distance[0]) - clearance;
    const T hinge = 0.5 * (inside + sqrt(inside * inside + kSmoothing * kSmoothing));
    r[0] = std::sqrt(kInterval / kChecks) * exp(log_weight[0]) * hinge;
    return true;
  }
  Disc disc;
  double s;
};

struct ObstacleConstraint {  // (radius + distance)^2 - |p - centre|^2 <= 0.
  template <typename T>
  bool operator()(const T* a, const T* b, const T* log_distance, T* c) const {
    T p[2];
    Interpolate(a, b, s, p);
    const T dx = p[0] - disc.x, dy = p[1] - disc.y, off = exp(log_distance[0]) + disc.radius;
    c[0] = off * off - dx * dx - dy * dy;
    return true;
  }
  Disc disc;
  double s;
};

// ------------------------------------------------------------------------------------------------

struct Scene {
  std::string name;
  std::vector<Disc> discs;
  State start, goal;
  Trajectory exact;    // The demonstrator's plan.
  Trajectory shown;    // The same with jitter: what is learned from, and where lower levels begin.
  Trajectory current;  // The lower level's memory.
  std::vector<int> signature;  // Of the demonstration.
};

void AddPlan(const Scene& scene, Parameters* x, Trajectory* y, bilevel::Scenario* scenario) {
  ceres::Problem* problem = scenario->lower();
  for (int i = 0; i < kIntervals; ++i) {
    double *a = (*y)[i].data(), *b = (*y)[i + 1].data();
    problem->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<PriorError, 4, 4, 4>(new PriorError), nullptr, a, b);
    for (int k = 0; k < kChecks; ++k) {
      const double at = (k + 0.5) / kChecks;
      for (const Disc& disc : scene.discs) {
        if (x->is_hard()) {
          scenario->AddLowerInequality(
              new bilevel::AutoDiffCostFunction<ObstacleConstraint, 1, 4, 4, 1>(
                  new ObstacleConstraint{disc, at}),
              a,
              b,
              &x->log_distance);
        } else {
          problem->AddResidualBlock(new bilevel::AutoDiffCostFunction<ObstacleError, 1, 4, 4, 1, 1>(
                                        new ObstacleError{disc, at}),
                                    nullptr,
                                    a,
                                    b,
                                    &x->log_distance,
                                    &x->log_weight);
        }
      }
    }
  }
  problem->SetParameterBlockConstant(y->front().data());
  problem->SetParameterBlockConstant(y->back().data());
}

// From where *y is, by plain Ceres, or within constraints. Returns the cost, or infinity.
double Plan(const Scene& scene, Parameters x, Trajectory* y) {
  bilevel::Problem problem;
  AddPlan(scene, &x, y, problem.scenario(0));
  if (x.is_hard()) {
    problem.AddUpperParameterBlock(&x.log_distance, 1);
    bilevel::Sensitivity::Options polish;
    polish.polish = true;
    if (!bilevel::Sensitivity(polish).Compute(&problem, {&x.log_distance})) return HUGE_VAL;
    double cost = HUGE_VAL;
    problem.lower()->Evaluate({}, &cost, nullptr, nullptr, nullptr);
    return cost;
  }
  problem.lower()->SetParameterBlockConstant(&x.log_distance);
  problem.lower()->SetParameterBlockConstant(&x.log_weight);
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.max_num_iterations = 200;
  options.function_tolerance = 1e-9;
  options.logging_type = ceres::SILENT;
  ceres::Solver::Summary summary;
  ceres::Solve(options, problem.lower(), &summary);
  return summary.IsSolutionUsable() ? summary.final_cost : HUGE_VAL;
}

std::vector<std::array<double, 2>> Path(const Trajectory& y) {
  std::vector<std::array<double, 2>> path;
  for (int i = 0; i < kIntervals; ++i) {
    for (int k = 0; k < 8; ++k) {
      path.emplace_back();
      Interpolate(y[i].data(), y[i + 1].data(), k / 8.0, path.back().data());
    }
  }
  path.push_back({y.back()[0], y.back()[1]});
  return path;
}

// The angle a path sweeps around each obstacle, in units of 2 pi and rounded towards a side. Paths
// from the same start to the same goal with equal signatures wind equally around every obstacle.
std::vector<int> Signature(const Scene& scene, const Trajectory& y) {
  const auto path = Path(y);
  std::vector<int> signature;
  for (const Disc& disc : scene.discs) {
    double swept = 0.0;
    for (size_t i = 1; i < path.size(); ++i) {
      const double ax = path[i - 1][0] - disc.x, ay = path[i - 1][1] - disc.y;
      const double bx = path[i][0] - disc.x, by = path[i][1] - disc.y;
      swept += std::atan2(ax * by - ay * bx, ax * bx + ay * by);
    }
    signature.push_back(static_cast<int>(std::floor(swept / (2.0 * M_PI))));
  }
  return signature;
}

// One letter an obstacle: the path passes left or right of it; a number where it loops.
std::string Sides(const std::vector<int>& signature) {
  std::string sides;
  for (const int k : signature) sides += k == -1 ? "L" : k == 0 ? "R" : std::to_string(k);
  return sides;
}

// From the straight line, and from bends to both sides: the best local minimum of all. *margin is
// by which share of its cost the best one of another homotopy class is worse.
Trajectory PlanFromScratch(const Scene& scene, const Parameters& x, double* margin = nullptr) {
  Trajectory best;
  double least = HUGE_VAL;
  std::map<std::vector<int>, double> classes;
  for (const auto& [bow, wave] : std::vector<std::pair<double, double>>{
           {0.0, 0.0}, {1.0, 0.0}, {-1.0, 0.0}, {2.2, 0.0}, {-2.2, 0.0}, {0.0, 1.2}, {0.0, -1.2}}) {
    Trajectory y(kIntervals + 1);
    const double duration = kIntervals * kInterval;
    for (int i = 0; i <= kIntervals; ++i) {
      const double s = static_cast<double>(i) / kIntervals;
      for (int k = 0; k < 2; ++k) {
        y[i][k] = (1.0 - s) * scene.start[k] + s * scene.goal[k];
        y[i][2 + k] = (scene.goal[k] - scene.start[k]) / duration;
      }
      y[i][1] += bow * std::sin(M_PI * s) + wave * std::sin(2.0 * M_PI * s);
      y[i][3] +=
          (bow * std::cos(M_PI * s) + 2.0 * wave * std::cos(2.0 * M_PI * s)) * M_PI / duration;
    }
    y.front() = scene.start;
    y.back() = scene.goal;
    if (x.is_hard()) Plan(scene, MakeParameters(x.distance(), kSecretSigma), &y);
    const double cost = Plan(scene, x, &y);
    double& of_class = classes.try_emplace(Signature(scene, y), cost).first->second;
    of_class = std::min(of_class, cost);
    if (cost >= least && !best.empty()) continue;
    least = cost;
    best = y;
  }
  if (margin) {
    *margin = HUGE_VAL;
    for (const auto& [signature, cost] : classes) {
      if (cost > least) *margin = std::min(*margin, cost / least - 1.0);
    }
  }
  return best;
}

Scene MakeScene(const std::string& name, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::normal_distribution<double> normal;
  Scene scene;
  scene.name = name;
  scene.start = {0.0, 2.0 + 2.0 * uniform(generator), 0.9, 0.0};
  scene.goal = {9.0, 2.0 + 2.0 * uniform(generator), 0.9, 0.0};
  // Where two classes cost the same, nobody can tell which way to go: such scenes are drawn again.
  for (double margin = 0.0; margin < 0.05;) {
    scene.discs.clear();
    while (scene.discs.size() < 6) {
      const Disc disc{1.7 + 5.6 * uniform(generator),
                      0.6 + 4.8 * uniform(generator),
                      0.25 + 0.45 * uniform(generator)};
      const bool fits = std::all_of(scene.discs.begin(), scene.discs.end(), [&](const Disc& other) {
        return std::hypot(disc.x - other.x, disc.y - other.y) > disc.radius + other.radius + 0.4;
      });
      if (fits) scene.discs.push_back(disc);
    }
    scene.exact = PlanFromScratch(scene, Secret(), &margin);
  }
  scene.shown = scene.exact;
  for (int i = 1; i < kIntervals; ++i) {
    for (int k = 0; k < 2; ++k) scene.shown[i][k] += FLAGS_jitter * normal(generator);
  }
  for (int i = 1; i < kIntervals; ++i) {  // Velocities are not demonstrated: differences.
    for (int k = 0; k < 2; ++k) {
      scene.shown[i][2 + k] = (scene.shown[i + 1][k] - scene.shown[i - 1][k]) / (2.0 * kInterval);
    }
  }
  scene.signature = Signature(scene, scene.shown);
  return scene;
}

double SquaredError(const Trajectory& a, const Trajectory& b) {  // m^2, mean over interior states
  double sum = 0.0;
  for (int i = 1; i < kIntervals; ++i) {
    sum += std::pow(a[i][0] - b[i][0], 2) + std::pow(a[i][1] - b[i][1], 2);
  }
  return sum / (kIntervals - 1);
}

// By how much, at worst, a plan comes nearer than the demonstrator does where planners look, m.
double Violation(const Scene& scene, const Trajectory& y) {
  double worst = 0.0;
  for (int i = 0; i < kIntervals * kChecks; ++i) {
    double p[2];
    const int from = i / kChecks;
    Interpolate(y[from].data(), y[from + 1].data(), (i % kChecks + 0.5) / kChecks, p);
    for (const Disc& d : scene.discs) {
      const double clearance = std::hypot(p[0] - d.x, p[1] - d.y) - d.radius;
      worst = std::max(worst, Secret().distance() - clearance);
    }
  }
  return worst;
}

double Clearance(const Scene& scene, const Trajectory& y) {
  double least = HUGE_VAL;
  for (const auto& p : Path(y)) {
    for (const Disc& d : scene.discs) {
      least = std::min(least, std::hypot(p[0] - d.x, p[1] - d.y) - d.radius);
    }
  }
  return least;
}

// ------------------------------------------------------------------------------------------------

// Newton's method below, refusing solutions outside the demonstrations' homotopy classes: methods
// then reject the trial, as they do where the lower level has no solution.
class ClassGuard : public bilevel::LowerSolver {
 public:
  ClassGuard(bilevel::Program* program,
             const bilevel::NewtonLowerSolver::Options& options,
             std::map<std::string, const Scene*> scenes)
      : program_(program),
        scenes_(std::move(scenes)),
        newton_(bilevel::MakeNewtonLowerSolver(program, options)) {}

  bool takes_constraints() const override { return newton_->takes_constraints(); }

  bool Solve(const bilevel::Point& x, bilevel::Point* y) override {
    message_.clear();
    bilevel::Point solution = *y;
    if (!newton_->Solve(x, &solution)) return false;
    for (const auto& scenario : program_->scenarios) {
      const Scene& scene = *scenes_.at(scenario->name);
      Trajectory trajectory = scene.current;  // For the fixed ends.
      for (const auto& block : scenario->y.blocks()) {
        const auto i = (block.user - scene.current[0].data()) / 4;
        const double* from = solution.value().data() + scenario->offset + block.offset;
        std::copy_n(from, 4, trajectory[i].data());
      }
      const auto signature = Signature(scene, trajectory);
      if (signature == scene.signature) continue;
      message_ = "the plan of '" + scene.name + "' left its homotopy class, " +
                 Sides(scene.signature) + ", for " + Sides(signature);
      return false;
    }
    *y = solution;
    return true;
  }
  bool Remember(bilevel::Memory* memory) override { return newton_->Remember(memory); }
  bool Differentiate(const bilevel::Point& x, const bilevel::Point& y) override {
    message_.clear();
    return newton_->Differentiate(x, y);
  }
  const bilevel::Matrix& dy_dx() override { return newton_->dy_dx(); }
  bool Adjoint(const bilevel::Vector& fy, bilevel::Vector* product) override {
    return newton_->Adjoint(fy, product);
  }
  bool IsDetermined(const bilevel::Vector& fy) override { return newton_->IsDetermined(fy); }
  std::unique_ptr<bilevel::LowerSolver> Fork() const override {
    return std::unique_ptr<LowerSolver>(new ClassGuard(program_, scenes_, newton_->Fork()));
  }
  const std::string& message() const override {
    return message_.empty() ? newton_->message() : message_;
  }
  const bilevel::LowerSolverCounts& counts() const override { return newton_->counts(); }
  double relative_decrement() const override { return newton_->relative_decrement(); }
  bilevel::LowerSolverReport Report() const override { return newton_->Report(); }

 private:
  ClassGuard(bilevel::Program* program,
             std::map<std::string, const Scene*> scenes,
             std::unique_ptr<bilevel::LowerSolver> newton)
      : program_(program), scenes_(std::move(scenes)), newton_(std::move(newton)) {}

  bilevel::Program* program_;
  std::map<std::string, const Scene*> scenes_;
  std::unique_ptr<bilevel::LowerSolver> newton_;
  std::string message_;
};

// ------------------------------------------------------------------------------------------------

struct Learned {
  Parameters x;
  bool ok = false;
  std::string message;
  int rounds = 0, refused_steps = 0;
  std::vector<std::string> set_aside;  // In any round.
  int num_left_out = 0;                // In the last round.
  long lower_solves = 0;
  double seconds = 0.0;
  std::vector<double> path[2];  // Safety distance and sigma, accepted iterates.
  bilevel::Solver::Summary summary;
};

// Plans from the demonstration at x; those that stay in its class.
std::vector<Scene*> InClass(std::vector<Scene>* scenes, const Parameters& x, Learned* learned) {
  std::vector<Scene*> in_class;
  for (Scene& scene : *scenes) {
    scene.current = scene.shown;
    const bool is_planned = Plan(scene, x, &scene.current) < HUGE_VAL;
    ++learned->lower_solves;
    const auto signature = Signature(scene, scene.current);
    if (!is_planned) {
      learned->set_aside.push_back(Format("round %d, '%s': no plan keeps a distance of %.4f m",
                                          learned->rounds,
                                          scene.name.c_str(),
                                          x.distance()));
    } else if (signature == scene.signature) {
      in_class.push_back(&scene);
    } else {
      learned->set_aside.push_back(Format("round %d, '%s': demonstrated %s, planned %s",
                                          learned->rounds,
                                          scene.name.c_str(),
                                          Sides(scene.signature).c_str(),
                                          Sides(signature).c_str()));
    }
  }
  return in_class;
}

Learned Learn(std::vector<Scene>* scenes, const Parameters& start) {
  Learned learned;
  learned.x = start;
  const double begin = Now();
  std::vector<Scene*> used;
  for (int round = 1; round <= 6; ++round) {
    learned.rounds = round;
    const std::vector<Scene*> in_class = InClass(scenes, learned.x, &learned);
    learned.num_left_out = static_cast<int>(scenes->size() - in_class.size());
    if (in_class.empty()) {
      learned.ok = false;
      learned.message = start.is_hard() ? "no plan keeps the distance in the class of its "
                                          "demonstration: start from a smaller one"
                                        : "no plan is in the homotopy class of its demonstration: "
                                          "start from a smaller sigma or a larger distance";
      break;
    }
    if (in_class == used) break;
    used = in_class;

    bilevel::Problem problem;
    Parameters& x = learned.x;
    problem.AddUpperParameterBlock(&x.log_distance, 1);
    problem.SetParameterName(&x.log_distance, "log safety distance");
    if (!x.is_hard()) {
      problem.AddUpperParameterBlock(&x.log_weight, 1);
      problem.SetParameterName(&x.log_weight, "log obstacle weight");
    }
    std::map<std::string, const Scene*> by_name;
    for (Scene* scene : used) {
      by_name[scene->name] = scene;
      auto* s = problem.AddScenario(scene->name, 1.0 / (used.size() * (kIntervals - 1)));
      AddPlan(*scene, &x, &scene->current, s);
      for (int i = 1; i < kIntervals; ++i) {
        s->upper()->AddResidualBlock(new bilevel::AutoDiffCostFunction<PositionError, 2, 4>(
                                         new PositionError{scene->shown[i][0], scene->shown[i][1]}),
                                     nullptr,
                                     scene->current[i].data());
      }
    }
    bilevel::Solver::Options options;
    options.num_threads = FLAGS_num_threads;
    options.lower_solver_options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
    options.lower_solver_options.logging_type = ceres::SILENT;
    options.minimizer_progress_to_stdout = FLAGS_progress;
    options.lower_solver = [&](bilevel::Program* program) {
      return std::make_unique<ClassGuard>(program, options.LowerSolverOptions(), by_name);
    };
    options.method = bilevel::CreateMethod("levenberg_marquardt");
    examples::Solve(options, &problem, &learned.summary);
    learned.ok = learned.summary.IsSolutionUsable();
    learned.message = learned.summary.message;
    const auto& counts = learned.summary.lower_solver;
    learned.lower_solves += counts.cold_solves + counts.warm_solves;
    for (const auto& it : learned.summary.iterations) {
      learned.refused_steps += it.note.find("homotopy") != std::string::npos;
      if (!it.step_is_successful) continue;
      learned.path[0].push_back(std::exp(it.x[0]));
      learned.path[1].push_back(x.is_hard() ? 0.0 : std::exp(-it.x[1]));
    }
    std::printf("Round %d: %zu of %zu demonstrations; distance %.4f m, sigma %.4f m. %s\n",
                round,
                used.size(),
                scenes->size(),
                x.distance(),
                x.sigma(),
                learned.summary.BriefReport().c_str());
    if (!learned.ok) break;
  }
  learned.seconds = Now() - begin;
  return learned;
}

// The same score without derivatives: the mean over demonstrations whose class is kept.
Learned GridSearch(std::vector<Scene>* scenes) {
  Learned best;
  const double begin = Now();
  double least = HUGE_VAL;
  for (int i = 0; i < 9; ++i) {
    for (int j = 0; j < 9; ++j) {
      const Parameters x =
          MakeParameters(0.1 * std::pow(10.0, i / 8.0), 0.01 * std::pow(100.0, j / 8.0));
      double sum = 0.0;
      for (Scene& scene : *scenes) {
        scene.current = scene.shown;
        Plan(scene, x, &scene.current);
        ++best.lower_solves;
        sum += SquaredError(scene.current, scene.shown);
      }
      if (sum >= least) continue;
      least = sum;
      best.x = x;
    }
  }
  best.ok = true;
  best.seconds = Now() - begin;
  return best;
}

// Held-out scenes, planned from scratch.
struct Score {
  std::string name;
  Parameters x;
  double rms = 0.0, rms_in_class = 0.0;  // m, to the demonstrator's exact plans.
  int other_class = 0;
  double clearance = 0.0;  // m, mean of the least.
  double violation = 0.0;  // m, the worst.
  std::vector<Trajectory> plans = {};
  std::vector<double> errors = {};  // Of each scene, m.
};

Score Test(const std::string& name, const Parameters& x, const std::vector<Scene>& scenes) {
  Score score{name, x, 0.0, 0.0, 0, 0.0, 0.0, {}, {}};
  double sum = 0.0, sum_in_class = 0.0;
  for (const Scene& scene : scenes) {
    score.plans.push_back(PlanFromScratch(scene, x));
    const double squared = SquaredError(score.plans.back(), scene.exact);
    const bool in_class = Signature(scene, score.plans.back()) == Signature(scene, scene.exact);
    sum += squared;
    score.errors.push_back(std::sqrt(squared));
    if (in_class) sum_in_class += squared;
    score.other_class += !in_class;
    score.clearance += Clearance(scene, score.plans.back()) / scenes.size();
    score.violation = std::max(score.violation, Violation(scene, score.plans.back()));
  }
  const double in_class = static_cast<double>(scenes.size()) - score.other_class;
  score.rms = std::sqrt(sum / scenes.size());
  score.rms_in_class = in_class > 0.0 ? std::sqrt(sum_in_class / in_class) : std::nan("");
  return score;
}

examples::Series ToSeries(const std::string& title, const std::string& style, const Trajectory& y) {
  examples::Series series{title, style, {}, {}};
  for (const auto& p : Path(y)) {
    series.x.push_back(p[0]);
    series.y.push_back(p[1]);
  }
  return series;
}

examples::Panel Map(const Scene& scene, const Trajectory& by_hand, const Trajectory& learned) {
  examples::Panel panel{"Held-out scene '" + scene.name + "'", "x [m]", "y [m]"};
  panel.equal_axes = true;
  panel.series = {ToSeries("set by hand", "lines", by_hand),
                  ToSeries("learned", "lines", learned),
                  ToSeries("demonstrator", "points", scene.exact)};
  examples::Series& dots = panel.series.back();
  dots.x.clear();
  dots.y.clear();
  for (const State& s : scene.exact) {
    dots.x.push_back(s[0]);
    dots.y.push_back(s[1]);
  }
  examples::Series discs{"obstacles", "lines", {}, {}};
  for (const Disc& d : scene.discs) {
    for (int k = 0; k <= 48; ++k) {
      discs.x.push_back(d.x + d.radius * std::cos(2.0 * M_PI * k / 48));
      discs.y.push_back(d.y + d.radius * std::sin(2.0 * M_PI * k / 48));
    }
    discs.x.push_back(std::nan(""));
    discs.y.push_back(std::nan(""));
  }
  panel.series.push_back(discs);
  return panel;
}

bool Draw(const std::vector<Scene>& scenes,
          const Score& by_hand,
          const Score& best,
          const Learned& learned) {
  // The scene with the largest change of class, and the one with the largest error within it.
  int other = -1, same = -1;
  double most[2] = {-1.0, -1.0};
  for (size_t i = 0; i < scenes.size(); ++i) {
    const bool is_other =
        Signature(scenes[i], by_hand.plans[i]) != Signature(scenes[i], scenes[i].exact);
    const double error = SquaredError(by_hand.plans[i], scenes[i].exact);
    if (error <= most[is_other]) continue;
    most[is_other] = error;
    (is_other ? other : same) = static_cast<int>(i);
  }
  std::vector<examples::Panel> panels;
  for (const int i : {other, same}) {
    if (i >= 0) panels.push_back(Map(scenes[i], by_hand.plans[i], best.plans[i]));
  }
  examples::Panel cost{"Cost of coming near", "clearance [m]", "cost a second"};
  for (const auto& [name, x] : std::vector<std::pair<std::string, Parameters>>{
           {"set by hand", by_hand.x}, {"learned", learned.x}, {"demonstrator", Secret()}}) {
    examples::Series series{name, name == "demonstrator" ? "points" : "lines", {}, {}};
    for (int k = 0; k <= 40; ++k) {
      const double clearance = 0.02 * k, inside = x.distance() - clearance;
      const double hinge = 0.5 * (inside + std::hypot(inside, kSmoothing)) / x.sigma();
      series.x.push_back(clearance);
      series.y.push_back(0.5 * hinge * hinge);
    }
    cost.series.push_back(series);
  }
  examples::Panel convergence{"Convergence", "accepted step", "[m]"};
  const char* names[] = {"safety distance", "obstacle sigma"};
  for (int k = 0; k < (FLAGS_hard ? 1 : 2); ++k) {
    examples::Series series{names[k], "linespoints", {}, learned.path[k]};
    for (size_t i = 0; i < series.y.size(); ++i) series.x.push_back(static_cast<double>(i));
    convergence.series.push_back(series);
  }
  if (!FLAGS_hard) panels.push_back(cost);
  panels.push_back(convergence);
  return examples::Plot(FLAGS_plot, "A planner learned from demonstrations", panels);
}

// Both planners from the demonstrations of one who keeps a clearance.
int RunHard(std::vector<Scene>* train, const std::vector<Scene>& test) {
  const Parameters by_hand = MakeParameters(FLAGS_start_distance, FLAGS_start_sigma);
  const Learned penalty = Learn(train, by_hand);
  const Learned constraint = Learn(train, MakeParameters(FLAGS_start_distance, 0.0));
  for (const Learned* learned : {&penalty, &constraint}) {
    for (const std::string& line : learned->set_aside)
      std::printf("Set aside in %s.\n", line.c_str());
    if (!learned->ok) std::printf("FAILURE: %s.\n", learned->message.c_str());
  }
  const std::vector<Score> scores = {Test("set by hand", by_hand, test),
                                     Test("penalty", penalty.x, test),
                                     Test("constraint", constraint.x, test),
                                     Test("demonstrator's", Secret(), test)};
  bilevel::VerdictOptions independent;
  independent.num_errors_a_block = 1;
  const bilevel::Verdict verdict =
      bilevel::JudgeLearned(independent, scores[0].errors, scores[2].errors, &constraint.summary);
  examples::Print(verdict);
  std::printf("\nHeld-out scenes, planned from scratch: RMS distance to the demonstrator [cm]\n\n");
  examples::Table table({"learned",
                         "distance [m]",
                         "sigma [m]",
                         "all scenes",
                         "same class",
                         "other class",
                         "violated [cm]",
                         "learned in [s]"});
  examples::Json json;
  const Learned* learned[] = {nullptr, &penalty, &constraint, nullptr};
  for (size_t i = 0; i < scores.size(); ++i) {
    const Score& s = scores[i];
    table.Add({s.name,
               Format("%.4f", s.x.distance()),
               Format("%.4f", s.x.sigma()),
               Format("%.2f", 100.0 * s.rms),
               Format("%.2f", 100.0 * s.rms_in_class),
               Format("%d of %zu", s.other_class, test.size()),
               Format("%.2f", 100.0 * s.violation),
               learned[i] ? Format("%.1f", learned[i]->seconds) : ""});
    examples::Json of_score;
    of_score.Add("distance", s.x.distance())
        .Add("sigma", s.x.sigma())
        .Add("rms", s.rms)
        .Add("other_class", s.other_class)
        .Add("violation", s.violation);
    if (learned[i]) {
      of_score.Add("seconds", learned[i]->seconds)
          .Add("set_aside", static_cast<double>(learned[i]->set_aside.size()))
          .Add("left_out", learned[i]->num_left_out);
    }
    json.Add(s.name, of_score);
  }
  std::printf("%s\n", table.ToString().c_str());
  json.Add("verdict", examples::ToJson(verdict)).AddRaw("summary", constraint.summary.Json());
  bool ok = examples::WriteFile(FLAGS_summary_json, json.ToString());
  ok = examples::WriteFile(FLAGS_trace_csv, constraint.summary.Csv()) && ok;
  if (!FLAGS_plot.empty()) ok = Draw(test, scores[0], scores[2], constraint) && ok;
  return examples::ExitCode(ok && constraint.ok, verdict);
}

int Run() {
  const double begin = Now();
  if (FLAGS_quick) {
    FLAGS_train = std::min(FLAGS_train, 5);
    FLAGS_test = std::min(FLAGS_test, 6);
  }
  if (FLAGS_train < 1 || FLAGS_test < 1 || !(FLAGS_jitter >= 0.0) ||
      !(FLAGS_start_distance > 0.0) || !(FLAGS_start_sigma > 0.0)) {
    std::fprintf(stderr, "--train, --test, --start_distance and --start_sigma must be positive.\n");
    return 1;
  }
  std::vector<Scene> train, test;
  for (int i = 0; i < FLAGS_train + FLAGS_test; ++i) {
    const bool training = i < FLAGS_train;
    (training ? train : test)
        .push_back(MakeScene((training ? "training " : "test ") + std::to_string(i),
                             static_cast<unsigned>(1000 * FLAGS_seed + i)));
  }
  std::printf("%d demonstrations to learn from, %d held-out scenes, %d numbers a plan.\n\n",
              FLAGS_train,
              FLAGS_test,
              4 * (kIntervals - 1));
  const Parameters by_hand = MakeParameters(FLAGS_start_distance, FLAGS_start_sigma);
  if (FLAGS_hard) return RunHard(&train, test);
  const Learned learned = Learn(&train, by_hand);
  for (const std::string& line : learned.set_aside) std::printf("Set aside in %s.\n", line.c_str());
  std::printf("%d trial steps rejected because a plan left its homotopy class.\n",
              learned.refused_steps);
  if (!learned.ok) std::printf("FAILURE: %s.\n", learned.message.c_str());
  Learned grid;
  if (FLAGS_grid) grid = GridSearch(&train);

  std::vector<Score> scores;
  scores.push_back(Test("set by hand", by_hand, test));
  scores.push_back(Test("learned", learned.x, test));
  scores.push_back(Test("demonstrator's", Secret(), test));
  if (FLAGS_grid) scores.push_back(Test("best of the grid", grid.x, test));
  bilevel::VerdictOptions independent;
  independent.num_errors_a_block = 1;
  const bilevel::Verdict verdict =
      bilevel::JudgeLearned(independent, scores[0].errors, scores[1].errors, &learned.summary);
  examples::Print(verdict);
  std::printf("\nHeld-out scenes, planned from scratch: RMS distance to the demonstrator [cm]\n\n");
  examples::Table table({"",
                         "distance [m]",
                         "sigma [m]",
                         "all scenes",
                         "same class",
                         "other class",
                         "least clearance [m]"});
  for (const Score& s : scores) {
    table.Add({s.name,
               Format("%.4f", s.x.distance()),
               Format("%.4f", s.x.sigma()),
               Format("%.2f", 100.0 * s.rms),
               Format("%.2f", 100.0 * s.rms_in_class),
               Format("%d of %zu", s.other_class, test.size()),
               Format("%.3f", s.clearance)});
  }
  std::printf("%s\n", table.ToString().c_str());
  examples::Table cost({"", "lower solves", "seconds"});
  cost.Add({"learned", std::to_string(learned.lower_solves), Format("%.1f", learned.seconds)});
  if (FLAGS_grid)
    cost.Add({"grid of 81", std::to_string(grid.lower_solves), Format("%.1f", grid.seconds)});
  std::printf("%s\n", cost.ToString().c_str());
  const double distance_error = learned.x.distance() / kSecretDistance - 1.0;
  const double reduction = 1.0 - scores[1].rms / scores[0].rms;
  const double reduction_in_class = 1.0 - scores[1].rms_in_class / scores[0].rms_in_class;
  std::printf(
      "Safety distance off by %+.2f %%, sigma by %+.2f %%; imitation error down by %.1f %%, "
      "by %.1f %% where the class was right all along.\n\n",
      100.0 * distance_error,
      100.0 * (learned.x.sigma() / kSecretSigma - 1.0),
      100.0 * reduction,
      100.0 * reduction_in_class);
  if (verdict.kind == bilevel::Verdict::kUseLearned) {
    std::printf(
        "To paste into a planner:\n\n  epsilon_dist = %.4f;  // m\n  cost_sigma = %.4f;    // m\n",
        learned.x.distance(),
        learned.x.sigma());
  }
  std::printf("\n%.0f s in all.\n", Now() - begin);

  examples::Json json;
  json.Add("distance", learned.x.distance())
      .Add("sigma", learned.x.sigma())
      .Add("secret_distance", kSecretDistance)
      .Add("secret_sigma", kSecretSigma)
      .Add("distance_error", distance_error)
      .Add("reduction", reduction)
      .Add("reduction_in_class", reduction_in_class)
      .Add("rounds", learned.rounds)
      .Add("set_aside", static_cast<double>(learned.set_aside.size()))
      .Add("left_out", learned.num_left_out)
      .Add("refused_steps", learned.refused_steps)
      .Add("lower_solves", static_cast<double>(learned.lower_solves))
      .Add("grid_lower_solves", static_cast<double>(grid.lower_solves));
  for (const Score& s : scores) {
    json.Add(s.name,
             examples::Json()
                 .Add("distance", s.x.distance())
                 .Add("sigma", s.x.sigma())
                 .Add("rms", s.rms)
                 .Add("rms_in_class", s.rms_in_class)
                 .Add("other_class", s.other_class)
                 .Add("clearance", s.clearance));
  }
  json.Add("verdict", examples::ToJson(verdict)).AddRaw("summary", learned.summary.Json());
  bool ok = examples::WriteFile(FLAGS_summary_json, json.ToString());
  ok = examples::WriteFile(FLAGS_trace_csv, learned.summary.Csv()) && ok;
  if (!FLAGS_plot.empty()) ok = Draw(test, scores[0], scores[1], learned) && ok;
  return examples::ExitCode(ok && learned.ok, verdict);
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  examples::ParseFlags(
      "Learns a motion planner's safety distance and obstacle weight from demonstrations made "
      "with\n"
      "secret values of both, and plans held-out scenes with them; beside it a grid search.\n\n"
      "Usage: plan_motion [flags]\n\n"
      "  plan_motion --plot=plans.png\n"
      "  plan_motion --hard\n"
      "  plan_motion --start_sigma=2 --progress",
      &argc,
      &argv);
  if (FLAGS_num_threads < 1) {
    std::fprintf(stderr, "--num_threads must be positive.\n");
    return 1;
  }
  return Run();
}
