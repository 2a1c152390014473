#ifndef BILEVEL_TESTS_COUNT_ALLOCATIONS_H_
#define BILEVEL_TESTS_COUNT_ALLOCATIONS_H_

// Replaces the program's operator new by one that counts: to be included by one file of a program.
// The thread sanitizer has its own, which cannot be replaced: nothing is counted there.

#include <atomic>
#include <cstdlib>
#include <new>

static std::atomic<long> allocations{0};

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BILEVEL_TEST_HAS_OWN_NEW
#endif
#endif
#if defined(BILEVEL_TEST_HAS_OWN_NEW) || defined(__SANITIZE_THREAD__)
constexpr bool kCountsAllocations = false;
#else
constexpr bool kCountsAllocations = true;

__attribute__((noinline)) void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void* operator new(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  const std::size_t align = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(align, (size + align - 1) / align * align)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
__attribute__((noinline)) void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
__attribute__((noinline)) void operator delete(void* memory,
                                               std::size_t,
                                               std::align_val_t) noexcept {
  std::free(memory);
}
#endif

#endif  // BILEVEL_TESTS_COUNT_ALLOCATIONS_H_
