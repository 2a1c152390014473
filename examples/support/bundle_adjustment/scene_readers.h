#ifndef BILEVEL_EXAMPLES_SUPPORT_BUNDLE_ADJUSTMENT_SCENE_READERS_H_
#define BILEVEL_EXAMPLES_SUPPORT_BUNDLE_ADJUSTMENT_SCENE_READERS_H_

#include <string>

#include "Eigen/Core"
#include "examples/support/bundle_adjustment/bal.h"

/// The formats of ReadScene, given the file's bytes and its path for messages.
namespace examples {

bool ReadBal(const std::string& text, const std::string& path, BalScene* scene, std::string* error);
bool ReadBundler(const std::string& text,
                 const std::string& path,
                 BalScene* scene,
                 std::string* error);
bool ReadLibmv(const std::string& bytes,
               const std::string& path,
               BalScene* scene,
               std::string* error);

/// To a thousandth, as files have them.
bool IsRotation(const Eigen::Matrix3d& r);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_BUNDLE_ADJUSTMENT_SCENE_READERS_H_
