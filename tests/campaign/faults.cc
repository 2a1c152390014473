#include "campaign/faults.h"

#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

namespace bilevel {
namespace {

const char* const kSites[] = {"lower functor",
                              "lower cost",
                              "upper functor",
                              "upper cost",
                              "loss",
                              "manifold",
                              "evaluation callback",
                              "iteration callback"};
const char* const kFaults[] = {
    "false", "NaN", "infinity", "exception", "not standard", "bad_alloc"};

class Injector {
 public:
  explicit Injector(const FaultPoint* point) : point_(point) {}
  // Whether this call is to go wrong by its result: false or a number. May throw instead.
  bool Fires(FaultPoint::Site site) const {
    if (!is_on_) return false;
    const long call = calls_[site]++;
    if (!point_ || site != point_->site) return false;
    if (call != point_->call && !(point_->for_ever && call > point_->call)) return false;
    has_fired_ = true;
    switch (point_->fault) {
      case FaultPoint::kException:
        throw std::runtime_error("injected");
      case FaultPoint::kNotStandard:
        throw 42;
      case FaultPoint::kBadAlloc:
        throw std::bad_alloc();
      default:
        return true;
    }
  }
  bool is_false() const { return point_->fault == FaultPoint::kFalse; }
  double number() const {
    return point_->fault == FaultPoint::kNaN ? std::numeric_limits<double>::quiet_NaN()
                                             : std::numeric_limits<double>::infinity();
  }
  bool has_fired() const { return has_fired_; }
  // Only between these: what Ceres asks while the user makes a problem is the user's affair.
  void Begin() { is_on_ = true; }
  void End() { is_on_ = false; }
  long calls(int site) const { return calls_[site]; }

 private:
  const FaultPoint* point_;
  mutable std::atomic<long> calls_[FaultPoint::kNumSites] = {};
  mutable std::atomic<bool> has_fired_{false};
  bool is_on_ = false;
};

// e^(x of its kind) (y_i - its datum), bent a little.
struct Lower {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    if (injector->Fires(FaultPoint::kLowerFunctor)) {
      if (injector->is_false()) return false;
      r[0] = r[1] = T(injector->number());
      return true;
    }
    r[0] = exp(x[kind]) * (y[0] - datum + 0.1 * sin(y[1] * datum));
    r[1] = exp(x[1 - kind]) * (y[1] + 0.2 * y[0] - 0.5 * datum);
    return true;
  }
  const Injector* injector;
  double datum;
  int kind;
};
struct Upper {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    if (injector->Fires(FaultPoint::kUpperFunctor)) {
      if (injector->is_false()) return false;
      r[0] = r[1] = T(injector->number());
      return true;
    }
    r[0] = y[0] - 0.45;
    r[1] = y[1] - 0.1;
    return true;
  }
  const Injector* injector;
};

// w (y - at), with a Jacobian of its own.
class PlainCost : public ceres::SizedCostFunction<2, 2> {
 public:
  PlainCost(const Injector* injector, FaultPoint::Site site, double weight, double at)
      : injector_(injector), site_(site), weight_(weight), at_(at) {}
  bool Evaluate(double const* const* y, double* r, double** jacobians) const override {
    const bool fires = injector_->Fires(site_);
    if (fires && injector_->is_false()) return false;
    for (int i = 0; i < 2; ++i) r[i] = fires ? injector_->number() : weight_ * (y[0][i] - at_);
    for (int i = 0; jacobians && jacobians[0] && i < 4; ++i) {
      jacobians[0][i] = i % 3 == 0 ? weight_ : 0.0;
    }
    return true;
  }

 private:
  const Injector* injector_;
  FaultPoint::Site site_;
  double weight_, at_;
};

class Loss : public ceres::LossFunction {
 public:
  explicit Loss(const Injector* injector) : injector_(injector) {}
  void Evaluate(double s, double rho[3]) const override {
    if (injector_->Fires(FaultPoint::kLoss)) {
      rho[0] = rho[1] = rho[2] = injector_->is_false() ? -1.0 : injector_->number();
      return;
    }
    inner_.Evaluate(s, rho);
  }

 private:
  const Injector* injector_;
  ceres::SoftLOneLoss inner_{0.8};
};

// The plane, as a manifold.
class Plane : public ceres::Manifold {
 public:
  explicit Plane(const Injector* injector) : injector_(injector) {}
  int AmbientSize() const override { return 2; }
  int TangentSize() const override { return 2; }
  bool Plus(const double* x, const double* d, double* sum) const override {
    return Put({x[0] + d[0], x[1] + d[1]}, sum);
  }
  bool PlusJacobian(const double*, double* j) const override { return Put({1, 0, 0, 1}, j); }
  bool Minus(const double* y, const double* x, double* d) const override {
    return Put({y[0] - x[0], y[1] - x[1]}, d);
  }
  bool MinusJacobian(const double*, double* j) const override { return Put({1, 0, 0, 1}, j); }

 private:
  bool Put(std::initializer_list<double> values, double* to) const {
    const bool fires = injector_->Fires(FaultPoint::kManifold);
    if (fires && injector_->is_false()) return false;
    for (const double value : values) *to++ = fires ? injector_->number() : value;
    return true;
  }
  const Injector* injector_;
};

class Prepare : public ceres::EvaluationCallback {
 public:
  explicit Prepare(const Injector* injector) : injector_(injector) {}
  void PrepareForEvaluation(bool, bool) override {
    injector_->Fires(FaultPoint::kEvaluationCallback);
  }

 private:
  const Injector* injector_;
};

class AfterIteration : public IterationCallback {
 public:
  explicit AfterIteration(const Injector* injector) : injector_(injector) {}
  ceres::CallbackReturnType operator()(const IterationSummary&) override {
    return injector_->Fires(FaultPoint::kIterationCallback) ? ceres::SOLVER_ABORT
                                                            : ceres::SOLVER_CONTINUE;
  }

 private:
  const Injector* injector_;
};

ceres::Problem::Options WithCallback(ceres::EvaluationCallback* callback) {
  ceres::Problem::Options options;
  options.evaluation_callback = callback;
  return options;
}

// Two scenarios, so that two threads have work.
struct Faulty {
  explicit Faulty(const FaultPoint* point) : injector(point) {
    problem.AddUpperParameterBlock(x, 2);
    problem.SetParameterName(x, "weights");
    for (int k = 0; k < 2; ++k) {
      lower[k] = std::make_unique<ceres::Problem>(WithCallback(&prepare));
      upper[k] = std::make_unique<ceres::Problem>();
      Scenario* s =
          problem.AddScenario("drive " + std::to_string(k), upper[k].get(), lower[k].get());
      s->SetEvaluationCallback(Level::kLower, &prepare);
      for (int i = 0; i < 6; ++i) {
        s->lower()->AddResidualBlock(new AutoDiffCostFunction<Lower, 2, 2, 2>(
                                         new Lower{&injector, std::sin(0.7 * i + k) + 0.4, i % 2}),
                                     i == 2 ? new Loss(&injector) : nullptr,
                                     x,
                                     y[k]);
      }
      s->lower()->AddResidualBlock(
          new PlainCost(&injector, FaultPoint::kLowerCost, 0.3, 0.2), nullptr, y[k]);
      s->lower()->SetManifold(y[k], new Plane(&injector));
      s->upper()->AddResidualBlock(
          new AutoDiffCostFunction<Upper, 2, 2>(new Upper{&injector}), nullptr, y[k]);
      s->upper()->AddResidualBlock(
          new PlainCost(&injector, FaultPoint::kUpperCost, 0.1, 0.3), nullptr, y[k]);
      problem.SetParameterName(y[k], "line " + std::to_string(k));
    }
    injector.Begin();
  }
  Injector injector;
  Prepare prepare{&injector};
  double x[2] = {0.2, -0.3}, y[2][2] = {{0.5, 0.5}, {0.5, 0.5}};
  std::unique_ptr<ceres::Problem> lower[2], upper[2];
  Problem problem;
};

Solver::Options OptionsFor(const std::string& method, IterationCallback* callback) {
  Solver::Options options;
  options.method = CreateMethod(method);
  options.max_num_iterations = 6;
  options.callbacks.push_back(callback);
  return options;
}

// Any of these in what the solve says points at the culprit.
std::vector<std::string> Culprits(FaultPoint::Site site) {
  switch (site) {
    case FaultPoint::kIterationCallback:
      return {"callback", "the solve threw"};
    case FaultPoint::kEvaluationCallback:
      return {"callback"};
    case FaultPoint::kManifold:
      return {"manifold", "line 0", "line 1"};
    case FaultPoint::kLoss:
      return {"loss", "residual block", "line 0", "line 1"};
    default:
      return {"residual block", "line 0", "line 1"};
  }
}

}  // namespace

std::string FaultPoint::Name() const {
  return method + ", " + kSites[site] + ", " + kFaults[fault] +
         (for_ever ? " from call " : " in call ") + std::to_string(call) + ", " +
         std::to_string(num_threads) + "/" + std::to_string(num_ceres_threads) + " threads";
}

std::vector<long> CountCalls(const std::string& method) {
  Faulty faulty(nullptr);
  AfterIteration callback(&faulty.injector);
  Solver::Summary summary;
  Solve(OptionsFor(method, &callback), &faulty.problem, &summary);
  std::vector<long> calls;
  for (int site = 0; site < FaultPoint::kNumSites; ++site) {
    calls.push_back(faulty.injector.calls(site));
  }
  return calls;
}

FaultOutcome RunWithFault(const FaultPoint& point) {
  Faulty faulty(&point);
  AfterIteration callback(&faulty.injector);
  Solver::Options options = OptionsFor(point.method, &callback);
  options.num_threads = point.num_threads;
  options.lower_solver_options.num_threads = point.num_ceres_threads;
  Solver::Summary summary;
  Solve(options, &faulty.problem, &summary);
  faulty.injector.End();

  FaultOutcome outcome;
  outcome.is_reached = faulty.injector.has_fired();
  outcome.message = summary.message;
  const auto violate = [&](const std::string& what) {
    if (outcome.violation.empty()) outcome.violation = what;
  };
  if (summary.message.empty()) violate("there is no message");
  for (const double* v : {faulty.x, faulty.y[0], faulty.y[1]}) {
    if (!std::isfinite(v[0]) || !std::isfinite(v[1])) violate("x or y is not finite");
  }
  if (summary.IsSolutionUsable() && summary.final_objective != -1.0) {
    // f where x and y were left, by Ceres.
    double f = 0.0, part = 0.0;
    for (auto& upper : faulty.upper) {
      upper->Evaluate({}, &part, nullptr, nullptr, nullptr);
      f += part;
    }
    if (!(std::abs(f - summary.final_objective) <= 1e-9 * (1.0 + f))) {
      violate("f is " + std::to_string(f) + ", and " + std::to_string(summary.final_objective) +
              " was said");
    }
    // y is y*(x): another solve moves it nowhere.
    double before[4], worst = 0.0;
    for (int i = 0; i < 4; ++i) before[i] = faulty.y[i / 2][i % 2];
    for (auto& lower : faulty.lower) {
      lower->SetParameterBlockConstant(faulty.x);
      ceres::Solver::Options tight;
      tight.logging_type = ceres::SILENT;
      tight.function_tolerance = tight.gradient_tolerance = tight.parameter_tolerance = 1e-14;
      ceres::Solver::Summary unused;
      ceres::Solve(tight, lower.get(), &unused);
    }
    for (int i = 0; i < 4; ++i) {
      worst = std::max(worst, std::abs(before[i] - faulty.y[i / 2][i % 2]));
    }
    if (!(worst <= 1e-5)) violate("y is " + std::to_string(worst) + " off y*(x)");
  }
  outcome.must_name = outcome.is_reached && summary.termination_type == ceres::FAILURE;
  for (const std::string& culprit : Culprits(point.site)) {
    outcome.is_named |= summary.message.find(culprit) != std::string::npos;
  }
  return outcome;
}

}  // namespace bilevel
