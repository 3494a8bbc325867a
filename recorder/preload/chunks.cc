#include "recorder/preload/chunks.h"

#include <pthread.h>

#include "recorder/preload/filters.h"
#include "recorder/preload/system.h"

namespace heaptape {
namespace {

pthread_key_t exit_key;
bool exit_key_exists;

std::uint32_t PopChunk(Region* region) {
  std::uint64_t head = region->free_list.load(memory_order_acquire);
  while (static_cast<std::uint32_t>(head) < kChunkCount) {
    const auto chunk = static_cast<std::uint32_t>(head);
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

// Threads that wait for a chunk stand in a queue without a lock: each has a ticket, and the number of tickets that are
// over tells how many stand before it. A thread may take a chunk while there are more free ones than threads before it,
// so none is overtaken by newcomers. It sleeps longer the farther back it stands and the longer nothing happens, so
// that a thousand of them wake as rarely as one, and the writer has the processors.
constexpr std::uint64_t kFirstPauseNs = 200'000;
constexpr std::uint64_t kPauseNs = 500'000;
constexpr std::uint64_t kPausePerThreadNs = 50'000;    // what the writer takes for a chunk
constexpr std::uint64_t kLongestPauseNs = 10'000'000;  // and a millisecond for each thread that waits
constexpr std::uint32_t kPauseDoublingsMax = 5;
// Sleeping and waking cost more than an event: so long threads wait until an eighth of the pool is free.
constexpr std::uint64_t kWorthwhileWaitNs = 3'000'000;
// A thread that was killed in the queue keeps its ticket. Where chunks are free and nobody takes one for so long, the
// others go past it.
constexpr std::uint64_t kQueuePatienceNs = 20'000'000;

std::int32_t QueueLength(const Region* region) {
  return static_cast<std::int32_t>(region->wait_tickets.load(memory_order_relaxed) - region->waits_over.load(memory_order_relaxed));
}

class Wait {
 public:
  explicit Wait(Region* region)
      : region_(region), start_(Now()), ticket_(region->wait_tickets.fetch_add(1, memory_order_relaxed)),
        over_(region->waits_over.load(memory_order_relaxed)), over_since_(start_) {}

  std::uint32_t ForChunk() {
    std::uint32_t chunk = kNoChunk;
    while (region_->generation.load(memory_order_acquire) != 0) {
      if (MayTake() && (chunk = PopChunk(region_)) != kNoChunk) break;
      if (WriterDied(region_)) EndRecording(region_, EndReason::kWriterDied);
      if (waited_ > settings.max_wait_ns) EndRecording(region_, EndReason::kWaitedTooLong);
      Sleep(Pause());
      NoteProgress();
    }
    region_->waits_over.fetch_add(1, memory_order_relaxed);
    Count();
    return chunk;
  }

 private:
  std::uint32_t FreeChunks() const {
    const std::uint32_t free = region_->free_count.load(memory_order_relaxed);
    return free < kChunkCount ? free : kChunkCount;
  }
  std::int32_t Before() const { return static_cast<std::int32_t>(ticket_ - region_->waits_over.load(memory_order_relaxed)); }
  bool MayTake() const {
    const std::uint32_t free = FreeChunks();
    return Before() < static_cast<std::int32_t>(free) && (free >= kChunkCount / 8 || waited_ >= kWorthwhileWaitNs);
  }
  std::uint64_t Pause() const {
    if (waited_ == 0) return kFirstPauseNs;
    const std::int32_t before = Before();
    const std::uint64_t pause = (kPauseNs + kPausePerThreadNs * static_cast<std::uint64_t>(before > 0 ? before : 0)) << idle_;
    const std::int32_t length = QueueLength(region_);
    const std::uint64_t longest = kLongestPauseNs + 1'000'000 * static_cast<std::uint64_t>(length > 0 ? length : 0);
    return pause < longest ? pause : longest;
  }
  void NoteProgress() {
    const std::uint64_t now = Now();
    waited_ = now > start_ ? now - start_ : 1;
    std::uint32_t over = region_->waits_over.load(memory_order_relaxed);
    const bool any_free = FreeChunks() > 0;
    if (over != over_) {
      over_ = over;
      over_since_ = now;
    } else if (any_free && now - over_since_ > kQueuePatienceNs) {
      region_->waits_over.compare_exchange_strong(over, over + 1, memory_order_relaxed);
      over_since_ = now;
    }
    if (any_free || over_since_ == now) idle_ = 0;
    else if (idle_ < kPauseDoublingsMax) ++idle_;
  }
  void Count() const {
    if (waited_ == 0) return;
    region_->waits.fetch_add(1, memory_order_relaxed);
    CountHeld(region_, start_, start_ + waited_);
    const std::uint64_t total = region_->wait_ns.fetch_add(waited_, memory_order_relaxed) + waited_;
    if (settings.max_total_wait_ns && total > settings.max_total_wait_ns) EndRecording(region_, EndReason::kWaitedTooMuch);
  }

  Region* region_;
  std::uint64_t start_;
  std::uint32_t ticket_;
  std::uint32_t over_;         // tickets that were over at the last look
  std::uint64_t over_since_;   // since when that number stands
  std::uint64_t waited_ = 0;
  std::uint32_t idle_ = 0;     // looks in a row without a free chunk
};

}  // namespace

void CountHeld(Region* region, std::uint64_t start, std::uint64_t end) {
  std::uint64_t until = region->held_until.load(memory_order_relaxed);
  while (end > until) {
    if (!region->held_until.compare_exchange_weak(until, end, memory_order_relaxed)) continue;
    region->held_ns.fetch_add(end - (start > until ? start : until), memory_order_relaxed);
    return;
  }
}

std::uint32_t TakeChunk(Region* region) {
  if (LIKELY(QueueLength(region) <= 0)) {
    const std::uint32_t chunk = PopChunk(region);
    if (LIKELY(chunk != kNoChunk)) return chunk;
  }
  CheckForUnseenFilter(region);
  return Wait(region).ForChunk();
}

std::uint32_t ThreadSerial(Region* region) {
  if (thread.region != region) {
    // A signal handler that records may come between any two of these. It finds `attaching`, so it takes no chunk, and
    // the thread's serial missing, so it gives one. `region` comes last: a handler that finds it set must find a serial,
    // for the writer reads no further where an event of the shared chunk has none.
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

void CloseChunk(Region* region) {
  thread.header->state.store(ChunkState::kClosed, memory_order_release);
  thread.header = nullptr;
  region->owned_count.fetch_sub(1, memory_order_relaxed);
}

bool MakeExitKey(void (*at_exit)(void*)) { return exit_key_exists = pthread_key_create(&exit_key, at_exit) == 0; }

void ComeBackAtExit() { pthread_setspecific(exit_key, &thread); }

bool Attach(Region* region, std::uint32_t generation, std::uint32_t room) {
  thread.attaching = true;
  thread.generation = 0;
  thread.attached = 0;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  ThreadSerial(region);
  if (thread.header && thread.next + room > thread.end) CloseChunk(region);
  if (!thread.header) {
    const bool may_own = region->owned_count.fetch_add(1, memory_order_relaxed) < kOwnedChunksMax;
    const std::uint32_t chunk = may_own ? TakeChunk(region) : kNoChunk;
    if (chunk == kNoChunk) {
      region->owned_count.fetch_sub(1, memory_order_relaxed);
      thread.attaching = false;
      return false;
    }
    ChunkHeader* header = &region->headers[chunk];
    header->thread = thread.serial;
    header->tid = ThreadId();
    region->events[chunk][0].first = 0;
    header->state.store(ChunkState::kOwned, memory_order_release);
    thread.header = header;
    thread.next = region->events[chunk];
    thread.end = thread.next + kOwnedEvents;
    if (exit_key_exists && thread.exit_rounds == 0) {
      thread.exit_rounds = 1;
      ComeBackAtExit();
    }
  }
  thread.attached = generation;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  thread.attaching = false;
  thread.generation = generation;
  return true;
}

}  // namespace heaptape
