// Cleaning of labels of texts: a share p of the labels of 61,440 tweets is turned round, and a
// weight for each of them is learned from 10,240 tweets with right labels.
//
//   lower level   min over theta of 1/n sum_i sigmoid(x_i) CE(theta' a_i; b_i) + ridge |theta|^2
//   upper level   min over x of the mean CE over the clean tweets
//
// The experiment of Gong, Hao and Liu, "A nearly optimal single loop algorithm for stochastic
// bilevel optimization under unbounded smoothness" (ICML 2024), for p = 0.2 and 0.4: minibatches of
// 512, 25 epochs of SLIP, x_i = 1 in the beginning, seeds 0 to 4. Their classifier is a recurrent
// network on given word vectors; here a_i are the words and pairs of neighbouring words of a tweet.
// Every method has the same budget of gradients and products, and the constant steps that a search
// of the same effort finds best on 8,320 further tweets (--search); 20,000 are for the test.
//
// Beside the methods stand fits to all noisy and clean tweets, to the clean ones alone, and to the
// clean ones and those whose label is right; and exact implicit differentiation with L-BFGS.
#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/step_search.h"
#include "examples/support/experiment.h"
#include "examples/support/flags.h"
#include "examples/support/minibatch_methods.h"
#include "examples/support/table.h"
#include "examples/support/text.h"

DEFINE_double(p, 0.2, "the share of the training labels that are turned round");
DEFINE_int32(epochs, 25, "SLIP's passes over the training tweets; other methods: as many calls");
DEFINE_double(ridge, 1e-5, "of the lower level");
DEFINE_int32(lbfgs_iterations, 20, "of exact implicit differentiation");
DEFINE_bool(search, false, "search for the methods' steps on seed 0, and print them");
DEFINE_double(y_step, 0.0, "of every method, instead of its own");
DEFINE_double(x_step, 0.0, "of every method, instead of its own");

using bilevel::LinearModel;

namespace {

constexpr int kTrain = 61440, kClean = 10240, kSelection = 8320, kTest = 20000, kBatch = 512;
constexpr int kRare = 5;  // Words in fewer training and clean tweets are left out.

struct Steps {
  double y, x;
};
// What --search found at p = 0.4.
const std::map<std::string, Steps> kSteps{{"slip", {135.0, 9.0}},
                                          {"bo_rep", {135.0, 9.0}},
                                          {"soba", {135.0, 4000.0}},
                                          {"saba", {45.0, 16000.0}},
                                          {"ma_soba", {135.0, 4000.0}},
                                          {"stocbio", {45.0, 16000.0}},
                                          {"ttsa", {45.0, 64000.0}},
                                          {"f2sa", {135.0, 16000.0}},
                                          {"amigo", {135.0, 16000.0}}};

Steps StepsOf(const std::string& name) {
  const auto found = kSteps.find(name);
  Steps steps = found == kSteps.end() ? Steps{1.0, 1.0} : found->second;
  if (FLAGS_y_step > 0.0) steps.y = FLAGS_y_step;
  if (FLAGS_x_step > 0.0) steps.x = FLAGS_x_step;
  return steps;
}

bool IsNormalized(const std::string& name) { return name == "slip" || name == "bo_rep"; }

int Iterations(const std::string& name) {
  const double slip = FLAGS_budget * FLAGS_epochs * (kTrain / kBatch);
  const double calls = examples::CallsPerIteration(name);
  if (calls == 0.0) return std::max(1, static_cast<int>(FLAGS_budget * FLAGS_lbfgs_iterations));
  return std::max(1, static_cast<int>(slip * examples::CallsPerIteration("slip") / calls));
}

// Words in lower case, names of users and addresses as one word each; and pairs of neighbours.
std::vector<std::string> Words(const std::string& tweet) {
  std::vector<std::string> words;
  std::string word;
  const auto end = [&] {
    if (word.empty()) return;
    if (word[0] == '@') word = "@";
    if (word.compare(0, 4, "http") == 0 || word.compare(0, 4, "www.") == 0) word = "http";
    while (!word.empty() && word.back() == '.') word.pop_back();
    if (!word.empty()) words.push_back(word);
    word.clear();
  };
  for (const char letter : tweet) {
    const unsigned char c = static_cast<unsigned char>(letter);
    const bool inside = std::isalnum(c) || c >= 128 || c == '\'' || c == '@' || c == '_' ||
                        (c == '.' && !word.empty()) || (c == '/' && !word.empty());
    if (inside) {
      word.push_back(static_cast<char>(std::tolower(c)));
      continue;
    }
    end();
    if (c == '!' || c == '?') words.emplace_back(1, letter);
  }
  end();
  const size_t n = words.size();
  for (size_t i = 0; i + 1 < n; ++i) words.push_back(words[i] + " " + words[i + 1]);
  return words;
}

struct Tweets {
  std::vector<std::vector<int>> words;  // Sorted, each once.
  std::vector<int> labels;
  int num_words = 0;
};

bool ReadTweets(Tweets* tweets, std::string* error) {
  const std::string folder = examples::FindData(
      "sentiment140_100k",
      "positive.txt",
      {},
      "positive.txt and negative.txt hold 50,000 tweets each, one a line, from Sentiment140.",
      error);
  if (folder.empty()) return false;
  std::unordered_map<std::string, int> ids;
  for (const bool positive : {true, false}) {
    const std::string plain = folder + (positive ? "/positive.txt" : "/negative.txt");
    std::string text;
    if (!examples::ReadFile(plain + ".gz", &text, error) &&
        !examples::ReadFile(plain, &text, error)) {
      return false;
    }
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      std::vector<int> words;
      for (const std::string& word : Words(text.substr(at, end - at))) {
        words.push_back(ids.emplace(word, static_cast<int>(ids.size())).first->second);
      }
      std::sort(words.begin(), words.end());
      words.erase(std::unique(words.begin(), words.end()), words.end());
      tweets->words.push_back(std::move(words));
      tweets->labels.push_back(positive);
      at = end + 1;
    }
  }
  tweets->num_words = static_cast<int>(ids.size());
  if (tweets->words.size() >= kTrain + kClean + kSelection + kTest) return true;
  *error = folder + " has " + std::to_string(tweets->words.size()) + " tweets; 100,000 are needed.";
  return false;
}

// One split of the tweets, its turned labels, and the models on it.
struct Cleaning {
  Cleaning(const Tweets& tweets, double p, int seed) {
    std::mt19937_64 generator(1000 + seed);
    std::vector<int> order(tweets.words.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), generator);
    std::vector<int> frequency(tweets.num_words, 0), column(tweets.num_words, -1);
    for (int i = 0; i < kTrain + kClean; ++i) {
      for (const int word : tweets.words[order[i]]) ++frequency[word];
    }
    for (int word = 0; word < tweets.num_words; ++word) {
      if (frequency[word] >= kRare) column[word] = d++;
    }
    const auto take = [&](int first, int count, std::vector<int>* labels) {
      std::vector<Eigen::Triplet<float>> entries;
      labels->clear();
      for (int i = 0; i < count; ++i) {
        const std::vector<int>& words = tweets.words[order[first + i]];
        const auto known =
            std::count_if(words.begin(), words.end(), [&](int word) { return column[word] >= 0; });
        const float value = 1.0f / std::sqrt(static_cast<float>(std::max<long>(known, 1)));
        for (const int word : words) {
          if (column[word] >= 0) entries.emplace_back(i, column[word], value);
        }
        labels->push_back(tweets.labels[order[first + i]]);
      }
      Eigen::SparseMatrix<float, Eigen::RowMajor> a(count, d);
      a.setFromTriplets(entries.begin(), entries.end());
      return bilevel::Features(a);
    };
    std::vector<int> labels;
    train_features = std::make_unique<bilevel::Features>(take(0, kTrain, &labels));
    noisy = labels;
    std::bernoulli_distribution turned(p);
    for (int i = 0; i < kTrain; ++i) {
      if (turned(generator)) noisy[i] = 1 - labels[i];
      is_right.push_back(noisy[i] == labels[i]);
    }
    clean_features = std::make_unique<bilevel::Features>(take(kTrain, kClean, &clean_labels));
    clean = Clean(0.0);
    LinearModel::Options options;
    options.num_threads = FLAGS_num_threads;
    int first = kTrain + kClean;
    const bilevel::Features selected = take(first, kSelection, &labels);
    selection = bilevel::LogisticRegression(selected, labels, options);
    first += kSelection;
    const bilevel::Features tested = take(first, kTest, &labels);
    test = bilevel::LogisticRegression(tested, labels, options);
  }

  std::unique_ptr<LinearModel> Train(LinearModel::Weights weights, double scale) const {
    LinearModel::Options options;
    options.weights = weights;
    options.scale = scale;
    options.num_threads = FLAGS_num_threads;
    return bilevel::LogisticRegression(*train_features, noisy, options);
  }

  std::unique_ptr<LinearModel> Clean(double scale) const {
    LinearModel::Options options;
    options.scale = scale;
    options.num_threads = FLAGS_num_threads;
    return bilevel::LogisticRegression(*clean_features, clean_labels, options);
  }

  std::unique_ptr<bilevel::L2Regularizer> Ridge() const {
    return std::make_unique<bilevel::L2Regularizer>(1, d, FLAGS_ridge);
  }

  // One of the lines beside the methods.
  std::vector<double> Line(const std::string& name) const {
    std::vector<double> theta(d, 0.0);
    const bool only_clean = name == "clean only";
    const std::vector<double> w = name == "start" ? std::vector<double>(kTrain, 1.0) : is_right;
    const double sum = only_clean ? 0.0 : std::accumulate(w.begin(), w.end(), 0.0);
    const auto some = Train(LinearModel::kClipped, 1.0 / (sum + kClean));
    const auto all = Clean(1.0 / (sum + kClean));
    const auto ridge = Ridge();
    std::vector<examples::FitTerm> terms{{all.get(), nullptr}, {ridge.get(), nullptr}};
    if (!only_clean) terms.push_back({some.get(), w.data()});
    examples::Fit(terms, 200, &theta);
    return theta;
  }

  static double Loss(const LinearModel& model, const std::vector<double>& theta) {
    const double* blocks[] = {theta.data()};
    double value = 0.0;
    model.Evaluate(blocks, bilevel::Batch::All(), &value, nullptr);
    return value;
  }

  // Of finding the labels that are wrong, by as low a weight as names as many as there are.
  double F1(const std::vector<double>& x) const {
    std::vector<double> sorted = x;
    const auto wrong = std::count(is_right.begin(), is_right.end(), 0.0);
    std::nth_element(sorted.begin(), sorted.begin() + wrong, sorted.end());
    double found = 0.0, named = 0.0;
    for (int i = 0; i < kTrain; ++i) {
      if (x[i] >= sorted[wrong]) continue;
      named += 1.0;
      found += is_right[i] == 0.0;
    }
    return 2.0 * found / (named + static_cast<double>(wrong));
  }

  int d = 0;
  std::unique_ptr<bilevel::Features> train_features, clean_features;
  std::vector<int> noisy, clean_labels;
  std::vector<double> is_right;
  std::unique_ptr<LinearModel> clean, selection, test;
};

const std::vector<std::string> kLines{"start", "clean only", "clean and right labels"};

std::shared_ptr<bilevel::Method> Create(const std::string& name, const Steps& steps) {
  if (name == "lbfgs") return bilevel::CreateMethod(name);
  bilevel::StochasticOptions common;
  common.lower_batch = common.upper_batch = kBatch;
  common.sampling = bilevel::Batch::kShuffledBlocks;
  common.report_interval = std::max(1, Iterations(name) / 50);
  common.solve_lower_level = false;
  return examples::CreateMinibatchMethod(name, common, steps.y, steps.x);
}

// The problem with the iterate in its own memory.
struct Run {
  explicit Run(const Cleaning& data) : theta(data.d, 0.0), x(kTrain, 1.0) {
    problem.AddUpperParameterBlock(x.data(), kTrain);
    problem.SetParameterName(x.data(), "x");
    problem.SetParameterName(theta.data(), "theta");
    std::unique_ptr<LinearModel> train = data.Train(LinearModel::kSigmoid, 0.0);
    lower = train.get();
    problem.AddTerm(
        bilevel::Level::kLower, std::move(train), {{theta.data(), data.d}, {x.data(), kTrain}});
    problem.AddTerm(bilevel::Level::kLower, data.Ridge(), {{theta.data(), data.d}});
    problem.AddTerm(bilevel::Level::kUpper, data.Clean(0.0), {{theta.data(), data.d}});
  }
  std::vector<double> theta, x;
  const LinearModel* lower;
  bilevel::Problem problem;
};

bool Search(const Cleaning& data, const std::vector<std::string>& methods) {
  for (const std::string& name : methods) {
    if (name == "lbfgs") continue;
    Run run(data);
    bilevel::StepSearch search;
    search.grids = {
        {45.0, 135.0},
        IsNormalized(name) ? bilevel::LogGrid(1.0, 27.0, 4) : bilevel::LogGrid(1e3, 6.4e4, 4)};
    search.make_method = [&](const std::vector<double>& steps) {
      return Create(name, {steps[0], steps[1]});
    };
    search.num_iterations = std::max(1, Iterations(name) / 16);  // The last one is half a run.
    search.held_out = [&] { return Cleaning::Loss(*data.selection, run.theta); };
    bilevel::StepSearchResult result;
    std::string error;
    if (!bilevel::SearchSteps(search, {}, &run.problem, &result, &error)) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), error.c_str());
      return false;
    }
    std::printf("%s\n%s\n", name.c_str(), result.Report().c_str());
    std::fflush(stdout);
  }
  return true;
}

// Metrics of a curve.
enum { kAccuracy, kSelectionLoss, kUpper, kF1 };

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags(
      "Learns which labels of tweets are wrong from a few clean ones.", &argc, &argv);
  if (FLAGS_quick) {
    FLAGS_seeds = 1;
    FLAGS_budget = 0.12;
    if (FLAGS_methods.empty()) FLAGS_methods = "slip,soba";
  }
  std::vector<std::string> methods = examples::SplitList(FLAGS_methods);
  if (methods.empty()) {
    methods = examples::MinibatchMethods();
    methods.push_back("lbfgs");
  }
  for (const std::string& name : methods) {
    if (name == "lbfgs" || examples::CallsPerIteration(name) > 0.0) continue;
    std::string known;
    for (const std::string& other : examples::MinibatchMethods()) known += other + ", ";
    std::fprintf(stderr, "--methods: \"%s\" is none of %slbfgs\n", name.c_str(), known.c_str());
    return 1;
  }
  if (!(FLAGS_p > 0.0 && FLAGS_p < 0.5) || !(FLAGS_ridge > 0.0) || FLAGS_epochs < 1) {
    std::fprintf(stderr, "--p must be between 0 and 0.5, --ridge and --epochs positive\n");
    return 1;
  }
  std::string error;
  Tweets tweets;
  if (!ReadTweets(&tweets, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  if (FLAGS_search) return Search(Cleaning(tweets, FLAGS_p, 0), methods) ? 0 : 1;
  examples::Runs runs;
  if (!runs.Open(FLAGS_csv,
                 {"accuracy", "selected", "F1", "f", "resolved f", "resolved accuracy", "passes"},
                 {"test accuracy", "selection loss", "f", "F1"},
                 &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const std::string setting = examples::Format("p=%g", FLAGS_p);
  for (int seed = 0; seed < FLAGS_seeds; ++seed) {
    std::vector<std::string> missing;
    for (const std::vector<std::string>& names : {kLines, methods}) {
      for (const std::string& name : names) {
        if (!runs.Has(setting, name, seed)) missing.push_back(name);
      }
    }
    if (missing.empty()) continue;
    const Cleaning data(tweets, FLAGS_p, seed);
    for (const std::string& name : missing) {
      examples::Runs::Run row{setting, name, seed, 0.0, {}, {}};
      if (std::count(kLines.begin(), kLines.end(), name) > 0) {
        const std::vector<double> theta = data.Line(name);
        const double accuracy = data.test->Accuracy(theta.data());
        const double f = Cleaning::Loss(*data.clean, theta);
        row.metrics = {accuracy, accuracy, NAN, f, NAN, NAN, NAN};
        if (!runs.Add(row)) return 1;
        continue;
      }
      Run run(data);
      bilevel::Solver::Options options;
      options.method = Create(name, StepsOf(name));
      options.max_num_iterations = Iterations(name);
      options.seed = seed;
      std::vector<double> theta, x;
      const auto measure = [&] {
        theta = run.theta;
        x = run.x;
        return std::vector<double>{data.test->Accuracy(theta.data()),
                                   Cleaning::Loss(*data.selection, theta),
                                   Cleaning::Loss(*data.clean, theta),
                                   data.F1(x)};
      };
      const int every = std::max(1, options.max_num_iterations / 50);
      if (!examples::Follow(options, &run.problem, every, measure, &row.curve, &error)) {
        std::fprintf(stderr, "%s, seed %d: %s\n", name.c_str(), seed, error.c_str());
        return 1;
      }
      const examples::CurvePoint& last = row.curve.back();
      const auto selected =
          std::min_element(row.curve.begin(), row.curve.end(), [](const auto& a, const auto& b) {
            return a.metrics[kSelectionLoss] < b.metrics[kSelectionLoss];
          });
      const auto ridge = data.Ridge();
      examples::Fit({{run.lower, x.data()}, {ridge.get(), nullptr}}, 40, &theta);
      row.seconds = last.seconds;
      row.metrics = {last.metrics[kAccuracy],
                     selected->metrics[kAccuracy],
                     last.metrics[kF1],
                     last.metrics[kUpper],
                     Cleaning::Loss(*data.clean, theta),
                     data.test->Accuracy(theta.data()),
                     last.samples / kTrain};
      std::printf("%s, seed %d: %d iterations in %.1f s, test accuracy %.2f %%, F1 %.3f\n",
                  name.c_str(),
                  seed,
                  last.iteration,
                  last.seconds,
                  100.0 * row.metrics[0],
                  row.metrics[2]);
      std::fflush(stdout);
      if (!runs.Add(row)) return 1;
    }
  }
  std::printf(
      "\nSentiment140, %g %% of %d labels turned round. Test accuracy (%%) in the end and of the "
      "iterate\nwith the least loss on the selection tweets; F1 of finding the wrong labels by "
      "the lowest weights;\nf; f and accuracy with the lower level solved for the last x; samples "
      "of f and g over %d.\n\n%s",
      100.0 * FLAGS_p,
      kTrain,
      kTrain,
      runs.Table(setting, {100.0, 100.0, 1.0, 1.0, 1.0, 100.0, 1.0}).c_str());
  examples::Json json;
  for (const examples::Runs::Run& run : runs.runs()) {
    if (run.setting != setting || run.seed != 0) continue;
    json.Add(run.method,
             examples::Json()
                 .Add("accuracy", runs.Mean(setting, run.method, 0))
                 .Add("f1", runs.Mean(setting, run.method, 2))
                 .Add("f", runs.Mean(setting, run.method, 3)));
  }
  bool good = examples::WriteFile(FLAGS_summary_json, json.ToString());
  good = examples::WriteFile(FLAGS_trace_csv, runs.CurvesCsv()) && good;
  std::vector<std::pair<std::string, double>> lines;
  for (const std::string& line : kLines) lines.emplace_back(line, runs.Mean(setting, line, 0));
  good = runs.Plot(
             FLAGS_plot, "Cleaning of labels of tweets, " + setting, setting, kAccuracy, lines) &&
         good;
  return good ? 0 : 1;
}
