#include "bilevel/derivatives/tape.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <vector>

#include "Eigen/Core"

namespace bilevel {
namespace internal {
namespace {

// Tapes of one thread, one for each level of nested recordings.
struct TapeStack {
  std::vector<std::unique_ptr<Tape>> tapes;
  std::size_t depth = 0;
};

TapeStack& ThreadTapes() {
  static thread_local TapeStack stack;
  return stack;
}

}  // namespace

__thread Tape* Tape::current_ = nullptr;

void Tape::Grow() {
  const std::ptrdiff_t size = next_ - nodes_.data();
  nodes_.resize(std::max<std::size_t>(256, 2 * nodes_.size()));
  next_ = nodes_.data() + size;
  end_ = nodes_.data() + nodes_.size();
}

// Forward over reverse, kWidth directions at once. Node c has the adjoint w, the tangent
// lanes[2 * c], which holds the derivatives of its value along the directions, and
// lanes[2 * c + 1], those of its adjoint. Tangents go up the tape, c' = fa a' + fb b', from those
// of the arguments; adjoints come down from the residuals,
//   a_adj += fa w,  a_adj' += fa c_adj' + w (faa a' + fab b'),
//   b_adj += fb w,  b_adj' += fb c_adj' + w (fab a' + fbb b').
template <int kWidth>
void Tape::Sweep(const Outer& outer, Lanes<kWidth>* lanes) {
  TapeNode* nodes = nodes_.data();
  const int num_nodes = this->num_nodes();
  const int num_arguments = this->num_arguments();
  adjoints_.assign(num_nodes, 0.0);
  double* adjoints = adjoints_.data();

  for (int c = 0; c < num_arguments; ++c) lanes[2 * c + 1].setZero();
  for (int c = num_arguments; c < num_nodes; ++c) {
    TapeNode& node = nodes[c];
    node.live = 0;
    if (node.kind == TapeNode::kUnary) {
      lanes[2 * c] = node.fa * lanes[2 * node.a];
    } else {
      lanes[2 * c] = node.fa * lanes[2 * node.a] + node.fb * lanes[2 * node.b];
    }
    lanes[2 * c + 1].setZero();
  }

  const bool loss = outer.residuals;
  Lanes<kWidth> along = Lanes<kWidth>::Zero();  // r'J times the directions.
  for (std::size_t k = 0; k < residuals_.size(); ++k) {
    const TapeScalar& residual = residuals_[k].a;
    if (residual.node < 0 || (outer.weights[k] == 0.0 && !loss)) continue;
    nodes[residual.node].live = 1;
    adjoints[residual.node] += outer.weights[k] * residual.factor;
    if (loss) along += (outer.residuals[k] * residual.factor) * lanes[2 * residual.node];
  }
  for (std::size_t k = 0; loss && k < residuals_.size(); ++k) {
    const TapeScalar& residual = residuals_[k].a;
    if (residual.node < 0) continue;
    // The loss's gradient rho' r changes by rho' Jv + 2 rho'' r (r'Jv).
    lanes[2 * residual.node + 1] +=
        (outer.rho1 * residual.factor * residual.factor) * lanes[2 * residual.node] +
        (2.0 * outer.rho2 * outer.residuals[k] * residual.factor) * along;
  }

  for (int c = num_nodes - 1; c >= num_arguments; --c) {
    const TapeNode& node = nodes[c];
    if (!node.live) continue;
    const double w = adjoints[c];
    // Where only a residual of zero hangs on the node, an infinite second derivative is no matter.
    const auto times_w = [w](double second) { return w == 0.0 ? 0.0 : w * second; };
    const auto& adjoint = lanes[2 * c + 1];
    const auto& a = lanes[2 * node.a];
    auto& a_adjoint = lanes[2 * node.a + 1];
    nodes[node.a].live = 1;
    adjoints[node.a] += node.fa * w;
    if (node.kind == TapeNode::kUnary) {
      a_adjoint += node.fa * adjoint + times_w(node.faa) * a;
      continue;
    }
    const auto& b = lanes[2 * node.b];
    auto& b_adjoint = lanes[2 * node.b + 1];
    nodes[node.b].live = 1;
    adjoints[node.b] += node.fb * w;
    if (node.kind == TapeNode::kSum) {
      a_adjoint += node.fa * adjoint;
      b_adjoint += node.fb * adjoint;
    } else if (node.kind == TapeNode::kProduct) {
      const double fab = times_w(node.fab);
      a_adjoint += node.fa * adjoint + fab * b;
      b_adjoint += node.fb * adjoint + fab * a;
    } else {
      const double fab = times_w(node.fab);
      a_adjoint += node.fa * adjoint + times_w(node.faa) * a + fab * b;
      b_adjoint += node.fb * adjoint + fab * a + times_w(node.fbb) * b;
    }
  }
}

// Adjoints alone.
void Tape::Backpropagate(const double* weights) {
  const TapeNode* nodes = nodes_.data();
  adjoints_.assign(num_nodes(), 0.0);
  double* adjoints = adjoints_.data();
  for (std::size_t k = 0; k < residuals_.size(); ++k) {
    const TapeScalar& residual = residuals_[k].a;
    if (residual.node >= 0) adjoints[residual.node] += weights[k] * residual.factor;
  }
  for (int c = num_nodes() - 1; c >= num_arguments(); --c) {
    const double w = adjoints[c];
    if (w == 0.0) continue;  // Not for speed: 0 * inf is no derivative.
    adjoints[nodes[c].a] += nodes[c].fa * w;
    if (nodes[c].kind != TapeNode::kUnary) adjoints[nodes[c].b] += nodes[c].fb * w;
  }
}

template <int kWidth>
Tape::Lanes<kWidth>* Tape::PrepareLanes() {
  const std::size_t size = (2 * kWidth * num_nodes() + 7) / 8;
  lanes_.resize(std::max(lanes_.size(), size));
  return reinterpret_cast<Lanes<kWidth>*>(lanes_.data());
}

// kWidth of the directions, from `first` on.
template <int kWidth>
void Tape::Products(const Outer& outer,
                    const double* directions,
                    int num_directions,
                    int first,
                    double* products,
                    double* along) {
  const int n = num_arguments(), count = std::min(kWidth, num_directions - first);
  auto* lanes = PrepareLanes<kWidth>();
  for (int i = 0; i < n; ++i) {
    lanes[2 * i].setZero();
    std::copy_n(directions + i * num_directions + first, count, lanes[2 * i].data());
  }
  Sweep<kWidth>(outer, lanes);
  for (int i = 0; i < n; ++i) {
    std::copy_n(lanes[2 * i + 1].data(), count, products + i * num_directions + first);
  }
  if (!along) return;
  for (const TapeJet& residual : residuals_) {
    const TapeScalar& r = residual.a;
    for (int j = 0; j < count; ++j) {
      along[first + j] = r.node < 0 ? 0.0 : r.factor * lanes[2 * r.node][j];
    }
    along += num_directions;
  }
}

void Tape::AllProducts(const Outer& outer,
                       const double* directions,
                       int num_directions,
                       double* products,
                       double* along) {
  for (int first = 0; first < num_directions;) {
    const int left = num_directions - first;
    const auto run = [&](auto width) {
      constexpr int kWidth = decltype(width)::value;
      Products<kWidth>(outer, directions, num_directions, first, products, along);
      first += kWidth;
    };
    if (left > 12) {
      run(std::integral_constant<int, 16>());
    } else if (left > 8) {
      run(std::integral_constant<int, 12>());
    } else if (left > 4) {
      run(std::integral_constant<int, 8>());
    } else if (left > 1) {
      run(std::integral_constant<int, 4>());
    } else {
      run(std::integral_constant<int, 1>());
    }
  }
}

Tape* Recording::Acquire(double const* const* parameters,
                         const std::vector<int>& sizes,
                         int num_residuals) {
  TapeStack& stack = ThreadTapes();
  if (stack.depth == stack.tapes.size()) stack.tapes.push_back(std::make_unique<Tape>());
  Tape* tape = stack.tapes[stack.depth].get();
  int n = 0;
  for (const int size : sizes) n += size;
  tape->arguments_.resize(n);
  tape->blocks_.resize(sizes.size());
  TapeJet* x = tape->arguments_.data();
  for (std::size_t b = 0; b < sizes.size(); ++b) {
    tape->blocks_[b] = x;
    for (int i = 0; i < sizes[b]; ++i, ++x) {
      x->a.value = parameters[b][i];
      x->a.factor = 1.0;
      x->a.node = static_cast<int>(x - tape->arguments_.data());
    }
  }
  tape->residuals_.assign(num_residuals, TapeJet());
  while (tape->end_ - tape->nodes_.data() < n) tape->Grow();
  tape->next_ = tape->nodes_.data() + n;  // The arguments' own nodes say nothing.
  ++stack.depth;
  return tape;
}

void Recording::Release() { --ThreadTapes().depth; }

void Recording::Values(double* values) const {
  for (const TapeJet& residual : tape_->residuals_) *values++ = residual.a.value;
}

void Recording::Gradient(const double* weights, double* gradient) {
  tape_->Backpropagate(weights);
  std::copy_n(tape_->adjoints_.data(), tape_->num_arguments(), gradient);
}

void Recording::Hessian(const double* weights, double* hessian) {
  const int n = tape_->num_arguments();
  std::vector<double>& identity = tape_->identity_;
  identity.assign(n * n, 0.0);
  for (int i = 0; i < n; ++i) identity[i * (n + 1)] = 1.0;
  tape_->AllProducts({weights}, identity.data(), n, hessian, nullptr);
  for (int i = 0; i < n; ++i) {  // The two triangles differ by rounding.
    for (int j = 0; j < i; ++j) hessian[j * n + i] = hessian[i * n + j];
  }
}

void Recording::HessianProduct(const double* weights, const double* direction, double* product) {
  tape_->AllProducts({weights}, direction, 1, product, nullptr);
}

void Recording::LossHessianProducts(const double* rho,
                                    const double* directions,
                                    int num_directions,
                                    double* products,
                                    double* along,
                                    double* gradient) {
  std::vector<double>&values = tape_->values_, &weights = tape_->weights_;
  values.resize(tape_->residuals_.size());
  weights.resize(values.size());
  Values(values.data());
  for (std::size_t k = 0; k < values.size(); ++k) weights[k] = rho[1] * values[k];
  tape_->AllProducts(
      {weights.data(), values.data(), rho[1], rho[2]}, directions, num_directions, products, along);
  if (!gradient) return;
  if (rho[1] == 0.0 || num_directions == 0) return Gradient(values.data(), gradient);
  for (int i = 0; i < tape_->num_arguments(); ++i) gradient[i] = tape_->adjoints_[i] / rho[1];
}

}  // namespace internal
}  // namespace bilevel
