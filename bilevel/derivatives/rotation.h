#ifndef BILEVEL_DERIVATIVES_ROTATION_H_
#define BILEVEL_DERIVATIVES_ROTATION_H_
#include "bilevel/derivatives/dual.h"
#include "ceres/rotation.h"
#endif  // BILEVEL_DERIVATIVES_ROTATION_H_
