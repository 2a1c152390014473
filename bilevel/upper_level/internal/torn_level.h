#ifndef BILEVEL_UPPER_LEVEL_INTERNAL_TORN_LEVEL_H_
#define BILEVEL_UPPER_LEVEL_INTERNAL_TORN_LEVEL_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/base/internal/finite_differences.h"
#include "bilevel/lower_level/selected_inverse.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/program/level_function.h"
#include "bilevel/program/space.h"

namespace bilevel {

/// A lower level in which every residual block has a y of its own, so that its Hessian is one block
/// for each of them, H_b, and one evaluation moves a coordinate of every residual block at once.
class TornLevel {
 public:
  /// Of residual blocks alone. The level must outlive this.
  explicit TornLevel(const LevelFunction& g);

  /// The gradient of 1/2 <S, H(x, y)> in x and y (tangent) for S held. By central differences of
  /// fourth order of the H_b: four evaluations of all of them for each coordinate that the residual
  /// block with the most of them has, of x as of y. diagonal: H's. False: see error().
  bool Gradient(const Vector& x,
                const Vector& y,
                const SelectedInverse& s,
                const Vector& diagonal,
                Vector* gx,
                Vector* gy);
  const std::string& error() const { return error_; }

 private:
  // One residual block.
  struct Part {
    std::vector<int> y_blocks;       // Of the level's y.
    std::vector<int> coordinates;    // Of the level's y (tangent), those it has, in its own order.
    std::vector<int> x_coordinates;  // Those it has.
    int offset;                      // Of its first in the torn y (tangent).
  };
  void Tear();
  void Paint();
  void Weigh(const SelectedInverse& s);
  bool MeasureX(const Vector& x, int colour, double share, Vector* gx);
  bool MeasureX(const Vector& x, Vector* gx);
  bool MeasureY(const Vector& x, const Vector& y, const Vector& diagonal, Vector* gy);
  bool Evaluate(const Vector& x, const Vector& own_y);
  double Sum(const Part& part) const;
  void AddDifferences(const DifferencePoint& point);

  const LevelFunction& g_;
  std::vector<Part> parts_;
  std::vector<double> memory_;  // Its own y, as a user would have it: the blocks' identity.
  Space own_y_;
  std::unique_ptr<LevelFunction> torn_;
  std::unique_ptr<LevelEvaluator> evaluator_;
  SparseMatrix yy_;
  Vector weights_;           // Of yy_'s entries, in sigma.
  std::vector<int> colour_;  // Of x's coordinates: one residual block has no two of a colour.
  int num_colours_ = 0, most_coordinates_ = 0;
  Vector at_, moved_, motion_, steps_, gradient_;
  Vector differences_;  // Of the parts' shares of sigma, for steps of one.
  Matrix block_;
  std::string error_;
};

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_INTERNAL_TORN_LEVEL_H_
