#include "bilevel/methods/estimators/neumann.h"

#include <cmath>

namespace bilevel {

std::string Neumann::Options::Check(const std::string& name) const {
  if (length < 0) return name + ".length must not be negative";
  if (!std::isfinite(log_growth)) return name + ".log_growth must be finite";
  if (!(step >= 0.0) || !std::isfinite(step)) return name + ".step must be positive";
  return "";
}

int Neumann::Options::Length(uint64_t k) const {
  return length + static_cast<int>(std::ceil(log_growth * std::log1p(static_cast<double>(k))));
}

double Neumann::Evaluate(Oracle& o,
                         const Metric* metric,
                         const Point& x,
                         const Point& y,
                         const Samples& samples,
                         SparseVector* d) {
  const double value = o.f(samples.f).Gradient(x, y, d, &f_y_);
  if (metric) metric->Apply(&f_y_);
  u_ = f_y_.dense();
  const bool sum = options_.kind == kTruncated;
  if (sum) sum_ = u_;
  for (const Batch& h : samples.h) {
    o.g(h).HessianProduct(x, y, u_, &h_u_, nullptr);
    if (!o.ok()) return value;
    if (metric) metric->Apply(&h_u_);
    h_u_.AddTo(-options_.step, &u_);
    if (sum) sum_ += u_;
  }
  Vector& z = sum ? sum_ : u_;
  z *= sum ? options_.step : options_.step * samples.length;
  o.g(samples.j).HessianProduct(x, y, z, &h_u_, &j_z_);
  d->Add(-1.0, j_z_);
  return value;
}

}  // namespace bilevel
