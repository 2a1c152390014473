#ifndef BILEVEL_EXAMPLES_SUPPORT_PLOT_H_
#define BILEVEL_EXAMPLES_SUPPORT_PLOT_H_

#include <string>
#include <vector>

namespace examples {

struct Series {
  std::string title;  ///< Those of one title have one colour in all panels.
  /// gnuplot's: "lines", "points", "linespoints", "steps", "boxes".
  std::string style;
  std::vector<double> x, y;  ///< A value that is not finite interrupts a line.
  bool right_axis = false;
};

struct Panel {
  std::string title, x_label, y_label;  ///< Labels with their units.
  bool log_x = false, log_y = false;
  bool equal_axes = false;  ///< One unit is as long across as up: a map.
  std::vector<Series> series = {};
  std::string right_label = {};
  bool key_outside = false;  ///< The legend beside the panel, where it would hide curves.
};

/// Writes panels side by side, data and all, to a gnuplot script next to `path` (.png or .svg),
/// and runs it where gnuplot is installed; otherwise says how to.
bool Plot(const std::string& path, const std::string& title, const std::vector<Panel>& panels);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_PLOT_H_
