#ifndef BILEVEL_INTERNAL_CHECKPOINT_H_
#define BILEVEL_INTERNAL_CHECKPOINT_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "bilevel/base/memory.h"
#include "bilevel/methods/method.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/solver.h"

namespace bilevel {

/// The file of Solver::Options::checkpoint, and when it is due.
class Checkpoint {
 public:
  /// Nothing is owned.
  Checkpoint(const Solver::Options& options, Oracle* oracle);

  bool is_wanted() const { return !options_.checkpoint.file.empty(); }
  /// Reads the file where it is to be resumed; *start becomes that of its run. False, with a
  /// sentence, where it is damaged, or of another problem, method or version.
  bool Open(const std::string& method, State* start, std::string* error);
  /// nullptr: there is none, or it has been resumed.
  Memory* to_resume() { return to_resume_ ? &*to_resume_ : nullptr; }
  void Resumed(uint64_t iteration);

  bool IsDue(uint64_t iteration) const;
  bool Write(Memory* memory, uint64_t iteration, std::string* error);

 private:
  void Identify(const std::string& method, State* start, Memory* memory) const;
  std::string WhatDiffers() const;

  const Solver::Options& options_;
  Oracle* oracle_;
  std::optional<Memory> to_resume_;
  Memory identity_;  // Of the run: of every file of it the first part.
  uint64_t last_iteration_ = 0;
  std::chrono::steady_clock::time_point last_time_;
};

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_CHECKPOINT_H_
