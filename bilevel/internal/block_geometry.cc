#include "bilevel/internal/block_geometry.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <typeinfo>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/internal/inverted_manifold.h"
#include "ceres/version.h"

namespace bilevel {
namespace {

// The same kind twice is one manifold, as when both levels were built by one function.
bool SameManifold(const ceres::Manifold& a, const ceres::Manifold& b, const double* values) {
  if (typeid(a) != typeid(b) || a.AmbientSize() != b.AmbientSize() ||
      a.TangentSize() != b.TangentSize()) {
    return false;
  }
  Matrix plus_a(a.TangentSize(), a.AmbientSize()), plus_b = plus_a;
  return a.PlusJacobian(values, plus_a.data()) == b.PlusJacobian(values, plus_b.data()) &&
         plus_a == plus_b;
}

double OrInfinite(double bound) {
  return std::abs(bound) >= std::numeric_limits<double>::max() ? std::copysign(kInfinity, bound)
                                                               : bound;
}

bool IsCurved(const ceres::Manifold* manifold) {
  return manifold && !ManifoldCurvature(manifold).is_zero();
}

}  // namespace

bool IsParameterization(const ceres::Problem& problem, const double* values) {
#if CERES_VERSION_MAJOR == 2 && CERES_VERSION_MINOR < 2
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  return problem.HasParameterization(values);
#pragma GCC diagnostic pop
#else
  static_cast<void>(problem);
  static_cast<void>(values);
  return false;
#endif
}

bool FindManifold(const double* values,
                  const std::string& name,
                  const std::vector<ceres::Problem*>& problems,
                  std::vector<std::unique_ptr<ceres::Manifold>>* own,
                  const ceres::Manifold** manifold,
                  std::string* error) {
  for (const ceres::Problem* problem : problems) {
    if (!problem->HasParameterBlock(values)) continue;
    const ceres::Manifold* other = problem->GetManifold(values);
    if (!other || other == *manifold) continue;
    if (IsParameterization(*problem, values)) {
      own->push_back(std::make_unique<InvertedManifold>(other));
      other = own->back().get();
    }
    if (*manifold) {
      if (SameManifold(**manifold, *other, values)) continue;
      return Refuse(name + " has two different manifolds", error);
    }
    *manifold = other;
  }
  return true;
}

bool SetBound(
    Space* space, int index, int coordinate, double lower, double upper, std::string* error) {
  if (std::isinf(lower) && std::isinf(upper)) return true;
  const Space::Block& block = space->blocks()[index];
  if (IsCurved(block.manifold)) {
    return Refuse(block.name + " has bounds and a curved manifold; bounds work on flat blocks",
                  error);
  }
  const int j = space->TangentIndex(index, coordinate);
  if (j >= 0) {
    lower = std::max(lower, space->LowerBound(j));
    upper = std::min(upper, space->UpperBound(j));
  }
  const auto name = [&] { return block.name + "[" + std::to_string(coordinate) + "]"; };
  if (lower > upper) {
    return Refuse("the bounds of " + name() + " are infeasible: lower " + Number(lower) +
                      ", upper " + Number(upper),
                  error);
  }
  const double value = block.user[coordinate];
  if (value < lower || value > upper) {
    return Refuse("the start of " + name() + ", " + Number(value) + ", is outside its bounds [" +
                      Number(lower) + ", " + Number(upper) + "]",
                  error);
  }
  if (j >= 0) space->SetBounds(j, lower, upper);
  return true;
}

bool SetBounds(Space* space, int index, const ceres::Problem& problem, std::string* error) {
  const Space::Block& block = space->blocks()[index];
  if (!problem.HasParameterBlock(block.user)) return true;
  for (int i = 0; i < block.size; ++i) {
    const double lower = OrInfinite(problem.GetParameterLowerBound(block.user, i));
    const double upper = OrInfinite(problem.GetParameterUpperBound(block.user, i));
    if (!SetBound(space, index, i, lower, upper, error)) return false;
  }
  return true;
}

bool SetConvexSet(Space* space, int index, const ConvexSet& set, std::string* error) {
  const Space::Block& block = space->blocks()[index];
  const std::string name = "the convex set of " + block.name;
  if (block.manifold) return Refuse(name + " goes with no manifold, which it has", error);
  for (int j = block.tangent_offset; j < block.tangent_offset + block.tangent_size; ++j) {
    if (std::isfinite(space->LowerBound(j)) || std::isfinite(space->UpperBound(j))) {
      return Refuse(name + " goes with no bounds, which it has: a polyhedron has both", error);
    }
  }
  std::vector<double> start(block.user, block.user + block.size);
  std::string wrong;
  const std::string thrown = Thrown([&] {
    wrong = set.Check(block.size);
    if (wrong.empty()) set.Project(start.data(), block.size);
  });
  if (!thrown.empty()) return Refuse(name + thrown, error);
  if (!wrong.empty()) {
    return Refuse(name + ", of " + std::to_string(block.size) + " values, is " + wrong, error);
  }
  for (const double value : start) {
    if (!std::isfinite(value)) return Refuse(name + " projects its start to infinity", error);
  }
  space->SetConvexSet(index, &set);
  return true;
}

void Append(const Space& part, Space* whole) {
  const int first = whole->tangent_size();
  for (const Space::Block& block : part.blocks()) {
    const int index = whole->Add(block.user, block.size, block.manifold, block.name);
    if (block.set) whole->SetConvexSet(index, block.set);
  }
  for (int j = 0; part.has_bounds() && j < part.tangent_size(); ++j) {
    whole->SetBounds(first + j, part.LowerBound(j), part.UpperBound(j));
  }
}

}  // namespace bilevel
