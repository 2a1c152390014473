#include "bilevel/program/internal/evaluation.h"

namespace bilevel {

std::string CheckDraw(const Batch& batch, int num_terms) {
  if (batch.all() || num_terms == 0) return "";
  if (batch.sampling == Batch::kDistinct && batch.size > num_terms) {
    return "has " + std::to_string(num_terms) + " terms, too few to draw " +
           std::to_string(batch.size) + " without replacement";
  }
  if (batch.sampling == Batch::kBlock && batch.Term(0, num_terms) >= num_terms) {
    return "has no block " + std::to_string(batch.position) + " of " + std::to_string(batch.size) +
           " terms: they are " + std::to_string(num_terms);
  }
  if (batch.importance && batch.sampling != Batch::kIndependent &&
      batch.sampling != Batch::kBlock) {
    return "has sampling weights, which independent draws only can honour";
  }
  return "";
}

}  // namespace bilevel
