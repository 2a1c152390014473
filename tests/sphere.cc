#include "sphere.h"

#include "ceres/sphere_manifold.h"

namespace bilevel {

ceres::Manifold* NewSphere() { return new ceres::SphereManifold<3>; }

}  // namespace bilevel
