#include "bilevel_problems.h"

#include <algorithm>
#include <cmath>

#include "bilevel_problems/levels.h"

namespace bilevel {
namespace {

bool IsNear(const Values& a, const Values& b, double tolerance) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= tolerance * (1.0 + std::abs(b[i])))) return false;
  }
  return true;
}

}  // namespace

std::unique_ptr<Problem> BilevelProblem::Build(double* own_x, double* own_y, Form form) const {
  auto problem = std::make_unique<Problem>();
  const int num_x = static_cast<int>(x.size()), num_y = static_cast<int>(y.size());
  problem->AddUpperParameterBlock(own_x, num_x);
  problem->SetParameterName(own_x, "x");
  problem->SetParameterName(own_y, "y");
  problem->lower()->AddParameterBlock(own_y, num_y);
  add_levels(form, own_x, own_y, problem.get());
  for (int i = 0; i < num_x; ++i) {
    if (std::isfinite(x_lower[i])) problem->SetParameterLowerBound(own_x, i, x_lower[i]);
    if (std::isfinite(x_upper[i])) problem->SetParameterUpperBound(own_x, i, x_upper[i]);
  }
  for (int i = 0; i < num_y; ++i) {
    if (std::isfinite(y_lower[i])) problem->lower()->SetParameterLowerBound(own_y, i, y_lower[i]);
    if (std::isfinite(y_upper[i])) problem->lower()->SetParameterUpperBound(own_y, i, y_upper[i]);
  }
  return problem;
}

const KnownMinimum* BilevelProblem::MinimumAt(const Values& at_x,
                                              const Values& at_y,
                                              KnownMinimum* found) const {
  const double value = f(at_x.data(), at_y.data());
  const KnownMinimum* best = nullptr;
  for (const KnownMinimum& minimum : minima) {
    const double distance = std::abs(value - minimum.phi);
    const bool is_here = minimum.by_phi ? distance <= tolerance * (1.0 + std::abs(minimum.phi))
                                        : IsNear(at_x, minimum.x, tolerance);
    if (is_here && (!best || distance < std::abs(value - best->phi))) best = &minimum;
  }
  if (best || !has_more_minima) return best;
  const Values end = CompassSearch(*this, at_x, 10.0 * tolerance);
  if (!IsNear(at_x, end, tolerance)) return nullptr;
  const Values y_end = solution(end);
  *found = {end, f(end.data(), y_end.data()), y_end, KnownMinimum::kLocal};
  return found;
}

Values CompassSearch(const BilevelProblem& problem, Values x, double radius) {
  const auto phi = [&](const Values& at) {
    return problem.f(at.data(), problem.solution(at).data());
  };
  double least = phi(x);
  while (radius > 1e-9) {
    bool moved = false;
    for (size_t i = 0; i < x.size(); ++i) {
      for (const double step : {radius, -radius}) {
        Values trial = x;
        trial[i] = std::clamp(x[i] + step, problem.x_lower[i], problem.x_upper[i]);
        const double value = phi(trial);
        if (!(value < least)) continue;
        least = value;
        x = trial;
        moved = true;
      }
    }
    if (!moved) radius /= 2.0;
  }
  return x;
}

const std::vector<BilevelProblem>& AllBilevelProblems() {
  static const std::vector<BilevelProblem>* const all = [] {
    auto* problems = new std::vector<BilevelProblem>;
    AddSmdProblems(problems);
    AddTpProblems(problems);
    AddMitsosBartonProblems(problems);
    AddLibraryProblems(problems);
    AddToys(problems);
    AddHyperObjectiveProblems(problems);
    AddConstructedKinks(problems);
    AddConstructedSmooth(problems);
    AddConstructedJumpsAndSets(problems);
    return problems;
  }();
  return *all;
}

}  // namespace bilevel
