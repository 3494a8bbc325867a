#include "replayer/worker/engine.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <bit>
#include <cstddef>

#include "replayer/worker/kernel.h"
#include "replayer/worker/machine.h"
#include "replayer/worker/pool.h"

namespace heaptape::worker {
namespace {

constexpr std::uintptr_t kSlotsAddress = kOwnAddresses + (std::uintptr_t{4} << 40);
constexpr std::uintptr_t kLargeSizesAddress = kOwnAddresses + (std::uintptr_t{5} << 40);
constexpr std::uintptr_t kNullRegionAddress = kOwnAddresses + (std::uintptr_t{6} << 40);
constexpr std::uint64_t kNullRegionBytes = std::uint64_t{64} << 30;

constexpr int kSizeShift = 48;
constexpr std::uint64_t kAddressMask = (std::uint64_t{1} << kSizeShift) - 1;
constexpr std::uint64_t kSizeElsewhere = 0xffff;
// The first four bytes of an entry are kind, flags and thread (from this bit on).
constexpr int kThreadShift = 16;
static_assert(offsetof(Event, op) == 0 && offsetof(Event, thread) == kThreadShift / 8 && sizeof(Event::thread) == 2);
constexpr std::uint32_t kNoEntry = ~std::uint32_t{0};  // no kind has this number
// The consumed part of the ring is given back, and the memory limit looked at, this often.
constexpr std::uint64_t kPublishEntries = 4096;
// So many entries before its turn an entry, its object's slot, and the object are fetched into the cache.
constexpr std::uint64_t kEntriesAhead = 96, kSlotsAhead = 16, kBlocksAhead = 6;
constexpr std::uint32_t kLazyFreeSamples = 64;  // of a run have their LazyFree read: it walks page tables

// Writes one byte to each page of [from, to).
inline void TouchPages(std::uintptr_t from, std::uintptr_t to) {
  if (from >= to) return;
  *reinterpret_cast<volatile char*>(from) = 1;
  for (std::uintptr_t page = (from | (kPageBytes - 1)) + 1; page < to; page += kPageBytes) {
    *reinterpret_cast<volatile char*>(page) = 1;
  }
}

// The allocator that does nothing: what remains is the engine itself. Its one block is shared memory.
void* NullMalloc(std::size_t bytes) { return bytes <= kNullRegionBytes ? reinterpret_cast<void*>(kNullRegionAddress) : nullptr; }
void* NullCalloc(std::size_t count, std::size_t bytes) { return NullMalloc(count * bytes); }
void* NullRealloc(void*, std::size_t bytes) { return NullMalloc(bytes); }
void NullFree(void*) {}
void* NullAligned(std::size_t, std::size_t bytes) { return NullMalloc(bytes); }

// Stand-ins for what a library lacks.
AllocatorFunctions target;
void* CallocByMalloc(std::size_t count, std::size_t bytes) {
  void* block = target.malloc(count * bytes);
  return block == nullptr ? nullptr : memset(block, 0, count * bytes);
}
void* AlignedByPosix(std::size_t alignment, std::size_t bytes) {
  void* block = nullptr;
  return target.posix_memalign(&block, alignment < sizeof(void*) ? sizeof(void*) : alignment, bytes) == 0 ? block : nullptr;
}
void* AlignedNever(std::size_t, std::size_t) { return nullptr; }

std::uint64_t Nanoseconds(const timeval& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_usec) * 1'000;
}

}  // namespace

bool Replayer::Prepare(SharedHeader& shared) {
  shared_ = &shared;
  const Settings& settings = shared.settings;
  char* base = reinterpret_cast<char*>(&shared);
  ring_ = reinterpret_cast<const Event*>(base + shared.ring_offset);
  ring_mask_ = settings.ring_entries - 1;
  samples_ = reinterpret_cast<WorkerSample*>(base + shared.samples_offset);
  switch (settings.touch) {
    case TouchMode::kRecorded:
      touch_limit_ = kLargeBlockBytes;
      break;
    case TouchMode::kFull:
      touch_limit_ = ~std::uint64_t{0};
      break;
    case TouchMode::kNone:
      break;
  }
  const std::uint64_t table_bytes = (settings.slot_count + 1) * sizeof(std::uint64_t);
  slots_ = static_cast<std::uint64_t*>(MapOwnMemory(kSlotsAddress, table_bytes, true));
  large_sizes_ = static_cast<std::uint64_t*>(MapOwnMemory(kLargeSizesAddress, table_bytes, false));
  if (slots_ == nullptr || large_sizes_ == nullptr) return false;
  if (settings.heap_maps) {
    blocks_ = reinterpret_cast<LiveBlock*>(base + shared.blocks_offset);
    used_pages_ = static_cast<std::uint8_t*>(MapOwnMemory(kUsedPagesAddress, kUsedPagesBytes, false));
    if (used_pages_ == nullptr) return false;
  }
  if (settings.null_allocator && MapOwnMemory(kNullRegionAddress, kNullRegionBytes, false) == nullptr) return false;

  if (!threads_.Prepare(settings.thread_count, settings.distrust_fsgsbase == 0)) return false;
  lockstep_ = settings.engine == EngineMode::kLockstep || (settings.thread_count > 1 && (settings.distrust_identities != 0 || !threads_.CanWearIdentities()));
  if (lockstep_) threads_.SetBody(RunThread, this);
  shared.findings.engine = static_cast<std::uint32_t>(lockstep_ ? EngineMode::kLockstep : EngineMode::kFast);
  shared.findings.fsgsbase = threads_.uses_fsgsbase();
  return true;
}

void Replayer::Run(const AllocatorFunctions& functions) {
  functions_ = functions;
  if (shared_->settings.null_allocator) {
    functions_ = {.malloc = NullMalloc, .calloc = NullCalloc, .realloc = NullRealloc, .free = NullFree,
                  .aligned_alloc = NullAligned, .memalign = NullAligned};
  }
  if (functions_.memalign == nullptr) {
    functions_.memalign = functions_.posix_memalign != nullptr  ? AlignedByPosix
                          : functions_.aligned_alloc != nullptr ? functions_.aligned_alloc
                                                                : AlignedNever;
  }
  if (functions_.aligned_alloc == nullptr) functions_.aligned_alloc = functions_.memalign;
  if (functions_.calloc == nullptr) functions_.calloc = CallocByMalloc;
  target = functions_;

  Findings& findings = shared_->findings;
  rusage before, after;
  Kernel(SYS_getrusage, RUSAGE_SELF, &before);
  const std::uint64_t start_ns = RealNow();
  machine.real_start_ns = start_ns;
  machine.counting = true;
  WatchCalls(true);
  if (lockstep_) {
    // The main thread is thread 0; when it is not its turn it waits.
    while (!Advance<true>(0)) {
    }
  } else {
    Advance<false>(0);
    threads_.Wear(0);
  }
  WatchCalls(false);
  machine.counting = false;
  Kernel(SYS_getrusage, RUSAGE_SELF, &after);
  findings.wall_ns = RealNow() - start_ns;
  findings.minor_faults = static_cast<std::uint64_t>(after.ru_minflt - before.ru_minflt);
  findings.cpu_user_ns = Nanoseconds(after.ru_utime) - Nanoseconds(before.ru_utime);
  findings.cpu_system_ns = Nanoseconds(after.ru_stime) - Nanoseconds(before.ru_stime);
  findings.pointer_hash = progress_.pointer_hash;
  findings.thread_changes = thread_changes_;
}

void Replayer::RunThread(void* replayer, std::uint32_t thread) {
  static_cast<Replayer*>(replayer)->Advance<true>(thread);
}

std::uint64_t Replayer::NextStop() {
  if (progress_.tail == known_head_) known_head_ = AwaitEntries();
  PublishTail();
  if ((progress_.tail & (kPublishEntries - 1)) == 0) CheckMemoryLimit();
  return std::min(known_head_, (progress_.tail | (kPublishEntries - 1)) + 1);
}

std::uint64_t Replayer::AwaitEntries() {
  PublishTail();
  for (;;) {
    const std::uint32_t seen = shared_->head_signal.load();
    shared_->worker_waits.store(1);
    const std::uint64_t head = shared_->head.load();
    if (head != progress_.tail) {
      shared_->worker_waits.store(0);
      return head;
    }
    Kernel(SYS_futex, &shared_->head_signal, FUTEX_WAIT, seen, nullptr, nullptr, 0);
  }
}

void Replayer::PublishTail() {
  shared_->tail.store(progress_.tail);
  if (shared_->host_waits.exchange(0) != 0) {
    shared_->tail_signal.fetch_add(1);
    Kernel(SYS_futex, &shared_->tail_signal, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }
}

void Replayer::TakeSample(const Event& entry) {
  if (entry.slot >= shared_->settings.sample_capacity) return;
  WorkerSample& sample = samples_[entry.slot];
  sample.time_ns = entry.size;
  sample.event_number = shared_->position();
  sample.heap_rss_bytes = MeasureHeap();
  sample.live_bytes = progress_.live_bytes;
  sample.live_objects = progress_.live_objects;
  const std::uint32_t stride = shared_->settings.sample_capacity / kLazyFreeSamples + 1;
  if (machine.lazy_free_calls != 0 && entry.slot % stride == 0) {
    sample.lazy_free_bytes = machine.meter.ReadLazyFreeBytes();
  } else if (entry.slot != 0) {
    sample.lazy_free_bytes = samples_[entry.slot - 1].lazy_free_bytes;
  }
  shared_->findings.samples = entry.slot + 1;
}

void Replayer::MarkUsed(std::uint64_t block, std::uint64_t bytes) {
  for (std::uint64_t page = block / kPageBytes; page <= (block + (bytes == 0 ? 0 : bytes - 1)) / kPageBytes; ++page) {
    if (page / 8 < kUsedPagesBytes) used_pages_[page / 8] |= static_cast<std::uint8_t>(1 << page % 8);
  }
}

void Replayer::WriteHeapMap() {
  std::uint64_t count = 0;
  for (std::uint64_t slot = 0; slot < shared_->settings.slot_count; ++slot) {
    const std::uint64_t address = slots_[slot] & kAddressMask;
    if (address == 0) continue;
    const std::uint64_t bytes = SizeIn(static_cast<std::uint32_t>(slot));
    std::uint64_t usable = functions_.malloc_usable_size == nullptr ? bytes : functions_.malloc_usable_size(reinterpret_cast<void*>(address));
    if (usable < bytes) usable = bytes;
    blocks_[count++] = {address, bytes, usable, slot};
  }
  shared_->findings.map_blocks = count;
  shared_->findings.map_heap_bytes = MeasureHeap();
  shared_->maps_done.fetch_add(1);
}

void Replayer::Touch(const Event& entry) {
  const std::uint64_t block = slots_[entry.slot] & kAddressMask;
  if (block == 0) return;
  const std::uint64_t end = block + SizeIn(entry.slot);
  const std::uint64_t first_page = entry.size >> 32;
  std::uint64_t from = (block & ~(kPageBytes - 1)) + first_page * kPageBytes;
  std::uint64_t to = from + (entry.size & 0xffffffff) * kPageBytes;
  from = std::max(from, block + resized_from_);
  if (to > end) to = end;
  TouchWithinLimit(from, to);
}

void Replayer::TouchWithinLimit(std::uintptr_t from, std::uintptr_t to) {
  if (const std::uint64_t limit = shared_->settings.memory_limit_bytes; limit != 0) {
    if (from < to && to - from > limit) StopWorker(Phase::kStopped, kPassedMemoryLimit);  // however little is there by now
    for (; from < to && to - from > limit / 16; from += limit / 16 / kPageBytes * kPageBytes + kPageBytes) {
      TouchPages(from, from + limit / 16);
      CheckMemoryLimit();
    }
  }
  TouchPages(from, to);
}

void Replayer::KeepPace() {
  constexpr std::uint64_t kWakeUpNs = 200'000;  // sleep wakes late; the rest is waited for awake
  for (;;) {
    const std::uint64_t elapsed = RealNow() - machine.real_start_ns;
    const std::uint64_t due = VirtualNow();
    if (elapsed >= due) return;
    if (due - elapsed < kWakeUpNs) continue;
    const std::uint64_t wait_ns = due - elapsed - kWakeUpNs;
    const timespec wait = {static_cast<time_t>(wait_ns / 1'000'000'000), static_cast<long>(wait_ns % 1'000'000'000)};
    Kernel(SYS_nanosleep, &wait, nullptr);
  }
}

void Replayer::NoteFailure(const Event& event) {
  Findings& findings = shared_->findings;
  if (findings.allocation_failures++ != 0) return;
  findings.first_failure_event = shared_->position();
  findings.first_failure_bytes = event.size;
  findings.first_failure_op = static_cast<std::uint32_t>(event.op);
}

inline void Replayer::Store(Progress& progress, std::uint32_t slot, void* block, std::uint64_t bytes) {
  std::uint64_t size = bytes;
  if (bytes >= kSizeElsewhere) {
    large_sizes_[slot] = bytes;
    resized_from_ = 0;
    size = kSizeElsewhere;
  }
  slots_[slot] = reinterpret_cast<std::uint64_t>(block) | size << kSizeShift;
  if (used_pages_ != nullptr) [[unlikely]] MarkUsed(reinterpret_cast<std::uint64_t>(block), bytes);
  progress.live_bytes += bytes;
  progress.pointer_hash = std::rotl(progress.pointer_hash, 7) + reinterpret_cast<std::uint64_t>(block);
}

inline void Replayer::Free(Progress& progress, std::uint32_t slot) {
  const std::uint64_t old = slots_[slot] & kAddressMask;
  if (old == 0) return;  // it had been refused
  progress.live_bytes -= SizeIn(slot);
  --progress.live_objects;
  slots_[slot] = 0;
  functions_.free(reinterpret_cast<void*>(old));
}

inline std::uint64_t Replayer::SizeIn(std::uint32_t slot) const {
  const std::uint64_t size = slots_[slot] >> kSizeShift;
  return size == kSizeElsewhere ? large_sizes_[slot] : size;
}

inline void Replayer::TouchBlock(std::uintptr_t from, std::uintptr_t to) {
  if (to - from < kLargeBlockBytes) [[likely]] {
    TouchPages(from, to);
  } else if (from < to) {
    TouchWithinLimit(from, to);
  }
}

// Thread changes, and the start and end of threads, which are thread 0's to do. kMine: go on with this
// event; kDone: it is done; kAgain: look again at what is next; kOver: the thread is to end.
template <bool kLockstep>
Replayer::Turn Replayer::TakeTurn(const Event& event, std::uint32_t self) {
  const bool starts_or_ends = event.op == Op::kThreadStart || event.op == Op::kThreadEnd;
  const bool by_main = starts_or_ends || !threads_.alive(event.thread);
  const std::uint32_t executor = by_main ? 0 : event.thread;
  if constexpr (kLockstep) {
    if (executor != self) return threads_.HandOver(self, executor) ? Turn::kAgain : Turn::kOver;
  } else {
    threads_.Wear(executor);
  }
  if (executor != machine.thread) ++thread_changes_;
  machine.thread = executor;
  if (!by_main) return Turn::kMine;
  if (event.op == Op::kThreadEnd) {
    if (event.thread != 0 && threads_.alive(event.thread)) threads_.End(event.thread);
  } else if (!threads_.alive(event.thread)) {
    threads_.Start(event.thread);
  }
  return starts_or_ends ? Turn::kDone : Turn::kAgain;
}

template <bool kLockstep>
bool Replayer::Advance(std::uint32_t self) {
  const bool paced = shared_->settings.clock == ClockMode::kPaced;
  SharedHeader& shared = *shared_;
  std::uint64_t* const slots = slots_;
  const Event* const ring = ring_;
  const std::uint64_t ring_mask = ring_mask_;
  const auto last_slot = static_cast<std::uint32_t>(shared_->settings.slot_count);  // the table has one more
  Progress now = progress_;
  // How nearly all entries begin: a malloc, or a free, of the thread whose turn it is.
  std::uint32_t expected_malloc, expected_free;
  const auto expect = [&] {
    expected_malloc = paced ? kNoEntry : machine.thread << kThreadShift | static_cast<std::uint32_t>(Op::kMalloc);
    expected_free = paced ? kNoEntry : machine.thread << kThreadShift | static_cast<std::uint32_t>(Op::kFree);
  };
  expect();
  const auto take_turn = [&](const Event& event) {
    progress_ = now;
    const Turn turn = TakeTurn<kLockstep>(event, self);
    now = progress_;
    expect();
    return turn;
  };
  for (;; ++now.tail) {
    shared.entries_begun.store(now.tail, std::memory_order_relaxed);
    if (now.tail == now.stop) [[unlikely]] {
      progress_ = now;
      now.stop = NextStop();
    }
    const Event& event = ring[now.tail & ring_mask];
    // Entries come from another core's cache; what they will free has long left this one's. Behind the head lie old
    // entries, and not every entry has a slot: what they name is prefetched for nothing, which harms nobody.
    __builtin_prefetch(&ring[(now.tail + kEntriesAhead) & ring_mask]);
    __builtin_prefetch(&slots[ring[(now.tail + kSlotsAhead) & ring_mask].slot], 1);
    const std::uint64_t soon = slots[std::min(ring[(now.tail + kBlocksAhead) & ring_mask].slot, last_slot)];
    __builtin_prefetch(reinterpret_cast<void*>(soon & kAddressMask), 1);
    void* block;
    std::uint32_t beginning;
    memcpy(&beginning, &event, sizeof(beginning));
    if (beginning == expected_malloc) {
      block = functions_.malloc(event.size);
      goto started;
    }
    if (beginning == expected_free) {
      Free(now, event.slot);
      continue;
    }
    if (event.thread != machine.thread) [[unlikely]] {
      switch (take_turn(event)) {
        case Turn::kMine:
          break;
        case Turn::kDone:
          continue;
        case Turn::kAgain:
          --now.tail;
          continue;
        case Turn::kOver:
          return true;
      }
    }
    if (paced) KeepPace();

    switch (static_cast<std::uint8_t>(event.op)) {
      case static_cast<std::uint8_t>(Op::kMalloc):
        if (event.failed()) break;
        block = functions_.malloc(event.size);
        goto started;
      case static_cast<std::uint8_t>(Op::kCalloc):
        if (event.failed()) break;
        block = functions_.calloc(1, event.size);
        goto started;
      case static_cast<std::uint8_t>(Op::kRealloc):
      case static_cast<std::uint8_t>(Op::kReallocArray): {
        if (event.failed()) break;
        if (event.fresh()) {
          block = functions_.realloc(nullptr, event.size);
          goto started;
        }
        const std::uint64_t old = slots[event.slot] & kAddressMask;
        const std::uint64_t old_bytes = old == 0 ? 0 : SizeIn(event.slot);
        block = functions_.realloc(reinterpret_cast<void*>(old), event.size);
        if (block == nullptr) {
          NoteFailure(event);  // the old block stays
          break;
        }
        now.live_bytes -= old_bytes;
        if (old == 0) ++now.live_objects;
        Store(now, event.slot, block, event.size);
        resized_from_ = old_bytes;
        if (event.size < touch_limit_) {
          TouchBlock(reinterpret_cast<std::uintptr_t>(block) + old_bytes, reinterpret_cast<std::uintptr_t>(block) + event.size);
        }
        break;
      }
      case static_cast<std::uint8_t>(Op::kFree):
        Free(now, event.slot);
        break;
      case static_cast<std::uint8_t>(Op::kPosixMemalign):
        if (event.failed()) break;
        if (functions_.posix_memalign != nullptr) {
          block = nullptr;
          if (functions_.posix_memalign(&block, event.alignment() < 8 ? 8 : event.alignment(), event.size) != 0) block = nullptr;
        } else {
          block = functions_.memalign(event.alignment(), event.size);
        }
        goto started;
      case static_cast<std::uint8_t>(Op::kAlignedAlloc):
        if (event.failed()) break;
        block = functions_.aligned_alloc(event.alignment(), event.size);
        goto started;
      case static_cast<std::uint8_t>(Op::kMemalign):
        if (event.failed()) break;
        block = functions_.memalign(event.alignment(), event.size);
        goto started;
      case static_cast<std::uint8_t>(Op::kValloc):
        if (event.failed()) break;
        block = functions_.valloc != nullptr ? functions_.valloc(event.size) : functions_.memalign(kPageBytes, event.size);
        goto started;
      case static_cast<std::uint8_t>(Op::kPvalloc):
        if (event.failed()) break;
        block = functions_.pvalloc != nullptr
                    ? functions_.pvalloc(event.size)
                    : functions_.memalign(kPageBytes, (event.size + kPageBytes - 1) & ~(kPageBytes - 1));
        goto started;
      case static_cast<std::uint8_t>(Op::kTrim):
        if (functions_.malloc_trim != nullptr) functions_.malloc_trim(event.size);
        break;
      case static_cast<std::uint8_t>(Op::kMallopt):
        if (functions_.mallopt != nullptr) functions_.mallopt(static_cast<int>(event.slot), static_cast<int>(event.size));
        break;
      case static_cast<std::uint8_t>(Op::kThreadStart):
      case static_cast<std::uint8_t>(Op::kThreadEnd):
        if (event.thread == 0) break;  // it is always there
        switch (take_turn(event)) {
          case Turn::kMine:
          case Turn::kDone:
            break;
          case Turn::kAgain:
            --now.tail;
            continue;
          case Turn::kOver:
            return true;
        }
        break;
      case kEntryClock: {
        const std::uint64_t start = event.size, events = event.slot;
        progress_ = now;
        if (++progress_.tail == known_head_) known_head_ = AwaitEntries();
        now.tail = progress_.tail;
        if (now.tail >= now.stop) now.stop = now.tail + 1;
        ClockSpan span;
        memcpy(&span, &ring_[now.tail & ring_mask_], sizeof(span));
        machine.span_start_ns = start;
        machine.span_ns = span.span_ns;
        machine.span_first_event = span.first_event;
        machine.span_events = events;
        shared.not_events.store(now.tail + 1 - span.first_event, std::memory_order_relaxed);
        continue;
      }
      case kEntrySample:
        progress_ = now;
        TakeSample(event);
        shared.not_events.fetch_add(1, std::memory_order_relaxed);
        continue;
      case kEntryTouch:
        Touch(event);
        shared.not_events.fetch_add(1, std::memory_order_relaxed);
        continue;
      case kEntryMap:
        if (blocks_ != nullptr) WriteHeapMap();
        shared.not_events.fetch_add(1, std::memory_order_relaxed);
        continue;
      case kEntryEnd:
        progress_ = now;
        return true;
      default:
        break;
    }
    continue;

  started:
    if (block != nullptr) {
      Store(now, event.slot, block, event.size);
      ++now.live_objects;
      if (event.size < touch_limit_) {
        TouchBlock(reinterpret_cast<std::uintptr_t>(block), reinterpret_cast<std::uintptr_t>(block) + event.size);
      }
      continue;
    }
    slots[event.slot] = 0;
    NoteFailure(event);
  }
}

}  // namespace heaptape::worker
