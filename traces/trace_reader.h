// Reads a trace file block by block (FORMAT.md), in constant memory but for the live set.
//
// Nothing in the file is trusted: every size, count and offset is checked before use. Damage outside the
// block being read does not matter to it; a damaged block is skipped to the next live-set checkpoint and
// its events are reported as one kLost event. One thread at a time.

#ifndef HEAPTAPE_TRACES_TRACE_READER_H_
#define HEAPTAPE_TRACES_TRACE_READER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/event.h"
#include "traces/trace_info.h"

namespace heaptape {

// What is known of a trace without decoding its events.
struct TraceSummary {
  std::uint64_t file_bytes = 0;
  std::uint64_t event_count = 0;       // calls and other events
  std::uint64_t object_count = 0;
  std::uint64_t peak_live_objects = 0;  // also the number of slots in use at most
  std::uint64_t peak_live_bytes = 0;
  std::uint64_t duration_ns = 0;
  std::uint64_t peak_threads = 0;      // thread numbers in use at most
  bool complete = false;               // the recording was finished in good order
  std::string digest;                  // of the content: 32 hex digits, the same for the same events
};

// One decoded block. Valid until the next call on the reader.
struct EventBlock {
  std::span<const Event> events;       // empty: the end of the trace
  std::uint64_t first_event = 0;       // number of events before
  std::uint64_t first_object = 0;      // number of the first object started in this block
  std::uint64_t start_time_ns = 0;
  std::uint64_t end_time_ns = 0;
};

class TraceReader {
 public:
  // Maps the file. NotFound, InvalidArgument ("not a heaptape trace"), DataLoss with file and offset.
  static absl::StatusOr<std::unique_ptr<TraceReader>> Open(const std::string& path);
  // Reads from memory, which must outlive the reader. `name` stands in messages.
  static absl::StatusOr<std::unique_ptr<TraceReader>> OpenBuffer(std::span<const std::uint8_t> bytes,
                                                                 const std::string& name);
  virtual ~TraceReader() = default;

  virtual const TraceInfo& info() const = 0;
  virtual const TraceSummary& summary() const = 0;

  // The next block. After damage the first event of the next readable block is kLost and the live set is
  // that of the checkpoint which follows; damage() then lists one more sentence.
  virtual absl::StatusOr<EventBlock> Next() = 0;
  // Goes to the last checkpoint at or before event number `event` (0: the start). Next() continues there;
  // its first block then begins with one allocation event for each live object of the checkpoint.
  virtual absl::Status Seek(std::uint64_t event) = 0;

  // Side records of the whole trace, read without decoding events.
  virtual absl::StatusOr<std::vector<ResidentSample>> ReadResident() = 0;
  virtual absl::StatusOr<std::vector<TouchRecord>> ReadTouched() = 0;
  virtual absl::StatusOr<std::vector<StackSample>> ReadStacks() = 0;
  virtual absl::StatusOr<std::vector<Module>> ReadModules() = 0;

  // Sentences of the form "guard.tape: block 17 at byte 812345: checksum mismatch", in order.
  virtual const std::vector<std::string>& damage() const = 0;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_TRACE_READER_H_
