// Learning word vectors that several tasks share: each task is to tell good reviews of one kind of
// product from bad ones, with a classifier ("head") of its own on the vectors.
//
//   lower level   min over heads w_t of sum_t CE(w_t, E; 1000 reviews) + ridge |w_t|^2
//   upper level   min over E of         sum_t CE(w_t, E; 1000 other reviews) + decay |E|^2
//
// with CE the mean cross entropy of the head's output w_t' tanh(E' a) + b_t; a: the words of a
// review, of length 1. After the hyper-representation experiments of Gong, Hao and Liu, "A nearly
// optimal single loop algorithm for stochastic bilevel optimization under unbounded smoothness"
// (ICML 2024), on reviews of books, films and electronics (Blitzer, Dredze and Pereira, 2007): one
// kind is kept from the upper level, and the vectors are judged there by a head fitted to 1000 of
// its reviews. Every method has the same budget of gradients and products, and the constant steps
// that a search of the same effort finds best (--search) on 500 reviews a task that no level sees.
//
// Beside the methods stand the heads on the vectors that all start from, and logistic regressions
// on words, one for each kind; and exact implicit differentiation with L-BFGS.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/step_search.h"
#include "examples/support/embedding_model.h"
#include "examples/support/experiment.h"
#include "examples/support/flags.h"
#include "examples/support/minibatch_methods.h"
#include "examples/support/table.h"
#include "examples/support/text.h"

DEFINE_string(new_task, "electronics", "the kind that E is not learned from");
DEFINE_int32(width, 8, "the length of a word's vector");
DEFINE_int32(iterations, 1000, "of slip; other methods: as many calls");
DEFINE_int32(lbfgs_iterations, 30, "of exact implicit differentiation");
DEFINE_double(ridge, 1e-3, "of the lower level");
DEFINE_double(decay, 1e-3, "of the word vectors in the upper level");
DEFINE_bool(search, false, "search for the methods' steps on seed 0, and print them");
DEFINE_double(y_step, 0.0, "of every method, instead of its own");
DEFINE_double(x_step, 0.0, "of every method, instead of its own");

using examples::EmbeddingModel;

namespace {

constexpr int kWords = 5000, kHalf = 1000, kSelection = 500, kBatch = 50;
const std::vector<std::string> kKinds{"books", "dvd", "electronics"};

struct Steps {
  double y, x;
};
// What --search found: the better of the last two.
const std::map<std::string, Steps> kSteps{{"slip", {1.0, 0.12}},
                                          {"bo_rep", {1.0, 0.24}},
                                          {"soba", {1.0, 4.5}},
                                          {"saba", {1.0, 0.5}},
                                          {"ma_soba", {0.3, 4.5}},
                                          {"stocbio", {1.0, 4.5}},
                                          {"ttsa", {1.0, 4.5}},
                                          {"f2sa", {1.0, 4.5}},
                                          {"amigo", {1.0, 4.5}}};

Steps StepsOf(const std::string& name) {
  const auto found = kSteps.find(name);
  Steps steps = found == kSteps.end() ? Steps{1.0, 1.0} : found->second;
  if (FLAGS_y_step > 0.0) steps.y = FLAGS_y_step;
  if (FLAGS_x_step > 0.0) steps.x = FLAGS_x_step;
  return steps;
}

bool IsNormalized(const std::string& name) { return name == "slip" || name == "bo_rep"; }

int Iterations(const std::string& name) {
  const double calls = examples::CallsPerIteration(name);
  if (calls == 0.0) return std::max(1, static_cast<int>(FLAGS_budget * FLAGS_lbfgs_iterations));
  const double ratio = examples::CallsPerIteration("slip") / calls;
  return std::max(1, static_cast<int>(FLAGS_budget * FLAGS_iterations * ratio));
}

struct Reviews {
  std::vector<Eigen::Triplet<double>> entries;  // Row by row.
  std::vector<size_t> starts{0};
  std::vector<int> labels;

  EmbeddingModel::Words Rows(const std::vector<int>& order, int first, int count) const {
    std::vector<Eigen::Triplet<double>> own;
    for (int i = 0; i < count; ++i) {
      const int row = order[first + i];
      for (size_t k = starts[row]; k < starts[row + 1]; ++k) {
        own.emplace_back(i, entries[k].col(), entries[k].value());
      }
    }
    EmbeddingModel::Words words(count, kWords);
    words.setFromTriplets(own.begin(), own.end());
    return words;
  }
  std::vector<int> Labels(const std::vector<int>& order, int first, int count) const {
    std::vector<int> own;
    for (int i = 0; i < count; ++i) own.push_back(labels[order[first + i]]);
    return own;
  }
};

// SVMlight's format: a label, -1 or 1, and index:count from 0; rows are brought to length 1.
bool ReadReviews(const std::string& path, int at_least, Reviews* reviews, std::string* error) {
  examples::LineReader reader;
  bool ok = reader.Open(path);
  while (ok && reader.Next()) {
    long label;
    ok = reader.Integer(0, "a label", &label) && (label == 1 || label == -1);
    double squares = 0.0;
    for (int k = 1; ok && k < reader.size(); ++k) {
      long index;
      double count;
      ok = std::sscanf(reader[k].c_str(), "%ld:%lf", &index, &count) == 2 && index >= 0 &&
           index < kWords;
      if (!ok) break;
      reviews->entries.emplace_back(0, static_cast<int>(index), count);
      squares += count * count;
    }
    if (!ok && reader.error().empty()) reader.Fail("a label -1 or 1 and index:count are needed");
    for (size_t k = reviews->starts.back(); k < reviews->entries.size(); ++k) {
      const auto& entry = reviews->entries[k];
      reviews->entries[k] = {0, entry.col(), entry.value() / std::sqrt(squares)};
    }
    reviews->starts.push_back(reviews->entries.size());
    reviews->labels.push_back(label == 1);
  }
  if (reader.error().empty() && static_cast<int>(reviews->labels.size()) < at_least) {
    reader.FailAt(0, std::to_string(at_least) + " reviews are needed");
  }
  *error = reader.error();
  return error->empty();
}

// Of one kind of product, in an order of its own for every seed.
struct Task {
  Task(const Reviews& train, const Reviews& others, int seed) {
    std::mt19937_64 generator(1000 + seed);
    const auto shuffled = [&](size_t size) {
      std::vector<int> order(size);
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), generator);
      return order;
    };
    const std::vector<int> order = shuffled(train.labels.size());
    const std::vector<int> rest = shuffled(others.labels.size());
    const auto make = [](const Reviews& from, const std::vector<int>& rows, int first, int count) {
      return std::make_unique<EmbeddingModel>(
          from.Rows(rows, first, count), from.Labels(rows, first, count), FLAGS_width);
    };
    support = make(train, order, 0, kHalf);
    query = make(train, order, kHalf, kHalf);
    selection = make(others, rest, 0, kSelection);
    test = make(others, rest, kSelection, static_cast<int>(rest.size()) - kSelection);
    words = std::make_unique<bilevel::Features>(train.Rows(order, 0, 2 * kHalf));
    labels = train.Labels(order, 0, 2 * kHalf);
    test_words = std::make_unique<bilevel::Features>(
        others.Rows(rest, kSelection, static_cast<int>(rest.size()) - kSelection));
  }

  // The head that solves the lower level.
  std::vector<double> Solve(const std::vector<double>& embedding) const {
    const bilevel::Features encoded(support->Encode(embedding.data()));
    const auto model = bilevel::LogisticRegression(encoded, support->labels());
    const bilevel::L2Regularizer ridge(1, FLAGS_width + 1, FLAGS_ridge);
    std::vector<double> head(FLAGS_width + 1, 0.0);
    examples::Fit({{model.get(), nullptr}, {&ridge, nullptr}}, 200, &head);
    return head;
  }

  // Test accuracy of a logistic regression on the words of all 2000 reviews.
  double WordsAccuracy() const {
    const auto model = bilevel::LogisticRegression(*words, labels);
    const bilevel::L2Regularizer ridge(1, kWords, 1e-4);
    std::vector<double> theta(kWords, 0.0);
    examples::Fit({{model.get(), nullptr}, {&ridge, nullptr}}, 200, &theta);
    return bilevel::LogisticRegression(*test_words, test->labels())->Accuracy(theta.data());
  }

  static double Loss(const EmbeddingModel& model,
                     const std::vector<double>& embedding,
                     const std::vector<double>& head) {
    const double* blocks[] = {embedding.data(), head.data()};
    double value = 0.0;
    model.Evaluate(blocks, bilevel::Batch::All(), &value, nullptr);
    return value;
  }

  std::unique_ptr<EmbeddingModel> support, query, selection, test;
  std::unique_ptr<bilevel::Features> words, test_words;
  std::vector<int> labels;
};

using Heads = std::vector<std::vector<double>>;

struct Tasks {
  std::vector<Task> learned;
  std::unique_ptr<Task> fresh;
  std::vector<double> start;  // E.

  // The mean over tasks of a number of each.
  template <typename Number>
  double Mean(Number number) const {
    double sum = 0.0;
    for (size_t t = 0; t < learned.size(); ++t) sum += number(learned[t], t);
    return sum / static_cast<double>(learned.size());
  }
  Heads Solve(const std::vector<double>& embedding) const {
    Heads heads;
    for (const Task& task : learned) heads.push_back(task.Solve(embedding));
    return heads;
  }
  double Selection(const std::vector<double>& embedding, const Heads& heads) const {
    return Mean([&](const Task& task, size_t t) {
      return Task::Loss(*task.selection, embedding, heads[t]);
    });
  }
  double Accuracy(const std::vector<double>& embedding, const Heads& heads) const {
    return Mean([&](const Task& task, size_t t) {
      return task.test->Accuracy(embedding.data(), heads[t].data());
    });
  }
  double QueryAccuracy(const std::vector<double>& embedding, const Heads& heads) const {
    return Mean([&](const Task& task, size_t t) {
      return task.query->Accuracy(embedding.data(), heads[t].data());
    });
  }
  double Query(const std::vector<double>& embedding, const Heads& heads) const {
    return Mean(
        [&](const Task& task, size_t t) { return Task::Loss(*task.query, embedding, heads[t]); });
  }
  double NewAccuracy(const std::vector<double>& embedding) const {
    return fresh->test->Accuracy(embedding.data(), fresh->Solve(embedding).data());
  }
};

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
  explicit Run(const Tasks& tasks)
      : embedding(tasks.start),
        heads(tasks.learned.size(), std::vector<double>(FLAGS_width + 1, 0.0)) {
    const int size = static_cast<int>(embedding.size()), width = FLAGS_width;
    problem.AddUpperParameterBlock(embedding.data(), size);
    problem.SetParameterName(embedding.data(), "E");
    for (size_t t = 0; t < heads.size(); ++t) {
      problem.SetParameterName(heads[t].data(), "the head of task " + std::to_string(t));
      const std::vector<bilevel::Scenario::TermBlock> blocks{{embedding.data(), size},
                                                             {heads[t].data(), width + 1}};
      problem.AddTerm(bilevel::Level::kLower,
                      std::make_unique<EmbeddingModel>(*tasks.learned[t].support),
                      blocks);
      problem.AddTerm(bilevel::Level::kLower,
                      std::make_unique<bilevel::L2Regularizer>(1, width + 1, FLAGS_ridge),
                      {{heads[t].data(), width + 1}});
      problem.AddTerm(bilevel::Level::kUpper,
                      std::make_unique<EmbeddingModel>(*tasks.learned[t].query),
                      blocks);
    }
    if (FLAGS_decay > 0.0) {
      problem.AddTerm(bilevel::Level::kUpper,
                      std::make_unique<bilevel::L2Regularizer>(kWords, width, FLAGS_decay),
                      {{embedding.data(), size}});
    }
  }
  std::vector<double> embedding;
  Heads heads;
  bilevel::Problem problem;
};

bool Search(const Tasks& tasks, const std::vector<std::string>& methods) {
  for (const std::string& name : methods) {
    if (name == "lbfgs") continue;
    Run run(tasks);
    bilevel::StepSearch search;
    search.grids = {
        {0.1, 0.3, 1.0},
        IsNormalized(name) ? bilevel::LogGrid(0.03, 0.48, 5) : bilevel::LogGrid(0.5, 40.5, 5)};
    search.make_method = [&](const std::vector<double>& steps) {
      return Create(name, {steps[0], steps[1]});
    };
    search.num_iterations = std::max(1, Iterations(name) / 16);  // The last one is a full run.
    search.held_out = [&] { return tasks.Selection(run.embedding, run.heads); };
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
enum { kAccuracy, kQueryAccuracy, kUpper, kSelectionLoss };

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags(
      "Learns word vectors that classifiers of several kinds of reviews share.", &argc, &argv);
  if (FLAGS_quick) {
    FLAGS_seeds = 1;
    FLAGS_budget = 0.15;
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
  if (std::count(kKinds.begin(), kKinds.end(), FLAGS_new_task) == 0) {
    std::fprintf(stderr, "--new_task must be books, dvd or electronics\n");
    return 1;
  }
  if (FLAGS_width < 1 || FLAGS_width > EmbeddingModel::kMaxWidth || !(FLAGS_ridge > 0.0)) {
    std::fprintf(
        stderr, "--width must be from 1 to %d, --ridge positive\n", EmbeddingModel::kMaxWidth);
    return 1;
  }
  std::string error;
  const std::string folder = examples::FindData(
      "mdsd_amazon",
      "books_train.svmlight",
      {},
      "books, dvd and electronics are needed, each with _train.svmlight and _test.svmlight: bags "
      "of words of the multi-domain sentiment data of Blitzer, Dredze and Pereira.",
      &error);
  if (folder.empty()) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  std::map<std::string, std::array<Reviews, 2>> reviews;
  for (const std::string& kind : kKinds) {
    for (const bool test : {false, true}) {
      const std::string plain = folder + "/" + kind + (test ? "_test" : "_train") + ".svmlight";
      Reviews* const to = &reviews[kind][test];
      const int needed = test ? 2 * kSelection : 2 * kHalf;
      if (ReadReviews(plain + ".gz", needed, to, &error)) continue;
      *to = Reviews();
      if (ReadReviews(plain, needed, to, &error)) continue;
      std::fprintf(stderr, "%s\n", error.c_str());
      return 1;
    }
  }
  const auto split = [&](int seed) {
    Tasks tasks;
    for (const std::string& kind : kKinds) {
      const auto& [train, test] = reviews[kind];
      if (kind == FLAGS_new_task) {
        tasks.fresh = std::make_unique<Task>(train, test, seed);
      } else {
        tasks.learned.emplace_back(train, test, seed);
      }
    }
    std::mt19937_64 generator(seed);
    std::normal_distribution<double> normal;
    tasks.start.resize(static_cast<size_t>(kWords) * FLAGS_width);
    for (double& v : tasks.start) v = 0.3 * normal(generator);
    return tasks;
  };
  if (FLAGS_search) return Search(split(0), methods) ? 0 : 1;
  examples::Runs runs;
  if (!runs.Open(FLAGS_csv,
                 {"accuracy", "new task", "query accuracy", "f", "resolved f", "resolved accuracy"},
                 {"test accuracy", "query accuracy", "f", "selection loss"},
                 &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const std::string setting = "without " + FLAGS_new_task;
  for (int seed = 0; seed < FLAGS_seeds; ++seed) {
    std::vector<std::string> missing;
    for (const char* line : {"start", "words"}) {
      if (!runs.Has(setting, line, seed)) missing.push_back(line);
    }
    for (const std::string& name : methods) {
      if (!runs.Has(setting, name, seed)) missing.push_back(name);
    }
    if (missing.empty()) continue;
    const Tasks tasks = split(seed);
    for (const std::string& name : missing) {
      examples::Runs::Run row{setting, name, seed, 0.0, {}, {}};
      if (name == "start") {
        const Heads heads = tasks.Solve(tasks.start);
        row.metrics = {tasks.Accuracy(tasks.start, heads),
                       tasks.NewAccuracy(tasks.start),
                       tasks.QueryAccuracy(tasks.start, heads),
                       tasks.Query(tasks.start, heads),
                       NAN,
                       NAN};
        if (!runs.Add(row)) return 1;
        continue;
      }
      if (name == "words") {
        const double accuracy =
            tasks.Mean([](const Task& task, size_t) { return task.WordsAccuracy(); });
        row.metrics = {accuracy, tasks.fresh->WordsAccuracy(), NAN, NAN, NAN, NAN};
        if (!runs.Add(row)) return 1;
        continue;
      }
      Run run(tasks);
      bilevel::Solver::Options options;
      options.method = Create(name, StepsOf(name));
      options.max_num_iterations = Iterations(name);
      options.seed = seed;
      std::vector<double> embedding;
      const auto measure = [&] {
        embedding = run.embedding;
        return std::vector<double>{tasks.Accuracy(embedding, run.heads),
                                   tasks.QueryAccuracy(embedding, run.heads),
                                   tasks.Query(embedding, run.heads),
                                   tasks.Selection(embedding, run.heads)};
      };
      const int every = std::max(1, options.max_num_iterations / 50);
      if (!examples::Follow(options, &run.problem, every, measure, &row.curve, &error)) {
        std::fprintf(stderr, "%s, seed %d: %s\n", name.c_str(), seed, error.c_str());
        return 1;
      }
      const examples::CurvePoint& last = row.curve.back();
      const Heads heads = tasks.Solve(embedding);
      row.seconds = last.seconds;
      row.metrics = {last.metrics[kAccuracy],
                     tasks.NewAccuracy(embedding),
                     last.metrics[kQueryAccuracy],
                     last.metrics[kUpper],
                     tasks.Query(embedding, heads),
                     tasks.Accuracy(embedding, heads)};
      std::printf("%s, seed %d: %d iterations in %.1f s, test accuracy %.2f %%, new task %.2f %%\n",
                  name.c_str(),
                  seed,
                  last.iteration,
                  last.seconds,
                  100.0 * row.metrics[0],
                  100.0 * row.metrics[1]);
      std::fflush(stdout);
      if (!runs.Add(row)) return 1;
    }
  }
  std::printf(
      "\nWord vectors of length %d, learned from two kinds of reviews, %s. Test accuracy (%%) of "
      "the\nmethod's heads; of a head fitted on the kind left out; on the reviews of the upper "
      "level; their loss f;\nf and test accuracy with the heads solved for the last vectors.\n\n%s",
      FLAGS_width,
      setting.c_str(),
      runs.Table(setting, {100.0, 100.0, 100.0, 1.0, 1.0, 100.0}).c_str());
  examples::Json json;
  for (const examples::Runs::Run& run : runs.runs()) {
    if (run.setting != setting || run.seed != 0) continue;
    json.Add(run.method,
             examples::Json()
                 .Add("accuracy", runs.Mean(setting, run.method, 0))
                 .Add("new task", runs.Mean(setting, run.method, 1))
                 .Add("f", runs.Mean(setting, run.method, 3)));
  }
  bool good = examples::WriteFile(FLAGS_summary_json, json.ToString());
  good = examples::WriteFile(FLAGS_trace_csv, runs.CurvesCsv()) && good;
  good = runs.Plot(FLAGS_plot,
                   "Word vectors shared by tasks, " + setting,
                   setting,
                   kAccuracy,
                   {{"vectors of the start", runs.Mean(setting, "start", 0)},
                    {"words, a fit for each kind", runs.Mean(setting, "words", 0)}}) &&
         good;
  return good ? 0 : 1;
}
