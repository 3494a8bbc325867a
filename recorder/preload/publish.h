// Publishing an event: the fast path, inlined into malloc and free, and its way out.

#ifndef HEAPTAPE_RECORDER_PRELOAD_PUBLISH_H_
#define HEAPTAPE_RECORDER_PRELOAD_PUBLISH_H_

#include "recorder/preload/state.h"
#include "recorder/preload/system.h"

extern "C" char __libc_single_threaded;

namespace heaptape {

struct Frames {
  std::uint32_t count;
  std::uint64_t addresses[kStackFramesMax];
};

// What few events have.
struct Extras {
  std::uint32_t align_log2 = 0;
  std::uint64_t probe = 0;  // its ticket
  const Frames* frames = nullptr;

  bool has_prefix() const { return align_log2 != 0 || probe != 0; }
  RawEvent Prefix(std::uint32_t serial) const {
    return RawEvent::Make(RawOp::kPrefix, probe, static_cast<std::uint64_t>(serial) << 8 | align_log2, 0);
  }
  // How many slots the event takes with it.
  std::uint32_t Room() const { return 1 + (has_prefix() ? 1 : 0) + (frames ? (frames->count + 1) / 2 : 0); }
};

// Everything but the fast path: the first event, a full chunk, a signal handler within an event, extras.
void RecordSlow(RawOp op, std::uint64_t address, std::uint64_t size, const Extras& extras);

inline std::uint32_t NextNumber(Region* region) {
  // One instruction each, so a signal cannot come between; without other threads it need not lock the bus.
  std::uint32_t number = 1;
  auto* counter = reinterpret_cast<std::uint32_t*>(&region->number);
  if (__libc_single_threaded) {
    __asm__ volatile("xaddl %0, %1" : "+r"(number), "+m"(*counter) : : "memory", "cc");
  } else {
    __asm__ volatile("lock xaddl %0, %1" : "+r"(number), "+m"(*counter) : : "memory", "cc");
  }
  return number;
}

// The writer has read the slots that come next, so their cache lines must be fetched back from its core. Stores complete
// in order: a line that is fetched only at its store holds up all later stores of the program.
inline void PrefetchSlots(RawEvent* slot) { __asm__ volatile("prefetchw %0" : : "m"(*slot)); }
inline constexpr std::uint32_t kSlotsAhead = 16;

// In the window between the two stores to `thread.generation` a signal handler that records finds a generation of 0 and
// takes the shared chunk; one that jumps out leaves it 0, and the thread goes on there.
inline void Publish(Region* region, std::uint32_t generation, RawOp op, std::uint64_t address, std::uint64_t size) {
  thread.generation = 0;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  RawEvent* slot = thread.next;
  // A signal handler may have filled the chunk since the caller looked; from here on none can.
  if (UNLIKELY(slot == thread.end)) return RecordSlow(op, address, size, {});
  PrefetchSlots(slot + kSlotsAhead);
  const RawEvent event = RawEvent::Make(op, address, size, NextNumber(region));
  slot[1].first = 0;
  slot->second = event.second;
  __atomic_store_n(&slot->first, event.first, __ATOMIC_RELEASE);
  thread.next = slot + 1;
  if (UNLIKELY(slot + 1 == thread.end)) {
    thread.attached = 0;
    return;
  }
  std::atomic_signal_fence(std::memory_order_seq_cst);
  thread.generation = generation;
}

inline void Record(RawOp op, const void* pointer, std::uint64_t size) {
  const auto address = reinterpret_cast<std::uint64_t>(pointer);
  Region* region = process.region.load(memory_order_relaxed);
  if (LIKELY(region != nullptr)) {
    const std::uint32_t generation = region->generation.load(memory_order_relaxed);
    if (LIKELY(generation == thread.generation && generation != 0 && !(address >> kAddressBits))) {
      return Publish(region, generation, op, address, size);
    }
  }
  RecordSlow(op, address, size, {});
}

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_PRELOAD_PUBLISH_H_
