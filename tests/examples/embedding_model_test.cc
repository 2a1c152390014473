// Derivatives of the embedding model against central differences, whose error falls with the square
// of their step.
#include "examples/support/learning/embedding_model.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace examples {
namespace {

using bilevel::Batch;

constexpr int kTexts = 7, kWords = 5, kWidth = 3;

class EmbeddingModelTest : public testing::Test {
 protected:
  EmbeddingModelTest() {
    std::mt19937_64 generator(3);
    std::normal_distribution<double> normal;
    std::vector<Eigen::Triplet<double>> entries;
    for (int i = 0; i < kTexts; ++i) {
      for (int j = i % 2; j < kWords; j += 2) entries.emplace_back(i, j, 0.5 + 0.1 * (i + j));
      labels_.push_back(i % 3 == 0);
    }
    words_.resize(kTexts, kWords);
    words_.setFromTriplets(entries.begin(), entries.end());
    for (std::vector<double>* block : {&e_, &w_, &d_e_, &d_w_}) {
      block->resize(block == &e_ || block == &d_e_ ? kWords * kWidth : kWidth + 1);
      for (double& v : *block) v = 0.7 * normal(generator);
    }
  }

  // Value, and the gradient of both blocks, one after the other, at the point moved by t along the
  // direction.
  double Value(double t, const Batch& batch, std::vector<double>* gradient) const {
    const EmbeddingModel model(words_, labels_, kWidth);
    std::vector<double> e = e_, w = w_;
    for (size_t j = 0; j < e.size(); ++j) e[j] += t * d_e_[j];
    for (size_t j = 0; j < w.size(); ++j) w[j] += t * d_w_[j];
    const double* blocks[] = {e.data(), w.data()};
    gradient->assign(e.size() + w.size(), 1e3);  // To be written, not added to.
    double* gradients[] = {gradient->data(), gradient->data() + e.size()};
    double value = 0.0;
    EXPECT_TRUE(model.Evaluate(blocks, batch, &value, gradients));
    return value;
  }

  EmbeddingModel::Words words_;
  std::vector<int> labels_;
  std::vector<double> e_, w_, d_e_, d_w_;
};

TEST_F(EmbeddingModelTest, IsTheMeanCrossEntropyOfTheFormula) {
  double expected = 0.0;
  for (int i = 0; i < kTexts; ++i) {
    double o = w_[kWidth];
    for (int k = 0; k < kWidth; ++k) {
      double u = 0.0;
      for (int j = 0; j < kWords; ++j) u += words_.coeff(i, j) * e_[j * kWidth + k];
      o += w_[k] * std::tanh(u);
    }
    expected += std::log(1.0 + std::exp(labels_[i] ? -o : o)) / kTexts;
  }
  std::vector<double> gradient;
  EXPECT_NEAR(Value(0.0, Batch::All(), &gradient), expected, 1e-14);
}

TEST_F(EmbeddingModelTest, DerivativesAreThoseOfDifferences) {
  const EmbeddingModel model(words_, labels_, kWidth);
  const double* blocks[] = {e_.data(), w_.data()};
  const double* direction[] = {d_e_.data(), d_w_.data()};
  for (const Batch& batch : {Batch::All(), Batch::Block(3, 1)}) {
    std::vector<double> gradient, ahead, behind, product(e_.size() + w_.size(), 1e3);
    Value(0.0, batch, &gradient);
    double* products[] = {product.data(), product.data() + e_.size()};
    ASSERT_TRUE(model.HessianProduct(blocks, batch, direction, products));
    double slope = 0.0;
    for (size_t j = 0; j < gradient.size(); ++j) {
      slope += gradient[j] * (j < e_.size() ? d_e_[j] : d_w_[j - e_.size()]);
    }
    double value_errors[2], product_errors[2];
    for (const int k : {0, 1}) {
      const double t = k == 0 ? 2e-2 : 1e-2;
      const double difference = Value(t, batch, &ahead) - Value(-t, batch, &behind);
      value_errors[k] = std::abs(difference / (2.0 * t) - slope);
      product_errors[k] = 0.0;
      for (size_t j = 0; j < product.size(); ++j) {
        product_errors[k] =
            std::max(product_errors[k], std::abs((ahead[j] - behind[j]) / (2.0 * t) - product[j]));
      }
    }
    EXPECT_NEAR(std::log2(value_errors[0] / value_errors[1]), 2.0, 0.05);
    EXPECT_NEAR(std::log2(product_errors[0] / product_errors[1]), 2.0, 0.05);
    EXPECT_LT(product_errors[1], 1e-3);
  }
}

TEST_F(EmbeddingModelTest, PartsOfADirectionAddUpAndFusedIsTheSame) {
  const EmbeddingModel model(words_, labels_, kWidth);
  const double* blocks[] = {e_.data(), w_.data()};
  const Batch all = Batch::All();
  std::vector<double> gradient, sum(e_.size() + w_.size(), 0.0), part(sum.size()),
      fused(sum.size());
  const double value = Value(0.0, all, &gradient);
  double* parts[] = {part.data(), part.data() + e_.size()};
  for (const bool first : {true, false}) {
    const double* direction[] = {first ? d_e_.data() : nullptr, first ? nullptr : d_w_.data()};
    ASSERT_TRUE(model.HessianProduct(blocks, all, direction, parts));
    for (size_t j = 0; j < sum.size(); ++j) sum[j] += part[j];
  }
  const double* direction[] = {d_e_.data(), d_w_.data()};
  double own_value = 0.0;
  double* gradients[] = {part.data(), part.data() + e_.size()};
  double* products[] = {fused.data(), fused.data() + e_.size()};
  ASSERT_TRUE(model.EvaluateWithProduct(blocks, all, direction, &own_value, gradients, products));
  EXPECT_EQ(own_value, value);
  for (size_t j = 0; j < sum.size(); ++j) {
    EXPECT_EQ(part[j], gradient[j]);
    EXPECT_NEAR(fused[j], sum[j], 1e-14);
  }
}

TEST_F(EmbeddingModelTest, NamesWhatDoesNotFit) {
  const EmbeddingModel model(words_, labels_, kWidth);
  EXPECT_EQ(model.CheckBlocks({kWords * kWidth, kWidth + 1}), "");
  EXPECT_NE(model.CheckBlocks({kWords * kWidth, kWidth}), "");
  EXPECT_NE(EmbeddingModel(words_, {0, 1}, kWidth).CheckBlocks({15, 4}).find("2 labels for 7"),
            std::string::npos);
  EXPECT_NE(EmbeddingModel(words_, labels_, 65).CheckBlocks({325, 66}).find("65"),
            std::string::npos);
}

}  // namespace
}  // namespace examples
