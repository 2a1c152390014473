#include "bilevel/torch/torch_objective.h"

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "torch/csrc/autograd/autograd.h"
#include "torch/nn/module.h"

namespace bilevel {
namespace {

using torch::Tensor;

std::vector<Tensor> ParametersOf(const torch::nn::Module& module) {
  std::vector<Tensor> parameters;
  for (const Tensor& p : module.parameters()) {
    if (p.requires_grad()) parameters.push_back(p);
  }
  return parameters;
}

// Of memory that is not written to, although Torch knows no constant views.
Tensor View(const double* values, torch::IntArrayRef shape) {
  return torch::from_blob(const_cast<double*>(values), shape, torch::kDouble);
}

std::string ShapeOf(const Tensor& t) {
  if (!t.defined()) return "of no tensor";
  std::string shape = "[";
  for (int64_t i = 0; i < t.dim(); ++i) {
    shape += (i > 0 ? ", " : "") + std::to_string(t.size(i));
  }
  return shape + "]";
}

// See the header: a module holds the values of the evaluation that is under way.
std::mutex& ModuleMutex() {
  static std::mutex mutex;
  return mutex;
}

// Sets, or adds to what the samples before have left.
void Write(const Tensor& from, bool add, const Tensor& to) {
  if (!from.defined()) {  // Does not depend on it.
    if (!add) to.zero_();
  } else if (add) {
    to.add_(from.detach());
  } else {
    to.copy_(from.detach());
  }
}

}  // namespace

// The tensors of a block, one after the other in its memory.
struct TorchObjective::Block {
  std::vector<std::vector<int64_t>> shapes;
  std::vector<int64_t> offsets;
  int64_t size = 0;
  std::shared_ptr<torch::nn::Module> module;
  std::vector<Tensor> parameters;  // The module's.

  void Add(torch::IntArrayRef shape) {
    shapes.push_back(shape.vec());
    offsets.push_back(size);
    int64_t numel = 1;
    for (const int64_t n : shape) numel *= n;
    size += numel;
  }
};

struct TorchObjective::Request {
  double const* const* blocks;
  const Batch& batch;
  double const* const* direction = nullptr;
  double* value = nullptr;
  double** gradients = nullptr;
  double** products = nullptr;

  bool WantsGradient(size_t i) const { return gradients && gradients[i]; }
  bool WantsProduct(size_t i) const { return products && products[i]; }
  bool HasDirection(size_t i) const { return products && direction[i]; }
};

// What autograd differentiates by, at the blocks' values.
class TorchObjective::Leaves {
 public:
  Leaves(const TorchObjective& objective, const Request& request) {
    for (size_t i = 0; i < objective.blocks_.size(); ++i) {
      const Block& block = objective.blocks_[i];
      first_.push_back(tensors_.size());
      for (size_t k = 0; k < block.shapes.size(); ++k) {
        const Tensor view = View(request.blocks[i] + block.offsets[k], block.shapes[k]);
        if (block.module) {
          const Tensor& parameter = block.parameters[k];
          swapped_.Set(parameter, view.to(parameter.options().requires_grad(false)));
          tensors_.push_back(parameter);
        } else {
          const bool wanted =
              request.WantsGradient(i) || request.WantsProduct(i) || request.HasDirection(i);
          tensors_.push_back(view.to(objective.options_.tensors).set_requires_grad(wanted));
        }
      }
      arguments_.push_back(block.module ? Tensor() : tensors_.back());
    }
    first_.push_back(tensors_.size());
  }

  const Blocks& arguments() const { return arguments_; }
  const Tensor& tensor(size_t block, size_t k) const { return tensors_[first_[block] + k]; }

 private:
  // Modules have their own values again once this is gone.
  class Swapped {
   public:
    Swapped() = default;
    Swapped(const Swapped&) = delete;
    ~Swapped() {
      for (; !own_.empty(); own_.pop_back()) own_.back().first.set_data(own_.back().second);
    }
    void Set(const Tensor& parameter, const Tensor& values) {
      own_.emplace_back(parameter, parameter.data());
      parameter.set_data(values);
    }

   private:
    std::vector<std::pair<Tensor, Tensor>> own_;
  };

  Swapped swapped_;
  std::vector<Tensor> tensors_;
  std::vector<size_t> first_;
  Blocks arguments_;
};

TorchObjective::TorchObjective(TorchBlocks blocks, Loss loss)
    : TorchObjective(std::move(blocks), std::move(loss), Options()) {}

TorchObjective::TorchObjective(TorchBlocks blocks, Loss loss, const Options& options)
    : TorchObjective(
          std::move(blocks),
          1,
          loss ? [loss](const Blocks& b, const TorchSamples&) { return loss(b).reshape({-1}); }
               : SampleLoss(),
          options) {}

TorchObjective::TorchObjective(TorchBlocks blocks, int num_samples, SampleLoss loss)
    : TorchObjective(std::move(blocks), num_samples, std::move(loss), Options()) {}

TorchObjective::TorchObjective(TorchBlocks blocks,
                               int num_samples,
                               SampleLoss loss,
                               const Options& options)
    : loss_(std::move(loss)), options_(options), num_samples_(std::max(1, num_samples)) {
  if (num_samples < 1) error_ = "a Torch term has no samples";
  if (!loss_) error_ = "a Torch term has no loss";
  if (!c10::isFloatingType(c10::typeMetaToScalarType(options_.tensors.dtype()))) {
    error_ = "the tensors of a Torch term must be of a floating-point type";
  }
  for (const TorchBlock& block : blocks) {
    Block b;
    b.module = block.module_;
    if (b.module) {
      has_module_ = true;
      b.parameters = ParametersOf(*b.module);
      for (const Tensor& p : b.parameters) b.Add(p.sizes());
    } else {
      b.Add(block.shape_);
    }
    blocks_.push_back(std::move(b));
  }
}

TorchObjective::~TorchObjective() = default;

std::string TorchObjective::CheckBlocks(const std::vector<int>& sizes) const {
  if (!error_.empty()) return error_;
  if (sizes.size() != blocks_.size()) {
    return "a Torch term was made for " + std::to_string(blocks_.size()) + " blocks, not " +
           std::to_string(sizes.size());
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    const Block& block = blocks_[i];
    if (block.size == sizes[i]) continue;
    return std::string(block.module ? "the module" : "the tensor") + " of block " +
           std::to_string(i) + " of a Torch term has " + std::to_string(block.size) +
           " numbers, the block " + std::to_string(sizes[i]);
  }
  return "";
}

bool TorchObjective::Evaluate(double const* const* blocks,
                              const Batch& batch,
                              double* value,
                              double** gradients) const {
  return EvaluateWithProduct(blocks, batch, nullptr, value, gradients, nullptr);
}

bool TorchObjective::HessianProduct(double const* const* blocks,
                                    const Batch& batch,
                                    double const* const* direction,
                                    double** products) const {
  return EvaluateWithProduct(blocks, batch, direction, nullptr, nullptr, products);
}

bool TorchObjective::EvaluateWithProduct(double const* const* blocks,
                                         const Batch& batch,
                                         double const* const* direction,
                                         double* value,
                                         double** gradients,
                                         double** products) const {
  if (!error_.empty()) return false;
  std::unique_lock<std::mutex> lock;
  if (has_module_) lock = std::unique_lock<std::mutex>(ModuleMutex());
  try {
    const Batch& own = num_samples_ == 1 ? Batch::All() : batch;
    Run({blocks, own, direction, value, gradients, products});
  } catch (const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    throw std::runtime_error(what.substr(0, what.find('\n')));
  }
  return true;
}

void TorchObjective::Run(const Request& q) const {
  const torch::AutoGradMode mode(q.gradients || q.products);
  const Leaves leaves(*this, q);
  const int count = q.batch.Count(num_samples_);
  const int most = options_.samples_at_once > 0 ? options_.samples_at_once : count;
  if (q.value) *q.value = 0.0;
  for (int begin = 0; begin < count; begin += most) {
    AddSamples(q, leaves, begin, std::min(most, count - begin));
  }
}

// The drawn samples begin ... begin + count - 1; the first ones set the results.
void TorchObjective::AddSamples(const Request& q,
                                const Leaves& leaves,
                                int begin,
                                int count) const {
  TorchSamples samples;
  samples.count = count;
  if (const int first = q.batch.First(num_samples_); first >= 0) {
    samples.first = first + begin;
  } else {
    samples.indices = torch::empty({count}, torch::kLong);
    int64_t* const indices = samples.indices.data_ptr<int64_t>();
    for (int k = 0; k < count; ++k) indices[k] = q.batch.Term(begin + k, num_samples_);
  }
  const Tensor losses = loss_(leaves.arguments(), samples);
  if (!losses.defined() || losses.dim() != 1 || losses.size(0) != count) {
    throw std::runtime_error("the loss of a Torch term has the shape " + ShapeOf(losses) +
                             " and not [" + std::to_string(count) + "], one number for each of " +
                             std::to_string(count) + (count == 1 ? " sample" : " samples"));
  }
  Tensor sum = losses.to(torch::kDouble);
  if (q.batch.importance) {
    const Tensor weights = torch::empty({count}, torch::kDouble);
    double* const w = weights.data_ptr<double>();
    for (int k = 0; k < count; ++k) w[k] = q.batch.Weight(begin + k, num_samples_);
    sum = sum.dot(weights.to(sum.device()));
  } else {
    sum = sum.sum() * q.batch.Weight(begin, num_samples_);
  }
  if (q.value) *q.value += sum.item<double>();

  // First derivatives by the tensors of these blocks, in their order.
  std::vector<Tensor> by, along;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (!q.WantsGradient(i) && !q.HasDirection(i)) continue;
    for (size_t k = 0; k < blocks_[i].shapes.size(); ++k) by.push_back(leaves.tensor(i, k));
  }
  const bool twice = q.products != nullptr;
  std::vector<Tensor> first(by.size());
  if (!by.empty() && sum.requires_grad()) {
    first = torch::autograd::grad({sum}, by, {}, twice, twice, /*allow_unused=*/true);
  }
  std::vector<Tensor> differentiated;
  auto g = first.begin();
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (!q.WantsGradient(i) && !q.HasDirection(i)) continue;
    const Block& block = blocks_[i];
    for (size_t k = 0; k < block.shapes.size(); ++k, ++g) {
      if (q.WantsGradient(i)) {
        Write(*g, begin > 0, View(q.gradients[i] + block.offsets[k], block.shapes[k]));
      }
      if (!q.HasDirection(i) || !g->defined() || !g->requires_grad()) continue;
      differentiated.push_back(*g);
      along.push_back(View(q.direction[i] + block.offsets[k], block.shapes[k]).to(g->options()));
    }
  }
  if (!twice) return;

  // The derivative of what these first derivatives are along the direction.
  by.clear();
  for (size_t i = 0; i < blocks_.size(); ++i) {
    for (size_t k = 0; q.products[i] && k < blocks_[i].shapes.size(); ++k) {
      by.push_back(leaves.tensor(i, k));
    }
  }
  std::vector<Tensor> second(by.size());
  if (!by.empty() && !differentiated.empty()) {
    second = torch::autograd::grad(differentiated, by, along, false, false, /*allow_unused=*/true);
  }
  auto p = second.begin();
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    for (size_t k = 0; q.products[i] && k < block.shapes.size(); ++k, ++p) {
      Write(*p, begin > 0, View(q.products[i] + block.offsets[k], block.shapes[k]));
    }
  }
}

std::vector<double> TorchParameters(const torch::nn::Module& module) {
  std::vector<double> values;
  for (const Tensor& p : ParametersOf(module)) {
    const Tensor own = p.detach().to(torch::kCPU, torch::kDouble).contiguous();
    values.insert(values.end(), own.data_ptr<double>(), own.data_ptr<double>() + own.numel());
  }
  return values;
}

void SetTorchParameters(const double* values, torch::nn::Module* module) {
  const torch::NoGradGuard no_grad;
  for (Tensor& p : ParametersOf(*module)) {
    p.copy_(View(values, p.sizes()));
    values += p.numel();
  }
}

}  // namespace bilevel
