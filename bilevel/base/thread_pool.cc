#include "bilevel/base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace bilevel {
namespace {

thread_local bool inside_a_loop = false;

}  // namespace

struct ThreadPool::Shared {
  std::mutex one_loop_at_a_time;
  std::mutex mutex;
  std::condition_variable wake, done;
  std::vector<std::thread> threads;
  const std::function<void(int, int)>* body = nullptr;
  int n = 0, grain = 1;
  std::atomic<int> next{0};
  int generation = 0, running = 0;
  bool stop = false;
  std::exception_ptr error;

  void Work(int worker) {
    inside_a_loop = true;
    try {
      for (int begin; (begin = next.fetch_add(grain)) < n;) {
        for (int i = begin; i < std::min(begin + grain, n); ++i) (*body)(worker, i);
      }
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
      next = n;
    }
    inside_a_loop = false;
  }
};

ThreadPool::ThreadPool(int num_threads)
    : num_threads_(std::max(1, num_threads)), shared_(std::make_unique<Shared>()) {
  Shared* shared = shared_.get();
  const auto live = [shared](int worker) {
    for (int seen = 0;;) {
      {
        std::unique_lock<std::mutex> lock(shared->mutex);
        shared->wake.wait(lock, [&] { return shared->stop || shared->generation != seen; });
        if (shared->stop) return;
        seen = shared->generation;
      }
      shared->Work(worker);
      std::lock_guard<std::mutex> lock(shared->mutex);
      if (--shared->running == 0) shared->done.notify_one();
    }
  };
  try {
    for (int worker = 1; worker < num_threads_; ++worker) {
      shared->threads.emplace_back(live, worker);
    }
  } catch (const std::system_error&) {  // The system gives no more.
    num_threads_ = static_cast<int>(shared->threads.size()) + 1;
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->stop = true;
  }
  shared_->wake.notify_all();
  for (std::thread& thread : shared_->threads) thread.join();
}

void ThreadPool::ParallelFor(int n, int grain, const std::function<void(int, int)>& body) {
  if (inside_a_loop || num_threads_ == 1 || n <= grain) {
    for (int i = 0; i < n; ++i) body(0, i);
    return;
  }
  std::lock_guard<std::mutex> one_loop(shared_->one_loop_at_a_time);
  {
    std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->body = &body;
    shared_->n = n;
    shared_->grain = grain;
    shared_->next = 0;
    shared_->running = num_threads_ - 1;
    shared_->error = nullptr;
    ++shared_->generation;
  }
  shared_->wake.notify_all();
  shared_->Work(0);
  std::unique_lock<std::mutex> lock(shared_->mutex);
  shared_->done.wait(lock, [&] { return shared_->running == 0; });
  if (shared_->error) std::rethrow_exception(shared_->error);
}

}  // namespace bilevel
