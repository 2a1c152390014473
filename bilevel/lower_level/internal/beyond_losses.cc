#include "bilevel/lower_level/internal/beyond_losses.h"

#include <vector>

#include "bilevel/base/internal/thrown.h"
#include "bilevel/lower_level/internal/name_blocks.h"

namespace bilevel {
namespace {

constexpr double kFlatSlope = 1e-8;

bool IsBeyondItsLoss(const LevelFunction& g,
                     const LevelFunction::Residual& r,
                     const double* x,
                     const double* y) {
  if (!r.loss) return false;
  std::vector<const double*> parameters;
  for (int k = r.first; k < r.first + r.num_arguments + r.num_thetas; ++k) {
    const LevelFunction::Argument& a = g.arguments()[k];
    const double* const points[] = {x, y, nullptr};
    parameters.push_back(a.kind == LevelFunction::Argument::kConstant ? a.constant
                                                                      : points[a.kind] + a.offset);
  }
  Vector residuals(r.num_residuals);
  if (!r.cost->Evaluate(parameters.data(), residuals.data(), nullptr)) return false;
  double rho[3];
  if (r.learnable) {
    r.learnable->Evaluate(
        residuals.squaredNorm(), parameters.data() + r.num_arguments, rho, nullptr, nullptr);
  } else {
    r.loss->Evaluate(residuals.squaredNorm(), rho);
  }
  return residuals.squaredNorm() > 0.0 && rho[1] <= kFlatSlope;
}

}  // namespace

std::vector<int> ResidualsBeyondLosses(const LevelFunction& g, const double* x, const double* y) {
  std::vector<int> beyond;
  if (g.callback()) return beyond;
  for (size_t r = 0; r < g.residuals().size(); ++r) {
    if (IsBeyondItsLoss(g, g.residuals()[r], x, y)) beyond.push_back(static_cast<int>(r));
  }
  return beyond;
}

std::string BlocksBeyondLosses(const LevelFunction& g, const double* x, const double* y) {
  if (g.callback() || g.num_terms() > 0) return "";
  enum Status : char { kUnknown, kBeyond, kHeld };
  std::vector<Status> status(g.y().blocks().size(), kUnknown);
  const std::string thrown = Thrown([&] {
    for (const LevelFunction::Residual& r : g.residuals()) {
      const bool is_beyond = IsBeyondItsLoss(g, r, x, y);
      for (int k = r.first; k < r.first + r.num_arguments; ++k) {
        const LevelFunction::Argument& a = g.arguments()[k];
        if (a.kind != LevelFunction::Argument::kY) continue;
        if (!is_beyond) status[a.block] = kHeld;
        if (status[a.block] == kUnknown) status[a.block] = kBeyond;
      }
    }
  });
  int count = 0;
  for (const Status s : status) count += s == kBeyond;
  if (!thrown.empty() || count == 0) return "";
  const std::string names = NameBlocks(g.y(), count, [&](const Space::Block& block) {
    return status[&block - g.y().blocks().data()] == kBeyond ? 1.0 : 0.0;
  });
  return "; every residual of " + names +
         " is beyond its loss's scale, where the loss is flat: start with a larger one";
}

}  // namespace bilevel
