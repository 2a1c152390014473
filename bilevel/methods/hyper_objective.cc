#include "bilevel/methods/hyper_objective.h"

#include "bilevel/lower_level/lower_solver.h"

namespace bilevel {

bool HyperObjective::Fail(const std::string& what) {
  message_ = what;
  const std::string latched = oracle_->Clear();
  if (message_.empty()) message_ = latched;
  return false;
}

bool HyperObjective::Evaluate(const Point& x, double* phi, Vector* gradient) {
  message_.clear();
  y_ = accepted_;
  if (!oracle_->Solve(x, &y_)) return Fail(oracle_->message());
  if (!gradient) {
    *phi = oracle_->f.Value(x, y_);
    return oracle_->ok() || Fail("");
  }
  *phi = oracle_->f.Gradient(x, y_, gradient, &fy_);
  if (!oracle_->ok()) return Fail("");
  if (!oracle_->Differentiate(x, y_)) return Fail(oracle_->message());
  if (!oracle_->lower().Adjoint(fy_, &pulled_back_)) return Fail(oracle_->lower().message());
  *gradient += pulled_back_;
  return true;
}

}  // namespace bilevel
