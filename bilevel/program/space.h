#ifndef BILEVEL_PROGRAM_SPACE_H_
#define BILEVEL_PROGRAM_SPACE_H_

#include <string>
#include <unordered_map>
#include <vector>

#include "Eigen/Core"
#include "bilevel/derivatives/manifold_hessian.h"
#include "bilevel/terms/convex_set.h"
#include "ceres/manifold.h"

namespace bilevel {

class Memory;

using Vector = Eigen::VectorXd;
using Matrix = Eigen::MatrixXd;

/// The product of one level's parameter blocks: where x or y lives.
///
/// A point is the blocks' ambient values one after the other; a tangent vector their tangent
/// coordinates one after the other. Bounds exist on flat blocks only.
class Space {
 public:
  struct Block {
    double* user = nullptr;  ///< The user's memory, and the block's identity.
    int size = 0;
    int tangent_size = 0;
    int offset = 0;  ///< Into a point.
    int tangent_offset = 0;
    const ceres::Manifold* manifold = nullptr;  ///< nullptr: Euclidean. Not owned.
    const ConvexSet* set = nullptr;             ///< nullptr: all of it. Not owned.
    std::string name;                           ///< For messages.
  };

  /// The block must be new; returns its index.
  int Add(double* user, int size, const ceres::Manifold* manifold, std::string name);

  /// Of a coordinate of a flat block that its manifold does not hold.
  void SetBounds(int tangent_coordinate, double lower, double upper);

  /// Of a Euclidean block without bounds. Plus knows nothing of it: ProjectBlock and
  /// Point::MoveWithin do.
  void SetConvexSet(int block, const ConvexSet* set);
  bool has_sets() const { return has_sets_; }
  /// A block of p <- the nearest point of its set, if it has one.
  void ProjectBlock(int block, double* p) const;

  const std::vector<Block>& blocks() const { return blocks_; }
  const ManifoldCurvature& curvature(int block) const { return curvatures_[block]; }
  int Find(const double* user) const;  ///< Index, or -1.
  int size() const { return size_; }
  int tangent_size() const { return tangent_size_; }

  bool has_bounds() const { return has_bounds_; }
  /// Bounds on the tangent coordinates at a point: infinite where there are none.
  double LowerBound(int tangent_coordinate) const { return lower_[tangent_coordinate]; }
  double UpperBound(int tangent_coordinate) const { return upper_[tangent_coordinate]; }
  /// The ambient coordinate a bounded tangent coordinate stands for.
  int AmbientIndex(int tangent_coordinate) const { return ambient_index_[tangent_coordinate]; }
  /// The tangent coordinate that stands for one of a flat block's; -1: its manifold holds it.
  int TangentIndex(int block, int coordinate) const;

  /// q = p plus d, then clamped to the bounds; q may not alias p. False where a manifold fails.
  bool Plus(const double* p, const double* d, double* q) const;

  /// One block of that, into q's.
  bool PlusBlock(int block, const double* p, const double* d, double* q) const;

  /// d with p plus d = q, tangent coordinates at p. False where a manifold fails.
  bool Minus(const double* q, const double* p, double* d) const;

  /// Whether p stands at a bound that a move along -gradient would cross, or between equal ones.
  bool IsHeld(const double* p, int tangent_coordinate, double gradient) const {
    const int i = ambient_index_[tangent_coordinate];
    if (i < 0) return false;
    const bool at_lower = p[i] <= lower_[tangent_coordinate];
    const bool at_upper = p[i] >= upper_[tangent_coordinate];
    return (at_lower && gradient > 0.0) || (at_upper && gradient < 0.0) || (at_lower && at_upper);
  }

  /// The block a tangent coordinate belongs to.
  const Block& BlockOf(int tangent_coordinate) const;

  void ReadUser(double* p) const;         ///< p <- the user's memory.
  void WriteUser(const double* p) const;  ///< The user's memory <- p.

 private:
  std::vector<Block> blocks_;
  std::vector<ManifoldCurvature> curvatures_;
  std::unordered_map<const double*, int> index_;
  std::vector<double> lower_, upper_;  // By tangent coordinate.
  std::vector<int> ambient_index_;     // By tangent coordinate; -1 on curved blocks.
  int size_ = 0, tangent_size_ = 0;
  bool has_bounds_ = false, has_sets_ = false;
};

/// A tangent vector of which all but some blocks, or parts of them, are zero, such as a minibatch's
/// gradient: dense memory and a list of those blocks. What is done with it costs what it touches;
/// nothing is allocated after its first use.
class SparseVector {
 public:
  /// Zero, in that space.
  void SetZero(const Space* space);
  /// Lists a block, in which anything may then be written through data().
  void Touch(int block) {
    if (is_touched_[block] == kWhole) return;
    if (is_touched_[block] == kPartly) Forget(block);
    is_touched_[block] = kWhole;
    const Space::Block& b = space_->blocks()[block];
    blocks_.push_back({block, b.tangent_offset, b.tangent_offset + b.tangent_size});
  }
  /// Some coordinates of a block, begin to end - 1.
  struct Range {
    int block, begin, end;
  };
  /// Lists some coordinates of a flat block.
  void Touch(const Range& range);
  double* data() { return values_.data(); }
  const double* data() const { return values_.data(); }
  /// All of it, zeros included.
  const Vector& dense() const { return values_; }
  /// What is listed: blocks, and parts of flat ones.
  const std::vector<Range>& blocks() const { return blocks_; }
  const Space& space() const { return *space_; }
  bool IsWhole(const Range& r) const {
    return r.end - r.begin == space_->blocks()[r.block].tangent_size;
  }

  void Add(double scale, const SparseVector& other);
  /// v += scale * this.
  void AddTo(double scale, Vector* v) const;
  double squaredNorm() const;

 private:
  const Space* space_ = nullptr;
  Vector values_;
  std::vector<Range> blocks_;
  enum : char { kNot, kPartly, kWhole };
  void Forget(int block);
  std::vector<char> is_touched_;     // By block.
  std::vector<char> is_coordinate_;  // Listed, of those in parts of blocks; empty where none are.
};

/// A point of a space that can move. Copying to a point of the same space allocates nothing.
class Point {
 public:
  Point() = default;
  explicit Point(const Space* space)
      : space_(space), value_(space->size()), step_(space->tangent_size()), moved_(space->size()) {}
  Point(const Point& other) { *this = other; }
  Point& operator=(const Point& other);

  const Space& space() const { return *space_; }
  const Vector& value() const { return value_; }
  Vector& value() { return value_; }
  int dim() const { return space_->tangent_size(); }

  /// Moves along a tangent vector: retraction, then projection onto the bounds. False, and no
  /// move, where a manifold fails or the result is not finite.
  template <typename Derived>
  bool Move(const Eigen::MatrixBase<Derived>& delta) {
    step_.noalias() = delta;
    return MoveByStep();
  }
  /// Moves along scale * delta, at the cost of the blocks delta touches.
  bool Move(double scale, const SparseVector& delta);

  /// The same, then onto the nearest point of the blocks' convex sets: for methods that project.
  /// False also where that is not finite.
  template <typename Derived>
  bool MoveWithin(const Eigen::MatrixBase<Derived>& delta) {
    return Move(delta) && ProjectOnSets();
  }
  bool MoveWithin(double scale, const SparseVector& delta);
  bool ProjectOnSets();

  /// For checkpoints: its values, in the space it then is of.
  void Remember(const std::string& name, const Space& space, Memory* memory);

 private:
  bool MoveByStep();

  const Space* space_ = nullptr;
  Vector value_, step_, moved_;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_SPACE_H_
