#ifndef BILEVEL_TESTS_SPHERE_H_
#define BILEVEL_TESTS_SPHERE_H_

#include "ceres/manifold.h"

namespace bilevel {

/// new ceres::SphereManifold<3>, whose templates take four seconds of compiling.
ceres::Manifold* NewSphere();

}  // namespace bilevel

#endif  // BILEVEL_TESTS_SPHERE_H_
