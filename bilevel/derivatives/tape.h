#ifndef BILEVEL_DERIVATIVES_TAPE_H_
#define BILEVEL_DERIVATIVES_TAPE_H_

#include <vector>

#include "Eigen/Core"
#include "bilevel/derivatives/tape_scalar.h"

namespace bilevel {
namespace internal {

// One elementary operation f(a) or f(a, b): its arguments' nodes and the derivatives by them. Only
// those that its kind has are set.
struct TapeNode {
  enum Kind : int { kUnary, kSum, kProduct, kBinary };
  int a, b;
  Kind kind;
  int live;  // Set by the sweep: a residual with nonzero weight depends on the node.
  double fa, fb, faa, fab, fbb;
};

// The elementary operations of one call of a functor, in their order, after one node for each
// argument. A thread keeps its tapes and their memory.
class Tape {
 public:
  // The tape that this thread records on; null outside recordings.
  static Tape*& Current() { return current_; }

  TapeNode* Add(TapeNode::Kind kind, int a, int b) {
    if (next_ == end_) Grow();
    next_->a = a;
    next_->b = b;
    next_->kind = kind;
    next_->live = 0;
    return next_++;
  }

  TapeScalar Scalar(double value, const TapeNode* node) const {
    TapeScalar x;
    x.value = value;
    x.factor = 1.0;
    x.node = static_cast<int>(node - nodes_.data());
    return x;
  }

 private:
  friend class Recording;

  template <int kWidth>
  using Lanes = Eigen::Array<double, kWidth, 1>;

  int num_arguments() const { return static_cast<int>(arguments_.size()); }
  int num_nodes() const { return static_cast<int>(next_ - nodes_.data()); }
  void Grow();
  // What the residuals go into: sum_k weights[k] * residual k, or a loss of them all.
  struct Outer {
    const double* weights;              // Its derivatives by the residuals.
    const double* residuals = nullptr;  // Their values; null: no loss.
    double rho1 = 0.0, rho2 = 0.0;
  };

  void Backpropagate(const double* weights);
  template <int kWidth>
  Lanes<kWidth>* PrepareLanes();
  template <int kWidth>
  void Sweep(const Outer& outer, Lanes<kWidth>* lanes);
  template <int kWidth>
  void Products(const Outer& outer,
                const double* directions,
                int num_directions,
                int first,
                double* products,
                double* along);
  void AllProducts(const Outer& outer,
                   const double* directions,
                   int num_directions,
                   double* products,
                   double* along);

  // One for all shared libraries; unlike thread_local, without a call to look for an initialiser.
  static __thread Tape* current_;

  std::vector<TapeNode> nodes_;
  TapeNode* next_ = nullptr;
  TapeNode* end_ = nullptr;
  std::vector<TapeJet> arguments_, residuals_;
  std::vector<const TapeJet*> blocks_;
  std::vector<double> adjoints_, values_, weights_, identity_;
  struct alignas(64) Lane8 {
    double value[8];
  };
  std::vector<Lane8> lanes_;
};

// Second derivatives of a functor by reverse mode: call it with blocks() and residuals(), then ask
// for Hessians. Recordings of one thread may nest, and end in any way.
class Recording {
 public:
  Recording(double const* const* parameters, const std::vector<int>& sizes, int num_residuals)
      : tape_(Acquire(parameters, sizes, num_residuals)), outer_(Tape::Current()) {
    Tape::Current() = tape_;
  }
  ~Recording() {
    Tape::Current() = outer_;
    Release();
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  const TapeJet* const* blocks() const { return tape_->blocks_.data(); }
  TapeJet* residuals() { return tape_->residuals_.data(); }

  void Values(double* values) const;
  // The gradient of sum_k weights[k] * residual k.
  void Gradient(const double* weights, double* gradient);
  // Its n x n Hessian.
  void Hessian(const double* weights, double* hessian);
  // The same times `direction`; n values both.
  void HessianProduct(const double* weights, const double* direction, double* product);
  // The Hessian H of rho(|r|^2) / 2, Gauss-Newton's part and the loss's curvature included, times
  // directions: n x num_directions, row-major, as are the products. `along` takes the residuals'
  // own derivatives along the directions, num_residuals x num_directions, and `gradient` J'r; they
  // may be null. rho: a loss's value and derivatives at |r|^2.
  void LossHessianProducts(const double* rho,
                           const double* directions,
                           int num_directions,
                           double* products,
                           double* along,
                           double* gradient);

 private:
  static Tape* Acquire(double const* const* parameters,
                       const std::vector<int>& sizes,
                       int num_residuals);
  static void Release();

  Tape* tape_;
  Tape* outer_;
};

}  // namespace internal

inline TapeScalar TapeScalar::Chain(const TapeScalar& x, double f, double fx, double fxx) {
  if (x.node < 0) return f;
  internal::Tape* tape = internal::Tape::Current();
  internal::TapeNode* node = tape->Add(internal::TapeNode::kUnary, x.node, x.node);
  node->fa = fx * x.factor;
  node->faa = fxx * x.factor * x.factor;
  return tape->Scalar(f, node);
}

inline TapeScalar TapeScalar::Chain(const TapeScalar& x,
                                    const TapeScalar& y,
                                    double f,
                                    double fx,
                                    double fy,
                                    double fxx,
                                    double fxy,
                                    double fyy) {
  if (y.node < 0) return Chain(x, f, fx, fxx);
  if (x.node < 0) return Chain(y, f, fy, fyy);
  internal::Tape* tape = internal::Tape::Current();
  internal::TapeNode* node = tape->Add(internal::TapeNode::kBinary, x.node, y.node);
  node->fa = fx * x.factor;
  node->fb = fy * y.factor;
  node->faa = fxx * x.factor * x.factor;
  node->fab = fxy * x.factor * y.factor;
  node->fbb = fyy * y.factor * y.factor;
  return tape->Scalar(f, node);
}

inline TapeScalar TapeScalar::Sum(const TapeScalar& x, const TapeScalar& y) {
  if (x.node < 0) return x.value + y;
  if (y.node < 0) return x + y.value;
  internal::Tape* tape = internal::Tape::Current();
  internal::TapeNode* node = tape->Add(internal::TapeNode::kSum, x.node, y.node);
  node->fa = x.factor;
  node->fb = y.factor;
  return tape->Scalar(x.value + y.value, node);
}

inline TapeScalar TapeScalar::Product(const TapeScalar& x, const TapeScalar& y) {
  if (x.node < 0) return x.value * y;
  if (y.node < 0) return x * y.value;
  internal::Tape* tape = internal::Tape::Current();
  internal::TapeNode* node = tape->Add(internal::TapeNode::kProduct, x.node, y.node);
  node->fa = y.value * x.factor;
  node->fb = x.value * y.factor;
  node->fab = x.factor * y.factor;
  return tape->Scalar(x.value * y.value, node);
}

}  // namespace bilevel

#endif  // BILEVEL_DERIVATIVES_TAPE_H_
