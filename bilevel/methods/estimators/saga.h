#ifndef BILEVEL_METHODS_ESTIMATORS_SAGA_H_
#define BILEVEL_METHODS_ESTIMATORS_SAGA_H_

#include <string>

#include "bilevel/base/memory.h"
#include "bilevel/program/space.h"

namespace bilevel {

/// SAGA (Defazio, Bach and Lacoste-Julien, NeurIPS 2014) for a map G = mean of G_i over N entries,
/// each of which remembers its last value M_i:
///
///   d = G_i - M_i + mean(M),    then  M_i <- G_i
///
/// Memory: N times the length of G, of doubles. Entries begin at zero.
class Saga {
 public:
  void Start(int num_entries, int size) {
    table_.setZero(size, num_entries);
    mean_.setZero(size);
    lost_.setZero(size);
    d_.setZero(size);
  }
  void Remember(const std::string& name, Memory* memory) {
    const Memory::Group group(memory, name);
    memory->Keep("table", &table_);
    memory->Keep("mean", &mean_);
    memory->Keep("lost", &lost_);
  }
  const Vector& Next(int entry, const Vector& g) {
    const double share = 1.0 / static_cast<double>(table_.cols());
    for (Eigen::Index k = 0; k < g.size(); ++k) {
      const double change = g[k] - table_(k, entry);
      d_[k] = change + mean_[k];  // The mean before this entry's change.
      // Kahan's summation: rounding must not add up over millions of updates.
      const double add = share * change - lost_[k], sum = mean_[k] + add;
      lost_[k] = (sum - mean_[k]) - add;
      mean_[k] = sum;
      table_(k, entry) = g[k];
    }
    return d_;
  }

 private:
  Matrix table_;
  Vector mean_, lost_, d_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_SAGA_H_
