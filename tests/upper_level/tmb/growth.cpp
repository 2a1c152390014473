// Logistic growth with a random asymptote a tree: x = (asymptote, midpoint, scale, log sigmas of the
// asymptotes and of what is measured).
#include <TMB.hpp>
template <class Type>
Type objective_function<Type>::operator()() {
  DATA_VECTOR(age);
  DATA_VECTOR(size);
  DATA_IVECTOR(tree);
  PARAMETER_VECTOR(x);
  PARAMETER_VECTOR(y);
  Type sum = -dnorm(y, Type(0), exp(x(3)), true).sum();
  for (int i = 0; i < age.size(); ++i) {
    const Type mean = (x(0) + y(tree(i))) / (Type(1) + exp((x(1) - age(i)) / x(2)));
    sum -= dnorm(size(i), mean, exp(x(4)), true);
  }
  return sum;
}
