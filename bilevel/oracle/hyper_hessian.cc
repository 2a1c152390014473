#include "bilevel/oracle/hyper_hessian.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/oracle/internal/frame_transport.h"
#include "bilevel/oracle/internal/richardson.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

// The first step moves no coordinate by more than this, relative to 1 + a share of its size: far
// from 0, where coordinates of maps are, phi bends within a unit all the same.
constexpr double kFirstStep = 4e-3, kShareOfSize = 1e-3;
// At a kink the slopes of both sides differ, and do so at half the step: by this share of a size
// and by so much of what it was before.
constexpr double kBreak = 1e-2, kStays = 0.7;
// Steps are halved at most so often, to come nearer than a kink; and no longer where so many have
// gained nothing, if the error is no larger than noise may be, relative to the largest entry.
constexpr int kMostLevels = 16, kMostInVain = 3;
constexpr double kNoise = 1e-3;
// Where an evaluation fails a step away, it is tried so much nearer, so often.
constexpr double kNearer = 1.0 / 16.0;
constexpr int kMostApproaches = 4;
// Shares of the largest entry, or of the parts of D psi, that are not rounding.
constexpr double kVisible = 1e-6, kVisibleInParts = 1e-10;

// The longest coordinate of a tangent vector, relative to 1 + that share of the point's.
double RelativeLength(const Point& point, const Vector& direction) {
  double longest = 0.0;
  for (const Space::Block& block : point.space().blocks()) {
    if (block.tangent_size == 0) continue;
    const auto own = direction.segment(block.tangent_offset, block.tangent_size).array();
    const auto values = point.value().segment(block.offset, block.size).array();
    longest = std::max(longest,
                       block.manifold
                           ? own.matrix().norm() / (1.0 + kShareOfSize * values.matrix().norm())
                           : (own.abs() / (1.0 + kShareOfSize * values.abs())).maxCoeff());
  }
  return longest;
}

// How many times the direction leads from a point to its bounds.
double Room(const Point& point, const Vector& direction, double side) {
  const Space& space = point.space();
  double room = kInfinity;
  for (int j = 0; space.has_bounds() && j < point.dim(); ++j) {
    const int i = space.AmbientIndex(j);
    const double slope = side * direction[j];
    if (i < 0 || slope == 0.0) continue;
    const double bound = slope > 0.0 ? space.UpperBound(j) : space.LowerBound(j);
    room = std::min(room, std::max(0.0, (bound - point.value()[i]) / slope));
  }
  return room;
}

}  // namespace

class HyperHessian::Implementation {
 public:
  Implementation(Oracle* oracle, const Options& options)
      : oracle_(*oracle),
        exchange_(oracle->program().exchange),
        options_(options),
        moved_x_(&oracle->program().x),
        moved_y_(&oracle->program().y),
        x_frames_(&oracle->program().x),
        y_frames_(&oracle->program().y) {}

  bool Evaluate(const Point& x, const Point& y, const std::vector<char>& held, Matrix* hessian) {
    x_ = &x;
    y_ = &y;
    message.clear();
    relative_error = error_ = along_free_ = 0.0;
    const int m = x.dim();
    hessian->setZero(m, m);
    if (m == 0) return true;
    if (!SetBase()) return false;
    for (int a = 0; a < m; ++a) {
      if (!held.empty() && held[a]) continue;
      if (exchange_.Any(oracle_.program().IsLate())) return Fail(Program::kTimeIsOver);
      if (!DifferentiateAlong(a) || !AddCurvature(a)) return false;
      hessian->col(a) = column_.head(m);
    }
    for (int b = 0; b < m; ++b) {
      if (!held.empty() && held[b]) hessian->row(b).setZero();
    }
    return Judge(hessian);
  }

  Matrix dy_dx;
  double relative_error = 0.0;
  std::string message;

 private:
  bool Fail(const std::string& what) {
    message = what;
    return false;
  }

  // Y, z, and D psi at the point itself.
  bool SetBase() {
    LowerSolver& lower = oracle_.lower();
    const std::string why = lower.WhyNoSecondDerivative();
    if (!why.empty()) return Fail(why);
    const std::string weak = lower.Report().weakly_active;
    if (!weak.empty()) return Fail("phi has a kink: bounds of y are only weakly active, " + weak);
    oracle_.f.Gradient(*x_, *y_, &fx_, &fy_);
    if (!oracle_.ok()) return Fail(oracle_.error());
    if (!lower.AdjointVector(fy_, &z_)) return Fail(lower.message());
    dy_dx = lower.dy_dx();
    if (!exchange_.All(dy_dx.allFinite())) return Fail(lower.message());
    if (!lower.AnyFreeDirection(&free_)) free_.setZero(y_->dim());
    columns_.resize(y_->dim(), x_->dim() + 1);
    columns_ << dy_dx, free_;
    if (!x_frames_.SetBase(*x_)) return Fail(x_frames_.message());
    const std::string no_frames = Complaint(y_frames_.SetBase(*y_));
    if (!no_frames.empty()) return Fail(no_frames);
    step_.setZero(x_->dim());
    if (!GradientOfPsi(0, 0.0, &base_)) return Fail(oracle_.error());
    SetSteps();
    return true;
  }

  // Of each direction, and what the parts of D psi are along it.
  void SetSteps() {
    const int m = x_->dim();
    Vector lengths(m + 1);
    for (int a = 0; a <= m; ++a) lengths[a] = RelativeLength(*y_, columns_.col(a));
    lengths = exchange_.ByRank("measuring y", nullptr, lengths).rowwise().maxCoeff();
    const Vector parts_in_y =
        oracle_.program().PullBack(dy_dx.cwiseAbs(), fy_.cwiseAbs() + hz_.cwiseAbs());
    steps_.setOnes(m + 1);
    parts_ = 0.0;
    for (int a = 0; a < m; ++a) {
      step_[a] = 1.0;
      steps_[a] = kFirstStep / std::max(RelativeLength(*x_, step_), lengths[a]);
      step_[a] = 0.0;
      const double part = std::abs(fx_[a]) + std::abs(jz_[a]) + parts_in_y[a];
      parts_ = std::max(parts_, steps_[a] * part);
    }
    if (lengths[m] > 0.0) steps_[m] = kFirstStep / lengths[m];
  }

  // Why a manifold of y, on any rank, has no frame; empty where all have.
  std::string Complaint(bool have_frames) const {
    return exchange_.Complaint("at the manifolds of y", have_frames ? "" : y_frames_.message());
  }

  // column_ <- the derivative, along the a-th of the columns of [I; Y], of D psi along all of them
  // and along a free direction.
  bool DifferentiateAlong(int a) {
    bool is_central;
    double first;
    if (!ChooseStep(a, &is_central, &first)) return false;
    for (int approach = 0;; ++approach, first *= kNearer) {
      if (Extrapolate(a, is_central, first)) break;
      if (approach == kMostApproaches) return Fail(oracle_.error());
      oracle_.Clear();
    }
    column_ = richardson_.limit();
    error_ = std::max(error_, steps_[a] * std::max(richardson_.error(), break_));
    const int m = x_->dim();
    along_free_ = std::max(along_free_, steps_[a] * steps_[m] * std::abs(column_[m]));
    return true;
  }

  // Within the bounds of x and y: to both sides, or to the one where there is more room.
  bool ChooseStep(int a, bool* is_central, double* first) {
    double room[2];
    for (const int i : {0, 1}) {
      const double side = i == 0 ? 1.0 : -1.0;
      step_[a] = 1.0;
      const double room_in_y = -exchange_.Largest(-Room(*y_, dy_dx.col(a), side));
      room[i] = std::min(Room(*x_, step_, side), room_in_y);
      step_[a] = 0.0;
    }
    const double both = std::min(room[0], room[1]), one = std::max(room[0], room[1]);
    *is_central = both >= 0.25 * steps_[a];
    *first = std::min(steps_[a], *is_central ? both : one);
    if (!*is_central && room[1] > room[0]) *first = -*first;
    return *first != 0.0 || Fail(x_->space().BlockOf(a).name +
                                 " cannot move: bounds, of it or of y, are in the way of both "
                                 "sides, and phi has no second derivative there");
  }

  // False: an evaluation failed, and the oracle has latched.
  bool Extrapolate(int a, bool is_central, double step) {
    richardson_.Begin(is_central, steps_);
    break_ = 0.0;
    double bend = 0.0;
    for (int level = 0; level < kMostLevels; ++level, step *= 0.5) {
      if (!GradientOfPsi(a, step, &there_)) return false;
      if (is_central) {
        if (!GradientOfPsi(a, -step, &opposite_)) return false;
        richardson_.Add((there_ - opposite_) / (2.0 * step));
        const double before = std::exchange(
            bend, richardson_.Size((there_ + opposite_ - 2.0 * base_) / std::abs(step)));
        const bool stays =
            level > 0 && bend > kStays * before && bend > kBreak * richardson_.size();
        break_ = stays ? bend : 0.0;
      } else {
        richardson_.Add((there_ - base_) / step);
      }
      const double size = richardson_.size(), error = richardson_.error();
      const double rounding = 4.0 * kEpsilon * parts_ / std::abs(step);
      if (error <= options_.tolerance * size + rounding) break;
      if (error <= kNoise * size && richardson_.num_in_vain() >= kMostInVain) break;
    }
    return true;
  }

  // D psi with z held, `step` along the a-th column of [I; Y], along all of these columns and the
  // free direction. z, the columns and D psi go from frame to frame by projection: which way does
  // not count, since psi_y and the change of g_y along the columns are 0 at the point.
  bool GradientOfPsi(int a, double step, Vector* along) {
    moved_x_ = *x_;
    moved_y_ = *y_;
    step_[a] = step;
    const bool moved =
        moved_x_.Move(step_) && oracle_.program().MoveY(step * dy_dx.col(a), &moved_y_);
    step_[a] = 0.0;
    if (!moved) oracle_.Fail("x or y cannot move: a manifold failed");
    if (moved && !x_frames_.SetTarget(moved_x_)) oracle_.Fail(x_frames_.message());
    if (oracle_.ok()) {
      const std::string no_frames = Complaint(y_frames_.SetTarget(moved_y_));
      if (!no_frames.empty()) oracle_.Fail(no_frames);
    }
    moved_z_ = z_;
    y_frames_.ToTarget(&moved_z_);
    oracle_.f.Gradient(moved_x_, moved_y_, &fx_, &fy_);
    oracle_.g.HessianProduct(moved_x_, moved_y_, moved_z_, &hz_, &jz_);
    if (!oracle_.ok()) return false;
    psi_x_ = fx_ - jz_;
    psi_y_ = fy_ - hz_;
    x_frames_.ToBase(&psi_x_);
    y_frames_.ToBase(&psi_y_);
    *along = oracle_.program().PullBack(columns_, psi_y_);
    along->head(x_->dim()) += psi_x_;
    return true;
  }

  // Of the retraction of x, where its gradient is not 0.
  bool AddCurvature(int a) {
    const Space& space = x_->space();
    const Space::Block& block = space.BlockOf(a);
    const int b = static_cast<int>(&block - space.blocks().data());
    if (space.curvature(b).is_zero()) return true;
    const Vector ambient = x_frames_.AmbientAtBase(b, base_);
    Vector direction = Vector::Zero(block.tangent_size), product = direction;
    direction[a - block.tangent_offset] = 1.0;
    const auto who = [&] { return "the manifold of " + block.name; };
    const auto add = [&] {
      return space.curvature(b).AddProduct(
          x_->value().data() + block.offset, ambient.data(), direction.data(), product.data());
    };
    if (!NameThrown(who, add)) return Fail(who() + " could not be differentiated twice");
    column_.segment(block.tangent_offset, block.tangent_size) += product;
    return true;
  }

  // Symmetrises it, and says whether it is what it should be.
  bool Judge(Matrix* hessian) {
    const auto steps = steps_.head(x_->dim()).asDiagonal();
    const double largest = (steps * *hessian * steps).cwiseAbs().maxCoeff();
    const Matrix skew = 0.5 * (*hessian - hessian->transpose());
    *hessian -= skew;
    error_ = std::max(error_, (steps * skew * steps).cwiseAbs().maxCoeff());
    const double rounding = kVisibleInParts * parts_;
    if (!hessian->allFinite()) return Fail("the second derivative of phi is not finite");
    relative_error = error_ > 0.0 ? error_ / std::max(largest, rounding) : 0.0;
    if (along_free_ > kVisible * largest + rounding) {
      return Fail(
          "the second derivative of f depends on directions of y that the lower level leaves free");
    }
    if (!(error_ <= rounding) && error_ > options_.largest_error * largest) {
      return Fail("differences of phi's exact gradients do not agree on a second derivative (to " +
                  Scientific(relative_error) + "): there is a kink beside x, or noise");
    }
    return true;
  }

  Oracle& oracle_;
  const Exchange& exchange_;
  const Options options_;
  const Point* x_ = nullptr;
  const Point* y_ = nullptr;
  Point moved_x_, moved_y_;
  FrameTransport x_frames_, y_frames_;
  Vector z_, moved_z_, free_, step_;
  Matrix columns_;                            // dy_dx, and behind it the free direction.
  Vector fx_, fy_, jz_, hz_, psi_x_, psi_y_;  // Where it was evaluated last.
  Vector base_, there_, opposite_, column_;
  Vector steps_;        // The first ones.
  double parts_ = 0.0;  // The largest part of D psi along a first step.
  Richardson richardson_;
  double break_ = 0.0;  // By how much the slopes of both sides differ at the last column.
  // In first steps: the error, and how f's derivative along a free direction changes.
  double error_ = 0.0, along_free_ = 0.0;
};

HyperHessian::HyperHessian(Oracle* oracle, const Options& options)
    : implementation_(std::make_unique<Implementation>(oracle, options)) {}

HyperHessian::~HyperHessian() = default;

bool HyperHessian::Evaluate(const Point& x,
                            const Point& y,
                            const std::vector<char>& held,
                            Matrix* hessian) {
  return implementation_->Evaluate(x, y, held, hessian);
}

const Matrix& HyperHessian::dy_dx() const { return implementation_->dy_dx; }
double HyperHessian::relative_error() const { return implementation_->relative_error; }
const std::string& HyperHessian::message() const { return implementation_->message; }

}  // namespace bilevel
