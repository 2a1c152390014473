#ifndef BILEVEL_ORACLE_UNCERTAINTY_H_
#define BILEVEL_ORACLE_UNCERTAINTY_H_

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/program/space.h"
#include "bilevel/types.h"

namespace bilevel {

/// How well the upper level determines x: the covariance of the learned x, shaped like
/// ceres::Covariance.
///
///     C = s^2 (J'J)^-1,   J = dr/dx + dr/dy dy*/dx,   s^2 = |r|^2 / (N - p)
///
/// r are the N upper residuals as f weighs them: times sqrt(rho') of their loss, held constant, and
/// the root of their scenario's weight. p is the number of directions of x they determine. C is the
/// covariance of x if the residuals' noise is independent and of one variance s^2, estimated from
/// the fit; SetNoiseVariance(1) gives ceres::Covariance's convention, for residuals divided by
/// their standard deviation. Lower-level measurements are taken as given: what their noise does to
/// many upper residuals at once is not in C.
///
/// Coordinates at an active bound are held: C is conditional on them, with zeros in their rows.
/// Along a flat direction the variance is infinite: so are the entries of C it reaches, while
/// combinations that it leaves alone (a ratio of noise scales, say) stay finite, see
/// GetStandardError.
class Uncertainty {
 public:
  /// From the second derivative of f along y*(x), in tangent coordinates of x: J'J
  /// (kGaussNewton), or that of phi (kExact). gradient: of phi, tells which bounds are active.
  /// num_residuals: N; negative where f is a negative log-likelihood, without a variance to
  /// estimate. relative_error: of the second derivative, beyond rounding. The manifolds of x are
  /// needed only until this returns. False: message().
  bool Compute(const Point& x,
               const Matrix& second_derivative,
               const Vector& gradient,
               HessianKind kind,
               double squared_residuals,
               int num_residuals,
               double relative_error = 0.0);

  /// The sandwich in place of C, see ComputeUncertaintyAcrossScenarios. Columns of scores: the
  /// gradient of each recording's part of phi. After Compute.
  void UseScores(const Matrix& scores);

  bool available() const { return available_; }
  /// Why it is not.
  const std::string& message() const { return message_; }

  /// Covariance of two blocks of x (the user's pointers), row-major, ambient sizes. False where a
  /// block is unknown, or nothing is available.
  bool GetCovarianceBlock(const double* block1, const double* block2, double* covariance) const;
  /// The same in tangent coordinates.
  bool GetCovarianceBlockInTangentSpace(const double* block1,
                                        const double* block2,
                                        double* covariance) const;
  /// Standard errors of a block's tangent coordinates; infinite where flat, 0 where held.
  bool GetStandardErrors(const double* block, double* errors) const;
  /// Standard error of sum over blocks of coefficients' block (tangent sizes): {{a, u}, {b, v}}.
  bool GetStandardError(const std::vector<std::pair<const double*, const double*>>& combination,
                        double* error) const;

  /// Of all of x, tangent coordinates; symmetric.
  const Matrix& covariance() const { return covariance_; }
  Vector standard_errors() const;
  /// s^2; NaN where N <= p: then the covariance is not a number either.
  double noise_variance() const { return noise_variance_; }
  void SetNoiseVariance(double variance);
  /// N - p, or of a sandwich of S recordings S - 1; negative: not estimated.
  int degrees_of_freedom() const { return degrees_of_freedom_; }
  HessianKind kind() const { return kind_; }
  /// In words: "0.71 a[0] + 0.71 b[0]".
  const std::vector<std::string>& flat_directions() const { return flat_directions_; }
  /// "alpha[0]"
  const std::vector<std::string>& held_coordinates() const { return held_coordinates_; }

  /// What C is, then a line a coordinate, `most` at most: name, value, standard error.
  std::vector<std::pair<std::string, std::string>> Rows(int most) const;

 private:
  struct Block {
    const double* user;
    int size, tangent_size, tangent_offset;
    Matrix plus;  // d Plus / d delta; empty: identity.
  };
  const Block* Find(const double* user) const;
  bool Fail(const std::string& what);
  // The steps of Compute.
  bool AddBlocks(const Point& x);
  std::vector<int> HoldAtBounds(const Point& x, const Vector& gradient);
  bool Invert(const Space& space,
              const Matrix& second_derivative,
              double relative_error,
              const std::vector<int>& free);
  void AddFlatDirections(const Space& space, const std::vector<int>& free, const Matrix& basis);

  bool available_ = false;
  std::string message_ = "not computed";
  HessianKind kind_ = HessianKind::kGaussNewton;
  double noise_variance_ = std::numeric_limits<double>::quiet_NaN();
  int degrees_of_freedom_ = -1;
  bool is_sandwich_ = false;
  std::vector<Block> blocks_;
  std::vector<std::string> names_;  // By tangent coordinate.
  std::vector<double> values_;      // NaN on manifolds.
  std::vector<char> held_;
  Matrix unit_;  // The finite part of C for s = 1.
  Matrix flat_;  // Orthonormal basis of the flat directions.
  Matrix covariance_;
  std::vector<std::string> flat_directions_, held_coordinates_;
};

/// "0.71 log_sigma[0] + 0.71 log_sigma[1]"
std::string NameDirection(const Space& space, const Vector& direction);

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_UNCERTAINTY_H_
