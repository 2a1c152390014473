#ifndef BILEVEL_METHODS_INTERNAL_WITHOUT_X_H_
#define BILEVEL_METHODS_INTERNAL_WITHOUT_X_H_

#include <string>

#include "bilevel/methods/method.h"

namespace bilevel {

/// Where there is no x to move: one lower solve.
class WithoutX : public Method {
 public:
  std::string name() const override { return "one lower solve"; }
  bool WorksWithoutX() const override { return true; }
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_INTERNAL_WITHOUT_X_H_
