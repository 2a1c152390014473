// A regularisation weight for each of the 130,000 words of a classifier of newsgroups.
//
//   lower level   min over Theta of the mean CE over training posts
//                 + the mean over kj of e^{x_j} Theta_kj^2 / 2
//   upper level   min over x of the mean CE over validation posts
//
// The experiment of Liu, Ye, Wright, Stone and Liu, "BOME! Bilevel optimization made easy" (NeurIPS
// 2022), section 6: 20 Newsgroups by date, word counts of length 1 a post; half of the 11,314
// training posts are for validation, half of the 7,532 test posts to select the iterate whose
// accuracy on the other half is reported. x starts at 0, Theta at the fit without regularisation.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/value_function/bome.h"
#include "examples/support/flags.h"
#include "examples/support/learning/experiment.h"
#include "examples/support/learning/libsvm.h"
#include "examples/support/table.h"
#include "examples/support/text.h"

DEFINE_string(words, "bydate", "bydate: all 130,000; w1000: the 1000 most frequent stems");
DEFINE_int32(iterations, 1000, "of bome_T1; other methods: as many gradients and products");
DEFINE_int32(lbfgs_iterations, 20, "of exact implicit differentiation");
DEFINE_int32(hoag_iterations, 12, "of the same by Adam, each only as exact as needed");
DEFINE_double(lower_step, 100.0, "of the steps on the lower level within an iteration");
DEFINE_double(y_step, 100.0, "of bome's Theta, with momentum 0.9");
DEFINE_double(x_step, 100.0, "of x, with momentum 0.9");
DEFINE_double(adam_step, 0.3, "of hoag's x");

using bilevel::LinearModel;
using bilevel::StepRule;
using examples::SparseSamples;

namespace {

constexpr int kClasses = 20;

// Posts of one half of an order.
std::unique_ptr<LinearModel> Half(const SparseSamples& posts,
                                  const std::vector<int>& order,
                                  bool second) {
  const int n = static_cast<int>(order.size()), begin = second ? n / 2 : 0,
            end = second ? n : n / 2;
  Eigen::SparseMatrix<float, Eigen::RowMajor> words(end - begin, posts.features.cols());
  std::vector<Eigen::Triplet<float>> entries;
  std::vector<int> labels;
  for (int i = begin; i < end; ++i) {
    for (decltype(posts.features)::InnerIterator it(posts.features, order[i]); it; ++it) {
      entries.emplace_back(i - begin, static_cast<int>(it.col()), static_cast<float>(it.value()));
    }
    labels.push_back(posts.labels[order[i]]);
  }
  words.setFromTriplets(entries.begin(), entries.end());
  LinearModel::Options options;
  options.num_threads = FLAGS_num_threads;
  return bilevel::SoftmaxRegression(bilevel::Features(words), labels, kClasses, options);
}

std::vector<int> Shuffled(size_t size, std::mt19937_64* generator) {
  std::vector<int> order(size);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), *generator);
  return order;
}

double Loss(const LinearModel& model, const std::vector<double>& theta) {
  const double* blocks[] = {theta.data()};
  double value = 0.0;
  model.Evaluate(blocks, bilevel::Batch::All(), &value, nullptr);
  return value;
}

// "bome_T5": five steps on the lower level within an iteration.
std::pair<std::string, int> Split(const std::string& name) {
  const size_t t = name.find("_T");
  return {name.substr(0, t), t == std::string::npos ? 10 : std::atoi(name.c_str() + t + 2)};
}

int Iterations(const std::string& name) {
  const auto [base, steps] = Split(name);
  const double calls = base == "bome" ? steps + 3 : base == "itd" ? 2 * steps + 1 : steps + 13;
  const double own = name == "lbfgs"  ? FLAGS_lbfgs_iterations
                     : name == "hoag" ? FLAGS_hoag_iterations
                                      : FLAGS_iterations * 4.0 / calls;
  return std::max(1, static_cast<int>(FLAGS_budget * own));
}

std::shared_ptr<bilevel::Method> Create(const std::string& name) {
  StepRule x;
  x.kind = StepRule::kMomentum;
  x.step = FLAGS_x_step;
  const auto [base, steps] = Split(name);
  if (name == "lbfgs") return bilevel::CreateMethod(name);
  if (name == "hoag") {
    x.kind = StepRule::kAdam;  // Its steps on x, a logarithm, are of a like size in all words.
    x.step = FLAGS_adam_step;
    return std::make_shared<bilevel::GradientMethod>(
        name,
        std::make_unique<bilevel::HoagHypergradient>(bilevel::HoagHypergradient::Options()),
        x);
  }
  if (base == "bome") {
    bilevel::Bome::Options options;
    options.lower_level = bilevel::Bome::kGradientSteps;
    options.barrier = bilevel::Bome::kValueBarrier;
    options.eta = 1e-4;
    options.num_lower_steps = steps;
    options.lower_step = FLAGS_lower_step;
    options.epsilon = 1e-8;
    options.x = options.y = x;
    options.y.step = FLAGS_y_step;
    return std::make_shared<bilevel::Bome>(options);
  }
  if (base == "aid_cg") {
    bilevel::AidHypergradient::Options options;
    options.num_lower_steps = steps;
    options.lower_step = FLAGS_lower_step;
    return std::make_shared<bilevel::GradientMethod>(
        base, std::make_unique<bilevel::AidHypergradient>(options), x);
  }
  if (base == "itd") {
    bilevel::UnrolledHypergradient::Options options;
    options.num_lower_steps = steps;
    options.lower_step = FLAGS_lower_step;
    return std::make_shared<bilevel::GradientMethod>(
        base, std::make_unique<bilevel::UnrolledHypergradient>(options), x);
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags(
      "Learns a regularisation weight for each word of a classifier.", &argc, &argv);
  if (FLAGS_quick) {
    FLAGS_seeds = 1;
    FLAGS_budget = 0.05;
    FLAGS_words = "w1000";
    if (FLAGS_methods.empty()) FLAGS_methods = "bome_T1";
  }
  if (FLAGS_methods.empty()) FLAGS_methods = "bome_T1,bome_T5,bome_T10,bome_T20,aid_cg,itd,hoag";
  const std::vector<std::string> methods = examples::SplitList(FLAGS_methods);
  for (const std::string& name : methods) {
    if (Create(name)) continue;
    std::fprintf(
        stderr,
        "--methods: \"%s\" is none of bome_T<steps>, aid_cg[_T<steps>], itd[_T<steps>], hoag, "
        "lbfgs\n",
        name.c_str());
    return 1;
  }
  std::string error;
  const std::string folder = examples::FindData(
      "news20",
      "20news_" + FLAGS_words + "_counts_train.libsvm",
      {},
      "It is 20 Newsgroups by date as word counts in LIBSVM's format, classes from 0, and its pair "
      "..._test.libsvm.",
      &error);
  SparseSamples train, test;
  std::vector<int> classes(kClasses);
  std::iota(classes.begin(), classes.end(), 0);
  const auto path = [&](const std::string& part) {
    const std::string plain = folder + "/20news_" + FLAGS_words + "_counts_" + part + ".libsvm";
    return std::ifstream(plain).good() ? plain : plain + ".gz";
  };
  if (folder.empty() || !examples::ReadLibsvm(path("train"), classes, 1, 0, &train, &error) ||
      !examples::ReadLibsvm(
          path("test"), classes, 1, static_cast<int>(train.features.cols()), &test, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const int words = static_cast<int>(train.features.cols()), size = words * kClasses;
  examples::Runs runs;
  if (!runs.Open(FLAGS_csv,
                 {"accuracy", "selected", "f"},
                 {"test accuracy", "selection loss", "f"},
                 &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const std::string setting = "news20 " + FLAGS_words, line = "without regularisation";
  for (int seed = 0; seed < FLAGS_seeds; ++seed) {
    std::vector<std::string> missing;
    for (const std::string& name : methods) {
      if (!runs.Has(setting, name, seed)) missing.push_back(name);
    }
    if (missing.empty() && runs.Has(setting, line, seed)) continue;
    std::mt19937_64 generator(3000 + seed);
    const std::vector<int> order = Shuffled(train.labels.size(), &generator);
    const std::vector<int> test_order = Shuffled(test.labels.size(), &generator);
    const auto fit_to = Half(train, order, false), validation = Half(train, order, true);
    const auto selection = Half(test, test_order, false), held_out = Half(test, test_order, true);
    std::vector<double> start(size, 0.0);
    examples::Fit({{fit_to.get(), nullptr}}, 100, &start);
    if (!runs.Has(setting, line, seed)) {
      const double accuracy = held_out->Accuracy(start.data());
      if (!runs.Add({setting, line, seed, 0.0, {accuracy, accuracy, Loss(*validation, start)}, {}}))
        return 1;
    }
    for (const std::string& name : missing) {
      std::vector<double> theta = start, x(words, 0.0);
      bilevel::Problem problem;
      problem.AddUpperParameterBlock(x.data(), words);
      problem.SetParameterName(x.data(), "x");
      // Above it steps on the lower level overshoot. Ceres' line search has no bounds, nor steps.
      const double most = std::log(size / FLAGS_lower_step);
      for (int j = 0; name != "lbfgs" && j < words; ++j) {
        problem.SetParameterUpperBound(x.data(), j, most);
      }
      problem.SetParameterName(theta.data(), "Theta");
      problem.AddTerm(bilevel::Level::kLower, Half(train, order, false), {{theta.data(), size}});
      problem.AddTerm(bilevel::Level::kLower,
                      std::make_unique<bilevel::L2Regularizer>(
                          kClasses, words, 0.5 / size, bilevel::L2Regularizer::kPerFeature),
                      {{theta.data(), size}, {x.data(), words}});
      problem.AddTerm(bilevel::Level::kUpper, Half(train, order, true), {{theta.data(), size}});
      bilevel::Solver::Options options;
      options.method = Create(name);
      options.max_num_iterations = Iterations(name);
      options.seed = seed;
      const auto measure = [&] {
        return std::vector<double>{
            held_out->Accuracy(theta.data()), Loss(*selection, theta), Loss(*validation, theta)};
      };
      examples::Runs::Run run{setting, name, seed, 0.0, {}, {}};
      if (!examples::Follow(options,
                            &problem,
                            std::max(1, options.max_num_iterations / 50),
                            measure,
                            &run.curve,
                            &error)) {
        std::fprintf(stderr, "%s, seed %d: %s\n", name.c_str(), seed, error.c_str());
        return 1;
      }
      const examples::CurvePoint& last = run.curve.back();
      const auto selected =
          std::min_element(run.curve.begin(), run.curve.end(), [](const auto& a, const auto& b) {
            return a.metrics[1] < b.metrics[1];
          });
      run.seconds = last.seconds;
      run.metrics = {last.metrics[0], selected->metrics[0], last.metrics[2]};
      std::printf("%s, seed %d: %d iterations in %.1f s, f %.4f, test accuracy %.2f %%\n",
                  name.c_str(),
                  seed,
                  last.iteration,
                  last.seconds,
                  last.metrics[2],
                  100.0 * run.metrics[0]);
      std::fflush(stdout);
      if (!runs.Add(run)) return 1;
    }
  }
  std::printf(
      "\n%d words. Test accuracy (%%) in the end and of the iterate with the least loss on the "
      "selection\nposts; f.\n\n%s",
      words,
      runs.Table(setting, {100.0, 100.0, 1.0}).c_str());
  examples::Json json;
  json.Add("start", runs.Mean(setting, line, 1)).Add("start f", runs.Mean(setting, line, 2));
  for (const std::string& name : methods) {
    json.Add(name, runs.Mean(setting, name, 1)).Add(name + " f", runs.Mean(setting, name, 2));
  }
  bool good = examples::WriteFile(FLAGS_summary_json, json.ToString());
  good = examples::WriteFile(FLAGS_trace_csv, runs.CurvesCsv()) && good;
  good = runs.Plot(FLAGS_plot,
                   "A weight for each word",
                   setting,
                   2,
                   {{line, runs.Mean(setting, line, 2)}}) &&
         good;
  return good ? 0 : 1;
}
