#ifndef BILEVEL_METHODS_ESTIMATORS_RECURSION_H_
#define BILEVEL_METHODS_ESTIMATORS_RECURSION_H_

#include <string>

#include "bilevel/base/memory.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/space.h"

namespace bilevel {

/// Recursive variance reduction of a map G of iterates w = (x, y, z), over samples s:
///
///   d_0 = G(w_0; s),    d_t = G(w_t; s) + (1 - eta_t) (d_{t-1} - G(w_{t-1}; s))
///
/// one sample at both points. STORM (Cutkosky and Orabona, NeurIPS 2019) with eta in (0, 1];
/// SARAH and SPIDER (Nguyen et al., ICML 2017; Fang et al., NeurIPS 2018) with eta = 0, begun anew
/// at full or large batches. Dense; G is not preconditioned, so its metric may change in between.
class Recursion {
 public:
  /// evaluate(x, y, z, Vector* G) is called twice with the same samples, once after Restart().
  template <typename Evaluate>
  const Vector& Next(
      double eta, const Point& x, const Point& y, const Vector& z, Evaluate evaluate) {
    evaluate(x, y, z, &now_);
    if (begun_) {
      evaluate(x_, y_, z_, &before_);
      d_ = now_ + (1.0 - eta) * (d_ - before_);
    } else {
      d_ = now_;
      begun_ = true;
    }
    x_ = x;
    y_ = y;
    z_ = z;
    return d_;
  }
  /// The next d is G itself.
  void Restart() { begun_ = false; }
  void Remember(const std::string& name, const Oracle& oracle, Memory* memory) {
    const Memory::Group group(memory, name);
    memory->Keep("begun", &begun_);
    x_.Remember("x", oracle.program().x, memory);
    y_.Remember("y", oracle.program().y, memory);
    memory->Keep("z", &z_);
    memory->Keep("d", &d_);
  }

 private:
  bool begun_ = false;
  Point x_, y_;
  Vector z_, d_, now_, before_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_RECURSION_H_
