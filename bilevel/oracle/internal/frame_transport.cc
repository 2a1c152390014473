#include "bilevel/oracle/internal/frame_transport.h"

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/internal/thrown.h"

namespace bilevel {
namespace {

// (P'P)^-1 b. For Ceres' own manifolds P'P is diagonal.
Matrix SolveGram(const Matrix& p, const Matrix& b) {
  const Matrix gram = p.transpose() * p;
  const bool is_diagonal = gram.isDiagonal(1e-15);
  return is_diagonal ? Matrix(gram.diagonal().cwiseInverse().asDiagonal() * b)
                     : SolveSymmetric(gram, b);
}

}  // namespace

FrameTransport::FrameTransport(const Space* space)
    : space_(*space),
      base_(space->blocks().size()),
      target_(space->blocks().size()),
      map_(space->blocks().size()) {}

bool FrameTransport::Differentiate(const Point& point, std::vector<Matrix>* bases) {
  for (size_t b = 0; b < bases->size(); ++b) {
    const Space::Block& block = space_.blocks()[b];
    if (!block.manifold) continue;
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> plus(block.size,
                                                                                block.tangent_size);
    const auto who = [&] { return "the manifold of " + block.name; };
    const auto differentiate = [&] {
      return block.manifold->PlusJacobian(point.value().data() + block.offset, plus.data());
    };
    if (!NameThrown(who, differentiate) || !plus.allFinite()) {
      message_ = who() + " could not be differentiated";
      return false;
    }
    (*bases)[b] = plus;
  }
  return true;
}

bool FrameTransport::SetTarget(const Point& point) {
  if (!Differentiate(point, &target_)) return false;
  for (size_t b = 0; b < map_.size(); ++b) {
    if (target_[b].size() > 0) map_[b] = SolveGram(target_[b], target_[b].transpose() * base_[b]);
  }
  return true;
}

void FrameTransport::ToTarget(Vector* v) const {
  for (size_t b = 0; b < map_.size(); ++b) {
    if (map_[b].size() == 0) continue;
    const Space::Block& block = space_.blocks()[b];
    auto own = v->segment(block.tangent_offset, block.tangent_size);
    own = (map_[b] * own).eval();
  }
}

void FrameTransport::ToBase(Vector* gradient) const {
  for (size_t b = 0; b < map_.size(); ++b) {
    if (map_[b].size() == 0) continue;
    const Space::Block& block = space_.blocks()[b];
    auto own = gradient->segment(block.tangent_offset, block.tangent_size);
    own = (map_[b].transpose() * own).eval();
  }
}

Vector FrameTransport::AmbientAtBase(int block, const Vector& gradient) const {
  const Space::Block& own = space_.blocks()[block];
  return base_[block] *
         SolveGram(base_[block], gradient.segment(own.tangent_offset, own.tangent_size));
}

}  // namespace bilevel
