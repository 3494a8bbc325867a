// The functions of one allocator under test, as a table of plain pointers.
//
// Used inside the replay worker, so libc alone: no Abseil, no exceptions. A NULL entry means that the
// library does not have the function; the engine then refuses traces that need it or uses the documented
// substitute (aligned_alloc for posix_memalign and the like).

#ifndef HEAPTAPE_ALLOCATORS_ALLOCATOR_H_
#define HEAPTAPE_ALLOCATORS_ALLOCATOR_H_

#include <cstddef>

namespace heaptape {

struct AllocatorFunctions {
  void* (*malloc)(std::size_t) = nullptr;
  void* (*calloc)(std::size_t, std::size_t) = nullptr;
  void* (*realloc)(void*, std::size_t) = nullptr;
  void (*free)(void*) = nullptr;
  int (*posix_memalign)(void**, std::size_t, std::size_t) = nullptr;
  void* (*aligned_alloc)(std::size_t, std::size_t) = nullptr;
  void* (*memalign)(std::size_t, std::size_t) = nullptr;
  void* (*valloc)(std::size_t) = nullptr;
  void* (*pvalloc)(std::size_t) = nullptr;
  std::size_t (*malloc_usable_size)(void*) = nullptr;
  int (*malloc_trim)(std::size_t) = nullptr;
  int (*mallopt)(int, int) = nullptr;
};

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_ALLOCATOR_H_
