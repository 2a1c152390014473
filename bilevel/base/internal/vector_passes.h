#ifndef BILEVEL_BASE_INTERNAL_VECTOR_PASSES_H_
#define BILEVEL_BASE_INTERNAL_VECTOR_PASSES_H_

#include <cmath>

#include "Eigen/Core"

namespace bilevel {

// What a single-loop method does to long vectors in every iteration, each in one pass over them.

// Whether none of n numbers is infinite or NaN.
bool AllFinite(const double* v, int n);
// to = from + scale * d. False where that is not finite.
bool Moved(const double* from, double scale, const double* d, int n, double* to);
// Returns |v|^2; to = scale * v, where it is not nullptr.
double Scaled(double scale, const double* v, int n, double* to);
// v += scale * d.
void AddScaled(double scale, const double* d, int n, double* v);
// v += scale * (d - e).
void AddDifference(double scale, const double* d, const double* e, int n, double* v);

inline void Scale(double scale, Eigen::VectorXd* v) {
  Scaled(scale, v->data(), static_cast<int>(v->size()), v->data());
}
inline double Norm(const Eigen::VectorXd& v) {
  return std::sqrt(Scaled(1.0, v.data(), static_cast<int>(v.size()), nullptr));
}

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_VECTOR_PASSES_H_
