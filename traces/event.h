// One recorded allocator call, ready to be replayed.
//
// Units: sizes in bytes, times in nanoseconds since the recording began. Events are plain values; a
// trace is one totally ordered sequence of them. No address of the recorded process exists here.

#ifndef HEAPTAPE_TRACES_EVENT_H_
#define HEAPTAPE_TRACES_EVENT_H_

#include <cstddef>
#include <cstdint>

namespace heaptape {

enum class Op : std::uint8_t {
  kMalloc = 0,
  kCalloc = 1,        // size is the product of both factors
  kRealloc = 2,       // the object keeps its slot; with kFresh it is realloc(NULL, n)
  kReallocArray = 3,  // as kRealloc; size is the product
  kFree = 4,          // also realloc(p, 0) where that freed
  kPosixMemalign = 5,
  kAlignedAlloc = 6,
  kMemalign = 7,
  kValloc = 8,
  kPvalloc = 9,
  kTrim = 10,         // malloc_trim; size is the pad
  kMallopt = 11,      // slot is the parameter (as a signed int), size the value (as a signed int)
  kThreadStart = 12,  // thread becomes alive; every thread but the first has one before its first event
  kThreadEnd = 13,    // thread has ended; its number may be given to a later thread
  kTime = 14,         // all events before this one happened before time `size`
  kFork = 15,         // the recorded process forked here; size is 1 where the child has its own trace
  kLost = 16,         // `size` events are missing here (damage, or recording stopped and resumed)
};
inline constexpr std::uint8_t kOpCount = 17;

// Slots number the live objects densely: an allocation takes the most recently freed slot, or the next
// new one. A replay engine needs a table as long as the largest live set, not as the trace.
//
// 16 bytes, so that a block of 64 Ki events stays in the second-level cache.
struct Event {
  // Low six bits of `flags`: log2 of the requested alignment, 0 where the call has none. An alignment
  // that is not a power of two is kept as the next power of two, as C libraries treat it.
  static constexpr std::uint8_t kAlignmentMask = 0x3f;
  static constexpr std::uint8_t kFailed = 0x40;  // the call returned NULL; no slot is taken or changed
  static constexpr std::uint8_t kFresh = 0x80;   // realloc(NULL, n): an allocation that takes a slot

  Op op;
  std::uint8_t flags;
  std::uint16_t thread;  // dense number of the live thread; the first thread is 0
  std::uint32_t slot;
  std::uint64_t size;

  constexpr std::size_t alignment() const {
    return (flags & kAlignmentMask) ? std::size_t{1} << (flags & kAlignmentMask) : 0;
  }
  constexpr bool failed() const { return flags & kFailed; }
  constexpr bool fresh() const { return flags & kFresh; }

  friend bool operator==(const Event&, const Event&) = default;
};
static_assert(sizeof(Event) == 16);

// True for an event after which a new object is alive in `event.slot`.
constexpr bool StartsObject(const Event& event) {
  if (event.failed()) return false;
  switch (event.op) {
    case Op::kMalloc:
    case Op::kCalloc:
    case Op::kPosixMemalign:
    case Op::kAlignedAlloc:
    case Op::kMemalign:
    case Op::kValloc:
    case Op::kPvalloc:
      return true;
    case Op::kRealloc:
    case Op::kReallocArray:
      return event.fresh();
    default:
      return false;
  }
}

// True for the calls a program made (the others describe the process around them).
constexpr bool IsCall(Op op) { return op <= Op::kMallopt; }

// The lower-case name used in dumps, tables and JSON keys ("malloc", "thread_start").
const char* OpName(Op op);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_EVENT_H_
