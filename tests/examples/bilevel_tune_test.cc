// The command as a newcomer meets it: its help, his mistakes, what it writes and how it ends.
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

#include "bilevel/version.h"
#include "examples/run_example.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace bilevel {
namespace {

using testing::HasSubstr;
using testing::IsSubsetOf;
using testing::StartsWith;

class BilevelTune : public testing::Test {
 protected:
  void SetUp() override {
    if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  }

  // Its exit code; what it says is in out and err.
  int Run(const std::string& arguments) {
    const std::string log = testing::TempDir() + "bilevel_tune";
    const int status = std::system(("'" + ExamplePath("bilevel-tune") + "' " + arguments + " >'" +
                                    log + ".out' 2>'" + log + ".err'")
                                       .c_str());
    out = ReadText(log + ".out");
    err = ReadText(log + ".err");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  // It fails with one sentence.
  std::string ErrorOf(const std::string& arguments) {
    EXPECT_EQ(Run(arguments), 1) << arguments;
    EXPECT_THAT(err, StartsWith("bilevel-tune: ")) << arguments;
    EXPECT_EQ(err.find('\n'), err.size() - 1) << err;
    return err;
  }
  static std::string Write(const std::string& name, const std::string& text) {
    const std::string path = testing::TempDir() + name;
    std::ofstream(path) << text;
    return path;
  }

  std::string out, err;
};

std::set<std::string> AllMatches(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  std::set<std::string> matches;
  for (std::sregex_iterator i(text.begin(), text.end(), regex), end; i != end; ++i) {
    matches.insert((*i)[1]);
  }
  return matches;
}

TEST_F(BilevelTune, HelpIsShortAndLeadsOn) {
  EXPECT_EQ(Run("--help"), 0);
  EXPECT_LE(std::count(out.begin(), out.end(), '\n'), 25);
  const std::set<std::string> commands = AllMatches(out, "\n  ([a-z]+[a-z-]*)  ");
  EXPECT_EQ(commands.size(), 5u);
  for (const std::string& command : commands) {
    EXPECT_EQ(Run(command + " --help"), 0);
    EXPECT_THAT(out, StartsWith("Usage: bilevel-tune " + command));
    EXPECT_THAT(out, HasSubstr("--json=FILE"));
    for (const char* internal : {"minloglevel", "flagfile", "summary_json"}) {
      EXPECT_EQ(out.find(internal), std::string::npos) << internal;
    }
  }
  EXPECT_EQ(Run("--version"), 0);
  EXPECT_EQ(out, std::string("bilevel-tune ") + Version() + "\n");
  EXPECT_EQ(Run(""), 1);
}

// Nothing in the manual that the command does not have, and the other way round what all commands
// have.
TEST_F(BilevelTune, TheManualHasWhatTheCommandHas) {
  std::string manual = ReadText(SourcePath("examples/tune/bilevel-tune.1"));
  manual = std::regex_replace(manual, std::regex("\\\\-"), "-");
  Run("--help");
  const std::set<std::string> commands = AllMatches(out, "\n  ([a-z]+[a-z-]*)  ");
  EXPECT_EQ(AllMatches(manual, "\n\\.B ([a-z-]+) \\\\fI"), commands);
  std::set<std::string> common, all;
  for (const std::string& command : commands) {
    Run(command + " --help");
    const std::set<std::string> flags = AllMatches(out, "\n  --(?:\\[no\\])?([a-z_]+)");
    if (common.empty()) common = flags;
    std::set<std::string> both;
    std::set_intersection(
        flags.begin(), flags.end(), common.begin(), common.end(), std::inserter(both, both.end()));
    common = both;
    all.insert(flags.begin(), flags.end());
  }
  const std::set<std::string> described = AllMatches(manual, "\n\\.BI? --([a-z_]+)");
  EXPECT_THAT(described, IsSubsetOf(all));
  EXPECT_THAT(std::set<std::string>({"json", "config", "quick"}), IsSubsetOf(described));
  EXPECT_THAT(common, IsSubsetOf(described));
}

TEST_F(BilevelTune, MistakesAreNamedInOneSentence) {
  EXPECT_THAT(ErrorOf("pose-grpah x.g2o"), HasSubstr("did you mean pose-graph?"));
  EXPECT_THAT(ErrorOf("network x"), HasSubstr("There are pose-graph, bundle-adjustment"));
  EXPECT_THAT(ErrorOf("--json=y pose-graph x.g2o"), HasSubstr("comes before its flags"));
  EXPECT_THAT(ErrorOf("pose-graph x.g2o --thruth=y"), HasSubstr("did you mean --truth?"));
  EXPECT_THAT(ErrorOf("pose-graph x.g2o --per-camera"), HasSubstr("no flag --per_camera."));
  EXPECT_THAT(ErrorOf("pose-graph x.g2o --split=half"), HasSubstr("--split=half: that is no num"));
  EXPECT_THAT(ErrorOf("pose-graph x.g2o --seed=0.5"), HasSubstr("that is no whole number"));
  EXPECT_THAT(ErrorOf("pose-graph x.g2o --truth"), HasSubstr("--truth needs a value"));
  EXPECT_THAT(ErrorOf("pose-graph"), HasSubstr("GRAPH is missing"));
  EXPECT_THAT(ErrorOf("handeye hand.csv"), HasSubstr("EYE is missing"));
  EXPECT_THAT(ErrorOf("handeye a b c"), HasSubstr("What is \"c\"?"));
  EXPECT_THAT(ErrorOf("handeye a b --output=c"), HasSubstr("There is no --output: pose streams"));
  EXPECT_THAT(ErrorOf("pose-graph x.g2o --simulate"), HasSubstr("--simulate is in place of x.g2o"));
  EXPECT_THAT(ErrorOf("pose-graph x.g2o --num_threads=0"), HasSubstr("must be positive"));
  EXPECT_THAT(ErrorOf("range x --checkpoint=c"), HasSubstr("goes with --nosafe"));
  EXPECT_THAT(ErrorOf("pose-graph x.g2o --output=y.g2o.gz"), HasSubstr("leave out .gz"));
  EXPECT_THAT(ErrorOf("pose-graph --simulate --json=/nowhere/x.json"),
              HasSubstr("/nowhere/x.json cannot be written"));
}

TEST_F(BilevelTune, FilesOfAnotherKindAreRefused) {
  const std::string empty = Write("empty.g2o", ""), other = Write("other.txt", "Dear diary,\n");
  const std::string missing = testing::TempDir() + "missing";
  for (const std::string command : {"pose-graph", "bundle-adjustment", "range", "calibration"}) {
    for (const std::string& file : {empty, other, missing, testing::TempDir()}) {
      EXPECT_NE(ErrorOf(command + " '" + file + "'").find(testing::TempDir()), std::string::npos)
          << err;
    }
  }
  const std::string lonely = Write("lonely.g2o", "VERTEX_SE2 0 0 0 0\n");
  EXPECT_THAT(ErrorOf("pose-graph '" + lonely + "'"), HasSubstr("has 0 odometry edges"));
  EXPECT_THAT(ErrorOf("handeye '" + other + "' '" + other + "'"), HasSubstr("other.txt:1"));
}

TEST_F(BilevelTune, TheConfigurationFileGivesWayToTheCommandLine) {
  const std::string config = Write("tune.conf", "# Mine.\n\n split = 2\n--per-axis\nseed=3\n");
  EXPECT_THAT(ErrorOf("pose-graph x.g2o --config='" + config + "'"), HasSubstr("--split between"));
  EXPECT_THAT(ErrorOf("pose-graph x.g2o --split=0.5 --config='" + config + "'"),
              HasSubstr("x.g2o cannot be read"));
  EXPECT_THAT(ErrorOf("range x --config='" + config + "'"),
              HasSubstr("tune.conf:3: There is no flag --split"));
  EXPECT_THAT(ErrorOf("range x --config=/nowhere"), HasSubstr("/nowhere cannot be read"));
}

// The verdict is the first line and the exit code; what is written agrees with it.
TEST_F(BilevelTune, TheVerdictComesFirst) {
  const std::string json = testing::TempDir() + "tune.json", tuned = testing::TempDir() + "t.g2o",
                    page = testing::TempDir() + "tune.html";
  std::remove(tuned.c_str());
  const std::string flags = "pose-graph --simulate --quick --json='" + json + "' --output='" +
                            tuned + "' --report='" + page + "'";
  EXPECT_EQ(Run(flags), 0);
  EXPECT_THAT(out, StartsWith("VERDICT. Use the learned values"));
  EXPECT_EQ(err, "");
  EXPECT_THAT(ReadText(json), HasSubstr("\"verdict\": \"use\""));
  const double value = JsonNumber(ReadText(json), "loop rotation", "value");
  EXPECT_LT(JsonNumber(ReadText(json), "loop rotation", "low"), value);
  EXPECT_GT(JsonNumber(ReadText(json), "loop rotation", "high"), value);
  EXPECT_THAT(ReadText(tuned), StartsWith("VERTEX_SE2 "));
  EXPECT_THAT(ReadText(page), HasSubstr("log loops"));

  // A reader that leaves changes neither.
  std::remove(tuned.c_str());
  EXPECT_EQ(std::system(("bash -c \"'" + ExamplePath("bilevel-tune") + "' " + flags +
                         " | true; exit \\${PIPESTATUS[0]}\"")
                            .c_str()),
            0);
  EXPECT_THAT(ReadText(tuned), StartsWith("VERTEX_SE2 "));

  // A graph in which nothing is left to learn.
  const int code =
      Run("pose-graph '" + tuned + "' --output='" + tuned + ".g2o' --json='" + json + "'");
  EXPECT_TRUE(code == 3 || code == 4) << code << out;
  EXPECT_THAT(out, HasSubstr("is not written: what was learned is not to be used"));
  EXPECT_EQ(ReadText(tuned + ".g2o"), "");
  EXPECT_THAT(ReadText(json), Not(HasSubstr("\"verdict\": \"use\"")));
}

}  // namespace
}  // namespace bilevel
