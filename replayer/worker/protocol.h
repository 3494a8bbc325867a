// What the replaying host and its worker process share: one memory file with the settings, a ring of
// events from host to worker, and the worker's findings.
//
// libc only: the worker is built without Abseil. Every field is written by one side alone. The file is
// shared memory, so no page of it ever counts as anonymous memory of the worker.

#ifndef HEAPTAPE_REPLAYER_WORKER_PROTOCOL_H_
#define HEAPTAPE_REPLAYER_WORKER_PROTOCOL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "traces/event.h"

namespace heaptape::worker {

// The worker finds the memory file here; its output goes to the usual two.
inline constexpr int kSharedMemoryDescriptor = 3;

inline constexpr std::size_t kPageBytes = 4096;
// Blocks of this size and more are touched as the recording tells (kTouch entries), smaller ones by rule.
inline constexpr std::uint64_t kLargeBlockBytes = 64 << 10;

// A ring entry is a traces/event.h Event. These kinds are added by the host; `thread` is that of the entry
// before, so that they cause no thread change.
enum EntryKind : std::uint8_t {
  // Time from here on. Takes two entries: the second holds a ClockSpan. `slot`: number of events in the
  // span, `size`: its first nanosecond.
  kEntryClock = 32,
  kEntrySample = 33,  // measure now; `slot`: index of the sample, `size`: its time in ns
  // Write to some pages of the block in `slot`, which the event before started or resized: of a resized one
  // to those beyond its old size. `size`: first page << 32 | number of pages.
  kEntryTouch = 34,
  kEntryEnd = 35,
  kEntryMap = 36,  // write down every live block and wait until the host has read it
};

struct ClockSpan {
  std::uint64_t span_ns;
  std::uint64_t first_event;  // trace number of the first event in the span
};
static_assert(sizeof(ClockSpan) == sizeof(Event));

// One live block, as kEntryMap writes it down.
struct LiveBlock {
  std::uint64_t address;
  std::uint64_t requested_bytes;
  std::uint64_t usable_bytes;  // as the allocator says; the requested ones where it cannot be asked
  std::uint64_t slot;
};

// One bit for each page of the address space, set once a block has lain in it. In the worker alone.
inline constexpr std::uintptr_t kUsedPagesAddress = 0x3700'0000'0000;
inline constexpr std::uint64_t kUsedPagesBytes = (std::uint64_t{1} << 47) / kPageBytes / 8;

enum class ClockMode : std::uint32_t { kVirtual, kReal, kPaced };
enum class TouchMode : std::uint32_t { kRecorded, kFull, kNone };
enum class EngineMode : std::uint32_t { kAuto, kFast, kLockstep };
enum class HugePageMode : std::uint32_t { kOff, kMadvise, kAlways };

struct Settings {
  std::uint64_t seed;
  std::uint64_t slot_count;
  std::uint64_t memory_limit_bytes;  // heap RSS
  std::uint64_t machine_memory_bytes;  // what sysconf tells; 0: the truth
  std::uint32_t thread_count;
  std::uint32_t cpu_count;
  std::uint32_t ring_entries;  // a power of two
  std::uint32_t sample_capacity;
  ClockMode clock;
  TouchMode touch;
  EngineMode engine;
  HugePageMode huge_pages;
  std::uint32_t distrust_counters;  // 1: read memory from smaps_rollup even if statm is exact
  std::uint32_t distrust_fsgsbase;    // 1: change threads by arch_prctl
  std::uint32_t distrust_identities;  // 1: as if the trial of taking another thread's identity had failed
  std::uint32_t heap_maps;       // 1: there will be kEntryMap entries
  std::uint32_t vary_addresses;  // 1: mappings lie where the kernel puts them
  std::uint32_t vary_keys;       // 1: random bytes are the kernel's
  std::uint32_t vary_signals;    // 1: a signal every millisecond
  std::uint32_t count_own_memory;  // 1: the worker's own memory is as any other, and in the figures
  std::uint32_t null_allocator;  // 1: the built-in allocator that does nothing
  char library_path[4096];       // empty: the malloc of the running C library
  char symbol_prefix[64];
};

struct WorkerSample {
  std::uint64_t time_ns;
  std::uint64_t event_number;
  std::uint64_t heap_rss_bytes;
  std::uint64_t live_bytes;
  std::uint64_t live_objects;
  std::uint64_t lazy_free_bytes;
};

// Findings::error of a run that the memory limit ended.
inline constexpr char kPassedMemoryLimit[] = "passed the memory limit";

enum class Phase : std::uint32_t { kStarting, kLoaded, kDone, kFailedToStart, kStopped };

struct CallCounts {
  std::uint64_t mmap, munmap, mremap, madvise, mprotect, brk;
};

struct Findings {
  std::uint64_t baseline_rss_bytes;
  std::uint64_t peak_rss_bytes;
  std::uint64_t peak_event;
  std::uint64_t peak_time_ns;
  std::uint64_t allocation_failures;
  std::uint64_t first_failure_event;
  std::uint64_t first_failure_bytes;
  std::uint64_t thread_changes;
  std::uint64_t pointer_hash;      // over every address the allocator returned, in order
  std::uint64_t minor_faults;
  std::uint64_t cpu_user_ns;
  std::uint64_t cpu_system_ns;
  std::uint64_t wall_ns;
  CallCounts calls;
  std::uint64_t map_blocks;      // of the last heap map: number of blocks,
  std::uint64_t map_heap_bytes;  // and heap RSS
  std::uint32_t samples;
  std::uint32_t first_failure_op;
  std::uint32_t engine;            // EngineMode that ran
  std::uint32_t calls_exact;       // 1: every system call of the allocator was seen
  std::uint32_t counters_exact;    // 1: statm passed the self-test
  std::uint32_t fsgsbase;          // 1: threads change by wrfsbase, 0: by arch_prctl
  std::uint32_t threads_refused;   // threads the allocator wanted to start for itself
  std::uint32_t confined;          // 1: the allocator ran without the calls that confine.h names
  std::uint32_t calls_refused;     // of those, how many it made all the same,
  std::uint32_t first_refused_call;  // and the number of the first
  char error[512];                 // kFailedToStart, kStopped: why
  char build_id[64];
  char library_path[4096];         // as loaded
};

struct SharedHeader {
  static constexpr std::uint64_t kMagic = 0x3165706174706168;
  std::uint64_t magic;
  std::uint64_t file_bytes;
  std::uint64_t ring_offset;
  std::uint64_t samples_offset;
  std::uint64_t blocks_offset;  // slot_count LiveBlocks where there are heap maps
  Settings settings;

  // Host to worker: entries before `head` may be read. The futex word changes with every publication.
  alignas(64) std::atomic<std::uint64_t> head;
  std::atomic<std::uint32_t> head_signal;
  std::atomic<std::uint32_t> worker_waits;

  // Worker to host: entries before `tail` may be overwritten.
  alignas(64) std::atomic<std::uint64_t> tail;
  std::atomic<std::uint32_t> tail_signal;
  std::atomic<std::uint32_t> host_waits;
  std::atomic<Phase> phase;
  // Heap maps done: the blocks of the last are complete, and the worker waits for the next entry.
  std::atomic<std::uint32_t> maps_done;

  // Ring entries begun, written for each: so it is known where a crash happened. Less `not_events` (modulo 2^64:
  // time marks are events that take no entry) they are the number of trace events done.
  alignas(64) std::atomic<std::uint64_t> entries_begun;
  std::atomic<std::uint64_t> not_events;
  std::uint64_t position() const {
    return entries_begun.load(std::memory_order_relaxed) - not_events.load(std::memory_order_relaxed);
  }

  alignas(64) Findings findings;
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace heaptape::worker

#endif  // HEAPTAPE_REPLAYER_WORKER_PROTOCOL_H_
