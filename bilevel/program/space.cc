#include "bilevel/program/space.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "bilevel/base/internal/thrown.h"
#include "bilevel/base/internal/vector_passes.h"
#include "bilevel/base/memory.h"

namespace bilevel {

int Space::Add(double* user, int size, const ceres::Manifold* manifold, std::string name) {
  Block block;
  block.user = user;
  block.size = size;
  block.tangent_size = manifold ? manifold->TangentSize() : size;
  block.offset = size_;
  block.tangent_offset = tangent_size_;
  block.manifold = manifold;
  block.name = std::move(name);
  const int index = static_cast<int>(blocks_.size());
  blocks_.push_back(std::move(block));
  curvatures_.emplace_back(manifold);
  index_[user] = index;
  size_ += size;
  tangent_size_ += blocks_[index].tangent_size;
  lower_.resize(tangent_size_, -std::numeric_limits<double>::infinity());
  upper_.resize(tangent_size_, std::numeric_limits<double>::infinity());
  ambient_index_.resize(tangent_size_, -1);
  if (!manifold) {
    for (int i = 0; i < size; ++i) {
      ambient_index_[blocks_[index].tangent_offset + i] = blocks_[index].offset + i;
    }
  } else if (curvatures_[index].is_zero()) {
    // A flat manifold (a subset): each column of the Plus Jacobian is a unit vector.
    std::vector<double> jacobian(size * blocks_[index].tangent_size);
    if (manifold->PlusJacobian(user, jacobian.data())) {
      for (int j = 0; j < blocks_[index].tangent_size; ++j) {
        for (int i = 0; i < size; ++i) {
          if (jacobian[i * blocks_[index].tangent_size + j] == 1.0) {
            ambient_index_[blocks_[index].tangent_offset + j] = blocks_[index].offset + i;
          }
        }
      }
    }
  }
  return index;
}

void Space::SetBounds(int tangent_coordinate, double lower, double upper) {
  lower_[tangent_coordinate] = lower;
  upper_[tangent_coordinate] = upper;
  has_bounds_ = has_bounds_ || std::isfinite(lower) || std::isfinite(upper);
}

void Space::SetConvexSet(int block, const ConvexSet* set) {
  blocks_[block].set = set;
  has_sets_ = has_sets_ || set;
}

void Space::ProjectBlock(int block, double* p) const {
  const Block& b = blocks_[block];
  if (b.set) b.set->Project(p + b.offset, b.size);
}

int Space::TangentIndex(int block, int coordinate) const {
  const Block& b = blocks_[block];
  const auto begin = ambient_index_.begin() + b.tangent_offset, end = begin + b.tangent_size;
  const auto it = std::lower_bound(begin, end, b.offset + coordinate);  // A subset keeps the order.
  return it != end && *it == b.offset + coordinate ? static_cast<int>(it - ambient_index_.begin())
                                                   : -1;
}

int Space::Find(const double* user) const {
  const auto it = index_.find(user);
  return it == index_.end() ? -1 : it->second;
}

namespace {

std::string NameManifold(const Space::Block& block) { return "the manifold of " + block.name; }

}  // namespace

bool Space::PlusBlock(int b, const double* p, const double* d, double* q) const {
  const Block& block = blocks_[b];
  const double* from = p + block.offset;
  const double* delta = d + block.tangent_offset;
  double* to = q + block.offset;
  if (block.manifold) {
    const auto plus = [&] { return block.manifold->Plus(from, delta, to); };
    if (!NameThrown([&] { return NameManifold(block); }, plus)) return false;
  } else {
    for (int i = 0; i < block.size; ++i) to[i] = from[i] + delta[i];
  }
  if (has_bounds_) {
    for (int j = block.tangent_offset; j < block.tangent_offset + block.tangent_size; ++j) {
      if (ambient_index_[j] < 0) continue;
      double& value = q[ambient_index_[j]];
      value = std::min(std::max(value, lower_[j]), upper_[j]);
    }
  }
  return true;
}

bool Space::Plus(const double* p, const double* d, double* q) const {
  for (int b = 0; b < static_cast<int>(blocks_.size()); ++b) {
    if (!PlusBlock(b, p, d, q)) return false;
  }
  return true;
}

bool Space::Minus(const double* q, const double* p, double* d) const {
  for (const Block& block : blocks_) {
    const double *to = q + block.offset, *from = p + block.offset;
    double* delta = d + block.tangent_offset;
    if (block.manifold) {
      const auto minus = [&] { return block.manifold->Minus(to, from, delta); };
      if (!NameThrown([&] { return NameManifold(block); }, minus)) return false;
    } else {
      for (int i = 0; i < block.size; ++i) delta[i] = to[i] - from[i];
    }
  }
  return true;
}

const Space::Block& Space::BlockOf(int tangent_coordinate) const {
  const auto after = std::upper_bound(
      blocks_.begin(), blocks_.end(), tangent_coordinate, [](int coordinate, const Block& block) {
        return coordinate < block.tangent_offset;
      });
  return *std::prev(after);
}

void Space::ReadUser(double* p) const {
  for (const Block& block : blocks_) std::copy_n(block.user, block.size, p + block.offset);
}

void Space::WriteUser(const double* p) const {
  for (const Block& block : blocks_) std::copy_n(p + block.offset, block.size, block.user);
}

Point& Point::operator=(const Point& other) {
  space_ = other.space_;
  value_ = other.value_;
  step_.resize(other.step_.size());
  moved_.resize(other.moved_.size());
  return *this;
}

void SparseVector::SetZero(const Space* space) {
  if (space_ != space) {
    space_ = space;
    values_.setZero(space->tangent_size());
    is_touched_.assign(space->blocks().size(), kNot);
    is_coordinate_.clear();
    blocks_.clear();
    blocks_.reserve(space->blocks().size());
  }
  for (const Range& r : blocks_) {
    std::fill(values_.data() + r.begin, values_.data() + r.end, 0.0);
    if (is_touched_[r.block] == kPartly) {
      std::fill(is_coordinate_.begin() + r.begin, is_coordinate_.begin() + r.end, 0);
    }
  }
  for (const Range& r : blocks_) {
    is_touched_[r.block] = kNot;
  }
  blocks_.clear();
}

void SparseVector::Touch(const Range& range) {
  if (IsWhole(range)) return Touch(range.block);
  if (is_touched_[range.block] == kWhole) return;
  is_touched_[range.block] = kPartly;
  if (is_coordinate_.empty()) is_coordinate_.assign(values_.size(), 0);
  for (int j = range.begin; j < range.end; ++j) {
    if (is_coordinate_[j]) continue;
    is_coordinate_[j] = 1;
    if (!blocks_.empty() && blocks_.back().end == j && blocks_.back().block == range.block) {
      blocks_.back().end = j + 1;
    } else {
      blocks_.push_back({range.block, j, j + 1});
    }
  }
}

// A block's parts, so that it can be listed as a whole.
void SparseVector::Forget(int block) {
  const auto is_part = [&](const Range& r) {
    if (r.block != block) return false;
    std::fill(is_coordinate_.begin() + r.begin, is_coordinate_.begin() + r.end, 0);
    return true;
  };
  blocks_.erase(std::remove_if(blocks_.begin(), blocks_.end(), is_part), blocks_.end());
}

void SparseVector::Add(double scale, const SparseVector& other) {
  for (const Range& r : other.blocks_) Touch(r);
  other.AddTo(scale, &values_);
}

void SparseVector::AddTo(double scale, Vector* v) const {
  for (const Range& r : blocks_) {
    AddScaled(scale, values_.data() + r.begin, r.end - r.begin, v->data() + r.begin);
  }
}

double SparseVector::squaredNorm() const {
  double sum = 0.0;
  for (const Range& r : blocks_) sum += values_.segment(r.begin, r.end - r.begin).squaredNorm();
  return sum;
}

bool Point::Move(double scale, const SparseVector& delta) {
  for (const SparseVector::Range& r : delta.blocks()) {
    const Space::Block& block = space_->blocks()[r.block];
    const int shift = block.offset - block.tangent_offset, size = r.end - r.begin;
    double* const moved = moved_.data() + shift + r.begin;
    if (!block.manifold && !space_->has_bounds()) {
      const double* const from = value_.data() + shift + r.begin;
      if (!Moved(from, scale, delta.data() + r.begin, size, moved)) return false;
      continue;
    }
    for (int j = r.begin; j < r.end; ++j) step_[j] = scale * delta.data()[j];
    if (!delta.IsWhole(r)) {  // Flat.
      for (int j = r.begin; j < r.end; ++j) {
        moved_[j + shift] = std::min(std::max(value_[j + shift] + step_[j], space_->LowerBound(j)),
                                     space_->UpperBound(j));
      }
      if (!AllFinite(moved, size)) return false;
      continue;
    }
    if (!space_->PlusBlock(r.block, value_.data(), step_.data(), moved_.data())) return false;
    if (!AllFinite(moved_.data() + block.offset, block.size)) return false;
  }
  if (delta.blocks().size() == 1 && delta.blocks()[0].end - delta.blocks()[0].begin == dim()) {
    value_.swap(moved_);
    return true;
  }
  for (const SparseVector::Range& r : delta.blocks()) {
    const Space::Block& block = space_->blocks()[r.block];
    if (!delta.IsWhole(r)) {
      const int shift = block.offset - block.tangent_offset;
      std::copy(moved_.data() + r.begin + shift,
                moved_.data() + r.end + shift,
                value_.data() + r.begin + shift);
      continue;
    }
    std::copy_n(moved_.data() + block.offset, block.size, value_.data() + block.offset);
  }
  return true;
}

bool Point::MoveWithin(double scale, const SparseVector& delta) {
  if (!Move(scale, delta)) return false;
  if (!space_->has_sets()) return true;
  for (const SparseVector::Range& r : delta.blocks()) {
    const Space::Block& block = space_->blocks()[r.block];
    space_->ProjectBlock(r.block, value_.data());
    if (!AllFinite(value_.data() + block.offset, block.size)) return false;
  }
  return true;
}

bool Point::ProjectOnSets() {
  if (!space_->has_sets()) return true;
  for (size_t b = 0; b < space_->blocks().size(); ++b) {
    space_->ProjectBlock(static_cast<int>(b), value_.data());
  }
  return AllFinite(value_.data(), static_cast<int>(value_.size()));
}

void Point::Remember(const std::string& name, const Space& space, Memory* memory) {
  bool exists = space_ != nullptr;
  memory->Keep(name + "_exists", &exists);
  // What is recalled may have been of another run's space, which is gone.
  if (memory->recalls()) *this = exists ? Point(&space) : Point();
  if (!exists) return;
  memory->KeepRange(name, value_.data(), value_.size());
}

bool Point::MoveByStep() {
  const std::vector<Space::Block>& blocks = space_->blocks();
  if (!space_->has_bounds() && blocks.size() == 1 && !blocks[0].manifold) {
    if (!Moved(value_.data(), 1.0, step_.data(), dim(), moved_.data())) return false;
  } else if (!space_->Plus(value_.data(), step_.data(), moved_.data()) ||
             !AllFinite(moved_.data(), static_cast<int>(moved_.size()))) {
    return false;
  }
  value_.swap(moved_);
  return true;
}

}  // namespace bilevel
