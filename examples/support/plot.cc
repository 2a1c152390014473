#include "examples/support/plot.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
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
bool Has(const std::string& style, const char* word) {
  return style.find(word) != std::string::npos;
}
bool IsControl(char c) { return std::iscntrl(static_cast<unsigned char>(c)) != 0; }
// A new line would begin another command. gnuplot's own '' is no quote where a string begins.
std::string ForGnuplot(std::string text) {
  std::replace_if(text.begin(), text.end(), IsControl, ' ');
  return Quote(text, "'.\"'\".'");
}
std::string ForShell(const std::string& text) { return Quote(text, "'\\''"); }

// How series k is drawn, where its style does not say so itself, and its title.
std::string Look(const Series& s, size_t k) {
  const char* const colours[] = {"#2c5aa0", "#c8553d", "#4b8b3b", "#8a5a9e", "#b8860b", "#555555"};
  std::string look = " with " + s.style;
  if (s.style != "points") {
    look += " lw 2";
    if (!Has(s.style, " dt ")) look += " dt " + std::to_string(1 + k / 6 % 4);
  }
  if (Has(s.style, "points")) look += " pt 7 ps 0.8";
  if (!Has(s.style, " lc ")) look += std::string(" lc rgb '") + colours[k % 6] + "'";
  if (s.style == "boxes") look += " fs solid 0.35 noborder";
  return look + " title " + ForGnuplot(s.title);
}

// An odd number of panels, more than one, that all show the same: the legend goes where the last
// panel would be.
bool SharesLegend(const std::vector<Panel>& panels) {
  if (panels.size() < 3 || panels.size() % 2 == 0) return false;
  return std::all_of(panels.begin(), panels.end(), [&](const Panel& panel) {
    return std::equal(panel.series.begin(),
                      panel.series.end(),
                      panels[0].series.begin(),
                      panels[0].series.end(),
                      [](const Series& a, const Series& b) { return a.title == b.title; });
  });
}

// Of each series: what has a title in more than one panel has its colour in all of them.
std::vector<size_t> NumberColours(const Panel& panel, std::map<std::string, size_t>* numbers) {
  std::set<size_t> taken;
  for (const Series& s : panel.series) {
    const auto known = numbers->find(s.title);
    if (known != numbers->end()) taken.insert(known->second);
  }
  std::vector<size_t> result;
  for (const Series& s : panel.series) {
    size_t next = 0;
    while (taken.count(next) > 0) ++next;
    const size_t number = numbers->emplace(s.title, next).first->second;
    taken.insert(number);
    result.push_back(number);
  }
  return result;
}

// gnuplot chooses tics without a look at how wide a map comes out.
std::string Tics(const Panel& panel) {
  if (!panel.equal_axes) return "set xtics autofreq\nset ytics autofreq\n";
  double size = 0.0;
  for (const auto axis : {&Series::x, &Series::y}) {
    double low = HUGE_VAL, high = -HUGE_VAL;
    for (const Series& s : panel.series) {
      for (const double v : s.*axis) {
        if (!std::isfinite(v)) continue;
        low = std::min(low, v);
        high = std::max(high, v);
      }
    }
    size = std::max(size, high - low);
  }
  if (!(size > 0.0)) return "set xtics autofreq\nset ytics autofreq\n";
  const double power = std::pow(10.0, std::floor(std::log10(size / 5.0)));
  const double rest = size / 5.0 / power;
  const std::string step = std::to_string(power * (rest > 5.0 ? 10.0 : rest > 2.0 ? 5.0 : 2.0));
  return "set xtics " + step + "\nset ytics " + step + "\n";
}

}  // namespace

bool Plot(const std::string& path, const std::string& title, const std::vector<Panel>& panels) {
  if (path.empty()) return true;
  const size_t dot = path.rfind('.');
  const std::string extension = dot == std::string::npos ? "" : path.substr(dot);
  if (extension != ".png" && extension != ".svg") {
    std::fprintf(stderr, "A picture's name must end in .png or .svg, not as %s.\n", path.c_str());
    return false;
  }
  if (std::any_of(path.begin(), path.end(), IsControl)) {
    std::fprintf(stderr, "A picture's name must not have control characters.\n");
    return false;
  }
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
  const bool shares_legend = SharesLegend(panels);
  int block = 0;
  std::map<std::string, size_t> numbers;
  for (const Panel& panel : panels) {
    const std::vector<size_t> number = NumberColours(panel, &numbers);
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
           << (panel.equal_axes ? "set size ratio -1\n" : "set size noratio\n") << Tics(panel)
           << (shares_legend ? "unset key\n"
               : panel.equal_axes || panel.key_outside
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
             << (s.right_axis ? "x1y2" : "x1y1") << Look(s, number[k]);
      first = false;
    }
    script << (first ? "NaN notitle\n" : "\n");
    block += static_cast<int>(panel.series.size());
  }
  if (shares_legend) {
    script << "set key center center vertical\nunset title\nunset xlabel\nunset ylabel\n"
           << "unset border\nunset tics\nunset grid\nunset logscale\n"
           << "set xrange [0:1]\nset yrange [0:1]\nplot ";
    for (size_t k = 0; k < panels[0].series.size(); ++k) {
      script << (k ? ", \\\n  " : "") << "2"
             << Look(panels[0].series[k], numbers.at(panels[0].series[k].title));
    }
    script << "\n";
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
