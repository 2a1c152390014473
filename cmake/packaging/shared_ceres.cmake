# Debian's CMake package of Ceres names the static library; packages link the shared one.
find_package(Ceres 2.1 REQUIRED)
find_library(BILEVEL_SHARED_CERES libceres.so REQUIRED)
set_target_properties(Ceres::ceres PROPERTIES IMPORTED_LOCATION_RELEASE "${BILEVEL_SHARED_CERES}")
