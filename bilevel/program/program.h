#ifndef BILEVEL_PROGRAM_PROGRAM_H_
#define BILEVEL_PROGRAM_PROGRAM_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/base/thread_pool.h"
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
    double weight = 1.0;
    Space y;
    int offset = 0, tangent_offset = 0;                 ///< Of its y within the joint one.
    std::unique_ptr<LevelFunction> f, g;                ///< Over x and this scenario's y.
    ceres::Problem *upper = nullptr, *lower = nullptr;  ///< The user's.
  };

  explicit Program(int num_threads);
  /// Some of a program's scenarios, shared with it: points keep all scenarios' y. The whole must
  /// outlive the part.
  Program(const Program& whole, int first, int count);
  ~Program();

  Space x, y;
  std::vector<std::shared_ptr<Scenario>> scenarios;
  // Made for the blocks' own, in their place.
  std::vector<std::unique_ptr<ceres::Manifold>> own_manifolds;
  std::vector<std::unique_ptr<ceres::CostFunction>> own_costs;
  std::string remark;  ///< What of it a report should tell.
  std::shared_ptr<ThreadPool> own_pool;
  ThreadPool& pool;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_PROGRAM_H_
