#include "fuzz/readers.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>

#include "Eigen/Eigenvalues"
#include "bilevel/base/internal/npz.h"
#include "bilevel/base/memory.h"
#include "bilevel/program/space.h"
#include "examples/support/bundle_adjustment/bal.h"
#include "examples/support/learning/abalone.h"
#include "examples/support/learning/idx.h"
#include "examples/support/learning/libsvm.h"
#include "examples/support/learning/runs.h"
#include "examples/support/slam/g2o.h"
#include "examples/support/slam/pose_stream.h"
#include "examples/support/slam/range_slam.h"
#include "examples/support/slam/trajectory.h"
#include "examples/support/slam/truth.h"
#include "examples/support/text.h"
#include "examples/support/vision/calibration.h"
#include "examples/support/vision/image.h"

namespace fuzz {
namespace {

using namespace examples;

void Promise(bool kept, const std::string& what) {
  if (!kept) throw std::logic_error("It was promised that " + what + ".");
}

template <typename... Numbers>
void Finite(const Numbers&... numbers) {
  Promise((std::isfinite(numbers) && ...), "numbers are finite");
}
template <typename Numbers>
void AllFinite(const Numbers& numbers) {
  for (const double number : numbers) Finite(number);
}

// Printable lines that each name the file.
void CheckNotes(const std::string& notes, const std::string& path) {
  std::istringstream lines(notes);
  for (std::string line; std::getline(lines, line);) {
    Promise(IsPrintable(line) && line.find(path) == 0, "notes name the file, not \"" + line + "\"");
  }
}

template <size_t kSize>
void UnitAndFinite(const std::array<double, kSize>& q) {
  double squares = 0.0;
  for (const double value : q) squares += value * value;
  Promise(std::abs(squares - 1.0) < 1e-12, "quaternions have length 1");
}
void CheckPose(const Pose2& pose) { AllFinite(pose.v); }
void CheckPose(const Pose3& pose) {
  UnitAndFinite(pose.q);
  AllFinite(pose.t);
}

// Times, or whatever `key` takes of the entries.
template <typename Entries, typename Key>
void Ascending(const Entries& entries, Key key, bool strictly) {
  for (size_t i = 1; i < entries.size(); ++i) {
    const auto before = key(entries[i - 1]), now = key(entries[i]);
    Promise(strictly ? before < now : !(now < before), "entries are in order");
  }
}

bool Abalones(const std::string& path, std::string* error) {
  Abalone data;
  if (!ReadAbalone(path, &data, error)) return false;
  Promise(data.rings.size() > 0 && data.features.rows() == data.rings.size() &&
              data.features.cols() == 8,
          "there are eight features a shell");
  for (const double sex : data.features.col(0)) Promise(sex >= 1.0 && sex <= 3.0, "sex is a code");
  Promise(data.features.allFinite() && data.rings.allFinite(), "numbers are finite");
  return true;
}

bool Scene(const std::string& path, std::string* error) {
  BalScene scene;
  if (!ReadScene(path, &scene, error)) return false;
  CheckNotes(scene.notes, path);
  for (const auto& camera : scene.cameras) AllFinite(camera);
  for (const auto& point : scene.points) AllFinite(point);
  for (const auto& o : scene.observations) {
    Promise(o.camera >= 0 && o.camera < static_cast<int>(scene.cameras.size()) && o.point >= 0 &&
                o.point < static_cast<int>(scene.points.size()),
            "observations are of cameras and points that there are");
    Finite(o.u, o.v);
  }
  return true;
}

bool Checkpoint(const std::string& path, std::string* error) {
  bilevel::Memory::Arrays arrays;
  if (!bilevel::ReadNpz(path, &arrays, error)) return false;
  for (const auto& [name, array] : arrays) {
    size_t size = array.kind == 'u' ? 1 : 8;
    for (const int64_t extent : array.shape) size *= static_cast<size_t>(extent);
    Promise(size == array.bytes.size(), "arrays have their shape");
  }
  bilevel::Memory memory(arrays);
  double number = 0.0;
  bilevel::Vector vector;
  std::vector<std::string> texts;
  for (const auto& entry : arrays) {
    memory.Keep(entry.first, &number);
    memory.Keep(entry.first, &vector);
    memory.Keep(entry.first, &texts);
  }
  return true;
}

bool Corners(const std::string& path, std::string* error) {
  StereoCorners corners;
  if (!ReadStereoCorners(path, &corners, error)) return false;
  Promise(!corners.views.empty() && corners.names.size() == corners.views.size(),
          "every view has a name");
  Promise(std::set<std::string>(corners.names.begin(), corners.names.end()).size() ==
              corners.names.size(),
          "names differ");
  for (const auto& name : corners.names) Promise(IsPrintable(name), "names are printable");
  for (const auto& view : corners.views) {
    Promise(view[0].size() + view[1].size() > 0, "no view is empty");
    for (const auto& side : view) {
      for (const auto& c : side) Finite(c.x, c.y, c.u, c.v);
    }
  }
  return true;
}

template <typename Graph>
void CheckGraph(const Graph& graph, const std::string& path) {
  const int n = static_cast<int>(graph.vertices.size());
  Promise(n > 0, "there is a vertex");
  CheckNotes(graph.notes, path);
  Ascending(
      graph.vertices, [](const auto& v) { return v.id; }, true);
  for (const auto& v : graph.vertices) CheckPose(v.pose);
  const auto check_information = [](const auto& information) {
    Promise(information.allFinite(), "information is finite");
    const auto eigenvalues = information.template selfadjointView<Eigen::Upper>().eigenvalues();
    Promise(eigenvalues.minCoeff() >= -1e-8 * eigenvalues.cwiseAbs().maxCoeff(),
            "information is positive semi-definite");
  };
  for (const auto& p : graph.priors) {
    Promise(p.vertex >= 0 && p.vertex < n, "priors are of vertices");
    CheckPose(p.measured);
    check_information(p.information);
  }
  for (const auto& e : graph.edges) {
    Promise(e.from >= 0 && e.from < n && e.to >= 0 && e.to < n && e.from != e.to,
            "edges lead from a vertex to another");
    CheckPose(e.measured);
    check_information(e.information);
  }
}

bool Graph(const std::string& path, std::string* error) {
  AnyPoseGraph graph;
  if (!ReadPoseGraph(path, &graph, error)) return false;
  std::visit([&](const auto& g) { CheckGraph(g, path); }, graph);
  return true;
}

bool Digits(const std::string& path, std::string* error) {
  IdxImages images;
  if (!ReadIdxImages(path, &images, error)) return false;
  Promise(images.height > 0 && images.width > 0 && images.pixels.rows() > 0 &&
              images.pixels.cols() == Eigen::Index{images.height} * images.width,
          "a row is an image");
  return true;
}

bool Labels(const std::string& path, std::string* error) {
  std::vector<unsigned char> labels;
  if (!ReadIdxLabels(path, &labels, error)) return false;
  Promise(!labels.empty(), "there is a label");
  return true;
}

bool Images(const std::string& path, std::string* error) {
  std::vector<Image> images;
  if (!ReadImages(path, &images, error)) return false;
  Promise(!images.empty(), "there is an image");
  Ascending(
      images, [](const Image& image) { return image.name; }, false);
  for (const Image& image : images) {
    Promise(IsPrintable(image.name), "names are printable");
    Promise(image.width > 0 && image.height > 0 &&
                image.pixels.size() == static_cast<size_t>(image.width) * image.height,
            "an image has width times height pixels");
    for (const double pixel : image.pixels) Promise(pixel >= 0.0 && pixel <= 255.0, "0 to 255");
  }
  return true;
}

bool Samples(const std::string& path, std::string* error) {
  SparseSamples samples;
  if (!ReadLibsvm(path, {-1, 1}, 1, 0, &samples, error)) return false;
  const auto& rows = samples.features;
  Promise(rows.rows() == static_cast<Eigen::Index>(samples.labels.size()) && rows.cols() > 0,
          "every row has a label");
  for (const int label : samples.labels) Promise(label == 0 || label == 1, "labels are classes");
  for (Eigen::Index i = 0; i < rows.rows(); ++i) {
    const double length = rows.row(i).norm();
    Promise(length == 0.0 || std::abs(length - 1.0) < 1e-12, "rows have length 1");
  }
  return true;
}

bool Csv(const std::string& path, std::string* error) {
  Runs runs;
  if (!runs.Open(path, {"a", "b"}, {"c"}, error)) return false;
  for (const auto& run : runs.runs()) {
    Promise(run.metrics.size() == 2, "runs have the metrics named");
    Promise(runs.Find(run.setting, run.method, run.seed) != nullptr, "runs are found");
    for (const auto& point : run.curve) Promise(point.metrics.size() == 1, "so have curves");
  }
  return true;
}

bool Stream(const std::string& path, std::string* error) {
  PoseStream stream;
  if (!ReadPoseStream(path, &stream, error)) return false;
  Promise(stream.poses.size() >= 5, "there are five poses");
  CheckNotes(stream.notes, path);
  Ascending(
      stream.poses, [](const auto& pose) { return pose.t; }, true);
  for (const auto& pose : stream.poses) {
    Finite(pose.t);
    UnitAndFinite(pose.q);
    AllFinite(pose.p);
  }
  return true;
}

bool Ranges(const std::string& prefix, std::string* error) {
  RangeSlam data;
  if (!ReadRangeSlam(prefix, &data, error)) return false;
  const auto time = [](const auto& entry) { return entry.time; };
  Ascending(data.odometry, time, false);
  Ascending(data.truth, time, false);
  Ascending(data.ranges, time, false);
  std::set<int> beacons;
  for (const auto& b : data.beacons) {
    Promise(beacons.insert(b.id).second, "beacons differ");
    Finite(b.x, b.y);
  }
  for (const auto& o : data.odometry) Finite(o.time, o.distance, o.turn);
  for (const auto& p : data.truth) Finite(p.time, p.x, p.y, p.heading);
  for (const auto& r : data.ranges) {
    Finite(r.time, r.range);
    Promise(r.beacon >= 0 && r.beacon < static_cast<int>(data.beacons.size()) && r.range >= 0.0,
            "ranges are positive, to beacons that there are");
  }
  return true;
}

bool Poses(const std::string& path, std::string* error) {
  Trajectory trajectory;
  if (!ReadTrajectory(path, &trajectory, error)) return false;
  const auto check = [&] {
    Promise(!trajectory.poses.empty() && trajectory.times.size() == trajectory.poses.size() &&
                trajectory.lines.size() == trajectory.poses.size(),
            "every pose has a time and a line");
    AllFinite(trajectory.times);
    for (const Pose3& pose : trajectory.poses) CheckPose(pose);
    for (const Pose2& pose : SeenFromAbove(trajectory)) CheckPose(pose);
    CheckNotes(trajectory.notes, path);
  };
  check();
  if (!OrderByTime(path, &trajectory, error)) return false;
  check();
  Ascending(
      trajectory.times, [](double t) { return t; }, true);
  return true;
}

template <typename Graph>
bool Truth(const std::string& path, std::string* error) {
  Graph graph;
  graph.vertices.resize(2);
  std::vector<typename Graph::Pose> truth;
  std::string notes;
  if (!ReadTruth(path, graph, &truth, &notes, error)) return false;
  CheckNotes(notes, path);
  Promise(truth.size() == graph.vertices.size(), "there is one pose a vertex");
  for (const auto& pose : truth) CheckPose(pose);
  return true;
}

}  // namespace

const std::vector<Reader>& Readers() {
  static const std::vector<Reader> readers = {
      {"abalone", {".csv"}, Abalones},
      {"bal", {".txt"}, Scene},
      {"calibration", {".csv"}, Corners},
      {"checkpoint", {".npz"}, Checkpoint},
      {"g2o", {".g2o"}, Graph},
      {"idx_images", {".idx"}, Digits},
      {"idx_labels", {".idx"}, Labels},
      {"libsvm", {".libsvm"}, Samples},
      {"pgm", {".pgm"}, Images},
      {"png", {".png"}, Images},
      {"pose_stream", {".csv"}, Stream},
      {"range_slam", {"_TL.txt", "_DR.txt", "_GT.txt", "_TD.txt"}, Ranges},
      {"runs", {"", ".curves"}, Csv},
      {"tar", {".tar"}, Images},
      {"trajectory", {".txt"}, Poses},
      {"truth_plane", {".txt"}, Truth<PoseGraph2>},
      {"truth_space", {".txt"}, Truth<PoseGraph3>}};
  return readers;
}

bool Read(const Reader& reader, const std::string& folder, const std::string& input) {
  const std::string stem = folder + "/fuzzed_" + reader.name;
  size_t begin = 0;
  for (size_t i = 0; i < reader.endings.size(); ++i) {
    const bool is_last = i + 1 == reader.endings.size();
    const size_t end = is_last ? input.size() : std::min(input.find('\f', begin), input.size());
    std::ofstream(stem + reader.endings[i], std::ios::binary).write(&input[begin], end - begin);
    begin = std::min(end + 1, input.size());
  }
  // Several files have their stem in common.
  const std::string path = reader.endings.size() == 1 ? stem + reader.endings[0] : stem;
  std::string error;
  const bool accepted = reader.read(path, &error);
  for (const char* ending : reader.endings) std::filesystem::remove(stem + ending);
  if (accepted) return true;
  Promise(error.find(path) != std::string::npos, "a refusal names the file, not \"" + error + "\"");
  Promise(IsPrintable(error), "a refusal is a printable line, not \"" + error + "\"");
  return false;
}

}  // namespace fuzz
