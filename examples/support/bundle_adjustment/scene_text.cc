#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <sstream>
#include <vector>

#include "examples/support/bundle_adjustment/scene_readers.h"

namespace examples {
namespace {

constexpr int kMost = 100000000;

// Numbers separated by white space, and the line each is on.
class TextReader {
 public:
  TextReader(const std::string& text, const std::string& path) : text_(text), path_(path) {}
  const std::string& error() const { return error_; }

 protected:
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
  void SkipLine() { position_ = std::min(text_.find('\n', position_), text_.size()); }
  void SkipSpace() {
    for (; position_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[position_]));
         ++position_) {
      line_ += text_[position_] == '\n';
    }
  }

  const std::string &text_, &path_;
  std::string error_;
  size_t position_ = 0;
  int line_ = 1;
};

class BalReader : public TextReader {
 public:
  using TextReader::TextReader;

  bool Read(BalScene* scene) {
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
};

// Bundler's output, whose cameras and pixels are as BAL's. Cameras of focal length 0 are those that
// it could not place: they are left out, with what they see.
class BundlerReader : public TextReader {
 public:
  using TextReader::TextReader;

  bool Read(BalScene* scene) {
    SkipLine();  // "# Bundle file v0.3"
    int cameras = 0, points = 0, left_out = 0;
    if (!Index("the number of cameras", kMost, &cameras) ||
        !Index("the number of points", kMost, &points)) {
      return false;
    }
    std::vector<int> places;  // -1: left out.
    for (int i = 0; i < cameras; ++i) {
      std::array<double, 9> camera{};
      bool placed = false;
      if (!ReadCamera(i, &camera, &placed)) return false;
      places.push_back(placed ? static_cast<int>(scene->cameras.size()) : -1);
      if (placed) scene->cameras.push_back(camera);
    }
    for (int i = 0; i < points; ++i) {
      if (!ReadPoint(i, places, scene, &left_out)) return false;
    }
    const size_t without = places.size() - scene->cameras.size();
    if (without > 0) {
      scene->notes += path_ + ": " + std::to_string(without) + " of " + std::to_string(cameras) +
                      " cameras have no place, and are left out with " + std::to_string(left_out) +
                      " observations.\n";
    }
    return End();
  }

 private:
  bool ReadCamera(int i, std::array<double, 9>* camera, bool* placed) {
    const std::string of = " of camera " + std::to_string(i);
    const char* names[] = {"the focal length", "k1", "k2"};
    double r[9];
    for (int k = 0; k < 3; ++k) {
      if (!Number(names[k] + of, &(*camera)[6 + k])) return false;
    }
    for (double& value : r) {
      if (!Number("an entry of the rotation" + of, &value)) return false;
    }
    *placed = (*camera)[6] != 0.0;
    const Eigen::Map<const Eigen::Matrix<double, 3, 3, Eigen::RowMajor>> rotation(r);
    if (*placed && !IsRotation(rotation)) return Fail("the rotation" + of + " is none");
    const Eigen::Matrix3d column_major = rotation;
    if (*placed) ceres::RotationMatrixToAngleAxis(column_major.data(), camera->data());
    for (int k = 3; k < 6; ++k) {
      if (!Number("the translation" + of, &(*camera)[k])) return false;
    }
    return true;
  }

  // Position, colour and who sees it, by camera, key, and pixel.
  bool ReadPoint(int i, const std::vector<int>& places, BalScene* scene, int* left_out) {
    const std::string of = " of point " + std::to_string(i);
    double unused;
    int views = 0, camera = 0;
    scene->points.emplace_back();
    for (double& value : scene->points.back()) {
      if (!Number("a coordinate" + of, &value)) return false;
    }
    for (int k = 0; k < 3; ++k) {
      if (!Number("the colour" + of, &unused)) return false;
    }
    if (!Index("the number of views" + of, kMost, &views)) return false;
    for (int k = 0; k < views; ++k) {
      BalScene::Observation o{0, i, 0.0, 0.0};
      if (!Index("a camera" + of, static_cast<int>(places.size()), &camera) ||
          !Number("a key" + of, &unused) || !Number("x" + of, &o.u) || !Number("y" + of, &o.v)) {
        return false;
      }
      o.camera = places[camera];
      if (o.camera < 0) {
        ++*left_out;
      } else {
        scene->observations.push_back(o);
      }
    }
    return true;
  }
};

template <typename Reader>
bool ReadBy(const std::string& text, const std::string& path, BalScene* scene, std::string* error) {
  Reader reader(text, path);
  if (reader.Read(scene)) return true;
  *error = reader.error();
  return false;
}

}  // namespace

bool ReadBal(const std::string& text,
             const std::string& path,
             BalScene* scene,
             std::string* error) {
  return ReadBy<BalReader>(text, path, scene, error);
}
bool ReadBundler(const std::string& text,
                 const std::string& path,
                 BalScene* scene,
                 std::string* error) {
  return ReadBy<BundlerReader>(text, path, scene, error);
}

}  // namespace examples
