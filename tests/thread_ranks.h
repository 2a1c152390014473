#ifndef BILEVEL_TESTS_THREAD_RANKS_H_
#define BILEVEL_TESTS_THREAD_RANKS_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "bilevel/base/ranks.h"

namespace bilevel {

/// Ranks that are threads of this process, for tests: what MPI has to do, without it.
class ThreadRanks {
 public:
  /// body(ranks) on so many threads. Who returns leaves, as mpi::Ranks does.
  static void Run(int size, const std::function<void(Ranks*)>& body) {
    ThreadRanks all(size);
    std::vector<std::thread> threads;
    for (int r = 0; r < size; ++r) {
      threads.emplace_back([&all, &body, r] {
        One one(&all, r);
        body(&one);
        if (one.are_apart()) return;
        try {
          one.Gather("where it leaves", 0, "");
        } catch (const std::exception&) {
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  explicit ThreadRanks(int size) : in_(size) {}

  class One final : public Ranks {
   public:
    One(ThreadRanks* all, int rank) : all_(*all), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return static_cast<int>(all_.in_.size()); }

   private:
    std::vector<std::string> Exchange(const std::string& own) override {
      std::unique_lock<std::mutex> lock(all_.mutex_);
      all_.in_[rank_] = own;
      const long turn = all_.turn_;
      if (++all_.num_in_ == size()) {
        all_.out_ = all_.in_;
        all_.num_in_ = 0;
        ++all_.turn_;
        all_.wake_.notify_all();
      } else {
        all_.wake_.wait(lock, [&] { return all_.turn_ != turn; });
      }
      return all_.out_;  // The next turn cannot end before all have it: each hands in once a turn.
    }
    ThreadRanks& all_;
    const int rank_;
  };

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::string> in_, out_;
  int num_in_ = 0;
  long turn_ = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_TESTS_THREAD_RANKS_H_
