#include "bilevel/lower_level/internal/schur_of_rows.h"

#include <algorithm>
#include <utility>

#include "bilevel/lower_level/internal/supernodal_factor.h"

namespace bilevel {
namespace {

using Supernode = SupernodalFactor::Supernode;

bool BySolves(const RowSparseMatrix& b,
              const std::vector<int>& rows,
              HessianSystem* system,
              Matrix* s) {
  Matrix columns = Matrix::Zero(b.cols(), rows.size()), solution;
  for (size_t k = 0; k < rows.size(); ++k) columns.col(k) = b.row(rows[k]).transpose();
  if (!system->Solve(columns, &solution)) return false;
  for (size_t k = 0; k < rows.size(); ++k) s->row(k) = b.row(rows[k]) * solution;
  return true;
}

// One pass up the tree.
class Ascent {
 public:
  Ascent(const RowSparseMatrix& b, const std::vector<int>& rows, const Factorization& h)
      : visitors_(), b_(b), rows_(rows), h_(h) {
    h.CopyFactor(&f_);
    visitors_.resize(f_.supernodes.size());
    first_.assign(f_.supernodes.size(), -1);
  }

  void Run(Matrix* s) {
    FindVisitors();
    FillIn();
    s->setZero();
    for (size_t k = 0; k < f_.supernodes.size(); ++k) {
      if (!visitors_[k].empty()) Climb(f_.supernodes[k], visitors_[k], s);
    }
  }

 private:
  // Which of the rows come through a supernode, and where its part of F begins.
  void FindVisitors() {
    for (size_t k = 0; k < rows_.size(); ++k) {
      for (RowSparseMatrix::InnerIterator it(b_, rows_[k]); it; ++it) {
        if (h_.is_fixed(static_cast<int>(it.col()))) continue;
        int at = f_.supernode_of[f_.position[it.col()]];
        for (;;) {
          std::vector<int>& visitors = visitors_[at];
          if (!visitors.empty() && visitors.back() == static_cast<int>(k)) break;
          visitors.push_back(static_cast<int>(k));
          const Supernode& s = f_.supernodes[at];
          if (s.num_below() == 0) break;
          at = f_.supernode_of[f_.rows[s.first_row + s.num_columns]];
        }
      }
    }
    int height = 0;
    for (size_t k = 0; k < f_.supernodes.size(); ++k) {
      if (visitors_[k].empty()) continue;
      first_[k] = height;
      height += f_.supernodes[k].num_columns;
    }
    forward_.setZero(height, rows_.size());
  }

  int Place(int row) const {
    const int k = f_.supernode_of[row];
    return first_[k] + row - f_.supernodes[k].first;
  }

  void FillIn() {
    for (size_t k = 0; k < rows_.size(); ++k) {
      for (RowSparseMatrix::InnerIterator it(b_, rows_[k]); it; ++it) {
        const int j = static_cast<int>(it.col());
        if (!h_.is_fixed(j)) forward_(Place(f_.position[j]), k) = it.value() / h_.scale()[j];
      }
    }
  }

  // The supernode's part of F for all that come through it, what S has of that, and what they carry
  // on.
  void Climb(const Supernode& node, const std::vector<int>& visitors, Matrix* s) {
    const int w = node.num_columns, first = first_[&node - f_.supernodes.data()];
    const SupernodalFactor::ConstBlock l = std::as_const(f_).block(node);
    part_ = forward_.middleRows(first, w)(Eigen::all, visitors);
    l.topRows(w).triangularView<Eigen::Lower>().solveInPlace(part_);
    product_.noalias() = part_.transpose() * part_;
    for (size_t j = 0; j < visitors.size(); ++j) {
      for (size_t i = 0; i < visitors.size(); ++i) (*s)(visitors[i], visitors[j]) += product_(i, j);
    }
    carried_.noalias() = l.bottomRows(node.num_below()) * part_;
    for (int i = 0; i < node.num_below(); ++i) {
      const int place = Place(f_.rows[node.first_row + w + i]);
      for (size_t j = 0; j < visitors.size(); ++j) forward_(place, visitors[j]) -= carried_(i, j);
    }
  }

  SupernodalFactor f_;
  std::vector<std::vector<int>> visitors_;  // By supernode.
  std::vector<int> first_;                  // Into forward_; -1: nobody comes.
  Matrix forward_;                          // F, of supernodes with visitors.
  Matrix part_, product_, carried_;
  const RowSparseMatrix& b_;
  const std::vector<int>& rows_;
  const Factorization& h_;
};

}  // namespace

bool SchurOfRows(const RowSparseMatrix& b,
                 const std::vector<int>& rows,
                 HessianSystem* system,
                 Matrix* s) {
  s->resize(rows.size(), rows.size());
  if (rows.empty()) return true;
  if (system->is_singular() || system->factorization().elimination()) {
    return BySolves(b, rows, system, s);
  }
  Ascent(b, rows, system->factorization()).Run(s);
  return true;
}

}  // namespace bilevel
