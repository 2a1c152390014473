#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_EVALUATION_LOG_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_EVALUATION_LOG_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "bilevel/program/space.h"

namespace bilevel {

/// What Ceres' solver, whose state nobody can read, has been answered so far: asked again and
/// answered the same, it gets to the same state.
class EvaluationLog {
 public:
  struct Entry {
    bool is_refused;
    double phi;
    Vector gradient;  ///< Empty where it was not asked for.
  };
  void Add(Entry entry) { entries_.push_back(std::move(entry)); }
  const Entry& Next() { return entries_[next_++]; }
  /// Until as many calls back have come as the run to be resumed had seen.
  bool is_replayed() const { return num_left_ > 0; }
  void CallBack() { num_left_ > 0 ? --num_left_ : ++calls_; }
  void Remember(Memory* memory);

 private:
  std::vector<Entry> entries_;
  size_t next_ = 0;
  long calls_ = 0, num_left_ = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_EVALUATION_LOG_H_
