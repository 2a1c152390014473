#ifndef BILEVEL_OBJECTIVE_FINITE_H_
#define BILEVEL_OBJECTIVE_FINITE_H_

namespace bilevel {

// Whether none of n numbers is infinite or NaN, by sums that do not wait for each other.
inline bool AllFinite(const double* v, int n) {
  constexpr int kLanes = 8;
  double probe[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) probe[k] += 0.0 * v[i + k];
  }
  for (; i < n; ++i) probe[0] += 0.0 * v[i];
  for (int k = 1; k < kLanes; ++k) probe[0] += probe[k];
  return probe[0] == 0.0;
}

}  // namespace bilevel

#endif  // BILEVEL_OBJECTIVE_FINITE_H_
