// Hand-eye calibration of two pose streams that share no clock: their time offset and noise are
// learned, the transformations between them estimated.
//
//   lower level   y*(x) = argmin  sum over training poses  rho(|rotation error / sigma_r|^2)
//                                                        + rho(|position error / sigma_p|^2)
//   upper level   x     = argmin  the same on validation poses + n log(sigma_r^3 sigma_p^3)
//
// y: the poses X of the eye on the hand and W of the eye's world in the hand's. An eye's pose B_j
// at its time t_j should be W^-1 A(t_j + offset) X with the hand's pose A, interpolated. x: the
// offset and the logarithms of sigma_r and sigma_p, the noise of both streams together as the eye
// sees it. rho: Cauchy's loss of 5 sigmas. The upper level is a negative log-likelihood, so that
// the levels of noise are determined, not only their ratio; they are the scales of that
// distribution.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "bilevel/learnable/noise.h"
#include "ceres/ceres.h"
#include "ceres/rotation.h"
#include "examples/support/baselines.h"
#include "examples/support/plot.h"
#include "examples/support/slam/pose_stream.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"
#include "examples/tune/command.h"
#include "examples/tune/report.h"

DEFINE_bool(inverse, false, "the eye's file has the pose of its world seen by the eye");
DEFINE_double(max_offset, 2.0, "seconds, between the streams' clocks");

namespace {

using examples::Format;
using examples::PoseStream;
using examples::Say;
using Block = examples::PoseBlock;

constexpr double kTail = 5.0;

// Rotation (kFirst = 0) or position (3) of the eye's pose b against its prediction.
template <int kFirst>
struct PoseError {
  template <typename T>
  bool operator()(const T* x, const T* w, const T* offset, T* r) const {
    T qa[4], pa[3], qx[4], qw[4], inverse[4], q[4], product[4];
    hand->Interpolate(T(time + offset[0]), qa, pa);
    ceres::AngleAxisToQuaternion(w, qw);
    const T conjugate[4] = {qw[0], -qw[1], -qw[2], -qw[3]};
    if constexpr (kFirst == 0) {
      ceres::AngleAxisToQuaternion(x, qx);
      const T b_inverse[4] = {T(b.q[0]), T(-b.q[1]), T(-b.q[2]), T(-b.q[3])};
      ceres::QuaternionProduct(b_inverse, conjugate, inverse);
      ceres::QuaternionProduct(inverse, qa, product);
      ceres::QuaternionProduct(product, qx, q);
      const double sign = q[0] < 0.0 ? -2.0 : 2.0;
      for (int i = 0; i < 3; ++i) r[i] = sign * q[1 + i];
    } else {
      T p[3];
      ceres::UnitQuaternionRotatePoint(qa, x + 3, p);
      for (int i = 0; i < 3; ++i) p[i] += pa[i] - w[3 + i];
      ceres::UnitQuaternionRotatePoint(conjugate, p, r);
      for (int i = 0; i < 3; ++i) r[i] -= b.p[i];
    }
    return true;
  }
  const PoseStream* hand;
  double time;
  PoseStream::Pose b;
};
using RotationError = bilevel::AutoDiffCostFunction<PoseError<0>, 3, 6, 6, 1>;
using PositionError = bilevel::AutoDiffCostFunction<PoseError<3>, 3, 6, 6, 1>;

struct Streams {
  PoseStream hand, eye;
};

struct Result {
  std::string name;
  double offset = 0.0, log_sigma[2] = {0.0, 0.0};
  Block x{}, w{};
  double likelihood = 0.0;  // Negative log of a test pose.
  double rms[2] = {0.0, 0.0};
  std::vector<double> errors;  // Positions of the test [m].
};

class Job {
 public:
  // Ten stretches of time, by turns: of five, three for training, one to validate, one to test.
  Job(const Streams& s, double start) : offset(start), streams_(s) {
    examples::GuessHandEye(s.hand, s.eye, start, &x_, &w_);
    rotation_ = std::make_unique<bilevel::ScalarNoise>(&log_sigma[0], 3);
    position_ = std::make_unique<bilevel::ScalarNoise>(&log_sigma[1], 3);
    const size_t n = s.eye.poses.size();
    auto* tail = problem.Own(std::make_unique<ceres::CauchyLoss>(kTail));
    int count = 0;
    for (size_t j = 0; j < n; ++j) {
      const auto& b = s.eye.poses[j];
      if (!s.hand.Covers(b.t + offset - 0.2) || !s.hand.Covers(b.t + offset + 0.2)) continue;
      const size_t part = 20 * j / n % 5;
      if (part == 4) {
        test_.push_back(b);
        continue;
      }
      ceres::Problem* level = part == 2 ? problem.upper() : problem.lower();
      const std::vector<double*> blocks = {x_.data(), w_.data(), &offset};
      const auto* hand = &streams_.hand;
      rotation_->AddResidualBlock(
          new RotationError(new PoseError<0>{hand, b.t, b}), tail, blocks, level);
      position_->AddResidualBlock(
          new PositionError(new PoseError<3>{hand, b.t, b}), tail, blocks, level);
      count += part == 2;
    }
    rotation_->AddHalfLogDeterminant(count, &problem);
    position_->AddHalfLogDeterminant(count, &problem);
    problem.AddUpperParameterBlock(&offset, 1);
    problem.SetParameterName(&offset, "offset");
    const char* names[] = {"log noise of rotations", "log noise of positions"};
    for (int i = 0; i < 2; ++i) {
      problem.AddUpperParameterBlock(&log_sigma[i], 1);
      problem.SetParameterName(&log_sigma[i], names[i]);
    }
    options.num_threads = FLAGS_num_threads;
    options.lower_solver_options.logging_type = ceres::SILENT;
    options.max_num_iterations = 100;
    options.callbacks = {examples::ShowIterations()};
  }

  // At the current x and y; levels of noise that were not learned are those of the test itself.
  Result Score(const std::string& name, bool learned) const {
    Result result;
    result.name = name;
    result.offset = offset;
    result.x = x_;
    result.w = w_;
    double squares[2] = {0.0, 0.0};
    std::array<double, 3> r[2];
    const double* blocks[] = {x_.data(), w_.data(), &offset};
    const ceres::CauchyLoss tail(kTail);
    const auto pass = [&](auto body) {
      for (const auto& b : test_) {
        RotationError(new PoseError<0>{&streams_.hand, b.t, b}).Evaluate(blocks, &r[0][0], nullptr);
        PositionError(new PoseError<3>{&streams_.hand, b.t, b}).Evaluate(blocks, &r[1][0], nullptr);
        for (int i = 0; i < 2; ++i)
          body(i, r[i][0] * r[i][0] + r[i][1] * r[i][1] + r[i][2] * r[i][2]);
      }
    };
    const auto n = static_cast<double>(test_.size());
    pass([&](int i, double s) {
      squares[i] += s;
      if (i == 1) result.errors.push_back(std::sqrt(s));
    });
    for (int i = 0; i < 2; ++i) {
      result.rms[i] = std::sqrt(squares[i] / n);
      result.log_sigma[i] = learned ? log_sigma[i] : 0.5 * std::log(squares[i] / (3.0 * n));
    }
    pass([&](int i, double s) {
      double rho[3];
      tail.Evaluate(s * std::exp(-2.0 * result.log_sigma[i]), rho);
      result.likelihood += (0.5 * rho[0] + 3.0 * result.log_sigma[i]) / n;
    });
    return result;
  }

  bilevel::Problem problem;
  bilevel::Solver::Options options;
  double offset, log_sigma[2] = {0.0, 0.0};

 private:
  const Streams& streams_;
  Block x_, w_;
  std::unique_ptr<bilevel::ScalarNoise> rotation_, position_;
  std::vector<PoseStream::Pose> test_;
};

// errors: standard ones of the offset and the logarithms of both sigmas.
void Paste(const Result& learned, const double errors[3]) {
  Say("To paste:\n\n  const double offset = %.5f;  // +- %.5f s, added to the eye's clock\n"
      "  const double rotation_sigma = %.5f;  // +- %.1f %% [rad]\n"
      "  const double position_sigma = %.6f;  // +- %.1f %% [m]\n",
      learned.offset,
      errors[0],
      std::exp(learned.log_sigma[0]),
      100.0 * errors[1],
      std::exp(learned.log_sigma[1]),
      100.0 * errors[2]);
  const auto print = [](const char* name, const Block& b) {
    Say("  const double %s[6] = {%.6f, %.6f, %.6f, %.6f, %.6f, %.6f};  // Angle-axis, position.\n",
        name,
        b[0],
        b[1],
        b[2],
        b[3],
        b[4],
        b[5]);
  };
  print("hand_eye", learned.x);
  print("hand_world_eye_world", learned.w);
}

bool Read(const std::vector<std::string>& words, Streams* streams) {
  std::string error;
  if (!(FLAGS_max_offset >= 0.0)) {
    error = "--max_offset must not be negative";
  } else if (FLAGS_simulate) {
    examples::SimulateHandEye(FLAGS_quick ? 20.0 : 50.0, &streams->hand, &streams->eye);
  } else if (examples::ReadPoseStream(words[0], &streams->hand, &error)) {
    examples::ReadPoseStream(words[1], &streams->eye, &error);
  }
  if (!error.empty()) return examples::Fail(error);
  Say("%s%s", streams->hand.notes.c_str(), streams->eye.notes.c_str());
  if (FLAGS_inverse) streams->eye.Invert();
  Say("%zu poses of the hand, %zu of the eye.\n",
      streams->hand.poses.size(),
      streams->eye.poses.size());
  return true;
}

// By hand: equal weights (a radian as a metre), the offset of the clocks, then of the motions.
bool SolveByHand(const Streams& streams, double guessed, std::vector<Result>* results) {
  for (const double offset : {0.0, guessed}) {
    const int shared = examples::CountShared(streams.hand, streams.eye, offset);
    if (shared < 50) {
      return examples::Fail(
          Format("%d of the eye's poses, from %.3f to %.3f s and %+.2f s, are at times of the "
                 "hand's, from %.3f to %.3f s; 50 are needed",
                 shared,
                 streams.eye.poses.front().t,
                 streams.eye.poses.back().t,
                 offset,
                 streams.hand.poses.front().t,
                 streams.hand.poses.back().t));
    }
    Job job(streams, offset);
    job.options.max_num_iterations = 0;
    bilevel::Solver::Summary summary;
    bilevel::Solve(job.options, &job.problem, &summary);
    results->push_back(
        job.Score(offset == 0.0 ? "clocks as they are" : "offset of turning", false));
  }
  return true;
}

Result SearchWithSimplex(const Streams& streams, double guessed) {
  Job job(streams, guessed);
  job.options.callbacks.clear();
  examples::Phi phi(
      job.options, {&job.offset, &job.log_sigma[0], &job.log_sigma[1]}, {}, &job.problem);
  const auto found = examples::NelderMead(
      std::ref(phi), {guessed, std::log(0.01), std::log(0.01)}, 0.1, 1e-6, 150);
  phi(found.x);
  return job.Score("Nelder and Mead", true);
}

void PrintScores(const std::vector<Result>& results) {
  examples::Table table({"on the test stretches",
                         "offset [s]",
                         "rotation RMS [deg]",
                         "position RMS [mm]",
                         "-log likelihood"});
  for (const Result& r : results) {
    table.Add({r.name,
               Format("%.4f", r.offset),
               Format("%.3f", r.rms[0] * 180.0 / M_PI),
               Format("%.2f", 1e3 * r.rms[1]),
               Format("%.3f", r.likelihood)});
  }
  Say("(Position errors on the test stretches [m], beside \"%s\".)\n\n%s\n",
      results[1].name.c_str(),
      table.ToString().c_str());
}

bool Draw(const Result& by_hand, const Result& learned, const bilevel::Solver::Summary& summary) {
  examples::Panel positions{"Test poses", "test pose", "position error [mm]", false, true};
  for (const Result* r : std::vector<const Result*>{&by_hand, &learned}) {
    examples::Series series{r->name, "lines", {}, {}};
    for (size_t i = 0; i < r->errors.size(); ++i) {
      series.x.push_back(static_cast<double>(i));
      series.y.push_back(1e3 * r->errors[i]);
    }
    positions.series.push_back(series);
  }
  examples::Panel convergence{"Convergence", "iteration", "offset [s]"};
  examples::Series offsets{"offset (left)", "linespoints", {}, {}},
      objective{"-log likelihood (right)", "linespoints", {}, {}, true};
  for (const auto& it : summary.iterations) {
    if (!it.step_is_successful) continue;
    offsets.x.push_back(it.iteration), offsets.y.push_back(it.x[0]);
    objective.x.push_back(it.iteration), objective.y.push_back(it.objective);
  }
  convergence.series = {offsets, objective};
  convergence.right_label = "validation, -log likelihood";
  return examples::Plot(FLAGS_plot, "Hand and eye", {positions, convergence});
}

// errors: standard ones of the offset and the logarithms of both sigmas.
examples::Json ToJson(const std::vector<Result>& results,
                      const double errors[3],
                      const bilevel::Verdict& verdict,
                      const bilevel::Solver::Summary& summary) {
  const Result& learned = results.back();
  examples::Json json =
      examples::BeginJson("handeye",
                          verdict,
                          {{"time offset",
                            learned.offset,
                            learned.offset - 1.96 * errors[0],
                            learned.offset + 1.96 * errors[0]},
                           examples::FromLog("rotation sigma", learned.log_sigma[0], errors[1]),
                           examples::FromLog("position sigma", learned.log_sigma[1], errors[2])});
  json.Add("hand_eye", std::vector<double>(learned.x.begin(), learned.x.end()))
      .Add("hand_world_eye_world", std::vector<double>(learned.w.begin(), learned.w.end()));
  for (const Result& r : results) {
    json.Add(r.name,
             examples::Json()
                 .Add("offset", r.offset)
                 .Add("rotation_rms", r.rms[0])
                 .Add("position_rms", r.rms[1])
                 .Add("likelihood", r.likelihood));
  }
  return json.AddRaw("summary", summary.Json());
}

int Run(const std::vector<std::string>& words) {
  Streams streams;
  if (!Read(words, &streams)) return 1;
  std::vector<Result> results;
  const double guessed = examples::GuessOffset(streams.hand, streams.eye, FLAGS_max_offset);
  if (!SolveByHand(streams, guessed, &results)) return 1;
  if (FLAGS_baselines) results.push_back(SearchWithSimplex(streams, guessed));
  Job job(streams, guessed);
  for (double& value : job.log_sigma) value = std::log(0.01);
  bilevel::Solver::Summary summary;
  examples::Solve(job.options, &job.problem, &summary);
  Say("%s\n", summary.BriefReport().c_str());
  results.push_back(job.Score("learned", true));
  const Result& learned = results.back();
  double errors[3] = {std::nan(""), std::nan(""), std::nan("")};
  bilevel::Uncertainty uncertainty;
  std::string error;
  if (bilevel::ComputeUncertainty(
          job.options, bilevel::HessianKind::kExact, &job.problem, &uncertainty, &error)) {
    const double* blocks[] = {&job.offset, &job.log_sigma[0], &job.log_sigma[1]};
    for (int i = 0; i < 3; ++i) uncertainty.GetStandardErrors(blocks[i], &errors[i]);
  } else {
    Say("No uncertainty: %s.\n", error.c_str());
  }
  const bilevel::Verdict verdict =
      bilevel::JudgeLearned({}, results[1].errors, learned.errors, &summary);
  examples::SayVerdict(verdict);
  PrintScores(results);
  if (verdict.kind == bilevel::Verdict::kUseLearned) Paste(learned, errors);
  bool ok = examples::WriteFile(FLAGS_json, ToJson(results, errors, verdict, summary).ToString());
  ok = examples::WriteTrace(summary) && ok;
  if (!FLAGS_plot.empty()) ok = Draw(results[1], learned, summary) && ok;
  return examples::ExitCode(ok && summary.IsSolutionUsable(), verdict);
}

}  // namespace

const examples::Command examples::kHandEye = {
    "handeye",
    "a robot's hand and an eye on it: their time offset, their noise, where the eye is",
    {"HAND", "EYE"},
    "Calibrates an eye on a hand from two streams of poses without a common clock:\n"
    "learns their time offset and noise from poses held out. HAND has the hand's\n"
    "poses in its world, EYE the eye's in its own; TUM or EuRoC (\"t x y z qx qy qz\n"
    "qw\" a line).\n\n"
    "  bilevel-tune handeye hand.csv camera.csv --json=handeye.json\n",
    {"inverse", "max_offset=SECONDS"},
    {"baselines", "simulate"},
    "pose streams hold neither noise nor calibration; the report and --json have them",
    Run};
