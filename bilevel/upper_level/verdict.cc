#include "bilevel/upper_level/verdict.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

namespace bilevel {
namespace {

constexpr size_t kFewestBlocks = 5;

size_t BlockLength(const VerdictOptions& options, size_t num_errors) {
  if (options.num_errors_a_block > 0) return static_cast<size_t>(options.num_errors_a_block);
  return std::max<size_t>(1, num_errors / 10);
}

// Sums of squares up to each error.
std::vector<double> Accumulate(const std::vector<double>& errors) {
  std::vector<double> sums = {0.0};
  for (const double e : errors) sums.push_back(sums.back() + e * e);
  return sums;
}

bool AreFinite(const std::vector<double>& errors) {
  return std::all_of(errors.begin(), errors.end(), [](double e) { return std::isfinite(e); });
}

double Rms(double sum_of_squares, size_t count) {
  return count > 0 ? std::sqrt(std::max(0.0, sum_of_squares) / static_cast<double>(count)) : 0.0;
}

std::string WhyNoInterval(const VerdictOptions& options,
                          const std::vector<double>& before,
                          const std::vector<double>& learned) {
  std::string error;
  if (!options.IsValid(&error)) return error;
  if (before.size() != learned.size()) {
    return "there are " + std::to_string(before.size()) + " errors before and " +
           std::to_string(learned.size()) + " with the learned values";
  }
  if (!AreFinite(before)) return "an error before is not finite";
  if (!AreFinite(learned)) return "an error with the learned values is not finite";
  const size_t block = BlockLength(options, before.size());
  if (kFewestBlocks * block > before.size() && block > 1) {
    return std::to_string(before.size()) + " errors in blocks of " + std::to_string(block) +
           " do not tell: fewer than " + std::to_string(kFewestBlocks) + " blocks";
  }
  if (before.size() >= static_cast<size_t>(options.fewest_errors)) return "";
  return std::to_string(before.size()) + " errors do not tell, of the " +
         std::to_string(options.fewest_errors) + " that it takes at least";
}

}  // namespace

bool VerdictOptions::IsValid(std::string* error) const {
  if (num_errors_a_block < 0) {
    *error = "num_errors_a_block must not be negative";
  } else if (fewest_errors < 2) {
    *error = "fewest_errors must be at least 2";
  } else if (num_draws < 40) {
    *error = "num_draws must be at least 40";
  } else {
    return true;
  }
  return false;
}

Verdict JudgeLearned(const VerdictOptions& options,
                     const std::vector<double>& errors_before,
                     const std::vector<double>& errors_learned,
                     const Solver::Summary* summary) {
  Verdict verdict;
  if (summary) verdict.free_directions = summary->flat_upper_directions;
  verdict.trouble = WhyNoInterval(options, errors_before, errors_learned);
  if (!verdict.trouble.empty()) return verdict;
  const size_t n = errors_before.size();
  const std::vector<double> before = Accumulate(errors_before),
                            learned = Accumulate(errors_learned);
  verdict.num_errors = static_cast<int>(n);
  verdict.before = Rms(before[n], n);
  verdict.learned = Rms(learned[n], n);

  const size_t block = BlockLength(options, n);
  const size_t num_blocks = (n + block - 1) / block;
  std::mt19937 generator(options.seed);
  std::vector<double> differences;
  for (int k = 0; k < options.num_draws; ++k) {
    double sum_before = 0.0, sum_learned = 0.0;
    for (size_t j = 0; j < num_blocks; ++j) {
      const size_t first = generator() % (n - block + 1);
      sum_before += before[first + block] - before[first];
      sum_learned += learned[first + block] - learned[first];
    }
    differences.push_back(Rms(sum_learned, num_blocks * block) -
                          Rms(sum_before, num_blocks * block));
  }
  std::sort(differences.begin(), differences.end());
  const int tail = options.num_draws / 40;
  verdict.low = differences[tail];
  verdict.high = differences[options.num_draws - 1 - tail];
  if (verdict.high < 0.0) {
    verdict.kind = Verdict::kUseLearned;
  } else if (verdict.free_directions.empty()) {
    verdict.kind = Verdict::kKeepYours;
  }
  return verdict;
}

std::string Verdict::ToString() const {
  std::string text = kind == kUseLearned  ? "Use the learned values"
                     : kind == kKeepYours ? "Keep what you have: nothing better is shown"
                                          : "Not enough data to choose";
  if (!trouble.empty()) {
    text += ": " + trouble + ".";
  } else {
    char figures[250];
    std::snprintf(figures,
                  sizeof(figures),
                  ". The error on what learning has not seen (rms of %d) goes from %.4g to %.4g "
                  "(%+.1f %%); 95 %% interval of the change %+.3g to %+.3g%s.",
                  num_errors,
                  before,
                  learned,
                  before > 0.0 ? 100.0 * (learned / before - 1.0) : 0.0,
                  low,
                  high,
                  low > 0.0 ? ": it is worse" : "");
    text += figures;
  }
  if (kind == kUseLearned || free_directions.empty()) return text;
  text += " The data leave free: ";
  for (size_t i = 0; i < free_directions.size(); ++i) {
    text += (i ? "; " : "") + free_directions[i];
  }
  return text +
         ". Hold them, give them a prior, or add to the upper level what changes along them.";
}

}  // namespace bilevel
