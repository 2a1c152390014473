#include "bilevel/torch/torch_objective.h"

#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "Eigen/Core"
#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/nn/module.h"

namespace bilevel {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using torch::Tensor;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Softmax regression with a weight for each sample, by matrix products and by Torch.
struct Softmax {
  static constexpr int kSamples = 150, kFeatures = 7, kClasses = 3, kTheta = kFeatures * kClasses;

  Softmax() : a(kSamples, kFeatures) {
    for (int i = 0; i < kSamples; ++i) {
      for (int j = 0; j < kFeatures; ++j) a(i, j) = std::sin(1.0 + 3.7 * i + 1.3 * j * j);
      labels.push_back((i * i + i / 7) % kClasses);
    }
  }
  std::unique_ptr<LinearModel> Linear() const {
    LinearModel::Options options;
    options.weights = LinearModel::kSigmoid;
    return SoftmaxRegression(Features(a), labels, kClasses, options);
  }
  std::unique_ptr<TorchObjective> Torch(
      const TorchObjective::Options& options = TorchObjective::Options()) const {
    const auto type = c10::typeMetaToScalarType(options.tensors.dtype());
    const Tensor features =
        torch::from_blob(const_cast<double*>(a.data()), {kSamples, kFeatures}, torch::kDouble)
            .to(type, false, /*copy=*/true);
    const Tensor targets = torch::tensor(std::vector<int64_t>(labels.begin(), labels.end()));
    return std::make_unique<TorchObjective>(
        TorchBlocks{{kClasses, kFeatures}, {kSamples}},
        kSamples,
        [=](const std::vector<Tensor>& blocks, const TorchSamples& samples) {
          const Tensor outputs = samples.Rows(features).mm(blocks[0].t());
          const Tensor losses =
              -outputs.log_softmax(1).gather(1, samples.Rows(targets).unsqueeze(1)).squeeze(1);
          return samples.Rows(blocks[1]).sigmoid() * losses / kSamples;
        },
        options);
  }

  RowMatrix a;
  std::vector<int> labels;
};

// Everything an objective of the blocks Theta and w says.
struct Evaluation {
  double value = NAN;
  Vector gradient, product;
};

Evaluation Evaluate(const Objective& objective,
                    const Batch& batch,
                    const Vector& point,
                    const Vector& direction,
                    int split) {
  Evaluation e;
  e.gradient = e.product = Vector::Zero(point.size());  // See Objective::block_of_terms.
  const double* blocks[] = {point.data(), point.data() + split};
  const double* along[] = {direction.data(), direction.data() + split};
  double* gradients[] = {e.gradient.data(), e.gradient.data() + split};
  double* products[] = {e.product.data(), e.product.data() + split};
  EXPECT_TRUE(objective.EvaluateWithProduct(blocks, batch, along, &e.value, gradients, products));
  return e;
}

Vector Wave(int size, double start) {
  return Vector::NullaryExpr(size, [=](Eigen::Index i) { return std::sin(start + 1.7 * i); });
}

TEST(TorchObjective, IsTheLinearModel) {
  const Softmax s;
  const int size = Softmax::kTheta + Softmax::kSamples;
  const Vector point = 0.5 * Wave(size, 0.3), direction = Wave(size, 2.0);
  const auto linear = s.Linear();
  std::vector<double> odds(Softmax::kSamples);
  for (int i = 0; i < Softmax::kSamples; ++i) odds[i] = 1.0 + i % 5;
  const Importance importance(odds);
  Batch by_importance{20, 3};
  by_importance.importance = &importance;
  const Batch batches[] = {Batch::All(),
                           Batch{20, 3},
                           Batch{20, 3, Batch::kDistinct},
                           Batch{32, 5, Batch::kShuffled, 7},
                           Batch::Block(64, 2),
                           Batch::One(11),
                           by_importance};
  TorchObjective::Options pieces, single;
  pieces.samples_at_once = 16;
  single.tensors = torch::kFloat;
  const std::pair<std::unique_ptr<TorchObjective>, double> objectives[] = {
      {s.Torch(), 1e-14}, {s.Torch(pieces), 1e-14}, {s.Torch(single), 2e-6}};
  for (const auto& [objective, tolerance] : objectives) {
    for (const Batch& batch : batches) {
      const Evaluation expected = Evaluate(*linear, batch, point, direction, Softmax::kTheta);
      const Evaluation e = Evaluate(*objective, batch, point, direction, Softmax::kTheta);
      EXPECT_NEAR(e.value, expected.value, tolerance * (1.0 + expected.value));
      EXPECT_LT((e.gradient - expected.gradient).norm(),
                tolerance * (1.0 + expected.gradient.norm()));
      EXPECT_LT((e.product - expected.product).norm(), tolerance * (1.0 + expected.product.norm()));
    }
  }
}

// Any subset of what may be asked for is the same as with everything.
TEST(TorchObjective, NullMeansZeroOrNotWanted) {
  const Softmax s;
  const int split = Softmax::kTheta, size = split + Softmax::kSamples;
  const Vector point = Wave(size, 0.3), direction = Wave(size, 2.0);
  const auto linear = s.Linear(), unused = s.Linear();
  const auto objective = s.Torch();
  const double* blocks[] = {point.data(), point.data() + split};
  for (int given = 0; given < 4; ++given) {
    Vector along_given = direction;
    if (!(given & 1)) along_given.head(split).setZero();
    if (!(given & 2)) along_given.tail(Softmax::kSamples).setZero();
    const Evaluation expected = Evaluate(*linear, Batch::All(), point, along_given, split);
    const double* along[] = {given & 1 ? direction.data() : nullptr,
                             given & 2 ? direction.data() + split : nullptr};
    for (int wanted = 0; wanted < 4; ++wanted) {
      Vector gradient = Vector::Constant(size, NAN), product = gradient;
      double* gradients[] = {wanted & 1 ? gradient.data() : nullptr,
                             wanted & 2 ? gradient.data() + split : nullptr};
      double* products[] = {wanted & 1 ? product.data() : nullptr,
                            wanted & 2 ? product.data() + split : nullptr};
      double value = NAN;
      ASSERT_TRUE(objective->Evaluate(blocks, Batch::All(), &value, gradients));
      ASSERT_TRUE(objective->HessianProduct(blocks, Batch::All(), along, products));
      EXPECT_NEAR(value, expected.value, 1e-14);
      for (int i = 0; i < size; ++i) {
        if (wanted & (i < split ? 1 : 2)) {
          EXPECT_NEAR(gradient[i], expected.gradient[i], 1e-14);
          EXPECT_NEAR(product[i], expected.product[i], 1e-14);
        } else {
          EXPECT_TRUE(std::isnan(gradient[i]) && std::isnan(product[i]));
        }
      }
    }
  }
}

// Two layers, 3 -> 4 -> 1.
struct Network : torch::nn::Module {
  explicit Network(torch::Dtype type = torch::kDouble) {
    const auto parameter = [&](const char* name, torch::IntArrayRef shape, double start) {
      int64_t size = 1;
      for (const int64_t n : shape) size *= n;
      const Tensor values = (torch::arange(size, torch::kDouble) * 1.7 + start).sin();
      return register_parameter(name, values.reshape(shape).to(type));
    };
    first = parameter("first", {4, 3}, 0.1);
    bias = parameter("bias", {4}, 0.2);
    second = parameter("second", {1, 4}, 0.3);
  }
  Tensor forward(const Tensor& inputs) const {
    return (inputs.mm(first.t()) + bias).tanh().mm(second.t()).squeeze(1);
  }
  Tensor first, bias, second;
};

// Squares of a network's errors on a curve, weighted by x.
std::unique_ptr<TorchObjective> Regression(const std::shared_ptr<Network>& net, int samples = 9) {
  const auto type = c10::typeMetaToScalarType(net->first.dtype());
  const Tensor t = torch::arange(samples, torch::kDouble) / 4.0;
  const Tensor inputs = torch::stack({t.sin(), t.cos(), t}, 1).to(type);
  const Tensor targets = (2.0 * t).sin().to(type);
  return std::make_unique<TorchObjective>(
      TorchBlocks{net, {2}},
      samples,
      [=](const std::vector<Tensor>& blocks, const TorchSamples& s) {
        const Tensor rows = s.Rows(inputs);
        const Tensor errors = net->forward(rows) - s.Rows(targets);
        return (blocks[1][0] + blocks[1][1] * rows.select(1, 2)).exp() * errors.square();
      });
}

constexpr int kNetworkSize = 4 * 3 + 4 + 4;

// Central differences of value and gradient: second order, fourth when extrapolated.
TEST(TorchObjective, DifferentiatesAModule) {
  const auto net = std::make_shared<Network>();
  const auto objective = Regression(net);
  const std::vector<double> start = TorchParameters(*net);
  ASSERT_EQ(start.size(), kNetworkSize);
  Vector point(kNetworkSize + 2);
  point << Eigen::Map<const Vector>(start.data(), kNetworkSize) + 0.1 * Wave(kNetworkSize, 1.0),
      -0.3, 0.4;
  const Vector direction = Wave(kNetworkSize + 2, 0.5);
  for (const Batch& batch : {Batch::All(), Batch{4, 2}, Batch::Block(5, 1)}) {
    const auto at = [&](double h) {
      return Evaluate(*objective, batch, point + h * direction, direction, kNetworkSize);
    };
    const Evaluation exact = at(0.0);
    double value_errors[2];
    Vector product_errors[2];
    for (const int k : {0, 1}) {
      const double h = k == 0 ? 0.02 : 0.01;
      const Evaluation plus = at(h), minus = at(-h);
      value_errors[k] = (plus.value - minus.value) / (2.0 * h) - exact.gradient.dot(direction);
      product_errors[k] = (plus.gradient - minus.gradient) / (2.0 * h) - exact.product;
    }
    EXPECT_NEAR(std::log2(std::abs(value_errors[0] / value_errors[1])), 2.0, 0.05);
    EXPECT_NEAR(std::log2(product_errors[0].norm() / product_errors[1].norm()), 2.0, 0.05);
    EXPECT_LT(std::abs(4.0 * value_errors[1] - value_errors[0]) / 3.0, 1e-5);
    EXPECT_LT((4.0 * product_errors[1] - product_errors[0]).norm() / 3.0,
              1e-4 * exact.product.norm());
  }
  EXPECT_EQ(TorchParameters(*net), start);  // Its own values again.
}

TEST(TorchObjective, ReadsAndWritesModules) {
  Network net(torch::kFloat);
  net.bias.set_requires_grad(false);  // Then it is a constant.
  std::vector<double> values = TorchParameters(net);
  ASSERT_EQ(values.size(), 16u);
  EXPECT_EQ(values[5], static_cast<double>(net.first[1][2].item<float>()));
  EXPECT_EQ(values[13], static_cast<double>(net.second[0][1].item<float>()));
  values[5] = 0.25;
  values[13] = -0.5;
  SetTorchParameters(values.data(), &net);
  EXPECT_EQ(net.first[1][2].item<float>(), 0.25f);
  EXPECT_EQ(TorchParameters(net), values);
  EXPECT_TRUE(net.first.requires_grad());
}

// x at all iterates of a run, then x and y in the end.
Vector RunMethod(std::shared_ptr<Method> method, bool torch) {
  const Softmax s;
  constexpr int kTheta = Softmax::kTheta, kSamples = Softmax::kSamples;
  Vector x = Vector::Zero(kSamples), y = Vector::Constant(kTheta, 0.1);
  Vector constant = Wave(kSamples, 1.0);
  const auto model = [&]() -> std::unique_ptr<Objective> {
    if (torch) return s.Torch();
    return s.Linear();
  };
  std::unique_ptr<Objective> ridge =
      std::make_unique<L2Regularizer>(Softmax::kClasses, Softmax::kFeatures, 0.05);
  if (torch) {
    ridge = std::make_unique<TorchObjective>(
        TorchBlocks{{kTheta}},
        [](const std::vector<Tensor>& blocks) { return 0.05 * blocks[0].square().sum(); });
  }
  Problem problem;
  problem.AddUpperParameterBlock(x.data(), kSamples);
  problem.AddTerm(Level::kLower, model(), {{y.data(), kTheta}, {x.data(), kSamples}});
  problem.AddTerm(Level::kLower, std::move(ridge), {{y.data(), kTheta}});
  problem.AddTerm(Level::kUpper, model(), {{y.data(), kTheta}, {constant.data(), kSamples}});
  problem.lower()->AddParameterBlock(constant.data(), kSamples);
  problem.lower()->SetParameterBlockConstant(constant.data());
  Solver::Options options;
  options.method = std::move(method);
  options.max_num_iterations = 15;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.message;
  std::vector<double> all;
  for (const IterationSummary& iteration : summary.iterations) {
    all.insert(all.end(), iteration.x.begin(), iteration.x.end());
  }
  all.insert(all.end(), x.begin(), x.end());
  all.insert(all.end(), y.begin(), y.end());
  return Eigen::Map<const Vector>(all.data(), all.size());
}

TEST(TorchObjective, MethodsTakeTheStepsOfTheLinearModel) {
  for (const char* name : {"lbfgs", "aid_cg", "bome", "itd", "slip"}) {
    const Vector expected = RunMethod(CreateMethod(name), false);
    const Vector actual = RunMethod(CreateMethod(name), true);
    EXPECT_GT(expected.head(expected.size() - Softmax::kTheta).norm(), 1e-6) << name;
    ASSERT_EQ(actual.size(), expected.size()) << name;
    EXPECT_LT((actual - expected).norm(), 1e-9 * expected.norm()) << name;
  }
}

// Scenarios are evaluated in parallel; a module is one evaluation's at a time.
TEST(TorchObjective, ThreadsShareAModule) {
  const auto run = [](int num_threads) {
    const auto net = std::make_shared<Network>();
    Vector x = Vector::Zero(2);
    std::vector<std::vector<double>> y(4, TorchParameters(*net));
    Problem problem;
    problem.AddUpperParameterBlock(x.data(), 2);
    for (int k = 0; k < 4; ++k) {
      Scenario* scenario = k == 0 ? problem.scenario(0) : problem.AddScenario(std::to_string(k));
      double* const theta = y[k].data();
      scenario->AddTerm(
          Level::kLower, Regression(net, 9 + k), {{theta, kNetworkSize}, {x.data(), 2}});
      scenario->AddTerm(Level::kLower,
                        std::make_unique<L2Regularizer>(1, kNetworkSize, 1.0),
                        {{theta, kNetworkSize}});
      scenario->AddTerm(Level::kUpper, Regression(net, 5), {{theta, kNetworkSize}, {x.data(), 2}});
    }
    Solver::Options options;
    UnrolledHypergradient::Options itd;
    itd.lower_step = 0.01;
    StepRule steps;
    steps.step = 0.01;
    options.method = std::make_shared<GradientMethod>(
        "itd", std::make_unique<UnrolledHypergradient>(itd), steps);
    options.max_num_iterations = 5;
    options.num_threads = num_threads;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.message;
    EXPECT_GT(x.norm(), 0.0);
    return x;
  };
  EXPECT_EQ(run(1), run(4));
}

// The term alone in a lower level of y, under another x.
std::string MessageOf(std::unique_ptr<Objective> term, int size) {
  double x = 0.5;
  std::vector<double> y(size, 0.1);
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddTerm(Level::kLower, std::move(term), {{y.data(), size}, {&x, 1}});
  problem.AddTerm(Level::kUpper, std::make_unique<L2Regularizer>(1, size), {{y.data(), size}});
  Solver::Options options;
  options.method = CreateMethod("aid_cg");
  options.max_num_iterations = 3;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  EXPECT_FALSE(summary.IsSolutionUsable());
  EXPECT_EQ(x, 0.5);
  EXPECT_EQ(y, std::vector<double>(size, 0.1));
  return summary.message;
}

TEST(TorchObjective, SaysWhatIsWrong) {
  using Blocks = std::vector<Tensor>;
  const auto of_samples = [](TorchObjective::SampleLoss loss) {
    return std::make_unique<TorchObjective>(TorchBlocks{{4}, {1}}, 6, std::move(loss));
  };
  // Sizes.
  EXPECT_EQ(
      MessageOf(of_samples([](const Blocks& b, const TorchSamples& s) { return s.Rows(b[0]); }), 3),
      "general term 0 of the lower problem: the tensor of block 0 of a Torch term has 4 "
      "numbers, the block 3");
  EXPECT_EQ(MessageOf(Regression(std::make_shared<Network>()), 20),
            "general term 0 of the lower problem: the tensor of block 1 of a Torch term has 2 "
            "numbers, the block 1");
  EXPECT_EQ(MessageOf(std::make_unique<TorchObjective>(TorchBlocks{{4}}, nullptr), 4),
            "general term 0 of the lower problem: a Torch term has no loss");
  // Torch's own error.
  EXPECT_THAT(MessageOf(of_samples([](const Blocks& b, const TorchSamples&) {
                          return b[0].reshape({2, 2}).mm(torch::ones({3, 1}, torch::kDouble));
                        }),
                        4),
              AllOf(HasSubstr("general term 0 of the lower problem threw: mat1 and mat2 shapes "
                              "cannot be multiplied (2x2 and 3x1)"),
                    testing::Not(HasSubstr("\n")),
                    testing::Not(HasSubstr("frame #"))));
  // The mean instead of the losses.
  EXPECT_THAT(
      MessageOf(of_samples([](const Blocks& b, const TorchSamples&) { return b[0].mean(); }), 4),
      HasSubstr("threw: the loss of a Torch term has the shape [] and not [6], one number for each "
                "of 6 samples"));
  // A user's exception, and a number that is not one for one sample.
  EXPECT_THAT(MessageOf(of_samples([](const Blocks&, const TorchSamples&) -> Tensor {
                          throw std::runtime_error("no such file");
                        }),
                        4),
              HasSubstr("general term 0 of the lower problem threw: no such file"));
  const auto nan_at_4 = [](const Blocks& b, const TorchSamples& s) {
    const Tensor roots = (4.0 - torch::arange(6, torch::kDouble)).sqrt();
    return (b[0] * b[1]).square().sum() * s.Rows(roots);
  };
  EXPECT_THAT(MessageOf(of_samples(nan_at_4), 4),
              HasSubstr("general term 0 of the lower problem has a value that is not finite "
                        "(sample 5)"));
  // Samples that cannot be evaluated alone, as under batch normalisation.
  EXPECT_THAT(MessageOf(of_samples([=](const Blocks& b, const TorchSamples& s) {
                          if (s.count == 1) throw std::runtime_error("more than one is needed");
                          return nan_at_4(b, s);
                        }),
                        4),
              HasSubstr("general term 0 of the lower problem has a value that is not finite"));
}

// No dependence, and no curvature: zeros, not an error.
TEST(TorchObjective, ConstantAndLinearFunctions) {
  const TorchObjective constant(TorchBlocks{{2}, {3}}, [](const std::vector<Tensor>&) {
    return torch::tensor(1.5, torch::kDouble);
  });
  const TorchObjective linear(TorchBlocks{{2}, {3}},
                              [](const std::vector<Tensor>& b) { return 2.0 * b[0].sum(); });
  for (const TorchObjective* objective : {&constant, &linear}) {
    const Evaluation e = Evaluate(*objective, Batch{3, 1}, Wave(5, 0.1), Wave(5, 1.0), 2);
    Vector expected = Vector::Zero(5);
    if (objective == &linear) expected.head(2).setConstant(2.0);
    EXPECT_EQ(e.gradient, expected);
    EXPECT_EQ(e.product, Vector::Zero(5));
  }
}

}  // namespace
}  // namespace bilevel
