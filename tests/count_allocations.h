#ifndef BILEVEL_TESTS_COUNT_ALLOCATIONS_H_
#define BILEVEL_TESTS_COUNT_ALLOCATIONS_H_

// Replaces the program's operator new by one that counts: to be included by one file of a program.

#include <atomic>
#include <cstdlib>
#include <new>

static std::atomic<long> allocations{0};

__attribute__((noinline)) void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

#endif  // BILEVEL_TESTS_COUNT_ALLOCATIONS_H_
