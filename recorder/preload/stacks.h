// Call stacks of some allocations, taken by the unwinder of libgcc_s.

#ifndef HEAPTAPE_RECORDER_PRELOAD_STACKS_H_
#define HEAPTAPE_RECORDER_PRELOAD_STACKS_H_

#include <dlfcn.h>

#include "recorder/preload/publish.h"

namespace heaptape {

// Loads the unwinder and calls it once: whatever it does at its first call is done here. False: there is none to use.
bool PrepareStacks(const Dl_info& own);

// One stack per so many bytes allocated from now on; 0: none.
void SetStackStep(std::uint64_t bytes);

// True where StackIsDue() is to be asked. Not for failed calls, whose sizes would wrap the counter.
inline bool CountToStack(std::uint64_t size) {
  thread.stack_left -= static_cast<std::int64_t>(size);
  return thread.stack_left <= 0;
}

// A step of fixed length in each thread, so that the same program gives the same stacks.
bool StackIsDue();

// `caller`: who called the allocator. The unwinder's own calls get no stack: it may hold a lock of its own.
bool TakeStack(Frames* frames, const void* caller);

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_PRELOAD_STACKS_H_
