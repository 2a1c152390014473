#ifndef BILEVEL_MPI_RANKS_H_
#define BILEVEL_MPI_RANKS_H_

#include <mpi.h>

#include <string>
#include <vector>

#include "bilevel/base/ranks.h"

namespace bilevel {
namespace mpi {

/// MPI's processes for a problem's scenarios:
///
///     bilevel::mpi::Ranks ranks(&argc, &argv);
///     bilevel::Problem problem;
///     problem.SetRanks(&ranks);
///     problem.AddUpperParameterBlock(&x, 1);                    // The same on all ranks.
///     for (int s = 0; s < num_recordings; ++s) {
///       bilevel::Scenario* scenario = problem.AddScenario(Name(s));
///       if (ranks.IsMine(s)) Build(s, scenario);                // On one.
///     }
///     bilevel::Solve(options, &problem, &summary);              // The same x, on all ranks.
///
/// All ranks run the whole method, each lower levels of its own scenarios only, and hand each other
/// what those come to in x; none is the master. So a method knows nothing of ranks, and there is no
/// second program of workers to keep in step with it. README.md has what that costs.
///
/// Where a rank goes another way than the others (it returns from main, say, or has another x),
/// Solve fails on all of them with a sentence that names it. It must outlive the problem.
class Ranks final : public bilevel::Ranks {
 public:
  /// Of all processes; calls MPI_Init now and MPI_Finalize in the end.
  Ranks(int* argc, char*** argv);
  /// Of a communicator, of which this takes a duplicate, in a program that calls these itself.
  explicit Ranks(MPI_Comm communicator);
  ~Ranks() override;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

 private:
  std::vector<std::string> Exchange(const std::string& own) override;

  const bool initializes_;
  MPI_Comm communicator_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
};

}  // namespace mpi
}  // namespace bilevel

#endif  // BILEVEL_MPI_RANKS_H_
