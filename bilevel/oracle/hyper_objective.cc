#include "bilevel/oracle/hyper_objective.h"

#include <cmath>

#include "bilevel/base/memory.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {

bool HyperObjective::Fail(const std::string& what) {
  message_ = what;
  const std::string latched = oracle_->Clear();
  if (message_.empty()) message_ = latched;
  return false;
}

void HyperObjective::Accept() {
  accepted_ = y_;
  accepted_x_ = last_x_;
  may_ask_tangent_ = differentiated_;
  line_.resize(0);
}

void HyperObjective::Return(const Point& x, const Vector& y) {
  last_x_ = x.value();
  y_.value() = y;
  may_ask_tangent_ = differentiated_ = false;  // The factorisation is that of another point.
}

// y_ <- the accepted y, moved along dy*/dx. Trials of one line search share one solve.
void HyperObjective::Predict(const Point& x) {
  y_ = accepted_;
  if (!use_tangent_ || accepted_x_.size() == 0) return;
  dx_.resize(x.dim());
  if (!x.space().Minus(x.value().data(), accepted_x_.data(), dx_.data())) return;
  const double length = dx_.norm();
  if (!(length > 0.0)) return;
  if (may_ask_tangent_) {
    may_ask_tangent_ = false;  // The solve to come replaces the factorisation.
    if (oracle_->lower().Tangent(dx_, &motion_)) line_ = dx_;
  }
  if (line_.size() == 0) return;
  const double share = dx_.dot(line_) / line_.squaredNorm();
  if ((dx_ - share * line_).norm() > 1e-6 * length) return;  // Another line.
  // Where the tangent is no guide (a manifold fails, say), y stays.
  if (!oracle_->program().MoveY(share * motion_, &y_)) y_ = accepted_;
}

void HyperObjective::Remember(Memory* memory) {
  const Memory::Group group(memory, "phi");
  accepted_.Remember("accepted", y_.space(), memory);
  y_.Remember("y", y_.space(), memory);
  memory->Keep("accepted_x", &accepted_x_);
  memory->Keep("last_x", &last_x_);
  memory->Keep("differentiated", &differentiated_);
  memory->Keep("may_ask_tangent", &may_ask_tangent_);
  memory->Keep("line", &line_);
  memory->Keep("motion", &motion_);
}

bool HyperObjective::Evaluate(const Point& x,
                              double* phi,
                              Vector* gradient,
                              const Vector* y_start) {
  message_.clear();
  if (y_start) {
    y_.value() = *y_start;
  } else {
    Predict(x);
  }
  may_ask_tangent_ = differentiated_ = false;
  last_x_ = x.value();
  if (!oracle_->Solve(x, &y_)) return Fail(oracle_->message());
  if (!gradient) {
    *phi = oracle_->f.Value(x, y_);
    return oracle_->ok() || Fail("");
  }
  if (!oracle_->Differentiate(x, &y_)) return Fail(oracle_->message());
  differentiated_ = true;
  *phi = oracle_->f.Gradient(x, y_, gradient, &fy_);
  if (!oracle_->ok()) return Fail("");
  if (!oracle_->lower().Adjoint(fy_, &pulled_back_)) return Fail(oracle_->lower().message());
  *gradient += pulled_back_;
  return true;
}

}  // namespace bilevel
