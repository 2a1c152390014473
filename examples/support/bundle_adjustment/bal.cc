#include "examples/support/bundle_adjustment/bal.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "Eigen/Core"
#include "Eigen/LU"
#include "examples/support/text.h"

namespace examples {
namespace {

// Numbers separated by white space, and the line each is on.
class BalReader {
 public:
  BalReader(std::string text, std::string path) : text_(std::move(text)), path_(std::move(path)) {}

  bool Read(BalScene* scene) {
    constexpr int kMost = 100000000;
    int cameras = 0, points = 0, observations = 0;
    if (!Index("the number of cameras", kMost, &cameras) ||
        !Index("the number of points", kMost, &points) ||
        !Index("the number of observations", kMost, &observations)) {
      return false;
    }
    for (int i = 0; i < observations; ++i) {
      const std::string of = " of observation " + std::to_string(i);
      BalScene::Observation o;
      if (!Index("the camera" + of, cameras, &o.camera) ||
          !Index("the point" + of, points, &o.point) || !Number("u" + of, &o.u) ||
          !Number("v" + of, &o.v)) {
        return false;
      }
      scene->observations.push_back(o);
    }
    const auto read_blocks = [&](int count, const char* name, auto* blocks) {
      for (int i = 0; i < count; ++i) {
        blocks->emplace_back();
        for (double& value : blocks->back()) {
          if (!Number(name + std::to_string(i), &value)) return false;
        }
      }
      return true;
    };
    return read_blocks(cameras, "a parameter of camera ", &scene->cameras) &&
           read_blocks(points, "a coordinate of point ", &scene->points) && End();
  }
  const std::string& error() const { return error_; }

 private:
  bool Number(const std::string& what, double* value) {
    SkipSpace();
    const char* begin = text_.c_str() + position_;
    char* end = nullptr;
    *value = std::strtod(begin, &end);
    const size_t length = static_cast<size_t>(end - begin);
    if (length == 0) {
      return Fail(position_ == text_.size() ? "the file ends where " + what + " should be"
                                            : what + " is not a number");
    }
    position_ += length;
    const bool ends =
        position_ == text_.size() || std::isspace(static_cast<unsigned char>(text_[position_]));
    if (!ends || !std::isfinite(*value)) return Fail(what + " is not a finite number");
    return true;
  }

  bool Index(const std::string& what, int size, int* value) {
    double number;
    if (!Number(what, &number)) return false;
    if (number != std::floor(number) || number < 0.0 || number >= size) {
      std::ostringstream text;
      text << what << " is " << number << ", not a whole number from 0 to " << size - 1;
      return Fail(text.str());
    }
    *value = static_cast<int>(number);
    return true;
  }

  bool End() {
    SkipSpace();
    return position_ == text_.size() || Fail("something follows the last point");
  }

  bool Fail(const std::string& what) {
    error_ = path_ + ":" + std::to_string(line_) + ": " + what;
    return false;
  }
  void SkipSpace() {
    for (; position_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[position_]));
         ++position_) {
      line_ += text_[position_] == '\n';
    }
  }

  std::string text_, path_, error_;
  size_t position_ = 0;
  int line_ = 1;
};

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
      if ((turned * turned.transpose() - Eigen::Matrix3d::Identity()).norm() > 1e-3 ||
          turned.determinant() < 0.0) {
        return Fail("the rotation" + of + " is none");
      }
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

bool ReadScene(const std::string& path, BalScene* scene, std::string* error) {
  *scene = BalScene();
  std::string bytes;
  if (!ReadFile(path, &bytes, error)) return false;
  const auto read = [&](auto reader) {
    if (reader.Read(scene)) return true;
    *error = reader.error();
    return false;
  };
  const bool libmv = !bytes.empty() && (bytes[0] == 'v' || bytes[0] == 'V');
  return libmv ? read(LibmvReader(bytes, path)) : read(BalReader(std::move(bytes), path));
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
