#ifndef BILEVEL_MODELS_L2_REGULARIZER_H_
#define BILEVEL_MODELS_L2_REGULARIZER_H_

#include <string>
#include <vector>

#include "bilevel/terms/objective.h"

namespace bilevel {

/// coefficient * sum_kj e^{x} theta_kj^2 over Theta, outputs x features, with one x for everything,
/// for each feature (x_j) or each output (x_k), or none. Blocks: {Theta}, or {Theta, x}. In every
/// minibatch.
class L2Regularizer : public Objective {
 public:
  enum Weights { kNone, kScalar, kPerFeature, kPerOutput };
  L2Regularizer(int num_outputs,
                int num_features,
                double coefficient = 1.0,
                Weights weights = kNone);

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

 private:
  int NumWeights() const;
  const double* FeatureWeights(const double* x) const;
  double Weight(const double* x, int k) const;
  void EvaluateByFeature(
      const double* theta, const double* weights, double* value, double* g, double* gx) const;
  void MultiplyByFeature(const double* theta,
                         const double* weights,
                         const double* v,
                         const double* dx,
                         double* p,
                         double* px) const;
  int outputs_, features_;
  double coefficient_;
  Weights weights_;
};

}  // namespace bilevel

#endif  // BILEVEL_MODELS_L2_REGULARIZER_H_
