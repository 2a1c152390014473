// y_t = rho y_t-1 + noise, seen through y + y^3 / 10: x = (log sigmas of steps and of what is seen, rho).
#include <TMB.hpp>
template <class Type>
Type objective_function<Type>::operator()() {
  DATA_VECTOR(z);
  PARAMETER_VECTOR(x);
  PARAMETER_VECTOR(y);
  Type sum = -dnorm(y(0), Type(0), Type(1), true);
  for (int t = 0; t < z.size(); ++t) {
    if (t > 0) sum -= dnorm(y(t), x(2) * y(t - 1), exp(x(0)), true);
    sum -= dnorm(z(t), y(t) + Type(0.1) * y(t) * y(t) * y(t), exp(x(1)), true);
  }
  return sum;
}
