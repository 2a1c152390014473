#ifndef BILEVEL_BILEVEL_H_
#define BILEVEL_BILEVEL_H_

/// Everything a user needs, in one include.

#include "bilevel/argmin_cost_function.h"
#include "bilevel/cross_validation.h"
#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "bilevel/derivatives/auto_diff_objective.h"
#include "bilevel/derivatives/dynamic_auto_diff_cost_function.h"
#include "bilevel/holdout.h"
#include "bilevel/hypergradient_checker.h"
#include "bilevel/learnable/auto_diff_loss.h"
#include "bilevel/learnable/losses.h"
#include "bilevel/learnable/noise.h"
#include "bilevel/marginal_likelihood.h"
#include "bilevel/models/l2_regularizer.h"
#include "bilevel/models/linear_model.h"
#include "bilevel/multi_start.h"
#include "bilevel/problem.h"
#include "bilevel/sensitivity.h"
#include "bilevel/solver.h"
#include "bilevel/step_search.h"

#endif  // BILEVEL_BILEVEL_H_
