#include "bilevel/program/exchange.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "bilevel/terms/batch.h"

namespace bilevel {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

std::string Bytes(const MatrixXd& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double)};
}

std::string OnRank(int rank) { return " (on rank " + std::to_string(rank) + ")"; }

// Of a point, to tell by that ranks are not at the same; 0: of none.
uint64_t KeyOf(const VectorXd* x) {
  uint64_t key = 0;
  for (Eigen::Index i = 0; x && i < x->size(); ++i) {
    uint64_t bits;
    std::memcpy(&bits, &(*x)[i], sizeof(bits));
    key = Mix(key + bits);
  }
  return key;
}

void CheckSize(const std::vector<std::string>& ranks, int rank, size_t least) {
  if (ranks[rank].size() >= least) return;
  throw std::runtime_error("rank " + std::to_string(rank) + " hands in less than it should");
}

// One after the other, each after its length.
std::string Pack(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) {
    const uint64_t size = text.size();
    all.append(reinterpret_cast<const char*>(&size), sizeof(size));
    all += text;
  }
  return all;
}

std::string Next(const std::string& all, size_t* at) {
  uint64_t size;
  std::memcpy(&size, all.data() + *at, sizeof(size));
  *at += sizeof(size) + size;
  return all.substr(*at - size, size);
}

}  // namespace

Exchange::Exchange(Ranks* ranks, std::vector<int> owners)
    : ranks_(ranks),
      owners_(std::make_shared<const std::vector<int>>(std::move(owners))),
      count_(static_cast<int>(owners_->size())) {}

Exchange Exchange::Part(int first, int count) const {
  Exchange part = *this;
  if (is_alone()) return part;
  part.first_ += first;
  part.count_ = count;
  return part;
}

MatrixXd Exchange::Columns(const char* step, const VectorXd* x, const MatrixXd& own) const {
  if (is_alone()) return own;
  const std::vector<std::string> ranks = ranks_->Gather(step, KeyOf(x), Bytes(own));
  MatrixXd all(own.rows(), count_);
  const size_t size = own.rows() * sizeof(double);
  std::vector<size_t> at(ranks.size());
  for (int s = 0; s < count_; ++s) {
    const int rank = (*owners_)[first_ + s];
    CheckSize(ranks, rank, at[rank] + size);
    std::memcpy(all.col(s).data(), ranks[rank].data() + at[rank], size);
    at[rank] += size;
  }
  return all;
}

std::vector<std::string> Exchange::Texts(const char* step,
                                         const std::vector<std::string>& own) const {
  if (is_alone()) return own;
  const std::vector<std::string> ranks = ranks_->Gather(step, 0, Pack(own));
  std::vector<std::string> all;
  std::vector<size_t> at(ranks.size());
  for (int s = 0; s < count_; ++s) {
    const int rank = (*owners_)[first_ + s];
    all.push_back(Next(ranks[rank], &at[rank]));
  }
  return all;
}

std::string Exchange::FromOwner(int scenario, const std::string& own) const {
  if (is_alone()) return own;
  const int owner = (*owners_)[first_ + scenario];
  const bool is_mine = owner == ranks_->rank();
  return ranks_->Gather("naming a culprit", 0, is_mine ? own : "")[owner];
}

std::string Exchange::Signed(const std::string& text) const {
  return is_alone() ? text : text + OnRank(ranks_->rank());
}

std::string Exchange::Complaint(const std::string& step, const std::string& own) const {
  if (is_alone()) return own;
  const std::vector<std::string> all = ranks_->Gather(step, 0, own);
  for (size_t r = 0; r < all.size(); ++r) {
    if (!all[r].empty()) return all[r] + OnRank(static_cast<int>(r));
  }
  return "";
}

MatrixXd Exchange::ByRank(const char* step, const VectorXd* x, const VectorXd& own) const {
  if (is_alone()) return own;
  const std::vector<std::string> ranks = ranks_->Gather(step, KeyOf(x), Bytes(own));
  MatrixXd all(own.size(), ranks.size());
  for (int r = 0; r < all.cols(); ++r) {
    CheckSize(ranks, r, own.size() * sizeof(double));
    std::memcpy(all.col(r).data(), ranks[r].data(), own.size() * sizeof(double));
  }
  return all;
}

bool Exchange::All(bool own) const {
  return is_alone() ? own : ByRank("agreeing", nullptr, VectorXd::Constant(1, own)).minCoeff() > 0;
}

double Exchange::Largest(double own) const {
  return is_alone() ? own : ByRank("comparing", nullptr, VectorXd::Constant(1, own)).maxCoeff();
}

}  // namespace bilevel
