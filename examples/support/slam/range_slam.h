#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_RANGE_SLAM_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_RANGE_SLAM_H_

#include <string>
#include <vector>

namespace examples {

/// A wheeled robot that measures ranges to radio beacons, as CMU's robot mower of the Plaza
/// recordings did. Seconds, metres, radians.
struct RangeSlam {
  struct Odometry {  ///< What wheels and gyroscope made of the time since the last entry.
    double time, distance, turn;
  };
  struct Range {
    double time;
    int beacon;  ///< Index into beacons.
    double range;
  };
  struct Pose {
    double time, x, y, heading;
  };
  struct Beacon {
    int id;
    double x, y;
  };
  std::vector<Odometry> odometry;
  std::vector<Range> ranges;
  std::vector<Pose> truth;
  std::vector<Beacon> beacons;
  std::string notes;  ///< What looks odd in the files, a sentence a line, to be printed.
};

/// Reads prefix_DR.txt (time, distance, turn), prefix_TD.txt (time, sender, antenna's beacon,
/// range), prefix_GT.txt (time, x, y, heading) and prefix_TL.txt (beacon, x, y): numbers between
/// blanks, one entry a line, times not decreasing but for the ranges', which are sorted; each file
/// may be packed (.txt.gz, .txt.bz2, .txt.xz). False: *error says what is wrong, with file and
/// line.
bool ReadRangeSlam(const std::string& prefix, RangeSlam* data, std::string* error);

/// A recording of the same kind with known Gaussian noise: loops in a field of 60 m with four
/// beacons, ten odometry entries and four ranges a second.
struct RangeSlamNoise {
  double forward = 0.004;  ///< Of an odometry entry's distance, and sideways.
  double heading = 0.002;  ///< Of an odometry entry's turn.
  double range = 0.3;
  double bias = 0.5;           ///< Added to every range.
  double outlier_share = 0.0;  ///< Of ranges that are up to 20 m too long.
};
RangeSlam SimulateRangeSlam(double seconds, const RangeSlamNoise& noise, unsigned seed);

/// The part of a recording within [begin, end), as shares of its ranges' time.
RangeSlam Cut(const RangeSlam& data, double begin, double end);

/// The true pose at a time, interpolated; the nearest one outside.
RangeSlam::Pose TruthAt(const RangeSlam& data, double time);

/// Odometry of a time interval: the motion in the frame of its beginning.
struct PlanarMotion {
  double x, y, turn;
};
/// Entries are shared out between intervals in proportion to time, and composed as arcs.
PlanarMotion Integrate(const RangeSlam& data, double begin, double end);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_RANGE_SLAM_H_
