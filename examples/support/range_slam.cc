#include "examples/support/range_slam.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <sstream>

namespace examples {
namespace {

// The whole of path, or of path.gz.
bool ReadText(const std::string& path, std::string* text, std::string* error) {
  std::ifstream plain(path, std::ios::binary);
  if (plain) {
    text->assign(std::istreambuf_iterator<char>(plain), std::istreambuf_iterator<char>());
    return true;
  }
  *error = path + " cannot be read, nor " + path + ".gz";
  if (!std::ifstream(path + ".gz").good() || path.find('\'') != std::string::npos) return false;
  FILE* pipe = popen(("gzip -dc '" + path + ".gz' 2>/dev/null").c_str(), "r");
  if (!pipe) return false;
  char buffer[1 << 16];
  text->clear();
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) text->append(buffer, n);
  if (pclose(pipe) == 0) return true;
  *error = path + ".gz cannot be decompressed";
  return false;
}

// A file of rows of numbers, the first of which are times that do not decrease (not for beacons).
class Rows {
 public:
  Rows(const std::string& path, std::vector<std::string> columns, bool timed, std::string* error)
      : path_(path), columns_(std::move(columns)), timed_(timed), error_(error) {}

  bool Read(std::vector<std::vector<double>>* rows) {
    std::string text, line;
    if (!ReadText(path_, &text, error_)) return false;
    std::istringstream lines(text);
    while (std::getline(lines, line)) {
      ++number_;
      std::vector<double> row;
      if (!Parse(line, &row)) return false;
      if (timed_ && !rows->empty() && row[0] < rows->back()[0]) {
        return Fail("the time is before that of the line above");
      }
      rows->push_back(std::move(row));
    }
    number_ = 0;
    return !rows->empty() || Fail("the file is empty");
  }

  // About row i, as read.
  bool FailAt(size_t i, const std::string& what) {
    number_ = static_cast<int>(i) + 1;
    return Fail(what);
  }

 private:
  bool Parse(const std::string& line, std::vector<double>* row) {
    const char* at = line.c_str();
    for (const std::string& column : columns_) {
      while (*at == ' ' || *at == '\t') ++at;
      if (*at == '\0' || *at == '\r') return Fail("the line ends where " + column + " should be");
      char* end = nullptr;
      const double value = std::strtod(at, &end);
      if (end == at || (*end != '\0' && *end != ' ' && *end != '\t' && *end != '\r') ||
          !std::isfinite(value)) {
        return Fail(column + " is not a finite number");
      }
      row->push_back(value);
      at = end;
    }
    while (*at == ' ' || *at == '\t' || *at == '\r') ++at;
    return *at == '\0' || Fail("something follows " + columns_.back());
  }

  bool Fail(const std::string& what) {
    *error_ = path_ + (number_ > 0 ? ":" + std::to_string(number_) : "") + ": " + what;
    return false;
  }

  std::string path_;
  std::vector<std::string> columns_;
  bool timed_;
  std::string* error_;
  int number_ = 0;
};

}  // namespace

bool ReadRangeSlam(const std::string& prefix, RangeSlam* data, std::string* error) {
  *data = RangeSlam();
  std::vector<std::vector<double>> rows;
  Rows beacons(prefix + "_TL.txt", {"the beacon", "x", "y"}, false, error);
  if (!beacons.Read(&rows)) return false;
  std::map<double, int> index;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i][0] != std::floor(rows[i][0])) {
      return beacons.FailAt(i, "the beacon is not a whole number");
    }
    if (!index.emplace(rows[i][0], static_cast<int>(i)).second) {
      return beacons.FailAt(i, "the beacon was there already");
    }
    data->beacons.push_back({static_cast<int>(rows[i][0]), rows[i][1], rows[i][2]});
  }
  rows.clear();
  Rows odometry(prefix + "_DR.txt", {"the time", "the distance", "the turn"}, true, error);
  if (!odometry.Read(&rows)) return false;
  for (const auto& r : rows) data->odometry.push_back({r[0], r[1], r[2]});
  rows.clear();
  Rows truth(prefix + "_GT.txt", {"the time", "x", "y", "the heading"}, true, error);
  if (!truth.Read(&rows)) return false;
  for (const auto& r : rows) data->truth.push_back({r[0], r[1], r[2], r[3]});
  rows.clear();
  // Recordings are known whose ranges were written stretch after stretch, not in order.
  Rows ranges(
      prefix + "_TD.txt", {"the time", "the sender", "the beacon", "the range"}, false, error);
  if (!ranges.Read(&rows)) return false;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto beacon = index.find(rows[i][2]);
    if (beacon == index.end())
      return ranges.FailAt(i, "the beacon is not in " + prefix + "_TL.txt");
    if (!(rows[i][3] >= 0.0)) return ranges.FailAt(i, "the range is negative");
    data->ranges.push_back({rows[i][0], beacon->second, rows[i][3]});
  }
  std::stable_sort(data->ranges.begin(), data->ranges.end(), [](const auto& a, const auto& b) {
    return a.time < b.time;
  });
  return true;
}

RangeSlam SimulateRangeSlam(double seconds, const RangeSlamNoise& noise, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> gauss;
  std::uniform_real_distribution<double> uniform;
  RangeSlam data;
  data.beacons = {{0, -30.0, -25.0}, {1, 32.0, -28.0}, {2, 28.0, 30.0}, {3, -27.0, 26.0}};
  constexpr double kStep = 0.1, kSpeed = 1.5;
  RangeSlam::Pose pose{0.0, -10.0, 0.0, 0.4};
  data.truth.push_back(pose);
  const int steps = static_cast<int>(seconds / kStep);
  for (int k = 1; k <= steps; ++k) {
    // Wide turns to and fro, and back towards the middle from far outside.
    const double home = std::atan2(-pose.y, -pose.x);
    const double off = std::remainder(home - pose.heading, 2.0 * M_PI);
    const double far = std::hypot(pose.x, pose.y) > 20.0 ? 0.25 * off : 0.0;
    const double turn = kStep * (far + 0.25 * std::sin(0.11 * k * kStep) + 0.1);
    const double slip = noise.forward * gauss(random);
    pose.x += kSpeed * kStep * std::cos(pose.heading + 0.5 * turn) - slip * std::sin(pose.heading);
    pose.y += kSpeed * kStep * std::sin(pose.heading + 0.5 * turn) + slip * std::cos(pose.heading);
    pose.heading += turn;
    pose.time = k * kStep;
    data.truth.push_back(pose);
    data.odometry.push_back({pose.time,
                             kSpeed * kStep + noise.forward * gauss(random),
                             turn + noise.heading * gauss(random)});
    if (k % 5 != 0 && k % 5 != 3) continue;
    for (const int b : {(k / 5) % 4, (k / 5 + 2) % 4}) {
      const RangeSlam::Beacon& beacon = data.beacons[b];
      double range = std::hypot(pose.x - beacon.x, pose.y - beacon.y) + noise.bias +
                     noise.range * gauss(random);
      if (uniform(random) < noise.outlier_share) range += 20.0 * uniform(random);
      data.ranges.push_back({pose.time, b, std::max(range, 0.0)});
    }
  }
  return data;
}

RangeSlam Cut(const RangeSlam& data, double begin, double end) {
  const double first = data.ranges.front().time;
  const double span = data.ranges.back().time - first;
  RangeSlam cut = data;
  cut.ranges.clear();
  for (const RangeSlam::Range& r : data.ranges) {
    const double share = (r.time - first) / span;
    if (share >= begin && (share < end || end >= 1.0)) cut.ranges.push_back(r);
  }
  return cut;
}

RangeSlam::Pose TruthAt(const RangeSlam& data, double time) {
  const auto after = std::lower_bound(
      data.truth.begin(), data.truth.end(), time, [](const RangeSlam::Pose& p, double t) {
        return p.time < t;
      });
  if (after == data.truth.begin()) return data.truth.front();
  if (after == data.truth.end()) return data.truth.back();
  const RangeSlam::Pose &a = *(after - 1), &b = *after;
  const double s = (time - a.time) / (b.time - a.time);
  return {time,
          a.x + s * (b.x - a.x),
          a.y + s * (b.y - a.y),
          a.heading + s * std::remainder(b.heading - a.heading, 2.0 * M_PI)};
}

Motion Integrate(const RangeSlam& data, double begin, double end) {
  Motion motion{0.0, 0.0, 0.0};
  auto entry = std::upper_bound(
      data.odometry.begin(), data.odometry.end(), begin, [](double t, const auto& o) {
        return t < o.time;
      });
  for (; entry != data.odometry.end(); ++entry) {
    const double from = entry == data.odometry.begin() ? begin : (entry - 1)->time;
    if (from >= end) break;
    const double length = entry->time - from;
    const double share =
        length > 0.0 ? (std::min(end, entry->time) - std::max(begin, from)) / length : 1.0;
    const double distance = share * entry->distance, turn = share * entry->turn;
    motion.x += distance * std::cos(motion.turn + 0.5 * turn);
    motion.y += distance * std::sin(motion.turn + 0.5 * turn);
    motion.turn += turn;
  }
  return motion;
}

}  // namespace examples
