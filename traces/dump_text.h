// A trace as lines of text, and back (FORMAT.md, "Dump").
//
// An event is one line of six fields with a space between:
//
//   THREAD EVENT SLOT SIZE ALIGNMENT FLAGS
//   0 malloc 12 64 0 -
//   3 realloc 12 128 0 -
//   0 realloc 13 16 0 fresh
//   0 posix_memalign - 4096 64 failed
//   0 free 12 0 0 -
//   - time - 1000000 0 -
//
// A slot is - where the event has none. Everything else stands in lines that begin with #.

#ifndef HEAPTAPE_TRACES_DUMP_TEXT_H_
#define HEAPTAPE_TRACES_DUMP_TEXT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "traces/event.h"
#include "traces/trace_info.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"

namespace heaptape {

enum class DumpFormat { kText, kCsv, kJsonLines };

// Takes a piece of output; false stops the dump without an error.
using TextSink = std::function<bool(std::string_view)>;
// Sets the next line, without its end; false at the end of the input.
using LineSource = std::function<bool(std::string&)>;

// Everything for kText, events alone for the others.
absl::Status DumpTrace(TraceReader& reader, DumpFormat format, const TextSink& sink);

// Appends one event's line, with its end.
void AppendEventLine(const Event& event, DumpFormat format, std::string& out);

// Reads what DumpTrace() wrote as kText. `create` makes the writer once the description is known.
// InvalidArgument with the line's number; ResourceExhausted, which names `name`, where kLoadBytes a live object, the writer's
// included, are more than the limit (0: DefaultMemoryLimit()). Does not Finish().
inline constexpr std::uint64_t kLoadBytes = 64;
absl::Status LoadTrace(const LineSource& source, const std::function<absl::StatusOr<TraceWriter*>(const TraceInfo&)>& create,
                       const std::string& name = "the text", std::uint64_t memory_limit_bytes = 0);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_DUMP_TEXT_H_
