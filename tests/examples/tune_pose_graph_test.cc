// The example on small graphs: what it promises on large ones, read off its JSON.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <variant>

#include "examples/run_example.h"
#include "examples/support/slam/g2o.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace bilevel {
namespace {

// The JSON of a run by the score alone; empty where it failed.
std::string RunExample(const std::string& arguments, const char* rule = "--nosafe") {
  const std::string json = testing::TempDir() + "tune_pose_graph.json";
  const std::string command = "'" + ExamplePath("bilevel-tune") + "' pose-graph --quick --json='" +
                              json + "' " + rule + " " + arguments;
  EXPECT_TRUE(EndsWithVerdict(command + " >'" + json + ".log' 2>&1")) << ReadText(json + ".log");
  return ReadText(json);
}

double LowerSolves(const std::string& json, const std::string& of) {
  return JsonNumber(json, of, "cold_solves") + JsonNumber(json, of, "warm_solves");
}

TEST(TunePoseGraph, SimulatedGraph) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string tuned = testing::TempDir() + "tuned.g2o";
  const std::string json = RunExample("--simulate --baselines --output='" + tuned + "'");
  const double train = JsonNumber(json, "learned", "train");
  EXPECT_LE(train, 1.001 * JsonNumber(json, "best_of_the_grid", "train"));
  EXPECT_LE(train, 1.001 * JsonNumber(json, "Nelder-Mead", "train"));
  EXPECT_LE(train * train, 1.01 * std::pow(JsonNumber(json, "true_sigmas", "train"), 2));
  EXPECT_LE(JsonNumber(json, "learned", "test"), 0.7 * JsonNumber(json, "as_in_the_file", "test"));
  // Four of them look along the flat direction in the end.
  EXPECT_LE(LowerSolves(json, "cost_of_learned"), 17);
  EXPECT_EQ(JsonNumber(json, "", "flat_directions"), 1);

  // The graph returns with information that makes chi2 the degrees of freedom.
  examples::AnyPoseGraph any;
  std::string error;
  ASSERT_TRUE(examples::ReadPoseGraph(tuned, &any, &error)) << error;
  const auto& graph = std::get<examples::PoseGraph2>(any);
  ASSERT_EQ(graph.vertices.size(), 700u);
  double chi2 = 0.0;
  for (const auto& e : graph.edges) {
    Eigen::Vector3d r;
    examples::RelativePoseError2{e.measured}(
        graph.vertices[e.from].pose.v.data(), graph.vertices[e.to].pose.v.data(), r.data());
    chi2 += r.dot(e.information * r);
  }
  EXPECT_NEAR(chi2 / (3.0 * (static_cast<double>(graph.edges.size()) - 699.0)), 1.0, 1e-3);
}

TEST(TunePoseGraph, FalseLoopClosures) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = RunExample("--simulate --false_loops=0.2");
  EXPECT_LE(JsonNumber(json, "learned", "train"),
            0.7 * JsonNumber(json, "as_in_the_file", "train"));
  EXPECT_LE(JsonNumber(json, "learned", "test"), 0.7 * JsonNumber(json, "as_in_the_file", "test"));
  EXPECT_NE(json.find("new ceres::CauchyLoss("), std::string::npos);
}

// Where the file's ratios are far from good ones too, and the way is long.
TEST(TunePoseGraph, AsGoodAsTheTrueSigmas) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  // The graph with 2000 poses: on a small one, the trajectory says too little of the sigmas.
  for (const char* flags :
       {"--seed=2", "--seed=3 --start_factor=100", "--seed=1 --start_factor=0.01"}) {
    const std::string json = RunExample(std::string("--simulate --noquick ") + flags);
    EXPECT_LE(std::pow(JsonNumber(json, "learned", "train"), 2),
              1.01 * std::pow(JsonNumber(json, "true_sigmas", "train"), 2))
        << flags;
  }
}

TEST(TunePoseGraph, TruthIsSharedWithoutAGraphToTestOn) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  BILEVEL_REQUIRE_DATA("posegraph/ring.g2o.gz");
  const std::string json =
      RunExample("--baselines '" + DataPath("posegraph/ring.g2o.gz") + "' --truth='" +
                 DataPath("posegraph/ring_groundtruth.g2o.gz") + "'");
  for (const char* other : {"as_in_the_file", "best_of_the_grid"}) {
    EXPECT_LE(JsonNumber(json, "learned", "train"), JsonNumber(json, other, "train")) << other;
  }
  EXPECT_TRUE(std::isfinite(JsonNumber(json, "learned", "test")));
}

// As good as without the false ones, from the graph as it grew.
TEST(TunePoseGraph, RecoversFromFalseLoopClosures) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  BILEVEL_REQUIRE_DATA("posegraph/ring.g2o.gz");
  const std::string graph = "'" + DataPath("posegraph/ring.g2o.gz") + "' --truth='" +
                            DataPath("posegraph/ring_groundtruth.g2o.gz") + "' ";
  const std::string without = RunExample(graph);
  const std::string with = RunExample(graph + "--false_loops=0.2");
  EXPECT_GT(JsonNumber(with, "as_in_the_file", "test"), 40.0);
  for (const char* set : {"train", "test"}) {
    EXPECT_LE(JsonNumber(with, "learned", set), 1.02 * JsonNumber(without, "learned", set)) << set;
  }
}

// A switch for each loop closure is Geman and McClure's loss, minimised over the switches: two ways
// to one estimate.
TEST(TunePoseGraph, SwitchableLoopClosures) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string switched = RunExample("--simulate --false_loops=0.2 --loss=switchable");
  const std::string loss = RunExample("--simulate --false_loops=0.2 --loss=geman_mcclure");
  for (const char* row : {"as_in_the_file", "learned"}) {
    const double train = JsonNumber(loss, row, "train");
    EXPECT_NEAR(JsonNumber(switched, row, "train"), train, 0.02 * train) << row;
  }
  EXPECT_LE(JsonNumber(switched, "learned", "train"),
            0.7 * JsonNumber(switched, "as_in_the_file", "train"));
  EXPECT_LE(JsonNumber(switched, "learned", "test"),
            0.7 * JsonNumber(switched, "as_in_the_file", "test"));
  EXPECT_GE(JsonNumber(switched, "switched_off", "false"), 0.95);
  EXPECT_LE(JsonNumber(switched, "switched_off", "true"), 0.1);
  EXPECT_NE(switched.find("sqrt_switch_prior = "), std::string::npos);
}

TEST(TunePoseGraph, HeldOutLoopClosures) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  BILEVEL_REQUIRE_DATA("posegraph/intel.g2o.gz");
  const std::string json = RunExample("'" + DataPath("posegraph/intel.g2o.gz") + "'");
  EXPECT_LE(JsonNumber(json, "learned", "train"),
            0.85 * JsonNumber(json, "as_in_the_file", "train"));
  EXPECT_LE(JsonNumber(json, "learned", "test"), JsonNumber(json, "as_in_the_file", "test"));
  EXPECT_LE(LowerSolves(json, "cost_of_learned"), 20);  // Four unknowns: 625 points of a grid.
}

TEST(TunePoseGraph, LearnedOnOneRideBetterOnAnother) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  for (const char* file : {"posegraph/kitti_00.g2o.gz",
                           "posegraph/kitti_02.g2o.gz",
                           "kitti_poses/00.txt.gz",
                           "kitti_poses/02.txt.gz"}) {
    BILEVEL_REQUIRE_DATA(file);
  }
  const std::string json = RunExample("'" + DataPath("posegraph/kitti_00.g2o.gz") + "' --truth='" +
                                      DataPath("kitti_poses/00.txt.gz") + "' --test='" +
                                      DataPath("posegraph/kitti_02.g2o.gz") + "' --test_truth='" +
                                      DataPath("kitti_poses/02.txt.gz") + "'");
  EXPECT_LE(JsonNumber(json, "learned", "train"), 2.01);
  EXPECT_LE(JsonNumber(json, "learned", "test"), 0.95 * JsonNumber(json, "as_in_the_file", "test"));
  EXPECT_LE(LowerSolves(json, "cost_of_learned"), 15);
}

// By default, from one recording: what is handed back loses nothing where the file's sigmas are
// good, and gains what the truth's residuals tell where they are not.
TEST(TunePoseGraph, TheSafeRule) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  for (const char* flags : {"--simulate", "--simulate --seed=1", "--simulate --false_loops=0.2"}) {
    const std::string json = RunExample(flags, "");
    EXPECT_LE(JsonNumber(json, "learned", "test"), 0.7 * JsonNumber(json, "as_in_the_file", "test"))
        << flags;
  }
  const std::string log = ReadText(testing::TempDir() + "tune_pose_graph.json.log");
  EXPECT_LT(log.find("VERDICT. Use the learned values"), log.find("To paste into a Ceres program"));
  BILEVEL_REQUIRE_DATA("posegraph/manhattanOlson3500.g2o.gz");
  BILEVEL_REQUIRE_DATA("posegraph/ring.g2o.gz");
  const std::string arguments =
      "'" + DataPath("posegraph/manhattanOlson3500.g2o.gz") + "' --truth='" +
      DataPath("posegraph/manhattanOlson3500_nodes_groundTruth.dat.gz") + "' --test='" +
      DataPath("posegraph/ring.g2o.gz") + "' --test_truth='" +
      DataPath("posegraph/ring_groundtruth.g2o.gz") + "'";
  const std::string json = RunExample(arguments, "");
  EXPECT_LE(JsonNumber(json, "learned", "test"), 1.05 * JsonNumber(json, "as_in_the_file", "test"));
  EXPECT_EQ(ReadText(testing::TempDir() + "tune_pose_graph.json.log").find("To paste"),
            std::string::npos);
}

TEST(TunePoseGraph, BadInputIsNamed) {
  const std::string example = ExamplePath("bilevel-tune");
  if (example.empty()) GTEST_SKIP() << "the examples were not built";
  const std::string graph = testing::TempDir() + "bad_graph.g2o";
  std::ofstream(graph) << "EDGE_SE2 0 1 1 0 0 1 0 0 1 0 x\n";
  const std::string log = testing::TempDir() + "bad_graph.log";
  EXPECT_NE(
      std::system(("'" + example + "' pose-graph '" + graph + "' >'" + log + "' 2>&1").c_str()), 0);
  EXPECT_NE(ReadText(log).find("bad_graph.g2o:1: an entry of the information is \"x\""),
            std::string::npos)
      << ReadText(log);
  EXPECT_NE(
      std::system(("'" + example + "' pose-graph --quick one two >'" + log + "' 2>&1").c_str()), 0);
  EXPECT_EQ(ReadText(log),
            "bilevel-tune: What is \"two\"? Usage: bilevel-tune pose-graph GRAPH [flags].\n");
}

TEST(FilterFusion, FindsTheRatioAndNamesTheFlatDirection) {
  const std::string example = ExamplePath("filter_fusion");
  if (example.empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = testing::TempDir() + "filter_fusion.json";
  for (const char* start : {"", "--start_odometry=5 --start_gps=0.15"}) {
    const std::string command =
        "'" + example + "' --quick --summary_json='" + json + "' " + start + " >'" + json + ".log'";
    ASSERT_TRUE(EndsWithVerdict(command)) << ReadText(json + ".log");
    const std::string text = ReadText(json);
    EXPECT_EQ(JsonNumber(text, "", "flat_directions"), 1);
    EXPECT_NE(text.find("0.71 'log sigma odometry'[0] "), std::string::npos);
    EXPECT_NE(text.find(" 0.71 'log sigma GPS'[0]"), std::string::npos);
    EXPECT_LE(JsonNumber(text, "learned", "phi"), 1.01 * JsonNumber(text, "true", "phi"));
    EXPECT_LE(JsonNumber(text, "learned", "phi"), JsonNumber(text, "best_of_the_grid", "phi"));
    EXPECT_LE(JsonNumber(text, "cost_of_learned", "lower_solves"), 18);  // As above.
    EXPECT_GT(JsonNumber(text, "learned", "test_gain_low"), 0.0);
    EXPECT_GT(JsonNumber(text, "learned_without_truth", "test_gain_low"), 0.0);
    EXPECT_LE(JsonNumber(text, "learned", "filter"), 1.01 * JsonNumber(text, "true", "filter"));
    EXPECT_NEAR(JsonNumber(text, "learned", "odometry") / 0.05, 1.0, 0.1);
    EXPECT_NEAR(JsonNumber(text, "learned", "gps") / 1.5, 1.0, 0.1);
    EXPECT_NEAR(JsonNumber(text, "learned_by_likelihood", "odometry") / 0.05, 1.0, 0.1);
    EXPECT_NEAR(JsonNumber(text, "learned_by_likelihood", "gps") / 1.5, 1.0, 0.1);
    // Two of them confirm the curvature at the answer, and where its Newton step leads.
    EXPECT_LE(JsonNumber(text, "cost_of_learned_by_likelihood", "lower_solves"), 25 + 2);
  }
}

}  // namespace
}  // namespace bilevel
