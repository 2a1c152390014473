#ifndef BILEVEL_TESTS_SPHERE_H_
#define BILEVEL_TESTS_SPHERE_H_

#include "ceres/manifold.h"

namespace bilevel {

/// new ceres::SphereManifold<3>, whose templates are slow to compile.
ceres::Manifold* NewSphere();

}  // namespace bilevel

#endif  // BILEVEL_TESTS_SPHERE_H_
