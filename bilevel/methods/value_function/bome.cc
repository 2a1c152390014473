#include "bilevel/methods/value_function/bome.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/memory.h"
#include "bilevel/methods/estimators/bias.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"

namespace bilevel {
namespace {

// Of the part of q that can be lowered: what a bound or a set holds is feasible as it stands, and
// must not weigh in lambda.
void AddProducts(const Point& p, const Vector& f, const Vector& q, double* qq, double* fq) {
  if (!p.space().has_bounds() && !p.space().has_sets()) {
    *qq += q.squaredNorm();
    *fq += f.dot(q);
    return;
  }
  const Vector feasible = FeasibleGradient(p, q);
  *qq += feasible.squaredNorm();
  *fq += f.dot(feasible);
}

double ProjectedSquaredNorm(const Point& p, const Vector& f, double lambda, const Vector& q) {
  const Vector d = f + lambda * q;
  return p.space().has_bounds() || p.space().has_sets() ? FeasibleGradient(p, d).squaredNorm()
                                                        : d.squaredNorm();
}

}  // namespace

std::string Bome::Check(const Oracle& oracle) {
  if (const std::string complaint =
          FirstNotPositive({{"bome.eta", options_.eta},
                            {"bome.num_lower_steps", options_.num_lower_steps},
                            {"bome.epsilon", options_.epsilon}});
      !complaint.empty()) {
    return complaint;
  }
  if (const std::string complaint = options_.LowerSteps::Check(oracle, "bome.");
      !complaint.empty()) {
    return complaint;
  }
  for (const auto& [rule, rule_name] :
       {std::make_pair(&options_.x, "bome.x"), std::make_pair(&options_.y, "bome.y")}) {
    if (const std::string complaint = rule->Check(rule_name); !complaint.empty()) return complaint;
    if (rule->kind == StepRule::kNormalized) {
      return std::string(rule_name) +
             ".kind must not be kNormalized: lambda balances lengths that it would remove";
    }
  }
  return "";
}

void Bome::Start(Oracle& /*oracle*/, State& state) {
  y_hat_ = state.y;
  x_start_ = state.x;
  solve_ = options_.lower_level != kGradientSteps;
  first_ = true;
  why_not_solved_.clear();
  steepest_.Clear();
}

bool Bome::EstimateLowerSolution(Oracle& o, const State& s) {
  y_hat_ = s.y;
  if (solve_) {
    if (o.Solve(s.x, &y_hat_)) return true;
    if (options_.lower_level == kSolved) {
      o.Fail(o.message());
      return false;
    }
    solve_ = false;
    why_not_solved_ = o.message();
    y_hat_ = s.y;
  }
  return unroll_.Run(o, s.x, 0, &y_hat_);
}

void Bome::SayWhyByGradientSteps(Oracle& o) {
  if (why_not_solved_.empty()) return;
  o.Fail(o.Clear() + "; y_hat was by gradient steps, since " + why_not_solved_);
}

void Bome::Step(Oracle& o, State& s, Progress* progress) {
  // The first iteration only looks, so that what is reported belongs to the point it is reported
  // at.
  Vector& dx = s.Get("bome.dx", s.x.dim());
  Vector& dy = s.Get("bome.dy", s.y.dim());
  x_before_ = s.x;
  const double phi_before = phi_;
  if (!first_) {
    const double step_x = options_.x.Apply(dx, "bome.x", o.iteration - 1, &s, &s.x);
    const double step_y = options_.y.Apply(dy, "bome.y", o.iteration - 1, &s, &s.y);
    if (step_x < 0.0 || step_y < 0.0) {
      o.Fail("x or y is no longer finite, or its manifold failed: bome's steps may be too long");
      return;
    }
    progress->step_norm = s.x.dim() > 0 ? step_x : step_y;
  }

  if (!EstimateLowerSolution(o, s)) return SayWhyByGradientSteps(o);
  double q = o.g.Gradient(s.x, s.y, &qx_, &qy_);
  q -= o.g.Gradient(s.x, y_hat_, &gx_, nullptr);
  qx_ -= gx_;
  progress->upper_value = o.f.Gradient(s.x, s.y, &fx_, &fy_);
  if (!o.ok()) return SayWhyByGradientSteps(o);

  double qq = 0.0, fq = 0.0;
  AddProducts(s.x, fx_, qx_, &qq, &fq);
  AddProducts(s.y, fy_, qy_, &qq, &fq);
  // Too long lower steps can leave q below zero.
  const double barrier =
      options_.eta * (options_.barrier == kGradientBarrier ? qq : std::max(0.0, q));
  const double lambda = std::max(0.0, (barrier - fq) / (qq + options_.epsilon));
  dx = fx_ + lambda * qx_;
  dy = fy_ + lambda * qy_;

  const double best_lambda = qq > 0.0 ? std::max(0.0, -fq / qq) : 0.0;
  progress->kkt_loss = ProjectedSquaredNorm(s.x, fx_, best_lambda, qx_) +
                       ProjectedSquaredNorm(s.y, fy_, best_lambda, qy_) + std::max(0.0, q);
  progress->lower_gap = q;
  progress->y_is_solved = false;
  if (solve_) {
    progress->objective = o.f.Value(s.x, y_hat_);
    if (!first_) steepest_.Add(x_before_, phi_before, s.x, progress->objective, y_hat_);
  } else {
    progress->keep = Progress::kAlways;
  }
  phi_ = progress->objective;
  first_ = false;
}

void Bome::Finish(Oracle& oracle, const State& state, Assessment* assessment) {
  if (!why_not_solved_.empty()) {
    assessment->notes.push_back("y_hat by gradient steps, since " + why_not_solved_);
  }
  if (!solve_) steepest_.Set(x_start_, state.x, state.y);
  if (const std::string jump = steepest_.FindJump(oracle); !jump.empty()) {
    assessment->notes.push_back(jump);
  }
  if (!solve_ && state.x.dim() > 0 && !state.y.space().has_sets()) {
    assessment->x_bias = EstimateBias(oracle, state, [&](const State& s, Vector* d) {
      return BiasedHypergradient(oracle, s, d);
    });
  }
  oracle.Clear();
}

// x settles where h_T = 0, the hypergradient with the z that the T steps make of the adjoint (plain
// ones: alpha sum_{t<T} (I - alpha H)^t f_y) in place of the exact h's.
bool Bome::BiasedHypergradient(Oracle& o, const State& s, Vector* d) {
  o.f.Gradient(s.x, s.y, &fx_, &fy_);
  Vector z;
  if (!unroll_.RunOnAdjoint(o, s.x, s.y, fy_, &z)) return false;
  o.g.HessianProduct(s.x, s.y, z, &qy_, &gx_);
  *d = fx_ - gx_;
  return true;
}

bool Bome::Remember(Oracle& oracle, Memory* memory) {
  const Space &x = oracle.program().x, &y = oracle.program().y;
  memory->Keep("solve", &solve_);
  memory->Keep("first", &first_);
  memory->Keep("phi", &phi_);
  memory->Keep("why_not_solved", &why_not_solved_);
  y_hat_.Remember("y_hat", y, memory);
  x_before_.Remember("x_before", x, memory);
  x_start_.Remember("x_start", x, memory);
  steepest_.Remember(oracle, memory);
  return true;
}

}  // namespace bilevel
