#ifndef BILEVEL_TORCH_TORCH_OBJECTIVE_H_
#define BILEVEL_TORCH_TORCH_OBJECTIVE_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/terms/objective.h"
#include "torch/types.h"

namespace torch::nn {
class Module;
}

namespace bilevel {

/// The drawn samples of an evaluation.
struct TorchSamples {
  int count = 0;
  int first = -1;         ///< The first of neighbours; -1: they are not, see indices.
  torch::Tensor indices;  ///< `count` int64, defined where the samples are not neighbours.

  /// Rows of a tensor that has one for each sample: a view of neighbours (and so of everything),
  /// else a copy.
  torch::Tensor Rows(const torch::Tensor& data) const {
    return first >= 0 ? data.narrow(0, first, count) : data.index_select(0, indices);
  }
};

/// What a block of parameters is to a loss: a tensor of a shape, or the parameters of a module
/// (those with requires_grad, in the order of parameters(), each row by row).
class TorchBlock {
 public:
  TorchBlock(std::initializer_list<int64_t> shape) : shape_(shape) {}
  explicit TorchBlock(std::vector<int64_t> shape) : shape_(std::move(shape)) {}
  template <typename Module>
  TorchBlock(std::shared_ptr<Module> module) : module_(std::move(module)) {}

 private:
  friend class TorchObjective;
  std::vector<int64_t> shape_;
  std::shared_ptr<torch::nn::Module> module_;
};
using TorchBlocks = std::vector<TorchBlock>;

/// f or g by a program in LibTorch, differentiated by its autograd: gradients, and all products
/// with the Hessian (of y, of x, across) by double backward, are exact. In the component `torch`:
///
///     find_package(bilevel REQUIRED COMPONENTS torch)
///     target_link_libraries(me PRIVATE bilevel::torch)
///
/// A loss is a function of tensors, one for each block; a term with samples has a loss for each:
///
///     torch::nn::Sequential net(torch::nn::Linear(784, 100), torch::nn::Tanh(),
///                               torch::nn::Linear(100, 10));
///     net->to(torch::kDouble);
///     std::vector<double> y = bilevel::TorchParameters(*net), w(n, 0.0);
///     problem.AddUpperParameterBlock(w.data(), n);
///     problem.AddTerm(
///         Level::kLower,
///         std::make_unique<bilevel::TorchObjective>(
///             bilevel::TorchBlocks{net.ptr(), {n}}, n,
///             [=, net = net.ptr()](const std::vector<torch::Tensor>& blocks,
///                                  const bilevel::TorchSamples& s) {
///               const auto losses = torch::nn::functional::cross_entropy(
///                   net->forward(s.Rows(images)), s.Rows(labels),
///                   torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kNone));
///               return torch::sigmoid(s.Rows(blocks[1])) * losses / n;
///             }),
///         {{y.data(), static_cast<int>(y.size())}, {w.data(), n}});
///
/// **Memory.** Where a tensor is double on the CPU, it is a view of the block's memory, which the
/// loss must not write to; other types (Options::tensors, or the module's) are converted. A
/// module's parameters look at the block during an evaluation and have their own values again after
/// it. No graph outlives an evaluation; within one it is that of all samples, or of
/// `samples_at_once`. Torch allocates in every evaluation. Modules are shared; what the loss refers
/// to must outlive this.
///
/// **Threads.** The loss must be thread-safe where methods evaluate in parallel (scenarios, igfm).
/// Evaluations with a module exclude each other, in the whole process, since the module holds the
/// values. Torch's own threads (torch::set_num_threads, all cores by default) may change last
/// digits.
///
/// **Errors.** What the loss or Torch throws is thrown as std::exception with one sentence; within
/// a solver it ends as any failed evaluation does: the term is named, the oracle latches. The loss
/// must be deterministic (modules in eval() mode), and its operations twice differentiable in
/// Torch.
class TorchObjective : public Objective {
 public:
  struct Options {
    torch::TensorOptions tensors = torch::kDouble;  ///< Of blocks with a shape: type and device.
    int samples_at_once = 0;  ///< Bounds the memory of a graph; 0: all samples of a batch.
  };
  using Blocks = std::vector<torch::Tensor>;  ///< That of a module is undefined: call the module.
  using Loss = std::function<torch::Tensor(const Blocks&)>;
  using SampleLoss = std::function<torch::Tensor(const Blocks&, const TorchSamples&)>;

  /// A function of one term, a part of every minibatch: `loss` returns one number.
  TorchObjective(TorchBlocks blocks, Loss loss);
  TorchObjective(TorchBlocks blocks, Loss loss, const Options& options);
  /// The sum over num_samples samples: `loss` returns samples.count numbers, one for each drawn.
  TorchObjective(TorchBlocks blocks, int num_samples, SampleLoss loss);
  TorchObjective(TorchBlocks blocks, int num_samples, SampleLoss loss, const Options& options);
  ~TorchObjective() override;

  int num_terms() const override { return num_samples_; }
  std::string CheckBlocks(const std::vector<int>& sizes) const override;
  bool Evaluate(double const* const* blocks,
                const Batch& batch,
                double* value,
                double** gradients) const override;
  bool has_hessian_product() const override { return true; }
  bool HessianProduct(double const* const* blocks,
                      const Batch& batch,
                      double const* const* direction,
                      double** products) const override;
  /// One forward pass for all of them.
  bool EvaluateWithProduct(double const* const* blocks,
                           const Batch& batch,
                           double const* const* direction,
                           double* value,
                           double** gradients,
                           double** products) const override;

 private:
  struct Block;
  struct Request;
  class Leaves;
  void Run(const Request& request) const;
  void AddSamples(const Request& request, const Leaves& leaves, int begin, int count) const;

  std::vector<Block> blocks_;
  SampleLoss loss_;
  Options options_;
  int num_samples_;
  bool has_module_ = false;
  std::string error_;
};

/// The values of a module's block, in its order: to start from.
std::vector<double> TorchParameters(const torch::nn::Module& module);
/// Writes them into the module, which is then what the block says. values: as many as
/// TorchParameters returns.
void SetTorchParameters(const double* values, torch::nn::Module* module);

}  // namespace bilevel

#endif  // BILEVEL_TORCH_TORCH_OBJECTIVE_H_
