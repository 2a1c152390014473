#ifndef BILEVEL_EXAMPLES_SUPPORT_LEARNING_MINIBATCH_METHODS_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEARNING_MINIBATCH_METHODS_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/methods/stochastic/stochastic_method.h"

/// Methods on minibatches that are compared with each other: each has two constant steps and
/// otherwise the settings of SLIP's authors.
namespace examples {

/// slip, bo_rep, soba, saba, ma_soba, stocbio, ttsa, f2sa, amigo.
const std::vector<std::string>& MinibatchMethods();

/// Gradients and products of f and g an iteration takes, on average: what an equal budget is
/// counted in. 0: there is no method of that name.
double CallsPerIteration(const std::string& name);

/// y_step is that of z as well, and of Neumann's series. x_step is the length of each step of x in
/// slip and bo_rep, and a factor of the gradient elsewhere. nullptr: as above.
std::shared_ptr<bilevel::Method> CreateMinibatchMethod(const std::string& name,
                                                       const bilevel::StochasticOptions& common,
                                                       double y_step,
                                                       double x_step);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEARNING_MINIBATCH_METHODS_H_
