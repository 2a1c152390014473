#include "bilevel/methods/zeroth_order/igfm.h"

#include <cmath>
#include <limits>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/memory.h"

namespace bilevel {
namespace {

constexpr int kChoiceStream = -1;  // Directions count from 0.

}  // namespace

bool Igfm::ByTheorem(const Constants& constants,
                     double delta,
                     double epsilon,
                     Options* options,
                     int* num_iterations,
                     double* phi_accuracy,
                     std::string* error) {
  if (const std::string complaint = FirstNotPositive({{"size", constants.size},
                                                      {"phi_lipschitz", constants.phi_lipschitz},
                                                      {"gap", constants.gap},
                                                      {"delta", delta},
                                                      {"epsilon", epsilon}});
      !complaint.empty()) {
    return Refuse(complaint, error);
  }
  const double d = constants.size, c = constants.phi_lipschitz;
  const double scale = std::pow(d, 1.5) * c * c * c;
  const double t =
      std::ceil(scale * (c + constants.gap / delta) / (epsilon * epsilon * epsilon * epsilon));
  if (!(t <= std::numeric_limits<int>::max())) {
    return Refuse("theorem 6.2 asks for " + Number(t) + " iterations", error);
  }
  *num_iterations = static_cast<int>(t);
  *phi_accuracy = delta * epsilon * epsilon / (d * c);
  options->delta = delta;
  options->num_directions = 1;
  options->output = kRandom;
  options->x = StepRule();
  options->x.step = std::sqrt(delta * (constants.gap + delta * c) / (scale * t));
  return true;
}

std::string Igfm::Check(const Oracle& /*oracle*/) {
  if (const std::string complaint = FirstNotPositive(
          {{"igfm.delta", options_.delta}, {"igfm.num_directions", options_.num_directions}});
      !complaint.empty()) {
    return complaint;
  }
  if (options_.num_stationarity_pairs < 0 || options_.num_stationarity_pairs == 1) {
    return "igfm.num_stationarity_pairs must be 0, or at least 2 to tell their spread";
  }
  return options_.x.Check("igfm.x");
}

void Igfm::Start(Oracle& /*oracle*/, State& /*state*/) { steepest_.Clear(); }

// Fills the first columns of estimates_ and returns how many: pairs of which a side has no phi
// are left out, with the last reason in probe_message_.
int Igfm::Probe(Oracle& o, const State& s, int num_pairs, bool orthogonal) {
  const int d = s.x.dim();
  estimates_.resize(d, num_pairs);
  direction_.resize(d);
  for (int b = 0; b < num_pairs; ++b) {
    o.RandomDirection(b, &direction_);
    if (orthogonal) {
      // Gram and Schmidt, twice for rounding, against those of the same set of d.
      const auto others = estimates_.middleCols(b - b % d, b % d);
      for (int pass = 0; pass < 2; ++pass) {
        direction_ -= others * (others.transpose() * direction_).eval();
        direction_.normalize();
      }
    }
    estimates_.col(b) = direction_;
  }
  xs_.resize(2 * num_pairs, s.x);
  ys_.resize(2 * num_pairs, s.y);
  phi_.resize(2 * num_pairs);
  std::vector<std::string> messages(2 * num_pairs);
  o.ForEach(2 * num_pairs, [&](Oracle& worker, int k) {
    phi_[k] = kNaN;
    xs_[k] = s.x;
    ys_[k] = s.y;
    const double length = k % 2 ? -options_.delta : options_.delta;
    if (!xs_[k].Move(length * estimates_.col(k / 2))) return;
    if (worker.Solve(xs_[k], &ys_[k])) phi_[k] = worker.f.Value(xs_[k], ys_[k]);
    const std::string latched = worker.Clear();  // x + delta u is a trial.
    messages[k] = latched.empty() ? worker.message() : latched;
  });
  int count = 0;
  for (int b = 0; b < num_pairs; ++b) {
    const double rise = phi_[2 * b] - phi_[2 * b + 1];
    if (!std::isfinite(rise)) {
      probe_message_ = std::isfinite(phi_[2 * b]) ? messages[2 * b + 1] : messages[2 * b];
      continue;
    }
    estimates_.col(count++) = d / (2.0 * options_.delta) * rise * estimates_.col(b);
    steepest_.Add(xs_[2 * b + 1], phi_[2 * b + 1], xs_[2 * b], phi_[2 * b], s.y);
  }
  return count;
}

void Igfm::Step(Oracle& o, State& s, Progress* progress) {
  // The first iteration only looks.
  const bool first = s.vectors.count("igfm.visited") == 0;
  Vector& visited = s.Get("igfm.visited", 1);
  if (!first) {
    if (options_.delta < 1e-12 * s.x.value().norm()) {
      o.Fail("igfm.delta is lost in the rounding of x, which has grown to a norm of " +
             Number(s.x.value().norm()));
      return;
    }
    const int count = Probe(o, s, options_.num_directions, options_.orthogonal);
    if (count == 0) {
      o.Fail("no pair of probes around x has a value: " + probe_message_);
      return;
    }
    direction_ = estimates_.leftCols(count).rowwise().mean();
    progress->step_norm = options_.x.Apply(direction_, "igfm", o.iteration - 1, &s, &s.x);
    if (progress->step_norm < 0.0) {
      o.Fail("x is no longer finite, or its manifold failed: igfm.x.step may be too long");
      return;
    }
  }
  if (!o.Solve(s.x, &s.y)) {
    o.Fail(o.message());
    return;
  }
  progress->objective = o.f.Value(s.x, s.y);
  visited[0] += 1.0;
  if (options_.output == kRandom) {
    // The n-th iterate replaces the one kept with probability 1 / n.
    direction_.resize(2);
    o.RandomDirection(kChoiceStream, &direction_);
    const double uniform = 0.5 + std::atan2(direction_[0], direction_[1]) / (2.0 * M_PI);
    progress->keep = uniform * visited[0] < 1.0 ? Progress::kAlways : Progress::kNever;
  }
}

// The mean of B estimates is an unbiased estimate of the gradient of phi smoothed over the ball,
// an element of phi's Goldstein subdifferential. Its error e is nearly normal with covariance
// C = S / B: E|e| <= sqrt(tr C), and |e| exceeds that by sqrt(2 log(20) max eig C) with probability
// at most 5 % (Gaussian concentration).
void Igfm::Finish(Oracle& oracle, const State& state, Assessment* assessment) {
  if (options_.num_stationarity_pairs > 0) {
    ++oracle.iteration;  // Directions of its own.
    const int count = Probe(oracle, state, options_.num_stationarity_pairs, false);
    if (count >= 2) {
      Matrix spread = estimates_.leftCols(count);
      Vector mean = spread.rowwise().mean();
      spread.colwise() -= mean;
      const bool wide = spread.cols() > spread.rows();
      const Matrix gram =
          wide ? Matrix(spread * spread.transpose()) : Matrix(spread.transpose() * spread);
      const double scale = 1.0 / (static_cast<double>(count) * (count - 1));
      const double trace = gram.trace() * scale;
      const double largest = SymmetricEigen(gram).eigenvalues().maxCoeff() * scale;
      for (int j = 0; j < state.x.dim(); ++j) {
        if (state.x.space().IsHeld(state.x.value().data(), j, mean[j])) mean[j] = 0.0;
      }
      assessment->goldstein_norm = mean.norm();
      assessment->goldstein_half_width =
          std::sqrt(trace) + std::sqrt(2.0 * std::log(20.0) * std::max(0.0, largest));
    }
  }
  if (!probe_message_.empty()) {
    assessment->notes.push_back("some probes around x had no value: " + probe_message_);
  }
  if (const std::string jump = steepest_.FindJump(oracle); !jump.empty()) {
    assessment->notes.push_back(jump);
  }
}

bool Igfm::Remember(Oracle& oracle, Memory* memory) {
  memory->Keep("probe_message", &probe_message_);
  steepest_.Remember(oracle, memory);
  return true;
}

}  // namespace bilevel
