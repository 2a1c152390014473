#include "bilevel/report.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <vector>

#include "bilevel/base/internal/text.h"
#include "bilevel/internal/iteration_fields.h"
#include "bilevel/internal/summary_rows.h"

namespace bilevel {
namespace {

constexpr size_t kMostRows = 1000;  // Of iterations, in the table and in each curve.
constexpr double kLargest = 1e300;  // That gnuplot can draw.

constexpr char kStyle[] = R"(
body { font: 15px/1.5 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin: 1.6em 0 .4em }
.good { color: #2a6f2a } .open { color: #a05a00 } .bad { color: #a02020 }
table { border-collapse: collapse } td, th { padding: .15em .8em .15em 0; vertical-align: top }
td { border-top: 1px solid #e4e4e4 } th { text-align: left }
.numbers td, .numbers th { text-align: right; font-family: monospace; white-space: nowrap }
.wide { overflow-x: auto } svg { max-width: 100%; height: auto }
.bar { background: #2c5aa0; height: .9em; min-width: 1px }
)";

// A curve of the accepted iterations; values that are not finite are left out.
struct Curve {
  const char* title;
  double (*value)(const IterationSummary&);
};

struct Panel {
  const char* title;
  bool log_y;
  std::vector<Curve> curves;
};

std::vector<Panel> Panels() {
  using It = const IterationSummary&;
  return {{"Upper level",
           false,
           {{"phi", [](It it) { return it.objective; }},
            {"f at the method's own y", [](It it) { return it.upper_value; }},
            {"held out", [](It it) { return it.held_out; }}}},
          {"Towards a stationary point",
           true,
           {{"|gradient of phi|", [](It it) { return it.gradient_max_norm; }},
            {"|step of x|", [](It it) { return it.step_norm; }},
            {"y's distance to y*, relative", [](It it) { return it.lower_level_decrement; }}}}};
}

// What gnuplot is told: nothing but numbers and words of our own.
std::string Script(const Solver::Summary& summary) {
  std::ostringstream script;
  script.precision(10);
  script << "set terminal svg size 980,380 font 'sans,12' background '#ffffff'\n"
         << "set multiplot layout 1,2\nset xlabel 'iteration'\nset grid lc rgb '#e4e4e4'\n"
         << "set border 3 lc rgb '#808080'\nset tics nomirror\nset key below maxrows 1\n";
  const size_t step = 1 + summary.iterations.size() / kMostRows;
  int block = 0;
  for (const Panel& panel : Panels()) {
    std::string plot;
    for (const Curve& curve : panel.curves) {
      std::ostringstream data;
      data.precision(10);
      int count = 0;
      for (size_t i = 0; i < summary.iterations.size(); i += step) {
        const IterationSummary& it = summary.iterations[i];
        const double value = curve.value(it);
        const bool is_shown =
            it.step_is_successful && std::abs(value) < kLargest && (!panel.log_y || value > 0.0);
        if (is_shown) data << it.iteration << " " << value << "\n";
        count += is_shown;
      }
      if (count == 0) continue;
      script << "$d" << block << " << EOD\n" << data.str() << "EOD\n";
      plot += (plot.empty() ? "plot $d" : ", $d") + std::to_string(block) +
              " with linespoints lw 2 pt 7 ps 0.4 title \"" + curve.title + "\"";
      ++block;
    }
    script << "set title '" << panel.title << "'\n"
           << (panel.log_y ? "set logscale y\nset format y '%g'\n" : "") << "set autoscale\n"
           << (plot.empty() ? "set xrange [0:1]\nset yrange [0.1:1]\nplot NaN notitle" : plot)
           << "\n";
  }
  return script.str() + "unset multiplot\n";
}

// gnuplot's picture as an <svg> element; empty where there is none.
std::string Picture(const std::string& script) {
  const char* const folder = std::getenv("TMPDIR");
  const bool has_folder = folder && *folder && !std::strchr(folder, '\'');
  std::string name = std::string(has_folder ? folder : "/tmp") + "/bilevel_report_XXXXXX";
  const int file = mkstemp(name.data());
  if (file < 0) return "";
  const bool is_written =
      write(file, script.data(), script.size()) == static_cast<ssize_t>(script.size());
  close(file);
  std::string svg;
  if (is_written) {
    if (FILE* pipe = popen(("gnuplot '" + name + "' 2>/dev/null").c_str(), "r")) {
      char buffer[4096];
      while (const size_t size = std::fread(buffer, 1, sizeof(buffer), pipe)) {
        svg.append(buffer, size);
      }
      if (pclose(pipe) != 0) svg.clear();
    }
  }
  std::remove(name.c_str());
  const size_t begin = svg.find("<svg");
  return begin == std::string::npos ? "" : svg.substr(begin);
}

std::string Cell(const std::string& text) { return "<td>" + HtmlText(text) + "</td>"; }

std::string Table(const SummaryGroup& group) {
  std::string html = "<h2>" + HtmlText(group.title) + "</h2>\n<table>\n";
  for (const auto& [name, value] : group.rows) {
    html += "<tr>" + Cell(name) + Cell(value) + "</tr>\n";
  }
  return html + "</table>\n";
}

std::string Learned(const Solver::Summary& summary) {
  if (summary.x.empty()) return "";
  const Uncertainty& uncertainty = summary.assessment.uncertainty;
  if (uncertainty.available()) {
    return Table(
        {"Learned, with standard errors", uncertainty.Rows(static_cast<int>(summary.x.size()))});
  }
  SummaryGroup group{"Learned", {}};
  for (size_t i = 0; i < summary.x.size(); ++i) {
    group.rows.emplace_back("x[" + std::to_string(i) + "]", Format("%.9g", summary.x[i]));
  }
  return Table(group);
}

std::string Time(const Solver::Summary& summary) {
  const double total = summary.total_time_in_seconds;
  if (!(total > 0.0)) return "";
  const LowerSolverCounts& lower = summary.lower_solver;
  const double parts[] = {
      lower.seconds_in_ceres, lower.seconds_in_evaluation, lower.seconds_in_linear_algebra};
  const char* const names[] = {"ceres::Solve of the lower level",
                               "evaluating the lower level",
                               "linear algebra of the lower level",
                               "all else"};
  std::string html = "<h2>Where the time went</h2>\n<table>\n";
  double rest = total;
  for (int k = 0; k < 4; ++k) {
    // Threads of several scenarios may sum up to more.
    const double seconds = k < 3 ? parts[k] : std::max(0.0, rest);
    rest -= seconds;
    html += "<tr>" + Cell(names[k]) + Cell(Format("%.3f s", seconds)) +
            Format("<td style=\"width:20em\"><div class=\"bar\" style=\"width:%.1f%%\"></div></td>",
                   std::min(100.0, 100.0 * seconds / total)) +
            "</tr>\n";
  }
  return html + "</table>\n";
}

std::string Iterations(const Solver::Summary& summary) {
  std::string html = "<h2>Iterations</h2>\n<details><summary>" +
                     std::to_string(summary.iterations.size()) +
                     " rows</summary>\n<div class=\"wide\"><table class=\"numbers\">\n<tr>";
  for (const IterationField& field : IterationFields()) {
    html += "<th>" + HtmlText(field.name) + "</th>";
  }
  html += "</tr>\n";
  const size_t size = summary.iterations.size(), step = 1 + size / kMostRows;
  for (size_t i = 0; i < size; i += step) {
    html += "<tr>";
    for (const IterationField& field : IterationFields()) {
      const double value = field.value(summary.iterations[i]);
      html += Cell(std::isnan(value) ? "" : Format("%.6g", value));
    }
    html += "</tr>\n";
  }
  return html + "</table></div></details>\n";
}

std::string Verdict(const Solver::Summary& summary) {
  const bool has_converged = summary.termination_type == ceres::CONVERGENCE;
  const char* const style = has_converged ? "good" : summary.IsSolutionUsable() ? "open" : "bad";
  return Format("<p class=\"%s\"><b>%s</b>: ",
                style,
                ceres::TerminationTypeToString(summary.termination_type)) +
         HtmlText(summary.message) + "</p>\n";
}

}  // namespace

bool WriteReport(const Solver::Summary& summary, const std::string& path, std::string* error) {
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Bilevel report"
      "</title><style>" +
      std::string(kStyle) + "</style></head>\n<body>\n<h1>Bilevel report: " +
      HtmlText(summary.method.empty() ? "no method" : summary.method) + "</h1>\n" +
      Verdict(summary);
  for (const std::string& note : summary.assessment.notes) {
    html += "<p class=\"open\">Note: " + HtmlText(note) + "</p>\n";
  }
  html += Learned(summary);
  if (!summary.iterations.empty()) {
    const std::string picture = Picture(Script(summary));
    html += "<h2>Convergence</h2>\n" +
            (picture.empty() ? "<p>No picture: gnuplot is not installed, or could not run.</p>\n"
                             : picture);
    html += Time(summary);
  }
  for (const SummaryGroup& group : SummaryRows(summary)) {
    if (group.title != "Time" && group.title != "Termination") html += Table(group);
  }
  if (!summary.iterations.empty()) html += Iterations(summary);
  html += "</body>\n</html>\n";

  FILE* const file = std::fopen(path.c_str(), "w");
  const bool is_written = file && std::fwrite(html.data(), 1, html.size(), file) == html.size() &&
                          std::fflush(file) == 0;
  const int reason = errno;
  const bool is_closed = file && std::fclose(file) == 0;
  if (is_written && is_closed) return true;
  if (error) *error = path + " could not be written: " + std::strerror(is_written ? errno : reason);
  return false;
}

}  // namespace bilevel
