#include "bilevel/report.h"

#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Written(const Solver::Summary& summary) {
  const std::string path = ::testing::TempDir() + "report_test.html";
  std::string error;
  EXPECT_TRUE(WriteReport(summary, path, &error)) << error;
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  std::remove(path.c_str());
  return text.str();
}

// Every element that is opened is closed, in order; what is wrong, or nothing.
std::string WhyNotWellFormed(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    if (end == std::string::npos) return "a tag does not end";
    if (html[at + 1] == '!' || html[at + 1] == '?' || html[end - 1] == '/') continue;
    const bool closes = html[at + 1] == '/';
    size_t name_end = at + 1 + closes;
    while (std::isalnum(static_cast<unsigned char>(html[name_end]))) ++name_end;
    const std::string name = html.substr(at + 1 + closes, name_end - at - 1 - closes);
    if (name.empty()) return "a < that is no tag";
    if (name == "meta") continue;
    if (!closes) {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return "</" + name + "> closes nothing";
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

// min (y - 2)^2 / 2 over x, y = e^x: x = log 2.
struct Above {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 2.0;
    r[1] = T(0.1);
    return true;
  }
};
struct Below {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::exp;
    r[0] = y[0] - exp(x[0]);
    return true;
  }
};

Solver::Summary Solved(const std::string& name) {
  double x = 0.0, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.SetParameterName(&x, name);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Below, 1, 1, 1>(new Below), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(new AutoDiffCostFunction<Above, 2, 1>(new Above), nullptr, &y);
  Solver::Summary summary;
  Solve(Solver::Options(), &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE);
  return summary;
}

TEST(Report, HasWhatASolveFound) {
  const std::string html = Written(Solved("noise"));
  EXPECT_EQ(WhyNotWellFormed(html), "");
  EXPECT_THAT(html, HasSubstr("CONVERGENCE"));
  EXPECT_THAT(html, HasSubstr("'noise'[0]"));
  EXPECT_THAT(html, HasSubstr("0.693147"));  // log 2
  EXPECT_THAT(html, HasSubstr("levenberg_marquardt"));
  EXPECT_THAT(html, HasSubstr("gradient_max_norm"));
  // No other file is asked for: what is referred to is in the page.
  for (const char* link : {"src=", "url(", "@import", "href=\"", "<script"}) {
    EXPECT_THAT(html, Not(HasSubstr(link)));
  }
  for (size_t at = html.find("href='"); at != std::string::npos; at = html.find("href='", at + 1)) {
    EXPECT_EQ(html[at + 6], '#');
  }
  const bool has_gnuplot = std::system("command -v gnuplot >/dev/null 2>&1") == 0;
  EXPECT_EQ(html.find("<svg") != std::string::npos, has_gnuplot);
  EXPECT_EQ(html.find("gnuplot is not installed") != std::string::npos, !has_gnuplot);
}

TEST(Report, EscapesNames) {
  const std::string html = Written(Solved("<script>a&b</script>\xff"));
  EXPECT_EQ(WhyNotWellFormed(html), "");
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;a&amp;b&lt;/script&gt;&#xfffd;"));
}

TEST(Report, OfNoSolve) {
  const std::string html = Written(Solver::Summary());
  EXPECT_EQ(WhyNotWellFormed(html), "");
  EXPECT_THAT(html, HasSubstr("bilevel::Solve was not called."));
}

TEST(Report, SaysWhatCannotBeWritten) {
  std::string error;
  EXPECT_FALSE(WriteReport(Solver::Summary(), "/nowhere/report.html", &error));
  EXPECT_THAT(error, HasSubstr("/nowhere/report.html could not be written: No such file"));
  if (std::FILE* full = std::fopen("/dev/full", "w")) {
    std::fclose(full);
    EXPECT_FALSE(WriteReport(Solver::Summary(), "/dev/full", &error));
    EXPECT_THAT(error, HasSubstr("No space left"));
  }
  EXPECT_FALSE(WriteReport(Solver::Summary(), "/nowhere/report.html"));
}

}  // namespace
}  // namespace bilevel
