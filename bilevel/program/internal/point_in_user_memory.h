#ifndef BILEVEL_PROGRAM_INTERNAL_POINT_IN_USER_MEMORY_H_
#define BILEVEL_PROGRAM_INTERNAL_POINT_IN_USER_MEMORY_H_

#include <vector>

#include "bilevel/program/internal/evaluation.h"
#include "bilevel/program/level_function.h"

namespace bilevel {

// While this lives the user's memory holds the point of the evaluation, which a callback looks for
// there; without a callback nothing is touched. The memory of saved_x and saved_y is reused.
class PointInUserMemory {
 public:
  PointInUserMemory(const LevelFunction& function,
                    const Evaluation& evaluation,
                    std::vector<double>* saved_x,
                    std::vector<double>* saved_y)
      : function_(function),
        saved_x_(*saved_x),
        saved_y_(*saved_y),
        active_(function.callback() != nullptr) {
    if (!active_) return;
    saved_x_.resize(function_.x().size());
    saved_y_.resize(function_.y().size());
    function_.x().ReadUser(saved_x_.data());
    function_.y().ReadUser(saved_y_.data());
    function_.x().WriteUser(evaluation.x);
    function_.y().WriteUser(evaluation.y);
  }
  ~PointInUserMemory() {
    if (!active_) return;
    function_.x().WriteUser(saved_x_.data());
    function_.y().WriteUser(saved_y_.data());
  }
  PointInUserMemory(const PointInUserMemory&) = delete;
  PointInUserMemory& operator=(const PointInUserMemory&) = delete;

 private:
  const LevelFunction& function_;
  std::vector<double>&saved_x_, &saved_y_;
  bool active_;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_INTERNAL_POINT_IN_USER_MEMORY_H_
