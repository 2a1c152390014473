#include "bilevel/methods/estimators/curvature.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "Eigen/Eigenvalues"

namespace bilevel {

Curvature EstimateCurvature(Oracle& o,
                            const Batch& batch,
                            const Point& x,
                            const Point& y,
                            const Metric* metric,
                            int num_products) {
  constexpr int kStream = 1 << 20;  // Apart from the methods' own.
  // Residuals below this are rounding, and so is what would follow.
  constexpr double kNothing = 1e-24;
  const int n = y.dim();
  Vector r(n), s, p, hp;
  o.RandomDirection(kStream, &r);
  s = r;
  if (metric) metric->Apply(&s);
  p = s;
  double rs = r.dot(s);
  const double first = rs;
  Vector diagonal(num_products), off(num_products);
  double alpha_before = 1.0, beta_before = 0.0;
  int k = 0;
  for (; k < std::min(n, num_products) && rs > kNothing * first && o.ok(); ++k) {
    o.g(batch).HessianProduct(x, y, p, &hp, nullptr);
    const double curvature = p.dot(hp);
    if (!o.ok() || curvature == 0.0 || !std::isfinite(curvature)) break;
    const double alpha = rs / curvature;
    diagonal[k] = 1.0 / alpha + (k > 0 ? beta_before / alpha_before : 0.0);
    r -= alpha * hp;
    s = r;
    if (metric) metric->Apply(&s);
    const double next = r.dot(s);
    const double beta = next / rs;
    off[k] = std::sqrt(std::max(beta, 0.0)) / std::abs(alpha);
    p = s + beta * p;
    rs = next;
    alpha_before = alpha;
    beta_before = beta;
  }
  Curvature curvature;
  curvature.num_products = k;
  if (k == 0 || !o.ok()) return curvature;
  Eigen::SelfAdjointEigenSolver<Matrix> eigen;
  eigen.computeFromTridiagonal(diagonal.head(k), off.head(k - 1), Eigen::EigenvaluesOnly);
  curvature.smallest = eigen.eigenvalues().minCoeff();
  curvature.largest = eigen.eigenvalues().maxCoeff();
  return curvature;
}

std::string Curvature::Ranges() const {
  char text[600];
  if (!(largest > 0.0)) return "no positive curvature was found";
  int length = std::snprintf(text,
                             sizeof(text),
                             "L  >= %-11.4g from %d products with d^2g/dy^2\n"
                             "mu <= %-11.4g\n"
                             "steps of y and z       below 2 / L        = %.4g\n"
                             "steps in Neumann sums  at most 1 / L      = %.4g\n",
                             largest,
                             num_products,
                             smallest,
                             2.0 / largest,
                             1.0 / largest);
  if (smallest > 0.0) {
    std::snprintf(text + length,
                  sizeof(text) - length,
                  "fastest without noise  2 / (L + mu)       = %.4g\n"
                  "Neumann length, 1 %%    (L / mu) log(100)  = %.0f\n",
                  2.0 / (largest + smallest),
                  std::ceil(largest / smallest * std::log(100.0)));
  } else {
    std::snprintf(
        text + length, sizeof(text) - length, "mu is not positive: y*(x) is not unique\n");
  }
  return text;
}

}  // namespace bilevel
