#include "bilevel/internal/join_ranks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bilevel/base/internal/bookkeeping.h"

namespace bilevel {
namespace {

// To the last bit.
std::string Exactly(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.17g", value);
  return text;
}

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    lines.push_back(text.substr(begin, end - begin));
  }
  return lines;
}

// Scenarios and x, as all ranks must have them.
std::vector<std::string> Describe(const std::vector<DeclaredScenario>& declared,
                                  const Program& program) {
  std::vector<std::string> lines{std::to_string(declared.size() - 1) + " scenarios added"};
  for (size_t i = 1; i < declared.size(); ++i) {
    lines.push_back("scenario " + std::to_string(i - 1) + " '" + declared[i].name + "' of weight " +
                    Exactly(declared[i].weight));
  }
  const Space& x = program.x;
  lines.push_back(std::to_string(x.blocks().size()) + " blocks of x");
  for (const Space::Block& block : x.blocks()) {
    lines.push_back(block.name + " of size " + std::to_string(block.size) + " and tangent size " +
                    std::to_string(block.tangent_size));
    for (int i = 0; i < block.size; ++i) {
      lines.push_back(block.name + "[" + std::to_string(i) + "] = " + Exactly(block.user[i]));
    }
  }
  for (int j = 0; j < x.tangent_size(); ++j) {
    if (!std::isfinite(x.LowerBound(j)) && !std::isfinite(x.UpperBound(j))) continue;
    lines.push_back(x.BlockOf(j).name + " in [" + Exactly(x.LowerBound(j)) + ", " +
                    Exactly(x.UpperBound(j)) + "]");
  }
  return lines;
}

std::string NameOf(const std::vector<DeclaredScenario>& declared, size_t i) {
  return i == 0 ? "the first scenario (Problem::lower(), upper())"
                : "scenario '" + declared[i].name + "'";
}

// The rank of every scenario that is declared; -1: of one without residual blocks and terms that
// may be so. Returns what is wrong, in a sentence, or nothing.
std::string FindOwners(const std::vector<DeclaredScenario>& declared,
                       Ranks* ranks,
                       std::vector<int>* owners) {
  std::string built;
  for (const DeclaredScenario& scenario : declared) built += scenario.is_built ? '1' : '0';
  const std::vector<std::string> all = ranks->Gather("dealing out scenarios", 0, built);
  owners->assign(declared.size(), -1);
  for (size_t i = 0; i < declared.size(); ++i) {
    for (size_t r = 0; r < all.size(); ++r) {
      if (all[r][i] == '0') continue;
      int& owner = (*owners)[i];
      if (owner >= 0) {
        return NameOf(declared, i) + " is on rank " + std::to_string(owner) + " and on rank " +
               std::to_string(r) + ": it must be on one";
      }
      owner = static_cast<int>(r);
    }
    if ((*owners)[i] < 0 && i > 0 && declared[i].weight != 0.0) {
      return NameOf(declared, i) + " is on no rank: it has no residual block and no term";
    }
  }
  for (size_t r = 0; r < all.size(); ++r) {
    if (all[r].find('1') != std::string::npos) continue;
    return "rank " + std::to_string(r) + " has no scenario: there are " +
           std::to_string(all.size()) + " ranks for " +
           std::to_string(owners->size() - std::count(owners->begin(), owners->end(), -1));
  }
  return "";
}

}  // namespace

std::string DifferenceBetween(Ranks* ranks,
                              const std::string& step,
                              const std::vector<std::string>& lines) {
  std::string own;
  for (const std::string& line : lines) own += line + "\n";
  const std::vector<std::string> all = ranks->Gather(step, 0, own);
  const auto line = [](const std::vector<std::string>& of, size_t i) {
    return i < of.size() ? of[i] : std::string("no more");
  };
  const std::vector<std::string> first = Split(all[0]);
  for (size_t r = 1; r < all.size(); ++r) {
    const std::vector<std::string> other = Split(all[r]);
    for (size_t i = 0; i < std::max(first.size(), other.size()); ++i) {
      if (line(first, i) == line(other, i)) continue;
      return "rank " + std::to_string(r) + " has " + line(other, i) + ", and rank 0 " +
             line(first, i);
    }
  }
  return "";
}

bool JoinRanks(Ranks* ranks,
               const std::vector<DeclaredScenario>& declared,
               Program* program,
               std::string* error) {
  *error = Exchange(ranks, {}).Complaint("laying out the problem", *error);
  if (!error->empty()) return false;
  *error = DifferenceBetween(ranks, "comparing problems", Describe(declared, *program));
  if (!error->empty()) return false;
  std::vector<int> all_owners, owners;
  *error = FindOwners(declared, ranks, &all_owners);
  if (!error->empty()) return false;
  size_t next = 0;
  for (const int owner : all_owners) {
    if (owner < 0) continue;
    if (owner == ranks->rank()) {
      program->scenarios[next++]->index = static_cast<int>(owners.size());
    }
    owners.push_back(owner);
  }
  if (ranks->size() == 1) return true;  // A process alone.
  const std::string constraint = program->FirstConstraint();
  program->exchange = Exchange(ranks, owners);
  const std::vector<std::string> constraints = ranks->Gather("joining", 0, constraint);
  for (auto it = constraints.rbegin(); it != constraints.rend(); ++it) {
    if (!it->empty()) program->constraint_of_ranks = *it;
  }
  return true;
}

}  // namespace bilevel
