// Learning one task after the other without forgetting: permuted MNIST with the contextual
// transformation network (Pham, Liu, Sahoo and Hoi, "Contextual transformation networks for online
// continual learning", ICLR 2021), whose controller x tells a base network y which task it sees.
//
//   lower level   min over y of the loss on the samples that come and on replayed ones
//   upper level   min over x of the loss on a few samples of each task kept apart
//
// The experiment of Liu, Ye, Wright, Stone and Liu, "BOME! Bilevel optimization made easy" (NeurIPS
// 2022), section 6. Each of 20 tasks is MNIST with its pixels in another order, of which 1000
// samples come once, ten at a time. Kept of each task are 50: 40 to replay (lower level), 10 apart
// (upper level), which is also all the method ever sees again. The lower level is
//
//   mean CE(new samples) + mean CE(replayed) + 400 mean KL(what the network said of them at the end
//   of their task, at temperature 5)
//
// With a_t^s the test accuracy on task s after training on task t, of T tasks,
//
//   ACC = 1/T sum_s a_T^s,   NBT = 1/T sum_s (a_s^s - a_T^s),   FT = 1/T sum_s a_s^s = ACC + NBT.
//
// Both levels are Torch functions (bilevel::TorchObjective) that change as samples come: one solve
// goes through all tasks.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/value_function/bome.h"
#include "bilevel/methods/value_function/bvfsm.h"
#include "bilevel/torch/torch_objective.h"
#include "examples/support/flags.h"
#include "examples/support/learning/experiment.h"
#include "examples/support/table.h"
#include "examples/support/text.h"
#include "torch/utils.h"

DEFINE_int32(tasks, 20, "permutations of the pixels, one after the other");
DEFINE_int32(visits, 2, "iterations on ten new samples");
DEFINE_int32(lower_steps, 2, "steps of y in an iteration");
DEFINE_double(lower_step, 0.05, "of these steps");
DEFINE_double(x_step, 0.05, "of x");
DEFINE_int32(replay, 40, "samples replayed in an iteration");
DEFINE_double(distillation, 400.0, "weight of KL; the released network's is 100");
DEFINE_int32(first_seed, 0, "the first of --seeds");

using bilevel::TorchObjective;
using examples::Digits;
using torch::Tensor;

namespace {

constexpr int kPixels = Digits::kPixels, kClasses = Digits::kClasses;
constexpr int kHidden = 100, kEmbedding = 16;
constexpr int kNew = 10, kReplayed = 40, kApart = 10;
constexpr double kTemperature = 5.0;
constexpr int kAllImages = 10000, kCurveImages = 1000;  // Of a task's test.

// The blocks of the network, in their order.
enum { kEmbeddings, kFilm1, kFilm1Bias, kFilm2, kFilm2Bias, kFirstOfY };
enum { kLayer1 = kFirstOfY, kBias1, kLayer2, kBias2, kLayer3, kBias3, kNumBlocks };

std::vector<std::vector<int64_t>> Shapes() {
  return {{FLAGS_tasks, kEmbedding},
          {2 * kHidden, kEmbedding},
          {2 * kHidden},
          {2 * kHidden, kEmbedding},
          {2 * kHidden},
          {kHidden, kPixels},
          {kHidden},
          {kHidden, kHidden},
          {kHidden},
          {kClasses, kHidden},
          {kClasses}};
}

// A layer's activations h become relu(h) + relu(gamma h + beta), gamma and beta of length 1, by
// the task.
Tensor Transform(const Tensor& h, const Tensor& embedded, const Tensor& film, const Tensor& bias) {
  const auto unit = [](const Tensor& t) { return t / t.norm(2, {1}, true); };
  const Tensor both = torch::addmm(bias, embedded, film.t());
  const Tensor gamma = unit(both.narrow(1, 0, kHidden)),
               beta = unit(both.narrow(1, kHidden, kHidden));
  return h.relu() + (gamma * h + beta).relu();
}

Tensor Logits(const std::vector<Tensor>& b, const Tensor& images, const Tensor& tasks) {
  const Tensor embedded = b[kEmbeddings].index_select(0, tasks);
  const Tensor h1 = Transform(
      torch::addmm(b[kBias1], images, b[kLayer1].t()), embedded, b[kFilm1], b[kFilm1Bias]);
  const Tensor h2 =
      Transform(torch::addmm(b[kBias2], h1, b[kLayer2].t()), embedded, b[kFilm2], b[kFilm2Bias]);
  return torch::addmm(b[kBias3], h2, b[kLayer3].t());
}

// Samples of several tasks, a row each.
struct Rows {
  Tensor images, tasks, labels;
};

Tensor CrossEntropies(const std::vector<Tensor>& blocks, const Rows& rows) {
  return -Logits(blocks, rows.images, rows.tasks)
              .log_softmax(1)
              .gather(1, rows.labels.unsqueeze(1))
              .squeeze(1);
}

// x and y in their memory.
struct Network {
  explicit Network(int seed) {
    std::mt19937_64 generator(2000 + seed);
    for (const std::vector<int64_t>& shape : Shapes()) {
      int64_t size = 1;
      for (const int64_t n : shape) size *= n;
      std::vector<double> block(size, 0.0);  // Biases.
      if (values.empty()) {
        std::normal_distribution<double> normal;
        for (double& v : block) v = normal(generator);
      } else if (shape.size() == 2) {  // Glorot and Bengio, 2010.
        const double limit = std::sqrt(6.0 / (shape[0] + shape[1]));
        std::uniform_real_distribution<double> uniform(-limit, limit);
        for (double& v : block) v = uniform(generator);
      }
      values.push_back(std::move(block));
    }
  }
  std::vector<Tensor> Tensors() const {
    const auto shapes = Shapes();
    std::vector<Tensor> tensors;
    for (size_t i = 0; i < values.size(); ++i) {
      const auto view =
          torch::from_blob(const_cast<double*>(values[i].data()), shapes[i], torch::kDouble);
      tensors.push_back(view.to(torch::kFloat));
    }
    return tensors;
  }
  std::vector<bilevel::Scenario::TermBlock> Blocks() {
    std::vector<bilevel::Scenario::TermBlock> blocks;
    for (auto& block : values) blocks.push_back({block.data(), static_cast<int>(block.size())});
    return blocks;
  }
  std::vector<std::vector<double>> values;
};

// The samples of all tasks as they come, and what is kept of them.
class Stream {
 public:
  Stream(const Digits& digits, int samples, int seed, const Network* network)
      : network_(*network), samples_(samples), generator_(3000 + seed) {
    const auto images = [](const auto& pixels) {
      return torch::from_blob(
                 const_cast<unsigned char*>(pixels.data()), {pixels.rows(), kPixels}, torch::kUInt8)
                 .to(torch::kFloat) /
             255.0;
    };
    const auto integers = [](const std::vector<int>& v) {
      return torch::tensor(std::vector<int64_t>(v.begin(), v.end()));
    };
    train_ = images(digits.train);
    test_ = images(digits.test);
    train_labels_ = integers(digits.train_labels);
    test_labels_ = integers(digits.test_labels);
    std::vector<int64_t> pixels(kPixels), order(digits.train_labels.size());
    std::iota(pixels.begin(), pixels.end(), 0);
    std::iota(order.begin(), order.end(), 0);
    for (int t = 0; t < FLAGS_tasks; ++t) {
      std::shuffle(pixels.begin(), pixels.end(), generator_);
      std::shuffle(order.begin(), order.end(), generator_);
      permutations_.push_back(torch::tensor(pixels));
      drawn_.push_back(torch::tensor(std::vector<int64_t>(order.begin(), order.begin() + samples)));
      replayed_.push_back({});
      apart_.push_back({});
    }
  }

  int num_batches() const { return FLAGS_tasks * (samples_ / kNew); }

  // To where iteration k + 1 begins.
  void Advance(int k) {
    while (batch_ < std::min(num_batches() - 1, k / FLAGS_visits)) Take(++batch_);
    DrawReplay();
  }

  Tensor LowerLoss(const std::vector<Tensor>& blocks) const {
    const Tensor logits = Logits(blocks, lower_.images, lower_.tasks);
    const Tensor losses = -logits.log_softmax(1).gather(1, lower_.labels.unsqueeze(1)).squeeze(1);
    Tensor loss = losses.dot(weights_);
    if (batch_ >= samples_ / kNew) {
      const Tensor said =
          (logits.narrow(0, num_new_, targets_.size(0)) / kTemperature).log_softmax(1);
      loss =
          loss + FLAGS_distillation * (torch::xlogy(targets_, targets_) - targets_ * said).mean();
    }
    return loss;
  }
  Tensor UpperLoss(const std::vector<Tensor>& blocks) const {
    return CrossEntropies(blocks, upper_).mean();
  }

  // All samples of all tasks.
  Rows All() const {
    Rows rows;
    std::vector<Tensor> images, tasks, labels;
    for (int t = 0; t < FLAGS_tasks; ++t) {
      const Rows own = Take(t, drawn_[t]);
      images.push_back(own.images);
      tasks.push_back(own.tasks);
      labels.push_back(own.labels);
    }
    return {torch::cat(images), torch::cat(tasks), torch::cat(labels)};
  }

  // Accuracy on the first test images of task s. Not the images' pixels but the first layer's are
  // put in order.
  double Accuracy(int s, int64_t num_images) const {
    const torch::NoGradGuard no_gradients;
    std::vector<Tensor> blocks = network_.Tensors();
    Tensor& layer = blocks[kLayer1];
    layer = layer.index_select(1, permutations_[s].argsort());
    const int64_t n = std::min(num_images, test_.size(0));
    const Tensor tasks = torch::full({n}, s, torch::kLong);
    const Tensor said = Logits(blocks, test_.narrow(0, 0, n), tasks).argmax(1);
    return said.eq(test_labels_.narrow(0, 0, n)).to(torch::kDouble).mean().item<double>();
  }

 private:
  // Samples of the training set as task t sees them.
  Rows Take(int t, const Tensor& samples) const {
    return {train_.index_select(0, samples).index_select(1, permutations_[t]),
            torch::full({samples.size(0)}, t, torch::kLong),
            train_labels_.index_select(0, samples)};
  }
  static Rows Join(const std::vector<Rows>& parts) {
    std::vector<Tensor> images, tasks, labels;
    for (const Rows& part : parts) {
      images.push_back(part.images);
      tasks.push_back(part.tasks);
      labels.push_back(part.labels);
    }
    return {torch::cat(images), torch::cat(tasks), torch::cat(labels)};
  }

  // The first of ten new samples is kept apart, for the one that was longest; the others, and that
  // one, are learned and kept to replay.
  void Take(int batch) {
    const int per_task = samples_ / kNew, t = batch / per_task, first = batch % per_task * kNew;
    if (first == 0 && t > 0) RememberWhatWasSaid(t - 1);
    const int64_t* drawn = drawn_[t].data_ptr<int64_t>() + first;
    std::vector<int64_t> learned(drawn + 1, drawn + kNew);
    Keep(drawn[0], kApart, first / kNew, &apart_[t], &learned);
    for (size_t i = 0; i < learned.size(); ++i) {
      Keep(learned[i], kReplayed, num_kept_++, &replayed_[t], nullptr);
    }
    new_ = Take(t, torch::tensor(learned));
    std::vector<Rows> apart;
    for (int s = 0; s <= t; ++s) apart.push_back(Take(s, torch::tensor(apart_[s])));
    upper_ = Join(apart);
    task_ = t;
  }
  static void Keep(int64_t sample,
                   int most,
                   int number,
                   std::vector<int64_t>* kept,
                   std::vector<int64_t>* displaced) {
    if (static_cast<int>(kept->size()) < most) {
      kept->push_back(sample);
      return;
    }
    if (displaced) displaced->push_back((*kept)[number % most]);
    (*kept)[number % most] = sample;
  }
  void RememberWhatWasSaid(int t) {
    const torch::NoGradGuard no_gradients;
    const Rows kept = Take(t, torch::tensor(replayed_[t]));
    old_.push_back(kept);
    said_.push_back(
        (Logits(network_.Tensors(), kept.images, kept.tasks) / kTemperature).softmax(1));
    num_kept_ = 0;
  }

  // The lower level's samples: the new ones, then the replayed.
  void DrawReplay() {
    Rows kept = Take(task_, torch::tensor(replayed_[task_]));
    const int64_t own = kept.labels.size(0);
    Tensor said = torch::zeros({own, kClasses});
    if (!old_.empty()) {
      std::vector<Rows> all = old_;
      all.push_back(kept);
      kept = Join(all);
      std::vector<Tensor> targets = said_;
      targets.push_back(said);
      said = torch::cat(targets);
    }
    const int64_t n = kept.labels.size(0), m = std::min<int64_t>(FLAGS_replay, n);
    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    for (int64_t i = 0; i < m; ++i) {
      std::swap(order[i], order[std::uniform_int_distribution<int64_t>(i, n - 1)(generator_)]);
    }
    order.resize(m);
    const Tensor drawn = torch::tensor(order);
    num_new_ = new_.labels.size(0);
    lower_ = Join({new_,
                   {kept.images.index_select(0, drawn),
                    kept.tasks.index_select(0, drawn),
                    kept.labels.index_select(0, drawn)}});
    targets_ = said.index_select(0, drawn);
    weights_ = torch::cat({torch::full({num_new_}, 1.0 / num_new_, torch::kFloat),
                           torch::full({m}, 1.0 / m, torch::kFloat)});
  }

  const Network& network_;
  const int samples_;
  std::mt19937_64 generator_;
  Tensor train_, test_, train_labels_, test_labels_;
  std::vector<Tensor> permutations_, drawn_;
  std::vector<std::vector<int64_t>> replayed_, apart_;  // By task.
  int batch_ = -1, task_ = 0, num_kept_ = 0;
  int64_t num_new_ = 0;
  Rows new_, lower_, upper_;
  std::vector<Rows> old_;
  std::vector<Tensor> said_;
  Tensor targets_, weights_;
};

class Advance : public bilevel::IterationCallback {
 public:
  explicit Advance(Stream* stream) : stream_(*stream) {}
  ceres::CallbackReturnType operator()(const bilevel::IterationSummary& iteration) override {
    stream_.Advance(iteration.iteration);
    return ceres::SOLVER_CONTINUE;
  }

 private:
  Stream& stream_;
};

// What the released network does: steps of y, then the gradient of f at this y, as if y did not
// depend on x.
class DirectGradient : public bilevel::HypergradientEstimator {
 public:
  explicit DirectGradient(const bilevel::LowerSteps& steps) : unroll_(steps) {}
  double Estimate(bilevel::Oracle& oracle,
                  bilevel::State& state,
                  bilevel::Vector* gradient) override {
    unroll_.Run(oracle, state.x, 0, &state.y);
    return oracle.f.Gradient(state.x, state.y, gradient, &fy_);
  }

 private:
  bilevel::Unroll unroll_;
  bilevel::Vector fy_;
};

// No method: there is none of that name.
std::shared_ptr<bilevel::Method> MakeMethod(const std::string& name) {
  bilevel::StepRule x;
  x.step = FLAGS_x_step;
  const auto set = [](auto* options) {
    options->num_lower_steps = FLAGS_lower_steps;
    options->lower_step = FLAGS_lower_step;
  };
  std::unique_ptr<bilevel::HypergradientEstimator> estimator;
  if (name == "bome") {
    bilevel::Bome::Options options;
    set(&options);
    options.lower_level = bilevel::Bome::kGradientSteps;
    options.x = options.y = x;
    options.y.step = 2.0 * FLAGS_lower_step;  // One step an iteration, of which half is on g.
    options.epsilon = 1e-8;
    return std::make_shared<bilevel::Bome>(options);
  }
  if (name == "aid") {
    bilevel::AidHypergradient::Options options;
    set(&options);
    options.kind = bilevel::AdjointSteps::kNeumann;
    options.linear_step = FLAGS_lower_step;
    estimator = std::make_unique<bilevel::AidHypergradient>(options);
  } else if (name == "itd") {
    bilevel::UnrolledHypergradient::Options options;
    set(&options);
    estimator = std::make_unique<bilevel::UnrolledHypergradient>(options);
  } else if (name == "direct") {
    bilevel::LowerSteps options;
    set(&options);
    estimator = std::make_unique<DirectGradient>(options);
  } else if (name == "bvfsm") {
    bilevel::BvfsmHypergradient::Options options;
    options.barrier = bilevel::BvfsmHypergradient::kDetached;
    options.num_w_steps = options.num_y_steps = FLAGS_lower_steps;
    options.w.step = options.y.step = FLAGS_lower_step;
    options.mu = options.theta = 0.0;
    options.sigma = options.offset = 1.0;  // The weight of g is 1 / (1 + g).
    options.decay = false;
    estimator = std::make_unique<bilevel::BvfsmHypergradient>(options);
  } else {
    return nullptr;
  }
  return std::make_shared<bilevel::GradientMethod>(name, std::move(estimator), x);
}

// All tasks at once, by a few epochs of minibatches of ten: the single level that knows everything.
void FitOffline(const Stream& stream, int seed, Network* network) {
  constexpr int kEpochs = 3;
  const Rows all = stream.All();
  const int n = static_cast<int>(all.labels.size(0));
  TorchObjective::Options options;
  options.tensors = torch::kFloat;
  bilevel::TorchBlocks shapes;
  for (const auto& shape : Shapes()) shapes.emplace_back(shape);
  const TorchObjective loss(
      shapes,
      n,
      [&](const std::vector<Tensor>& blocks, const bilevel::TorchSamples& samples) {
        const Rows rows = {
            samples.Rows(all.images), samples.Rows(all.tasks), samples.Rows(all.labels)};
        return CrossEntropies(blocks, rows) / n;
      },
      options);
  std::vector<std::vector<double>> gradient = network->values;
  std::vector<const double*> blocks;
  std::vector<double*> gradients;
  for (size_t i = 0; i < gradient.size(); ++i) {
    blocks.push_back(network->values[i].data());
    gradients.push_back(gradient[i].data());
  }
  bilevel::Batch batch{kNew, static_cast<uint64_t>(seed), bilevel::Batch::kShuffled, 0};
  for (; batch.position < static_cast<uint64_t>(kEpochs * n / kNew); ++batch.position) {
    double value;
    loss.Evaluate(blocks.data(), batch, &value, gradients.data());
    for (size_t i = 0; i < gradient.size(); ++i) {
      for (size_t j = 0; j < gradient[i].size(); ++j) {
        network->values[i][j] -= FLAGS_lower_step * gradient[i][j];
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags(
      "Learns one permutation of MNIST after the other without forgetting.", &argc, &argv);
  if (FLAGS_quick) {
    FLAGS_tasks = 3;
    FLAGS_seeds = 1;
    FLAGS_budget = 0.3;
    FLAGS_num_threads = 1;
    if (FLAGS_methods.empty()) FLAGS_methods = "bome,aid";
  }
  if (FLAGS_methods.empty()) FLAGS_methods = "offline,direct,itd,bvfsm,bome,aid";
  torch::set_num_threads(FLAGS_num_threads);
  std::string error;
  Digits digits;
  if (!examples::ReadDigits("mnist", &digits, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const int samples = static_cast<int>(FLAGS_budget * 1000.0) / kNew * kNew;
  if (FLAGS_tasks < 1 || FLAGS_visits < 1 || FLAGS_replay < 1 || samples < kNew ||
      samples > digits.train.rows()) {
    std::fprintf(
        stderr,
        "--tasks, --visits and --replay must be at least 1, and --budget from 0.01 to 60\n");
    return 1;
  }
  const std::vector<std::string> methods = examples::SplitList(FLAGS_methods);
  for (const std::string& name : methods) {
    if (name == "offline" || MakeMethod(name)) continue;
    std::fprintf(stderr,
                 "--methods: \"%s\" is none of offline, direct, itd, bvfsm, bome, aid\n",
                 name.c_str());
    return 1;
  }
  examples::Runs runs;
  if (!runs.Open(FLAGS_csv, {"ACC", "NBT", "FT"}, {"accuracy on the tasks so far"}, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const std::string setting =
      std::to_string(FLAGS_tasks) + " tasks of " + std::to_string(samples) + " samples";
  for (int seed = FLAGS_first_seed; seed < FLAGS_first_seed + FLAGS_seeds; ++seed) {
    for (const std::string& name : methods) {
      if (runs.Has(setting, name, seed)) continue;
      examples::Runs::Run run{setting, name, seed, 0.0, {}, {}};
      Network network(seed);
      Stream stream(digits, samples, seed, &network);
      const auto mean_accuracy = [&](int num_tasks, int64_t num_images) {
        double sum = 0.0;
        for (int s = 0; s < num_tasks; ++s) sum += stream.Accuracy(s, num_images);
        return sum / num_tasks;
      };
      if (name == "offline") {
        FitOffline(stream, seed, &network);
        run.metrics = {mean_accuracy(FLAGS_tasks, kAllImages), NAN, NAN};
      } else {
        bilevel::Problem problem;
        const auto blocks = network.Blocks();
        for (int i = 0; i < kFirstOfY; ++i) {
          problem.AddUpperParameterBlock(blocks[i].values, blocks[i].size);
        }
        TorchObjective::Options single;
        single.tensors = torch::kFloat;
        bilevel::TorchBlocks shapes;
        for (const auto& shape : Shapes()) shapes.emplace_back(shape);
        const auto add = [&](bilevel::Level level, TorchObjective::Loss loss) {
          problem.AddTerm(level, std::make_unique<TorchObjective>(shapes, loss, single), blocks);
        };
        add(bilevel::Level::kLower, [&](const auto& b) { return stream.LowerLoss(b); });
        add(bilevel::Level::kUpper, [&](const auto& b) { return stream.UpperLoss(b); });
        bilevel::Solver::Options options;
        options.method = MakeMethod(name);
        options.seed = seed;
        options.max_num_iterations = stream.num_batches() * FLAGS_visits;
        const int per_task = options.max_num_iterations / FLAGS_tasks;
        stream.Advance(0);
        Advance advance(&stream);
        options.callbacks.push_back(&advance);
        double ft = 0.0, acc = 0.0;
        const auto measure = [&] {
          const int tasks = static_cast<int>(run.curve.size());
          if (tasks == 0) return std::vector<double>{NAN};  // Not drawn: nothing is learned yet.
          ft += stream.Accuracy(tasks - 1, kAllImages) / FLAGS_tasks;
          if (tasks == FLAGS_tasks) acc = mean_accuracy(tasks, kAllImages);
          return std::vector<double>{mean_accuracy(tasks, kCurveImages)};
        };
        if (!examples::Follow(options, &problem, per_task, measure, &run.curve, &error)) {
          std::fprintf(stderr, "%s, seed %d: %s\n", name.c_str(), seed, error.c_str());
          return 1;
        }
        run.metrics = {acc, ft - acc, ft};
        run.seconds = run.curve.back().seconds;
      }
      std::printf("%s, seed %d: %.1f s, ACC %.2f %%, NBT %.2f %%, FT %.2f %%\n",
                  name.c_str(),
                  seed,
                  run.seconds,
                  100.0 * run.metrics[0],
                  100.0 * run.metrics[1],
                  100.0 * run.metrics[2]);
      std::fflush(stdout);
      if (!runs.Add(run)) return 1;
    }
  }
  std::printf(
      "\nPermuted MNIST, %s. Test accuracy (%%): mean over the tasks in the end (ACC), what they\n"
      "lost since they were learned (NBT), what it was then (FT).\n\n%s",
      setting.c_str(),
      runs.Table(setting, {100.0, 100.0, 100.0}).c_str());
  examples::Json json;
  for (const std::string& name : methods) {
    json.Add(name,
             examples::Json()
                 .Add("ACC", runs.Mean(setting, name, 0))
                 .Add("NBT", runs.Mean(setting, name, 1))
                 .Add("FT", runs.Mean(setting, name, 2)));
  }
  bool good = examples::WriteFile(FLAGS_summary_json, json.ToString());
  good = examples::WriteFile(FLAGS_trace_csv, runs.CurvesCsv()) && good;
  good = runs.Plot(FLAGS_plot, "Permuted MNIST, " + setting, setting, 0, {}) && good;
  return good ? 0 : 1;
}
