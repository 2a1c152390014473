#include "bilevel/models/linear_model_engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <mutex>
#include <type_traits>
#include <utility>

#include "bilevel/models/feature_storage.h"
#include "bilevel/models/simd_kernels.h"
#include "bilevel/objective/thread_pool.h"

namespace bilevel {
namespace {

// Samples that stay in the cache between the product with Theta and the one for the gradient.
constexpr int kBlock = 64;
constexpr int kBlockBytes = 256 * 1024;
// Sums are made over pieces of so many samples, one after the other, then over the pieces.
constexpr int kPiece = 512;
constexpr int kMaxPieces = 64;

using Request = LinearModel::Request;
using Description = LinearModel::Description;
template <typename T>
using Array = Eigen::Array<T, Eigen::Dynamic, 1>;
template <typename T>
using ArrayMap = Eigen::Map<Array<T>>;

// All but the products with the features: o = Theta a and u = V a for a block of samples give the
// slopes r = d loss / d o, and the coefficients of a_i in gradient and product,
//     s_i r_i    and    s_i H_i u_i + (s_i)' dw_i r_i,    s_i = scale * omega(w_i) * the batch's.
template <typename T>
class EngineBase : public LinearModel::Engine {
 public:
  EngineBase(Description description, int num_threads, int block)
      : p_(std::move(description)),
        block_(block),
        kernels_(internal::GetDenseKernels<T>()),
        pool_(num_threads) {
    free_.reserve(64);
  }

  void Run(const Batch& batch, const Request& q) final {
    const Lease lease(this);
    Work& w = *lease.work;
    const int count = batch.Count(p_.n);
    w.all = batch.all();
    w.count = count;
    if (w.all) {
      const size_t bytes = sizeof(double) * p_.c * p_.d;
      w.known = w.has_slopes && std::memcmp(w.theta.data(), q.theta, bytes) == 0;
      if (!w.known) w.theta.assign(q.theta, q.theta + static_cast<size_t>(p_.c) * p_.d);
    } else {
      w.known = false;
      Grow(&w.terms, count);
      Grow(&w.batch_weights, count);
      const int first = batch.First(p_.n);
      const double weight = count > 0 ? batch.Weight(0, p_.n) : 0.0;
      for (int k = 0; k < count; ++k) {
        w.terms[k] = first >= 0 ? first + k : batch.Term(k, p_.n);
        w.batch_weights[k] = batch.importance ? batch.Weight(k, p_.n) : weight;
      }
    }
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
        RunBlock(q, k, std::min(block_, end - k), i, k == i * piece, &w.threads[thread], &w);
      }
    };
    pool_.ParallelFor(pieces, 1, std::cref(run));  // A reference: nothing is allocated.
    if (q.value) {
      *q.value = 0.0;
      for (int i = 0; i < pieces; ++i) *q.value += w.values[i];
    }
    End(q, pieces, &w);
    Scatter(w, w.w_gradient, q.w_gradient);
    Scatter(w, w.w_product, q.w_product);
  }

  double Accuracy(const double* theta) final {
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

  void Outputs(const double* theta, double* outputs) final {
    const Lease lease(this);
    Work& w = *lease.work;
    w.has_slopes = false;
    w.all = w.with_outputs = true;
    w.with_product = false;
    w.count = p_.n;
    w.num_coefficients = 0;
    Request q;
    q.theta = theta;
    Begin(q, 0, &w);
    const int blocks = (p_.n + block_ - 1) / block_;
    const auto run = [&](int thread, int i) {
      const int begin = i * block_, rows = std::min(block_, p_.n - begin);
      T* const o = w.threads[thread].outputs.data();
      Products(begin, rows, &w.threads[thread], &w, o);
      std::copy_n(o, static_cast<size_t>(rows) * p_.c, outputs + static_cast<size_t>(begin) * p_.c);
    };
    pool_.ParallelFor(blocks, 4, std::cref(run));
  }

 protected:
  struct Thread {
    std::vector<T> outputs, coefficients, exponentials, sums, shifts;
    std::vector<const T*> rows;
    Array<double> omega, slope, curvature;
  };
  // One evaluation's memory.
  struct Work {
    bool all = true, known = false, has_slopes = false, with_outputs = false, with_product = false;
    int count = 0, num_coefficients = 0;
    const double* theta_given = nullptr;
    const double* direction_given = nullptr;
    std::vector<double> theta;  // Where slopes and losses are known.
    std::vector<T> slopes;
    std::vector<double> losses, values, w_gradient, w_product, batch_weights;
    std::vector<int> terms;
    std::vector<Thread> threads;
    internal::AlignedArray<T> weights, gradients, coefficients;
    std::vector<const T*> rows_of_weights;
    std::vector<T*> sums;

    int Term(int k) const { return all ? k : terms[k]; }
  };
  template <typename V>
  static void Grow(V* v, size_t size) {
    if (v->size() < size) v->resize(size);
  }

  // Theta and V in the engine's layout; memory for the gradients.
  virtual void Begin(const Request& q, int pieces, Work* w) = 0;
  // Writes the wanted ones of o and u, side by side, sample by sample.
  virtual void Products(int begin, int rows, Thread* t, Work* w, T* out) = 0;
  // The coefficients of a block, num_coefficients a sample; whether it is the piece's first.
  virtual void AddGradients(
      int begin, int rows, const T* coefficients, int piece, bool first, Thread*, Work*) = 0;
  virtual void End(const Request& q, int pieces, Work* w) = 0;

  const Description p_;
  const int block_;
  const internal::DenseKernels<T>& kernels_;
  ThreadPool pool_;

 private:
  struct Lease {
    explicit Lease(EngineBase* e) : engine(e) {
      {
        std::lock_guard<std::mutex> lock(engine->mutex_);
        if (!engine->free_.empty()) {
          work = std::move(engine->free_.back());
          engine->free_.pop_back();
        }
      }
      if (work) return;
      work = std::make_unique<Work>();
      work->threads.resize(engine->pool_.num_threads());
      const size_t c = engine->p_.c, block = engine->block_;
      for (Thread& t : work->threads) {
        t.outputs.resize(2 * block * c);
        t.coefficients.resize(2 * block * c);
        t.exponentials.resize(block * c);
        t.sums.resize(block);
        t.shifts.resize(block);
        t.rows.resize(block);
        t.omega.setZero(block);
        t.slope.setZero(block);
        t.curvature.setZero(block);
      }
    }
    ~Lease() {
      std::lock_guard<std::mutex> lock(engine->mutex_);
      engine->free_.push_back(std::move(work));
    }
    EngineBase* engine;
    std::unique_ptr<Work> work;
  };

  void RunBlock(const Request& q, int begin, int rows, int piece, bool first, Thread* t, Work* w) {
    const int c = p_.c, ld = c * (w->with_outputs + w->with_product);
    T* const slopes = w->slopes.data() + static_cast<size_t>(begin) * c;
    double* const losses = w->losses.data() + begin;
    if (ld > 0) Products(begin, rows, t, w, t->outputs.data());
    if (w->with_outputs) Losses(*w, begin, rows, ld, t, slopes, losses);
    EvaluateWeights(q, *w, begin, rows, t);
    if (q.value) {
      double sum = 0.0;
      for (int i = 0; i < rows; ++i) sum += t->omega[i] * losses[i];
      w->values[piece] += sum;
    }
    if (q.w_gradient) {
      for (int i = 0; i < rows; ++i) w->w_gradient[begin + i] = t->slope[i] * losses[i];
    }
    if (w->num_coefficients == 0 && !q.w_product) return;
    const T* const u = t->outputs.data() + c * w->with_outputs;
    const int m = w->num_coefficients;
    for (int i = 0; i < rows; ++i) {
      const T* const r = slopes + i * c;
      T* to = t->coefficients.data() + i * m;
      const T omega = static_cast<T>(t->omega[i]);
      if (q.theta_gradient) {
        for (int k = 0; k < c; ++k) to[k] = omega * r[k];
        to += c;
      }
      if (!q.products()) continue;
      const double along_w = q.w_direction ? q.w_direction[WeightOf(*w, begin + i)] : 0.0;
      if (q.theta_product) {
        if (w->with_product) {
          Curve(p_, w->Term(begin + i), r, u + i * ld, omega, to);
        } else {
          std::fill_n(to, c, T(0));
        }
        const T along = static_cast<T>(t->slope[i] * along_w);
        for (int k = 0; along_w != 0.0 && k < c; ++k) to[k] += along * r[k];
      }
      if (q.w_product) {
        T dot = 0;
        for (int k = 0; w->with_product && k < c; ++k) dot += r[k] * u[i * ld + k];
        w->w_product[begin + i] = t->slope[i] * dot + t->curvature[i] * along_w * losses[i];
      }
    }
    if (m > 0) AddGradients(begin, rows, t->coefficients.data(), piece, first, t, w);
  }

  int WeightOf(const Work& w, int k) const { return p_.WeightOf(w.Term(k)); }

  // to = omega H_i u, with H_i from the slopes.
  static void Curve(const Description& p, int sample, const T* r, const T* u, T omega, T* to) {
    const int c = p.c;
    if (p.loss == LinearModel::kSquared) {
      for (int k = 0; k < c; ++k) to[k] = omega * u[k];
      return;
    }
    const int label = static_cast<int>(p.targets[sample]);
    if (p.loss == LinearModel::kLogistic) {
      const T sigma = r[0] + static_cast<T>(label);
      to[0] = omega * sigma * (T(1) - sigma) * u[0];
      return;
    }
    // The probabilities are r, and r + 1 of the label.
    T mean = u[label];
    for (int k = 0; k < c; ++k) mean += r[k] * u[k];
    for (int k = 0; k < c; ++k) to[k] = omega * r[k] * (u[k] - mean);
    to[label] += omega * (u[label] - mean);
  }

  void Losses(const Work& w, int begin, int rows, int ld, Thread* t, T* slopes, double* losses) {
    const T* const o = t->outputs.data();
    const int c = p_.c;
    if (p_.loss == LinearModel::kSquared) {
      for (int i = 0; i < rows; ++i) {
        const double* const target = &p_.targets[static_cast<size_t>(w.Term(begin + i)) * c];
        double sum = 0.0;
        for (int k = 0; k < c; ++k) {
          const double error = static_cast<double>(o[i * ld + k]) - target[k];
          slopes[i * c + k] = static_cast<T>(error);
          sum += error * error;
        }
        losses[i] = 0.5 * sum;
      }
      return;
    }
    T* const e = t->exponentials.data();
    if (p_.loss == LinearModel::kLogistic) {
      // log(1 + e^u), where u is the output, negated for the label 1.
      for (int i = 0; i < rows; ++i) e[i] = -std::abs(o[i * ld]);
      kernels_.exp(e, rows);
      std::copy_n(e, rows, t->sums.data());
      kernels_.log1p(t->sums.data(), rows);
      for (int i = 0; i < rows; ++i) {
        const T sign = T(1) - T(2) * static_cast<T>(p_.targets[w.Term(begin + i)]);
        const T u = sign * o[i * ld];
        const T positive = static_cast<T>(u > T(0));  // No branch on what is random.
        slopes[i] = sign * std::max(positive, e[i]) / (T(1) + e[i]);
        losses[i] = static_cast<double>(std::max(u, T(0))) + static_cast<double>(t->sums[i]);
      }
      return;
    }
    ArrayMap<T> sums(t->sums.data(), rows);
    for (int i = 0; i < rows; ++i) {
      const T* const from = o + i * ld;
      T largest = from[0];
      for (int k = 1; k < c; ++k) largest = std::max(largest, from[k]);
      for (int k = 0; k < c; ++k) e[i * c + k] = from[k] - largest;
      t->shifts[i] = from[static_cast<int>(p_.targets[w.Term(begin + i)])] - largest;
    }
    kernels_.exp(e, rows * c);
    for (int i = 0; i < rows; ++i) {
      T sum = 0;
      for (int k = 0; k < c; ++k) sum += e[i * c + k];
      sums[i] = sum;
      const T inverse = T(1) / sum;
      T* const to = slopes + i * c;
      for (int k = 0; k < c; ++k) to[k] = e[i * c + k] * inverse;
      to[static_cast<int>(p_.targets[w.Term(begin + i)])] -= T(1);
    }
    sums = sums.log();
    for (int i = 0; i < rows; ++i) {
      losses[i] = static_cast<double>(sums[i]) - static_cast<double>(t->shifts[i]);
    }
  }

  // omega and its derivatives, times scale and the batch's weight.
  void EvaluateWeights(const Request& q, const Work& w, int begin, int rows, Thread* t) const {
    auto omega = t->omega.head(rows);
    auto slope = t->slope.head(rows);
    auto curvature = t->curvature.head(rows);
    if (p_.weights == LinearModel::kNone) {
      omega.setConstant(p_.scale);
    } else {
      for (int i = 0; i < rows; ++i) slope[i] = q.w[WeightOf(w, begin + i)];
      if (p_.weights == LinearModel::kClipped) {
        omega = p_.scale * slope.max(0.0).min(1.0);
        slope = (slope >= 0.0 && slope <= 1.0).template cast<double>() * p_.scale;
        curvature.setZero();
      } else if (p_.weights == LinearModel::kSigmoid) {
        omega = (1.0 + (-slope).exp()).inverse();
        slope = p_.scale * omega * (1.0 - omega);
        curvature = slope * (1.0 - 2.0 * omega);
        omega *= p_.scale;
      } else {
        omega = p_.scale * slope.exp();
        slope = omega;
        curvature = omega;
      }
    }
    if (w.all) return;
    for (int i = 0; i < rows; ++i) {
      const double weight = w.batch_weights[begin + i];
      omega[i] *= weight;
      slope[i] *= weight;
      curvature[i] *= weight;
    }
  }

  void Scatter(const Work& w, const std::vector<double>& from, double* to) const {
    if (!to) return;
    if (w.all || p_.weights_by_class) std::fill_n(to, p_.num_weights, 0.0);
    for (int k = 0; k < w.count; ++k) to[WeightOf(w, k)] += from[k];
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Work>> free_;
};

int BlockOf(size_t row_bytes) {
  const int rows = static_cast<int>(kBlockBytes / std::max<size_t>(row_bytes, 1)) / 4 * 4;
  return std::min(kBlock, std::max(4, rows));
}

template <typename T>
class DenseEngine : public EngineBase<T> {
 public:
  using typename EngineBase<T>::Thread;
  using typename EngineBase<T>::Work;
  DenseEngine(Description p, const Features& features, int num_threads)
      : EngineBase<T>(
            std::move(p),
            num_threads,
            BlockOf(std::get<internal::DenseFeatures<T>>(features.storage().matrix).stride *
                    sizeof(T))),
        features_(features),
        a_(std::get<internal::DenseFeatures<T>>(features_.storage().matrix)) {}

 private:
  // Points w->rows_of_weights to the rows of Theta, then of V, and w->sums to where each piece's
  // sums of coefficients times samples go.
  void Begin(const Request& q, int pieces, Work* w) override {
    // The kernels fetch what comes next, but for the first samples.
    constexpr size_t kFetched = 16 * 1024, kLine = 64;
    for (size_t i = 0, bytes = 0, row = a_.stride * sizeof(T);
         !w->all && i < static_cast<size_t>(w->count) && bytes < kFetched;
         ++i, bytes += row) {
      const char* const at = reinterpret_cast<const char*>(a_.row(w->terms[i]));
      for (size_t k = 0; k < row; k += kLine) __builtin_prefetch(at + k, 0, 2);
    }
    const int c = this->p_.c, m = w->num_coefficients;
    w->weights.Resize(2 * static_cast<size_t>(c) * a_.stride);
    w->gradients.Resize(static_cast<size_t>(pieces) * m * a_.stride);
    this->Grow(&w->rows_of_weights, 2 * c);
    this->Grow(&w->sums, static_cast<size_t>(pieces) * m);
    if (w->with_outputs) LoadRows(q.theta, 0, w);
    if (w->with_product) LoadRows(q.theta_direction, w->with_outputs ? c : 0, w);
    for (int k = 0; k < pieces * m; ++k) {
      w->sums[k] = w->gradients.data() + static_cast<size_t>(k) * a_.stride;
    }
    if constexpr (kIsDouble) {
      if (!InPlace() || pieces == 0) return;
      ForEachOutput(q, [&](int k, double* out) { w->sums[k] = out; });
    }
  }
  // Whether a row of weights is as the kernels want it: it is then read where it stands, and the
  // first piece's sums are made where they are wanted.
  bool InPlace() const { return kIsDouble && a_.stride == this->p_.d; }
  void LoadRows(const double* from, int first, Work* w) const {
    for (int k = first; k < first + this->p_.c; ++k, from += this->p_.d) {
      if constexpr (kIsDouble) w->rows_of_weights[k] = from;
      if (InPlace()) continue;
      T* const to = w->weights.data() + static_cast<size_t>(k) * a_.stride;
      this->kernels_.load(from, this->p_.d, to);
      w->rows_of_weights[k] = to;
    }
  }
  template <typename Body>
  void ForEachOutput(const Request& q, Body body) const {
    int k = 0;
    for (double* out : {q.theta_gradient, q.theta_product}) {
      if (!out) continue;
      for (int last = k + this->p_.c; k < last; ++k, out += this->p_.d) body(k, out);
    }
  }
  const T* const* Rows(const Work& w, int begin, int rows, Thread* t) const {
    for (int i = 0; i < rows; ++i) t->rows[i] = a_.row(w.Term(begin + i));
    return t->rows.data();
  }
  void Products(int begin, int rows, Thread* t, Work* w, T* out) override {
    const int c = this->p_.c;
    this->kernels_.outputs(Rows(*w, begin, rows, t),
                           rows,
                           w->rows_of_weights.data(),
                           c * (w->with_outputs + w->with_product),
                           a_.stride,
                           out);
  }
  void AddGradients(int begin,
                    int rows,
                    const T* coefficients,
                    int piece,
                    bool first,
                    Thread* t,
                    Work* w) override {
    this->kernels_.gradient(Rows(*w, begin, rows, t),
                            rows,
                            coefficients,
                            w->num_coefficients,
                            a_.stride,
                            !first,
                            w->sums.data() + piece * w->num_coefficients);
  }
  void End(const Request& q, int pieces, Work* w) override {
    ForEachOutput(q, [&](int k, double* out) {
      for (int i = InPlace(); i < pieces; ++i) {
        const T* const from = w->sums[i * w->num_coefficients + k];
        if (i == 0) {
          this->kernels_.store(from, this->p_.d, out);
        } else {
          for (int j = 0; j < this->p_.d; ++j) out[j] += from[j];
        }
      }
    });
  }

  static constexpr bool kIsDouble = std::is_same_v<T, double>;
  const Features features_;  // Keeps the memory.
  const internal::DenseFeatures<T>& a_;
};

// Over all samples with Theta by features, transposed, so that a feature's weights are neighbours,
// and gradients feature by feature; over a minibatch with Theta as it is, touching what it needs.
template <typename T>
class SparseEngine : public EngineBase<T> {
 public:
  using typename EngineBase<T>::Thread;
  using typename EngineBase<T>::Work;
  SparseEngine(Description p, const Features& features, int num_threads)
      : EngineBase<T>(std::move(p), num_threads, kBlock),
        features_(features),
        a_(std::get<internal::SparseFeatures<T>>(features_.storage().matrix)) {}

 private:
  static constexpr int kColumns = 1024;  // Features, for a thread.

  template <typename Body>
  void ForEachColumns(Body body) {
    const int d = this->p_.d, pieces = (d + kColumns - 1) / kColumns;
    const auto run = [&](int, int i) { body(i * kColumns, std::min(d, (i + 1) * kColumns)); };
    this->pool_.ParallelFor(pieces, 1, std::cref(run));
  }

  void Begin(const Request& q, int /*pieces*/, Work* w) override {
    w->theta_given = q.theta;
    w->direction_given = q.theta_direction;
    w->coefficients.Resize(static_cast<size_t>(w->count) * w->num_coefficients);
    const int c = this->p_.c, d = this->p_.d, m = c * (w->with_outputs + w->with_product);
    if (!w->all) {
      for (double* out : {q.theta_gradient, q.theta_product}) {
        if (out) std::fill_n(out, static_cast<size_t>(c) * d, 0.0);
      }
      return;
    }
    w->weights.Resize(static_cast<size_t>(m) * d);
    T* const to = w->weights.data();
    ForEachColumns([&](int begin, int end) {
      int k = 0;
      for (const double* from :
           {w->with_outputs ? q.theta : nullptr, w->with_product ? q.theta_direction : nullptr}) {
        if (!from) continue;
        for (int last = k + c; k < last; ++k, from += d) {
          for (int j = begin; j < end; ++j) {
            to[static_cast<size_t>(j) * m + k] = static_cast<T>(from[j]);
          }
        }
      }
    });
  }

  void Products(int begin, int rows, Thread* /*t*/, Work* w, T* out) override {
    const int c = this->p_.c, m = c * (w->with_outputs + w->with_product);
    const int* const starts = a_.by_row.outerIndexPtr();
    const int* const columns = a_.by_row.innerIndexPtr();
    const T* const values = a_.by_row.valuePtr();
    for (int i = 0; i < rows; ++i, out += m) {
      const int row = w->Term(begin + i);
      if (w->all) {
        std::fill_n(out, m, T(0));
        for (int at = starts[row]; at < starts[row + 1]; ++at) {
          const T* const from = w->weights.data() + static_cast<size_t>(columns[at]) * m;
          const T value = values[at];
          for (int k = 0; k < m; ++k) out[k] += value * from[k];
        }
        continue;
      }
      for (int k = 0; k < m; ++k) {
        const double* const from =
            (w->with_outputs && k < c ? w->theta_given : w->direction_given) +
            static_cast<size_t>(k % c) * this->p_.d;
        T sum = 0;
        for (int at = starts[row]; at < starts[row + 1]; ++at) {
          sum += values[at] * static_cast<T>(from[columns[at]]);
        }
        out[k] = sum;
      }
    }
  }

  void AddGradients(int begin,
                    int rows,
                    const T* coefficients,
                    int /*piece*/,
                    bool /*first*/,
                    Thread* /*t*/,
                    Work* w) override {
    const int m = w->num_coefficients;
    std::copy_n(coefficients,
                static_cast<size_t>(rows) * m,
                w->coefficients.data() + static_cast<size_t>(begin) * m);
  }

  void End(const Request& q, int /*pieces*/, Work* w) override {
    const int c = this->p_.c, d = this->p_.d, m = w->num_coefficients;
    if (m == 0) return;
    double* const outs[] = {q.theta_gradient ? q.theta_gradient : q.theta_product, q.theta_product};
    const auto to = [&](int k) { return outs[k / c] + static_cast<size_t>(k % c) * d; };
    if (!w->all) {
      const int* const starts = a_.by_row.outerIndexPtr();
      const int* const columns = a_.by_row.innerIndexPtr();
      const T* const values = a_.by_row.valuePtr();
      for (int i = 0; i < w->count; ++i) {
        const T* const coefficients = w->coefficients.data() + static_cast<size_t>(i) * m;
        const int row = w->terms[i];
        for (int k = 0; k < m; ++k) {
          double* const out = to(k);
          for (int at = starts[row]; at < starts[row + 1]; ++at) {
            out[columns[at]] += static_cast<double>(values[at]) * coefficients[k];
          }
        }
      }
      return;
    }
    ForEachColumns([&](int begin, int end) {
      const int* const starts = a_.by_column.outerIndexPtr();
      const int* const samples = a_.by_column.innerIndexPtr();
      const T* const values = a_.by_column.valuePtr();
      constexpr int kTile = 20;
      for (int first = 0; first < m; first += kTile) {
        const int size = std::min(kTile, m - first);
        for (int j = begin; j < end; ++j) {
          T sum[kTile] = {};
          for (int at = starts[j]; at < starts[j + 1]; ++at) {
            const T* const from =
                w->coefficients.data() + static_cast<size_t>(samples[at]) * m + first;
            const T value = values[at];
            for (int k = 0; k < size; ++k) sum[k] += value * from[k];
          }
          for (int k = 0; k < size; ++k) to(first + k)[j] = sum[k];
        }
      }
    });
  }

  const Features features_;
  const internal::SparseFeatures<T>& a_;
};

template <typename T>
std::unique_ptr<LinearModel::Engine> MakeEngine(Description p, const Features& a, int threads) {
  if (std::holds_alternative<internal::DenseFeatures<T>>(a.storage().matrix)) {
    return std::make_unique<DenseEngine<T>>(std::move(p), a, threads);
  }
  return std::make_unique<SparseEngine<T>>(std::move(p), a, threads);
}

}  // namespace

std::unique_ptr<LinearModel::Engine> LinearModel::Engine::Make(Description description,
                                                               const Features& features,
                                                               int num_threads) {
  const auto& matrix = features.storage().matrix;
  const bool is_float = std::holds_alternative<internal::DenseFeatures<float>>(matrix) ||
                        std::holds_alternative<internal::SparseFeatures<float>>(matrix);
  return is_float ? MakeEngine<float>(std::move(description), features, num_threads)
                  : MakeEngine<double>(std::move(description), features, num_threads);
}

}  // namespace bilevel
