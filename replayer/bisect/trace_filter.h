// Writes a part of a trace as a trace of its own that replays by itself: a stretch of time, some of the
// objects, fewer threads, simpler sizes.

#ifndef HEAPTAPE_REPLAYER_BISECT_TRACE_FILTER_H_
#define HEAPTAPE_REPLAYER_BISECT_TRACE_FILTER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace heaptape {

struct ObjectFacts {
  std::uint64_t number = 0;       // objects started before it
  std::uint64_t size_bytes = 0;   // when it was started
  std::uint16_t thread = 0;       // that started it
  std::uint8_t lifetime_class = 0;  // log2 of the events it lived for; kLivesOn where it is not freed
};
inline constexpr std::uint8_t kLivesOn = 64;

struct TraceFilter {
  // Objects live at `from_ns` are allocated at the new trace's beginning, in the order of their starts and
  // with their sizes there; times count from it.
  std::uint64_t from_ns = 0;
  std::uint64_t to_ns = UINT64_MAX;
  // An object that is not kept is gone with all its calls. Empty: all are kept.
  std::function<bool(const ObjectFacts&)> keep;
  // True: its calls are made by the first thread. Empty: none is merged.
  std::function<bool(std::uint16_t thread)> merge_thread;
  // A block's new size. Empty: the same. Blocks with recorded pages keep theirs.
  std::function<std::uint64_t(std::uint64_t)> size;
  // Leaves out failed calls, malloc_trim, mallopt and the marks of forks and losses.
  bool only_successful_calls = false;
};

struct FilteredTrace {
  std::uint64_t events_read = 0;  // of the input: up to the end of the kept stretch, or to damage, where a replay ends too
  std::uint64_t events = 0;       // all that is in the new trace
  std::uint64_t objects = 0;
  std::uint64_t threads = 0;      // ever started, the first included
  std::uint64_t duration_ns = 0;
  std::uint64_t file_bytes = 0;
};

// Pages touched in kept blocks are kept; samples of resident memory, call stacks and what names the recorded
// program are not. In memory: 72 bytes per live object and, with `keep`, one per object; ResourceExhausted where that is more
// than the limit (0: DefaultMemoryLimit()). Cancelled leaves no file.
absl::StatusOr<FilteredTrace> FilterTrace(const std::string& input, const std::string& output,
                                          const TraceFilter& filter, const std::atomic<bool>* cancelled = nullptr,
                                          std::uint64_t memory_limit_bytes = 0);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_BISECT_TRACE_FILTER_H_
