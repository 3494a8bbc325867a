#include "memory_trace.h"

#include <algorithm>
#include <bit>
#include <random>
#include <utility>

namespace heaptape {

class MemoryTraceReader : public TraceReader {
 public:
  MemoryTraceReader(const MemoryTrace& trace, std::size_t block_events) : trace_(trace), block_events_(block_events) {}

  const TraceInfo& info() const override { return trace_.info; }
  const TraceSummary& summary() const override { return trace_.summary_; }
  absl::StatusOr<EventBlock> Next() override {
    EventBlock block;
    block.first_event = next_;
    block.first_object = object_;
    block.restored = next_ == trace_.damaged_at_;
    const std::size_t end = next_ < trace_.damaged_at_ ? std::min<std::size_t>(trace_.damaged_at_, trace_.events_.size()) : trace_.events_.size();
    const std::size_t count = std::min(block_events_, end - next_);
    block.events = std::span(trace_.events_).subspan(next_, count);
    for (const Event& event : block.events) object_ += StartsObject(event);
    next_ += count;
    if (next_ > trace_.damaged_at_ && damage_.empty()) damage_.push_back(trace_.damage_);
    return block;
  }
  absl::Status Seek(std::uint64_t) override { return absl::UnimplementedError("not needed here"); }
  absl::Status SeekTime(std::uint64_t) override { return absl::UnimplementedError("a memory trace has no checkpoints"); }
  absl::StatusOr<std::vector<ResidentSample>> ReadResident() override { return std::vector<ResidentSample>(); }
  absl::StatusOr<std::vector<TouchRecord>> ReadTouched() override { return trace_.touched_; }
  absl::StatusOr<std::vector<StackSample>> ReadStacks() override { return trace_.stacks; }
  absl::StatusOr<std::vector<Module>> ReadModules() override { return trace_.modules; }
  const std::vector<std::string>& damage() const override { return damage_; }
  const std::string& loss() const override { return damage_.empty() ? nothing_ : damage_.front(); }

 private:
  const MemoryTrace& trace_;
  const std::size_t block_events_;
  std::size_t next_ = 0;
  std::uint64_t object_ = 0;
  std::vector<std::string> damage_;
  const std::string nothing_;
};

std::unique_ptr<TraceReader> MemoryTrace::Read(std::size_t block_events) const {
  return std::make_unique<MemoryTraceReader>(*this, block_events);
}

void MemoryTrace::Append(const Event& event) {
  events_.push_back(event);
  ++summary_.event_count;
  summary_.peak_threads = std::max<std::uint64_t>(summary_.peak_threads, event.thread + 1u);
}

void MemoryTrace::Damage(const std::string& sentence) {
  damaged_at_ = events_.size();
  damage_ = sentence;
  Append({Op::kLost, 0, 0, 0, 1});
}

std::uint32_t MemoryTrace::Allocate(Op op, std::uint64_t bytes, std::uint64_t alignment, std::uint16_t thread) {
  std::uint32_t slot;
  if (free_slots_.empty()) {
    slot = static_cast<std::uint32_t>(sizes_.size());
    sizes_.push_back(0);
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  sizes_[slot] = bytes;
  live_bytes_ += bytes;
  summary_.peak_live_bytes = std::max(summary_.peak_live_bytes, live_bytes_);
  summary_.peak_live_objects = std::max<std::uint64_t>(summary_.peak_live_objects, sizes_.size());
  ++summary_.object_count;
  ++live_objects_;
  const bool fresh = op == Op::kRealloc || op == Op::kReallocArray;
  const auto log2 = static_cast<std::uint8_t>(alignment == 0 ? 0 : std::bit_width(alignment) - 1);
  Append({op, static_cast<std::uint8_t>(log2 | (fresh ? Event::kFresh : 0)), thread, slot, bytes});
  return slot;
}

void MemoryTrace::Free(std::uint32_t slot, std::uint16_t thread) {
  live_bytes_ -= sizes_[slot];
  --live_objects_;
  free_slots_.push_back(slot);
  Append({Op::kFree, 0, thread, slot, 0});
}

void MemoryTrace::Reallocate(std::uint32_t slot, std::uint64_t bytes, std::uint16_t thread) {
  live_bytes_ += bytes - sizes_[slot];
  sizes_[slot] = bytes;
  summary_.peak_live_bytes = std::max(summary_.peak_live_bytes, live_bytes_);
  Append({Op::kRealloc, 0, thread, slot, bytes});
}

void MemoryTrace::Time(std::uint64_t ns) {
  Append({Op::kTime, 0, 0, 0, ns});
  summary_.duration_ns = ns;
}

void MemoryTrace::Touched(std::uint64_t object, TouchRecord::When when, std::vector<PageRange> present) {
  touched_.push_back({object, when, std::move(present)});
}

MemoryTrace ChurnTrace(std::uint64_t events, std::uint16_t threads, std::uint64_t seed) {
  MemoryTrace trace;
  trace.info.cpu_count = 4;
  std::mt19937_64 random(seed);
  std::vector<std::uint32_t> live;
  std::vector<bool> alive(threads, false);
  alive[0] = true;
  const std::uint64_t phase_events = std::max<std::uint64_t>(1, events / 6);
  std::uint64_t now = 0;
  std::uint16_t thread = 0;
  for (std::uint64_t i = 0; trace.events() < events; ++i) {
    if (i % 200 == 0) {
      now += 2'000'000 + random() % 4'000'000;
      trace.Time(now);
    }
    if (random() % 6 == 0) thread = static_cast<std::uint16_t>(random() % threads);
    if (!alive[thread]) {
      trace.StartThread(thread);
      alive[thread] = true;
    } else if (thread != 0 && random() % 20'000 == 0) {
      trace.EndThread(thread);
      alive[thread] = false;
      thread = 0;
    }
    // Phases of growth and of shrinking.
    const bool growing = (trace.events() / phase_events) % 2 == 0;
    const bool frees = !live.empty() && random() % 100 < (growing ? 40u : 60u);
    if (frees) {
      const std::size_t victim = random() % 4 == 0 ? random() % live.size() : live.size() - 1 - random() % std::min<std::size_t>(live.size(), 64);
      trace.Free(live[victim], thread);
      live[victim] = live.back();
      live.pop_back();
      continue;
    }
    const std::uint64_t kind = random() % 100;
    const std::uint64_t bytes = kind < 70   ? 8 + random() % 120
                                : kind < 95 ? 64 + random() % 2000
                                : kind < 99 ? 2000 + random() % 30'000
                                            : 60'000 + random() % 400'000;
    const std::uint64_t op = random() % 100;
    if (op < 8 && !live.empty()) {
      trace.Reallocate(live[random() % live.size()], bytes, thread);
    } else if (op < 18) {
      live.push_back(trace.Allocate(Op::kCalloc, bytes, 0, thread));
    } else if (op < 21) {
      live.push_back(trace.Allocate(Op::kPosixMemalign, bytes, 64, thread));
    } else if (op < 22) {
      live.push_back(trace.Allocate(Op::kMemalign, bytes, 4096, thread));
    } else if (op < 24) {
      live.push_back(trace.Allocate(Op::kRealloc, bytes, 0, thread));
    } else {
      live.push_back(trace.Allocate(Op::kMalloc, bytes, 0, thread));
    }
  }
  trace.Time(now + 1'000'000);
  return trace;
}

}  // namespace heaptape
