// What the recorded program and its writer process share: 16-byte raw events in small chunks of a fixed pool.
//
// Both sides include this, so it needs nothing but the C library's headers. It describes an anonymous shared mapping
// that is made before the writer is forked; its size bounds what a recording adds to the program's resident set,
// whatever the number of threads or the length of the recording.
//
// Trust: the program can write all of this memory at any time. It holds no path, no option and no limit; the writer has
// its own copies of those (WriterStart). The writer bounds every value it reads here at the place where it reads it.
//
// Order: one counter numbers all events. An allocation takes its number after the real call, a free before it, so in
// the order of numbers no block is allocated before its predecessor at that address was freed. The numbers wrap at
// 2^32; the writer knows the range in which the next ones lie.
//
// Chunks: a thread owns the chunk it fills. An event's first word is stored last, after the next slot's was set to 0:
// the reader stops at a 0, so publishing touches no memory but the event's own. A thread that cannot own a chunk (a
// signal handler in the middle of an event, a thread after its end, more threads than half the pool) writes to the one
// chunk that all share: slots there are reserved in pairs, a prefix that names the thread and the event. Again the
// event's first word is stored last.

#ifndef HEAPTAPE_RECORDER_RAW_EVENT_H_
#define HEAPTAPE_RECORDER_RAW_EVENT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace heaptape {

// Failed allocations have address 0. Never 0, so that an unwritten slot is known.
enum class RawOp : std::uint8_t {
  kPrefix = 1,  // belongs to the next slot: size is (thread << 8 | log2 of the alignment), address the ticket of the
                // page probe of the block, 0 without one
  kStack,       // belongs to the next as well: two return addresses, innermost first, in `address` and the second
                // word, which is 0 where there is only one; before a kPrefix, and in owned chunks only
  kMalloc,
  kCalloc,
  kReallocFresh,        // realloc(NULL, n)
  kReallocArrayFresh,
  kReallocBegin,        // address is the old one; the number is taken before the call
  kReallocEnd,          // address is the new one; the number is taken after it
  kReallocArrayEnd,
  kReallocFreed,        // realloc(p, 0) that returned NULL
  kFree,
  kPosixMemalign,
  kAlignedAlloc,
  kMemalign,
  kValloc,
  kPvalloc,
  kTrim,
  kMallopt,             // address is the parameter (32 bits), size the value (32 bits)
  kThreadEnd,
  kFork,                // size is the number of the region meant for the child, 0 where it has none
};

inline constexpr int kAddressBits = 47;
inline constexpr int kSizeBits = 44;
inline constexpr std::uint64_t kSizeMax = (std::uint64_t{1} << kSizeBits) - 1;  // larger sizes saturate

// first:  address (47) | op (5) | high bits of size (12)
// second: number (32) | low bits of size (32)
struct RawEvent {
  std::uint64_t first;
  std::uint64_t second;

  static constexpr RawEvent Make(RawOp op, std::uint64_t address, std::uint64_t size, std::uint32_t number) {
    if (size > kSizeMax) size = kSizeMax;
    return {(address & ((std::uint64_t{1} << kAddressBits) - 1)) |
                static_cast<std::uint64_t>(op) << kAddressBits | (size >> 32) << 52,
            static_cast<std::uint64_t>(number) << 32 | (size & 0xffffffffu)};
  }
  constexpr std::uint64_t address() const { return first & ((std::uint64_t{1} << kAddressBits) - 1); }
  constexpr RawOp op() const { return static_cast<RawOp>(first >> kAddressBits & 31); }
  constexpr std::uint64_t size() const { return (first >> 52) << 32 | (second & 0xffffffffu); }
  constexpr std::uint32_t number() const { return static_cast<std::uint32_t>(second >> 32); }
};
static_assert(sizeof(RawEvent) == 16);
static_assert(RawEvent::Make(RawOp::kFork, 0x7fffffffffff, kSizeMax, ~0u).op() == RawOp::kFork);
static_assert(RawEvent::Make(RawOp::kFork, 0, kSizeMax, 7).size() == kSizeMax);

inline constexpr std::uint32_t kChunkEvents = 256;
inline constexpr std::uint32_t kOwnedEvents = kChunkEvents - 1;  // and the 0 behind the last one
inline constexpr std::uint32_t kChunkCount = 704;                // 2.75 MiB
inline constexpr std::uint32_t kOwnedChunksMax = kChunkCount / 2;
inline constexpr std::uint32_t kNoChunk = ~0u;
inline constexpr std::uint64_t kBigBytes = 64 << 10;  // blocks whose touched pages are recorded
inline constexpr std::uint32_t kStackFramesMax = 48;  // of deeper stacks the innermost ones
inline constexpr std::uint32_t kBigFilterSize = 4096;
// Thread serials count from 1. The writer keeps two bytes for each, so it takes no larger one for real.
inline constexpr std::uint32_t kThreadSerialMax = 1u << 26;

// By the address's neighbourhood of kBigBytes, in which hardly more than one large block can begin: blocks that lie
// close to one another then ask in memory that lies as close.
constexpr std::uint32_t BigFilterIndex(std::uint64_t address) {
  return static_cast<std::uint32_t>(address / kBigBytes % kBigFilterSize);
}

enum class ChunkState : std::uint32_t { kFree = 0, kOwned, kClosed, kShared };

struct alignas(64) ChunkHeader {
  std::atomic<ChunkState> state;
  std::uint32_t thread;                   // of the owner: its serial within the region
  std::int32_t tid;                       // of the owner, in its own pid namespace; 0 where unknown
  std::atomic<std::uint64_t> reserved;    // shared: (use << 32 | slots given out)
  std::atomic<std::uint32_t> next_free;   // in the free list
};
static_assert(sizeof(ChunkHeader) == 64);

// A page probe: a thread with a large block before it (just allocated, or about to be freed) asks the writer to read
// which of the block's pages are resident, waits, and then publishes the event with the probe's ticket. Probes are
// served ahead of the events the writer still has to read. Tickets are never used twice, so one word tells whose probe
// this is and how far it came. Where there is no time to wait a thread asks all the same for a block that stays: the
// writer then reads its pages as soon as it can.
enum class ProbePhase : std::uint64_t { kFree = 0, kFilling, kAsked, kDone, kAskedInPassing };
inline constexpr int kProbePhaseBits = 3;
inline constexpr std::uint32_t kProbeCount = 64;

constexpr std::uint64_t ProbeState(std::uint64_t ticket, ProbePhase phase) {
  return ticket << kProbePhaseBits | static_cast<std::uint64_t>(phase);
}
constexpr ProbePhase PhaseOf(std::uint64_t state) { return static_cast<ProbePhase>(state & ((1 << kProbePhaseBits) - 1)); }

struct alignas(64) PageProbe {
  std::atomic<std::uint64_t> state;  // ProbeState()
  std::atomic<std::uint64_t> address;
  std::atomic<std::uint64_t> bytes;
};

// What the recording is to do; numbers only, handed over in the environment as "name=value;...".
struct RecorderOptions {
  std::uint64_t time_resolution_ns = 10'000'000;
  std::uint64_t compression_level = 3;
  std::uint64_t suspended = 0;            // start so; `heaptape ctl PID start` begins
  std::uint64_t children = 0;             // 1: forked children get a trace of their own, executed ones too
  std::uint64_t max_wait_ns = 5'000'000'000;        // of one wait for the writer; then recording ends
  std::uint64_t max_total_wait_ns = 0;              // of all waits together; 0: no bound
  std::uint64_t segment_bytes = 0;        // a new file at this size; 0: one file
  std::uint64_t segment_seconds = 0;
  std::uint64_t total_bytes = 0;          // oldest segments go beyond this; 0: no bound
  std::uint64_t min_free_bytes = 64 << 20;  // recording ends in good order when the disk has less
  std::uint64_t privacy_level = 1;
  std::uint64_t stack_bytes = 0;          // one stack per so many bytes allocated
  std::uint64_t big_blocks = 1;           // record touched pages
  std::uint64_t replace = 0;              // 1: an earlier file of the output's name may be replaced
};

// Every member, so that names are written and read in one way.
#define HEAPTAPE_RECORDER_OPTIONS(X)                                                                     \
  X(time_resolution_ns) X(compression_level) X(suspended) X(children) X(max_wait_ns) X(max_total_wait_ns) \
  X(segment_bytes) X(segment_seconds) X(total_bytes) X(min_free_bytes) X(privacy_level) X(stack_bytes)    \
  X(big_blocks) X(replace)

enum class EndReason : std::uint32_t {
  kNone = 0,
  kWaitedTooLong,     // one wait above the bound: writer stopped or disk stuck
  kWaitedTooMuch,     // all waits together
  kWriterDied,
  kAddressTooLong,
  kWriterStopped,     // the writer ended the recording: disk full, limits, asked
};

enum class WriterState : std::uint32_t { kStarting = 0, kRunning, kRefused };

// Which file a process's trace shall become.
enum class ProcessRole : std::uint32_t {
  kMain = 0,      // the name that was asked for
  kChild,         // a name of its own, asked for by `children`
  kProvisional,   // none, unless the process it was forked from ends first and it leads a new session: then it
                  // was a daemon's start, and it gets that one's role
  kDropped,
};

// A region is claimed by the forking process for its child, which then fills in its pid.
struct ForkSlot {
  std::atomic<std::uint32_t> claimed;
  std::atomic<std::int32_t> child_pid;  // in the child's own pid namespace; below 0: unknown
  std::atomic<std::uint32_t> parent;    // region of the process it was forked from
  std::atomic<ProcessRole> role;
};

// The first region is the recorded program's own, the others are for processes it forks: so many at once with
// `children`, without it only what programs need to become daemons.
inline constexpr std::uint32_t kRegionsMax = 64;
inline constexpr std::uint32_t kRegionsForDaemons = 8;

// What the program asks for at its end.
enum class LastWish : std::uint32_t {
  kNone = 0,
  kProbe,   // one more page probe of the large blocks it never freed
  kFinish,  // the whole trace brought to its file: this is PID 1 of a namespace, whose end kills the writer
};

struct Region {
  // Equal to the `generation` of each thread that may use its fast path; 0: not recording.
  alignas(64) std::atomic<std::uint32_t> generation;

  alignas(64) std::atomic<std::uint32_t> number;  // of the next event

  alignas(64) std::atomic<std::uint64_t> free_list;  // (tag << 32 | first chunk)
  std::atomic<std::uint32_t> free_count;
  std::atomic<std::uint32_t> unused;       // chunks from here on were never in use
  std::atomic<std::uint32_t> owned_count;
  std::atomic<std::uint64_t> shared_chunk;  // (use << 32 | chunk)
  std::atomic<std::uint32_t> shared_uses;
  std::atomic<std::uint32_t> threads;      // ever seen

  // Threads that wait for a free chunk take tickets; so many of them are no longer waiting.
  alignas(64) std::atomic<std::uint32_t> wait_tickets;
  std::atomic<std::uint32_t> waits_over;

  alignas(64) std::atomic<std::uint64_t> waits;  // for a free chunk
  std::atomic<std::uint64_t> wait_ns;            // of all threads
  std::atomic<std::uint64_t> held_ns;            // in which any thread waited
  std::atomic<std::uint64_t> held_until;         // what ended by then is in held_ns
  std::atomic<std::uint64_t> big_waits;          // for page probes that were made
  std::atomic<std::uint64_t> big_wait_ns;        // of those and of waits in vain
  std::atomic<std::uint64_t> big_skipped;        // no probe, or a late one: the budget was spent, or the writer did not come
  std::atomic<EndReason> end_reason;
  std::atomic<WriterState> writer_state;

  // The writer's thread id while it lives. The kernel sets FUTEX_OWNER_DIED in it when the writer dies, however it dies.
  alignas(64) std::atomic<std::uint32_t> writer_alive;

  ForkSlot forks[kRegionsMax];                    // of the first region: one for each region
  std::atomic<std::uint32_t> children_left_out;   // of the first region: wanted by `children`, but no region was free

  std::atomic<std::uint32_t> fork_allowed;   // the writer would follow a child now
  std::atomic<std::uint32_t> filtered;       // the writer has seen the program in a seccomp filter
  // The program asks at exit() and waits until the writer has done it.
  std::atomic<LastWish> wish;
  std::atomic<LastWish> wish_done;

  // How many live large blocks hash here. The program adds, the writer takes away.
  alignas(64) std::atomic<std::uint16_t> big_filter[kBigFilterSize];

  alignas(64) std::atomic<std::uint64_t> probe_tickets;  // given out; the first is 1
  std::atomic<std::uint64_t> probes_asked;               // counted when they are there to be seen
  PageProbe probes[kProbeCount];

  ChunkHeader headers[kChunkCount];
  alignas(4096) RawEvent events[kChunkCount][kChunkEvents];
};
static_assert(sizeof(Region) <= (3 << 20) + (64 << 10));

// An empty pool; the memory must be zeroed. Leaves `generation` 0.
inline void PrepareRegion(Region* region) {
  region->free_list.store(kNoChunk, std::memory_order_relaxed);
  region->shared_chunk.store(kNoChunk, std::memory_order_relaxed);
  region->free_count.store(kChunkCount, std::memory_order_release);
}

// The program's files in /proc, opened by the program itself: it alone surely names itself there, whatever its pid
// namespace. Below 0: not there.
struct ProcessFiles {
  int statm = -1;
  int status = -1;
  int smaps = -1;
  int pagemap = -1;
  int maps = -1;
  int task = -1;  // the folder of its threads
};

// The one function of heaptape-writer.so, called in a forked process; it does not return. All of this lies in that
// process's own memory, copied by the fork before the program's first instruction.
struct WriterStart {
  Region* first;                // the program's region
  Region* spares;               // region_count - 1 of them
  std::uint32_t region_count;
  std::int32_t target_pid;
  RecorderOptions options;
  const char* output;           // as asked for, with %t and %p
  bool is_family;               // a process that a recorded one executed: its name has its pid in it
  const char* allocator_path;   // the library whose malloc the program runs on
  bool own_malloc;              // the program's calls do not reach the preload
  int report;                   // pipe of `heaptape record`; below 0: none
  ProcessFiles files;
};
using WriterMain = void (*)(const WriterStart*);

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_RAW_EVENT_H_
