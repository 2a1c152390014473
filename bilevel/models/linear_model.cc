#include "bilevel/models/linear_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/models/internal/check_sizes.h"
#include "bilevel/models/internal/linear_model_engine.h"

namespace bilevel {
namespace {

std::string CheckModel(const LinearModel::Description& p) {
  if (p.n == 0 || p.d == 0) return "a linear model has no samples or no features";
  if (p.c < 1) return "a linear model has no outputs";
  const size_t targets = static_cast<size_t>(p.n) * (p.loss == LinearModel::kSquared ? p.c : 1);
  if (p.targets.size() != targets) {
    return "a linear model has " + std::to_string(p.targets.size()) + " targets for " +
           std::to_string(p.n) + " samples: " + std::to_string(targets) + " are needed";
  }
  if (p.loss == LinearModel::kLogistic && p.c != 1) return "a logistic model has one output";
  if (p.loss == LinearModel::kSquared) {
    for (const double target : p.targets) {
      if (!std::isfinite(target)) return "a target of a linear model is not finite";
    }
    return p.weights_by_class ? "targets of least squares are no classes to weigh by" : "";
  }
  const int classes = p.loss == LinearModel::kLogistic ? 2 : p.c;
  for (int i = 0; i < p.n; ++i) {
    const double label = p.targets[i];
    if (label >= 0.0 && label < classes && label == std::floor(label)) continue;
    return "sample " + std::to_string(i) + " of a linear model has the label " + Number(label) +
           ", which is not one of 0 ... " + std::to_string(classes - 1);
  }
  return "";
}

}  // namespace

LinearModel::LinearModel(Loss loss,
                         const Features& features,
                         std::vector<double> targets,
                         int num_outputs,
                         const Options& options)
    : num_samples_(features.num_samples()),
      num_features_(features.num_features()),
      num_outputs_(num_outputs) {
  Description p{loss,
                options.weights,
                options.weights_by_class,
                options.scale != 0.0 ? options.scale : 1.0 / std::max(1, num_samples_),
                num_samples_,
                num_features_,
                num_outputs,
                0,
                std::move(targets)};
  const int classes = loss == kLogistic ? 2 : num_outputs;
  if (p.weights != kNone) p.num_weights = p.weights_by_class ? classes : num_samples_;
  num_weights_ = p.num_weights;
  by_sample_ = num_weights_ > 0 && !p.weights_by_class;
  error_ = CheckModel(p);
  if (!error_.empty()) return;
  engine_ = Engine::Make(std::move(p), features, options.num_threads);
}

LinearModel::~LinearModel() = default;

int LinearModel::num_terms() const { return std::max(1, num_samples_); }

std::string LinearModel::CheckBlocks(const std::vector<int>& sizes) const {
  if (!error_.empty()) return error_;
  return CheckSizes(sizes, "a linear model", num_outputs_ * num_features_, num_weights_);
}

void LinearModel::Outputs(const double* theta, double* outputs) const {
  if (engine_) engine_->Outputs(theta, outputs);
}

double LinearModel::Accuracy(const double* theta) const {
  return engine_ ? engine_->Accuracy(theta) : 0.0;
}

bool LinearModel::Evaluate(double const* const* blocks,
                           const Batch& batch,
                           double* value,
                           double** gradients) const {
  return EvaluateWithProduct(blocks, batch, nullptr, value, gradients, nullptr);
}

bool LinearModel::HessianProduct(double const* const* blocks,
                                 const Batch& batch,
                                 double const* const* direction,
                                 double** products) const {
  return EvaluateWithProduct(blocks, batch, direction, nullptr, nullptr, products);
}

bool LinearModel::EvaluateWithProduct(double const* const* blocks,
                                      const Batch& batch,
                                      double const* const* direction,
                                      double* value,
                                      double** gradients,
                                      double** products) const {
  if (!engine_) return false;
  const bool weighted = num_weights_ > 0;
  Request q;
  q.theta = blocks[0];
  q.w = weighted ? blocks[1] : nullptr;
  q.value = value;
  if (gradients) {
    q.theta_gradient = gradients[0];
    q.w_gradient = weighted ? gradients[1] : nullptr;
  }
  if (products) {
    q.theta_direction = direction[0];
    q.w_direction = weighted ? direction[1] : nullptr;
    q.theta_product = products[0];
    q.w_product = weighted ? products[1] : nullptr;
  }
  engine_->Run(batch, q);
  return true;
}

std::unique_ptr<LinearModel> SoftmaxRegression(const Features& features,
                                               const std::vector<int>& labels,
                                               int num_classes,
                                               const LinearModel::Options& options) {
  return std::make_unique<LinearModel>(LinearModel::kSoftmax,
                                       features,
                                       std::vector<double>(labels.begin(), labels.end()),
                                       num_classes,
                                       options);
}

std::unique_ptr<LinearModel> LogisticRegression(const Features& features,
                                                const std::vector<int>& labels,
                                                const LinearModel::Options& options) {
  return std::make_unique<LinearModel>(LinearModel::kLogistic,
                                       features,
                                       std::vector<double>(labels.begin(), labels.end()),
                                       1,
                                       options);
}

std::unique_ptr<LinearModel> LinearRegression(const Features& features,
                                              const std::vector<double>& targets,
                                              int num_outputs,
                                              const LinearModel::Options& options) {
  return std::make_unique<LinearModel>(
      LinearModel::kSquared, features, targets, num_outputs, options);
}

}  // namespace bilevel
