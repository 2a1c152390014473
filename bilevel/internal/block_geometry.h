#ifndef BILEVEL_INTERNAL_BLOCK_GEOMETRY_H_
#define BILEVEL_INTERNAL_BLOCK_GEOMETRY_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/program/space.h"
#include "ceres/manifold.h"
#include "ceres/problem.h"

namespace bilevel {

// Manifolds and bounds of the user's parameter blocks, on their way from ceres::Problems into a
// Space. All return false, with a sentence in *error, where there is something wrong.

// Whether the block has a ceres::LocalParameterization (Ceres 2.1): its manifold is then one of
// Ceres' own, whose Minus aborts.
bool IsParameterization(const ceres::Problem& problem, const double* values);

// Puts the block's manifold in the ceres::Problems into *manifold, which keeps what it is where
// there is none; two different ones are refused. What has to be made for it is kept in *own.
bool FindManifold(const double* values,
                  const std::string& name,
                  const std::vector<ceres::Problem*>& problems,
                  std::vector<std::unique_ptr<ceres::Manifold>>* own,
                  const ceres::Manifold** manifold,
                  std::string* error);

// Bounds of one coordinate of a block, which must be flat; the tighter ones count.
bool SetBound(
    Space* space, int block, int coordinate, double lower, double upper, std::string* error);

// Those that the ceres::Problem has for the block.
bool SetBounds(Space* space, int block, const ceres::Problem& problem, std::string* error);

// Its convex set, where the block has neither a manifold nor bounds and the set is one.
bool SetConvexSet(Space* space, int block, const ConvexSet& set, std::string* error);

// A part's blocks, with their bounds and sets, behind those of the whole.
void Append(const Space& part, Space* whole);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_BLOCK_GEOMETRY_H_
