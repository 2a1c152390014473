// What users write against Ceres and cannot be recorded: the compiler's error tells what can.
#include "bilevel/bilevel.h"
#include "ceres/cubic_interpolation.h"

struct Functor {
  template <typename T>
  bool operator()(const T* x, T* r) const {
    interpolator->Evaluate(x[0], x[1], r);
    return true;
  }
  const ceres::BiCubicInterpolator<ceres::Grid2D<double>>* interpolator;
};

ceres::CostFunction* Make() {
  return new bilevel::AutoDiffCostFunction<Functor, 1, 2>(new Functor{nullptr});
}
