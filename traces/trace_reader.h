// Reads a trace file block by block (FORMAT.md), in constant memory but for the live set.
//
// Nothing in the file is trusted: every size, count and offset is checked before use. Damage outside the
// block being read does not matter to it; a damaged block is skipped to the next live-set checkpoint and
// its events are reported as one kLost event. One thread at a time.

#ifndef HEAPTAPE_TRACES_TRACE_READER_H_
#define HEAPTAPE_TRACES_TRACE_READER_H_

#include <cstdint>
#include <memory>
#include <optional>
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
  std::uint64_t event_digest = 0;      // of all recorded events (digest.h)
  std::uint64_t lost_events = 0;       // missing: damaged here, or lost while recording
  std::uint64_t damaged_events = 0;    // those of them that were recorded and cannot be read
  // Counted while recording; nullopt where nobody counted: in older traces, generated ones.
  std::optional<UnmatchedFrees> unmatched_frees;
  std::uint64_t repaired_blocks = 0;   // of damaged ones, brought back whole by parity
  bool ended_at_limit = false;         // the file reached its size limit
  bool has_index = false;              // else the figures above were gathered from the blocks
  std::uint64_t block_count = 0;
  std::uint64_t checkpoint_count = 0;
  // Of events, touched pages and the machine's shape: 32 hex digits, the same for the same content however
  // it is cut into blocks and compressed. Damage changes it.
  std::string digest;
};

// One decoded block. Valid until the next call on the reader.
struct EventBlock {
  std::span<const Event> events;       // empty: the end of the trace
  std::uint64_t first_event = 0;       // number of events before
  std::uint64_t first_object = 0;      // number of the first object started in this block
  std::uint64_t start_time_ns = 0;
  std::uint64_t end_time_ns = 0;
  std::optional<UnmatchedFrees> unmatched_frees;  // up to the block's end
  // The live set of a checkpoint, brought back after damage or Seek(): these events were not recorded
  // here and first_event does not advance over them.
  bool restored = false;
  // Number of the object that each event starts (events that start none: ~0), where `restored`; else
  // empty: objects are numbered on from first_object.
  std::span<const std::uint64_t> object_numbers;
};

// How much memory reading may take, and what the reader's caller keeps of each object beside it. What does not depend on the
// trace's content is not counted: some 200 MiB at most (FORMAT.md, "Memory of a reader").
struct ReadLimits {
  std::uint64_t memory_limit_bytes = 0;  // 0: DefaultMemoryLimit()
  std::uint64_t bytes_per_live_object = 0;
  std::uint64_t bytes_per_object = 0;    // of each that was ever started
};

class TraceReader {
 public:
  // Maps the file and checks every block's checksum, so that summary() and damage() tell the whole truth
  // from the start. NotFound, InvalidArgument ("not a heaptape trace"), DataLoss with file and offset.
  // ResourceExhausted, here and from every call that reads: the trace needs, or says that it needs, more than `limits` allow.
  // It comes before the memory is taken.
  static absl::StatusOr<std::unique_ptr<TraceReader>> Open(const std::string& path, const ReadLimits& limits = {});
  // Reads from memory, which must outlive the reader. `name` stands in messages.
  static absl::StatusOr<std::unique_ptr<TraceReader>> OpenBuffer(std::span<const std::uint8_t> bytes,
                                                                 const std::string& name, const ReadLimits& limits = {});
  virtual ~TraceReader() = default;

  virtual const TraceInfo& info() const = 0;
  virtual const TraceSummary& summary() const = 0;

  // The next block. After damage come a kLost event, a free of every object that was alive before the
  // damage, the end of every thread, and then the live threads and objects of the next checkpoint; these
  // blocks are `restored`. damage() has a sentence for it. What is missing at the end of the file is one
  // last kLost event.
  virtual absl::StatusOr<EventBlock> Next() = 0;
  // Goes to the last checkpoint at or before event number `event` (0: the start). Next() continues there;
  // its first block then begins with one allocation event for each live object of the checkpoint.
  virtual absl::Status Seek(std::uint64_t event) = 0;
  // As Seek(), to the last checkpoint before `time_ns`.
  virtual absl::Status SeekTime(std::uint64_t time_ns) = 0;

  // Side records of the whole trace, read without decoding events.
  virtual absl::StatusOr<std::vector<ResidentSample>> ReadResident() = 0;
  virtual absl::StatusOr<std::vector<TouchRecord>> ReadTouched() = 0;
  virtual absl::StatusOr<std::vector<StackSample>> ReadStacks() = 0;
  virtual absl::StatusOr<std::vector<Module>> ReadModules() = 0;

  // Sentences of the form "guard.tape: block 17 at byte 812345: checksum mismatch", in order.
  virtual const std::vector<std::string>& damage() const = 0;
  // The first of these by which something is or may be lost; empty where all that was recorded is there, as where
  // parity repaired a block.
  virtual const std::string& loss() const = 0;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_TRACE_READER_H_
