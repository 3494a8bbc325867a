// What pack, cut, scrub, join and load have in common: a new trace file that appears only when it is whole.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_COPY_TRACE_H_
#define HEAPTAPE_REPLAYER_COMMANDS_COPY_TRACE_H_

#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"
#include "traces/transcribe.h"

namespace heaptape::commands {

// A trace that is being written to PATH, which must be free or, with `replace`, a regular file (traces/output_file.h).
// Without Finish() no file is left behind.
class NewTrace {
 public:
  static absl::StatusOr<NewTrace> Create(const std::string& path, bool replace, const TraceInfo& info,
                                         const TraceWriterOptions& options);
  NewTrace(NewTrace&&) = default;
  ~NewTrace();

  TraceWriter& writer() { return *writer_; }
  absl::Status Finish();

 private:
  NewTrace(std::string path, std::unique_ptr<TraceWriter> writer) : path_(std::move(path)), writer_(std::move(writer)) {}

  std::string path_;
  std::unique_ptr<TraceWriter> writer_;
  bool finished_ = false;
};

// How traces are written that are kept: slower than while recording, smaller.
TraceWriterOptions PackedOptions(int level);

// Transcribes with a progress bar, Ctrl-C obeyed, and finishes. Damage of the source is told on stderr; DataLoss where
// the copy lacks something by it.
absl::Status CopyTrace(TraceReader& reader, const std::string& output, bool replace, const TraceInfo& info,
                       const TraceWriterOptions& writer_options, TranscribeOptions options);
// As that, of the segments of one recording (Join()).
absl::Status JoinTraces(std::span<TraceReader* const> segments, const std::string& output, bool replace, const TraceInfo& info,
                        const TraceWriterOptions& writer_options, std::size_t* joined);

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_COPY_TRACE_H_
