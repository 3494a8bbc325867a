// Loads one allocator's library into this process and finds its functions.
//
// Used inside the replay worker and the conformance probe, so libc alone: no Abseil, no exceptions, and
// nothing is allocated but by dlopen. The library is never unloaded.

#ifndef HEAPTAPE_ALLOCATORS_LOADER_H_
#define HEAPTAPE_ALLOCATORS_LOADER_H_

#include <cstddef>

#include "allocators/allocator.h"

namespace heaptape {

struct LoadedAllocator {
  AllocatorFunctions functions;
  void* handle = nullptr;       // of dlopen
  char library_path[4096] = {};  // the file that was mapped
  char build_id[64] = {};       // hex digits of its GNU build id; empty if it has none
};

// `library_path` is absolute, or empty for the malloc of the C library this process runs under. `prefix`
// stands before each name ("je_"). False with one sentence in `error` when the file cannot be loaded or
// does not itself define malloc and free.
bool LoadAllocator(const char* library_path, const char* prefix, LoadedAllocator& result, char* error,
                   std::size_t error_bytes);

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_LOADER_H_
