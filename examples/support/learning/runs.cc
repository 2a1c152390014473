#include "examples/support/learning/runs.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>

#include "examples/support/plot.h"
#include "examples/support/table.h"
#include "examples/support/text.h"

namespace examples {
namespace {

std::string Join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += "," + name;
  return text;
}

std::string Join(const std::vector<double>& values) {
  std::string text;
  for (const double value : values) text += Format(",%.10g", value);
  return text;
}

bool ToInt(double number, int* whole) {
  if (number != std::floor(number) || std::abs(number) > std::numeric_limits<int>::max()) {
    return false;
  }
  *whole = static_cast<int>(number);
  return true;
}

// Setting, method and seed, and so many numbers, NaN among them.
bool ParseRow(const std::string& text, size_t size, Runs::Run* run, std::vector<double>* numbers) {
  const std::vector<std::string> fields = SplitList(text);
  if (fields.size() != 3 + size) return false;
  numbers->clear();
  for (size_t k = 2; k < fields.size(); ++k) {
    char* end = nullptr;
    numbers->push_back(std::strtod(fields[k].c_str(), &end));
    if (fields[k].empty() || end != fields[k].c_str() + fields[k].size()) return false;
  }
  run->setting = fields[0];
  run->method = fields[1];
  const double seed = numbers->front();
  numbers->erase(numbers->begin());
  return ToInt(seed, &run->seed) && IsPrintable(run->setting) && IsPrintable(run->method);
}

}  // namespace

bool Runs::Open(const std::string& path,
                std::vector<std::string> metric_names,
                std::vector<std::string> curve_names,
                std::string* error) {
  path_ = path;
  metric_names_ = std::move(metric_names);
  curve_names_ = std::move(curve_names);
  if (path.empty()) return true;
  const std::string header = "setting,method,seed,seconds" + Join(metric_names_);
  std::ifstream rows(path);
  std::string line;
  if (!rows || !std::getline(rows, line)) {
    std::ofstream(path) << header << "\n";
    std::ofstream(path + ".curves") << CurveHeader();
    return true;
  }
  if (line != header) {
    *error = path + " has the columns of another experiment";
    return false;
  }
  std::vector<double> numbers;
  Run run;
  while (std::getline(rows, line)) {
    // A row that an interruption cut short is a run to be made.
    if (!ParseRow(line, 1 + metric_names_.size(), &run, &numbers)) continue;
    run.seconds = numbers[0];
    run.metrics.assign(numbers.begin() + 1, numbers.end());
    runs_.push_back(run);
  }
  std::ifstream curves(path + ".curves");
  while (std::getline(curves, line)) {
    if (!ParseRow(line, 4 + curve_names_.size(), &run, &numbers)) continue;
    CurvePoint point{0, numbers[1], numbers[2], numbers[3], {numbers.begin() + 4, numbers.end()}};
    if (!ToInt(numbers[0], &point.iteration)) continue;
    for (Run& own : runs_) {
      if (own.setting != run.setting || own.method != run.method || own.seed != run.seed) continue;
      own.curve.push_back(point);
    }
  }
  return true;
}

const Runs::Run* Runs::Find(const std::string& setting, const std::string& method, int seed) const {
  const auto it = std::find_if(runs_.begin(), runs_.end(), [&](const Run& run) {
    return run.setting == setting && run.method == method && run.seed == seed;
  });
  return it == runs_.end() ? nullptr : &*it;
}

std::string Runs::CurveRows(const Run& run) const {
  std::string rows;
  for (const CurvePoint& p : run.curve) {
    rows += run.setting + "," + run.method + "," + std::to_string(run.seed) + "," +
            std::to_string(p.iteration) + Join({p.calls, p.samples, p.seconds}) + Join(p.metrics) +
            "\n";
  }
  return rows;
}

std::string Runs::CurvesCsv() const {
  std::string text = CurveHeader();
  for (const Run& run : runs_) text += CurveRows(run);
  return text;
}

std::string Runs::CurveHeader() const {
  return "setting,method,seed,iteration,calls,samples,seconds" + Join(curve_names_) + "\n";
}

bool Runs::Add(const Run& run) {
  runs_.push_back(run);
  if (path_.empty()) return true;
  const std::string key = run.setting + "," + run.method + "," + std::to_string(run.seed);
  std::ofstream curves(path_ + ".curves", std::ios::app);
  curves << CurveRows(run);
  curves.close();
  std::ofstream rows(path_, std::ios::app);
  rows << key << Join(std::vector<double>{run.seconds}) << Join(run.metrics) << "\n";
  rows.close();
  if (rows && curves) return true;
  std::fprintf(stderr, "%s cannot be written.\n", path_.c_str());
  return false;
}

std::string Runs::Table(const std::string& setting, const std::vector<double>& scales) const {
  std::vector<std::string> header{"method", "runs", "seconds"};
  for (size_t k = 0; k < metric_names_.size(); ++k) {
    if (scales[k] != 0.0) header.push_back(metric_names_[k]);
  }
  examples::Table table(header);
  std::vector<std::string> done;
  for (const Run& first : runs_) {
    if (first.setting != setting) continue;
    if (std::find(done.begin(), done.end(), first.method) != done.end()) continue;
    done.push_back(first.method);
    const auto cell = [&](const std::function<double(const Run&)>& value, double scale) {
      double sum = 0.0, squares = 0.0;
      int n = 0;
      for (const Run& run : runs_) {
        if (run.setting != setting || run.method != first.method) continue;
        sum += value(run);
        ++n;
      }
      const double mean = sum / n;
      for (const Run& run : runs_) {
        if (run.setting != setting || run.method != first.method) continue;
        squares += (value(run) - mean) * (value(run) - mean);
      }
      if (!std::isfinite(mean)) return std::string("-");
      const char* const format = scale > 1.0 ? "%.2f" : "%.4g";
      std::string text = Format(format, scale * mean);
      if (n > 1)
        text +=
            " +- " + Format(scale > 1.0 ? "%.2f" : "%.2g", scale * std::sqrt(squares / (n - 1)));
      return text;
    };
    std::vector<std::string> row{first.method};
    row.push_back(std::to_string(std::count_if(runs_.begin(), runs_.end(), [&](const Run& run) {
      return run.setting == setting && run.method == first.method;
    })));
    row.push_back(cell([](const Run& run) { return run.seconds; }, 1.0));
    for (size_t k = 0; k < metric_names_.size(); ++k) {
      if (scales[k] == 0.0) continue;
      row.push_back(cell([k](const Run& run) { return run.metrics[k]; }, scales[k]));
    }
    table.Add(row);
  }
  return table.ToString();
}

double Runs::Mean(const std::string& setting, const std::string& method, int metric) const {
  double sum = 0.0;
  int n = 0;
  for (const Run& run : runs_) {
    if (run.setting != setting || run.method != method) continue;
    sum += run.metrics[metric];
    ++n;
  }
  return sum / n;
}

bool Runs::Plot(const std::string& path,
                const std::string& title,
                const std::string& setting,
                int curve_metric,
                const std::vector<std::pair<std::string, double>>& lines) const {
  if (path.empty()) return true;
  std::vector<Panel> panels{{"", "iterations", curve_names_[curve_metric], true},
                            {"", "oracle calls", "", true},
                            {"", "seconds", "", true}};
  double end[3] = {1.0, 1.0, 0.1}, begin[3] = {1.0, 1.0, 0.01};
  std::vector<std::string> done;
  for (const Run& run : runs_) {
    if (run.setting != setting || run.curve.empty()) continue;
    if (std::find(done.begin(), done.end(), run.method) != done.end()) continue;
    done.push_back(run.method);
    for (int k = 0; k < 3; ++k) {
      Series series{run.method, "lines", {}, {}};
      for (const CurvePoint& p : run.curve) {
        const double x = k == 0 ? p.iteration : k == 1 ? p.calls : p.seconds;
        if (x < begin[k]) continue;  // Not on a logarithmic axis.
        series.x.push_back(x);
        series.y.push_back(p.metrics[curve_metric]);
        end[k] = std::max(end[k], x);
      }
      panels[k].series.push_back(series);
    }
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    static const char* const kStyles[] = {"lines dt 2 lc rgb '#000000'",
                                          "lines dt 3 lc rgb '#888888'",
                                          "lines dt 4 lc rgb '#b07020'"};
    const char* const style = kStyles[std::min<size_t>(i, 2)];
    for (int k = 0; k < 3; ++k) {
      panels[k].series.push_back(
          {lines[i].first, style, {begin[k], end[k]}, {lines[i].second, lines[i].second}});
    }
  }
  return examples::Plot(path, title, panels);
}

}  // namespace examples
