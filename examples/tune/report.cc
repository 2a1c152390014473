#include "examples/tune/report.h"

#include <unistd.h>

#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "bilevel/report.h"
#include "bilevel/version.h"
#include "examples/support/flags.h"
#include "examples/tune/command.h"

namespace examples {
namespace {

std::string waiting;
bool verdict_is_said = false, line_is_shown = false;

void ClearLine() {
  if (line_is_shown) std::fprintf(stderr, "\r\033[K");
  line_is_shown = false;
}

class IterationLine : public bilevel::IterationCallback {
 public:
  ceres::CallbackReturnType operator()(const bilevel::IterationSummary& summary) override {
    ShowProgress(Format("learning, iteration %ld", summary.iteration));
    return ceres::SOLVER_CONTINUE;
  }
};

}  // namespace

void Say(const char* format, ...) {
  std::va_list list, copy;
  va_start(list, format);
  va_copy(copy, list);
  std::string text(static_cast<size_t>(std::vsnprintf(nullptr, 0, format, copy)), '\0');
  va_end(copy);
  std::vsnprintf(text.data(), text.size() + 1, format, list);
  va_end(list);
  if (!verdict_is_said) {
    waiting += text;
    return;
  }
  ClearLine();
  std::fputs(text.c_str(), stdout);
}

void SayVerdict(bilevel::Verdict verdict) {
  ClearLine();
  const bool is_unchanged = verdict.low == 0.0 && verdict.high == 0.0;
  if (FLAGS_safe && is_unchanged && verdict.kind != bilevel::Verdict::kUseLearned &&
      verdict.trouble.empty()) {
    verdict.trouble =
        "the data show no change that is sure not to lose, so nothing was changed; more recordings "
        "may show one, and --nosafe learns by the score alone";
  }
  std::printf("VERDICT. %s\n\n", verdict.ToString().c_str());
  EndReport();
  verdict_is_said = true;
}

void EndReport() {
  ClearLine();
  std::fputs(waiting.c_str(), stdout);
  std::fflush(stdout);
  waiting.clear();
}

bool Fail(const std::string& sentence) {
  ClearLine();
  std::fprintf(stderr, "bilevel-tune: %s.\n", sentence.c_str());
  return false;
}

void ShowProgress(const std::string& what, double share) {
  static const bool is_terminal = isatty(STDERR_FILENO) != 0;
  static const double begin = Now();
  if (!is_terminal) return;
  const double seconds = Now() - begin;
  ClearLine();
  std::fprintf(stderr, "%s, %.0f s", what.c_str(), seconds);
  if (share > 0.0) std::fprintf(stderr, ", about %.0f s left", seconds * (1.0 / share - 1.0));
  std::fflush(stderr);
  line_is_shown = true;
}

bilevel::IterationCallback* ShowIterations() {
  static IterationLine line;
  return &line;
}

Learned FromLog(const std::string& name, double log_value, double standard_error) {
  return {name,
          std::exp(log_value),
          std::exp(log_value - 1.96 * standard_error),
          std::exp(log_value + 1.96 * standard_error)};
}

std::vector<Learned> FromLogs(const std::vector<std::string>& names,
                              const std::vector<double>& x,
                              const bilevel::SafeLearning& safe) {
  std::vector<Learned> values;
  for (size_t k = 0; k < names.size(); ++k) {
    Learned value{names[k], std::exp(x[k])};
    if (k < safe.learned.size()) {
      value = FromLog(names[k], safe.learned[k], safe.standard_errors[k]);
      value.value = std::exp(x[k]);
    }
    values.push_back(value);
  }
  return values;
}

std::vector<Learned> FromLogs(const std::vector<std::string>& names,
                              const std::vector<double>& x,
                              const bilevel::Solver::Summary& summary) {
  const bilevel::Uncertainty& uncertainty = summary.assessment.uncertainty;
  std::vector<double> errors(x.size(), std::nan(""));
  if (uncertainty.available()) {
    const bilevel::Vector all = uncertainty.standard_errors();
    errors.assign(all.begin(), all.end());
  }
  std::vector<Learned> values;
  for (size_t k = 0; k < names.size(); ++k) values.push_back(FromLog(names[k], x[k], errors[k]));
  return values;
}

Json BeginJson(const char* command,
               const bilevel::Verdict& verdict,
               const std::vector<Learned>& values) {
  Json json, learned;
  for (const Learned& v : values) {
    learned.Add(v.name, Json().Add("value", v.value).Add("low", v.low).Add("high", v.high));
  }
  return json.Add("command", command)
      .Add("version", bilevel::Version())
      .Add("verdict", ToJson(verdict))
      .Add("values", learned);
}

bool WriteTrace(const bilevel::Solver::Summary& summary) {
  const bool is_traced = WriteFile(FLAGS_trace_csv, summary.Csv());
  std::string error;
  if (FLAGS_report.empty() || bilevel::WriteReport(summary, FLAGS_report, &error)) return is_traced;
  return Fail(error);
}

bool IsOutputDue(const bilevel::Verdict& verdict) {
  if (FLAGS_output.empty()) return false;
  if (verdict.kind == bilevel::Verdict::kUseLearned) return true;
  Say("\n%s is not written: what was learned is not to be used.\n", FLAGS_output.c_str());
  return false;
}

}  // namespace examples
