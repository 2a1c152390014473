#include "bilevel/methods/stochastic/defaults.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace bilevel {
namespace {

constexpr double kLargestCondition = 1000.0, kUnknownCondition = 10.0;

std::string Short(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g", value);
  return text;
}

}  // namespace

const Point& Defaults::solved_y() {
  if (!solved_y_) {
    solved_y_ = y_;
    solve_ = solve_ && oracle_->Solve(x_, &*solved_y_);
  }
  return *solved_y_;
}

const Curvature& Defaults::lower() {
  if (!lower_curvature_) {
    Curvature c = EstimateCurvature(*oracle_, lower_, x_, solved_y(), metric_);
    c.largest =
        std::max(c.largest, EstimateCurvature(*oracle_, minibatch_, x_, y_, metric_).largest);
    if (oracle_->ok() && !(c.largest > 0.0)) {
      oracle_->Fail("no positive curvature of the lower level was found to take steps from");
    }
    if (!(c.largest > 0.0)) c.largest = 1.0;
    mu_is_assumed_ = !solve_ && !(c.smallest > 0.0);
    c.smallest = mu_is_assumed_ ? c.largest / kUnknownCondition
                                : std::max(c.smallest, c.largest / kLargestCondition);
    lower_curvature_ = c;
  }
  return *lower_curvature_;
}

const UpperCurvature& Defaults::upper() {
  if (!upper_curvature_) {
    UpperCurvature u = EstimateUpperCurvature(*oracle_, lower_, upper_, x_, solved_y());
    Curvature& c = u.curvature;
    const bool convex = c.smallest > 0.0;
    c.largest = std::max(c.largest, std::abs(c.smallest));
    if (solve_) {
      const Curvature first = EstimateUpperCurvature(*oracle_, lower_, upper_, x_, y_).curvature;
      c.largest = std::max({c.largest, std::abs(first.largest), std::abs(first.smallest)});
    }
    if (!(c.largest > 0.0)) c.largest = 1.0;  // phi is linear: any step will do.
    // Where phi is not convex its steepest curvature is all that is known.
    c.smallest = convex ? std::max(c.smallest, c.largest / kLargestCondition) : c.largest;
    upper_curvature_ = u;
  }
  return *upper_curvature_;
}

double Defaults::UpperStep(double lower_step, int num_steps) {
  const double left = std::max(0.0, 1.0 - lower_step * lower().smallest);
  return (1.0 - std::pow(left, num_steps)) / (2.0 * upper().curvature.largest);
}

double Defaults::DecayTime(double upper_step) {
  return std::max(kDecayTime, std::ceil(2.0 / (upper_step * upper().curvature.smallest)));
}

double Defaults::Penalty() {
  const LevelView f = oracle_->f(upper_);
  const Curvature c = EstimateCurvature(*oracle_, f, x_, solved_y(), metric_);
  return c.largest > 0.0 ? 2.0 * c.largest / lower().smallest : 1.0;
}

void Defaults::Fill(const char* name, double* knob, const std::function<double()>& value) {
  if (*knob != 0.0) return;
  *knob = value();
  Tell(name, *knob);
}

void Defaults::FillSteps(const std::vector<Named>& lower, int num_steps, Named x) {
  const auto has_step = [](Schedule* s) {
    if (s->step != 0.0 && s->decay_time == 0.0) s->decay_time = kDecayTime;
  };
  for (const Named& s : lower) {
    has_step(s.second);
    Fill((std::string(s.first) + ".step").c_str(), &s.second->step, [&] { return LowerStep(); });
  }
  has_step(x.second);
  Fill((std::string(x.first) + ".step").c_str(), &x.second->step, [&] {
    return UpperStep(lower[0].second->step, num_steps);
  });
  if (x.second->decay_time == 0.0) {
    x.second->decay_time = DecayTime(x.second->step);
    if (x.second->decay_exponent > 0.0) Tell("decay_time", x.second->decay_time);
  }
  for (const Named& s : lower) FillDecayTime(*x.second, s.second);
}

void Defaults::FillSteps(const std::vector<Named>& lower, int num_steps, StepRule* x) {
  const bool is_length = x->kind == StepRule::kNormalized || x->kind == StepRule::kAdam;
  if (!is_length || x->step != 0.0) return FillSteps(lower, num_steps, {"x", x});
  FillSteps(lower, num_steps, {"plain x", x});
  const double num_lengths = x->kind == StepRule::kAdam ? std::sqrt(x_.dim()) : 1.0;
  x->step *= GradientNorm() / num_lengths;
  Tell("x.step", x->step);
}

void Defaults::FillDecayTime(const Schedule& x, Schedule* schedule) {
  if (schedule->decay_time != 0.0) return;
  schedule->decay_time = x.decay_exponent > 0.0 ? x.decay_time : kDecayTime;
}

void Defaults::FillSeries(Neumann::Options* n) {
  Fill("neumann.step", &n->step, [&] { return LowerStep(); });
  const bool given = n->length != 0, grows = n->kind == Neumann::kRandomised;
  if (!given) {
    const double terms = ConditionNumber() * std::log(grows ? 10.0 : 100.0);
    n->length = static_cast<int>(std::ceil(terms));
    Tell("neumann.length", n->length);
  }
  if (n->log_growth >= 0.0) return;
  n->log_growth = given || !grows ? 0.0 : 0.5 * ConditionNumber();
  if (n->log_growth > 0.0) Tell("neumann.log_growth", n->log_growth);
}

void Defaults::Tell(const char* name, double value) {
  taken_ += (taken_.empty() ? "" : ", ") + std::string(name) + " = " + Short(value);
}

std::string Defaults::Note() const {
  if (taken_.empty()) return "";
  std::string note = "not given, and taken from the curvature at the start (";
  if (lower_curvature_) {
    note +=
        "L = " + Short(lower_curvature_->largest) + ", mu = " + Short(lower_curvature_->smallest);
    if (mu_is_assumed_) note += " assumed since g is not convex there";
  }
  if (upper_curvature_) {
    if (lower_curvature_) note += ", ";
    note += "L_phi = " + Short(upper_curvature_->curvature.largest);
  }
  return note + "): " + taken_;
}

}  // namespace bilevel
