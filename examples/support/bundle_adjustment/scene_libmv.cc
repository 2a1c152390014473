#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <set>
#include <unordered_map>
#include <utility>

#include "Eigen/LU"
#include "examples/support/bundle_adjustment/scene_readers.h"

namespace examples {
namespace {

// The binary format, described in Ceres' examples/libmv_bundle_adjuster.cc.
class LibmvReader {
 public:
  LibmvReader(const std::string& bytes, std::string path)
      : bytes_(bytes), path_(std::move(path)), big_endian_(bytes[0] == 'V') {}

  bool Read(BalScene* scene) {
    position_ = 2;
    if (bytes_.size() < 2 || bytes_[1] != 'P') {
      return FailAt(1, "the markers are not said to be in pixels (P)");
    }
    const char* names[] = {"the focal length", "cx", "cy", "k1", "k2", "k3", "p1", "p2"};
    double intrinsics[8];
    for (int i = 0; i < 8; ++i) {
      if (!Float(names[i], &intrinsics[i])) return false;
      if (i >= 5 && intrinsics[i] != 0.0) return Fail(names[i] + std::string(" is not 0"));
    }
    if (!(intrinsics[0] > 0.0)) return FailAt(2, "the focal length is not positive");
    scene->fixed_intrinsics = true;

    std::unordered_map<int, int> cameras, points;
    int count;
    if (!Count("cameras", 52, &count)) return false;
    for (int i = 0; i < count; ++i) {
      const std::string of = " of camera " + std::to_string(i);
      double v[12];
      if (!Id("the image" + of, &cameras)) return false;
      for (double& value : v) {
        if (!Float("a number" + of, &value)) return false;
      }
      // Column-major, seen along +z with v downwards; BAL looks along -z with v upwards.
      const Eigen::Matrix3d turned =
          Eigen::Vector3d(1, -1, -1).asDiagonal() * Eigen::Map<const Eigen::Matrix3d>(v);
      if (!IsRotation(turned)) return Fail("the rotation" + of + " is none");
      std::array<double, 9> camera{};
      ceres::RotationMatrixToAngleAxis(turned.data(), camera.data());
      camera[3] = v[9];
      camera[4] = -v[10];
      camera[5] = -v[11];
      camera[6] = intrinsics[0];
      camera[7] = intrinsics[3];
      camera[8] = intrinsics[4];
      scene->cameras.push_back(camera);
    }
    if (!Count("points", 16, &count)) return false;
    for (int i = 0; i < count; ++i) {
      const std::string of = " of point " + std::to_string(i);
      if (!Id("the track" + of, &points)) return false;
      scene->points.emplace_back();
      for (double& value : scene->points.back()) {
        if (!Float("a coordinate" + of, &value)) return false;
      }
    }
    if (!Count("markers", 16, &count)) return false;
    std::set<std::pair<int, int>> seen;
    for (int i = 0; i < count; ++i) {
      const std::string of = " of marker " + std::to_string(i);
      int image, track;
      double u, v;
      if (!Int("the image" + of, &image) || !Int("the track" + of, &track) ||
          !Float("x" + of, &u) || !Float("y" + of, &v)) {
        return false;
      }
      if (!seen.emplace(image, track).second) {
        return Fail("track " + std::to_string(track) + " is in image " + std::to_string(image) +
                    " already");
      }
      if (!cameras.count(image) || !points.count(track)) continue;
      scene->observations.push_back(
          {cameras[image], points[track], u - intrinsics[1], intrinsics[2] - v});
    }
    return position_ == bytes_.size() || Fail("something follows the last marker");
  }
  const std::string& error() const { return error_; }

 private:
  bool Word(const std::string& what, std::uint32_t* word) {
    if (bytes_.size() - position_ < 4) {
      return FailAt(position_, "the file ends where " + what + " should be");
    }
    for (int i = 0; i < 4; ++i) {
      const auto byte = static_cast<unsigned char>(bytes_[position_ + (big_endian_ ? i : 3 - i)]);
      *word = *word << 8 | byte;
    }
    position_ += 4;
    return true;
  }
  bool Float(const std::string& what, double* value) {
    std::uint32_t word = 0;
    float number;
    if (!Word(what, &word)) return false;
    std::memcpy(&number, &word, 4);
    *value = number;
    return std::isfinite(*value) || Fail(what + " is not a finite number");
  }
  bool Int(const std::string& what, int* value) {
    std::uint32_t word = 0;
    if (!Word(what, &word)) return false;
    *value = static_cast<int>(word);
    return *value >= 0 || Fail(what + " is negative");
  }
  // A number that has not come before, and its place.
  bool Id(const std::string& what, std::unordered_map<int, int>* places) {
    int id;
    if (!Int(what, &id)) return false;
    return places->emplace(id, static_cast<int>(places->size())).second ||
           Fail(what + ", " + std::to_string(id) + ", has come before");
  }
  bool Count(const std::string& of, size_t size, int* count) {
    if (!Int("the number of " + of, count)) return false;
    return static_cast<size_t>(*count) <= (bytes_.size() - position_) / size ||
           Fail(std::to_string(*count) + " " + of + " are more than the file has");
  }
  // At the word just read.
  bool Fail(const std::string& what) { return FailAt(position_ - 4, what); }
  bool FailAt(size_t byte, const std::string& what) {
    error_ = path_ + ", byte " + std::to_string(byte) + ": " + what;
    return false;
  }

  const std::string& bytes_;
  std::string path_, error_;
  bool big_endian_;
  size_t position_ = 2;
};

}  // namespace

bool IsRotation(const Eigen::Matrix3d& r) {
  return (r * r.transpose() - Eigen::Matrix3d::Identity()).norm() <= 1e-3 && r.determinant() > 0.0;
}

bool ReadLibmv(const std::string& bytes,
               const std::string& path,
               BalScene* scene,
               std::string* error) {
  LibmvReader reader(bytes, path);
  if (reader.Read(scene)) return true;
  *error = reader.error();
  return false;
}

}  // namespace examples
