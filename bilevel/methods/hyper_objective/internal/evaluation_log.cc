#include "bilevel/methods/hyper_objective/internal/evaluation_log.h"

#include <numeric>

#include "bilevel/base/memory.h"

namespace bilevel {

void EvaluationLog::Remember(Memory* memory) {
  std::vector<char> refused;
  std::vector<double> phis;
  std::vector<int> lengths;
  for (const Entry& entry : entries_) {
    refused.push_back(entry.is_refused);
    phis.push_back(entry.phi);
    lengths.push_back(static_cast<int>(entry.gradient.size()));
  }
  Vector all(std::accumulate(lengths.begin(), lengths.end(), 0L));
  long at = 0;
  for (const Entry& entry : entries_) {
    all.segment(at, entry.gradient.size()) = entry.gradient;
    at += entry.gradient.size();
  }
  memory->Keep("refused", &refused);
  memory->Keep("phis", &phis);
  memory->Keep("lengths", &lengths);
  memory->Keep("gradients", &all);
  memory->Keep("calls", &calls_);
  if (!memory->recalls() || !memory->error().empty()) return;
  entries_.clear();
  at = 0;
  for (size_t k = 0; k < refused.size(); ++k) {
    entries_.push_back({refused[k] != 0, phis[k], all.segment(at, lengths[k])});
    at += lengths[k];
  }
  num_left_ = calls_;
}

}  // namespace bilevel
