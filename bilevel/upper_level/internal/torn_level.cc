#include "bilevel/upper_level/internal/torn_level.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace bilevel {
namespace {

// Of x's entries, at first; and of y's, in deviations 1 / sqrt(H_ii), which move no residual by
// more than this.
constexpr double kStep = 1e-3;
// x has no scale of its own: steps are taken so much shorter, so often, until two agree to this
// share of the derivative; the best two are to agree to that.
constexpr double kShorter = 0.25, kAgree = 1e-9, kMustAgree = 1e-4;
constexpr int kMostLevels = 14;
// Less than this of y's own size would be lost in rounding.
constexpr double kLeastStep = 1e-9;

}  // namespace

TornLevel::TornLevel(const LevelFunction& g) : g_(g) {
  Tear();
  Paint();
}

void TornLevel::Tear() {
  size_t size = 0;
  for (const LevelFunction::Argument& a : g_.arguments()) {
    if (a.kind == LevelFunction::Argument::kY) size += a.size;
  }
  memory_.resize(size);
  std::vector<std::vector<double*>> arguments;
  double* next = memory_.data();
  for (const LevelFunction::Residual& r : g_.residuals()) {
    Part part;
    part.offset = own_y_.tangent_size();
    arguments.emplace_back();
    for (int k = r.first; k < r.first + r.num_arguments + r.num_thetas; ++k) {
      const LevelFunction::Argument& a = g_.arguments()[k];
      double* user = const_cast<double*>(a.constant);
      if (a.kind == LevelFunction::Argument::kX) {
        const Space::Block& block = g_.x().blocks()[a.block];
        user = block.user;
        for (int i = 0; i < block.size; ++i) part.x_coordinates.push_back(block.offset + i);
      } else if (a.kind == LevelFunction::Argument::kY) {
        const Space::Block& block = g_.y().blocks()[a.block];
        user = next;
        next += block.size;
        own_y_.Add(user, block.size, block.manifold, block.name);
        part.y_blocks.push_back(a.block);
        for (int i = 0; i < block.tangent_size; ++i) {
          part.coordinates.push_back(block.tangent_offset + i);
        }
      }
      if (k < r.first + r.num_arguments) arguments.back().push_back(user);
    }
    std::vector<int>& in_x = part.x_coordinates;  // A loss's may be the cost function's too.
    std::sort(in_x.begin(), in_x.end());
    in_x.erase(std::unique(in_x.begin(), in_x.end()), in_x.end());
    most_coordinates_ = std::max(most_coordinates_, static_cast<int>(part.coordinates.size()));
    parts_.push_back(std::move(part));
  }
  torn_ = std::make_unique<LevelFunction>(&g_.x(), &own_y_, g_.name());
  for (size_t r = 0; r < parts_.size(); ++r) {
    torn_->AddResidual(g_.residuals()[r].cost, g_.residuals()[r].loss, arguments[r]);
  }
  torn_->Finish();
  evaluator_ = std::make_unique<LevelEvaluator>(torn_.get(), nullptr);
  yy_ = torn_->yy_pattern();
  weights_.resize(yy_.nonZeros());
  gradient_.resize(own_y_.tangent_size());
}

// Greedily, coordinate after coordinate.
void TornLevel::Paint() {
  std::vector<std::vector<int>> parts_of(g_.x().size());
  for (size_t p = 0; p < parts_.size(); ++p) {
    for (const int i : parts_[p].x_coordinates) parts_of[i].push_back(static_cast<int>(p));
  }
  colour_.assign(g_.x().size(), -1);
  std::vector<int> taken_by;  // The last coordinate that could not have each colour.
  for (size_t i = 0; i < colour_.size(); ++i) {
    if (parts_of[i].empty()) continue;
    for (const int p : parts_of[i]) {
      for (const int j : parts_[p].x_coordinates) {
        if (colour_[j] >= 0) taken_by[colour_[j]] = static_cast<int>(i);
      }
    }
    const auto free = std::find_if(
        taken_by.begin(), taken_by.end(), [&](int j) { return j != static_cast<int>(i); });
    colour_[i] = static_cast<int>(free - taken_by.begin());
    if (free == taken_by.end()) taken_by.push_back(-1);
  }
  num_colours_ = static_cast<int>(taken_by.size());
}

// 1/2 S by the entries of the lower triangles of all H_b.
void TornLevel::Weigh(const SelectedInverse& s) {
  const auto& blocks = g_.y().blocks();
  for (const Part& part : parts_) {
    int column = part.offset;
    for (size_t q = 0; q < part.y_blocks.size(); ++q) {
      const Space::Block& c = blocks[part.y_blocks[q]];
      int row = column;
      for (size_t p = q; p < part.y_blocks.size(); ++p) {
        const Space::Block& r = blocks[part.y_blocks[p]];
        s.GetBlock(r.tangent_offset, r.tangent_size, c.tangent_offset, c.tangent_size, &block_);
        for (int j = 0; j < c.tangent_size; ++j) {
          // A column of the lower triangle begins at its diagonal.
          double* const to = &weights_[yy_.outerIndexPtr()[column + j]] - (column + j);
          for (int i = p == q ? j : 0; i < r.tangent_size; ++i) {
            to[row + i] = row + i == column + j ? 0.5 * block_(i, j) : block_(i, j);
          }
        }
        row += r.tangent_size;
      }
      column += c.tangent_size;
    }
  }
}

double TornLevel::Sum(const Part& part) const {
  const int first = yy_.outerIndexPtr()[part.offset];
  const int end = yy_.outerIndexPtr()[part.offset + static_cast<int>(part.coordinates.size())];
  return weights_.segment(first, end - first)
      .dot(Eigen::Map<const Vector>(yy_.valuePtr() + first, end - first));
}

bool TornLevel::Evaluate(const Vector& x, const Vector& own_y) {
  if (evaluator_->Hessian(
          x.data(), own_y.data(), HessianKind::kExact, nullptr, gradient_.data(), &yy_, nullptr)) {
    return true;
  }
  error_ = evaluator_->error();
  return false;
}

// By residual blocks: their sums are far larger.
void TornLevel::AddDifferences(const DifferencePoint& point) {
  for (size_t p = 0; p < parts_.size(); ++p) {
    differences_[p] += point.Weight(1.0) * Sum(parts_[p]);
  }
}

// By steps of that share of the first ones, in the coordinates of a colour.
bool TornLevel::MeasureX(const Vector& x, int colour, double share, Vector* gx) {
  const auto step = [&](int i) { return share * kStep * std::max(1.0, std::abs(x[i])); };
  moved_.resize(x.size());
  differences_.setZero(parts_.size());
  for (const DifferencePoint& point : kFourthOrder) {
    for (int i = 0; i < x.size(); ++i) {
      moved_[i] = x[i] + (colour_[i] == colour ? point.at * step(i) : 0.0);
    }
    if (!Evaluate(moved_, at_)) return false;
    AddDifferences(point);
  }
  gx->setZero(x.size());
  for (size_t p = 0; p < parts_.size(); ++p) {
    for (const int i : parts_[p].x_coordinates) {
      if (colour_[i] == colour) (*gx)[i] += differences_[p] / step(i);
    }
  }
  return true;
}

bool TornLevel::MeasureX(const Vector& x, Vector* gx) {
  const double infinity = std::numeric_limits<double>::infinity();
  gx->setZero(x.size());
  Vector before, here, off = Vector::Constant(x.size(), infinity);
  for (int colour = 0; colour < num_colours_; ++colour) {
    before.resize(0);
    double share = 1.0;
    bool agree = false;
    for (int level = 0; level < kMostLevels && !agree; ++level, share *= kShorter) {
      // A step may lead to where g is not defined.
      if (!MeasureX(x, colour, share, &here)) {
        before.resize(0);
        continue;
      }
      agree = before.size() > 0;
      for (int i = 0; i < x.size() && before.size() > 0; ++i) {
        if (colour_[i] != colour) continue;
        const double error = std::abs(here[i] - before[i]);
        // Where they agree the longer step has less rounding.
        if (error < off[i]) (*gx)[i] = error <= kAgree * std::abs(here[i]) ? before[i] : here[i];
        off[i] = std::min(off[i], error);
        agree = agree && off[i] <= kAgree * std::abs((*gx)[i]);
      }
      before = here;
    }
  }
  const double largest = gx->size() > 0 ? gx->cwiseAbs().maxCoeff() : 0.0;
  for (int i = 0; i < x.size(); ++i) {
    if (colour_[i] < 0 || off[i] <= kMustAgree * std::max(std::abs((*gx)[i]), kAgree * largest)) {
      continue;
    }
    if (std::isfinite(off[i]) && off[i] <= kAgree) continue;  // Of a log-determinant: nothing.
    if (error_.empty()) error_ = "differences of the log-determinant do not agree on a derivative";
    return false;
  }
  return true;
}

bool TornLevel::MeasureY(const Vector& x, const Vector& y, const Vector& diagonal, Vector* gy) {
  gy->setZero(g_.y().tangent_size());
  steps_.resize(g_.y().tangent_size());
  for (const Space::Block& block : g_.y().blocks()) {
    const double least = kLeastStep * y.segment(block.offset, block.size).cwiseAbs().maxCoeff();
    for (int i = block.tangent_offset; i < block.tangent_offset + block.tangent_size; ++i) {
      steps_[i] =
          std::max(least, kStep / std::sqrt(diagonal[i] == 0.0 ? 1.0 : std::abs(diagonal[i])));
    }
  }
  motion_.resize(own_y_.tangent_size());
  moved_.resize(own_y_.size());
  for (int k = 0; k < most_coordinates_; ++k) {
    differences_.setZero(parts_.size());
    for (const DifferencePoint& point : kFourthOrder) {
      motion_.setZero();
      for (const Part& part : parts_) {
        if (k >= static_cast<int>(part.coordinates.size())) continue;
        motion_[part.offset + k] = point.at * steps_[part.coordinates[k]];
      }
      if (!own_y_.Plus(at_.data(), motion_.data(), moved_.data())) {
        error_ = "a manifold of y could not be moved along";
        return false;
      }
      if (!Evaluate(x, moved_)) return false;
      AddDifferences(point);
    }
    for (size_t p = 0; p < parts_.size(); ++p) {
      if (k >= static_cast<int>(parts_[p].coordinates.size())) continue;
      const int i = parts_[p].coordinates[k];
      (*gy)[i] += differences_[p] / steps_[i];
    }
  }
  return true;
}

bool TornLevel::Gradient(const Vector& x,
                         const Vector& y,
                         const SelectedInverse& s,
                         const Vector& diagonal,
                         Vector* gx,
                         Vector* gy) {
  at_.resize(own_y_.size());
  int next = 0;
  for (const Part& part : parts_) {
    for (const int b : part.y_blocks) {
      const Space::Block& block = g_.y().blocks()[b];
      at_.segment(next, block.size) = y.segment(block.offset, block.size);
      next += block.size;
    }
  }
  Weigh(s);
  return MeasureX(x, gx) && MeasureY(x, y, diagonal, gy);
}

}  // namespace bilevel
