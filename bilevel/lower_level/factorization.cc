#include "bilevel/lower_level/factorization.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <numeric>

#include "Eigen/Cholesky"
#include "Eigen/SparseCholesky"
#include "bilevel/base/memory.h"
#include "bilevel/lower_level/internal/schur_elimination.h"
#include "bilevel/lower_level/internal/supernodal_factor.h"
#ifdef BILEVEL_USE_CHOLMOD
#include "Eigen/CholmodSupport"
#include "bilevel/lower_level/internal/one_openmp_thread.h"
#endif

namespace bilevel {
namespace {

// A matrix this full gains nothing from sparsity; a tiny one neither.
constexpr double kDenseShare = 0.3;
constexpr int kTiny = 24, kLargestDense = 5000;

using Dense = Eigen::LLT<Matrix, Eigen::Lower>;
using Simplicial = Eigen::SimplicialLDLT<SparseMatrix, Eigen::Lower, Eigen::AMDOrdering<int>>;

#ifdef BILEVEL_USE_CHOLMOD
class Cholmod : public Eigen::CholmodDecomposition<SparseMatrix, Eigen::Lower> {
 public:
  explicit Cholmod(const SparseMatrix& matrix) {
    // Supernodes pay where more than this many operations are done a nonzero of the factor, as
    // measured on one thread for grids and pose graphs with ATLAS and OpenBLAS.
    setMode(Eigen::CholmodAuto);
    cholmod().supernodal_switch = 60.0;
    cholmod().final_asis = 0;
    cholmod().final_ll = 1;
    cholmod().print = 0;  // Failure is a status, not a message.
    analyzePattern(matrix);
    ThrowIfOutOfMemory();
  }

  // CHOLMOD says it by a status, and leaves unmade what it was to make.
  void ThrowIfOutOfMemory() {
    const int status = cholmod().status;
    if (status == CHOLMOD_OUT_OF_MEMORY || status == CHOLMOD_TOO_LARGE) throw std::bad_alloc();
  }

  bool is_supernodal() const { return m_cholmodFactor->is_super; }

  template <typename See>
  void ForEachPivot(const See& see) const {
    const cholmod_factor& factor = *m_cholmodFactor;
    const auto* values = static_cast<const double*>(factor.x);
    const auto see_root = [&](double root) { see(root * root); };
    if (!is_supernodal()) {
      const auto* begin = static_cast<const int*>(factor.p);
      for (size_t j = 0; j < factor.n; ++j) see_root(values[begin[j]]);
      return;
    }
    const auto* super = static_cast<const int*>(factor.super);
    const auto* rows = static_cast<const int*>(factor.pi);
    const auto* begin = static_cast<const int*>(factor.px);
    for (size_t k = 0; k < factor.nsuper; ++k) {
      const int columns = super[k + 1] - super[k], stride = rows[k + 1] - rows[k];
      for (int j = 0; j < columns; ++j) see_root(values[begin[k] + j * (stride + 1)]);
    }
  }

  void CopyFactor(SupernodalFactor* to) const {
    const cholmod_factor& factor = *m_cholmodFactor;
    const auto* values = static_cast<const double*>(factor.x);
    const auto* permutation = static_cast<const int*>(factor.Perm);
    to->position.resize(factor.n);
    for (size_t i = 0; i < factor.n; ++i) to->position[permutation[i]] = static_cast<int>(i);
    if (!is_supernodal()) {
      const auto* begin = static_cast<const int*>(factor.p);
      const auto* count = static_cast<const int*>(factor.nz);
      const auto* rows = static_cast<const int*>(factor.i);
      to->Gather(static_cast<int>(factor.n), [=](int j) {
        const int k = begin[j];
        return SupernodalFactor::Column{values[k], 1.0, count[j] - 1, rows + k + 1, values + k + 1};
      });
      return;
    }
    const auto* super = static_cast<const int*>(factor.super);
    const auto* row_begin = static_cast<const int*>(factor.pi);
    const auto* rows = static_cast<const int*>(factor.s);
    for (size_t k = 0; k < factor.nsuper; ++k) {
      to->Append(super[k + 1] - super[k], rows + row_begin[k], rows + row_begin[k + 1]);
    }
    to->Allocate();
    std::copy_n(values, to->values.size(), to->values.data());
  }
};
#endif

}  // namespace

// Of a matrix that is scaled already.
struct Factorization::Implementation {
  Implementation(const SparseMatrix& lower, const Space* space) {
    if (space) {
      schur = std::make_unique<SchurElimination>(lower, *space);
      if (!schur->Pays()) schur.reset();
    }
    const SparseMatrix& matrix = schur ? schur->reduced() : lower;
    const double n = static_cast<double>(matrix.rows());
    if (n <= kTiny || (n <= kLargestDense && matrix.nonZeros() >= kDenseShare * 0.5 * n * n)) {
      dense = std::make_unique<Dense>(matrix.rows());
      return;
    }
#ifdef BILEVEL_USE_CHOLMOD
    if (matrix.nonZeros() > 0) {
      cholmod = std::make_unique<Cholmod>(matrix);
      return;
    }
#endif
    simplicial = std::make_unique<Simplicial>();
    simplicial->analyzePattern(matrix);
  }

  // The smallest pivot; not positive where it fails.
  double Factorize(const SparseMatrix& lower) {
    double smallest = std::numeric_limits<double>::infinity();
    if (schur) smallest = schur->Reduce(lower);
    if (!(smallest > 0.0)) return 0.0;
    const SparseMatrix& matrix = schur ? schur->reduced() : lower;
    if (dense) {
      if (matrix.rows() == 0) return smallest;
      dense->compute(matrix);
      if (dense->info() != Eigen::Success) return 0.0;
    }
#ifdef BILEVEL_USE_CHOLMOD
    if (cholmod) {
      const OneOpenMpThread one_thread;
      cholmod->factorize(matrix);
      cholmod->ThrowIfOutOfMemory();
      if (cholmod->info() != Eigen::Success) return 0.0;
    }
#endif
    if (simplicial) {
      simplicial->factorize(matrix);
      if (simplicial->info() != Eigen::Success) return 0.0;
    }
    ForEachReducedPivot([&](double pivot) { smallest = std::min(smallest, pivot); });
    return smallest;
  }

  template <typename See>
  void ForEachReducedPivot(const See& see) const {
#ifdef BILEVEL_USE_CHOLMOD
    if (cholmod) return cholmod->ForEachPivot(see);
#endif
    if (dense && dense->rows() > 0) {
      for (int j = 0; j < dense->rows(); ++j) see(std::pow(dense->matrixLLT()(j, j), 2));
    } else if (simplicial) {
      for (int j = 0; j < simplicial->rows(); ++j) see(simplicial->vectorD()[j]);
    }
  }

  template <typename T>
  void SolveReduced(const T& b, T* x) const {
    if (dense) {
      *x = dense->solve(b);
      return;
    }
#ifdef BILEVEL_USE_CHOLMOD
    if (cholmod) {
      *x = cholmod->solve(b);
      cholmod->ThrowIfOutOfMemory();
      return;
    }
#endif
    *x = simplicial->solve(b);
  }

  // In place.
  void Solve(Vector* b) {
    if (!schur) return SolveReduced(*b, b);
    schur->Forward(b, &reduced);
    SolveReduced(reduced, &reduced);
    schur->Back(reduced, b);
  }
  void Solve(Matrix* b) {
    if (!schur) return SolveReduced(*b, b);
    for (int j = 0; j < b->cols(); ++j) {
      column = b->col(j);
      Solve(&column);
      b->col(j) = column;
    }
  }

  void CopyFactor(SupernodalFactor* factor) const {
#ifdef BILEVEL_USE_CHOLMOD
    if (cholmod) return cholmod->CopyFactor(factor);
#endif
    if (simplicial) return factor->GatherLdlt(*simplicial);
    const int n = static_cast<int>(dense->rows());
    factor->position.resize(n);
    std::iota(factor->position.begin(), factor->position.end(), 0);
    if (n == 0) return;
    const std::vector<int> rows = factor->position;
    factor->Append(n, rows.data(), rows.data() + n);
    factor->Allocate();
    Eigen::Map<Matrix>(factor->values.data(), n, n) = dense->matrixLLT();
  }

  std::unique_ptr<SchurElimination> schur;
  std::unique_ptr<Dense> dense;
  std::unique_ptr<Simplicial> simplicial;
#ifdef BILEVEL_USE_CHOLMOD
  std::unique_ptr<Cholmod> cholmod;
#endif
  Vector reduced, column;
};

Factorization::Factorization(const SparseMatrix& lower, const Space* space)
    : implementation_(std::make_unique<Implementation>(lower, space)),
      scaled_(lower),
      scale_(Vector::Ones(lower.rows())),
      work_(lower.rows()) {}

Factorization::~Factorization() = default;

std::string Factorization::Describe() const {
  std::string text = implementation_->dense ? "dense Cholesky" : "simplicial Cholesky";
#ifdef BILEVEL_USE_CHOLMOD
  if (const auto& cholmod = implementation_->cholmod) {
    text = cholmod->is_supernodal() ? "supernodal Cholesky (CHOLMOD)" : text + " (CHOLMOD)";
  }
#endif
  if (implementation_->schur) {
    text += " of " + std::to_string(implementation_->schur->reduced().rows()) +
            " unknowns, after Schur elimination of the other " +
            std::to_string(scaled_.rows() - implementation_->schur->reduced().rows());
  }
  return text;
}

Factorization::Status Factorization::Factorize(const SparseMatrix& lower,
                                               double damping,
                                               const std::vector<char>* fixed) {
  const int n = static_cast<int>(lower.cols());
  if (fixed) {
    fixed_ = *fixed;
  } else {
    fixed_.clear();
  }
  const auto is_fixed = [&](int i) { return !fixed_.empty() && fixed_[i]; };
  for (int j = 0; j < n; ++j) {
    const double diagonal = std::abs(lower.valuePtr()[lower.outerIndexPtr()[j]]);
    scale_[j] = is_fixed(j) || diagonal == 0.0 ? 1.0 : std::sqrt(diagonal);
  }
  work_ = scale_.cwiseInverse();
  double sum = 0.0;
  for (int j = 0; j < n; ++j) {
    for (int k = lower.outerIndexPtr()[j]; k < lower.outerIndexPtr()[j + 1]; ++k) {
      const int i = lower.innerIndexPtr()[k];
      double& to = scaled_.valuePtr()[k];
      if (is_fixed(i) || is_fixed(j)) {
        to = i == j ? 1.0 : 0.0;
      } else {
        to = lower.valuePtr()[k] * work_[i] * work_[j];
        if (i == j) to += damping;
        sum += to;
      }
    }
  }
  if (!std::isfinite(sum)) return Status::kNotFinite;
  if (n == 0) return Status::kPositiveDefinite;
  smallest_pivot_ = implementation_->Factorize(scaled_);
  return smallest_pivot_ > kRankTolerance ? Status::kPositiveDefinite
                                          : Status::kNotPositiveDefinite;
}

void Factorization::CopyFactor(SupernodalFactor* factor) const {
  implementation_->CopyFactor(factor);
}

double Factorization::LogDeterminant() const {
  double sum = implementation_->schur ? implementation_->schur->LogDeterminant() : 0.0;
  implementation_->ForEachReducedPivot([&](double pivot) { sum += std::log(pivot); });
  return sum + 2.0 * scale_.array().log().sum();
}

const SchurElimination* Factorization::elimination() const { return implementation_->schur.get(); }

void Factorization::Remember(Memory* memory) {
  memory->KeepRange("scaled", scaled_.valuePtr(), scaled_.nonZeros());
  memory->KeepRange("scale", scale_.data(), scale_.size());
  memory->Keep("fixed", &fixed_);
  if (memory->recalls() && scaled_.cols() > 0) {
    smallest_pivot_ = implementation_->Factorize(scaled_);
  }
}

void Factorization::Solve(const Vector& b, Vector* x) const {
  work_ = b.cwiseQuotient(scale_);
  for (size_t i = 0; i < fixed_.size(); ++i) {
    if (fixed_[i]) work_[i] = 0.0;
  }
  implementation_->Solve(&work_);
  *x = work_.cwiseQuotient(scale_);
}

void Factorization::Solve(const Matrix& b, Matrix* x) const {
  Matrix scaled = scale_.cwiseInverse().asDiagonal() * b;
  for (size_t i = 0; i < fixed_.size(); ++i) {
    if (fixed_[i]) scaled.row(i).setZero();
  }
  implementation_->Solve(&scaled);
  *x = scale_.cwiseInverse().asDiagonal() * scaled;
}

}  // namespace bilevel
