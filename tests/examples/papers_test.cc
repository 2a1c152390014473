// The papers' experiments in their quick form: what they promise, read off their JSON.
#include <cstdlib>
#include <fstream>
#include <string>

#include "examples/run_example.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace bilevel {
namespace {

std::string QuickJson(const std::string& name, const std::string& data) {
  const std::string out = testing::TempDir() + name + ".json";
  const std::string command =
      "'" + ExamplePath(name) + "' --quick --data='" + data + "' --summary_json='" + out + "'";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  return ReadText(out);
}

std::string FolderOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

// The weights tell wrong labels from right ones, and training with them is much better than with
// all labels.
TEST(HyperCleaning, FindsTheWrongLabelsOfDigits) {
  const char* file = "mnist/train-images-idx3-ubyte.gz";
  BILEVEL_REQUIRE_DATA(file);
  if (ExamplePath("hyper_cleaning").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = QuickJson("hyper_cleaning", FolderOf(DataPath(file)));
  const double start = JsonNumber(json, "start", "selected");
  const double right = JsonNumber(json, "validation and right labels", "selected");
  for (const char* method : {"bome_T1", "bome_T10"}) {
    EXPECT_GE(JsonNumber(json, method, "f1"), 0.9) << method;
    EXPECT_GE(JsonNumber(json, method, "selected"), right - 0.015) << method;
  }
  for (const char* method : {"soba", "slip"}) {
    EXPECT_GE(JsonNumber(json, method, "f1"), 0.8) << method;
    EXPECT_GE(JsonNumber(json, method, "selected"), start + 0.01) << method;
  }
}

// One weight: where the sweep, refined, has its least validation loss.
TEST(L2Tuning, FindsWhatASweepFinds) {
  const char* file = "mnist/train-images-idx3-ubyte.gz";
  BILEVEL_REQUIRE_DATA(file);
  if (ExamplePath("l2_tuning").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = QuickJson("l2_tuning", FolderOf(DataPath(file)));
  const double sweep = JsonNumber(json, "p=0.5", "sweep phi");
  for (const char* method : {"lbfgs", "aid_cg"}) {
    EXPECT_NEAR(JsonNumber(json, "p=0.5", method), JsonNumber(json, "p=0.5", "sweep"), 2e-3)
        << method;
    EXPECT_NEAR(JsonNumber(json, "p=0.5", std::string(method) + " phi"), sweep, 1e-4) << method;
  }
}

// Three tasks of 300 samples: each is learned, and stays so while others are.
TEST(ContinualLearning, DoesNotForget) {
  const char* file = "mnist/train-images-idx3-ubyte.gz";
  BILEVEL_REQUIRE_DATA(file);
  if (ExamplePath("continual_learning").empty()) {
    GTEST_SKIP() << "it was not built: LibTorch or the examples are missing";
  }
  const std::string json = QuickJson("continual_learning", FolderOf(DataPath(file)));
  for (const char* method : {"bome", "aid"}) {
    EXPECT_GE(JsonNumber(json, method, "ACC"), 0.73) << method;
    EXPECT_LE(JsonNumber(json, method, "NBT"), 0.03) << method;
  }
}

// A few iterations already make validation and test better than no regularisation does.
TEST(NewsRegularization, ImprovesOnNone) {
  const char* file = "news20/20news_w1000_counts_train.libsvm.gz";
  BILEVEL_REQUIRE_DATA(file);
  if (ExamplePath("news_regularization").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = QuickJson("news_regularization", FolderOf(DataPath(file)));
  EXPECT_LT(JsonNumber(json, "", "bome_T1 f"), 0.9 * JsonNumber(json, "", "start f"));
  EXPECT_GT(JsonNumber(json, "", "bome_T1"), JsonNumber(json, "", "start") + 0.02);
}

// Weights of tweets tell wrong labels from right ones better than chance (F1 = 0.2 at p = 0.2), and
// f is below that of no weights at all.
TEST(TextCleaning, FindsWrongLabelsOfTweets) {
  const char* file = "sentiment140_100k/positive.txt.gz";
  BILEVEL_REQUIRE_DATA(file);
  if (ExamplePath("text_cleaning").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = QuickJson("text_cleaning", FolderOf(DataPath(file)));
  for (const char* method : {"slip", "soba"}) {
    EXPECT_GE(JsonNumber(json, method, "f1"), 0.35) << method;
    EXPECT_GE(JsonNumber(json, method, "accuracy"), 0.72) << method;
  }
}

// Learned word vectors are better than those that all start from, on the kinds of reviews they
// were learned from and on a new one.
TEST(HyperRepresentation, ImprovesOnTheStart) {
  const char* file = "mdsd_amazon/books_train.svmlight.gz";
  BILEVEL_REQUIRE_DATA(file);
  if (ExamplePath("hyper_representation").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = QuickJson("hyper_representation", FolderOf(DataPath(file)));
  for (const char* method : {"slip", "soba"}) {
    EXPECT_GE(JsonNumber(json, method, "accuracy"), JsonNumber(json, "start", "accuracy") + 0.1)
        << method;
    EXPECT_GE(JsonNumber(json, method, "new task"), JsonNumber(json, "start", "new task") + 0.05)
        << method;
  }
}

}  // namespace
}  // namespace bilevel
