#include "examples/support/learning/embedding_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace examples {

EmbeddingModel::EmbeddingModel(Words words, std::vector<int> labels, int width)
    : words_(std::move(words)), labels_(std::move(labels)), width_(width) {}

std::string EmbeddingModel::CheckBlocks(const std::vector<int>& sizes) const {
  if (width_ < 1 || width_ > kMaxWidth) {
    return "an embedding model's width is " + std::to_string(width_) + ", not from 1 to " +
           std::to_string(kMaxWidth);
  }
  if (labels_.size() != static_cast<size_t>(words_.rows())) {
    return "an embedding model has " + std::to_string(labels_.size()) + " labels for " +
           std::to_string(words_.rows()) + " texts";
  }
  for (const int label : labels_) {
    if (label != 0 && label != 1) return "a label of an embedding model is neither 0 nor 1";
  }
  const std::vector<int> wanted{static_cast<int>(words_.cols()) * width_, width_ + 1};
  if (sizes == wanted) return "";
  return "an embedding model takes the blocks E and w of the sizes " + std::to_string(wanted[0]) +
         " and " + std::to_string(wanted[1]);
}

// sum = E' a.
void EmbeddingModel::AddWords(int text, const double* embedding, double* sum) const {
  std::fill_n(sum, width_, 0.0);
  for (Words::InnerIterator word(words_, text); word; ++word) {
    const double* const row = embedding + word.col() * width_;
    for (int k = 0; k < width_; ++k) sum[k] += word.value() * row[k];
  }
}

// E += a row'.
void EmbeddingModel::SpreadWords(int text, const double* row, double* embedding) const {
  for (Words::InnerIterator word(words_, text); word; ++word) {
    double* const to = embedding + word.col() * width_;
    for (int k = 0; k < width_; ++k) to[k] += word.value() * row[k];
  }
}

Eigen::MatrixXd EmbeddingModel::Encode(const double* embedding) const {
  Eigen::MatrixXd encoded(num_terms(), width_ + 1);
  double sum[kMaxWidth];
  for (int i = 0; i < num_terms(); ++i) {
    AddWords(i, embedding, sum);
    for (int k = 0; k < width_; ++k) encoded(i, k) = std::tanh(sum[k]);
    encoded(i, width_) = 1.0;
  }
  return encoded;
}

double EmbeddingModel::Accuracy(const double* embedding, const double* head) const {
  const Eigen::VectorXd outputs =
      Encode(embedding) * Eigen::Map<const Eigen::VectorXd>(head, width_ + 1);
  int right = 0;
  for (int i = 0; i < num_terms(); ++i) right += (outputs[i] > 0.0) == (labels_[i] == 1);
  return static_cast<double>(right) / num_terms();
}

bool EmbeddingModel::Evaluate(double const* const* blocks,
                              const bilevel::Batch& batch,
                              double* value,
                              double** gradients) const {
  return EvaluateWithProduct(blocks, batch, nullptr, value, gradients, nullptr);
}

bool EmbeddingModel::HessianProduct(double const* const* blocks,
                                    const bilevel::Batch& batch,
                                    double const* const* direction,
                                    double** products) const {
  double unused;
  return EvaluateWithProduct(blocks, batch, direction, &unused, nullptr, products);
}

// With h = tanh(u), u = E'a, s = 1 - h^2 and the slope r = dCE/do the gradient is
//     w: r h,   bias: r,   E: a (r w s)'
// and the product its derivative along (dE, dw), entry by entry.
bool EmbeddingModel::EvaluateWithProduct(double const* const* blocks,
                                         const bilevel::Batch& batch,
                                         double const* const* direction,
                                         double* value,
                                         double** gradients,
                                         double** products) const {
  const int n = num_terms(), width = width_;
  const double *const embedding = blocks[0], *const head = blocks[1];
  double* const g[] = {gradients ? gradients[0] : nullptr, gradients ? gradients[1] : nullptr};
  double* const p[] = {products ? products[0] : nullptr, products ? products[1] : nullptr};
  const double* const d_embedding = direction ? direction[0] : nullptr;
  const double* const d_head = direction ? direction[1] : nullptr;
  for (double* const out : {g[0], p[0]}) {
    if (out) std::fill_n(out, words_.cols() * width, 0.0);
  }
  for (double* const out : {g[1], p[1]}) {
    if (out) std::fill_n(out, width + 1, 0.0);
  }
  double h[kMaxWidth], s[kMaxWidth], du[kMaxWidth] = {}, row[kMaxWidth];
  *value = 0.0;
  for (int i = 0; i < batch.Count(n); ++i) {
    const int text = batch.Term(i, n);
    const double weight = batch.Weight(i, n) / n;
    AddWords(text, embedding, h);
    double o = head[width];
    for (int k = 0; k < width; ++k) {
      h[k] = std::tanh(h[k]);
      s[k] = 1.0 - h[k] * h[k];
      o += head[k] * h[k];
    }
    const double e = std::exp(-std::abs(o)), sigma = o > 0.0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
    *value += weight * (std::max(o, 0.0) + std::log1p(e) - labels_[text] * o);
    const double r = weight * (sigma - labels_[text]);
    if (g[1]) {
      for (int k = 0; k < width; ++k) g[1][k] += r * h[k];
      g[1][width] += r;
    }
    if (g[0]) {
      for (int k = 0; k < width; ++k) row[k] = r * head[k] * s[k];
      SpreadWords(text, row, g[0]);
    }
    if (!p[0] && !p[1]) continue;
    if (d_embedding) AddWords(text, d_embedding, du);
    double d_o = d_head ? d_head[width] : 0.0;
    for (int k = 0; k < width; ++k) {
      d_o += head[k] * s[k] * du[k] + (d_head ? d_head[k] * h[k] : 0.0);
    }
    const double d_r = weight * sigma * (1.0 - sigma) * d_o;
    if (p[1]) {
      for (int k = 0; k < width; ++k) p[1][k] += d_r * h[k] + r * s[k] * du[k];
      p[1][width] += d_r;
    }
    if (p[0]) {
      for (int k = 0; k < width; ++k) {
        const double d_s = -2.0 * h[k] * s[k] * du[k];
        row[k] = d_r * head[k] * s[k] + r * ((d_head ? d_head[k] : 0.0) * s[k] + head[k] * d_s);
      }
      SpreadWords(text, row, p[0]);
    }
  }
  return true;
}

}  // namespace examples
