#ifndef BILEVEL_BILEVEL_H_
#define BILEVEL_BILEVEL_H_

/// Everything a user needs, in one include.

#include "bilevel/analysis/argmin_cost_function.h"
#include "bilevel/analysis/hypergradient_checker.h"
#include "bilevel/analysis/optimality.h"
#include "bilevel/analysis/sensitivity.h"
#include "bilevel/base/memory.h"
#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "bilevel/derivatives/auto_diff_objective.h"
#include "bilevel/derivatives/dynamic_auto_diff_cost_function.h"
#include "bilevel/learnable/auto_diff_loss.h"
#include "bilevel/learnable/losses.h"
#include "bilevel/learnable/noise.h"
#include "bilevel/models/l2_regularizer.h"
#include "bilevel/models/linear_model.h"
#include "bilevel/problem.h"
#include "bilevel/report.h"
#include "bilevel/search/multi_start.h"
#include "bilevel/search/step_search.h"
#include "bilevel/solver.h"
#include "bilevel/terms/convex_set.h"
#include "bilevel/upper_level/cross_validation.h"
#include "bilevel/upper_level/holdout.h"
#include "bilevel/upper_level/marginal_likelihood.h"
#include "bilevel/upper_level/normal_prior.h"
#include "bilevel/upper_level/residual_statistics.h"
#include "bilevel/upper_level/safe_learning.h"
#include "bilevel/upper_level/verdict.h"

#endif  // BILEVEL_BILEVEL_H_
