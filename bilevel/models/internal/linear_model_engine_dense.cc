#include <algorithm>
#include <type_traits>
#include <utility>
#include <variant>

#include "bilevel/models/internal/linear_model_engine_base.h"

namespace bilevel {
namespace internal {
namespace {

// Of samples that stay in the cache between the product with Theta and the one for the gradient.
constexpr int kBlockBytes = 256 * 1024;

template <typename T>
class DenseEngine : public EngineBase<T> {
 public:
  using typename EngineBase<T>::Description;
  using typename EngineBase<T>::Request;
  using typename EngineBase<T>::Thread;
  using typename EngineBase<T>::Work;
  DenseEngine(Description p, const Features& features, int num_threads)
      : EngineBase<T>(std::move(p), num_threads, BlockOf(features)),
        features_(features),
        a_(std::get<DenseFeatures<T>>(features_.storage().matrix)) {}

 private:
  static int BlockOf(const Features& features) {
    const size_t row = std::get<DenseFeatures<T>>(features.storage().matrix).stride * sizeof(T);
    const int rows = static_cast<int>(kBlockBytes / std::max<size_t>(row, 1)) / 4 * 4;
    return std::min(EngineBase<T>::kBlock, std::max(4, rows));
  }

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
    for (int i = 0; i < rows; ++i) t->rows[i] = a_.row(w.terms[begin + i]);
    return t->rows.data();
  }
  void Products(const Request& /*q*/, int begin, int rows, Thread* t, Work* w, T* out) override {
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
  const DenseFeatures<T>& a_;
};

}  // namespace

template <typename T>
std::unique_ptr<LinearModel::Engine> MakeDenseEngine(LinearModel::Description description,
                                                     const Features& features,
                                                     int num_threads) {
  return std::make_unique<DenseEngine<T>>(std::move(description), features, num_threads);
}

template std::unique_ptr<LinearModel::Engine> MakeDenseEngine<float>(LinearModel::Description,
                                                                     const Features&,
                                                                     int);
template std::unique_ptr<LinearModel::Engine> MakeDenseEngine<double>(LinearModel::Description,
                                                                      const Features&,
                                                                      int);

}  // namespace internal
}  // namespace bilevel
