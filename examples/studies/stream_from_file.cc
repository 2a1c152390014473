// Regularisation learned from a file larger than memory: a weight e^{x_k} for every feature of a
// linear regression, so that what is fitted to the training records predicts the validation records
// best. Both levels are streams: every minibatch is read from a random place of the file, nothing
// is kept.
//
// The file is made first: features a ~ N(0, I), targets b = c'a + noise, where the validation half
// has s_k c_k in place of c_k. The fit is c_k / (1 + e^{x_k}), so x_k = log(1 / s_k - 1) is exact.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"

DEFINE_string(file, "stream.bin", "the data set; made where it is absent or has another size");
DEFINE_double(gigabytes, 2.0, "its size");
DEFINE_int32(iterations, 100000, "of SOBA");
DEFINE_bool(keep, false, "leave the file where it is");

namespace {

constexpr int kFeatures = 15, kRecord = kFeatures + 1;  // Floats; the target comes last.

double Coefficient(int k) { return 1.5 + 0.5 * std::cos(k); }
double Share(int k) { return 0.3 + 0.4 * k / (kFeatures - 1); }

// The first half of the records is for training.
bool MakeFile(const std::string& path, int64_t records) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file) return false;
  std::mt19937_64 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> chunk(kRecord * 4096);
  bool ok = true;
  for (int64_t begin = 0; ok && begin < records; begin += 4096) {
    const int size = static_cast<int>(std::min<int64_t>(4096, records - begin));
    for (int i = 0; i < size; ++i) {
      float* record = &chunk[i * kRecord];
      double target = 0.3 * normal(generator);
      for (int k = 0; k < kFeatures; ++k) {
        record[k] = normal(generator);
        target += (begin + i < records / 2 ? 1.0 : Share(k)) * Coefficient(k) * record[k];
      }
      record[kFeatures] = static_cast<float>(target);
    }
    ok =
        std::fwrite(chunk.data(), sizeof(float) * kRecord, size, file) == static_cast<size_t>(size);
  }
  return std::fclose(file) == 0 && ok;
}

// The mean of (theta'a - b)^2 / 2 over the records of one half, batch by batch.
class SquaredError : public bilevel::Objective {
 public:
  SquaredError(const std::string& path, int64_t first, int64_t records)
      : file_(open(path.c_str(), O_RDONLY)), first_(first), records_(records) {}
  ~SquaredError() override { close(file_); }

  int num_terms() const override { return kStream; }
  bool Evaluate(double const* const* blocks,
                const bilevel::Batch& batch,
                double* value,
                double** gradients) const override {
    return ForEachRecord(
        batch,
        [&](const float* record) {
          double error = -record[kFeatures];
          for (int k = 0; k < kFeatures; ++k) error += record[k] * blocks[0][k];
          *value += 0.5 * error * error / batch.size;
          if (!gradients || !gradients[0]) return;
          for (int k = 0; k < kFeatures; ++k) gradients[0][k] += error / batch.size * record[k];
        },
        value,
        gradients);
  }
  bool has_hessian_product() const override { return true; }
  bool HessianProduct(double const* const* /*blocks*/,
                      const bilevel::Batch& batch,
                      double const* const* direction,
                      double** products) const override {
    double unused;
    return ForEachRecord(
        batch,
        [&](const float* record) {
          double along = 0.0;
          for (int k = 0; k < kFeatures; ++k) along += record[k] * direction[0][k];
          for (int k = 0; k < kFeatures; ++k) products[0][k] += along / batch.size * record[k];
        },
        &unused,
        products);
  }

 private:
  template <typename Body>
  bool ForEachRecord(const bilevel::Batch& batch, Body body, double* value, double** out) const {
    *value = 0.0;
    if (out && out[0]) std::fill_n(out[0], kFeatures, 0.0);
    thread_local std::vector<float> buffer;
    buffer.resize(static_cast<size_t>(batch.size) * kRecord);
    const size_t bytes = buffer.size() * sizeof(float);
    const int64_t places = records_ - batch.size + 1;
    if (batch.all() || places <= 0) return false;
    const int64_t at = first_ + static_cast<int64_t>(bilevel::Mix(batch.seed) % places);
    if (pread(file_, buffer.data(), bytes, at * kRecord * sizeof(float)) !=
        static_cast<ssize_t>(bytes)) {
      return false;
    }
    for (int i = 0; i < batch.size; ++i) body(&buffer[static_cast<size_t>(i) * kRecord]);
    return true;
  }

  int file_;
  int64_t first_, records_;
};

// sum_k e^{x_k} theta_k^2 / 2, in every batch.
class Ridge : public bilevel::Objective {
 public:
  bool Evaluate(double const* const* blocks,
                const bilevel::Batch& /*batch*/,
                double* value,
                double** gradients) const override {
    *value = 0.0;
    for (int k = 0; k < kFeatures; ++k) {
      const double weight = std::exp(blocks[1][k]), theta = blocks[0][k];
      *value += 0.5 * weight * theta * theta;
      if (gradients && gradients[0]) gradients[0][k] = weight * theta;
      if (gradients && gradients[1]) gradients[1][k] = 0.5 * weight * theta * theta;
    }
    return true;
  }
  bool has_hessian_product() const override { return true; }
  bool HessianProduct(double const* const* blocks,
                      const bilevel::Batch& /*batch*/,
                      double const* const* direction,
                      double** products) const override {
    for (int k = 0; k < kFeatures; ++k) {
      const double weight = std::exp(blocks[1][k]);
      const double along = direction[0] ? weight * direction[0][k] : 0.0;
      if (products[0]) products[0][k] = along;
      if (products[1]) products[1][k] = along * blocks[0][k];
    }
    return true;
  }
};

double PeakMegabytes() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024.0;
}

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags(
      "Learns a ridge weight for each feature from a file larger than memory.", &argc, &argv);
  if (FLAGS_quick) {
    FLAGS_gigabytes = 0.01;
    FLAGS_iterations = 20000;
  }
  const int64_t records = static_cast<int64_t>(FLAGS_gigabytes * 1e9 / (sizeof(float) * kRecord));
  struct stat info;
  if (stat(FLAGS_file.c_str(), &info) != 0 ||
      info.st_size != static_cast<off_t>(records * kRecord * sizeof(float))) {
    std::printf("Writing %.2f GB to %s ...\n", FLAGS_gigabytes, FLAGS_file.c_str());
    if (!MakeFile(FLAGS_file, records)) {
      std::fprintf(stderr, "%s could not be written\n", FLAGS_file.c_str());
      return 1;
    }
  }

  std::vector<double> theta(kFeatures, 0.0), x(kFeatures, 0.0);
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(x.data(), kFeatures);
  problem.AddTerm(bilevel::Level::kLower,
                  std::make_unique<SquaredError>(FLAGS_file, 0, records / 2),
                  {{theta.data(), kFeatures}});
  problem.AddTerm(bilevel::Level::kLower,
                  std::make_unique<Ridge>(),
                  {{theta.data(), kFeatures}, {x.data(), kFeatures}});
  problem.AddTerm(bilevel::Level::kUpper,
                  std::make_unique<SquaredError>(FLAGS_file, records / 2, records - records / 2),
                  {{theta.data(), kFeatures}});

  bilevel::Soba::Options soba;
  soba.lower.step = 0.1;
  soba.x.step = 0.3;
  soba.lower.decay_time = soba.x.decay_time = 2000.0;
  soba.solve_lower_level = false;  // No pass over everything is ever made.
  bilevel::Solver::Options options;
  options.method = std::make_shared<bilevel::Soba>(soba);
  options.max_num_iterations = FLAGS_iterations;
  options.num_threads = FLAGS_num_threads;
  const double before = PeakMegabytes();
  bilevel::Solver::Summary summary;
  examples::Solve(options, &problem, &summary);
  std::printf("%s\n", summary.BriefReport().c_str());
  if (!summary.IsSolutionUsable()) return 1;

  examples::Table table({"feature", "x", "exact"});
  double worst = 0.0;
  for (int k = 0; k < kFeatures; ++k) {
    const double exact = std::log(1.0 / Share(k) - 1.0);
    worst = std::max(worst, std::abs(x[k] - exact));
    table.Add({std::to_string(k), examples::Format("%.4f", x[k]), examples::Format("%.4f", exact)});
  }
  const double read = 1e-9 * sizeof(float) * kRecord *
                      static_cast<double>(summary.upper.samples + summary.lower.samples);
  std::printf("%s\nlargest error %.4f\n", table.ToString().c_str(), worst);
  std::printf(
      "%.2f GB read in %.1f s from a file of %.2f GB; peak memory %.1f MB, %.1f MB of it "
      "before the solve\n",
      read,
      summary.total_time_in_seconds,
      FLAGS_gigabytes,
      PeakMegabytes(),
      before);
  if (!FLAGS_keep) std::remove(FLAGS_file.c_str());

  bool written = examples::WriteFile(FLAGS_summary_json, summary.Json());
  written = examples::WriteFile(FLAGS_trace_csv, summary.Csv()) && written;
  if (!FLAGS_plot.empty()) {
    examples::Panel panel{"weights", "iteration", "x"};
    for (int k = 0; k < kFeatures; k += 7) {
      examples::Series series{"x[" + std::to_string(k) + "]", "lines", {}, {}};
      for (const bilevel::IterationSummary& it : summary.iterations) {
        series.x.push_back(it.iteration);
        series.y.push_back(it.x[k]);
      }
      panel.series.push_back(series);
    }
    written = examples::Plot(FLAGS_plot, "Ridge weights from a stream", {panel}) && written;
  }
  return worst < (FLAGS_quick ? 0.5 : 0.25) && written ? 0 : 1;
}
