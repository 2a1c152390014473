#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>
#include <variant>
#include <vector>

#include "bilevel/models/internal/linear_model_engine_base.h"

namespace bilevel {
namespace internal {
namespace {

// Features that are turned over at once: a tile of Theta that stays in the innermost cache.
constexpr int kTile = 64;
// Features are shared among threads in so many pieces of about equal work.
constexpr int kPieces = 64;
// Each costs as much as so many entries, besides its own.
constexpr int kCostOfFeature = 8;
// Fewer outputs are not worth a register a feature.
constexpr int kFew = 3;

// Over all samples with Theta by features, in whole registers: products with X and with its
// transpose are then sums of rows, over a sample's features and over a feature's samples. Over a
// minibatch, and where outputs are few, with Theta as it is, touching what is needed.
template <typename T>
class SparseEngine : public EngineBase<T> {
 public:
  using typename EngineBase<T>::Description;
  using typename EngineBase<T>::Request;
  using typename EngineBase<T>::Thread;
  using typename EngineBase<T>::Work;
  SparseEngine(Description p, const Features& features, int num_threads)
      : EngineBase<T>(std::move(p), num_threads, EngineBase<T>::kBlock),
        features_(features),
        a_(std::get<SparseFeatures<T>>(features_.storage().matrix)) {
    constexpr int kLanes = kSparseRowBytes / static_cast<int>(sizeof(T));
    width_ = (this->p_.c + kLanes - 1) / kLanes * kLanes;
    const int* const starts = a_.by_column.outerIndexPtr();
    const auto cost = [&](int j) {
      return static_cast<int64_t>(starts[j]) + static_cast<int64_t>(j) * kCostOfFeature;
    };
    pieces_ = {0};
    for (int j = 1; j <= this->p_.d; ++j) {
      if (j == this->p_.d || cost(j) - cost(pieces_.back()) > cost(this->p_.d) / kPieces) {
        pieces_.push_back(j);
      }
    }
  }

 private:
  bool ByFeature(const Work& w) const { return w.all && this->p_.c >= kFew; }

  // body(begin, end): the features of one tile after the other, in parallel.
  template <typename Body>
  void ForEachTile(Body body) {
    const auto run = [&](int, int i) {
      for (int j = pieces_[i]; j < pieces_[i + 1]; j += kTile) {
        body(j, std::min(pieces_[i + 1], j + kTile));
      }
    };
    this->pool_.ParallelFor(static_cast<int>(pieces_.size()) - 1, 1, std::cref(run));
  }

  // Theta or V by features; whether that is what was there.
  bool Turn(const double* from, AlignedArray<T>* array) {
    const int c = this->p_.c, d = this->p_.d;
    array->Resize(static_cast<size_t>(width_) * d);
    std::atomic<bool> same{true};
    ForEachTile([&](int begin, int end) {
      T* const to = array->data() + static_cast<size_t>(begin) * width_;
      bool same_tile = true;
      for (int k = 0; k < c; ++k) {
        const double* const row = from + static_cast<size_t>(k) * d + begin;
        for (int j = 0; j < end - begin; ++j) {
          const T value = static_cast<T>(row[j]);
          same_tile &= to[j * width_ + k] == value;
          to[j * width_ + k] = value;
        }
      }
      if (!same_tile) same = false;
    });
    return same;
  }

  bool KeepTheta(const double* theta, Work* w) override {
    return ByFeature(*w) ? Turn(theta, &w->weights) : EngineBase<T>::KeepTheta(theta, w);
  }

  void Begin(const Request& q, int /*pieces*/, Work* w) override {
    const int parts = w->num_coefficients / this->p_.c;
    if (ByFeature(*w)) {
      if (w->with_product) Turn(q.theta_direction, &w->directions);
      w->coefficients.Resize(static_cast<size_t>(w->count) * parts * width_);
      return;
    }
    w->coefficients.Resize(static_cast<size_t>(w->count) * w->num_coefficients);
    if (w->all) return;
    for (double* out : {q.theta_gradient, q.theta_product}) {
      if (out) std::fill_n(out, static_cast<size_t>(this->p_.c) * this->p_.d, 0.0);
    }
  }

  void Products(const Request& q, int begin, int rows, Thread* /*t*/, Work* w, T* out) override {
    const int c = this->p_.c, d = this->p_.d;
    const int* const starts = a_.by_row.outerIndexPtr();
    for (int i = 0; i < rows; ++i) {
      const int start = starts[w->terms[begin + i]];
      const int count = starts[w->terms[begin + i] + 1] - start;
      const int* const columns = a_.by_row.innerIndexPtr() + start;
      const T* const values = a_.by_row.valuePtr() + start;
      const auto multiply = [&](const double* theta, const AlignedArray<T>& by_feature) {
        if (ByFeature(*w)) {
          this->kernels_.sum_of_rows(
              values, columns, count, by_feature.data(), width_, width_, out);
        }
        for (int k = 0; k < c && !ByFeature(*w); ++k, theta += d) {
          T sum = 0;
          for (int at = 0; at < count; ++at) {
            sum += values[at] * static_cast<T>(theta[columns[at]]);
          }
          out[k] = sum;
        }
        out += c;
      };
      if (w->with_outputs) multiply(q.theta, w->weights);
      if (w->with_product) multiply(q.theta_direction, w->directions);
    }
  }

  void AddGradients(int begin,
                    int rows,
                    const T* coefficients,
                    int /*piece*/,
                    bool /*first*/,
                    Thread* /*t*/,
                    Work* w) override {
    const int c = this->p_.c, width = ByFeature(*w) ? width_ : c;
    const int parts = w->num_coefficients / c;
    T* to = w->coefficients.data() + static_cast<size_t>(begin) * parts * width;
    for (int i = 0; i < rows * parts; ++i, to += width, coefficients += c) {
      std::copy_n(coefficients, c, to);
    }
  }

  void End(const Request& q, int /*pieces*/, Work* w) override {
    double* outs[2];
    int parts = 0;
    for (double* out : {q.theta_gradient, q.theta_product}) {
      if (out) outs[parts++] = out;
    }
    if (parts == 0) return;
    if (!w->all) return AddSamples(outs, parts, *w);
    ForEachTile([&](int begin, int end) {
      for (int part = 0; part < parts; ++part) {
        if (ByFeature(*w)) {
          SumSamples(*w, begin, end, part, parts, outs[part]);
        } else {
          SumSamplesOfFew(*w, begin, end, part, parts, outs[part]);
        }
      }
    });
  }

  // The derivative by all weights of some features, from the samples that have them.
  void SumSamples(const Work& w, int begin, int end, int part, int parts, double* out) const {
    constexpr int kOutputs = 64;
    alignas(kSimdBytes) T tile[kTile * kOutputs];
    const int c = this->p_.c, d = this->p_.d;
    const int* const starts = a_.by_column.outerIndexPtr();
    for (int first = 0; first < width_; first += kOutputs) {
      const int width = std::min(kOutputs, width_ - first);
      const T* const rows = w.coefficients.data() + part * width_ + first;
      for (int j = begin; j < end; ++j) {
        this->kernels_.sum_of_rows(a_.by_column.valuePtr() + starts[j],
                                   a_.by_column.innerIndexPtr() + starts[j],
                                   starts[j + 1] - starts[j],
                                   rows,
                                   parts * width_,
                                   width,
                                   tile + (j - begin) * width);
      }
      for (int k = 0; k < std::min(width, c - first); ++k) {
        double* const to = out + static_cast<size_t>(first + k) * d + begin;
        for (int j = 0; j < end - begin; ++j) to[j] = static_cast<double>(tile[j * width + k]);
      }
    }
  }

  void SumSamplesOfFew(const Work& w, int begin, int end, int part, int parts, double* out) const {
    const int c = this->p_.c, d = this->p_.d;
    const int* const starts = a_.by_column.outerIndexPtr();
    const int* const samples = a_.by_column.innerIndexPtr();
    const T* const values = a_.by_column.valuePtr();
    for (int j = begin; j < end; ++j) {
      for (int k = 0; k < c; ++k) {
        const T* const from = w.coefficients.data() + part * c + k;
        T sum = 0;
        for (int at = starts[j]; at < starts[j + 1]; ++at) {
          sum += values[at] * from[static_cast<size_t>(samples[at]) * parts * c];
        }
        out[static_cast<size_t>(k) * d + j] = sum;
      }
    }
  }

  // Of a minibatch.
  void AddSamples(double* const* outs, int parts, const Work& w) const {
    const int c = this->p_.c, d = this->p_.d;
    const int* const starts = a_.by_row.outerIndexPtr();
    const int* const columns = a_.by_row.innerIndexPtr();
    const T* const values = a_.by_row.valuePtr();
    const T* coefficients = w.coefficients.data();
    for (int i = 0; i < w.count; ++i) {
      const int row = w.terms[i];
      for (int part = 0; part < parts; ++part) {
        for (int k = 0; k < c; ++k, ++coefficients) {
          double* const out = outs[part] + static_cast<size_t>(k) * d;
          for (int at = starts[row]; at < starts[row + 1]; ++at) {
            out[columns[at]] += static_cast<double>(values[at]) * *coefficients;
          }
        }
      }
    }
  }

  const Features features_;  // Keeps the memory.
  const SparseFeatures<T>& a_;
  int width_;                // Of a feature's weights, in whole registers.
  std::vector<int> pieces_;  // Where they begin, and the end.
};

}  // namespace

template <typename T>
std::unique_ptr<LinearModel::Engine> MakeSparseEngine(LinearModel::Description description,
                                                      const Features& features,
                                                      int num_threads) {
  return std::make_unique<SparseEngine<T>>(std::move(description), features, num_threads);
}

template std::unique_ptr<LinearModel::Engine> MakeSparseEngine<float>(LinearModel::Description,
                                                                      const Features&,
                                                                      int);
template std::unique_ptr<LinearModel::Engine> MakeSparseEngine<double>(LinearModel::Description,
                                                                       const Features&,
                                                                       int);

}  // namespace internal
}  // namespace bilevel
