#ifndef BILEVEL_EXAMPLES_SUPPORT_LEARNING_EMBEDDING_MODEL_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEARNING_EMBEDDING_MODEL_H_

#include <string>
#include <vector>

#include "Eigen/SparseCore"
#include "bilevel/terms/objective.h"

namespace examples {

/// A classifier of texts in two classes on word vectors that are learned:
///
///     1/n sum_i CE(w' tanh(E' a_i) + w_k; b_i),   CE(o; b) = log(1 + e^o) - b o
///
/// a_i: how often the text has each of the words; b_i = 0 or 1. Blocks: {E, w}; E has k numbers for
/// each word, one word after the other, w k + 1, the bias last. Minibatches draw texts. All
/// derivatives are exact.
class EmbeddingModel : public bilevel::Objective {
 public:
  using Words = Eigen::SparseMatrix<double, Eigen::RowMajor>;
  static constexpr int kMaxWidth = 64;

  /// width: k, from 1 to kMaxWidth.
  EmbeddingModel(Words words, std::vector<int> labels, int width);

  /// tanh(E' a_i) and a 1, for every text: n x (k + 1).
  Eigen::MatrixXd Encode(const double* embedding) const;
  /// The share of texts that are classified rightly.
  double Accuracy(const double* embedding, const double* head) const;
  const std::vector<int>& labels() const { return labels_; }

  int num_terms() const override { return static_cast<int>(words_.rows()); }
  std::string CheckBlocks(const std::vector<int>& sizes) const override;
  bool Evaluate(double const* const* blocks,
                const bilevel::Batch& batch,
                double* value,
                double** gradients) const override;
  bool has_hessian_product() const override { return true; }
  bool HessianProduct(double const* const* blocks,
                      const bilevel::Batch& batch,
                      double const* const* direction,
                      double** products) const override;
  bool EvaluateWithProduct(double const* const* blocks,
                           const bilevel::Batch& batch,
                           double const* const* direction,
                           double* value,
                           double** gradients,
                           double** products) const override;

 private:
  void AddWords(int text, const double* embedding, double* sum) const;
  void SpreadWords(int text, const double* row, double* embedding) const;

  const Words words_;
  const std::vector<int> labels_;
  const int width_;
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEARNING_EMBEDDING_MODEL_H_
