#ifndef BILEVEL_LEARNABLE_INTERNAL_LOSS_DOMAIN_H_
#define BILEVEL_LEARNABLE_INTERNAL_LOSS_DOMAIN_H_

#include <algorithm>
#include <cmath>
#include <limits>

namespace bilevel {

/// Whether s and the p parameters are usable; fills the outputs with NaN otherwise.
inline bool InDomain(double s,
                     const double* parameters,
                     int p,
                     int num_outputs,
                     double rho[3],
                     double* rho_theta,
                     double* rho_s_theta) {
  bool valid = s >= 0.0;
  for (int i = 0; i < p; ++i) valid = valid && std::isfinite(parameters[i]);
  if (valid) return true;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::fill_n(rho, 3, nan);
  if (rho_theta != nullptr) std::fill_n(rho_theta, num_outputs, nan);
  if (rho_s_theta != nullptr) std::fill_n(rho_s_theta, num_outputs, nan);
  return false;
}

}  // namespace bilevel

#endif  // BILEVEL_LEARNABLE_INTERNAL_LOSS_DOMAIN_H_
