// What users write against Ceres and cannot be recorded: the compiler's error tells what can.
#include "bilevel/bilevel.h"

struct Functor {
  template <typename T>
  bool operator()(const T* x, T* r) const {
    const double value = x[0].a;
    r[0] = T(value);
    return true;
  }
};
template <>
bool Functor::operator()<double>(const double* x, double* r) const {
  r[0] = x[0];
  return true;
}

ceres::CostFunction* Make() {
  return new bilevel::AutoDiffCostFunction<Functor, 1, 1>(new Functor);
}
