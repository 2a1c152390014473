#ifndef TESTS_DERIVATIVES_TAPE_DERIVATIVES_H_
#define TESTS_DERIVATIVES_TAPE_DERIVATIVES_H_

#include <algorithm>
#include <array>

#include "bilevel/derivatives/dual.h"
#include "bilevel/derivatives/tape.h"
#include "ceres/jet.h"

namespace bilevel {

/// y and all its derivatives for f(const T* x, T* y), N inputs and M outputs, by way of the tape:
/// `y[k].a.a`, `y[k].v[i].a` and `y[k].v[i].d[j]`. The gradient is that of y as the mixed
/// derivatives of z y by x and z, at z = 1.
template <int N, int M, typename F>
std::array<ceres::Jet<Dual<N>, N>, M> TapeDerivatives(const F& f, const double* x) {
  std::array<ceres::Jet<Dual<N>, N>, M> y;
  double values[N + 1];
  std::copy_n(x, N, values);
  values[N] = 1.0;
  const double* parameters[] = {values};
  for (int k = 0; k < M; ++k) {
    internal::Recording recording(parameters, {N + 1}, M);
    const TapeJet* inputs = recording.blocks()[0];
    TapeJet* outputs = recording.residuals();
    f(inputs, outputs);
    y[k].a.a = outputs[k].a.value;
    outputs[k] *= inputs[N];
    double weights[M] = {};
    weights[k] = 1.0;
    double H[N + 1][N + 1];
    recording.Hessian(weights, H[0]);
    for (int i = 0; i < N; ++i) {
      y[k].a.d[i] = y[k].v[i].a = H[i][N];
      for (int j = 0; j < N; ++j) y[k].v[i].d[j] = H[i][j];
    }
  }
  return y;
}

}  // namespace bilevel

#endif  // TESTS_DERIVATIVES_TAPE_DERIVATIVES_H_
