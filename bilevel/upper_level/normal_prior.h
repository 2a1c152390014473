#ifndef BILEVEL_UPPER_LEVEL_NORMAL_PRIOR_H_
#define BILEVEL_UPPER_LEVEL_NORMAL_PRIOR_H_

#include <string>
#include <vector>

#include "bilevel/problem.h"

namespace bilevel {

/// A Gaussian prior on a block of x: adds 1/2 sum_i ((x_i - mean_i) / sigma_i)^2 to f, as a
/// residual block of that scenario's upper problem, whose weight it shares; minibatches always have
/// it. One sigma stands for all. It has its weight where f is half a sum of squares of errors in
/// units of their standard deviations (for others, LearnSafely). On a log sigma of 0.7 a factor of
/// two is one standard deviation.
///
/// False, and nothing done, where *error says why: the block is not declared, its size is another,
/// a value makes no sense.
bool AddNormalPrior(double* block,
                    const std::vector<double>& mean,
                    const std::vector<double>& sigma,
                    Problem* problem,
                    std::string* error,
                    int scenario = 0);

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_NORMAL_PRIOR_H_
