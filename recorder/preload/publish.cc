#include "recorder/preload/publish.h"

#include "recorder/preload/chunks.h"
#include "recorder/preload/process.h"

namespace heaptape {
namespace {

// With what belongs to the event in slots of their own before it; published together.
void PublishWithExtras(Region* region, std::uint32_t generation, RawOp op, std::uint64_t address, std::uint64_t size,
                       const Extras& extras) {
  thread.generation = 0;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  RawEvent* const start = thread.next;
  RawEvent* const end = start + extras.Room();
  if (UNLIKELY(end > thread.end)) {  // as in Publish()
    thread.attached = 0;
    return RecordSlow(op, address, size, extras);
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
  if (extras.has_prefix()) put(extras.Prefix(thread.serial));
  const Frames* const frames = extras.frames;
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

// Two slots of the chunk that all may write to; null where it is full or there is none. `use` tells one use of a chunk
// from the next.
RawEvent* ReserveShared(Region* region, std::uint64_t current) {
  const auto chunk = static_cast<std::uint32_t>(current);
  if (chunk >= kChunkCount) return nullptr;
  ChunkHeader& header = region->headers[chunk];
  std::uint64_t reserved = header.reserved.load(memory_order_acquire);
  while (reserved >> 32 == current >> 32 && static_cast<std::uint32_t>(reserved) + 2 <= kChunkEvents) {
    if (header.reserved.compare_exchange_weak(reserved, reserved + 2, memory_order_acq_rel)) {
      return &region->events[chunk][static_cast<std::uint32_t>(reserved)];
    }
  }
  return nullptr;
}

// Makes a free chunk the shared one, unless another thread did so. False: recording has ended.
bool ShareFreshChunk(Region* region, std::uint64_t current) {
  const std::uint32_t fresh = TakeChunk(region);
  if (fresh == kNoChunk) return false;
  ChunkHeader& header = region->headers[fresh];
  for (RawEvent& event : region->events[fresh]) event = {0, 0};
  const std::uint64_t use = region->shared_uses.fetch_add(1, memory_order_relaxed) + 1;
  header.thread = 0;
  header.reserved.store(use << 32, memory_order_release);
  header.state.store(ChunkState::kShared, memory_order_release);
  std::uint64_t expected = current;
  if (!region->shared_chunk.compare_exchange_strong(expected, use << 32 | fresh, memory_order_acq_rel)) {
    // Another came first. Only the writer gives chunks back: it may be reading this one as shared just now, and would
    // take what its next owner writes for that.
    header.state.store(ChunkState::kClosed, memory_order_release);
  }
  return true;
}

void RecordShared(Region* region, RawOp op, std::uint64_t address, std::uint64_t size, const Extras& extras) {
  const std::uint32_t serial = ThreadSerial(region);
  while (region->generation.load(memory_order_relaxed) != 0) {
    const std::uint64_t current = region->shared_chunk.load(memory_order_acquire);
    if (RawEvent* const slot = ReserveShared(region, current)) {
      slot[0] = extras.Prefix(serial);
      const RawEvent event = RawEvent::Make(op, address, size, NextNumber(region));
      slot[1].second = event.second;
      __atomic_store_n(&slot[1].first, event.first, __ATOMIC_RELEASE);
      return;
    }
    if (!ShareFreshChunk(region, current)) return;
  }
}

}  // namespace

__attribute__((noinline)) void RecordSlow(RawOp op, std::uint64_t address, std::uint64_t size, const Extras& extras) {
  if (UNLIKELY(thread.probing)) {
    thread.probe_hit = true;
    return;
  }
  if (is_off.load(memory_order_relaxed)) return;
  Region* region = process.region.load(memory_order_acquire);
  if (!region && !(region = EnterProcess())) return;
  const std::uint32_t generation = region->generation.load(memory_order_acquire);
  if (generation == 0) return;
  if (address >> kAddressBits) return EndRecording(region, EndReason::kAddressTooLong);
  const std::uint32_t room = extras.Room();
  const bool in_event = thread.region == region && thread.header && thread.attached == generation &&
                        thread.generation == 0;
  if (!in_event && !thread.attaching && !thread.ended) {
    const bool usable = thread.generation == generation && thread.region == region && thread.next + room <= thread.end;
    if (usable || Attach(region, generation, room)) {
      if (room > 1) return PublishWithExtras(region, generation, op, address, size, extras);
      return Publish(region, generation, op, address, size);
    }
  }
  RecordShared(region, op, address, size, extras);
}

}  // namespace heaptape
