#ifndef BILEVEL_UPPER_LEVEL_MARGINAL_LIKELIHOOD_H_
#define BILEVEL_UPPER_LEVEL_MARGINAL_LIKELIHOOD_H_

#include <string>

#include "bilevel/problem.h"

namespace bilevel {

/// Makes the upper level the likelihood of all measurements under x, with y integrated out by
/// Laplace's approximation, of which g is to be the negative log-density:
///
///     -log p(z | x)  ~  g(x, y*) + 1/2 log det d^2g/dy^2 (x, y*) + log-determinants of the noise
///
/// Noise levels are found from the very measurements that the estimate is made of, absolute levels
/// included, without truth and without holding anything out: also where a type of error is measured
/// once each, as the links of a chain of odometry between fixes are.
///
///     odometry.AddResidualBlock(...), gps.AddResidualBlock(...)      // NoiseModels, see noise.h.
///     bilevel::AddMarginalLikelihood(&problem, &error);
///     odometry.AddHalfLogDeterminant(num_links, &problem);           // The normalisation of their
///     gps.AddHalfLogDeterminant(num_fixes, &problem);                // densities: not forgotten.
///
/// Exact where the whitened errors are linear in y and have no loss; else the better the more
/// measurements determine each block of y. With a robust loss it is as good as exp(-rho / 2),
/// normalised, is as a density. Directions of y that no measurement determines must be held
/// (constant), or have a prior below.
///
/// Adds to all scenarios with a lower level: its residual blocks above, and a general term for the
/// log-determinant. Call it once the lower levels and the declaration of x are complete; x must be
/// without manifolds, the lower levels the problem's own, without general terms and evaluation
/// callbacks. False: nothing was added.
///
/// The log-determinant's gradient in x and y costs one factorisation and one selected inverse of
/// d^2g/dy^2, however long x is. The derivatives of the residual blocks' second derivatives that go
/// with the inverse are central differences of fourth order, block by block, with relative errors
/// of about 1e-9: four Hessians for each coordinate of x and y that a single residual block has.
/// ComputeUncertainty (kExact) then gives standard errors.
bool AddMarginalLikelihood(Problem* problem, std::string* error);

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_MARGINAL_LIKELIHOOD_H_
