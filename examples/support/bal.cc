#include "examples/support/bal.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace examples {
namespace {

// Numbers separated by white space, and the line each is on.
class Reader {
 public:
  Reader(std::string text, std::string path) : text_(std::move(text)), path_(std::move(path)) {}

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
    const bool ends = position_ == text_.size() || std::isspace(text_[position_]);
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
  const std::string& error() const { return error_; }

 private:
  void SkipSpace() {
    for (; position_ < text_.size() && std::isspace(text_[position_]); ++position_) {
      line_ += text_[position_] == '\n';
    }
  }

  std::string text_, path_, error_;
  size_t position_ = 0;
  int line_ = 1;
};

bool Read(Reader* reader, BalScene* scene) {
  constexpr int kMost = 100000000;
  int cameras = 0, points = 0, observations = 0;
  if (!reader->Index("the number of cameras", kMost, &cameras) ||
      !reader->Index("the number of points", kMost, &points) ||
      !reader->Index("the number of observations", kMost, &observations)) {
    return false;
  }
  for (int i = 0; i < observations; ++i) {
    const std::string of = " of observation " + std::to_string(i);
    BalScene::Observation o;
    if (!reader->Index("the camera" + of, cameras, &o.camera) ||
        !reader->Index("the point" + of, points, &o.point) || !reader->Number("u" + of, &o.u) ||
        !reader->Number("v" + of, &o.v)) {
      return false;
    }
    scene->observations.push_back(o);
  }
  const auto read_blocks = [&](int count, const char* name, auto* blocks) {
    for (int i = 0; i < count; ++i) {
      blocks->emplace_back();
      for (double& value : blocks->back()) {
        if (!reader->Number(name + std::to_string(i), &value)) return false;
      }
    }
    return true;
  };
  return read_blocks(cameras, "a parameter of camera ", &scene->cameras) &&
         read_blocks(points, "a coordinate of point ", &scene->points) && reader->End();
}

}  // namespace

bool ReadBal(const std::string& path, BalScene* scene, std::string* error) {
  *scene = BalScene();
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    *error = path + " cannot be read";
    return false;
  }
  Reader reader(text.str(), path);
  if (Read(&reader, scene)) return true;
  *error = reader.error();
  return false;
}

BalScene Cut(const BalScene& scene, int num_cameras, int num_points) {
  BalScene cut;
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
