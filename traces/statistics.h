// What happens in a trace, counted in one pass: calls by kind and thread, sizes, lifetimes, the live set
// over time.

#ifndef HEAPTAPE_TRACES_STATISTICS_H_
#define HEAPTAPE_TRACES_STATISTICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "traces/event.h"
#include "traces/trace_reader.h"

namespace heaptape {

struct ThreadStatistics {
  std::uint64_t calls = 0;
  std::uint64_t allocations = 0;
  std::uint64_t allocated_bytes = 0;
  std::uint64_t frees = 0;
  std::uint64_t foreign_frees = 0;  // of objects that another thread allocated
};

// One slice of the trace's time.
struct ActivityPoint {
  std::uint64_t end_time_ns = 0;
  std::uint64_t calls = 0;            // in the slice
  std::uint64_t live_bytes = 0;       // at its end
  std::uint64_t live_objects = 0;
  std::uint64_t peak_live_bytes = 0;  // within it
};

// Bucket b counts values v with bit_width(v) == b: 0, 1, 2-3, 4-7, ...
using Histogram = std::array<std::uint64_t, 65>;

struct TraceStatistics {
  std::array<std::uint64_t, kOpCount> events_by_op{};
  std::array<std::uint64_t, kOpCount> failures_by_op{};
  std::map<std::uint16_t, ThreadStatistics> threads;
  std::uint64_t thread_starts = 0;
  std::uint64_t thread_switches = 0;
  std::uint64_t allocations = 0;      // objects started
  std::uint64_t allocated_bytes = 0;  // requested by allocations and reallocs
  Histogram sizes{};                  // requested bytes of each allocation and realloc
  Histogram size_bytes{};             // bytes requested in each bucket
  Histogram lifetime_events{};        // of freed objects: events between start and free
  Histogram lifetime_ns{};            // ... and time, as exact as the resolution
  std::uint64_t never_freed_objects = 0;
  std::uint64_t never_freed_bytes = 0;
  std::uint64_t peak_live_bytes = 0, peak_live_bytes_time_ns = 0;
  std::uint64_t peak_live_objects = 0, peak_live_objects_time_ns = 0;
  std::uint64_t lost_events = 0;
  std::vector<ActivityPoint> activity;  // at most kActivityPoints, ascending
};

inline constexpr std::size_t kActivityPoints = 120;

// For each live object, beside the reader's own.
inline constexpr std::uint64_t kStatisticsBytes = 32;

// Reads `reader` from where it stands to its end. Cancelled where `cancelled` is
// set meanwhile. `progress` is called with the number of events read, once a block; it may be empty.
absl::StatusOr<TraceStatistics> GatherStatistics(TraceReader& reader, const std::atomic<bool>* cancelled = nullptr,
                                                 const std::function<void(std::uint64_t)>& progress = {});

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_STATISTICS_H_
