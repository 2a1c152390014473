#include "examples/support/slam/range_slam.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <random>

#include "examples/support/table.h"
#include "examples/support/text.h"

namespace examples {
namespace {

using Row = std::vector<double>;

// Gives the lines of path, or of path.gz and so on, to `add`; what it does not like it tells the
// reader.
bool ReadRows(const std::string& path,
              const std::vector<std::string>& columns,
              const std::function<bool(const Row&, LineReader*)>& add,
              std::string* error) {
  const auto exists = [&](const char* ending) { return std::ifstream(path + ending).good(); };
  const char* endings[] = {"", ".gz", ".bz2", ".xz"};
  const auto ending = std::find_if(std::begin(endings), std::end(endings), exists);
  if (ending == std::end(endings)) {
    *error = path + " cannot be read, nor with .gz, .bz2 or .xz";
    return false;
  }
  LineReader in;
  if (!in.Open(path + *ending)) {
    *error = in.error();
    return false;
  }
  Row row(columns.size());
  bool ok = in.Next() || in.FailAt(0, "the file is empty");
  for (bool more = ok; ok && more; more = ok && in.Next()) {
    for (size_t i = 0; ok && i < row.size(); ++i) {
      ok = in.Number(static_cast<int>(i), columns[i], &row[i]);
    }
    ok = ok && in.End(static_cast<int>(row.size()), columns.back()) && add(row, &in);
  }
  *error = in.error();
  return ok;
}

// Times that do not decrease.
template <typename Entry>
bool IsLater(double time, const std::vector<Entry>& entries, LineReader* in) {
  return entries.empty() || time >= entries.back().time ||
         in->Fail("the time is before that of the line above");
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

void Question(const std::string& prefix, RangeSlam* data) {
  double turn = 0.0, heading = 0.0;
  for (const auto& o : data->odometry) turn = std::max(turn, std::abs(o.turn));
  for (const auto& p : data->truth) heading = std::max(heading, std::abs(p.heading));
  if (turn > 2.0 * M_PI || heading > 8.0 * M_PI) {
    data->notes += Format("%s: a turn is %.4g, a heading %.4g; are the angles degrees?\n",
                          prefix.c_str(),
                          turn,
                          heading);
  }
  std::vector<double> measured, true_ones;
  for (const auto& range : data->ranges) {
    const RangeSlam::Pose at = TruthAt(*data, range.time);
    const auto& beacon = data->beacons[range.beacon];
    measured.push_back(range.range);
    true_ones.push_back(std::hypot(at.x - beacon.x, at.y - beacon.y));
  }
  const double ratio = Median(measured) / Median(true_ones);
  if (!(ratio > 0.5 && ratio < 2.0)) {
    data->notes +=
        Format("%s: the median range is %.4g times that at the true poses; are all in metres?\n",
               prefix.c_str(),
               ratio);
  }
}

}  // namespace

bool ReadRangeSlam(const std::string& prefix, RangeSlam* data, std::string* error) {
  *data = RangeSlam();
  std::map<double, int> index;
  const auto add_beacon = [&](const Row& r, LineReader* in) {
    if (r[0] != std::floor(r[0]) || std::abs(r[0]) > std::numeric_limits<int>::max()) {
      return in->Fail("the beacon is not a whole number within an int's range");
    }
    if (!index.emplace(r[0], static_cast<int>(index.size())).second) {
      return in->Fail("the beacon was there already");
    }
    data->beacons.push_back({static_cast<int>(r[0]), r[1], r[2]});
    return true;
  };
  const auto add_odometry = [&](const Row& r, LineReader* in) {
    if (!IsLater(r[0], data->odometry, in)) return false;
    data->odometry.push_back({r[0], r[1], r[2]});
    return true;
  };
  const auto add_truth = [&](const Row& r, LineReader* in) {
    if (!IsLater(r[0], data->truth, in)) return false;
    data->truth.push_back({r[0], r[1], r[2], r[3]});
    return true;
  };
  const auto add_range = [&](const Row& r, LineReader* in) {
    const auto beacon = index.find(r[2]);
    if (beacon == index.end()) return in->Fail("the beacon is not in " + prefix + "_TL.txt");
    if (!(r[3] >= 0.0)) return in->Fail("the range is negative");
    data->ranges.push_back({r[0], beacon->second, r[3]});
    return true;
  };
  const bool ok =
      ReadRows(prefix + "_TL.txt", {"the beacon", "x", "y"}, add_beacon, error) &&
      ReadRows(prefix + "_DR.txt", {"the time", "the distance", "the turn"}, add_odometry, error) &&
      ReadRows(prefix + "_GT.txt", {"the time", "x", "y", "the heading"}, add_truth, error) &&
      ReadRows(prefix + "_TD.txt",
               {"the time", "the sender", "the beacon", "the range"},
               add_range,
               error);
  // Recordings are known whose ranges were written stretch after stretch, not in order.
  std::stable_sort(data->ranges.begin(), data->ranges.end(), [](const auto& a, const auto& b) {
    return a.time < b.time;
  });
  if (ok) Question(prefix, data);
  return ok;
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

PlanarMotion Integrate(const RangeSlam& data, double begin, double end) {
  PlanarMotion motion{0.0, 0.0, 0.0};
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
