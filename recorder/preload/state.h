// What the preload knows of the process and of each thread.

#ifndef HEAPTAPE_RECORDER_PRELOAD_STATE_H_
#define HEAPTAPE_RECORDER_PRELOAD_STATE_H_

#include <linux/futex.h>

#include <atomic>
#include <cstdint>

#include "recorder/raw_event.h"

// Within this library: neither looked up nor replaced from outside.
#pragma GCC visibility push(hidden)

namespace heaptape {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

// A page that the kernel empties in a forked child: however the child was made, it finds no region here and cannot
// write into its parent's.
struct alignas(4096) ProcessPage {
  std::atomic<Region*> region;
};
extern ProcessPage process;

// Set once, in the constructor or before it; the same in forked children.
struct Settings {
  Region* first;                // the program's region
  Region* spares;               // for forked children; null: none
  std::uint32_t region_count;   // with the first
  std::uint64_t max_wait_ns;
  std::uint64_t max_total_wait_ns;
  bool children;                // every forked child is wanted
  bool ends_with_its_namespace; // PID 1
  std::uint32_t tid_offset;     // of the thread's id from its thread pointer; 0: not known
};
extern Settings settings;
extern std::atomic<bool> is_off;           // for good, in this process and its children
extern std::atomic<bool> record_large;     // touched pages of large blocks
extern std::uint32_t own_region;           // number of this process's region

inline Region* RegionAt(std::uint32_t index) { return index == 0 ? settings.first : &settings.spares[index - 1]; }

// Fits in one cache line.
struct alignas(64) ThreadState {
  // Equal to the region's while the fast path may be used; 0 in the middle of an event, without a chunk, and when the
  // chunk is full. One comparison tells all of these from the common case.
  std::uint32_t generation;
  std::uint32_t attached;   // the generation the chunk was taken in; 0: no chunk with room
  RawEvent* next;
  RawEvent* end;
  std::int64_t stack_left;  // bytes to allocate before a call stack is due; 0 at the thread's start
  ChunkHeader* header;
  Region* region;           // that the chunk and `serial` belong to
  std::uint32_t serial;     // counted from 1
  bool counts_to_stack;
  bool unwinding;
  bool probing;             // nothing is recorded, `probe_hit` tells that something would have been (cxx_operators.cc)
  bool probe_hit;
  bool attaching;
  bool ended;
  std::uint8_t exit_rounds;
};
static_assert(sizeof(ThreadState) == 64);
extern constinit thread_local ThreadState thread __attribute__((tls_model("initial-exec")));

// The calling thread's id as the C library keeps it; 0 where unknown. No system call.
inline std::int32_t ThreadId() {
  if (settings.tid_offset == 0) return 0;
  return *reinterpret_cast<const std::int32_t*>(static_cast<const char*>(__builtin_thread_pointer()) + settings.tid_offset);
}

inline void EndRecording(Region* region, EndReason reason) {
  EndReason none = EndReason::kNone;
  region->end_reason.compare_exchange_strong(none, reason);
  region->generation.store(0, memory_order_release);
}

inline bool WriterDied(const Region* region) {
  return (region->writer_alive.load(memory_order_acquire) & FUTEX_OWNER_DIED) != 0;
}

}  // namespace heaptape

#pragma GCC visibility pop

#endif  // HEAPTAPE_RECORDER_PRELOAD_STATE_H_
