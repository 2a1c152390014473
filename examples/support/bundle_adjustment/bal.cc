#include "examples/support/bundle_adjustment/bal.h"

#include <algorithm>
#include <cstdio>

#include "examples/support/bundle_adjustment/scene_readers.h"
#include "examples/support/text.h"

namespace examples {
namespace {

// What makes no sense in a scene that can be read.
void Question(const std::string& path, BalScene* scene) {
  int focal = 0, behind = 0;
  for (const auto& camera : scene->cameras) focal += !(camera[6] > 0.0);
  double p[3];
  for (const auto& o : scene->observations) {
    ToCamera(scene->cameras[o.camera].data(), scene->points[o.point].data(), p);
    behind += !(p[2] < 0.0);
  }
  const auto note = [&](int count, size_t all, const char* what) {
    if (count == 0) return;
    scene->notes +=
        path + ": " + std::to_string(count) + " of " + std::to_string(all) + what + "\n";
  };
  note(focal, scene->cameras.size(), " cameras have a focal length that is not positive.");
  note(behind, scene->observations.size(), " observations are of points behind their camera.");
}

}  // namespace

bool ReadScene(const std::string& path, BalScene* scene, std::string* error) {
  *scene = BalScene();
  std::string bytes;
  if (!ReadFile(path, &bytes, error)) return false;
  const bool libmv = !bytes.empty() && (bytes[0] == 'v' || bytes[0] == 'V');
  const bool bundler = bytes.compare(0, 13, "# Bundle file") == 0;
  const auto read = libmv ? ReadLibmv : bundler ? ReadBundler : ReadBal;
  const bool ok = read(bytes, path, scene, error);
  if (ok) Question(path, scene);
  return ok;
}

bool WriteBal(const BalScene& scene, const std::string& path, std::string* error) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  bool ok = file != nullptr;
  if (file) {
    std::fprintf(file,
                 "%zu %zu %zu\n",
                 scene.cameras.size(),
                 scene.points.size(),
                 scene.observations.size());
    for (const auto& o : scene.observations) {
      std::fprintf(file, "%d %d %.17g %.17g\n", o.camera, o.point, o.u, o.v);
    }
    for (const auto& camera : scene.cameras) {
      for (const double value : camera) std::fprintf(file, "%.17g\n", value);
    }
    for (const auto& point : scene.points) {
      for (const double value : point) std::fprintf(file, "%.17g\n", value);
    }
    ok = !std::ferror(file);
    ok = std::fclose(file) == 0 && ok;
  }
  if (!ok) *error = path + " cannot be written";
  return ok;
}

BalScene Cut(const BalScene& scene, int num_cameras, int num_points) {
  BalScene cut;
  cut.fixed_intrinsics = scene.fixed_intrinsics;
  num_cameras = std::min<int>(num_cameras, static_cast<int>(scene.cameras.size()));
  cut.cameras.assign(scene.cameras.begin(), scene.cameras.begin() + num_cameras);
  std::vector<int> views(scene.points.size(), 0), index(scene.points.size(), -1);
  for (const auto& o : scene.observations) views[o.point] += o.camera < num_cameras;
  for (size_t p = 0; p < views.size(); ++p) {
    if (views[p] < 2 || static_cast<int>(cut.points.size()) == num_points) continue;
    index[p] = static_cast<int>(cut.points.size());
    cut.points.push_back(scene.points[p]);
  }
  for (auto o : scene.observations) {
    if (o.camera >= num_cameras || index[o.point] < 0) continue;
    o.point = index[o.point];
    cut.observations.push_back(o);
  }
  return cut;
}

}  // namespace examples
