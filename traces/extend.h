// Makes a long trace of a recorded one: everything up to the end of a steady stretch once, then the
// stretch again and again.
//
// The live set is carried over: an object that was alive when the stretch began and is freed inside it
// stands, in each repetition, for one that the repetition before left alive: of the same size where there
// is one, oldest for oldest, else of the nearest size up to a quarter larger or smaller. What then has no
// counterpart:
//   - objects left alive beyond those: freed one by one over the next repetition, by the thread that
//     allocated them, so that the live set stays as large as at the end of the stretch; with `keep_growth`
//     they stay, and the program goes on to grow as it did in the stretch;
//   - frees of objects that no repetition replaces: left out from the second time on.
// Threads that lived at only one end of the stretch end or start at the seam.
//
// What it is not: days of recording. Whatever happens more rarely than once a stretch is not in it, and no
// two repetitions differ. Ground truth (ResidentSample) is copied for the recorded part alone; touched
// pages and stacks are repeated with their objects.

#ifndef HEAPTAPE_TRACES_EXTEND_H_
#define HEAPTAPE_TRACES_EXTEND_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"

namespace heaptape {

// What extending takes for each recorded object that is alive, beside the reader: what is in its slot and was when the stretch
// began (48), how it is paired at the seam (64 + 4), frees to come (8), and the writer's, with those left over from before (48).
inline constexpr std::uint64_t kExtendBytes = 172;
// For each live object of the long trace beyond these.
inline constexpr std::uint64_t kExtendGrowthBytes = 24;

struct ExtendOptions {
  std::uint64_t stretch_start_ns = 0;  // of the recorded time; begins after the first time mark from there on
  std::uint64_t stretch_end_ns = 0;    // likewise; 0: the end of the trace
  std::uint64_t duration_ns = 0;       // of the long trace, which ends with the first time mark from there on
  double pace = 1;                     // from the stretch on a recorded second counts as so many
  bool keep_growth = false;
  std::uint64_t memory_limit_bytes = 0;  // of the long trace's live objects; 0: DefaultMemoryLimit()
  std::function<void(std::uint64_t time_ns)> progress;  // time of the long trace reached
  const std::atomic<bool>* cancelled = nullptr;         // then Cancelled, the writer unfinished
};

struct ExtendSummary {
  std::uint64_t stretch_events = 0;
  std::uint64_t stretch_ns = 0;          // recorded
  std::uint64_t repetitions = 0;         // the recorded one included; the last may be cut short
  std::uint64_t start_live_bytes = 0, start_live_objects = 0;  // when the stretch began
  std::uint64_t end_live_bytes = 0, end_live_objects = 0;      // when it ended as recorded
  std::uint64_t carried_objects = 0;     // freed in the stretch though older, and replaced in it
  std::uint64_t left_over_objects = 0, left_over_bytes = 0;    // alive at its end without a counterpart
  std::uint64_t not_replaced_objects = 0, not_replaced_bytes = 0;  // freed in it, older, not replaced
};

// Reads `reader` from its start once for each repetition; the caller finishes `writer`, which was made with
// the reader's TraceInfo. InvalidArgument: the stretch is empty or has no time marks; DataLoss: the trace
// is damaged or has gaps; ResourceExhausted: the long trace's live set needs more than the memory limit.
absl::StatusOr<ExtendSummary> ExtendTrace(TraceReader& reader, const ExtendOptions& options, TraceWriter& writer);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_EXTEND_H_
