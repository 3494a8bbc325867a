#include "replayer/commands/copy_trace.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/progress.h"
#include "replayer/commands/talk.h"

namespace heaptape::commands {
absl::StatusOr<NewTrace> NewTrace::Create(const std::string& path, bool replace, const TraceInfo& info,
                                          const TraceWriterOptions& options) {
  TraceWriterOptions with_replace = options;
  with_replace.replace = replace;
  auto writer = TraceWriter::Create(path, info, with_replace);
  if (!writer.ok()) return writer.status();
  return NewTrace(path, *std::move(writer));
}

NewTrace::~NewTrace() {
  if (writer_ != nullptr && !finished_) unlink((path_ + ".part").c_str());
}

absl::Status NewTrace::Finish() {
  if (!writer_->status().ok()) return writer_->status();
  const absl::Status status = writer_->Finish();
  // Whole, but the name was taken meanwhile: it stays under the other.
  finished_ = status.ok() || absl::IsAlreadyExists(status);
  return status;
}

TraceWriterOptions PackedOptions(int level) {
  TraceWriterOptions options;
  options.compression_level = level;
  options.window_log = 25;
  options.block_events = 1u << 17;
  options.file_mode = 0644;
  return options;
}

namespace {

// A part that lies beside the damage is whole.
bool LacksSomething(std::span<TraceReader* const> sources, const std::string& output, const TranscribeOptions& options) {
  if (std::all_of(sources.begin(), sources.end(), [](const TraceReader* source) { return source->loss().empty(); })) return false;
  if (options.from_ns == 0 && options.to_ns == ~std::uint64_t{0}) return true;
  const auto copy = TraceReader::Open(output);
  return !copy.ok() || (*copy)->summary().lost_events > 0;
}

// `copy` does it.
template <typename Copy>
absl::Status CopyTraces(std::span<TraceReader* const> sources, const std::string& output, bool replace, const TraceInfo& info,
                        const TraceWriterOptions& writer_options, TranscribeOptions options, const Copy& copy) {
  auto trace = NewTrace::Create(output, replace, info, writer_options);
  if (!trace.ok()) return trace.status();
  options.cancelled = &StopOnInterrupt();
  absl::Status status;
  {
    std::uint64_t events = 0;
    for (const TraceReader* source : sources) events += source->summary().event_count;
    ProgressBoard board;
    const int bar = board.Add(output, events, "events");
    options.progress = [&](std::uint64_t done) { board.Update(bar, done); };
    status = copy(trace->writer(), options);
    if (status.ok()) status = trace->Finish();
  }
  for (const TraceReader* source : sources)
    for (const std::string& sentence : source->damage()) Tell(sentence);
  if (status.ok() && LacksSomething(sources, output, options)) {
    return absl::DataLossError(absl::StrCat(output, ": holds what is readable of a damaged trace; heaptape verify says what is missing"));
  }
  return status;
}

}  // namespace

absl::Status CopyTrace(TraceReader& reader, const std::string& output, bool replace, const TraceInfo& info,
                       const TraceWriterOptions& writer_options, TranscribeOptions options) {
  TraceReader* const source = &reader;
  return CopyTraces({&source, 1}, output, replace, info, writer_options, std::move(options),
                    [&](TraceWriter& writer, const TranscribeOptions& how) { return Transcribe(reader, writer, how); });
}

absl::Status JoinTraces(std::span<TraceReader* const> segments, const std::string& output, bool replace, const TraceInfo& info,
                        const TraceWriterOptions& writer_options, std::size_t* joined) {
  return CopyTraces(segments, output, replace, info, writer_options, {},
                    [&](TraceWriter& writer, const TranscribeOptions& how) { return Join(segments, writer, how, joined); });
}

}  // namespace heaptape::commands
