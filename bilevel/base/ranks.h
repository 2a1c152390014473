#ifndef BILEVEL_BASE_RANKS_H_
#define BILEVEL_BASE_RANKS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace bilevel {

/// Processes that share a problem's scenarios (Problem::SetRanks): bilevel::mpi::Ranks are those of
/// MPI. Each of them calls Solve, runs all of it on its own scenarios, and hands the others what it
/// has computed of these.
class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual int rank() const = 0;  ///< Of this process: 0 to size() - 1.
  virtual int size() const = 0;

  /// Whether scenario s is this rank's to build, where they are dealt out in turn. Any other deal
  /// will do.
  bool IsMine(int s) const { return s % size() == rank(); }

  /// What all ranks hand in, by rank; all call it, at the same `step` and, where it belongs to a
  /// point, with the same `key` of that. Throws a std::runtime_error, from then on always, where
  /// they do not: its sentence names a rank and where it stands.
  std::vector<std::string> Gather(const std::string& step, uint64_t key, const std::string& own);
  /// Whether they have done so: nothing is to be had of the others any more.
  bool are_apart() const { return !apart_.empty(); }
  /// Calls of Gather so far, and the bytes that this rank has handed in, kHeaderSize a call
  /// included.
  long num_gathers() const { return num_gathers_; }
  long num_bytes() const { return num_bytes_; }
  static constexpr int kHeaderSize = 32;
  /// The step of a rank that goes no further, and hands in why.
  static constexpr char kAtItsEnd[] = "at its end";

 protected:
  /// What all ranks hand in, by rank, whatever it is.
  virtual std::vector<std::string> Exchange(const std::string& own) = 0;

 private:
  std::string apart_;
  long num_gathers_ = 0, num_bytes_ = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_BASE_RANKS_H_
