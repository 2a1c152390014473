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
  const Vector& Next(int entry, const Vector& g) { return Next(entry, g, g); }
  /// d of g, and M_i <- memory.
  const Vector& Next(int entry, const Vector& g, const Vector& memory) {
    const double share = 1.0 / static_cast<double>(table_.cols());
    for (Eigen::Index k = 0; k < g.size(); ++k) {
      d_[k] = g[k] - table_(k, entry) + mean_[k];  // The mean before this entry's change.
      // Kahan's summation: rounding must not add up over millions of updates.
      const double change = memory[k] - table_(k, entry);
      const double add = share * change - lost_[k], sum = mean_[k] + add;
      lost_[k] = (sum - mean_[k]) - add;
      mean_[k] = sum;
      table_(k, entry) = memory[k];
    }
    return d_;
  }
  int num_entries() const { return static_cast<int>(table_.cols()); }

 private:
  Matrix table_;
  Vector mean_, lost_, d_;
};

/// ZeroSARAH (Li, Hanzely and Richtarik, 2021), which never sums all of G: from w to w', one entry
/// at both,
///
///   d <- G_i(w') - G_i(w) + (1 - lambda) d + lambda (G_i(w) - M_i + mean(M)),  M_i <- G_i(w')
///
/// with lambda = 1 / (2 N), and d = G_i(w') at first.
class ZeroSarah {
 public:
  void Start(int num_entries, int size) {
    table_.Start(num_entries, size);
    d_.setZero(size);
    begun_ = false;
  }
  void Remember(const std::string& name, Memory* memory) {
    const Memory::Group group(memory, name);
    table_.Remember("table", memory);
    memory->Keep("d", &d_);
    memory->Keep("begun", &begun_);
  }
  /// before: G_i(w); anything at first.
  const Vector& Next(int entry, const Vector& g, const Vector& before) {
    const double lambda = 0.5 / table_.num_entries();
    if (begun_) {
      d_ = g - before + (1.0 - lambda) * d_ + lambda * table_.Next(entry, before, g);
    } else {
      d_ = table_.Next(entry, g);
      begun_ = true;
    }
    return d_;
  }

 private:
  Saga table_;
  Vector d_;
  bool begun_ = false;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_SAGA_H_
