#ifndef BILEVEL_BASE_THREAD_POOL_H_
#define BILEVEL_BASE_THREAD_POOL_H_

#include <functional>
#include <memory>

namespace bilevel {

/// A fixed set of threads for loops, fewer where the system gives no more. A loop started from
/// inside a loop runs on its caller's thread, so callers need not know who calls them.
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();

  int num_threads() const { return num_threads_; }

  /// Calls body(worker, i) once for every i in [0, n), in no particular order, in contiguous
  /// pieces of `grain`; worker in [0, num_threads) is exclusive while it runs. The first exception
  /// is rethrown here after all threads have stopped.
  void ParallelFor(int n, int grain, const std::function<void(int worker, int i)>& body);

 private:
  struct Shared;
  int num_threads_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace bilevel

#endif  // BILEVEL_BASE_THREAD_POOL_H_
