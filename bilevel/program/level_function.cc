#include "bilevel/program/level_function.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace bilevel {
namespace {

// Longest general term whose Hessian is assembled, by one product a column.
constexpr int kMaxDenseTerm = 2000;

int64_t Key(int row, int column) {
  return (static_cast<int64_t>(column) << 32) | static_cast<int64_t>(row);
}

void SortUniquely(std::vector<int64_t>* keys) {
  std::sort(keys->begin(), keys->end());
  keys->erase(std::unique(keys->begin(), keys->end()), keys->end());
}

// A zero-valued column-major matrix made of dense blocks, and where each block's rows begin within
// the columns it crosses. With `lower`, the diagonal blocks are lower triangles.
void LayOut(const std::vector<Space::Block>& row_blocks,
            const std::vector<Space::Block>& column_blocks,
            const std::vector<int64_t>& pairs,  // By column, then row.
            bool lower,
            int rows,
            int columns,
            SparseMatrix* matrix,
            std::vector<int>* bases) {
  *matrix = SparseMatrix(rows, columns);
  bases->resize(pairs.size());
  int64_t nonzeros = 0;
  for (const int64_t pair : pairs) {
    nonzeros += static_cast<int64_t>(row_blocks[pair & 0xffffffff].tangent_size) *
                column_blocks[pair >> 32].tangent_size;
  }
  matrix->reserve(nonzeros);
  size_t begin = 0, end = 0;
  for (int c = 0; c < static_cast<int>(column_blocks.size()); ++c, begin = end) {
    int offset = 0;
    for (; end < pairs.size() && (pairs[end] >> 32) == c; ++end) {
      (*bases)[end] = offset;
      offset += row_blocks[pairs[end] & 0xffffffff].tangent_size;
    }
    for (int j = 0; j < column_blocks[c].tangent_size; ++j) {
      matrix->startVec(column_blocks[c].tangent_offset + j);
      for (size_t k = begin; k < end; ++k) {
        const int r = static_cast<int>(pairs[k] & 0xffffffff);
        for (int i = lower && r == c ? j : 0; i < row_blocks[r].tangent_size; ++i) {
          matrix->insertBack(row_blocks[r].tangent_offset + i,
                             column_blocks[c].tangent_offset + j) = 0.0;
        }
      }
    }
  }
  matrix->finalize();
}

}  // namespace

LevelFunction::LevelFunction(const Space* x, const Space* y, std::string name)
    : x_(x),
      y_(y),
      name_(std::move(name)),
      uses_x_(x->blocks().size(), 0),
      uses_y_(y->blocks().size(), 0) {}

LevelFunction::Argument LevelFunction::Resolve(double* user, int size, int* local, int* ambient) {
  Argument argument{Argument::kConstant, -1, user, size, 0, 0, 0, false, *local, *ambient};
  if (const int x = x_->Find(user); x >= 0) {
    argument.kind = Argument::kX;
    argument.block = x;
    argument.tangent_size = x_->blocks()[x].tangent_size;
    uses_x_[x] = 1;
  } else if (const int y = y_->Find(user); y >= 0) {
    argument.kind = Argument::kY;
    argument.block = y;
    argument.tangent_size = y_->blocks()[y].tangent_size;
    uses_y_[y] = 1;
  }
  if (argument.kind != Argument::kConstant) {
    const Space& space = argument.kind == Argument::kX ? *x_ : *y_;
    const Space::Block& block = space.blocks()[argument.block];
    argument.offset = block.offset;
    argument.tangent_offset = block.tangent_offset;
    argument.has_manifold = block.manifold != nullptr;
  }
  *local += argument.tangent_size;
  *ambient += size;
  return argument;
}

void LevelFunction::AddResidual(const ceres::CostFunction* cost,
                                const ceres::LossFunction* loss,
                                const std::vector<double*>& blocks,
                                double sampling_weight) {
  if (std::isfinite(sampling_weight)) {
    drawn_.push_back(num_residual_blocks());
    sampling_weights_.push_back(sampling_weight);
  } else {
    always_.push_back(num_residual_blocks());
  }
  Residual residual{};
  residual.cost = cost;
  residual.exact = dynamic_cast<const SecondOrderCostFunction*>(cost);
  residual.taped = dynamic_cast<const TapedCostFunction*>(cost);
  residual.loss = loss;
  residual.learnable = dynamic_cast<const LearnableLoss*>(loss);
  residual.first = static_cast<int>(arguments_.size());
  residual.num_arguments = static_cast<int>(blocks.size());
  residual.num_residuals = cost->num_residuals();
  residual.row = num_rows_;
  num_rows_ += residual.num_residuals;
  int local = 0, ambient = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Argument a = Resolve(blocks[i], cost->parameter_block_sizes()[i], &local, &ambient);
    if (a.kind != Argument::kConstant) {
      row_nonzeros_[a.kind] += static_cast<int64_t>(cost->num_residuals()) * a.tangent_size;
    }
    arguments_.push_back(a);
  }
  residual.ambient_size = ambient;
  if (residual.learnable) {
    for (const LearnableLoss::ParameterBlock& theta : residual.learnable->parameter_blocks()) {
      Argument argument = Resolve(theta.values, theta.size, &local, &ambient);
      if (argument.kind == Argument::kX) learnable_ = true;
      arguments_.push_back(argument);
      ++residual.num_thetas;
    }
  }
  residual.theta_size = ambient - residual.ambient_size;
  residual.local_size = local;
  largest_.ambient = std::max(largest_.ambient, ambient);
  largest_.local = std::max(largest_.local, local);
  largest_.residuals = std::max(largest_.residuals, residual.num_residuals);
  largest_.arguments = std::max(largest_.arguments, residual.num_arguments + residual.num_thetas);
  largest_.theta = std::max(largest_.theta, residual.theta_size);
  residuals_.push_back(residual);
}

void LevelFunction::AddTerm(const Objective* objective,
                            const std::vector<double*>& blocks,
                            std::vector<int> sizes) {
  Term term{
      objective, static_cast<int>(arguments_.size()), static_cast<int>(blocks.size()), 0, 0, 0};
  for (size_t i = 0; i < blocks.size(); ++i) {
    arguments_.push_back(Resolve(blocks[i], sizes[i], &term.local_size, &term.ambient_size));
  }
  if (term.local_size > kMaxDenseTerm) has_sparse_hessian_ = false;
  terms_.push_back(term);
}

void LevelFunction::Finish() {
  const auto differs = [&](double weight) { return weight != sampling_weights_[0]; };
  if (std::any_of(sampling_weights_.begin(), sampling_weights_.end(), differs)) {
    importance_ = std::make_unique<Importance>(sampling_weights_);
  }
  std::vector<int64_t> yy, yx;
  const auto collect = [&](const Argument& p, const Argument& q, bool in_yy) {
    (in_yy ? yy : yx).push_back(Key(p.block, q.block));
  };
  if (has_sparse_hessian_) {
    for (int i = 0; i < static_cast<int>(y_->blocks().size()); ++i) yy.push_back(Key(i, i));
    for (const Residual& r : residuals_) {
      ForEachHessianBlock(r.first, r.num_arguments + r.num_thetas, collect);
    }
    for (const Term& t : terms_) ForEachHessianBlock(t.first, t.num_arguments, collect);
  }
  SortUniquely(&yy);
  SortUniquely(&yx);
  std::vector<int> yy_bases, yx_bases;
  const int n = y_->tangent_size(), m = x_->tangent_size();
  LayOut(y_->blocks(), y_->blocks(), yy, true, n, n, &yy_, &yy_bases);
  LayOut(y_->blocks(), x_->blocks(), yx, false, n, m, &yx_, &yx_bases);
  if (has_sparse_hessian_) {
    const auto locate = [&](const Argument& p, const Argument& q, bool in_yy) {
      const std::vector<int64_t>& pairs = in_yy ? yy : yx;
      const auto pair = std::lower_bound(pairs.begin(), pairs.end(), Key(p.block, q.block));
      slots_.push_back((in_yy ? yy_bases : yx_bases)[pair - pairs.begin()]);
    };
    for (Residual& r : residuals_) {
      r.first_slot = static_cast<int>(slots_.size());
      ForEachHessianBlock(r.first, r.num_arguments + r.num_thetas, locate);
    }
    for (Term& t : terms_) {
      t.first_slot = static_cast<int>(slots_.size());
      ForEachHessianBlock(t.first, t.num_arguments, locate);
    }
  }
  // There may be millions.
  residuals_.shrink_to_fit();
  arguments_.shrink_to_fit();
  slots_.shrink_to_fit();
}

// A residual's variables, by block.
void LevelFunction::LayOutRows(Argument::Kind kind, RowSparseMatrix* matrix) const {
  const Space& space = kind == Argument::kX ? *x_ : *y_;
  const int64_t nonzeros = row_nonzeros_[kind];
  if (matrix->rows() == num_rows_ && matrix->cols() == space.tangent_size() &&
      matrix->nonZeros() == nonzeros) {
    return;
  }
  *matrix = RowSparseMatrix(num_rows_, space.tangent_size());
  matrix->reserve(nonzeros);
  std::vector<int> blocks;
  for (const Residual& r : residuals_) {
    blocks.clear();
    for (int p = r.first; p < r.first + r.num_arguments; ++p) {
      if (arguments_[p].kind == kind) blocks.push_back(arguments_[p].block);
    }
    std::sort(blocks.begin(), blocks.end());
    for (int row = r.row; row < r.row + r.num_residuals; ++row) {
      matrix->startVec(row);
      for (const int b : blocks) {
        const Space::Block& block = space.blocks()[b];
        for (int j = 0; j < block.tangent_size; ++j) {
          matrix->insertBack(row, block.tangent_offset + j) = 0.0;
        }
      }
    }
  }
  matrix->finalize();
}

std::vector<int> LevelFunction::DrawnFrom() const {
  std::vector<int> sizes;
  if (num_drawn() > 0) sizes.push_back(num_drawn());
  for (const Term& t : terms_) {
    if (t.objective->num_terms() != 1) sizes.push_back(t.objective->num_terms());
  }
  return sizes;
}

long LevelFunction::NumSamples(const Batch& batch) const {
  long sum = batch.all() ? num_residual_blocks()
                         : static_cast<long>(always_.size()) +
                               (num_drawn() > 0 ? batch.Count(num_drawn()) : 0);
  for (const Term& t : terms_) {
    const int n = t.objective->num_terms();
    sum += n == 1 ? 1 : batch.Count(n);
  }
  return sum;
}

bool LevelFunction::ResidualsUseY() const {
  return CanLinearize() && row_nonzeros_[Argument::kY] > 0;
}

bool LevelFunction::has_importance() const {
  return importance_ || std::any_of(terms_.begin(), terms_.end(), [](const Term& t) {
           return t.objective->importance() != nullptr;
         });
}

int LevelFunction::num_exact_blocks() const {
  return static_cast<int>(std::count_if(
      residuals_.begin(), residuals_.end(), [](const Residual& r) { return r.exact != nullptr; }));
}

}  // namespace bilevel
