#include "bilevel/internal/check_program.h"

#include <algorithm>
#include <functional>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/vector_passes.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/terms/learnable_loss.h"

namespace bilevel {
namespace {

void SortByMemory(std::vector<const Space::Block*>* blocks) {
  std::sort(blocks->begin(), blocks->end(), [](const Space::Block* a, const Space::Block* b) {
    return std::less<const double*>()(a->user, b->user);
  });
}

std::string CheckOverlap(const Program& program) {
  std::vector<const Space::Block*> blocks;
  for (const Space* space : {&program.x, &program.y}) {
    for (const Space::Block& block : space->blocks()) blocks.push_back(&block);
  }
  SortByMemory(&blocks);
  for (size_t i = 1; i < blocks.size(); ++i) {
    if (!std::less<const double*>()(blocks[i]->user, blocks[i - 1]->user + blocks[i - 1]->size)) {
      continue;
    }
    return blocks[i - 1]->name + " and " + blocks[i]->name + " overlap in memory";
  }
  return "";
}

// A block of x nothing depends on cannot be learned, and is often one hidden in a loss.
std::string CheckUse(const Program& program, bool need_f) {
  // By rank: terms of f; and for every block of x whether it is used.
  const size_t num_blocks = program.x.blocks().size();
  Vector counts = Vector::Zero(1 + num_blocks);
  for (const auto& s : program.scenarios) {
    counts[0] += s->f->num_residual_blocks() + s->f->num_terms();
    for (size_t b = 0; b < num_blocks; ++b) {
      counts[1 + b] += s->f->UsesX(static_cast<int>(b)) || s->g->UsesX(static_cast<int>(b)) ||
                       (s->constraints && s->constraints->UsesX(static_cast<int>(b)));
    }
  }
  counts = program.exchange.ByRank("checking the problem", nullptr, counts).rowwise().sum();
  if (need_f && counts[0] == 0.0) {
    return "the upper level is empty: it has no residual block and no term";
  }
  for (size_t b = 0; b < num_blocks; ++b) {
    if (counts[1 + b] > 0.0) continue;
    return program.x.blocks()[b].name +
           " appears in no residual block, term or learnable loss (inside a "
           "ceres::ScaledLoss or ceres::ComposedLoss a learnable loss cannot be seen: use "
           "the bilevel ones)";
  }
  return "";
}

std::string CheckValues(const Program& program) {
  for (const Space* space : {&program.x, &program.y}) {
    for (const Space::Block& block : space->blocks()) {
      if (!AllFinite(block.user, block.size)) {
        return "the start of " + block.name + " is not finite";
      }
    }
  }
  Vector x(program.x.size());
  program.x.ReadUser(x.data());
  for (const auto& s : program.scenarios) {
    Vector y(s->y.size()), gx(program.x.tangent_size()), gy(s->y.tangent_size());
    s->y.ReadUser(y.data());
    for (const LevelFunction* function : {s->g.get(), s->constraints.get(), s->f.get()}) {
      if (!function) continue;
      LevelEvaluator evaluator(function, nullptr);
      double value = 0.0;
      const std::vector<int> sums = function->DrawnFrom();
      const bool stream = std::count(sums.begin(), sums.end(), Objective::kStream) > 0;
      const Batch batch = stream ? Batch{1, 0} : Batch::All();
      if (!evaluator.Gradient(x.data(), y.data(), batch, &value, gx.data(), gy.data())) {
        return "at the start, " + evaluator.error();
      }
    }
  }
  return "";
}

}  // namespace

BlocksInMemory::BlocksInMemory(const Space& space) {
  for (const Space::Block& block : space.blocks()) blocks_.push_back(&block);
  SortByMemory(&blocks_);
}

const Space::Block* BlocksInMemory::Overlapping(const double* values, int size) const {
  const std::less<const double*> before;
  const auto beyond =
      std::partition_point(blocks_.begin(), blocks_.end(), [&](const Space::Block* block) {
        return before(block->user, values + size);
      });
  if (beyond == blocks_.begin()) return nullptr;
  const Space::Block* const last = *(beyond - 1);
  return before(values, last->user + last->size) ? last : nullptr;
}

bool CheckLoss(const ceres::LossFunction* loss,
               const BlocksInMemory& x,
               const Space& y,
               const std::string& suffix,
               std::string* error) {
  const auto* learnable = dynamic_cast<const LearnableLoss*>(loss);
  if (!learnable) return true;
  for (const LearnableLoss::ParameterBlock& theta : learnable->parameter_blocks()) {
    const Space::Block* const block = x.Overlapping(theta.values, theta.size);
    if (block && (theta.values != block->user || theta.size != block->size)) {
      *error = "a learnable loss" + suffix + " has a parameter of size " +
               std::to_string(theta.size) + " that is a part of " + block->name + " of size " +
               std::to_string(block->size) + ", not the whole block";
      return false;
    }
    if (const int b = y.Find(theta.values); b >= 0) {
      *error = "a learnable loss" + suffix + " has the lower-level block " + y.blocks()[b].name +
               " as its parameter: declare it upper, or constant";
      return false;
    }
  }
  return true;
}

bool CheckTerm(const Objective& term,
               const std::vector<int>& sizes,
               const std::string& name,
               std::string* error) {
  std::string complaint = term.CheckBlocks(sizes);
  const int own = term.block_of_terms();
  if (complaint.empty() &&
      (own >= static_cast<int>(sizes.size()) || (own >= 0 && sizes[own] != term.num_terms()))) {
    complaint = "its block_of_terms() must have a coordinate for each term";
  }
  if (!complaint.empty()) *error = name + ": " + complaint;
  return complaint.empty();
}

std::string CheckSamplingWeights(
    const std::unordered_map<ceres::ResidualBlockId, double>& weights,
    const std::vector<const std::vector<ceres::ResidualBlockId>*>& residual_blocks) {
  size_t num_weights = 0;
  for (const auto* ids : residual_blocks) {
    for (ceres::ResidualBlockId id : *ids) num_weights += weights.count(id);
  }
  if (num_weights != weights.size()) {
    return "a sampling weight was given to a residual block that is not in the problem";
  }
  for (const auto& [id, weight] : weights) {
    if (weight > 0.0) continue;
    return "a residual block has the sampling weight " + Number(weight) + ": it must be positive";
  }
  return "";
}

std::string CheckBlock(const double* values,
                       int size,
                       const std::string& name,
                       const std::vector<const ceres::Problem*>& problems,
                       const std::vector<const Space*>& spaces) {
  if (!values || size <= 0) return name + " is a null or empty parameter block";
  for (const ceres::Problem* problem : problems) {
    if (!problem->HasParameterBlock(values) || problem->ParameterBlockSize(values) == size) {
      continue;
    }
    return name + " has size " + std::to_string(size) + " there and " +
           std::to_string(problem->ParameterBlockSize(values)) + " in a ceres::Problem";
  }
  for (const Space* space : spaces) {
    const int index = space->Find(values);
    if (index < 0 || space->blocks()[index].size == size) continue;
    return name + " has size " + std::to_string(size) + " there, but " +
           std::to_string(space->blocks()[index].size) + " as a block of x or y";
  }
  return "";
}

std::string CheckProgram(const Program& program, bool need_f) {
  const std::string use = CheckUse(program, need_f);  // At which ranks meet.
  std::string complaint = CheckOverlap(program);
  if (complaint.empty()) complaint = use;
  if (complaint.empty()) complaint = CheckValues(program);
  return complaint;
}

}  // namespace bilevel
