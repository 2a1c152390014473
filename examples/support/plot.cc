#include "examples/support/plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "examples/support/flags.h"

namespace examples {
namespace {

// In gnuplot's and in the shell's single quotes, a quote is written differently.
std::string Quote(const std::string& text, const char* quote) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string(quote) : std::string(1, c);
  return quoted + "'";
}
std::string ForGnuplot(const std::string& text) { return Quote(text, "''"); }
std::string ForShell(const std::string& text) { return Quote(text, "'\\''"); }

}  // namespace

bool Plot(const std::string& path, const std::string& title, const std::vector<Panel>& panels) {
  if (path.empty()) return true;
  const size_t dot = path.rfind('.');
  const std::string extension = dot == std::string::npos ? "" : path.substr(dot);
  if (extension != ".png" && extension != ".svg") {
    std::fprintf(stderr, "A picture's name must end in .png or .svg, not as %s.\n", path.c_str());
    return false;
  }
  const char* colours[] = {"#2c5aa0", "#c8553d", "#4b8b3b", "#8a5a9e", "#b8860b", "#555555"};

  std::ostringstream script;
  script.precision(10);
  const size_t columns = panels.size() > 2 ? 2 : panels.size();
  const size_t rows = (panels.size() + 1) / 2;
  script << "set terminal " << (extension == ".png" ? "pngcairo" : "svg") << " size "
         << 640 * columns << "," << 460 * rows + 40 << " font 'Sans,11' background '#ffffff'\n"
         << "set output " << ForGnuplot(path) << "\n"
         << "set boxwidth 0.7 relative\nset border 3 lc rgb '#808080'\nset tics nomirror textcolor "
            "rgb '#404040'\n"
         << "set grid lc rgb '#e4e4e4' lt 1 lw 1\nset key noenhanced\n"
         << "set multiplot layout " << rows << "," << columns << " title " << ForGnuplot(title)
         << " font 'Sans,14' noenhanced\n";
  int block = 0;
  for (const Panel& panel : panels) {
    for (size_t k = 0; k < panel.series.size(); ++k) {
      script << "$d" << block + k << " << EOD\n";
      const Series& s = panel.series[k];
      for (size_t i = 0; i < s.x.size(); ++i) {
        if (std::isfinite(s.x[i]) && std::isfinite(s.y[i])) script << s.x[i] << " " << s.y[i];
        script << "\n";
      }
      script << "EOD\n";
    }
    const bool has_boxes =
        std::any_of(panel.series.begin(), panel.series.end(), [](const Series& series) {
          return series.style == "boxes";
        });
    script << "set title " << ForGnuplot(panel.title) << " noenhanced\nset xlabel "
           << ForGnuplot(panel.x_label) << " noenhanced\nset ylabel " << ForGnuplot(panel.y_label)
           << " noenhanced\n"
           << (panel.equal_axes ? "set size ratio -1\n" : "set size noratio\n")
           << (panel.equal_axes || panel.key_outside
                   ? "set key outside right top vertical\n"
                   : "set key below center horizontal height 0.8\n")
           << (has_boxes ? "set yrange [0:*]\nset offsets 0.6, 0.6, 0, 0\n"
                         : "set yrange [*:*]\nset offsets 0, 0, 0, 0\n")
           << (panel.log_x ? "set logscale x\nset format x '%g'\n"
                           : "unset logscale x\nset format x '% h'\n")
           << (panel.log_y ? "set logscale y\nset format y '%g'\n"
                           : "unset logscale y\nset format y '% h'\n");
    if (panel.right_label.empty()) {
      script << "unset y2tics\nunset y2label\nset border 3\n";
    } else {
      script << "set y2tics\nset border 11\nset y2label " << ForGnuplot(panel.right_label)
             << " noenhanced\n";
    }
    script << "plot ";
    bool first = true;
    for (size_t k = 0; k < panel.series.size(); ++k) {
      const Series& s = panel.series[k];
      if (s.x.empty()) continue;
      script << (first ? "" : ", \\\n  ") << "$d" << block + k << " axes "
             << (s.right_axis ? "x1y2" : "x1y1") << " with " << s.style
             << (s.style != "points" ? " lw 2 dt " + std::to_string(1 + k / 6 % 4) : "")
             << (s.style.find("points") != std::string::npos ? " pt 7 ps 0.8" : "") << " lc rgb '"
             << colours[k % 6] << "'" << (s.style == "boxes" ? " fs solid 0.35 noborder" : "")
             << " title " << ForGnuplot(s.title);
      first = false;
    }
    script << (first ? "NaN notitle\n" : "\n");
    block += static_cast<int>(panel.series.size());
  }
  script << "unset multiplot\n";
  const std::string script_path = path.substr(0, dot) + ".gnuplot";
  if (!WriteFile(script_path, script.str())) return false;
  if (std::system("command -v gnuplot >/dev/null 2>&1") != 0) {
    std::printf("No gnuplot here (apt-get install gnuplot-nox); then: gnuplot %s\n",
                script_path.c_str());
    return true;
  }
  if (std::system(("gnuplot " + ForShell(script_path)).c_str()) != 0) {
    std::fprintf(stderr, "gnuplot failed on %s.\n", script_path.c_str());
    return false;
  }
  std::printf("Picture: %s (script and data: %s)\n", path.c_str(), script_path.c_str());
  return true;
}

}  // namespace examples
