// libheaptape.so: records the calls a program makes to malloc and its kin, from inside the program.
//
// Laws. This code runs inside other people's malloc, in signal handlers, between fork and exec, before main
// and after the last destructor.
//   - Never allocate, throw, log, exit, take a lock, or change errno. The one line of text at the start is
//     the writer's.
//   - Nothing is held while the real allocator runs: no flag, no lock, no half-written event.
//   - Every wait is bounded; past the bound recording ends and the program runs on unrecorded.
//   - After the constructor the only system calls are FUTEX_WAIT_PRIVATE, used as a sleep, which every
//     seccomp filter of a threaded program allows, and one gettid for each thread.
//   - Needs the C library alone, so that it adds no allocation of its own to the program it records. Only where
//     call stacks are asked for the constructor loads the unwinder of libgcc_s, which makes no system call, waits for
//     nobody and allocates nothing.

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

#include <atomic>
#include <new>

#include "recorder/raw_event.h"

extern "C" {
extern char** environ;
extern char __libc_single_threaded;
pid_t _Fork(void);
}

#define EXPORT extern "C" __attribute__((visibility("default")))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

namespace heaptape {
namespace {

using std::align_val_t;
using std::memory_order_acquire;
using std::memory_order_acq_rel;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::nothrow_t;

// --- the process and its threads -----------------------------------------------------------------------

// A page that the kernel empties in a forked child: however the child was made, it finds no region here
// and cannot write into its parent's.
struct alignas(4096) ProcessPage {
  std::atomic<Region*> region;
  std::atomic<bool> off;
};
ProcessPage process;

enum class Setup : int { kNone, kBusy, kDone };
std::atomic<Setup> setup{Setup::kNone};
Region* regions;                 // kRegionCount of them
std::atomic<bool> is_off;        // for good, in this process and its children
std::uint32_t region_for_child;  // claimed by the prepare handler of the fork that is under way
std::uint32_t own_region;
bool exit_key_exists;
pthread_key_t exit_key;
std::uint32_t sleep_word;

// In one line of the cache.
struct alignas(64) ThreadState {
  // Equal to the region's while the fast path may be used; 0 in the midst of an event, without a chunk,
  // and when the chunk is full. One comparison tells all of these from the common case.
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
  bool probing;             // nothing is recorded: see ResolveOperators()
  bool probe_hit;
  bool attaching;
  bool ended;
  std::uint8_t exit_rounds;
};
static_assert(sizeof(ThreadState) == 64);
thread_local ThreadState thread __attribute__((tls_model("initial-exec")));

// System calls that leave errno alone.
long SystemCall(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

void Sleep(std::uint64_t ns) {
  timespec duration = {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
  SystemCall(SYS_futex, reinterpret_cast<long>(&sleep_word), FUTEX_WAIT_PRIVATE, 0,
             reinterpret_cast<long>(&duration));
}

std::uint64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

// --- ending --------------------------------------------------------------------------------------------

void EndRecording(Region* region, EndReason reason) {
  EndReason none = EndReason::kNone;
  region->end_reason.compare_exchange_strong(none, reason);
  region->generation.store(0, memory_order_release);
}

bool WriterDied(const Region* region) {
  // The kernel's mark on a robust lock whose owner has died.
  const auto word = __atomic_load_n(reinterpret_cast<const std::uint32_t*>(region->writer_lock), __ATOMIC_ACQUIRE);
  return word & FUTEX_OWNER_DIED;
}

// --- chunks --------------------------------------------------------------------------------------------

std::uint32_t PopChunk(Region* region) {
  std::uint64_t head = region->free_list.load(memory_order_acquire);
  while (static_cast<std::uint32_t>(head) != kNoChunk) {
    const std::uint32_t chunk = static_cast<std::uint32_t>(head);
    const std::uint64_t next = region->headers[chunk].next_free.load(memory_order_relaxed);
    // The upper half counts, so that a chunk that came back in between is not taken for unchanged.
    const std::uint64_t changed = ((head >> 32) + 1) << 32 | (next & 0xffffffffu);
    if (region->free_list.compare_exchange_weak(head, changed, memory_order_acq_rel)) {
      region->free_count.fetch_sub(1, memory_order_relaxed);
      return chunk;
    }
  }
  // Chunks never used come last: a slow program touches few of them.
  std::uint32_t fresh = region->unused.load(memory_order_relaxed);
  while (fresh < kChunkCount) {
    if (region->unused.compare_exchange_weak(fresh, fresh + 1, memory_order_acq_rel)) {
      region->free_count.fetch_sub(1, memory_order_relaxed);
      return fresh;
    }
  }
  return kNoChunk;
}

// Threads wait at the same time: of a wait only what no other that ended before has covered.
void CountHeld(Region* region, std::uint64_t start, std::uint64_t end) {
  std::uint64_t until = region->held_until.load(memory_order_relaxed);
  while (end > until) {
    if (!region->held_until.compare_exchange_weak(until, end, memory_order_relaxed)) continue;
    region->held_ns.fetch_add(end - (start > until ? start : until), memory_order_relaxed);
    return;
  }
}

constexpr std::uint64_t kWorthwhileWait = 3'000'000;

// kNoChunk: recording has ended.
std::uint32_t TakeChunk(Region* region) {
  std::uint32_t chunk = PopChunk(region);
  if (LIKELY(chunk != kNoChunk)) return chunk;
  const std::uint64_t start = Now();
  const RecorderOptions& options = region->options;
  region->waits.fetch_add(1, memory_order_relaxed);
  std::uint64_t waited = 0;
  while (region->generation.load(memory_order_acquire) != 0) {
    if (WriterDied(region)) {
      EndRecording(region, EndReason::kWriterDied);
      break;
    }
    Sleep(waited == 0 ? 200'000 : 1'000'000);
    waited = Now() - start;
    // Sleeping and waking cost more than an event: some time passes until so many are free that they are worth it.
    if (waited < kWorthwhileWait && region->free_count.load(memory_order_relaxed) < kChunkCount / 8) continue;
    chunk = PopChunk(region);
    if (chunk != kNoChunk) break;
    if (waited > options.max_wait_ns) EndRecording(region, EndReason::kWaitedTooLong);
  }
  CountHeld(region, start, start + waited);
  const std::uint64_t total = region->wait_ns.fetch_add(waited, memory_order_relaxed) + waited;
  if (options.max_total_wait_ns && total > options.max_total_wait_ns) {
    EndRecording(region, EndReason::kWaitedTooMuch);
  }
  return chunk;
}

std::uint32_t ThreadSerial(Region* region) {
  if (thread.region != region) {
    // A signal handler that records may come between any two of these. It finds `attaching`, so it takes no chunk, and
    // the thread's number missing, so it gives one. `region` comes last: who finds it set must find a number, for the
    // writer reads no further where an event of the shared chunk bears none.
    const bool attaching = thread.attaching;
    thread.attaching = true;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    thread.header = nullptr;
    thread.attached = 0;
    thread.generation = 0;
    thread.serial = region->threads.fetch_add(1, memory_order_relaxed) + 1;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    thread.region = region;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    thread.attaching = attaching;
  }
  return thread.serial;
}

// Gives the thread a chunk with room for `room` events. False: it cannot own one now.
bool Attach(Region* region, std::uint32_t generation, std::uint32_t room) {
  thread.attaching = true;
  thread.generation = 0;
  thread.attached = 0;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  ThreadSerial(region);
  if (thread.header && thread.next + room > thread.end) {
    thread.header->state.store(ChunkState::kClosed, memory_order_release);
    thread.header = nullptr;
    region->owned_count.fetch_sub(1, memory_order_relaxed);
  }
  if (!thread.header) {
    if (region->owned_count.fetch_add(1, memory_order_relaxed) >= kOwnedChunksMax) {
      region->owned_count.fetch_sub(1, memory_order_relaxed);
      thread.attaching = false;
      return false;
    }
    const std::uint32_t chunk = TakeChunk(region);
    if (chunk == kNoChunk) {
      region->owned_count.fetch_sub(1, memory_order_relaxed);
      thread.attaching = false;
      return false;
    }
    ChunkHeader* header = &region->headers[chunk];
    header->thread = thread.serial;
    header->tid = static_cast<std::int32_t>(SystemCall(SYS_gettid));
    region->events[chunk][0].first = 0;
    header->state.store(ChunkState::kOwned, memory_order_release);
    thread.header = header;
    thread.next = region->events[chunk];
    thread.end = thread.next + kOwnedEvents;
    if (exit_key_exists && thread.exit_rounds == 0) {
      thread.exit_rounds = 1;
      pthread_setspecific(exit_key, &thread);
    }
  }
  thread.attached = generation;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  thread.attaching = false;
  thread.generation = generation;
  return true;
}

std::uint32_t NextNumber(Region* region) {
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

struct Frames {
  std::uint32_t count;
  std::uint64_t addresses[kStackFramesMax];
};

// What few events have.
struct More {
  std::uint32_t align_log2 = 0;
  std::uint64_t look = 0;  // its ticket
  const Frames* frames = nullptr;

  bool has_prefix() const { return align_log2 != 0 || look != 0; }
  RawEvent Prefix(std::uint32_t serial) const {
    return RawEvent::Make(RawOp::kPrefix, look, static_cast<std::uint64_t>(serial) << 8 | align_log2, 0);
  }
  // How many slots the event takes with it.
  std::uint32_t Room() const { return 1 + (has_prefix() ? 1 : 0) + (frames ? (frames->count + 1) / 2 : 0); }
};

// The chunk that all may write to; `use` tells one use of a chunk from the next.
void RecordShared(Region* region, RawOp op, std::uint64_t address, std::uint64_t size, const More& more) {
  const std::uint32_t serial = ThreadSerial(region);
  while (region->generation.load(memory_order_relaxed) != 0) {
    const std::uint64_t current = region->shared_chunk.load(memory_order_acquire);
    const std::uint32_t chunk = static_cast<std::uint32_t>(current);
    if (chunk != kNoChunk) {
      ChunkHeader& header = region->headers[chunk];
      std::uint64_t reserved = header.reserved.load(memory_order_acquire);
      while (reserved >> 32 == current >> 32 && static_cast<std::uint32_t>(reserved) + 2 <= kChunkEvents) {
        if (!header.reserved.compare_exchange_weak(reserved, reserved + 2, memory_order_acq_rel)) continue;
        RawEvent* slot = &region->events[chunk][static_cast<std::uint32_t>(reserved)];
        slot[0] = more.Prefix(serial);
        const RawEvent event = RawEvent::Make(op, address, size, NextNumber(region));
        slot[1].second = event.second;
        __atomic_store_n(&slot[1].first, event.first, __ATOMIC_RELEASE);
        return;
      }
    }
    const std::uint32_t fresh = TakeChunk(region);
    if (fresh == kNoChunk) return;
    ChunkHeader& header = region->headers[fresh];
    for (RawEvent& event : region->events[fresh]) event = {0, 0};
    const std::uint64_t use = region->shared_uses.fetch_add(1, memory_order_relaxed) + 1;
    header.thread = 0;
    header.reserved.store(use << 32, memory_order_release);
    header.state.store(ChunkState::kShared, memory_order_release);
    std::uint64_t expected = current;
    if (!region->shared_chunk.compare_exchange_strong(expected, use << 32 | fresh, memory_order_acq_rel)) {
      // Another came first. Only the writer gives chunks back: it may be reading this one as shared just now, and
      // would take what its next owner writes for that.
      header.state.store(ChunkState::kClosed, memory_order_release);
    }
  }
}

Region* EnterProcess();
void RecordSlow(RawOp op, std::uint64_t address, std::uint64_t size, const More& more);

// The writer has read the slots that come next, so their memory has to be had back from its processor. Stores wait for
// one another in order: asked for when its turn has come, each line would hold up all that the program stores after it.
inline void PrefetchSlots(RawEvent* slot) { __asm__ volatile("prefetchw %0" : : "m"(*slot)); }
constexpr std::uint32_t kSlotsAhead = 16;

// In the window between the two stores to `thread.generation` a signal handler that records finds a
// generation of 0 and takes the shared chunk; one that jumps out leaves it 0, and the thread goes on there.
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

// With what belongs to the event in slots of their own before it; published together.
void PublishWithMore(Region* region, std::uint32_t generation, RawOp op, std::uint64_t address, std::uint64_t size,
                     const More& more) {
  thread.generation = 0;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  RawEvent* const start = thread.next;
  RawEvent* const end = start + more.Room();
  if (UNLIKELY(end > thread.end)) {  // as in Publish()
    thread.attached = 0;
    return RecordSlow(op, address, size, more);
  }
  // From the last slot to the first, whose first word is what the reader waits for.
  RawEvent* slot = end;
  const auto put = [&slot, start](RawEvent event) {
    (--slot)->second = event.second;
    if (slot != start) slot->first = event.first;
    else __atomic_store_n(&slot->first, event.first, __ATOMIC_RELEASE);
  };
  end->first = 0;
  put(RawEvent::Make(op, address, size, NextNumber(region)));
  if (more.has_prefix()) put(more.Prefix(thread.serial));
  const Frames* const frames = more.frames;
  for (std::uint32_t i = frames ? (frames->count + 1) / 2 * 2 : 0; i > 0; i -= 2) {
    RawEvent pair = RawEvent::Make(RawOp::kStack, frames->addresses[i - 2], 0, 0);
    pair.second = i - 1 < frames->count ? frames->addresses[i - 1] : 0;
    put(pair);
  }
  thread.next = end;
  if (end == thread.end) {
    thread.attached = 0;
    return;
  }
  std::atomic_signal_fence(std::memory_order_seq_cst);
  thread.generation = generation;
}

__attribute__((noinline)) void RecordSlow(RawOp op, std::uint64_t address, std::uint64_t size, const More& more) {
  if (is_off.load(memory_order_relaxed) || thread.probing) return;
  Region* region = process.region.load(memory_order_acquire);
  if (!region && !(region = EnterProcess())) return;
  const std::uint32_t generation = region->generation.load(memory_order_acquire);
  if (generation == 0) return;
  if (address >> kAddressBits) return EndRecording(region, EndReason::kAddressTooLong);
  const std::uint32_t room = more.Room();
  const bool in_event = thread.region == region && thread.header && thread.attached == generation &&
                        thread.generation == 0;
  if (!in_event && !thread.attaching && !thread.ended) {
    const bool usable = thread.generation == generation && thread.region == region && thread.next + room <= thread.end;
    if (usable || Attach(region, generation, room)) {
      if (room > 1) return PublishWithMore(region, generation, op, address, size, more);
      return Publish(region, generation, op, address, size);
    }
  }
  RecordShared(region, op, address, size, more);
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

// --- call stacks ---------------------------------------------------------------------------------------

using Backtrace = _Unwind_Reason_Code (*)(_Unwind_Trace_Fn, void*);
using InstructionPointer = _Unwind_Ptr (*)(_Unwind_Context*);

struct Code {
  std::uint64_t start;
  std::uint64_t end;
  bool Has(std::uint64_t address) const { return start <= address && address < end; }
};

// Bytes from one call stack to the next; 0: not decided yet, below 0: none are wanted.
std::atomic<std::int64_t> stack_step;
Backtrace backtrace;
InstructionPointer instruction_pointer;
Code own_code;
Code unwinder_code;

// All of the loaded file that begins there.
Code LoadedFile(const void* base) {
  const auto* header = static_cast<const Elf64_Ehdr*>(base);
  const auto* segments = reinterpret_cast<const Elf64_Phdr*>(static_cast<const char*>(base) + header->e_phoff);
  Code code = {reinterpret_cast<std::uint64_t>(base), reinterpret_cast<std::uint64_t>(base)};
  for (int i = 0; i < header->e_phnum; ++i) {
    const std::uint64_t end = code.start + segments[i].p_vaddr + segments[i].p_memsz;
    if (segments[i].p_type == PT_LOAD && end > code.end) code.end = end;
  }
  return code;
}

_Unwind_Reason_Code AddFrame(_Unwind_Context* context, void* argument) {
  auto* frames = static_cast<Frames*>(argument);
  const std::uint64_t address = instruction_pointer(context);
  if (own_code.Has(address)) return _URC_NO_REASON;
  if (address == 0 || address >> kAddressBits || frames->count == kStackFramesMax) return _URC_END_OF_STACK;
  frames->addresses[frames->count++] = address;
  return _URC_NO_REASON;
}

// Loads the unwinder and calls it once: whatever it does at its first call is done here.
bool PrepareStacks(const Dl_info& own) {
  own_code = LoadedFile(own.dli_fbase);
  void* library = dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  // From version 12 on it finds the code of a frame by _dl_find_object. Before, it took a lock of the loader, whose
  // owner may be waiting for the very thread that allocates here.
  if (!library || !dlvsym(library, "__extendhfsf2", "GCC_12.0.0")) return false;
  backtrace = reinterpret_cast<Backtrace>(dlsym(library, "_Unwind_Backtrace"));
  instruction_pointer = reinterpret_cast<InstructionPointer>(dlsym(library, "_Unwind_GetIP"));
  Dl_info unwinder;
  if (!backtrace || !instruction_pointer || !dladdr(reinterpret_cast<void*>(backtrace), &unwinder)) return false;
  unwinder_code = LoadedFile(unwinder.dli_fbase);
  Frames frames = {};
  backtrace(AddFrame, &frames);
  return frames.count > 0;
}

// A step of fixed length in each thread, so that the same program gives the same stacks.
bool StackIsDue() {
  const std::int64_t step = stack_step.load(memory_order_acquire);
  if (step <= 0) {
    thread.stack_left = step < 0 ? INT64_MAX : kBigBytes;
    return false;
  }
  const bool due = thread.counts_to_stack;
  const std::int64_t beyond = due ? -thread.stack_left % step : 0;
  thread.counts_to_stack = true;
  thread.stack_left = step - beyond;
  return due;
}

// `caller`: who called the allocator. The unwinder's own calls get no stack: it may hold a lock of its own.
bool TakeStack(Frames* frames, const void* caller) {
  frames->count = 0;
  if (thread.unwinding || unwinder_code.Has(reinterpret_cast<std::uint64_t>(caller))) return false;
  thread.unwinding = true;
  backtrace(AddFrame, frames);
  thread.unwinding = false;
  return frames->count > 0;
}

// True where StackIsDue() is to be asked. Not for failed calls, whose sizes would wrap the counter.
inline bool CountToStack(std::uint64_t size) {
  thread.stack_left -= static_cast<std::int64_t>(size);
  return thread.stack_left <= 0;
}

// --- big blocks ----------------------------------------------------------------------------------------

constexpr std::uint64_t kLastLookPatience = 200'000'000;

// A hundredth of the time, and a quarter of a second for how programs begin, may be spent on waiting for looks.
bool MayAwaitLook(Region* region) {
  static std::atomic<std::uint64_t> first_ns;
  const std::uint64_t now = Now();
  std::uint64_t first = first_ns.load(memory_order_relaxed);
  if (first == 0) first_ns.store(first = now, memory_order_relaxed);
  return region->writer_state.load(memory_order_relaxed) == WriterState::kRunning &&
         region->big_wait_ns.load(memory_order_relaxed) <= (now - first) / 100 + 250'000'000;
}

// A slot with the question in it; null where none is free.
Look* AskForLook(Region* region, std::uint64_t ticket, std::uint64_t address, std::uint64_t bytes, LookPhase asked) {
  for (std::uint32_t i = 0; i < kLookCount; ++i) {
    Look& look = region->looks[(ticket + i) % kLookCount];
    std::uint64_t state = look.state.load(memory_order_relaxed);
    if (PhaseOf(state) != LookPhase::kFree) continue;
    const std::uint64_t filling = LookState(ticket, LookPhase::kFilling);
    if (!look.state.compare_exchange_strong(state, filling, memory_order_acquire)) continue;
    look.address.store(address, memory_order_relaxed);
    look.bytes.store(bytes, memory_order_relaxed);
    look.state.store(LookState(ticket, asked), memory_order_release);
    region->looks_asked.fetch_add(1, memory_order_release);
    return &look;
  }
  return nullptr;
}

// Waits, for a bounded time, until the writer has looked. False where it did not. Each step asks whether the look is still
// this call's: a signal handler may fork in the midst of it, and the writer takes away a look that nobody came for.
bool AwaitLook(Region* region, Look* look, std::uint64_t ticket) {
  const std::uint64_t asked = LookState(ticket, LookPhase::kAsked);
  const std::uint64_t start = Now();
  std::uint64_t waited = 0;
  do {
    Sleep(10'000);  // which takes some 60 us; the writer comes as often while it is asked
    waited = Now() - start;
  } while (look->state.load(memory_order_acquire) == asked && waited < 20'000'000 && !WriterDied(region) &&
           region->generation.load(memory_order_relaxed) != 0);
  CountHeld(region, start, start + waited);
  region->big_wait_ns.fetch_add(waited, memory_order_relaxed);

  const std::uint64_t free = LookState(ticket, LookPhase::kFree);
  std::uint64_t state = asked;
  if (look->state.compare_exchange_strong(state, free, memory_order_acq_rel)) return false;
  if (state != LookState(ticket, LookPhase::kDone) || !look->state.compare_exchange_strong(state, free, memory_order_acq_rel)) {
    return false;
  }
  region->big_waits.fetch_add(1, memory_order_relaxed);
  return true;
}

// Has the writer look at the pages of a block. `stays`: the block will still be there if it comes late. Returns the look's
// ticket, 0 where there is none.
std::uint64_t LookAtPages(Region* region, std::uint64_t address, std::uint64_t bytes, bool stays) {
  const bool wait = MayAwaitLook(region);
  std::uint64_t ticket = 0;
  if (wait || stays) {
    ticket = region->look_tickets.fetch_add(1, memory_order_relaxed) + 1;
    Look* look = AskForLook(region, ticket, address, bytes, wait ? LookPhase::kAsked : LookPhase::kAskedInPassing);
    if (!look || (wait && !AwaitLook(region, look, ticket))) ticket = 0;
  }
  if (!wait || ticket == 0) region->big_skipped.fetch_add(1, memory_order_relaxed);
  return ticket;
}

// `usable` bytes are looked at.
__attribute__((noinline)) void RecordBig(RawOp op, const void* pointer, std::uint64_t size, std::uint64_t usable, More more) {
  const auto address = reinterpret_cast<std::uint64_t>(pointer);
  Region* region = process.region.load(memory_order_acquire);
  if (region && region->record_big.load(memory_order_relaxed) && pointer && region->generation.load(memory_order_relaxed) != 0) {
    const bool stays = op != RawOp::kFree && op != RawOp::kReallocBegin;
    if (stays) region->big_filter[BigFilterIndex(address)].fetch_add(1, memory_order_relaxed);
    more.look = LookAtPages(region, address, usable, stays);
  }
  RecordSlow(op, address, size, more);
}

inline bool MaybeBig(const void* pointer) {
  const Region* region = process.region.load(memory_order_relaxed);
  return region && UNLIKELY(region->big_filter[BigFilterIndex(reinterpret_cast<std::uint64_t>(pointer))].load(
                       memory_order_relaxed));
}

// --- the real functions --------------------------------------------------------------------------------

// dlsym itself may call calloc, and before the first dlsym there is nothing to hand it to.
constexpr std::size_t kBootstrapBytes = 16 << 10;
alignas(64) char bootstrap[kBootstrapBytes];
std::atomic<std::size_t> bootstrap_used;

bool FromBootstrap(const void* pointer) {
  return pointer >= bootstrap && pointer < bootstrap + kBootstrapBytes;
}

void* BootstrapAllocate(std::size_t size, std::size_t alignment = 16) {
  if (size > kBootstrapBytes || alignment > 4096) return nullptr;
  const std::size_t take = (size + alignment + 31) & ~std::size_t{15};
  const std::size_t at = bootstrap_used.fetch_add(take);
  if (at + take > kBootstrapBytes) return nullptr;
  const auto start = reinterpret_cast<std::uintptr_t>(bootstrap) + at + 16;
  const std::uintptr_t block = (start + alignment - 1) & ~(alignment - 1);
  reinterpret_cast<std::size_t*>(block)[-1] = size;
  return reinterpret_cast<void*>(block);
}

struct RealFunctions {
  void* (*malloc)(std::size_t);
  void* (*calloc)(std::size_t, std::size_t);
  void* (*realloc)(void*, std::size_t);
  void (*free)(void*);
  int (*posix_memalign)(void**, std::size_t, std::size_t);
  void* (*aligned_alloc)(std::size_t, std::size_t);
  void* (*memalign)(std::size_t, std::size_t);
  void* (*valloc)(std::size_t);
  void* (*pvalloc)(std::size_t);
  int (*malloc_trim)(std::size_t);
  int (*mallopt)(int, int);
  std::size_t (*malloc_usable_size)(void*);
  int (*pthread_create)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
};

void Resolve();

// Until resolved each entry resolves all of them and goes on; no caller needs to ask.
void* FirstMalloc(std::size_t size);
void* FirstCalloc(std::size_t count, std::size_t size);
void* FirstRealloc(void* pointer, std::size_t size);
void FirstFree(void* pointer);
int FirstPosixMemalign(void** result, std::size_t alignment, std::size_t size);
void* FirstAlignedAlloc(std::size_t alignment, std::size_t size);
void* FirstMemalign(std::size_t alignment, std::size_t size);
void* FirstValloc(std::size_t size);
void* FirstPvalloc(std::size_t size);
int FirstTrim(std::size_t pad);
int FirstMallopt(int parameter, int value);
std::size_t FirstUsable(void* pointer);
int FirstPthreadCreate(pthread_t* id, const pthread_attr_t* attributes, void* (*start)(void*), void* argument);

RealFunctions real = {FirstMalloc,   FirstCalloc, FirstRealloc, FirstFree, FirstPosixMemalign, FirstAlignedAlloc,
                      FirstMemalign, FirstValloc, FirstPvalloc, FirstTrim, FirstMallopt,       FirstUsable,
                      FirstPthreadCreate};
std::atomic<bool> resolved;
thread_local bool resolving __attribute__((tls_model("initial-exec")));

template <typename Function>
void ResolveOne(Function& entry, const char* name) {
  if (void* found = dlsym(RTLD_NEXT, name)) entry = reinterpret_cast<Function>(found);
}

void Resolve() {
  if (resolved.load(memory_order_acquire) || resolving) return;
  resolving = true;
  RealFunctions found = real;
  ResolveOne(found.malloc, "malloc");
  ResolveOne(found.calloc, "calloc");
  ResolveOne(found.realloc, "realloc");
  ResolveOne(found.free, "free");
  ResolveOne(found.posix_memalign, "posix_memalign");
  ResolveOne(found.aligned_alloc, "aligned_alloc");
  ResolveOne(found.memalign, "memalign");
  ResolveOne(found.valloc, "valloc");
  ResolveOne(found.pvalloc, "pvalloc");
  ResolveOne(found.malloc_trim, "malloc_trim");
  ResolveOne(found.mallopt, "mallopt");
  ResolveOne(found.malloc_usable_size, "malloc_usable_size");
  ResolveOne(found.pthread_create, "pthread_create");
  real = found;
  resolving = false;
  resolved.store(true, memory_order_release);
}

void* FirstMalloc(std::size_t size) {
  Resolve();
  return real.malloc != FirstMalloc ? real.malloc(size) : BootstrapAllocate(size);
}
void* FirstCalloc(std::size_t count, std::size_t size) {
  Resolve();
  std::size_t bytes;
  if (real.calloc != FirstCalloc) return real.calloc(count, size);
  return __builtin_mul_overflow(count, size, &bytes) ? nullptr : BootstrapAllocate(bytes);  // zeroed: never reused
}
void* FirstRealloc(void* pointer, std::size_t size) {
  Resolve();
  if (real.realloc != FirstRealloc) return real.realloc(pointer, size);
  return pointer ? nullptr : BootstrapAllocate(size);
}
void FirstFree(void* pointer) {
  Resolve();
  if (real.free != FirstFree) real.free(pointer);
}
int FirstPosixMemalign(void** result, std::size_t alignment, std::size_t size) {
  Resolve();
  if (real.posix_memalign != FirstPosixMemalign) return real.posix_memalign(result, alignment, size);
  void* block = BootstrapAllocate(size, alignment);
  if (!block) return ENOMEM;
  *result = block;
  return 0;
}
void* FirstAlignedAlloc(std::size_t alignment, std::size_t size) {
  Resolve();
  return real.aligned_alloc != FirstAlignedAlloc ? real.aligned_alloc(alignment, size)
                                                 : BootstrapAllocate(size, alignment);
}
void* FirstMemalign(std::size_t alignment, std::size_t size) {
  Resolve();
  return real.memalign != FirstMemalign ? real.memalign(alignment, size) : BootstrapAllocate(size, alignment);
}
void* FirstValloc(std::size_t size) {
  Resolve();
  return real.valloc != FirstValloc ? real.valloc(size) : BootstrapAllocate(size, 4096);
}
void* FirstPvalloc(std::size_t size) {
  Resolve();
  return real.pvalloc != FirstPvalloc ? real.pvalloc(size) : BootstrapAllocate((size + 4095) & ~4095ul, 4096);
}
int FirstTrim(std::size_t pad) {
  Resolve();
  return real.malloc_trim != FirstTrim ? real.malloc_trim(pad) : 0;
}
int FirstMallopt(int parameter, int value) {
  Resolve();
  return real.mallopt != FirstMallopt ? real.mallopt(parameter, value) : 0;
}
std::size_t FirstUsable(void* pointer) {
  Resolve();
  return real.malloc_usable_size != FirstUsable ? real.malloc_usable_size(pointer) : 0;
}
int FirstPthreadCreate(pthread_t* id, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  Resolve();
  return real.pthread_create != FirstPthreadCreate ? real.pthread_create(id, attributes, start, argument) : EAGAIN;
}

// Sets what lies below the caller's frame to 0.
__attribute__((noinline)) void WipeStack() {
  char area[1024];
  memset(area, 0, sizeof(area));
  __asm__ volatile("" : : "r"(area) : "memory");
}

// --- what the exported functions share -----------------------------------------------------------------

inline std::uint32_t AlignmentLog2(std::size_t alignment) {
  if (alignment <= 1) return 0;
  return 64 - __builtin_clzl(alignment - 1);  // of the next power of two
}

// The rare cases: a big block, an alignment, a call stack that is due.
__attribute__((noinline)) void RecordWithMore(RawOp op, const void* pointer, std::size_t size, std::uint32_t align_log2,
                                              const void* caller) {
  Frames frames;
  const Frames* taken = nullptr;
  if (pointer && CountToStack(size) && StackIsDue() && TakeStack(&frames, caller)) taken = &frames;
  const More more = {.align_log2 = align_log2, .frames = taken};
  if (size >= kBigBytes) return RecordBig(op, pointer, size, size, more);
  RecordSlow(op, reinterpret_cast<std::uint64_t>(pointer), size, more);
}

inline void RecordAllocation(RawOp op, const void* pointer, std::size_t size) {
  if (UNLIKELY(size >= kBigBytes || thread.stack_left <= static_cast<std::int64_t>(size))) {
    return RecordWithMore(op, pointer, size, 0, __builtin_return_address(0));
  }
  thread.stack_left -= static_cast<std::int64_t>(size);
  Record(op, pointer, size);
}

inline void RecordAligned(RawOp op, const void* pointer, std::size_t alignment, std::size_t size) {
  RecordWithMore(op, pointer, size, AlignmentLog2(alignment), __builtin_return_address(0));
}

// A free, or the beginning of a realloc.
inline void RecordEnd(RawOp op, void* pointer) {
  if (MaybeBig(pointer)) {
    const std::size_t usable = real.malloc_usable_size(pointer);
    if (usable >= kBigBytes) return RecordBig(op, pointer, 0, usable, {});
  }
  Record(op, pointer, 0);
}

inline void* Reallocate(void* pointer, std::size_t size, bool array) {
  if (!pointer) {
    void* result = real.realloc(nullptr, size);
    RecordAllocation(array ? RawOp::kReallocArrayFresh : RawOp::kReallocFresh, result, size);
    return result;
  }
  if (UNLIKELY(FromBootstrap(pointer))) {
    void* result = malloc(size);
    const std::size_t old = static_cast<std::size_t*>(pointer)[-1];
    if (result) memcpy(result, pointer, old < size ? old : size);
    return result;
  }
  RecordEnd(RawOp::kReallocBegin, pointer);
  void* result = real.realloc(pointer, size);
  if (!result && size == 0) {
    Record(RawOp::kReallocFreed, nullptr, 0);
  } else {
    RecordAllocation(array ? RawOp::kReallocArrayEnd : RawOp::kReallocEnd, result, size);
  }
  return result;
}

// --- the operators of C++ ------------------------------------------------------------------------------

// The C++ library's call malloc and free and are recorded there. An allocator may bring its own, some of which come to
// its malloc and free by way of this library and some of which do not (both are found in one and the same allocator):
// the latter are recorded here. Which is which is found out by calling each once.
enum CxxOperator {
  kNew, kNewArray, kNewNothrow, kNewArrayNothrow, kNewAligned, kNewArrayAligned, kNewAlignedNothrow,
  kNewArrayAlignedNothrow, kDelete, kDeleteArray, kDeleteNothrow, kDeleteArrayNothrow, kDeleteSized,
  kDeleteArraySized, kDeleteAligned, kDeleteArrayAligned, kDeleteAlignedNothrow, kDeleteArrayAlignedNothrow,
  kDeleteSizedAligned, kDeleteArraySizedAligned, kCxxOperatorCount
};
constexpr const char* kCxxOperatorNames[kCxxOperatorCount] = {
    "_Znwm", "_Znam", "_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t", "_ZdlPv", "_ZdaPv",
    "_ZdlPvRKSt9nothrow_t", "_ZdaPvRKSt9nothrow_t", "_ZdlPvm", "_ZdaPvm", "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t", "_ZdlPvSt11align_val_tRKSt9nothrow_t", "_ZdaPvSt11align_val_tRKSt9nothrow_t",
    "_ZdlPvmSt11align_val_t", "_ZdaPvmSt11align_val_t"};

struct RealOperator {
  void* function;
  bool record;  // it does not come to malloc or free here
};
RealOperator real_operators[kCxxOperatorCount];
std::atomic<bool> operators_resolved;

// Where there is no C++ library at all: nobody can have caught what they would throw.
void* PlainNew(std::size_t size) { return malloc(size ? size : 1); }
void* PlainNewAligned(std::size_t size, std::size_t alignment) { return aligned_alloc(alignment, size ? size : 1); }
void PlainDelete(void* pointer) { free(pointer); }

RealFunctions behind_probes;
const nothrow_t kNothrow;

// Takes the places of the real functions for a moment. Other threads pass through as well.
template <auto Member>
struct Probe;
template <typename Result, typename... Arguments, Result (*RealFunctions::*Member)(Arguments...)>
struct Probe<Member> {
  static Result Call(Arguments... arguments) {
    thread.probe_hit = true;
    return (behind_probes.*Member)(arguments...);
  }
  static void Set(bool on) { real.*Member = on ? Call : behind_probes.*Member; }
};

void SetProbes(bool on) {
  if (on) behind_probes = real;
  Probe<&RealFunctions::malloc>::Set(on);
  Probe<&RealFunctions::calloc>::Set(on);
  Probe<&RealFunctions::posix_memalign>::Set(on);
  Probe<&RealFunctions::aligned_alloc>::Set(on);
  Probe<&RealFunctions::memalign>::Set(on);
  Probe<&RealFunctions::free>::Set(on);
}

constexpr bool IsAligned(int which) {
  return (which >= kNewAligned && which <= kNewArrayAlignedNothrow) || which >= kDeleteAligned;
}

void* CallNew(int which, void* function) {
  constexpr std::size_t kBytes = 64;
  constexpr align_val_t kAlignment{64};
  if (which <= kNewArray) return reinterpret_cast<void* (*)(std::size_t)>(function)(kBytes);
  if (which <= kNewArrayNothrow) {
    return reinterpret_cast<void* (*)(std::size_t, const nothrow_t*)>(function)(kBytes, &kNothrow);
  }
  if (which <= kNewArrayAligned) return reinterpret_cast<void* (*)(std::size_t, align_val_t)>(function)(kBytes, kAlignment);
  return reinterpret_cast<void* (*)(std::size_t, align_val_t, const nothrow_t*)>(function)(kBytes, kAlignment, &kNothrow);
}

void CallDelete(int which, void* function, void* pointer) {
  constexpr std::size_t kBytes = 64;
  constexpr align_val_t kAlignment{64};
  if (which <= kDeleteArray) {
    reinterpret_cast<void (*)(void*)>(function)(pointer);
  } else if (which <= kDeleteArrayNothrow) {
    reinterpret_cast<void (*)(void*, const nothrow_t*)>(function)(pointer, &kNothrow);
  } else if (which <= kDeleteArraySized) {
    reinterpret_cast<void (*)(void*, std::size_t)>(function)(pointer, kBytes);
  } else if (which <= kDeleteArrayAligned) {
    reinterpret_cast<void (*)(void*, align_val_t)>(function)(pointer, kAlignment);
  } else if (which <= kDeleteArrayAlignedNothrow) {
    reinterpret_cast<void (*)(void*, align_val_t, const nothrow_t*)>(function)(pointer, kAlignment, &kNothrow);
  } else {
    reinterpret_cast<void (*)(void*, std::size_t, align_val_t)>(function)(pointer, kBytes, kAlignment);
  }
}

// Does it come to this library's functions?
void ProbeOperators(RealOperator* found) {
  const std::uint32_t generation = thread.generation;
  thread.probing = true;
  thread.generation = 0;
  SetProbes(true);
  for (int i = 0; i < kCxxOperatorCount; ++i) {
    if (!found[i].record) continue;
    const bool is_delete = i >= kDelete;
    const int maker = is_delete ? (IsAligned(i) ? kNewAligned : kNew) : i;
    const int ender = is_delete ? i : (IsAligned(i) ? kDeleteAligned : kDelete);
    thread.probe_hit = false;
    void* block = CallNew(maker, found[maker].function);
    if (!is_delete && thread.probe_hit) found[i].record = false;
    thread.probe_hit = false;
    CallDelete(ender, found[ender].function, block);
    if (is_delete && thread.probe_hit) found[i].record = false;
  }
  SetProbes(false);
  thread.generation = generation;
  thread.probing = false;
}

__attribute__((noinline)) void ResolveOperators() {
  // One thread finds out; another that comes meanwhile would see its probes.
  static std::atomic<bool> busy;
  while (busy.exchange(true, memory_order_acq_rel)) {
    if (operators_resolved.load(memory_order_acquire)) return;
    Sleep(20'000);
  }
  // A program in C may load the C++ library with a plugin, where the search by order does not see it.
  void* library = nullptr;
  if (!dlsym(RTLD_NEXT, kCxxOperatorNames[kNew])) {
    library = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
    if (!library) library = dlopen("libc++.so.1", RTLD_LAZY | RTLD_NOLOAD);
  }
  Dl_info allocator = {};
  dladdr(reinterpret_cast<void*>(real.malloc), &allocator);
  for (int i = 0; i < kCxxOperatorCount; ++i) {
    void* found = dlsym(library ? library : RTLD_NEXT, kCxxOperatorNames[i]);
    Dl_info its = {};
    const bool own = found && dladdr(found, &its) && its.dli_fbase == allocator.dli_fbase;
    // It must not go while this library calls it.
    if (found && its.dli_fname) dlopen(its.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    if (!found) {
      found = i >= kDelete     ? reinterpret_cast<void*>(PlainDelete)
              : IsAligned(i) ? reinterpret_cast<void*>(PlainNewAligned)
                             : reinterpret_cast<void*>(PlainNew);
    }
    real_operators[i] = {found, own};
  }
  ProbeOperators(real_operators);
  operators_resolved.store(true, memory_order_release);
}

// An operator that calls another one comes to this library as well.
bool BeingProbed() {
  thread.probe_hit = true;
  return thread.probing;
}

template <typename... More>
inline void* New(CxxOperator which, std::size_t size, std::size_t alignment, More... more) {
  if (UNLIKELY(!operators_resolved.load(memory_order_acquire)) && !BeingProbed()) ResolveOperators();
  const RealOperator& next = real_operators[which];
  void* result = reinterpret_cast<void* (*)(std::size_t, More...)>(next.function)(size, more...);
  if (next.record && LIKELY(!thread.probing)) {
    if (alignment) {
      RecordAligned(RawOp::kAlignedAlloc, result, alignment, size);
    } else {
      RecordAllocation(RawOp::kMalloc, result, size);
    }
  }
  return result;
}

template <typename... More>
inline void Delete(CxxOperator which, void* pointer, More... more) {
  if (UNLIKELY(!operators_resolved.load(memory_order_acquire)) && !BeingProbed()) ResolveOperators();
  const RealOperator& next = real_operators[which];
  if (next.record && pointer && LIKELY(!thread.probing)) RecordEnd(RawOp::kFree, pointer);
  reinterpret_cast<void (*)(void*, More...)>(next.function)(pointer, more...);
}

// --- start, fork, thread end ---------------------------------------------------------------------------

// The constructor has run (or will never): decided once for the process.
void TurnOff() {
  is_off.store(true, memory_order_relaxed);
  process.region.store(nullptr, memory_order_release);
}

Region* EnterChild() {
  const std::uint32_t index = region_for_child;
  if (index == 0) {
    is_off.store(true, memory_order_relaxed);
    return nullptr;
  }
  region_for_child = 0;
  Region* region = &regions[index];
  Region* parent = &regions[own_region];
  ForkSlot& slot = regions[0].forks[index];
  if (SystemCall(SYS_mprotect, reinterpret_cast<long>(region), sizeof(Region), PROT_READ | PROT_WRITE) != 0) {
    slot.role.store(ProcessRole::kDropped, memory_order_relaxed);
    is_off.store(true, memory_order_relaxed);
    return nullptr;
  }
  own_region = index;
  memcpy(&region->options, &parent->options, sizeof(region->options));
  memcpy(region->output, parent->output, sizeof(region->output));
  PrepareRegion(region);
  for (std::uint32_t i = 0; i < kBigFilterSize; ++i) {
    region->big_filter[i].store(parent->big_filter[i].load(memory_order_relaxed), memory_order_relaxed);
  }
  region->record_big.store(parent->record_big.load(memory_order_relaxed), memory_order_relaxed);
  region->fork_allowed.store(parent->fork_allowed.load(memory_order_relaxed), memory_order_relaxed);
  slot.role.store(parent->options.children ? ProcessRole::kChild : ProcessRole::kProvisional, memory_order_relaxed);
  slot.child_pid.store(static_cast<std::int32_t>(SystemCall(SYS_getpid)), memory_order_release);
  // What this thread holds is a chunk of its parent's.
  thread.generation = 0;
  thread.attached = 0;
  region->generation.store(1, memory_order_release);
  process.region.store(region, memory_order_release);
  return region;
}

// The first event of a process: of the program itself (which may come long before the constructor) or of
// a forked child, whose process page is empty.
Region* EnterProcess() {
  Setup expected = Setup::kNone;
  if (setup.load(memory_order_acquire) == Setup::kDone) return EnterChild();
  if (!setup.compare_exchange_strong(expected, Setup::kBusy)) return nullptr;
  const long memory = SystemCall(SYS_mmap, 0, sizeof(Region) * kRegionCount, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  const long wiped = SystemCall(SYS_madvise, reinterpret_cast<long>(&process), sizeof(process), MADV_WIPEONFORK);
  if ((memory < 0 && memory > -4096) || wiped != 0) {
    TurnOff();
  } else {
    regions = reinterpret_cast<Region*>(memory);
    PrepareRegion(&regions[0]);
    regions[0].forks[0].claimed.store(1, memory_order_relaxed);
    SystemCall(SYS_mprotect, reinterpret_cast<long>(&regions[1]), sizeof(Region) * (kRegionCount - 1), PROT_NONE);
    regions[0].generation.store(1, memory_order_release);
    process.region.store(&regions[0], memory_order_release);
  }
  setup.store(Setup::kDone, memory_order_release);
  return process.region.load(memory_order_acquire);
}

void BeforeFork() {
  Region* region = process.region.load(memory_order_acquire);
  region_for_child = 0;
  if (!region || region->generation.load(memory_order_acquire) == 0) return;
  if (region->fork_allowed.load(memory_order_acquire)) {
    for (std::uint32_t i = 1; i < kRegionCount; ++i) {
      std::uint32_t unclaimed = 0;
      ForkSlot& slot = regions[0].forks[i];
      if (slot.claimed.compare_exchange_strong(unclaimed, 1, memory_order_acq_rel)) {
        slot.parent.store(own_region, memory_order_relaxed);
        region_for_child = i;
        break;
      }
    }
  }
  RecordSlow(RawOp::kFork, 0, region_for_child, {});
}

void AfterForkInParent() { region_for_child = 0; }

void AfterForkInChild() {
  if (!process.region.load(memory_order_acquire) && setup.load(memory_order_acquire) == Setup::kDone &&
      !is_off.load(memory_order_relaxed)) {
    EnterChild();
  }
}

// Key destructors run in up to four rounds; coming back in each, the last one is after everybody else's.
void ThreadExit(void*) {
  Region* region = process.region.load(memory_order_acquire);
  if (!region || thread.region != region || thread.ended) return;
  if (thread.exit_rounds < PTHREAD_DESTRUCTOR_ITERATIONS) {
    ++thread.exit_rounds;
    pthread_setspecific(exit_key, &thread);
    return;
  }
  RecordSlow(RawOp::kThreadEnd, 0, 0, {});
  thread.ended = true;
  thread.generation = 0;
  thread.attached = 0;
  if (thread.header) {
    thread.header->state.store(ChunkState::kClosed, memory_order_release);
    thread.header = nullptr;
    region->owned_count.fetch_sub(1, memory_order_relaxed);
  }
}

// exit(): after the program's own handlers. Big blocks that are alive now have no free at which their pages
// would be looked at.
__attribute__((destructor)) void AwaitLastLook() {
  Region* region = process.region.load(memory_order_acquire);
  if (!region || !region->record_big.load(memory_order_relaxed) || region->generation.load(memory_order_acquire) == 0 ||
      region->writer_state.load(memory_order_acquire) != WriterState::kRunning) {
    return;
  }
  bool any = false;
  for (const auto& count : region->big_filter) any |= count.load(memory_order_relaxed) != 0;
  if (!any) return;
  region->last_look_asked.store(1, memory_order_release);
  const std::uint64_t start = Now();
  while (region->last_look_done.load(memory_order_acquire) == 0 && Now() - start < kLastLookPatience && !WriterDied(region) &&
         region->generation.load(memory_order_relaxed) != 0) {
    Sleep(50'000);
  }
  CountHeld(region, start, Now());
}

bool StartsWith(const char* text, const char* prefix) {
  while (*prefix) {
    if (*text++ != *prefix++) return false;
  }
  return true;
}

const char* Find(char** environment, const char* name) {
  for (char** entry = environment; *entry; ++entry) {
    if (StartsWith(*entry, name)) return *entry + strlen(name);
  }
  return nullptr;
}

void Remove(char** environment, const char* prefix) {
  char** kept = environment;
  for (char** entry = environment; *entry; ++entry) {
    if (!StartsWith(*entry, prefix)) *kept++ = *entry;
  }
  *kept = nullptr;
}

// The program, and what it executes, sees the environment it would have seen without the recorder.
void CleanEnvironment(char** environment, const char* own_path) {
  for (char** entry = environment; *entry; ++entry) {
    if (!StartsWith(*entry, "LD_PRELOAD=")) continue;
    char* list = *entry + strlen("LD_PRELOAD=");
    char* kept = list;
    for (char* item = list; *item;) {
      const std::size_t length = strcspn(item, ": ");
      const char separator = item[length];
      const char* base = item;
      for (std::size_t i = 0; i < length; ++i) {
        if (item[i] == '/') base = item + i + 1;
      }
      const bool own = (strlen(own_path) == length && memcmp(item, own_path, length) == 0) ||
                       StartsWith(base, "libheaptape");
      char* following = separator ? item + length + 1 : item + length;
      if (!own && length > 0) {
        if (kept != list) *kept++ = ':';
        memmove(kept, item, length);
        kept += length;
      }
      item = following;
    }
    *kept = '\0';
    if (kept == list) Remove(environment, "LD_PRELOAD=");
    break;
  }
  Remove(environment, "HEAPTAPE_");
}

struct OptionName {
  const char* name;
  std::size_t offset;
};

constexpr OptionName kOptionNames[] = {
#define HEAPTAPE_OPTION(name) {#name "=", offsetof(RecorderOptions, name)},
    HEAPTAPE_RECORDER_OPTIONS(HEAPTAPE_OPTION)
#undef HEAPTAPE_OPTION
};

void ParseOptions(const char* text, RecorderOptions* options) {
  while (text && *text) {
    for (const OptionName& option : kOptionNames) {
      if (!StartsWith(text, option.name)) continue;
      std::uint64_t value = 0;
      for (const char* digit = text + strlen(option.name); *digit >= '0' && *digit <= '9'; ++digit) {
        value = value * 10 + (*digit - '0');
      }
      *reinterpret_cast<std::uint64_t*>(reinterpret_cast<char*>(options) + option.offset) = value;
    }
    while (*text && *text != ';') ++text;
    if (*text) ++text;
  }
}

const char* BaseName(const char* path) {
  const char* base = path;
  for (; *path; ++path) {
    if (*path == '/') base = path + 1;
  }
  return base;
}

// A drop-in preloads every command of a unit; only the one meant is recorded.
bool Meant(char** environment, int argc, char** argv) {
  if (const char* program = Find(environment, "HEAPTAPE_PROGRAM=")) {
    char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (length <= 0) return false;
    path[length] = '\0';
    if (strcmp(BaseName(path), BaseName(program)) != 0) return false;
  }
  if (const char* unwanted = Find(environment, "HEAPTAPE_UNLESS_ARGUMENT=")) {
    for (int i = 1; i < argc; ++i) {
      if (strcmp(argv[i], unwanted) == 0) return false;
    }
  }
  return true;
}

void Say(const char* what) {
  const char prefix[] = "heaptape: not recording: ";
  SystemCall(SYS_write, 2, reinterpret_cast<long>(prefix), sizeof(prefix) - 1);
  SystemCall(SYS_write, 2, reinterpret_cast<long>(what), static_cast<long>(strlen(what)));
  SystemCall(SYS_write, 2, reinterpret_cast<long>("\n"), 1);
}

// In the forked process. Does not return.
void RunWriter(Region* region, std::int32_t target, const char* own_path) {
  char path[4096];
  const std::size_t folder = static_cast<std::size_t>(BaseName(own_path) - own_path);
  const char name[] = "heaptape-writer.so";
  if (folder + sizeof(name) <= sizeof(path)) {
    memcpy(path, own_path, folder);
    memcpy(path + folder, name, sizeof(name));
    // A namespace of its own: the writer's C++ library, zstd and heap are not the program's, whatever the
    // program exports and whichever allocator it runs on.
    void* writer = dlmopen(LM_ID_NEWLM, path, RTLD_NOW);
    if (!writer) Say(dlerror());
    if (void* function = writer ? dlsym(writer, "HeaptapeWriterMain") : nullptr) {
      const WriterStart start = {regions, target};
      reinterpret_cast<WriterMain>(function)(&start);
    }
  }
  region->writer_state.store(WriterState::kRefused, memory_order_release);
  SystemCall(SYS_exit_group, 1);
}

// Two forks, so that the program never has a child it did not make: the first is made without an exit signal
// and waited for here, the second goes to the system's reaper.
bool StartWriter(Region* region, const char* own_path) {
  const std::int32_t target = static_cast<std::int32_t>(SystemCall(SYS_getpid));
  const long child = SystemCall(SYS_clone, 0, 0, 0, 0, 0);
  if (child < 0) return false;
  if (child == 0) {
    is_off.store(true);
    const pid_t writer = _Fork();
    if (writer == 0) RunWriter(region, target, own_path);
    if (writer < 0) region->writer_state.store(WriterState::kRefused, memory_order_release);
    SystemCall(SYS_exit_group, 0);
  }
  long result;
  do {
    result = SystemCall(SYS_wait4, child, 0, __WALL, 0);
  } while (result == -EINTR);
  // The writer opens the output and the program's files in /proc before the program may give up the right to.
  const std::uint64_t start = Now();
  while (region->writer_state.load(memory_order_acquire) == WriterState::kStarting) {
    if (WriterDied(region) || Now() - start > 10'000'000'000) return false;
    Sleep(200'000);
  }
  return region->writer_state.load(memory_order_acquire) == WriterState::kRunning;
}

__attribute__((constructor)) void Construct(int argc, char** argv, char** environment) {
  const int saved_errno = errno;
  Resolve();
  Region* region = process.region.load(memory_order_acquire);
  if (!region && !is_off.load(memory_order_relaxed)) region = EnterProcess();
  Dl_info own;
  const bool known = dladdr(reinterpret_cast<void*>(&Construct), &own) != 0;
  const char* output = Find(environment, "HEAPTAPE_OUTPUT=");
  bool wanted = known && output && strlen(output) < sizeof(region->output) && Meant(environment, argc, argv);
  if (wanted && !region) Say("no shared memory for the recording.");
  if (wanted && region) {
    region->options = RecorderOptions();
    ParseOptions(Find(environment, "HEAPTAPE_OPTIONS="), &region->options);
    memcpy(region->output, output, strlen(output) + 1);
    region->record_big.store(region->options.big_blocks ? 1 : 0, memory_order_relaxed);
    Dl_info allocator;
    if (dladdr(reinterpret_cast<void*>(real.malloc), &allocator) && allocator.dli_fname &&
        strlen(allocator.dli_fname) < sizeof(region->allocator_path)) {
      memcpy(region->allocator_path, allocator.dli_fname, strlen(allocator.dli_fname) + 1);
    }
    // A program that brings its own malloc never asks this one.
    region->own_malloc.store(dlsym(RTLD_DEFAULT, "malloc") != reinterpret_cast<void*>(&malloc), memory_order_relaxed);
    if (region->options.stack_bytes) {
      const bool ready = PrepareStacks(own);
      if (!ready) Say("call stacks, because there is no libgcc_s.so.1 of GCC 12 or later. The rest is recorded.");
      stack_step.store(ready ? static_cast<std::int64_t>(region->options.stack_bytes) : -1, memory_order_release);
    } else {
      stack_step.store(-1, memory_order_release);
    }
    if (region->options.suspended) region->generation.store(0, memory_order_release);
    const std::uint64_t report = region->options.report_fd;
    wanted = StartWriter(region, own.dli_fname);
    if (report < 1u << 20) close(static_cast<int>(report));
    if (wanted) {
      exit_key_exists = pthread_key_create(&exit_key, ThreadExit) == 0;
      pthread_atfork(BeforeFork, AfterForkInParent, AfterForkInChild);
    }
  }
  if (known && !(wanted && region && region->options.children)) CleanEnvironment(environment, own.dli_fname);
  if (!wanted || !region) {
    if (region) region->generation.store(0, memory_order_release);
    TurnOff();
    if (regions) SystemCall(SYS_munmap, reinterpret_cast<long>(regions), sizeof(Region) * kRegionCount);
  }
  errno = saved_errno;
}

}  // namespace
}  // namespace heaptape

// --- the functions the program calls ---------------------------------------------------------------------

using heaptape::RawOp;
using heaptape::real;

EXPORT void* malloc(std::size_t size) noexcept {
  void* result = real.malloc(size);
  heaptape::RecordAllocation(RawOp::kMalloc, result, size);
  return result;
}

EXPORT void free(void* pointer) noexcept {
  if (!pointer || UNLIKELY(heaptape::FromBootstrap(pointer))) return;
  heaptape::RecordEnd(RawOp::kFree, pointer);
  real.free(pointer);
}

EXPORT void cfree(void* pointer) noexcept { free(pointer); }

EXPORT void* calloc(std::size_t count, std::size_t size) noexcept {
  void* result = real.calloc(count, size);
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) bytes = ~std::size_t{0};
  heaptape::RecordAllocation(RawOp::kCalloc, result, bytes);
  return result;
}

EXPORT void* realloc(void* pointer, std::size_t size) noexcept { return heaptape::Reallocate(pointer, size, false); }

// The C library's own would call realloc, which would be recorded as well.
EXPORT void* reallocarray(void* pointer, std::size_t count, std::size_t size) noexcept {
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) {
    errno = ENOMEM;
    return nullptr;
  }
  return heaptape::Reallocate(pointer, bytes, true);
}

EXPORT int posix_memalign(void** result, std::size_t alignment, std::size_t size) noexcept {
  const int error = real.posix_memalign(result, alignment, size);
  heaptape::RecordAligned(RawOp::kPosixMemalign, error ? nullptr : *result, alignment, size);
  return error;
}

EXPORT void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  void* result = real.aligned_alloc(alignment, size);
  heaptape::RecordAligned(RawOp::kAlignedAlloc, result, alignment, size);
  return result;
}

EXPORT void* memalign(std::size_t alignment, std::size_t size) noexcept {
  void* result = real.memalign(alignment, size);
  heaptape::RecordAligned(RawOp::kMemalign, result, alignment, size);
  return result;
}

EXPORT void* valloc(std::size_t size) noexcept {
  void* result = real.valloc(size);
  heaptape::RecordAllocation(RawOp::kValloc, result, size);
  return result;
}

EXPORT void* pvalloc(std::size_t size) noexcept {
  void* result = real.pvalloc(size);
  heaptape::RecordAllocation(RawOp::kPvalloc, result, size);
  return result;
}

EXPORT int malloc_trim(std::size_t pad) noexcept {
  heaptape::Record(RawOp::kTrim, nullptr, pad);
  return real.malloc_trim(pad);
}

EXPORT int mallopt(int parameter, int value) noexcept {
  heaptape::Record(RawOp::kMallopt, reinterpret_cast<void*>(static_cast<std::uintptr_t>(static_cast<unsigned>(parameter))),
                   static_cast<unsigned>(value));
  return real.mallopt(parameter, value);
}

// Not recorded. A seccomp filter (tor's Sandbox 1) may forbid the C library to read the thread's signal mask here. It does
// not look whether it could, and later sets the mask to what lay on the stack: what this library's frames have left there
// would block other signals than without it, SIGHUP among them. So nothing lies there, and none is blocked.
EXPORT int pthread_create(pthread_t* id, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) noexcept {
  heaptape::WipeStack();
  return real.pthread_create(id, attributes, start, argument);
}

// --- the operators a C++ program calls -----------------------------------------------------------------------

#define EXPORT_CXX __attribute__((visibility("default")))
using heaptape::Delete;
using heaptape::New;
using std::align_val_t;
using std::nothrow_t;
using std::size_t;

EXPORT_CXX void* operator new(size_t size) { return New(heaptape::kNew, size, 0); }
EXPORT_CXX void* operator new[](size_t size) { return New(heaptape::kNewArray, size, 0); }
EXPORT_CXX void* operator new(size_t size, const nothrow_t& tag) noexcept {
  return New(heaptape::kNewNothrow, size, 0, &tag);
}
EXPORT_CXX void* operator new[](size_t size, const nothrow_t& tag) noexcept {
  return New(heaptape::kNewArrayNothrow, size, 0, &tag);
}
EXPORT_CXX void* operator new(size_t size, align_val_t alignment) {
  return New(heaptape::kNewAligned, size, static_cast<size_t>(alignment), alignment);
}
EXPORT_CXX void* operator new[](size_t size, align_val_t alignment) {
  return New(heaptape::kNewArrayAligned, size, static_cast<size_t>(alignment), alignment);
}
EXPORT_CXX void* operator new(size_t size, align_val_t alignment, const nothrow_t& tag) noexcept {
  return New(heaptape::kNewAlignedNothrow, size, static_cast<size_t>(alignment), alignment, &tag);
}
EXPORT_CXX void* operator new[](size_t size, align_val_t alignment, const nothrow_t& tag) noexcept {
  return New(heaptape::kNewArrayAlignedNothrow, size, static_cast<size_t>(alignment), alignment, &tag);
}
EXPORT_CXX void operator delete(void* pointer) noexcept { Delete(heaptape::kDelete, pointer); }
EXPORT_CXX void operator delete[](void* pointer) noexcept { Delete(heaptape::kDeleteArray, pointer); }
EXPORT_CXX void operator delete(void* pointer, const nothrow_t& tag) noexcept {
  Delete(heaptape::kDeleteNothrow, pointer, &tag);
}
EXPORT_CXX void operator delete[](void* pointer, const nothrow_t& tag) noexcept {
  Delete(heaptape::kDeleteArrayNothrow, pointer, &tag);
}
EXPORT_CXX void operator delete(void* pointer, size_t size) noexcept { Delete(heaptape::kDeleteSized, pointer, size); }
EXPORT_CXX void operator delete[](void* pointer, size_t size) noexcept {
  Delete(heaptape::kDeleteArraySized, pointer, size);
}
EXPORT_CXX void operator delete(void* pointer, align_val_t alignment) noexcept {
  Delete(heaptape::kDeleteAligned, pointer, alignment);
}
EXPORT_CXX void operator delete[](void* pointer, align_val_t alignment) noexcept {
  Delete(heaptape::kDeleteArrayAligned, pointer, alignment);
}
EXPORT_CXX void operator delete(void* pointer, align_val_t alignment, const nothrow_t& tag) noexcept {
  Delete(heaptape::kDeleteAlignedNothrow, pointer, alignment, &tag);
}
EXPORT_CXX void operator delete[](void* pointer, align_val_t alignment, const nothrow_t& tag) noexcept {
  Delete(heaptape::kDeleteArrayAlignedNothrow, pointer, alignment, &tag);
}
EXPORT_CXX void operator delete(void* pointer, size_t size, align_val_t alignment) noexcept {
  Delete(heaptape::kDeleteSizedAligned, pointer, size, alignment);
}
EXPORT_CXX void operator delete[](void* pointer, size_t size, align_val_t alignment) noexcept {
  Delete(heaptape::kDeleteArraySizedAligned, pointer, size, alignment);
}
