#ifndef BILEVEL_MODELS_LINEAR_MODEL_H_
#define BILEVEL_MODELS_LINEAR_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/models/features.h"
#include "bilevel/terms/objective.h"

namespace bilevel {

/// The loss of a linear model over n samples, by matrix products:
///
///     scale * sum_i omega(w_i) loss(Theta a_i; b_i)
///
/// with features a_i (a row of Features), targets b_i and one weight of a sample or of a class, or
/// none. Blocks: {Theta}, or {Theta, w} with weights. Theta is outputs x features, row by row: all
/// weights of the first output first. w may be of either level.
///
///     bilevel::Features images(a);
///     bilevel::LinearModel::Options options;
///     options.weights = bilevel::LinearModel::kSigmoid;
///     problem.AddTerm(Level::kLower, bilevel::SoftmaxRegression(images, labels, 10, options),
///                     {{theta, 10 * d}, {w, n}});
///     problem.AddTerm(Level::kLower, std::make_unique<bilevel::L2Regularizer>(10, d, 0.002),
///                     {{theta, 10 * d}});
///     problem.AddTerm(Level::kUpper, bilevel::SoftmaxRegression(clean, clean_labels, 10),
///                     {{theta, 10 * d}});
///
/// The terms are the samples: minibatches draw from them. All first and second derivatives are
/// exact, in the precision of the features; sums are made in an order that does not depend on the
/// number of threads. Once warm, an evaluation allocates nothing.
class LinearModel : public Objective {
 public:
  enum Loss {
    kSoftmax,   ///< Cross entropy, c outputs; b_i one of 0 ... c - 1.
    kLogistic,  ///< log(1 + e^o) - b_i o, one output; b_i = 0 or 1.
    kSquared,   ///< |o - b_i|^2 / 2, c outputs.
  };
  enum Weights {
    kNone,
    kClipped,  ///< omega(w) = min(max(w, 0), 1); its derivative is 1 at 0 and 1, too.
    kSigmoid,  ///< 1 / (1 + e^-w).
    kExp,      ///< e^w.
  };
  struct Options {
    Weights weights = kNone;
    bool weights_by_class = false;  ///< w_k for the class k = b_i, not w_i. Not with kSquared.
    double scale = 0.0;             ///< 0: 1 / n, the mean.
    int num_threads = 1;            ///< For evaluations over many samples.
  };

  /// Labels or, for kSquared, n x num_outputs targets, sample by sample. What does not fit together
  /// is told by Problem::IsValid and by solvers.
  LinearModel(Loss loss,
              const Features& features,
              std::vector<double> targets,
              int num_outputs,
              const Options& options);
  ~LinearModel() override;

  /// Writes Theta a_i for all samples: num_samples x num_outputs.
  void Outputs(const double* theta, double* outputs) const;
  /// The share of samples whose label has the largest output (kLogistic: b_i = 1 where the output
  /// is positive).
  double Accuracy(const double* theta) const;

  int num_terms() const override;
  int block_of_terms() const override { return by_sample_ ? 1 : -1; }
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
  bool EvaluateWithProduct(double const* const* blocks,
                           const Batch& batch,
                           double const* const* direction,
                           double* value,
                           double** gradients,
                           double** products) const override;

  class Engine;
  struct Description;
  struct Request;

 private:
  std::unique_ptr<Engine> engine_;
  std::string error_;
  int num_samples_, num_features_, num_outputs_, num_weights_;
  bool by_sample_;
};

/// Multinomial logistic regression; labels 0 ... num_classes - 1.
std::unique_ptr<LinearModel> SoftmaxRegression(const Features& features,
                                               const std::vector<int>& labels,
                                               int num_classes,
                                               const LinearModel::Options& options = {});
/// Logistic regression; labels 0 and 1.
std::unique_ptr<LinearModel> LogisticRegression(const Features& features,
                                                const std::vector<int>& labels,
                                                const LinearModel::Options& options = {});
/// Least squares; targets n x c, row by row.
std::unique_ptr<LinearModel> LinearRegression(const Features& features,
                                              const std::vector<double>& targets,
                                              int num_outputs = 1,
                                              const LinearModel::Options& options = {});

}  // namespace bilevel

#endif  // BILEVEL_MODELS_LINEAR_MODEL_H_
