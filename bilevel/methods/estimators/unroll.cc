#include "bilevel/methods/estimators/unroll.h"

#include <cmath>

#include "bilevel/base/internal/finite_differences.h"

namespace bilevel {
namespace {

// y_{k+1} = y_k plus s. For perturbations e of y_k and c of s, in tangent coordinates,
//     y_{k+1}' = y_{k+1} plus (along e + across c).
// Identity on flat blocks; central differences of Plus and Minus, of fourth order, on others.
// Replaces a (a covector at y_{k+1}) by along' a and writes across' a.
void PullBackThroughStep(const Space& space,
                         const Vector& from,
                         const Vector& to,
                         const Vector& s,
                         Vector* a,
                         Vector* c) {
  *c = *a;
  for (const Space::Block& block : space.blocks()) {
    if (!block.manifold) continue;
    const int n = block.size, t = block.tangent_size;
    const double* y0 = from.data() + block.offset;
    const double* y1 = to.data() + block.offset;
    const Vector own = a->segment(block.tangent_offset, t);
    const Vector step = s.segment(block.tangent_offset, t);
    Vector moved(n), shifted(n), delta(t), difference(t), along(t), across(t);
    constexpr double kStep = 1e-3;
    for (int k = 0; k < t; ++k) {
      along[k] = across[k] = 0.0;
      for (const DifferencePoint& point : kFourthOrder) {
        delta = Vector::Unit(t, k) * (point.at * kStep);
        block.manifold->Plus(y0, delta.data(), moved.data());
        block.manifold->Plus(moved.data(), step.data(), shifted.data());
        block.manifold->Minus(shifted.data(), y1, difference.data());
        along[k] += point.Weight(kStep) * own.dot(difference);
        delta += step;
        block.manifold->Plus(y0, delta.data(), shifted.data());
        block.manifold->Minus(shifted.data(), y1, difference.data());
        across[k] += point.Weight(kStep) * own.dot(difference);
      }
    }
    a->segment(block.tangent_offset, t) = along;
    c->segment(block.tangent_offset, t) = across;
  }
}

// The tangent gradient G(y) is written in the frame at y, which turns as y moves: its derivative
// along e is H e plus what the frame's turning makes of G. Adds the transpose of the latter times
// b:
//     sum_ki G_k b_i d^2 Minus((y plus e) plus d, y)_k / (dd_i de_j),
// by central differences, of fourth order in each.
void AddFrameTerm(
    const Space& space, const Vector& y, const Vector& g, const Vector& b, Vector* a) {
  constexpr double kStep = 5e-3;
  for (const Space::Block& block : space.blocks()) {
    if (!block.manifold) continue;
    const int n = block.size, t = block.tangent_size;
    const double* at = y.data() + block.offset;
    Vector moved(n), shifted(n), d(t), e(t), difference(t);
    for (int j = 0; j < t; ++j) {
      double sum = 0.0;
      for (const DifferencePoint& along_e : kFourthOrder) {
        e = Vector::Unit(t, j) * (along_e.at * kStep);
        block.manifold->Plus(at, e.data(), moved.data());
        for (const DifferencePoint& along_b : kFourthOrder) {
          d = b.segment(block.tangent_offset, t) * (along_b.at * kStep);
          block.manifold->Plus(moved.data(), d.data(), shifted.data());
          block.manifold->Minus(shifted.data(), at, difference.data());
          sum += along_e.twelfths * along_b.twelfths *
                 g.segment(block.tangent_offset, t).dot(difference);
        }
      }
      (*a)[block.tangent_offset + j] += sum / (144.0 * kStep * kStep);
    }
  }
}

// The coordinates of a that P held in the step s from `from`.
void ClearHeld(const Space& space, const Vector& from, const Vector& s, Vector* a) {
  if (!space.has_bounds()) return;
  for (int j = 0; j < space.tangent_size(); ++j) {
    const int i = space.AmbientIndex(j);
    if (i < 0) continue;
    const double to = from[i] + s[j];
    if (to < space.LowerBound(j) || to > space.UpperBound(j)) (*a)[j] = 0.0;
  }
}

// The projection onto the convex sets of flat blocks, after the step s from `from`.
void PullBackThroughSets(const Space& space, const Vector& from, const Vector& s, Vector* a) {
  if (!space.has_sets()) return;
  for (const Space::Block& block : space.blocks()) {
    if (!block.set) continue;
    const Vector to = from.segment(block.offset, block.size) +
                      s.segment(block.tangent_offset, block.tangent_size);
    block.set->ProjectDerivative(to.data(), block.size, a->data() + block.tangent_offset);
  }
}

}  // namespace

std::string LowerSteps::Check(const Oracle& oracle, const std::string& name) const {
  if (num_lower_steps < 0) return name + "num_lower_steps must not be negative";
  if (num_lower_steps > 0 && !(lower_step > 0.0 && std::isfinite(lower_step))) {
    return name + "lower_step must be positive";
  }
  if (!(momentum >= 0.0 && momentum < 1.0)) return name + "momentum must be in [0, 1)";
  return jacobi ? BlockJacobi::Check(oracle.program(), name + "jacobi") : "";
}

bool Unroll::Run(Oracle& o, const Point& x, int num_kept, Point* y) {
  const double mu = steps_.momentum;
  first_ = steps_.num_lower_steps - num_kept;
  path_.resize(num_kept + 1, *y);
  moves_.resize(num_kept);
  directions_.resize(num_kept);
  if (mu > 0.0) v_.setZero(y->dim());
  if (steps_.jacobi) jacobi_.Compute(o, x, *y);
  for (int k = -first_; k < num_kept; ++k) {
    o.g.Gradient(x, *y, nullptr, &d_);
    d_ *= (1.0 - Share(k)) * steps_.lower_step;
    if (share_ > 0.0) {
      o.f.Gradient(x, *y, nullptr, &fy_);
      d_ += Share(k) * upper_step_ * fy_;
    }
    if (!o.ok()) return false;
    if (k >= 0) directions_[k] = d_;
    if (steps_.jacobi) jacobi_.Apply(&d_);
    if (mu > 0.0) v_ = mu * v_ + d_;
    if (mu > 0.0 && steps_.nesterov) d_ += mu * v_;
    const Vector& step = mu > 0.0 && !steps_.nesterov ? v_ : d_;
    if (k >= 0) {
      path_[k] = *y;
      moves_[k] = -step;
    }
    if (!y->MoveWithin(-step)) {
      o.Fail(
          "the lower level's iterates are no longer finite, or a manifold failed: lower_step may "
          "be too long");
      return false;
    }
  }
  path_[num_kept] = *y;
  return true;
}

bool Unroll::RunOnAdjoint(Oracle& o, const Point& x, const Point& y, const Vector& fy, Vector* z) {
  const double mu = steps_.momentum;
  z->setZero(y.dim());
  v_.setZero(y.dim());
  for (int k = 0; k < steps_.num_lower_steps && o.ok(); ++k) {
    o.g.HessianProduct(x, y, *z, &h_, nullptr);
    d_ = steps_.lower_step * (h_ - fy);
    if (steps_.jacobi) jacobi_.Apply(&d_);
    v_ = mu * v_ + d_;
    *z -= v_;
    if (steps_.nesterov) *z += v_ - d_ - mu * v_;
  }
  return o.ok();
}

bool Unroll::Reverse(Oracle& o, const Point& x, int last, Vector* a, Vector* gx) {
  const double mu = steps_.momentum;
  a_v_.setZero(a->size());
  for (int k = last - 1; k >= 0 && o.ok(); --k) {
    const Space& space = path_[k].space();
    ClearHeld(space, path_[k].value(), moves_[k], a);
    PullBackThroughSets(space, path_[k].value(), moves_[k], a);
    PullBackThroughStep(space, path_[k].value(), path_[k + 1].value(), moves_[k], a, &c_);
    // The covectors of v_{k+1} and of d_k, from that of the move -v_{k+1} or -d_k - mu v_{k+1}.
    a_v_ -= (steps_.nesterov ? mu : 1.0) * c_;
    b_ = a_v_;
    if (steps_.nesterov) b_ -= c_;
    if (steps_.jacobi) jacobi_.Apply(&b_);
    a_v_ *= mu;
    const auto add = [&](LevelView& function, double weight) {
      function.HessianProduct(x, path_[k], b_, &h_, &j_);
      *a += weight * h_;
      *gx += weight * j_;
    };
    add(o.g, (1.0 - Share(k)) * steps_.lower_step);
    if (share_ > 0.0) add(o.f, Share(k) * upper_step_);
    AddFrameTerm(space, path_[k].value(), directions_[k], b_, a);
  }
  return o.ok();
}

}  // namespace bilevel
