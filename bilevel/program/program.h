#ifndef BILEVEL_PROGRAM_PROGRAM_H_
#define BILEVEL_PROGRAM_PROGRAM_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/base/thread_pool.h"
#include "bilevel/program/exchange.h"
#include "bilevel/program/level_function.h"
#include "bilevel/program/space.h"
#include "ceres/cost_function.h"
#include "ceres/manifold.h"
#include "ceres/problem.h"

namespace bilevel {

/// A valid bilevel::Problem laid out for solving, once: what Problem::Compile makes.
/// Points of all scenarios' y stand one after the other in one space.
class Program {
 public:
  struct Scenario {
    std::string name;
    int index = 0;  ///< Among those of all ranks.
    double weight = 1.0;
    Space y;
    int offset = 0, tangent_offset = 0;                 ///< Of its y within the joint one.
    std::unique_ptr<LevelFunction> f, g;                ///< Over x and this scenario's y.
    ceres::Problem *upper = nullptr, *lower = nullptr;  ///< The user's.
    /// Its residuals are the rows of h = 0 and c <= 0; nullptr: there are none.
    std::unique_ptr<LevelFunction> constraints;
    std::vector<char> is_inequality;     ///< By row.
    std::vector<std::string> row_names;  ///< For messages.
    int num_own_rows = 0;                ///< Those after them are of the blocks' convex sets.
    /// A set of which only the projection is known, for messages; empty: there is none.
    std::string projected_only;
  };

  explicit Program(int num_threads);
  /// Some of a program's scenarios, shared with it: points keep all scenarios' y. first, count: of
  /// those of all ranks. The whole must outlive the part.
  Program(const Program& whole, int first, int count);
  ~Program();

  /// The first constraint's name, the blocks' convex sets among them; empty: the lower level has
  /// none.
  std::string FirstConstraint() const;
  /// Of those that are no block's set.
  std::string FirstConstraintBesideSets() const;
  /// The first set of which only the projection is known.
  std::string FirstProjectedOnly() const;

  /// Of all ranks.
  int num_scenarios() const;
  /// Moves a point of y along a tangent vector; where that fails on any rank, it stays on all.
  /// False as Point::Move.
  bool MoveY(const Vector& delta, Point* point) const;
  /// The norm of a tangent vector of y, or of a point, summed scenario by scenario.
  double NormInY(const Vector& v) const;
  /// (dy/dx)' v: y down and x across, v in y's tangent space, summed likewise.
  Vector PullBack(const Matrix& dy_dx, const Vector& v) const;

  /// Whether the run's time is over: what solves a lower level then gives up, and says kTimeIsOver.
  bool IsLate() const { return std::chrono::steady_clock::now() > *deadline; }
  static constexpr char kTimeIsOver[] = "max_solver_time_in_seconds were over";

  Space x, y;
  std::vector<std::shared_ptr<Scenario>> scenarios;  ///< Of this rank.
  int first_scenario = 0;                            ///< Index of the first of any rank.
  Exchange exchange;
  std::string constraint_of_ranks;  ///< FirstConstraint, where there are ranks.
  std::shared_ptr<std::chrono::steady_clock::time_point> deadline;  ///< Never null.
  // Made for the blocks' own, in their place.
  std::vector<std::unique_ptr<ceres::Manifold>> own_manifolds;
  std::vector<std::unique_ptr<ceres::CostFunction>> own_costs;
  std::string remark;  ///< What of it a report should tell.
  std::shared_ptr<ThreadPool> own_pool;
  ThreadPool& pool;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_PROGRAM_H_
