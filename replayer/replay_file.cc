#include <memory>
#include <string>

#include "replayer/replay.h"

namespace heaptape {

absl::StatusOr<RunResult> Replay(const std::string& trace_path, const ResolvedAllocator& allocator,
                                 const ReplayOptions& options) {
  absl::StatusOr<std::unique_ptr<TraceReader>> reader = TraceReader::Open(trace_path);
  if (!reader.ok()) return reader.status();
  return Replay(**reader, allocator, options);
}

}  // namespace heaptape
