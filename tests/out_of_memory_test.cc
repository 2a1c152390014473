// Memory that the system does not give, for any large buffer of a solve: no process ends, x, y and
// phi are what the summary says of them, and it says why.
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "ceres/ceres.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define BILEVEL_TEST_HAS_OWN_MALLOC
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define BILEVEL_TEST_HAS_OWN_MALLOC
#endif

namespace {

constexpr std::size_t kLarge = 1000;  // Bytes.
std::atomic<bool> is_counting{false};
std::atomic<long> num_large{0};
long fail_at = -1;
bool fails_for_ever = false;

#ifndef BILEVEL_TEST_HAS_OWN_MALLOC
bool Fails(std::size_t size) {
  if (size < kLarge || !is_counting) return false;
  const long number = num_large++;
  if (fail_at < 0 || number < fail_at || (number > fail_at && !fails_for_ever)) return false;
  errno = ENOMEM;
  return true;
}
#endif

}  // namespace

#ifndef BILEVEL_TEST_HAS_OWN_MALLOC
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* malloc(std::size_t size) { return Fails(size) ? nullptr : __libc_malloc(size); }
void* calloc(std::size_t count, std::size_t size) {
  return Fails(count * size) ? nullptr : __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) {
  return Fails(size) ? nullptr : __libc_realloc(memory, size);
}
}
#endif

namespace bilevel {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int kBlocks = 120, kSize = 3;

// A chain of blocks of y between data, whose weight is e^x.
struct Link {
  template <typename T>
  bool operator()(const T* a, const T* b, const T* x, T* r) const {
    for (int i = 0; i < kSize; ++i) r[i] = exp(x[0]) * (b[i] - a[i] - T(0.1) * sin(a[i]));
    return true;
  }
};
struct Datum {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    for (int i = 0; i < kSize; ++i) r[i] = y[i] - T(std::sin(7.0 * at + i));
    return true;
  }
  double at;
};

struct Chain {
  Chain() {
    problem.AddUpperParameterBlock(&x, 1);
    for (int k = 0; k < kBlocks; ++k) {
      double* const y = &values[kSize * k];
      if (k > 0) {
        problem.lower()->AddResidualBlock(
            new AutoDiffCostFunction<Link, kSize, kSize, kSize, 1>(new Link),
            nullptr,
            y - kSize,
            y,
            &x);
      }
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Datum, kSize, kSize>(new Datum{1.0 * k}), nullptr, y);
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<Datum, kSize, kSize>(new Datum{k + 0.5}), nullptr, y);
    }
  }
  // By how much f is off what was said, and y off another solve by Ceres.
  void Check(const Solver::Summary& summary) {
    double f = 0.0;
    problem.upper()->Evaluate({}, &f, nullptr, nullptr, nullptr);
    EXPECT_NEAR(f, summary.final_objective, 1e-9 * (1.0 + f));
    const std::vector<double> before = values;
    problem.lower()->SetParameterBlockConstant(&x);
    ceres::Solver::Options options;
    options.logging_type = ceres::SILENT;
    options.function_tolerance = options.gradient_tolerance = options.parameter_tolerance = 1e-14;
    ceres::Solver::Summary unused;
    ceres::Solve(options, problem.lower(), &unused);
    for (std::size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(before[i], values[i], 1e-5);
  }
  double x = 0.3;
  std::vector<double> values = std::vector<double>(kBlocks * kSize, 0.2);
  Problem problem;
};

class OutOfMemory : public ::testing::TestWithParam<const char*> {};

TEST_P(OutOfMemory, EndsInASentence) {
#ifdef BILEVEL_TEST_HAS_OWN_MALLOC
  GTEST_SKIP() << "malloc cannot be replaced here";
#endif
  const auto solve = [](Chain* chain, int num_threads, Solver::Summary* summary) {
    Solver::Options options;
    options.method = CreateMethod(GetParam());
    options.max_num_iterations = 4;
    options.num_threads = num_threads;
    // Ceres' own buffers are its affair: it does not live through all of this.
    options.lower_solver = [](Program* program) {
      NewtonLowerSolver::Options newton;
      newton.use_ceres = false;
      return std::make_unique<NewtonLowerSolver>(program, newton);
    };
    num_large = 0;
    is_counting = true;
    Solve(options, &chain->problem, summary);
    is_counting = false;
  };
  fail_at = -1;
  Chain whole;
  Solver::Summary whole_summary;
  solve(&whole, 1, &whole_summary);
  ASSERT_TRUE(whole_summary.IsSolutionUsable()) << whole_summary.FullReport();
  const long num_points = num_large;
  ASSERT_GT(num_points, 100);
  int num_failures = 0;
  const long step = num_points / 60 + 1;
  for (long point = 0; point < num_points; point += step) {
    for (const bool for_ever : {false, true}) {
      SCOPED_TRACE("large allocation " + std::to_string(point) + (for_ever ? " and later" : ""));
      fail_at = point;
      fails_for_ever = for_ever;
      Chain chain;
      Solver::Summary summary;
      solve(&chain, 1 + static_cast<int>(point / step % 2), &summary);
      EXPECT_FALSE(summary.message.empty());
      EXPECT_TRUE(std::isfinite(chain.x));
      for (const double value : chain.values) ASSERT_TRUE(std::isfinite(value));
      if (summary.IsSolutionUsable()) chain.Check(summary);
      if (summary.termination_type != ceres::FAILURE) continue;
      ++num_failures;
      EXPECT_THAT(summary.message, AnyOf(HasSubstr("memory"), HasSubstr("bad_alloc")));
    }
  }
  EXPECT_GT(num_failures, 20);
}

INSTANTIATE_TEST_SUITE_P(
    Methods,
    OutOfMemory,
    ::testing::Values(
        "auto", "levenberg_marquardt", "lbfgs", "bome", "f2sa", "adam", "soba", "igfm"));

}  // namespace
}  // namespace bilevel
