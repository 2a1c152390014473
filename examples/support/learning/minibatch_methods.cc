#include "examples/support/learning/minibatch_methods.h"

#include <limits>

#include "bilevel/methods/stochastic/amigo.h"
#include "bilevel/methods/stochastic/bo_rep.h"
#include "bilevel/methods/stochastic/f2sa.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/methods/stochastic/stocbio.h"
#include "bilevel/methods/stochastic/ttsa.h"

namespace examples {
namespace {

constexpr int kLowerSteps = 3;     // Of stocbio and amigo, the authors' T.
constexpr int kSeries = 3;         // Of stocbio, Q; and of amigo's z.
constexpr int kRandomSeries = 10;  // Of ttsa, N.

template <typename Options>
Options With(const bilevel::StochasticOptions& common) {
  Options options;
  static_cast<bilevel::StochasticOptions&>(options) = common;
  return options;
}

bilevel::Schedule Constant(double step) { return {step, 0.0, 1.0}; }

// Of a rule along the gradient.
void SetStep(double step, bilevel::StepRule* rule) {
  static_cast<bilevel::Schedule&>(*rule) = Constant(step);
}

template <typename Options>
void SetSlip(double y_step, double x_step, Options* options) {
  options->y = options->z = Constant(y_step);
  options->warm_start_step = y_step;
  options->x = Constant(x_step);
}

}  // namespace

const std::vector<std::string>& MinibatchMethods() {
  static const std::vector<std::string> names{
      "slip", "bo_rep", "soba", "saba", "ma_soba", "stocbio", "ttsa", "f2sa", "amigo"};
  return names;
}

double CallsPerIteration(const std::string& name) {
  if (name == "slip" || name == "soba" || name == "saba" || name == "ma_soba") return 3.0;
  if (name == "bo_rep") return 3.5;
  if (name == "stocbio" || name == "amigo") return kLowerSteps + kSeries + 2.0;
  if (name == "ttsa") return 3.0 + (kRandomSeries - 1) / 2.0;
  if (name == "f2sa") return 6.0;
  return 0.0;
}

std::shared_ptr<bilevel::Method> CreateMinibatchMethod(const std::string& name,
                                                       const bilevel::StochasticOptions& common,
                                                       double y_step,
                                                       double x_step) {
  if (name == "slip") {
    auto options = With<bilevel::Slip::Options>(common);
    SetSlip(y_step, x_step, &options);
    return std::make_shared<bilevel::Slip>(options);
  }
  if (name == "bo_rep") {
    // As in the authors' code: without the ball and the epochs in the beginning.
    auto options = With<bilevel::BoRep::Options>(common);
    SetSlip(y_step, x_step, &options);
    options.radius = std::numeric_limits<double>::max();
    options.num_epochs = 0;
    return std::make_shared<bilevel::BoRep>(options);
  }
  if (name == "soba") {
    auto options = With<bilevel::Soba::Options>(common);
    options.lower = Constant(y_step);
    SetStep(x_step, &options.x);
    return std::make_shared<bilevel::Soba>(options);
  }
  if (name == "saba") {
    auto options = With<bilevel::Saba::Options>(common);
    options.lower = Constant(y_step);
    SetStep(x_step, &options.x);
    return std::make_shared<bilevel::Saba>(options);
  }
  if (name == "ma_soba") {
    auto options = With<bilevel::MaSoba::Options>(common);
    SetStep(x_step, &options.x);
    options.lower = Constant(y_step);
    options.average = Constant(0.1);
    return std::make_shared<bilevel::MaSoba>(options);
  }
  if (name == "stocbio") {
    auto options = With<bilevel::StocBiO::Options>(common);
    options.num_lower_steps = kLowerSteps;
    options.y = Constant(y_step);
    SetStep(x_step, &options.x);
    options.neumann.length = kSeries;
    options.neumann.step = y_step;
    return std::make_shared<bilevel::StocBiO>(options);
  }
  if (name == "ttsa") {
    auto options = With<bilevel::Ttsa::Options>(common);
    options.y = Constant(y_step);
    SetStep(x_step, &options.x);
    options.neumann.length = kRandomSeries;
    options.neumann.step = y_step;
    return std::make_shared<bilevel::Ttsa>(options);
  }
  if (name == "f2sa") {
    // lambda from 1 to about 3 in 3000 iterations, the authors' range; by shorter steps of y.
    auto options = With<bilevel::F2sa::Options>(common);
    options.gamma = Constant(y_step);
    options.alpha = {y_step / 2.0, 1.0 / 3.0, 100.0};
    options.xi = x_step / options.alpha.step;
    return std::make_shared<bilevel::F2sa>(options);
  }
  if (name == "amigo") {
    auto options = With<bilevel::Amigo::Options>(common);
    options.num_lower_steps = kLowerSteps;
    options.num_linear_steps = kSeries;
    options.y = options.z = Constant(y_step);
    SetStep(x_step, &options.x);
    return std::make_shared<bilevel::Amigo>(options);
  }
  return nullptr;
}

}  // namespace examples
