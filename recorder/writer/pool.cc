#include "recorder/writer/pool.h"

#include <time.h>

#include <algorithm>
#include <utility>

namespace heaptape {
namespace {

constexpr std::uint32_t kSlotsAhead = 32;
// Probes that no event came for. A program has as many under way as it has threads with large blocks.
constexpr std::size_t kProbesKept = 4096;
// Of a lock-free list that only a hostile program can keep changing.
constexpr int kReleaseTries = 10'000;

std::uint64_t MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

std::uint32_t Pool::UsedChunks() const {
  return std::min(region_->unused.load(std::memory_order_acquire), kChunkCount);
}

// The first word last written is the first read: what was published with it is there.
RawEvent Pool::Load(std::uint32_t chunk, std::uint32_t slot) const {
  const RawEvent& event = region_->events[chunk][slot];
  RawEvent copy;
  copy.first = __atomic_load_n(&event.first, __ATOMIC_ACQUIRE);
  copy.second = __atomic_load_n(&event.second, __ATOMIC_RELAXED);
  return copy;
}

// Serials count the threads the region has seen.
std::uint32_t Pool::Serial(std::uint64_t claimed) {
  if (claimed > 0 && claimed <= kThreadSerialMax) return static_cast<std::uint32_t>(claimed);
  ++malformed_;
  return 1;
}

std::uint64_t Pool::Poll(bool open) {
  std::uint64_t events = 0;
  ServeProbes();
  const std::uint32_t used = UsedChunks();
  for (std::uint32_t chunk = 0; chunk < used; ++chunk) {
    const ChunkState state = region_->headers[chunk].state.load(std::memory_order_acquire);
    if (state == ChunkState::kFree || (state == ChunkState::kOwned && !open)) continue;
    if (state == ChunkState::kShared) {
      events += ReadShared(chunk);
    } else {
      turns_.push_back({recording_->order().Ahead(FirstNumber(chunk)), chunk, state});
    }
  }
  // By number: then hardly an event has to be kept until its turn.
  std::sort(turns_.begin(), turns_.end(), [](const Turn& a, const Turn& b) { return a.ahead < b.ahead; });
  for (const Turn& turn : turns_) {
    ServeProbes();
    events += ReadOwned(turn.chunk, turn.state);
  }
  turns_.clear();
  return events;
}

void Pool::ServeProbes() {
  const std::uint64_t asked = region_->probes_asked.load(std::memory_order_acquire);
  if (asked == probes_asked_) return;
  probes_asked_ = asked;
  for (PageProbe& probe : region_->probes) {
    std::uint64_t state = probe.state.load(std::memory_order_acquire);
    const bool in_passing = PhaseOf(state) == ProbePhase::kAskedInPassing;
    if (!in_passing && PhaseOf(state) != ProbePhase::kAsked) continue;
    const std::uint64_t ticket = state >> kProbePhaseBits;
    const std::uint64_t address = probe.address.load(std::memory_order_relaxed);
    const std::uint64_t bytes = probe.bytes.load(std::memory_order_relaxed);
    if (probes_.size() >= kProbesKept) probes_.clear();
    if (memory_->can_see_pages()) probes_[ticket] = memory_->PresentPages(address, bytes);
    // Given up by its thread meanwhile: the block may be gone by now.
    const ProbePhase then = in_passing ? ProbePhase::kFree : ProbePhase::kDone;
    if (!probe.state.compare_exchange_strong(state, ProbeState(ticket, then))) probes_.erase(ticket);
  }
}

void Pool::ForgetProbes() {
  for (PageProbe& probe : region_->probes) {
    std::uint64_t state = probe.state.load(std::memory_order_relaxed);
    if (PhaseOf(state) != ProbePhase::kDone) continue;
    const std::uint64_t ticket = state >> kProbePhaseBits;
    if (ticket > old_tickets_) continue;
    if (probe.state.compare_exchange_strong(state, ProbeState(ticket, ProbePhase::kFree))) probes_.erase(ticket);
  }
  old_tickets_ = region_->probe_tickets.load(std::memory_order_relaxed);
}

std::vector<std::uint32_t> Pool::Reclaim(const std::function<bool(std::int32_t tid)>& is_alive) {
  std::vector<std::uint32_t> gone;
  const std::uint32_t used = UsedChunks();
  for (std::uint32_t chunk = 0; chunk < used; ++chunk) {
    ChunkHeader& header = region_->headers[chunk];
    const std::int32_t tid = __atomic_load_n(&header.tid, __ATOMIC_RELAXED);
    if (header.state.load(std::memory_order_acquire) != ChunkState::kOwned || tid <= 0 || is_alive(tid)) continue;
    gone.push_back(Serial(__atomic_load_n(&header.thread, __ATOMIC_RELAXED)));
    region_->owned_count.fetch_sub(1);
    header.state.store(ChunkState::kClosed, std::memory_order_release);
  }
  return gone;
}

// Of the first event that was not read; where there is none, of whatever the chunk held before.
std::uint32_t Pool::FirstNumber(std::uint32_t chunk) const {
  std::uint32_t at = read_[chunk];
  for (; at < kOwnedEvents; ++at) {
    const RawEvent event = Load(chunk, at);
    if (event.op() != RawOp::kStack && event.op() != RawOp::kPrefix) return event.number();
  }
  return Load(chunk, kOwnedEvents).number();
}

std::uint64_t Pool::ReadOwned(std::uint32_t chunk, ChunkState state) {
  const RawEvent* const slots = region_->events[chunk];
  const std::uint32_t thread = Serial(__atomic_load_n(&region_->headers[chunk].thread, __ATOMIC_RELAXED));
  std::uint32_t& read = read_[chunk];
  std::uint64_t events = 0;
  bool taken = true;
  // A line that another core wrote takes as long to arrive as several events take to be read.
  const auto fetch = [slots, closed = state == ChunkState::kClosed](std::uint32_t slot) {
    if (closed && slot < kChunkEvents) __builtin_prefetch(&slots[slot]);
  };
  for (std::uint32_t slot = read; slot < read + kSlotsAhead; slot += 4) fetch(slot);
  const std::uint32_t first_end = std::min(read + kPrefetchAhead, kOwnedEvents);
  for (std::uint32_t slot = read; slot < first_end; ++slot) {
    const RawEvent event = Load(chunk, slot);
    if (event.first == 0) break;
    recording_->Prefetch(event.address());
  }
  while (read < kOwnedEvents) {
    std::uint32_t at = read;
    RawEvent slot = Load(chunk, at);
    if (slot.first == 0) break;
    fetch(read + kSlotsAhead);
    // What belongs to one event was published with its first slot.
    addresses_.clear();
    for (; at < kOwnedEvents && slot.op() == RawOp::kStack && addresses_.size() < kStackFramesMax; slot = Load(chunk, ++at)) {
      addresses_.push_back(slot.address());
      if (slot.second) addresses_.push_back(slot.second);
    }
    OrderedEvent event;
    event.thread = thread;
    std::uint64_t ticket = 0;
    if (at < kOwnedEvents && slot.op() == RawOp::kPrefix) {
      event.align_log2 = slot.size() & 63;
      ticket = slot.address();
      slot = Load(chunk, ++at);
    }
    event.event = slot;
    recording_->Prefetch(Load(chunk, std::min(at + kPrefetchAhead, kOwnedEvents)).address());
    if (!(taken = recording_->HasRoomFor(event.event.number()))) break;
    if (!addresses_.empty()) recording_->Stack(event.event.number(), modules_->Resolve(addresses_, MonotonicNow()));
    TakeProbe(ticket, event);
    recording_->Take(event);
    read = at + 1;
    ++events;
  }
  if (state == ChunkState::kClosed && taken) Release(chunk);
  return events;
}

std::uint64_t Pool::ReadShared(std::uint32_t chunk) {
  std::bitset<kChunkEvents / 2>& taken = taken_[chunk];
  std::uint64_t events = 0;
  for (std::uint32_t pair = 0; pair < kChunkEvents / 2; ++pair) {
    if (taken[pair]) continue;
    OrderedEvent event;
    event.event = Load(chunk, pair * 2 + 1);
    if (event.event.first == 0) continue;
    const RawEvent prefix = Load(chunk, pair * 2);
    if (prefix.size() >> 8 == 0 || !recording_->HasRoomFor(event.event.number())) break;
    event.thread = Serial(prefix.size() >> 8);
    event.align_log2 = prefix.size() & 63;
    TakeProbe(prefix.address(), event);
    recording_->Take(event);
    taken.set(pair);
    ++events;
  }
  // A hole left by a thread that was killed keeps its chunk: who knows whether it is only slow.
  if (taken.all()) {
    taken.reset();
    Release(chunk);
  }
  return events;
}

void Pool::TakeProbe(std::uint64_t ticket, const OrderedEvent& event) {
  if (ticket == 0) return;
  auto found = probes_.find(ticket);
  if (found == probes_.end()) {
    ServeProbes();  // asked for in passing, just now
    found = probes_.find(ticket);
    if (found == probes_.end()) return;
  }
  recording_->Touched(event.event.number(), std::move(found->second));
  probes_.erase(found);
}

void Pool::Release(std::uint32_t chunk) {
  read_[chunk] = 0;
  ChunkHeader& header = region_->headers[chunk];
  header.state.store(ChunkState::kFree, std::memory_order_release);
  std::uint64_t head = region_->free_list.load(std::memory_order_relaxed);
  for (int tries = 0; tries < kReleaseTries; ++tries) {
    header.next_free.store(static_cast<std::uint32_t>(head), std::memory_order_relaxed);
    const std::uint64_t changed = ((head >> 32) + 1) << 32 | chunk;
    if (region_->free_list.compare_exchange_weak(head, changed, std::memory_order_acq_rel)) {
      region_->free_count.fetch_add(1, std::memory_order_relaxed);
      return;
    }
  }
  ++malformed_;  // the chunk stays out of use
}

}  // namespace heaptape
