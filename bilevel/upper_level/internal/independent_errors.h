#ifndef BILEVEL_UPPER_LEVEL_INTERNAL_INDEPENDENT_ERRORS_H_
#define BILEVEL_UPPER_LEVEL_INTERNAL_INDEPENDENT_ERRORS_H_

#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "bilevel/solver.h"

namespace bilevel {

/// As how many independent errors the upper residuals of each recording count, n = (tr S)^2 / tr
/// S^2 (Satterthwaite, Biometrics 2, 1946), at x as it is in the user's memory:
///
///     S = P Jy H^-1 Jy' P,   H = d^2g/dy^2,
///
/// their covariance where g is a negative log-likelihood. P takes out what `fitted` blocks of x
/// follow. Exact for up to 200 residuals, else by as many random probes (Hutchinson, Commun.
/// Stat. Simul. 19, 1990): within a tenth or so. One factorisation and a solve for each.
/// False where *error says why.
bool CountIndependentErrors(const Solver::Options& options,
                            const std::vector<Scenario*>& recordings,
                            const std::vector<const double*>& fitted,
                            Problem* problem,
                            std::vector<double>* counts,
                            std::string* error);

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_INTERNAL_INDEPENDENT_ERRORS_H_
