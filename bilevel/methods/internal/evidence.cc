#include "bilevel/methods/internal/evidence.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/memory.h"

namespace bilevel {
namespace {

// A step whose part in a new direction is shorter has not explored it.
constexpr double kNewDirection = 1e-8;
void KeepPoint(const std::string& name,
               const Space& space,
               std::optional<Point>* point,
               Memory* memory) {
  bool exists = point->has_value();
  memory->Keep("has_" + name, &exists);
  if (!exists) return point->reset();
  if (!*point) point->emplace(&space);
  (*point)->Remember(name, space, memory);
}

}  // namespace

void Path::Add(const Point& x) {
  // On a manifold directions here and there have no common coordinates: none is known.
  if (x.dim() > kVeryShortX || x.dim() < static_cast<int>(x.value().size())) return;
  if (explored_.rows() != x.dim()) explored_.resize(x.dim(), 0);
  Vector step(x.dim());
  if (explored_.cols() < x.dim() && last_ &&
      x.space().Minus(x.value().data(), last_->value().data(), step.data())) {
    const double length = step.norm();
    step -= explored_ * (explored_.transpose() * step);
    if (step.norm() > kNewDirection * length) {
      explored_.conservativeResize(Eigen::NoChange, explored_.cols() + 1);
      explored_.rightCols(1) = step.normalized();
    }
  }
  last_ = x;
}

void Path::Remember(const Space& space, Memory* memory) {
  KeepPoint("last", space, &last_, memory);
  memory->Keep("explored", &explored_);
}

Matrix Path::Unexplored(int dim) const {
  if (dim > kVeryShortX) return Matrix(dim, 0);
  if (explored_.cols() == 0 || explored_.rows() != dim) return Matrix::Identity(dim, dim);
  const Matrix q = HouseholderQ(explored_, dim);
  return q.rightCols(dim - explored_.cols());
}

double Negligible(double function_tolerance, double phi, double first_phi) {
  return std::max(function_tolerance * std::abs(phi),
                  kRoundingOfPhi * std::max(std::abs(phi), std::abs(first_phi)));
}

void Evidence::Add(const State& state, const Progress& progress) {
  if (!first_x) {
    first_x = state.x;
    first_phi = progress.objective;
  }
  if (!progress.step_is_successful) return;
  phi = progress.objective;
  gradient_max_norm = progress.y_is_solved ? progress.gradient_max_norm : Progress::kUnknown;
  kkt_loss = progress.kkt_loss;
  if (progress.step_norm > 0.0) ++num_steps;
  path.Add(state.x);
}

void Evidence::Remember(const Space& x, Memory* memory) {
  const Memory::Group group(memory, "evidence");
  memory->Keep("first_phi", &first_phi);
  memory->Keep("phi", &phi);
  memory->Keep("gradient_max_norm", &gradient_max_norm);
  memory->Keep("num_steps", &num_steps);
  memory->Keep("kkt_loss", &kkt_loss);
  KeepPoint("first_x", x, &first_x, memory);
  path.Remember(x, memory);
}

}  // namespace bilevel
