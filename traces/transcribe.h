// Copies a trace, a part of it, or the segments of a recording into another: the ground of pack, cut, scrub and join.

#ifndef HEAPTAPE_TRACES_TRANSCRIBE_H_
#define HEAPTAPE_TRACES_TRANSCRIBE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/status.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"

namespace heaptape {

struct TranscribeOptions {
  // The copy begins with the live threads and objects of this moment, and its time with 0.
  std::uint64_t from_ns = 0;
  std::uint64_t to_ns = ~std::uint64_t{0};  // events of this moment and later are left out
  std::function<std::uint64_t(std::uint64_t)> size;  // what to write for a requested size; empty: the same
  bool keep_stacks = true;       // and the modules they name
  const std::atomic<bool>* cancelled = nullptr;
  std::function<void(std::uint64_t events_read)> progress;
};

// What a copy takes for each live object beside the reader: 24 bytes here and as many in the writer; 24 more for those that it
// begins with.
inline constexpr std::uint64_t kTranscribeBytes = 72;
// A join holds besides what the next segment has to begin with.
inline constexpr std::uint64_t kJoinBytes = kTranscribeBytes + 24;

// Reads `reader` from its start (or the last checkpoint before `from_ns`) and appends to `writer`, which
// must be new. Objects are numbered anew; side records follow their objects and times, and those of
// objects outside the copy are left out. Memory: kTranscribeBytes a live object, the writer's included, and the side records. Does
// not Finish().
absl::Status Transcribe(TraceReader& reader, TraceWriter& writer, const TranscribeOptions& options = {});

// As Transcribe(), of the segments of one recording, ordered by TraceInfo::segment_start_ns: the copy's time begins with the
// first. What a segment begins with was alive at the end of the one before and is not written again. Of `options` from_ns,
// to_ns and size mean nothing. Memory: kJoinBytes a live object. FailedPrecondition where a segment does not
// begin so; `joined`, if given, is how many came before it.
absl::Status Join(std::span<TraceReader* const> segments, TraceWriter& writer, const TranscribeOptions& options = {},
                  std::size_t* joined = nullptr);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_TRANSCRIBE_H_
