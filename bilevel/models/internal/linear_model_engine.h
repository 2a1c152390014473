#ifndef BILEVEL_MODELS_INTERNAL_LINEAR_MODEL_ENGINE_H_
#define BILEVEL_MODELS_INTERNAL_LINEAR_MODEL_ENGINE_H_

#include <memory>
#include <vector>

#include "bilevel/models/linear_model.h"

namespace bilevel {

// What a linear model is, but for its features.
struct LinearModel::Description {
  LinearModel::Loss loss;
  LinearModel::Weights weights;
  bool weights_by_class;
  double scale;
  int n, d, c, num_weights;
  std::vector<double> targets;

  int WeightOf(int sample) const {
    return weights_by_class ? static_cast<int>(targets[sample]) : sample;
  }
};

// What an evaluation is asked for; nullptr: not.
struct LinearModel::Request {
  const double* theta = nullptr;
  const double* w = nullptr;
  const double* theta_direction = nullptr;
  const double* w_direction = nullptr;
  double* value = nullptr;
  double* theta_gradient = nullptr;
  double* w_gradient = nullptr;
  double* theta_product = nullptr;
  double* w_product = nullptr;

  bool gradients() const { return theta_gradient || w_gradient; }
  bool products() const { return theta_product || w_product; }
};

// How it is evaluated: over dense or sparse features, in float or double.
class LinearModel::Engine {
 public:
  virtual ~Engine() = default;
  virtual void Run(const Batch& batch, const Request& request) = 0;
  virtual void Outputs(const double* theta, double* outputs) = 0;
  virtual double Accuracy(const double* theta) = 0;

  static std::unique_ptr<Engine> Make(Description description,
                                      const Features& features,
                                      int num_threads);
};

namespace internal {

// For features of T, float or double.
template <typename T>
std::unique_ptr<LinearModel::Engine> MakeDenseEngine(LinearModel::Description description,
                                                     const Features& features,
                                                     int num_threads);
template <typename T>
std::unique_ptr<LinearModel::Engine> MakeSparseEngine(LinearModel::Description description,
                                                      const Features& features,
                                                      int num_threads);

}  // namespace internal
}  // namespace bilevel

#endif  // BILEVEL_MODELS_INTERNAL_LINEAR_MODEL_ENGINE_H_
