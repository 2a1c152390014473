#ifndef BILEVEL_PROGRAM_EXCHANGE_H_
#define BILEVEL_PROGRAM_EXCHANGE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Core"
#include "bilevel/base/ranks.h"

namespace bilevel {

/// Where a program's scenarios are, and the one place where what ranks have computed of theirs
/// comes together. All ranks run the same method and see the same numbers, so that they meet at
/// the same calls; y alone differs, of which each has its own scenarios' part. Whoever decides by a
/// y asks here first.
///
/// Numbers are handed on as they are and added in the order of scenarios: the same bits for any
/// number of ranks. In a process alone every function gives back what it is given.
class Exchange {
 public:
  /// Alone.
  Exchange() = default;
  /// owners: the rank of every scenario. The ranks are not owned.
  Exchange(Ranks* ranks, std::vector<int> owners);
  /// That of some of the scenarios.
  Exchange Part(int first, int count) const;

  bool is_alone() const { return !ranks_; }
  Ranks* ranks() const { return ranks_; }
  int num_scenarios() const { return count_; }  ///< Of all ranks; 0: alone.

  /// A column for each of this rank's scenarios, in their order; one for each of all. `x` (may be
  /// nullptr) is where.
  Eigen::MatrixXd Columns(const char* step,
                          const Eigen::VectorXd* x,
                          const Eigen::MatrixXd& own) const;
  /// The same of texts, or of any bytes.
  std::vector<std::string> Texts(const char* step, const std::vector<std::string>& own) const;
  /// What the rank of a scenario hands in.
  std::string FromOwner(int scenario, const std::string& own) const;
  /// With which rank this is: "... (on rank 2)"; alone as it is.
  std::string Signed(const std::string& text) const;
  /// The first rank's complaint, and which that is; empty where there is none.
  std::string Complaint(const std::string& step, const std::string& own) const;

  /// A column of the same length for each rank.
  Eigen::MatrixXd ByRank(const char* step,
                         const Eigen::VectorXd* x,
                         const Eigen::VectorXd& own) const;
  bool All(bool own) const;
  bool Any(bool own) const { return !All(!own); }
  double Largest(double own) const;

 private:
  Ranks* ranks_ = nullptr;
  std::shared_ptr<const std::vector<int>> owners_;
  int first_ = 0, count_ = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_EXCHANGE_H_
