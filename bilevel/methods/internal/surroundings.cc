#include "bilevel/methods/internal/surroundings.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

// Relative to 1 + |x|, or 1 + |y|: how far curvatures are measured, and other directions looked
// along, at first and where nothing changes so near.
constexpr double kCurvatureWay = 1e-4, kNearWay = 1e-3, kFarWay = 0.1;
constexpr double kDifference = 1e-5;  // Of coordinates on a manifold.
// A curvature below this share of the largest is none.
constexpr double kFlat = 1e-6;
// A fall followed so many times twice as far has no end.
constexpr int kMostDoublings = 60;
constexpr int kMostProducts = 10;
constexpr int kParts = 10;  // Of a way along a branch.

// In no special position.
Vector AnyDirection(int size) {
  Vector v(size);
  for (int j = 0; j < size; ++j) v[j] = std::cos(1.0 + j);
  return v.normalized();
}

}  // namespace

Surroundings::Surroundings(
    Oracle* oracle, HyperObjective* at, const State& answer, double phi, double visible)
    : oracle_(*oracle),
      at_(*at),
      answer_(answer),
      phi_(phi),
      visible_(visible),
      size_(1.0 + answer.x.value().norm()) {}

void Surroundings::Keep(const State& there, double value) {
  if (!(value < lowest_)) return;
  lowest_ = value;
  lowest_state_ = there;
}

bool Surroundings::Look(const Vector& step, double* value, Vector* gradient) {
  State there = answer_;
  if (!there.x.Move(step) || there.x.value() == answer_.x.value()) return false;
  if (!at_.Evaluate(there.x, value, gradient)) {
    unseen_ = at_.message();
    return false;
  }
  there.y = at_.y();
  Keep(there, *value);
  if (!gradient) return true;
  ClearHeld(there.x, *gradient, gradient);
  return ToOwnCoordinates(step, there.x, gradient);
}

// Each point of a manifold has a basis of its own: beside the pole of Ceres' spheres the same
// direction changes its sign.
bool Surroundings::ToOwnCoordinates(const Vector& step, const Point& there, Vector* gradient) {
  const Space& space = there.space();
  Vector way, moved(step.size());
  for (const Space::Block& block : space.blocks()) {
    if (!block.manifold) continue;
    Vector own = Vector::Zero(block.tangent_size);
    for (int j = 0; j < block.tangent_size; ++j) {
      for (const double side : {1.0, -1.0}) {
        Point beside = answer_.x;
        way = step;
        way[block.tangent_offset + j] += side * kDifference;
        if (!beside.Move(way) ||
            !space.Minus(beside.value().data(), there.value().data(), moved.data())) {
          return false;
        }
        own[j] += side / (2.0 * kDifference) *
                  moved.segment(block.tangent_offset, block.tangent_size)
                      .dot(gradient->segment(block.tangent_offset, block.tangent_size));
      }
    }
    gradient->segment(block.tangent_offset, block.tangent_size) = own;
  }
  return true;
}

bool Surroundings::Falls(const Vector& step) {
  double value, last;
  if (!Look(step, &last, nullptr) || !(last < phi_ - visible_)) return false;
  double way = 2.0;
  for (int k = 0; k < kMostDoublings; ++k, way *= 2.0, last = value) {
    if (!Look(way * step, &value, nullptr) || !(value < last)) return true;
  }
  seems_unbounded_ = true;
  return true;
}

void Surroundings::LookOnBranch(const Vector& step) {
  Vector y = answer_.y.value();
  for (int part = 1; part <= kParts; ++part) {
    State there = answer_;
    double value;
    if (!there.x.Move(static_cast<double>(part) / kParts * step) ||
        !at_.Evaluate(there.x, &value, nullptr, &y)) {
      return;
    }
    there.y = at_.y();
    y = there.y.value();
    Keep(there, value);
  }
}

bool Surroundings::FallsAlongAny(const Matrix& directions) {
  bool falls = false;
  for (int i = 0; i < directions.cols(); ++i) falls |= FallsAlong(directions.col(i), kFarWay);
  return falls;
}

bool Surroundings::FallsAlong(const Vector& direction, double way) {
  bool falls = false;
  for (const double side : {-1.0, 1.0}) falls |= Falls(side * way * size_ * direction);
  return falls;
}

// The Hessian times the direction, to one side or the other. False: there is no telling.
bool Surroundings::DifferentiateAlong(const Vector& direction,
                                      const Vector& gradient,
                                      Vector* image) {
  double value;
  for (const double way : {kCurvatureWay * size_, -kCurvatureWay * size_}) {
    if (!Look(way * direction, &value, image)) continue;
    *image = (*image - gradient) / way;
    return true;
  }
  return false;
}

void Surroundings::LookAlongFlat(const Matrix& basis, Matrix curvature) {
  curvature = 0.5 * (curvature + curvature.transpose()).eval();
  const SymmetricEigen eigen(curvature);
  const double flat = kFlat * eigen.eigenvalues().cwiseAbs().maxCoeff();
  for (int i = 0; i < curvature.cols() && eigen.eigenvalues()[i] <= flat; ++i) {
    const Vector direction = basis * eigen.eigenvectors().col(i);
    const bool curves_down = eigen.eigenvalues()[i] < -flat;
    if (!curves_down || !FallsAlong(direction, kNearWay)) FallsAlong(direction, kFarWay);
  }
}

void Surroundings::LookWithin(const Matrix& basis, const Vector& gradient) {
  const int k = static_cast<int>(basis.cols());
  if (k == 0) return;
  Matrix curvature(k, k);
  Vector image;
  for (int j = 0; j < k; ++j) {
    // What cannot be told to curve up is looked along.
    if (!DifferentiateAlong(basis.col(j), gradient, &image)) image.setZero(basis.rows());
    curvature.col(j) = basis.transpose() * image;
  }
  LookAlongFlat(basis, curvature);
}

// Lanczos' process, orthogonalised in full.
void Surroundings::LookEverywhere(const Vector& gradient) {
  const int n = static_cast<int>(gradient.size()), most = std::min(n, kMostProducts);
  Matrix basis(n, most), images(n, most);
  Vector next = AnyDirection(n), image;
  int k = 0;
  while (k < most) {
    basis.col(k) = next;
    if (!DifferentiateAlong(next, gradient, &image)) break;
    images.col(k) = image;
    ++k;
    const auto known = basis.leftCols(k);
    next = image - known * (known.transpose() * image);
    next -= known * (known.transpose() * next);
    if (!(next.norm() > kFlat * image.norm())) break;
    next.normalize();
  }
  if (k == 0) return;
  LookAlongFlat(basis.leftCols(k), basis.leftCols(k).transpose() * images.leftCols(k));
}

// One side will do: f has no slope there. But it may have one in x.
void Surroundings::LookAtOtherSolutions() {
  Vector direction;
  if (!oracle_.lower().AnyFreeDirection(&direction)) return;
  for (const double way : {kNearWay, kFarWay}) {
    State there = answer_;
    const auto solve = [&] { return oracle_.Solve(there.x, &there.y); };
    const double size = 1.0 + oracle_.program().NormInY(there.y.value());
    if (oracle_.program().MoveY(way * size * direction, &there.y) && solve()) {
      Vector fx, fy;
      double value = oracle_.f.Gradient(there.x, there.y, &fx, &fy);
      if (oracle_.ok()) Keep(there, value);
      ClearHeld(there.x, fx, &fx);
      if (oracle_.ok() && fx.norm() > 0.0 && there.x.Move(-kNearWay * size_ / fx.norm() * fx) &&
          solve()) {
        value = oracle_.f.Value(there.x, there.y);
        if (oracle_.ok()) Keep(there, value);
      }
    }
    oracle_.Clear();
  }
}

}  // namespace bilevel
