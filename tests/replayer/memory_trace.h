// A trace that lies in memory, and programs whose traces the engine tests replay.

#ifndef HEAPTAPE_TESTS_REPLAYER_MEMORY_TRACE_H_
#define HEAPTAPE_TESTS_REPLAYER_MEMORY_TRACE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "traces/trace_reader.h"

namespace heaptape {

// Writes down a program's calls, giving out slots as traces/event.h says.
class MemoryTrace {
 public:
  std::uint32_t Allocate(Op op, std::uint64_t bytes, std::uint64_t alignment = 0, std::uint16_t thread = 0);
  std::uint32_t Malloc(std::uint64_t bytes, std::uint16_t thread = 0) { return Allocate(Op::kMalloc, bytes, 0, thread); }
  void Free(std::uint32_t slot, std::uint16_t thread = 0);
  void Reallocate(std::uint32_t slot, std::uint64_t bytes, std::uint16_t thread = 0);
  void StartThread(std::uint16_t thread) { Append({Op::kThreadStart, 0, thread, 0, 0}); }
  void EndThread(std::uint16_t thread) { Append({Op::kThreadEnd, 0, thread, 0, 0}); }
  void Time(std::uint64_t ns);
  void Append(const Event& event);
  // As in a trace: what was seen of the pages of object number `object`.
  void Touched(std::uint64_t object, TouchRecord::When when, std::vector<PageRange> present);

  std::uint64_t live_bytes() const { return live_bytes_; }
  std::uint64_t objects() const { return summary_.object_count; }
  std::uint64_t events() const { return events_.size(); }

  // From here on the reader finds damage: the next event is the kLost it reports.
  void Damage(const std::string& sentence);

  TraceInfo info;
  std::vector<Module> modules;
  std::vector<StackSample> stacks;
  // A reader of what was written until now, in blocks of `block_events`; must not outlive the trace.
  std::unique_ptr<TraceReader> Read(std::size_t block_events = 64 << 10) const;

 private:
  friend class MemoryTraceReader;

  std::vector<Event> events_;
  std::vector<std::uint64_t> sizes_;
  std::vector<std::uint32_t> free_slots_;
  std::vector<TouchRecord> touched_;
  std::uint64_t damaged_at_ = ~std::uint64_t{0};
  std::string damage_;
  TraceSummary summary_;
  std::uint64_t live_objects_ = 0;
  std::uint64_t live_bytes_ = 0;
};

// Allocations of mixed sizes and ends, phases of growth and shrinking, `threads` threads that also free one
// another's objects and come and go, some time in between. The same arguments give the same trace.
MemoryTrace ChurnTrace(std::uint64_t events, std::uint16_t threads, std::uint64_t seed);

}  // namespace heaptape

#endif  // HEAPTAPE_TESTS_REPLAYER_MEMORY_TRACE_H_
