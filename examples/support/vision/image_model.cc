#include "examples/support/vision/image_model.h"

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

// Loops go through rows in steps of kStep pixels; memory is laid out for that.
typedef double Pack __attribute__((vector_size(64)));
// Anywhere in a row. Clang forgets a typedef's own alignment where it is returned.
struct __attribute__((packed, may_alias)) LoosePack {
  Pack value;
};
constexpr int kLanes = 8, kStep = 2 * kLanes;
LoosePack& At(double* p) { return *reinterpret_cast<LoosePack*>(p); }
const LoosePack& At(const double* p) { return *reinterpret_cast<const LoosePack*>(p); }
int RoundUp(int n) { return (n + kStep - 1) / kStep * kStep; }

// An image in a frame of kHalf pixels.
struct Framed {
  int width = 0, height = 0, stride = 0;  // With the frame.
  std::vector<double> data;
  void Resize(int w, int h) {
    width = w + 2 * kHalf;
    height = h + 2 * kHalf;
    stride = RoundUp(width);
    data.resize(static_cast<size_t>(stride) * height + 2 * kStep);
  }
  double* row(int y) { return data.data() + static_cast<size_t>(y) * stride; }
  const double* row(int y) const { return data.data() + static_cast<size_t>(y) * stride; }
};

// A row of an image for each filter, between zeros.
struct Rows {
  static constexpr int kFront = kLanes;
  int width = 0, pitch = 0;
  std::vector<double> data;
  void Resize(int w) {
    width = w;
    pitch = kFront + RoundUp(w + 2 * kHalf) + kStep;
    data.assign(static_cast<size_t>(kFilters) * pitch, 0.0);
  }
  double* row(int k) { return data.data() + static_cast<size_t>(k) * pitch + kFront; }
  const double* row(int k) const { return data.data() + static_cast<size_t>(k) * pitch + kFront; }
};

// All filters: taps[tap][filter].
struct Bank {
  double taps[kTaps][kFilters];
};

Bank MakeBank(const double* coefficients) {
  Bank bank;
  for (int k = 0; k < kFilters; ++k) {
    const auto filter = FieldsOfExperts::Filter(coefficients, k);
    for (int t = 0; t < kTaps; ++t) bank.taps[t][k] = filter[t];
  }
  return bank;
}

// Row y of all filters' responses to an image.
EXAMPLES_VECTORIZED
void Respond(const Bank& bank, const Framed& in, int y, bool add, Rows* out) {
  constexpr int kGroup = 6;
  static_assert(kFilters % kGroup == 0);
  for (int k = 0; k < kFilters; k += kGroup) {
    for (int x = 0; x < out->width; x += kStep) {
      Pack sums[kGroup][2] = {};
      for (int j = 0; j < kSize; ++j) {
        for (int i = 0; i < kSize; ++i) {
          const double* taps = bank.taps[j * kSize + i] + k;
          const double* from = in.row(y + j) + x + i;
          const Pack left = At(from).value, right = At(from + kLanes).value;
          for (int m = 0; m < kGroup; ++m) {
            sums[m][0] += taps[m] * left;
            sums[m][1] += taps[m] * right;
          }
        }
      }
      for (int m = 0; m < kGroup; ++m) {
        double* to = out->row(k + m) + x;
        for (int half = 0; half < 2; ++half) {
          if (add) sums[m][half] += At(to + half * kLanes).value;
          At(to + half * kLanes).value = sums[m][half];
        }
      }
    }
  }
}

// Adds the adjoint of Respond.
EXAMPLES_VECTORIZED
void AddAdjoint(const Bank& bank, const Rows& in, int y, Framed* out) {
  for (int x = 0; x < out->width; x += kStep) {
    Pack sums[kSize][2] = {};
    for (int k = 0; k < kFilters; ++k) {
      for (int i = 0; i < kSize; ++i) {
        const double* from = in.row(k) + x - i;
        const Pack left = At(from).value, right = At(from + kLanes).value;
        for (int j = 0; j < kSize; ++j) {
          sums[j][0] += bank.taps[j * kSize + i][k] * left;
          sums[j][1] += bank.taps[j * kSize + i][k] * right;
        }
      }
    }
    for (int j = 0; j < kSize; ++j) {
      double* to = out->row(y + j) + x;
      At(to).value += sums[j][0];
      At(to + kLanes).value += sums[j][1];
    }
  }
}

// Adds the derivatives by the taps of the sum over row y of rows times responses.
EXAMPLES_VECTORIZED
void AddByTaps(const Rows& rows, const Framed& in, int y, Bank* out) {
  for (int k = 0; k < kFilters; ++k) {
    for (int j = 0; j < kSize; ++j) {
      Pack sums[kSize] = {};
      for (int x = 0; x < rows.width; x += kLanes) {
        const Pack row = At(rows.row(k) + x).value;
        for (int i = 0; i < kSize; ++i) sums[i] += row * At(in.row(y + j) + x + i).value;
      }
      for (int i = 0; i < kSize; ++i) {
        for (int l = 0; l < kLanes; ++l) out->taps[j * kSize + i][k] += sums[i][l];
      }
    }
  }
}

// Scaled by w, the derivatives of rho(a) = log(1 + a^2); second may be nullptr.
EXAMPLES_VECTORIZED
void Penalty(const double* a, int n, double w, double* first, double* second) {
  for (int x = 0; x < n; ++x) {
    const double inverse = 1.0 / (1.0 + a[x] * a[x]);
    first[x] = 2.0 * w * a[x] * inverse;
    if (second) second[x] = 2.0 * w * (1.0 - a[x] * a[x]) * inverse * inverse;
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

// Continues u by reflection into the frame, and the adjoint of that.
int Mirror(int i, int n) { return i < 0 ? -1 - i : i >= n ? 2 * n - 1 - i : i; }
void Reflect(const double* u, int width, int height, Framed* framed) {
  framed->Resize(width, height);
  for (int y = 0; y < framed->height; ++y) {
    const double* from = u + static_cast<size_t>(Mirror(y - kHalf, height)) * width;
    double* to = framed->row(y);
    std::copy_n(from, width, to + kHalf);
    for (int i = 0; i < kHalf; ++i) {
      to[i] = from[Mirror(i - kHalf, width)];
      to[kHalf + width + i] = from[Mirror(width + i, width)];
    }
    std::fill(to + framed->width, to + framed->stride, 0.0);
  }
}
void AddFolded(const Framed& framed, int width, int height, double* u) {
  for (int y = 0; y < framed.height; ++y) {
    double* to = u + static_cast<size_t>(Mirror(y - kHalf, height)) * width;
    const double* from = framed.row(y);
    for (int x = 0; x < width; ++x) to[x] += from[kHalf + x];
    for (int i = 0; i < kHalf; ++i) {
      to[Mirror(i - kHalf, width)] += from[i];
      to[Mirror(width + i, width)] += from[kHalf + width + i];
    }
  }
}

// Gradient in the taps to gradient in the coefficients.
void ToCoefficients(const Bank& bank, double* coefficients) {
  for (int k = 0; k < kFilters; ++k) {
    for (int j = 0; j < kFilters; ++j) {
      double sum = 0.0;
      for (int t = 0; t < kTaps; ++t) sum += Basis()[j][t] * bank.taps[t][k];
      coefficients[k * kFilters + j] = sum;
    }
  }
}

struct Scratch {
  Framed u, v, out;
  Rows a, da, b, c;
  std::vector<double> row;
  // For the products of one Newton step: at which point, its filters, and w rho''(a), row after
  // row of all filters.
  std::vector<double> key, curvature;
  Bank bank;

  void Resize(int width, int height) {
    for (Rows* rows : {&a, &da, &b, &c}) {
      if (rows->width != width) rows->Resize(width);
    }
    row.resize(width);
    out.Resize(width, height);
    std::fill(out.data.begin(), out.data.end(), 0.0);
  }
};

Scratch& ThreadScratch() {
  static thread_local Scratch scratch;
  return scratch;
}

}  // namespace

// ------------------------------------------------------------------------------------------------

bool SquaredError::Evaluate(double const* const* blocks,
                            const bilevel::Batch& batch,
                            double* value,
                            double** gradients) const {
  if (!batch.all()) return false;
  *value = 0.0;
  for (size_t i = 0; i < target_.pixels.size(); ++i) {
    const double error = blocks[0][i] - target_.pixels[i];
    *value += 0.5 * scale_ * error * error;
    if (gradients && gradients[0]) gradients[0][i] = scale_ * error;
  }
  return true;
}

bool SquaredError::HessianProduct(double const* const* /*blocks*/,
                                  const bilevel::Batch& batch,
                                  double const* const* direction,
                                  double** products) const {
  if (!batch.all()) return false;
  for (size_t i = 0; products[0] && i < target_.pixels.size(); ++i) {
    products[0][i] = direction[0] ? scale_ * direction[0][i] : 0.0;
  }
  return true;
}

// ------------------------------------------------------------------------------------------------

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
  const int width = width_, height = height_, n = width * height;
  const double* u = blocks[2];
  double* gw = gradients ? gradients[0] : nullptr;
  double* gc = gradients ? gradients[1] : nullptr;
  double* gu = gradients ? gradients[2] : nullptr;
  Scratch& s = ThreadScratch();
  s.Resize(width, height);
  Reflect(u, width, height, &s.u);
  const Bank bank = MakeBank(blocks[1]);
  Bank by_taps{};
  double sums[kFilters] = {};
  for (int y = 0; y < height; ++y) {
    Respond(bank, s.u, y, false, &s.a);
    for (int k = 0; k < kFilters; ++k) {
      sums[k] += PenaltySum(s.a.row(k), width, s.row.data());
      if (gu || gc) Penalty(s.a.row(k), width, std::exp(blocks[0][k]), s.b.row(k), nullptr);
    }
    if (gu) AddAdjoint(bank, s.b, y, &s.out);
    if (gc) AddByTaps(s.b, s.u, y, &by_taps);
  }
  *value = 0.0;
  for (int k = 0; k < kFilters; ++k) {
    *value += std::exp(blocks[0][k]) * sums[k];
    if (gw) gw[k] = std::exp(blocks[0][k]) * sums[k];
  }
  if (gu) {
    std::fill_n(gu, n, 0.0);
    AddFolded(s.out, width, height, gu);
  }
  if (gc) ToCoefficients(by_taps, gc);
  return std::isfinite(*value);
}

// The product in u alone, for which the curvature at the last point is kept.
void FieldsOfExperts::ProductInPixels(double const* const* blocks,
                                      const double* du,
                                      double* pu) const {
  const int width = width_, height = height_, n = width * height;
  const size_t sizes[] = {kFilters, size_t{kFilters} * kFilters, static_cast<size_t>(n)};
  Scratch& s = ThreadScratch();
  s.Resize(width, height);
  size_t at = 1;
  bool known = s.key.size() == at + sizes[0] + sizes[1] + sizes[2] && s.key[0] == width;
  for (int p = 0; p < 3; at += sizes[p++]) {
    known = known && std::equal(blocks[p], blocks[p] + sizes[p], s.key.begin() + at);
  }
  if (!known) {
    s.key.assign(1, width);
    for (int p = 0; p < 3; ++p) s.key.insert(s.key.end(), blocks[p], blocks[p] + sizes[p]);
    s.curvature.resize(static_cast<size_t>(kFilters) * n);
    s.bank = MakeBank(blocks[1]);
    Reflect(blocks[2], width, height, &s.u);
  }
  Reflect(du, width, height, &s.v);
  for (int y = 0; y < height; ++y) {
    if (!known) Respond(s.bank, s.u, y, false, &s.a);
    Respond(s.bank, s.v, y, false, &s.da);
    for (int k = 0; k < kFilters; ++k) {
      double* curvature = &s.curvature[(static_cast<size_t>(y) * kFilters + k) * width];
      double* b = s.b.row(k);
      const double* da = s.da.row(k);
      if (!known) Penalty(s.a.row(k), width, std::exp(blocks[0][k]), s.row.data(), curvature);
      for (int x = 0; x < width; ++x) b[x] = curvature[x] * da[x];
    }
    AddAdjoint(s.bank, s.b, y, &s.out);
  }
  std::fill_n(pu, n, 0.0);
  AddFolded(s.out, width, height, pu);
}

bool FieldsOfExperts::HessianProduct(double const* const* blocks,
                                     const bilevel::Batch& batch,
                                     double const* const* direction,
                                     double** products) const {
  if (!batch.all()) return false;
  const double *dw = direction[0], *dc = direction[1], *du = direction[2];
  double *pw = products[0], *pc = products[1], *pu = products[2];
  if (du && pu && !dw && !dc && !pw && !pc) {
    ProductInPixels(blocks, du, pu);
    return true;
  }
  const int width = width_, height = height_, n = width * height;
  Scratch& s = ThreadScratch();
  s.Resize(width, height);
  Reflect(blocks[2], width, height, &s.u);
  if (du) Reflect(du, width, height, &s.v);
  const Bank bank = MakeBank(blocks[1]), change = dc ? MakeBank(dc) : Bank{};
  Bank by_taps{};
  if (pw) std::fill_n(pw, kFilters, 0.0);
  for (int y = 0; y < height; ++y) {
    Respond(bank, s.u, y, false, &s.a);
    if (du) {
      Respond(bank, s.v, y, false, &s.da);
    } else {
      std::fill(s.da.data.begin(), s.da.data.end(), 0.0);
    }
    if (dc) Respond(change, s.u, y, true, &s.da);
    for (int k = 0; k < kFilters; ++k) {
      const double w = std::exp(blocks[0][k]), weight_change = dw ? dw[k] : 0.0;
      const double* da = s.da.row(k);
      double *b = s.b.row(k), *c = s.c.row(k);  // The change of w rho'(a), and w rho'(a).
      if (pw && dw) pw[k] += w * weight_change * PenaltySum(s.a.row(k), width, s.row.data());
      Penalty(s.a.row(k), width, w, c, s.row.data());
      double change_of_value = 0.0;
      for (int x = 0; x < width; ++x) {
        b[x] = s.row[x] * da[x] + weight_change * c[x];
        change_of_value += c[x] * da[x];
      }
      if (pw) pw[k] += change_of_value;
    }
    if (pu) {
      AddAdjoint(bank, s.b, y, &s.out);
      if (dc) AddAdjoint(change, s.c, y, &s.out);
    }
    if (pc) {
      AddByTaps(s.b, s.u, y, &by_taps);
      if (du) AddByTaps(s.c, s.v, y, &by_taps);
    }
  }
  if (pu) {
    std::fill_n(pu, n, 0.0);
    AddFolded(s.out, width, height, pu);
  }
  if (pc) ToCoefficients(by_taps, pc);
  return true;
}

// ------------------------------------------------------------------------------------------------

bool TotalVariation::Evaluate(double const* const* blocks,
                              const bilevel::Batch& batch,
                              double* value,
                              double** gradients) const {
  if (!batch.all()) return false;
  const int width = width_, height = height_, n = width * height;
  const double w = std::exp(blocks[0][0]), e2 = std::exp(2.0 * blocks[0][1]);
  const double* u = blocks[1];
  double* gx = gradients ? gradients[0] : nullptr;
  double* gu = gradients ? gradients[1] : nullptr;
  double sum = 0.0, by_eps = 0.0;
  if (gu) std::fill_n(gu, n, 0.0);
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
  *value = w * sum;
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
  const int width = width_, height = height_, n = width * height;
  const double w = std::exp(blocks[0][0]), e2 = std::exp(2.0 * blocks[0][1]);
  const double dlw = direction[0] ? direction[0][0] : 0.0,
               dle = direction[0] ? direction[0][1] : 0.0;
  const double *u = blocks[1], *du = direction[1];
  double *px = products[0], *pu = products[1];
  double by_weight = 0.0, by_eps = 0.0;
  if (pu) std::fill_n(pu, n, 0.0);
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

}  // namespace examples
