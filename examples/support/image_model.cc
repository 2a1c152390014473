#include "examples/support/image_model.h"

#include <algorithm>
#include <cmath>

// The loops below are most of an example's time: let them use what the machine has.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define EXAMPLES_VECTORIZED \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EXAMPLES_VECTORIZED
#endif

namespace examples {
namespace {

constexpr int kSize = FieldsOfExperts::kSize, kTaps = FieldsOfExperts::kTaps;
constexpr int kFilters = FieldsOfExperts::kFilters, kHalf = kSize / 2;
constexpr double kUnit = FieldsOfExperts::kUnit;

// The basis of the discrete cosine transform without the mean: basis[j][tap], of norm kUnit.
const std::array<std::array<double, kTaps>, kFilters>& Basis() {
  static const auto basis = [] {
    std::array<std::array<double, kTaps>, kFilters> b;
    for (int j = 1; j < kTaps; ++j) {
      const int p = j / kSize, q = j % kSize;
      for (int y = 0; y < kSize; ++y) {
        for (int x = 0; x < kSize; ++x) {
          b[j - 1][y * kSize + x] = kUnit * std::cos(M_PI * (y + 0.5) * p / kSize) *
                                    std::cos(M_PI * (x + 0.5) * q / kSize) *
                                    (p ? std::sqrt(2.0 / kSize) : std::sqrt(1.0 / kSize)) *
                                    (q ? std::sqrt(2.0 / kSize) : std::sqrt(1.0 / kSize));
        }
      }
    }
    return b;
  }();
  return basis;
}

// An image with a frame, row after row.
struct Framed {
  int width = 0, height = 0, stride = 0;  // Of the whole.
  std::vector<double> data;
  void Resize(int w, int h) {
    width = stride = w;
    height = h;
    data.resize(static_cast<size_t>(w) * h);
  }
  double* row(int y) { return data.data() + static_cast<size_t>(y) * stride; }
  const double* row(int y) const { return data.data() + static_cast<size_t>(y) * stride; }
};

// out[x] (+)= sum_i f[i] in[x + i].
EXAMPLES_VECTORIZED
void FilterRow(const double* f, const double* in, int n, bool add, double* out) {
  const double f0 = f[0], f1 = f[1], f2 = f[2], f3 = f[3], f4 = f[4];
  if (add) {
    for (int x = 0; x < n; ++x) {
      out[x] += f0 * in[x] + f1 * in[x + 1] + f2 * in[x + 2] + f3 * in[x + 3] + f4 * in[x + 4];
    }
  } else {
    for (int x = 0; x < n; ++x) {
      out[x] = f0 * in[x] + f1 * in[x + 1] + f2 * in[x + 2] + f3 * in[x + 3] + f4 * in[x + 4];
    }
  }
}

// sums[i] += sum_x b[x] in[x + i].
EXAMPLES_VECTORIZED
void CorrelateRow(const double* b, const double* in, int n, double* sums) {
  constexpr int kLanes = 8;
  double lanes[kSize][kLanes] = {};
  int x = 0;
  for (; x + kLanes <= n; x += kLanes) {
    for (int i = 0; i < kSize; ++i) {
      for (int l = 0; l < kLanes; ++l) lanes[i][l] += b[x + l] * in[x + i + l];
    }
  }
  for (int i = 0; i < kSize; ++i) {
    for (int l = 0; l < kLanes; ++l) sums[i] += lanes[i][l];
  }
  for (; x < n; ++x) {
    for (int i = 0; i < kSize; ++i) sums[i] += b[x] * in[x + i];
  }
}

// d rho and, where wanted, d^2 rho of rho(a) = log(1 + a^2).
EXAMPLES_VECTORIZED
void PenaltyRow(const double* a, int n, double* first, double* second) {
  if (second) {
    for (int x = 0; x < n; ++x) {
      const double inverse = 1.0 / (1.0 + a[x] * a[x]);
      first[x] = 2.0 * a[x] * inverse;
      second[x] = 2.0 * (1.0 - a[x] * a[x]) * inverse * inverse;
    }
  } else {
    for (int x = 0; x < n; ++x) first[x] = 2.0 * a[x] / (1.0 + a[x] * a[x]);
  }
}

// Sum of log(1 + a^2), a logarithm for every 16 factors. `t` is scratch of n.
EXAMPLES_VECTORIZED
double PenaltySum(const double* a, int n, double* t) {
  for (int x = 0; x < n; ++x) t[x] = 1.0 + std::min(a[x] * a[x], 1e15);
  for (int fold = 0; fold < 4 && n > 1; ++fold) {
    const int rest = n / 2;
    const int kept = n - rest;
    for (int x = 0; x < rest; ++x) t[x] *= t[kept + x];
    n = kept;
  }
  double sum = 0.0;
  for (int x = 0; x < n; ++x) sum += std::log(t[x]);
  return sum;
}

// u with a frame of kHalf pixels by reflection, and the adjoint of that.
void Reflect(const double* u, int width, int height, Framed* framed) {
  framed->Resize(width + 2 * kHalf, height + 2 * kHalf);
  const auto mirror = [](int i, int n) { return i < 0 ? -1 - i : i >= n ? 2 * n - 1 - i : i; };
  for (int y = 0; y < framed->height; ++y) {
    const double* from = u + static_cast<size_t>(mirror(y - kHalf, height)) * width;
    double* to = framed->row(y);
    std::copy_n(from, width, to + kHalf);
    for (int i = 0; i < kHalf; ++i) {
      to[i] = from[mirror(i - kHalf, width)];
      to[kHalf + width + i] = from[mirror(width + i, width)];
    }
  }
}
void AddFolded(const Framed& framed, int width, int height, double* u) {
  const auto mirror = [](int i, int n) { return i < 0 ? -1 - i : i >= n ? 2 * n - 1 - i : i; };
  for (int y = 0; y < framed.height; ++y) {
    double* to = u + static_cast<size_t>(mirror(y - kHalf, height)) * width;
    const double* from = framed.row(y);
    for (int x = 0; x < width; ++x) to[x] += from[kHalf + x];
    for (int i = 0; i < kHalf; ++i) {
      to[mirror(i - kHalf, width)] += from[i];
      to[mirror(width + i, width)] += from[kHalf + width + i];
    }
  }
}

// a (+)= f * framed, of the image's size.
void Convolve(const double* f, const Framed& in, int width, int height, bool add, double* a) {
  for (int y = 0; y < height; ++y) {
    for (int j = 0; j < kSize; ++j) {
      FilterRow(
          f + j * kSize, in.row(y + j), width, add || j > 0, a + static_cast<size_t>(y) * width);
    }
  }
}

// Adds the adjoint of Convolve: b stands in a frame of 2 kHalf zeros.
void AddTransposed(const double* f, const Framed& b, Framed* out) {
  std::array<double, kTaps> flipped;
  for (int t = 0; t < kTaps; ++t) flipped[t] = f[kTaps - 1 - t];
  for (int y = 0; y < out->height; ++y) {
    for (int j = 0; j < kSize; ++j) {
      FilterRow(flipped.data() + j * kSize, b.row(y + j), out->width, true, out->row(y));
    }
  }
}

// taps[t] += sum over pixels of b times the pixel of `in` under tap t.
void AddCorrelation(const Framed& b, const Framed& in, int width, int height, double* taps) {
  for (int y = 0; y < height; ++y) {
    for (int j = 0; j < kSize; ++j) {
      CorrelateRow(b.row(y + 2 * kHalf) + 2 * kHalf, in.row(y + j), width, taps + j * kSize);
    }
  }
}

// Gradient in the taps to gradient in the coefficients.
void ToCoefficients(const double* taps, double* coefficients) {
  for (int j = 0; j < kFilters; ++j) {
    coefficients[j] = 0.0;
    for (int t = 0; t < kTaps; ++t) coefficients[j] += Basis()[j][t] * taps[t];
  }
}

struct Scratch {
  Framed u, v, b, c, out;
  std::vector<double> a, da, first, second, row;
};

Scratch& ThreadScratch(int width, int height) {
  static thread_local Scratch scratch;
  const size_t n = static_cast<size_t>(width) * height;
  for (auto* field : {&scratch.a, &scratch.da, &scratch.first, &scratch.second}) field->resize(n);
  scratch.row.resize(n);
  for (Framed* frame : {&scratch.b, &scratch.c}) {
    frame->Resize(width + 4 * kHalf, height + 4 * kHalf);
    std::fill(frame->data.begin(), frame->data.end(), 0.0);
  }
  scratch.out.Resize(width + 2 * kHalf, height + 2 * kHalf);
  std::fill(scratch.out.data.begin(), scratch.out.data.end(), 0.0);
  return scratch;
}

}  // namespace

// ------------------------------------------------------------------------------------------------

FieldsOfExperts::FieldsOfExperts(Image noisy) : noisy_(std::move(noisy)) {}

std::array<double, kTaps> FieldsOfExperts::Filter(const double* coefficients, int k) {
  std::array<double, kTaps> filter{};
  for (int j = 0; j < kFilters; ++j) {
    for (int t = 0; t < kTaps; ++t) filter[t] += coefficients[k * kFilters + j] * Basis()[j][t];
  }
  return filter;
}

bool FieldsOfExperts::Evaluate(double const* const* blocks,
                               const bilevel::Batch& batch,
                               double* value,
                               double** gradients) const {
  if (!batch.all()) return false;
  const int width = noisy_.width, height = noisy_.height, n = width * height;
  const double* u = blocks[2];
  double* gw = gradients ? gradients[0] : nullptr;
  double* gc = gradients ? gradients[1] : nullptr;
  double* gu = gradients ? gradients[2] : nullptr;
  Scratch& s = ThreadScratch(width, height);
  Reflect(u, width, height, &s.u);
  *value = 0.0;
  for (int i = 0; i < n; ++i) *value += 0.5 * (u[i] - noisy_.pixels[i]) * (u[i] - noisy_.pixels[i]);
  for (int k = 0; k < kFilters; ++k) {
    const auto filter = Filter(blocks[1], k);
    const double w = std::exp(blocks[0][k]);
    Convolve(filter.data(), s.u, width, height, false, s.a.data());
    const double sum = PenaltySum(s.a.data(), n, s.row.data());
    *value += w * sum;
    if (gw) gw[k] = w * sum;
    if (!gc && !gu) continue;
    PenaltyRow(s.a.data(), n, s.first.data(), nullptr);
    for (int y = 0; y < height; ++y) {
      double* to = s.b.row(y + 2 * kHalf) + 2 * kHalf;
      for (int x = 0; x < width; ++x) to[x] = w * s.first[static_cast<size_t>(y) * width + x];
    }
    if (gu) AddTransposed(filter.data(), s.b, &s.out);
    if (gc) {
      double taps[kTaps] = {};
      AddCorrelation(s.b, s.u, width, height, taps);
      ToCoefficients(taps, gc + k * kFilters);
    }
  }
  if (gu) {
    for (int i = 0; i < n; ++i) gu[i] = u[i] - noisy_.pixels[i];
    AddFolded(s.out, width, height, gu);
  }
  return std::isfinite(*value);
}

bool FieldsOfExperts::HessianProduct(double const* const* blocks,
                                     const bilevel::Batch& batch,
                                     double const* const* direction,
                                     double** products) const {
  if (!batch.all()) return false;
  const int width = noisy_.width, height = noisy_.height, n = width * height;
  const double *dw = direction[0], *dc = direction[1], *du = direction[2];
  double *pw = products[0], *pc = products[1], *pu = products[2];
  Scratch& s = ThreadScratch(width, height);
  Reflect(blocks[2], width, height, &s.u);
  if (du) Reflect(du, width, height, &s.v);
  for (int k = 0; k < kFilters; ++k) {
    const auto filter = Filter(blocks[1], k);
    const double w = std::exp(blocks[0][k]), weight_change = dw ? w * dw[k] : 0.0;
    std::array<double, kTaps> change{};
    if (dc) change = Filter(dc, k);
    Convolve(filter.data(), s.u, width, height, false, s.a.data());
    if (du) {
      Convolve(filter.data(), s.v, width, height, false, s.da.data());
    } else {
      std::fill(s.da.begin(), s.da.end(), 0.0);
    }
    if (dc) Convolve(change.data(), s.u, width, height, true, s.da.data());
    PenaltyRow(s.a.data(), n, s.first.data(), s.second.data());
    // b: change of w rho'(a);  c: w rho'(a).
    double first_change = 0.0;
    for (int y = 0; y < height; ++y) {
      double* b = s.b.row(y + 2 * kHalf) + 2 * kHalf;
      double* c = s.c.row(y + 2 * kHalf) + 2 * kHalf;
      const size_t at = static_cast<size_t>(y) * width;
      for (int x = 0; x < width; ++x) {
        const double first = s.first[at + x], da = s.da[at + x];
        b[x] = w * s.second[at + x] * da + weight_change * first;
        c[x] = w * first;
        first_change += c[x] * da;
      }
    }
    if (pw) {
      pw[k] = first_change;
      if (dw) pw[k] += weight_change * PenaltySum(s.a.data(), n, s.row.data());
    }
    if (pu) {
      AddTransposed(filter.data(), s.b, &s.out);
      if (dc) AddTransposed(change.data(), s.c, &s.out);
    }
    if (pc) {
      double taps[kTaps] = {};
      AddCorrelation(s.b, s.u, width, height, taps);
      if (du) AddCorrelation(s.c, s.v, width, height, taps);
      ToCoefficients(taps, pc + k * kFilters);
    }
  }
  if (pu) {
    for (int i = 0; i < n; ++i) pu[i] = du ? du[i] : 0.0;
    AddFolded(s.out, width, height, pu);
  }
  return true;
}

// ------------------------------------------------------------------------------------------------

bool TotalVariation::Evaluate(double const* const* blocks,
                              const bilevel::Batch& batch,
                              double* value,
                              double** gradients) const {
  if (!batch.all()) return false;
  const int width = noisy_.width, height = noisy_.height, n = width * height;
  const double w = std::exp(blocks[0][0]), e2 = std::exp(2.0 * blocks[0][1]);
  const double* u = blocks[1];
  double* gx = gradients ? gradients[0] : nullptr;
  double* gu = gradients ? gradients[1] : nullptr;
  double sum = 0.0, by_eps = 0.0, data = 0.0;
  for (int i = 0; i < n; ++i) {
    data += 0.5 * (u[i] - noisy_.pixels[i]) * (u[i] - noisy_.pixels[i]);
    if (gu) gu[i] = u[i] - noisy_.pixels[i];
  }
  for (int y = 0; y < height; ++y) {
    const int down = y + 1 < height ? width : 0;
    for (int x = 0; x < width; ++x) {
      const int i = y * width + x, right = x + 1 < width ? 1 : 0;
      const double gr = u[i + right] - u[i], gd = u[i + down] - u[i];
      const double s = std::sqrt(gr * gr + gd * gd + e2);
      sum += s;
      by_eps += e2 / s;
      if (!gu) continue;
      gu[i + right] += w * gr / s;
      gu[i + down] += w * gd / s;
      gu[i] -= w * (gr + gd) / s;
    }
  }
  *value = data + w * sum;
  if (gx) {
    gx[0] = w * sum;
    gx[1] = w * by_eps;
  }
  return std::isfinite(*value);
}

bool TotalVariation::HessianProduct(double const* const* blocks,
                                    const bilevel::Batch& batch,
                                    double const* const* direction,
                                    double** products) const {
  if (!batch.all()) return false;
  const int width = noisy_.width, height = noisy_.height, n = width * height;
  const double w = std::exp(blocks[0][0]), e2 = std::exp(2.0 * blocks[0][1]);
  const double dlw = direction[0] ? direction[0][0] : 0.0,
               dle = direction[0] ? direction[0][1] : 0.0;
  const double *u = blocks[1], *du = direction[1];
  double *px = products[0], *pu = products[1];
  double by_weight = 0.0, by_eps = 0.0;
  if (pu) {
    for (int i = 0; i < n; ++i) pu[i] = du ? du[i] : 0.0;
  }
  for (int y = 0; y < height; ++y) {
    const int down = y + 1 < height ? width : 0;
    for (int x = 0; x < width; ++x) {
      const int i = y * width + x, right = x + 1 < width ? 1 : 0;
      const double gr = u[i + right] - u[i], gd = u[i + down] - u[i];
      const double dr = du ? du[i + right] - du[i] : 0.0, dd = du ? du[i + down] - du[i] : 0.0;
      const double inverse = 1.0 / std::sqrt(gr * gr + gd * gd + e2);
      const double ds = (gr * dr + gd * dd + e2 * dle) * inverse;  // Change of the square root.
      by_weight += w * (dlw / inverse + ds);
      by_eps += w * e2 * inverse * (dlw + 2.0 * dle - ds * inverse);
      if (!pu) continue;
      const double r = w * inverse * (dlw * gr + dr - gr * ds * inverse);
      const double d = w * inverse * (dlw * gd + dd - gd * ds * inverse);
      pu[i + right] += r;
      pu[i + down] += d;
      pu[i] -= r + d;
    }
  }
  if (px) {
    px[0] = by_weight;
    px[1] = by_eps;
  }
  return true;
}

// ------------------------------------------------------------------------------------------------

bool MeanSquaredError::Evaluate(double const* const* blocks,
                                const bilevel::Batch& batch,
                                double* value,
                                double** gradients) const {
  if (!batch.all()) return false;
  const double scale = 1.0 / static_cast<double>(truth_.pixels.size());
  *value = 0.0;
  for (size_t i = 0; i < truth_.pixels.size(); ++i) {
    const double error = blocks[0][i] - truth_.pixels[i];
    *value += 0.5 * scale * error * error;
    if (gradients && gradients[0]) gradients[0][i] = scale * error;
  }
  return true;
}

bool MeanSquaredError::HessianProduct(double const* const* /*blocks*/,
                                      const bilevel::Batch& batch,
                                      double const* const* direction,
                                      double** products) const {
  if (!batch.all()) return false;
  const double scale = 1.0 / static_cast<double>(truth_.pixels.size());
  for (size_t i = 0; products[0] && i < truth_.pixels.size(); ++i) {
    products[0][i] = direction[0] ? scale * direction[0][i] : 0.0;
  }
  return true;
}

}  // namespace examples
