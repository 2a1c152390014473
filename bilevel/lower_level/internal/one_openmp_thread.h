#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_ONE_OPENMP_THREAD_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_ONE_OPENMP_THREAD_H_

#if defined(__linux__)
// Of the OpenMP runtime that came with CHOLMOD, if any.
extern "C" {
int omp_get_max_active_levels(void) __attribute__((weak));
void omp_set_max_active_levels(int) __attribute__((weak));
}
#endif

namespace bilevel {

/// While it lives, OpenMP regions of this thread run on this thread alone. CHOLMOD opens one of
/// four threads for each supernode, whatever the number of cores: starting and joining them costs
/// as much as the whole factorisation of a graph of thousands of poses, and nests badly in ours.
class OneOpenMpThread {
 public:
#if defined(__linux__)
  OneOpenMpThread() {
    if (!omp_get_max_active_levels || !omp_set_max_active_levels) return;
    levels_ = omp_get_max_active_levels();
    omp_set_max_active_levels(0);
  }
  ~OneOpenMpThread() {
    if (levels_ >= 0) omp_set_max_active_levels(levels_);
  }
#else
  OneOpenMpThread() = default;
#endif
  OneOpenMpThread(const OneOpenMpThread&) = delete;
  OneOpenMpThread& operator=(const OneOpenMpThread&) = delete;

 private:
  int levels_ = -1;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_ONE_OPENMP_THREAD_H_
