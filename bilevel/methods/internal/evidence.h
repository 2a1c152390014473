#ifndef BILEVEL_METHODS_INTERNAL_EVIDENCE_H_
#define BILEVEL_METHODS_INTERNAL_EVIDENCE_H_

#include <optional>

#include "bilevel/methods/method.h"
#include "bilevel/types.h"

namespace bilevel {

/// An x of up to so many coordinates is looked at on all sides.
constexpr int kVeryShortX = 20;

/// The directions of a short x along which iterates have moved.
class Path {
 public:
  void Add(const Point& x);
  /// An orthonormal basis of those along which none has; no columns where x is long.
  Matrix Unexplored(int dim) const;
  void Remember(const Space& space, Memory* memory);

 private:
  std::optional<Point> last_;
  Matrix explored_;  // Orthonormal columns.
};

/// What a run tells of the answer it came to.
struct Evidence {
  /// The accepted ones of a run's reports, in their order.
  void Add(const State& state, const Progress& progress);
  void Remember(const Space& x, Memory* memory);

  double first_phi = Progress::kUnknown, phi = Progress::kUnknown;
  double gradient_max_norm = Progress::kUnknown;  ///< Of the last accepted; NaN: y was not solved.
  int num_steps = 0;                              ///< 0: x has not moved.
  double kkt_loss = Progress::kUnknown;           ///< Of a method that knows it.
  std::optional<Point> first_x;
  Path path;
};

/// The change of phi that is not worth another step: what the user calls small, or rounding.
double Negligible(double function_tolerance, double phi, double first_phi);

}  // namespace bilevel

#endif  // BILEVEL_METHODS_INTERNAL_EVIDENCE_H_
