#include "bilevel/upper_level/internal/independent_errors.h"

#include <algorithm>
#include <memory>
#include <random>

#include "Eigen/QR"
#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/internal/prepared_problem.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {
namespace {

constexpr int kNumProbes = 200;

// The upper residuals of a recording, linearised, and the sums of its probes.
class Errors {
 public:
  bool Linearize(const Program::Scenario& scenario,
                 const State& at,
                 const std::vector<const double*>& fitted,
                 std::string* error) {
    scenario_ = &scenario;
    LevelEvaluator evaluator(scenario.f.get(), nullptr);
    Vector r;
    RowSparseMatrix jx;
    double value;
    const double* y = at.y.value().data() + scenario.offset;
    if (!evaluator.Linearize(at.x.value().data(), y, &value, &r, &jx, &jy_)) {
      return Refuse(evaluator.error(), error);
    }
    Matrix columns(jx.rows(), 0);
    for (const double* user : fitted) {
      const Space::Block& block = at.x.space().blocks()[at.x.space().Find(user)];
      if (!scenario.f->UsesX(at.x.space().Find(user))) continue;
      const Eigen::Index old = columns.cols();
      columns.conservativeResize(Eigen::NoChange, old + block.tangent_size);
      columns.rightCols(block.tangent_size) =
          Matrix(jx).middleCols(block.tangent_offset, block.tangent_size);
    }
    followed_.resize(jx.rows(), 0);
    if (columns.cols() == 0) return true;
    const Eigen::ColPivHouseholderQR<Matrix> qr(columns);
    followed_ = qr.householderQ() * Matrix::Identity(columns.rows(), qr.rank());
    return true;
  }
  int num_probes() const { return std::min<int>(kNumProbes, static_cast<int>(jy_.rows())); }

  // J' P z of the k-th probe z, into its part of a direction in y.
  void Probe(int k, std::mt19937* generator, Vector* in_y) {
    z_.setZero(jy_.rows());
    if (k >= num_probes()) return;
    if (is_exact()) z_[k] = 1.0;
    for (Eigen::Index i = 0; i < z_.size() && !is_exact(); ++i) {
      z_[i] = (*generator)() & 1u ? 1.0 : -1.0;
    }
    in_y->segment(scenario_->tangent_offset, jy_.cols()) = jy_.transpose() * Project(z_);
  }
  void Add(const Vector& solved) {
    if (!scenario_) return;
    const Vector sz = Project(jy_ * solved.segment(scenario_->tangent_offset, jy_.cols()));
    trace_ += z_.dot(sz);
    square_ += sz.squaredNorm();
  }
  double Count() const {
    const double share = is_exact() ? 1.0 : 1.0 / kNumProbes;
    return share * trace_ * trace_ / square_;
  }

 private:
  bool is_exact() const { return jy_.rows() <= kNumProbes; }
  Vector Project(const Vector& v) const { return v - followed_ * (followed_.transpose() * v); }

  const Program::Scenario* scenario_ = nullptr;
  RowSparseMatrix jy_;
  Matrix followed_;  // Orthonormal: what fitted blocks follow.
  Vector z_;
  double trace_ = 0.0, square_ = 0.0;
};

}  // namespace

bool CountIndependentErrors(const Solver::Options& options,
                            const std::vector<Scenario*>& recordings,
                            const std::vector<const double*>& fitted,
                            Problem* problem,
                            std::vector<double>* counts,
                            std::string* error) {
  PreparedProblem::Needs needs;
  needs.derivative = true;
  const auto prepared = PreparedProblem::Create(options, needs, problem, error);
  if (!prepared) return false;
  LowerSolver& lower = prepared->lower();
  if (const std::string why = lower.WhyNoSecondDerivative(); !why.empty()) {
    return Refuse(why, error);
  }
  State at = prepared->Start();
  if (!lower.Solve(at.x, &at.y) || !lower.Differentiate(at.x, at.y)) {
    return Refuse(lower.message(), error);
  }
  std::vector<Errors> errors(recordings.size());
  int num_probes = 0;
  for (size_t r = 0; r < recordings.size(); ++r) {
    for (const auto& scenario : prepared->program().scenarios) {
      if (scenario->upper != recordings[r]->upper()) continue;
      if (!errors[r].Linearize(*scenario, at, fitted, error)) return false;
    }
    num_probes = std::max(num_probes, errors[r].num_probes());
  }
  // A probe of each recording in one solve: they share no y.
  std::mt19937 generator(0);
  for (int k = 0; k < num_probes; ++k) {
    Vector in_y = Vector::Zero(at.y.dim()), solved(at.y.dim());
    for (Errors& e : errors) e.Probe(k, &generator, &in_y);
    if (!lower.AdjointVector(in_y, &solved)) return Refuse(lower.message(), error);
    for (Errors& e : errors) e.Add(solved);
  }
  counts->clear();
  for (const Errors& e : errors) counts->push_back(e.Count());
  if (std::all_of(counts->begin(), counts->end(), [](double n) { return n > 0.0; })) return true;
  return Refuse("the lower level says that there are no errors", error);
}

}  // namespace bilevel
