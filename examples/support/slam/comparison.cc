#include "examples/support/slam/comparison.h"

#include <algorithm>

namespace examples {

std::string Factors(const std::vector<double>& x) {
  std::string text;
  for (size_t i = 0; i < x.size(); ++i) text += Format("%s%.3g", i ? " " : "", std::exp(x[i]));
  return text;
}

std::string Comparison::ScoreTable() const {
  Table table({"", "factors on sigmas", "train", "test", "test, to the file's"});
  for (const Result& r : results) {
    const bool have_test = std::isfinite(r.test);
    table.Add({r.name,
               Factors(r.x),
               Format("%.4g", r.train),
               have_test ? Format("%.4g", r.test) : "-",
               have_test ? Format("%+.1f %%", 100.0 * (r.test / results[0].test - 1.0)) : "-"});
  }
  return table.ToString();
}

std::string Comparison::CostTable() const {
  Table table({"", "cold solves", "warm solves", "failed", "factorisations", "seconds"});
  for (const Cost& c : costs) {
    table.Add({c.name,
               std::to_string(c.counts.cold_solves),
               std::to_string(c.counts.warm_solves),
               std::to_string(c.counts.failed_solves),
               std::to_string(c.counts.factorizations),
               Format("%.1f", c.seconds)});
  }
  return table.ToString();
}

bilevel::Verdict Comparison::Judge(const bilevel::Solver::Summary& summary) const {
  return bilevel::JudgeLearned(
      {}, results.front().test_errors, results.back().test_errors, &summary);
}

std::string Comparison::Overfitting() const {
  const Result& learned = results.back();
  for (const Result& r : results) {
    if (!(r.test < 0.99 * learned.test && r.train > 1.01 * learned.train)) continue;
    return Format(
        "\n\"%s\" scores worse on the training part and better on the test: what was learned "
        "overfits.\n",
        r.name.c_str());
  }
  return "";
}

void Comparison::AddTo(Json* json) const {
  const auto key = [](std::string name) {
    std::replace(name.begin(), name.end(), ' ', '_');
    return name;
  };
  for (const Result& r : results) {
    json->Add(key(r.name), Json().Add("x", r.x).Add("train", r.train).Add("test", r.test));
  }
  for (const Cost& c : costs) {
    json->Add(key("cost of " + c.name),
              Json()
                  .Add("cold_solves", static_cast<double>(c.counts.cold_solves))
                  .Add("warm_solves", static_cast<double>(c.counts.warm_solves))
                  .Add("factorizations", static_cast<double>(c.counts.factorizations))
                  .Add("seconds", c.seconds));
  }
}

}  // namespace examples
