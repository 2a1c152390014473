#include "bilevel/models/internal/linear_model_engine_base.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

namespace bilevel {
namespace internal {
namespace {

// Sums are made over pieces of so many samples, one after the other, then over the pieces.
constexpr int kPiece = 512;
constexpr int kMaxPieces = 64;

}  // namespace

// An evaluation's memory, for as long as it lasts.
template <typename T>
class EngineBase<T>::Lease {
 public:
  explicit Lease(EngineBase* e) : engine_(e) {
    {
      std::lock_guard<std::mutex> lock(engine_->mutex_);
      if (!engine_->free_.empty()) {
        work_ = std::move(engine_->free_.back());
        engine_->free_.pop_back();
      }
    }
    if (work_) return;
    work_ = std::make_unique<Work>();
    const size_t block = engine_->block_, c = engine_->p_.c;
    for (int i = 0; i < engine_->pool_.num_threads(); ++i) {
      work_->threads.emplace_back(&engine_->p_, engine_->block_);
      Thread& t = work_->threads.back();
      t.outputs.resize(2 * block * c + kSimdBytes / sizeof(T));
      t.coefficients.resize(2 * block * c);
      t.rows.resize(block);
    }
  }
  ~Lease() {
    std::lock_guard<std::mutex> lock(engine_->mutex_);
    engine_->free_.push_back(std::move(work_));
  }
  Work* work() const { return work_.get(); }

 private:
  EngineBase* engine_;
  std::unique_ptr<Work> work_;
};

template <typename T>
EngineBase<T>::EngineBase(Description description, int num_threads, int block)
    : p_(std::move(description)),
      block_(block),
      kernels_(GetModelKernels<T>()),
      pool_(num_threads) {
  free_.reserve(64);
}

template <typename T>
void EngineBase<T>::SetSamples(const Batch& batch, Work* w) const {
  w->all = batch.all();
  w->count = batch.Count(p_.n);
  Grow(&w->terms, w->count);
  const int first = w->all ? 0 : batch.First(p_.n);
  if (first >= 0) std::iota(w->terms.begin(), w->terms.begin() + w->count, first);
  if (w->all) return;
  Grow(&w->batch_weights, w->count);
  const double weight = w->count > 0 ? batch.Weight(0, p_.n) : 0.0;
  for (int k = 0; k < w->count; ++k) {
    if (first < 0) w->terms[k] = batch.Term(k, p_.n);
    w->batch_weights[k] = batch.importance ? batch.Weight(k, p_.n) : weight;
  }
}

template <typename T>
bool EngineBase<T>::KeepTheta(const double* theta, Work* w) {
  const size_t size = static_cast<size_t>(p_.c) * p_.d;
  if (w->theta.size() == size && std::memcmp(w->theta.data(), theta, size * sizeof(*theta)) == 0) {
    return true;
  }
  w->theta.assign(theta, theta + size);
  return false;
}

template <typename T>
void EngineBase<T>::Run(const Batch& batch, const Request& q) {
  const Lease lease(this);
  Work& w = *lease.work();
  SetSamples(batch, &w);
  const int count = w.count;
  w.known = w.all && KeepTheta(q.theta, &w) && w.has_slopes;
  w.has_slopes = w.all;
  Grow(&w.slopes, static_cast<size_t>(count) * p_.c);
  Grow(&w.losses, count);
  if (q.w_gradient) Grow(&w.w_gradient, count);
  if (q.w_product) Grow(&w.w_product, count);
  const int piece =
      std::max(kPiece, ((count + kMaxPieces - 1) / kMaxPieces + kBlock - 1) / kBlock * kBlock);
  const int pieces = (count + piece - 1) / piece;
  Grow(&w.values, pieces);
  w.with_outputs = !w.known;
  w.with_product = q.products() && q.theta_direction;
  w.num_coefficients = p_.c * ((q.theta_gradient != nullptr) + (q.theta_product != nullptr));
  Begin(q, pieces, &w);
  const auto run = [&](int thread, int i) {
    w.values[i] = 0.0;
    const int end = std::min(count, (i + 1) * piece);
    for (int k = i * piece; k < end; k += block_) {
      Evaluate(q, k, std::min(block_, end - k), i, k == i * piece, &w.threads[thread], &w);
    }
  };
  pool_.ParallelFor(pieces, 1, std::cref(run));  // A reference: nothing is allocated.
  if (q.value) *q.value = std::accumulate(w.values.begin(), w.values.begin() + pieces, 0.0);
  End(q, pieces, &w);
  Scatter(w, w.w_gradient, q.w_gradient);
  Scatter(w, w.w_product, q.w_product);
}

template <typename T>
double EngineBase<T>::Accuracy(const double* theta) {
  if (p_.loss == LinearModel::kSquared) return 0.0;
  std::vector<double> outputs(static_cast<size_t>(p_.n) * p_.c);
  Outputs(theta, outputs.data());
  int right = 0;
  for (int i = 0; i < p_.n; ++i) {
    const double* const o = &outputs[static_cast<size_t>(i) * p_.c];
    const auto best = p_.c == 1 ? o[0] > 0.0 : std::max_element(o, o + p_.c) - o;
    right += best == static_cast<int>(p_.targets[i]);
  }
  return static_cast<double>(right) / p_.n;
}

template <typename T>
void EngineBase<T>::Outputs(const double* theta, double* outputs) {
  const Lease lease(this);
  Work& w = *lease.work();
  SetSamples(Batch::All(), &w);
  KeepTheta(theta, &w);
  w.has_slopes = w.with_product = false;
  w.with_outputs = true;
  w.num_coefficients = 0;
  Request q;
  q.theta = theta;
  Begin(q, 0, &w);
  const int blocks = (p_.n + block_ - 1) / block_;
  const auto run = [&](int thread, int i) {
    const int begin = i * block_, rows = std::min(block_, p_.n - begin);
    T* const o = w.threads[thread].outputs.data();
    Products(q, begin, rows, &w.threads[thread], &w, o);
    std::copy_n(o, static_cast<size_t>(rows) * p_.c, outputs + static_cast<size_t>(begin) * p_.c);
  };
  pool_.ParallelFor(blocks, 4, std::cref(run));
}

template <typename T>
void EngineBase<T>::Evaluate(
    const Request& q, int begin, int rows, int piece, bool first, Thread* t, Work* w) {
  const int c = p_.c, ld = c * (w->with_outputs + w->with_product);
  const int* const samples = w->terms.data() + begin;
  T* const slopes = w->slopes.data() + static_cast<size_t>(begin) * c;
  double* const losses = w->losses.data() + begin;
  if (ld > 0) Products(q, begin, rows, t, w, t->outputs.data());
  if (w->with_outputs) {
    t->losses.Evaluate(samples, rows, t->outputs.data(), ld, slopes, losses);
  }
  t->losses.EvaluateWeights(samples, rows, q.w, w->all ? nullptr : &w->batch_weights[begin]);
  if (q.value) {
    double sum = 0.0;
    for (int i = 0; i < rows; ++i) sum += t->losses.omega(i) * losses[i];
    w->values[piece] += sum;
  }
  if (q.w_gradient) {
    for (int i = 0; i < rows; ++i) w->w_gradient[begin + i] = t->losses.slope(i) * losses[i];
  }
  if (w->num_coefficients == 0 && !q.w_product) return;
  const T* const u = t->outputs.data() + c * w->with_outputs;
  const int m = w->num_coefficients;
  for (int i = 0; i < rows; ++i) {
    const T* const r = slopes + i * c;
    T* to = t->coefficients.data() + i * m;
    const T omega = static_cast<T>(t->losses.omega(i));
    if (q.theta_gradient) {
      for (int k = 0; k < c; ++k) to[k] = omega * r[k];
      to += c;
    }
    if (!q.products()) continue;
    const double along_w = q.w_direction ? q.w_direction[p_.WeightOf(samples[i])] : 0.0;
    if (q.theta_product) {
      if (w->with_product) {
        t->losses.Curve(samples[i], r, u + i * ld, omega, to);
      } else {
        std::fill_n(to, c, T(0));
      }
      const T along = static_cast<T>(t->losses.slope(i) * along_w);
      for (int k = 0; along_w != 0.0 && k < c; ++k) to[k] += along * r[k];
    }
    if (q.w_product) {
      T dot = 0;
      for (int k = 0; w->with_product && k < c; ++k) dot += r[k] * u[i * ld + k];
      w->w_product[begin + i] =
          t->losses.slope(i) * dot + t->losses.curvature(i) * along_w * losses[i];
    }
  }
  if (m > 0) AddGradients(begin, rows, t->coefficients.data(), piece, first, t, w);
}

template <typename T>
void EngineBase<T>::Scatter(const Work& w, const std::vector<double>& from, double* to) const {
  if (!to) return;
  if (w.all || p_.weights_by_class) std::fill_n(to, p_.num_weights, 0.0);
  for (int k = 0; k < w.count; ++k) to[p_.WeightOf(w.terms[k])] += from[k];
}

template class EngineBase<float>;
template class EngineBase<double>;

}  // namespace internal
}  // namespace bilevel
