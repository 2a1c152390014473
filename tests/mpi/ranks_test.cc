// Scenarios shared among MPI's processes, run by mpirun: more of them than cores, and as root.
#include <sys/wait.h>

#include <cstdio>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

struct Ended {
  std::string output;
  int exit_code = -1;
};

// 124: it had to be ended.
Ended Shell(const std::string& command, const char* errors = " 2>&1") {
  Ended run;
  std::FILE* const pipe = popen(("timeout -k 5 120 " + command + errors).c_str(), "r");
  char text[4096];
  while (const size_t size = std::fread(text, 1, sizeof(text), pipe)) run.output.append(text, size);
  const int status = pclose(pipe);
  run.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return run;
}

const char kMpirun[] = BILEVEL_MPIEXEC " --oversubscribe --allow-run-as-root -n ";

Ended OnRanks(int num_ranks, const std::string& arguments, const char* errors = " 2>&1") {
  return Shell(kMpirun + std::to_string(num_ranks) + " " BILEVEL_FLEET_ON_RANKS " " + arguments,
               errors);
}

// Not on machines where mpirun starts nothing: without a network of their own, say.
class MpiRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    static const Ended probe = Shell(kMpirun + std::string("2 true"));
    if (probe.exit_code != 0) GTEST_SKIP() << "mpirun starts no processes here: " << probe.output;
  }
};

TEST_F(MpiRanks, TheSameBitsOnAnyNumberOfRanks) {
  for (const std::string arguments :
       {" auto 0", " levenberg_marquardt 1", " lbfgs 2", " lbfgs 5"}) {
    const Ended alone = Shell(BILEVEL_FLEET_ON_RANKS " alone_solve" + arguments);
    ASSERT_EQ(alone.exit_code, 0);
    ASSERT_THAT(alone.output, AllOf(HasSubstr("objective 0x"), Not(HasSubstr("FAILURE"))));
    const bool is_first = arguments == " auto 0";  // ranks_test has all of them on threads.
    for (const int num_ranks : is_first ? std::vector<int>{1, 2, 3, 4, 7} : std::vector<int>{3}) {
      // What MPI has to say of the machine is on another stream.
      const Ended shared = OnRanks(num_ranks, "solve" + arguments, " 2>/dev/null");
      EXPECT_EQ(shared.exit_code, 0);
      ASSERT_EQ(shared.output, alone.output) << arguments << " on " << num_ranks;
    }
  }
}

// Every rank prints a sentence that has this in it, and the job ends by itself.
void ExpectAll(const std::string& arguments, int num_ranks, const std::string& sentence) {
  const Ended run = OnRanks(num_ranks, arguments);
  EXPECT_EQ(run.exit_code, 0) << arguments << "\n" << run.output;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::string name = "rank " + std::to_string(rank) + ": ";
    const size_t begin = run.output.find(name + "FAILURE");
    ASSERT_NE(begin, std::string::npos) << arguments << "\n" << run.output;
    EXPECT_THAT(run.output.substr(begin, run.output.find('\n', begin) - begin), HasSubstr(sentence))
        << arguments;
  }
}

TEST_F(MpiRanks, WhatDiffersIsNamedOnAllRanks) {
  ExpectAll(
      "other_x", 3, "rank 1 has upper block 0[1] = -1.25, and rank 0 upper block 0[1] = -1.5");
  ExpectAll("other_options", 3, "rank 1 has options.function_tolerance = 0.001, and rank 0 ");
  ExpectAll("other_method", 3, "rank 1 has options.method lbfgs, and rank 0 options.method leven");
  ExpectAll("bad_options", 3, "lower_tolerance must be between 0 and 1 (on rank 1)");
  ExpectAll("other_name", 3, "rank 1 has 10 scenarios added, and rank 0 9 scenarios added");
  ExpectAll("missing", 3, "scenario 'log_4' is on no rank: it has no residual block and no term");
  ExpectAll("twice", 3, "scenario 'log_4' is on rank 0 and on rank 1: it must be on one");
  ExpectAll("idle", 3, "rank 1 has no scenario: there are 3 ranks for 9");
  ExpectAll("checkpoint", 2, "ranks that share a problem write no checkpoints");
  ExpectAll("no_method hoag_", 2, "the method is null");
}

// A fault ends the run as in one process, and all say whose it was.
TEST_F(MpiRanks, FaultsOfOneRankAreToldByAll) {
  for (const std::string method : {"levenberg_marquardt", "lbfgs", "adam"}) {
    for (const std::string what : {"throws ", "fails "}) {
      const Ended alone = Shell(BILEVEL_FLEET_ON_RANKS " alone_" + what + method);
      EXPECT_THAT(alone.output, HasSubstr("of scenario 'log_1'"));
      const size_t begin = alone.output.find("FAILURE");
      ASSERT_NE(begin, std::string::npos) << alone.output;
      // Without what may close a bracket around the culprit.
      const size_t end = alone.output.find_first_of(")\n", alone.output.find("log_1"));
      ExpectAll(what + method, 3, alone.output.substr(begin, end - begin) + " (on rank 1)");
    }
    ExpectAll("callback " + method, 3, "threw: no space left for the log");
  }
}

TEST_F(MpiRanks, WhoLeavesIsNamed) {
  for (const std::string what : {"leaves", "build"}) {
    const Ended run = OnRanks(3, what);
    EXPECT_NE(run.exit_code, 124) << run.output;
    EXPECT_THAT(run.output, HasSubstr("rank 1 stands where it leaves, and rank 0 ")) << run.output;
  }
}

// MPI ends the job of a process that is killed, or that ends without a word.
TEST_F(MpiRanks, ALostRankEndsTheJob) {
  for (const std::string what : {"killed", "exits"}) {
    const Ended run = OnRanks(3, what);
    EXPECT_NE(run.exit_code, 124) << run.output;
    EXPECT_NE(run.exit_code, 0) << run.output;
  }
}

}  // namespace
