#include "bilevel/methods/estimators/curvature.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/methods/estimators/internal/conjugate_gradients.h"

namespace bilevel {
namespace {

constexpr int kStream = 1 << 20;  // Apart from the methods' own.

// The Lanczos process on M^-1 A for a symmetric matrix A of size n, definite or not:
// multiply(v, &product). In v'u = 1, u = M v:  A v_k = beta_k u_{k-1} + alpha_k u_k + beta_{k+1}
// u_{k+1}.
template <typename Multiply>
Curvature Lanczos(Oracle& o, int n, const Metric* metric, int num_products, Multiply multiply) {
  constexpr double kRounding = 1e-12;
  Vector r(n), before, u, v, product;
  o.RandomDirection(kStream, &r);
  Vector diagonal(num_products), off(num_products);
  double scale = 0.0;
  int k = 0;
  for (; k < std::min(n, num_products); ++k) {
    v = r;
    if (metric) metric->Apply(&v);
    const double beta = std::sqrt(std::max(0.0, r.dot(v)));
    if (!(beta > kRounding * scale)) break;
    u = r / beta;
    v /= beta;
    multiply(v, &product);
    if (!o.ok() || !product.allFinite()) break;
    const double alpha = v.dot(product);
    diagonal[k] = alpha;
    if (k > 0) off[k - 1] = beta;
    scale = std::max({scale, std::abs(alpha), k > 0 ? beta : 0.0});
    r = product - alpha * u;
    if (k > 0) r -= beta * before;
    before = u;
  }
  Curvature curvature;
  curvature.num_products = k;
  if (k == 0 || !o.ok()) return curvature;
  const Vector eigenvalues = TridiagonalEigenvalues(diagonal.head(k), off.head(k - 1));
  curvature.smallest = eigenvalues.minCoeff();
  curvature.largest = eigenvalues.maxCoeff();
  return curvature;
}

}  // namespace

Curvature EstimateCurvature(Oracle& o,
                            LevelView level,
                            const Point& x,
                            const Point& y,
                            const Metric* metric,
                            int num_products) {
  return Lanczos(o, y.dim(), metric, num_products, [&](const Vector& v, Vector* product) {
    level.HessianProduct(x, y, v, product, nullptr);
  });
}

Curvature EstimateCurvature(Oracle& o,
                            const Batch& batch,
                            const Point& x,
                            const Point& y,
                            const Metric* metric,
                            int num_products) {
  return EstimateCurvature(o, o.g(batch), x, y, metric, num_products);
}

// With H z = f_y and grad phi = f_x - J z:  u = dy*/dx p = -H^-1 J'p;  along (p, u), with z fixed,
// H dz = d f_y - dH z =: b  and  d^2 phi p = d f_x - dJ z - J H^-1 b.
UpperCurvature EstimateUpperCurvature(Oracle& o,
                                      const Batch& lower,
                                      const Batch& upper,
                                      const Point& x,
                                      const Point& y,
                                      int num_products) {
  LevelView f = o.f(upper), g = o.g(lower);
  // H^-1 b to 1 %, or as far as H is positive.
  const auto solve = [&](const Vector& b) {
    constexpr int kMaxIterations = 100;
    constexpr double kTolerance = 1e-2;
    Vector v;
    ConjugateGradients(
        b,
        kTolerance,
        kMaxIterations,
        [&](const Vector& p, Vector* product) {
          g.HessianProduct(x, y, p, product, nullptr);
          return o.ok();
        },
        &v);
    return v;
  };
  Vector f_x, f_y, g_y, h_z, j_z, there_x, there_y, there_g, there_h, there_j, product, j_w;
  f.Gradient(x, y, &f_x, &f_y);
  g.Gradient(x, y, nullptr, &g_y);
  const Vector z = solve(f_y);
  g.HessianProduct(x, y, z, &h_z, &j_z);
  UpperCurvature upper_curvature;
  upper_curvature.gradient_norm = (f_x - j_z).norm();
  upper_curvature.curvature =
      Lanczos(o, x.dim(), nullptr, num_products, [&](const Vector& p, Vector* d) {
        d->setZero(p.size());
        const double epsilon = 1e-5 * (1.0 + x.value().norm()) / p.norm();
        Point x_there = x, y_there = y;
        if (!x_there.Move(epsilon * p)) return;
        g.Gradient(x_there, y, nullptr, &there_g);
        const Vector u = solve((g_y - there_g) / epsilon);
        if (!o.ok() || !y_there.Move(epsilon * u)) return;
        f.Gradient(x_there, y_there, &there_x, &there_y);
        g.HessianProduct(x_there, y_there, z, &there_h, &there_j);
        const Vector w = solve((there_y - f_y - there_h + h_z) / epsilon);
        g.HessianProduct(x, y, w, &product, &j_w);
        *d = (there_x - f_x - there_j + j_z) / epsilon - j_w;
      });
  return upper_curvature;
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
