#ifndef BILEVEL_MODELS_INTERNAL_LINEAR_MODEL_ENGINE_BASE_H_
#define BILEVEL_MODELS_INTERNAL_LINEAR_MODEL_ENGINE_BASE_H_

#include <memory>
#include <mutex>
#include <vector>

#include "bilevel/base/thread_pool.h"
#include "bilevel/models/internal/feature_storage.h"
#include "bilevel/models/internal/linear_model_engine.h"
#include "bilevel/models/internal/linear_model_losses.h"

namespace bilevel {
namespace internal {

// All but the products with the features: o = Theta a and u = V a for a block of samples give the
// slopes r = d loss / d o, and the coefficients of a_i in gradient and product,
//     s_i r_i    and    s_i H_i u_i + (s_i)' dw_i r_i,    s_i = scale * omega(w_i) * the batch's.
template <typename T>
class EngineBase : public LinearModel::Engine {
 public:
  using Request = LinearModel::Request;
  using Description = LinearModel::Description;

  // Samples that stay in the cache between the product with Theta and the one for the gradient.
  static constexpr int kBlock = 64;

  EngineBase(Description description, int num_threads, int block);
  void Run(const Batch& batch, const Request& request) final;
  void Outputs(const double* theta, double* outputs) final;
  double Accuracy(const double* theta) final;

 protected:
  struct Thread {
    explicit Thread(const Description* description, int block) : losses(description, block) {}
    LinearModelLosses<T> losses;
    std::vector<T> outputs, coefficients;
    std::vector<const T*> rows;
  };
  // One evaluation's memory.
  struct Work {
    bool all = true, known = false, has_slopes = false, with_outputs = false, with_product = false;
    int count = 0, num_coefficients = 0;
    std::vector<double> theta;  // Where slopes and losses are known.
    std::vector<T> slopes;
    std::vector<double> losses, values, w_gradient, w_product, batch_weights;
    std::vector<int> terms;  // The samples.
    std::vector<Thread> threads;
    AlignedArray<T> weights, directions, gradients, coefficients;
    std::vector<const T*> rows_of_weights;
    std::vector<T*> sums;
  };
  template <typename V>
  static void Grow(V* v, size_t size) {
    if (v->size() < size) v->resize(size);
  }

  // Keeps Theta, of a batch of all samples; whether it is what was kept.
  virtual bool KeepTheta(const double* theta, Work* w);
  // V, and Theta of a minibatch, in the engine's layout; memory for the gradients.
  virtual void Begin(const Request& q, int pieces, Work* w) = 0;
  // Writes the wanted ones of o and u, side by side, sample by sample. What is behind them may be
  // overwritten, up to a register.
  virtual void Products(const Request& q, int begin, int rows, Thread* t, Work* w, T* out) = 0;
  // The coefficients of a block, num_coefficients a sample; whether it is the piece's first.
  virtual void AddGradients(
      int begin, int rows, const T* coefficients, int piece, bool first, Thread*, Work*) = 0;
  virtual void End(const Request& q, int pieces, Work* w) = 0;

  const Description p_;
  const int block_;
  const ModelKernels<T>& kernels_;
  ThreadPool pool_;

 private:
  class Lease;
  void Evaluate(const Request& q, int begin, int rows, int piece, bool first, Thread*, Work*);
  void SetSamples(const Batch& batch, Work* w) const;
  void Scatter(const Work& w, const std::vector<double>& from, double* to) const;

  std::mutex mutex_;
  std::vector<std::unique_ptr<Work>> free_;
};

}  // namespace internal
}  // namespace bilevel

#endif  // BILEVEL_MODELS_INTERNAL_LINEAR_MODEL_ENGINE_BASE_H_
