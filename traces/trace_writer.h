// Appends one process's events to a trace file (FORMAT.md).
//
// The file bears the suffix ".part" until Finish(); a recording that was killed keeps that name and
// reads back up to its last complete block. Blocks are written when they hold 64 Ki events or when
// Flush() is called. One thread only. After an error every call is a no-op and status() says why; what
// was written before stays valid.

#ifndef HEAPTAPE_TRACES_TRACE_WRITER_H_
#define HEAPTAPE_TRACES_TRACE_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/event.h"
#include "traces/live_object.h"
#include "traces/trace_info.h"

namespace heaptape {

struct TraceWriterOptions {
  int compression_level = 6;                  // of zstd
  int window_log = 20;                        // of zstd: its memory, here and in the reader, is about this power of two
  std::uint32_t block_events = 1u << 16;      // at most kMaxBlockEvents of format.h
  // A live-set checkpoint comes when at least so many events have passed since the last one and it takes less
  // than that share of what was written since, or than so many bytes for each of these events; 0: never.
  std::uint64_t checkpoint_interval_events = 2u << 20;
  double checkpoint_share = 0.1;
  double checkpoint_bytes_per_event = 0.01;
  // ... and whatever it takes after so many events: damage that parity cannot repair never costs more.
  std::uint64_t checkpoint_limit_events = 64u << 20;
  // Of the whole trace, where that is known: a checkpoint with less than an interval behind it serves no one.
  std::uint64_t expected_events = 0;
  bool parity = true;                         // blocks from which one damaged block among many is repaired
  std::uint64_t file_size_limit_bytes = 0;    // 0: none; at the limit the trace ends as if finished
  unsigned file_mode = 0600;
  // A regular file under the trace's name is replaced (output_file.h); nothing else ever is.
  bool replace = false;
};

class TraceWriter {
 public:
  // Creates PATH.part; PATH itself appears only with Finish(). AlreadyExists where one of the two is there (`replace`).
  static absl::StatusOr<std::unique_ptr<TraceWriter>> Create(const std::string& path, const TraceInfo& info,
                                                             const TraceWriterOptions& options = {});
  // Writes through a descriptor that is already open (and is closed with the writer). Nothing is renamed; `name` is for
  // messages.
  static absl::StatusOr<std::unique_ptr<TraceWriter>> CreateOnDescriptor(int descriptor, const TraceInfo& info,
                                                                         const TraceWriterOptions& options = {},
                                                                         const std::string& name = "trace");
  virtual ~TraceWriter() = default;

  // A successful allocation; `op` is one for which StartsObject() holds (kRealloc means realloc(NULL, n)).
  // Returns the new object's slot, ~0u where nothing more is written (status()).
  virtual std::uint32_t Allocate(Op op, std::uint64_t size_bytes, std::uint64_t alignment, std::uint16_t thread) = 0;
  // Hints that a Free() of `slot` will come soon: with a large live set what that reads is fetched meanwhile. The second
  // follows some events after the first. Any number will do.
  virtual void PrefetchFree(std::uint32_t slot) const { (void)slot; }
  virtual void PrefetchFreeNeighbours(std::uint32_t slot) const { (void)slot; }
  // `slot` must be live.
  virtual void Free(std::uint32_t slot, std::uint16_t thread) = 0;
  virtual void Reallocate(Op op, std::uint32_t slot, std::uint64_t size_bytes, std::uint16_t thread) = 0;
  // A call that returned NULL. For a realloc of a live object `slot` is that object's, else ~0u.
  virtual void Failure(Op op, std::uint32_t slot, std::uint64_t size_bytes, std::uint64_t alignment,
                       std::uint16_t thread) = 0;
  // kTrim, kMallopt, kThreadStart, kThreadEnd, kFork, kLost: `event` as the reader shall return it.
  virtual void Append(const Event& event) = 0;
  // What a part of a recording begins with (FORMAT.md, "Description"), before its live objects: `alive` by thread. Returns the
  // thread to start these on.
  std::uint16_t BeginWithThreads(const std::vector<bool>& alive);
  // All events appended until now happened before `time_ns`, which never decreases. The time is kept at
  // the trace's resolution: marks that fall into the same step as the last are dropped.
  virtual void Time(std::uint64_t time_ns) = 0;

  // Adds to what the trace says of them. It says that they were not counted until this is called, be it with zeros.
  virtual void AddUnmatchedFrees(const UnmatchedFrees& frees) = 0;

  // Samples tell no more of time than the marks do: `time_ns` is rounded down to the trace's resolution, a second sample of the
  // same step is dropped, and event_number is set to the number of events up to the last mark. In the order of their time.
  virtual void Resident(const ResidentSample& sample) = 0;
  virtual void Touched(const TouchRecord& record) = 0;
  virtual std::uint32_t AddModule(const Module& module) = 0;
  virtual void Stack(const StackSample& sample) = 0;

  // The object in `slot`, null where none is alive there. Valid until the next call that is not const; the last ones stay after
  // Finish().
  virtual const LiveObject* Object(std::uint32_t slot) const = 0;
  virtual std::uint32_t slot_count() const = 0;  // slots ever in use
  // Its number, ~0 where there is none.
  std::uint64_t ObjectNumber(std::uint32_t slot) const {
    const LiveObject* const object = Object(slot);
    return object != nullptr ? object->number() : ~std::uint64_t{0};
  }
  // Events appended; once nothing more is written (status()), those that are in the file.
  virtual std::uint64_t event_count() const = 0;
  virtual std::uint64_t object_count() const = 0;  // objects ever started
  virtual std::uint64_t live_objects() const = 0;
  virtual std::uint64_t live_bytes() const = 0;
  virtual std::uint64_t bytes_written() const = 0;

  // Writes what is buffered as a block of its own, so that a reader (or a kill) finds it in the file.
  virtual absl::Status Flush() = 0;
  // Flush, final checkpoint of figures, index, rename to the final name. No call may follow.
  virtual absl::Status Finish() = 0;
  virtual absl::Status status() const = 0;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_TRACE_WRITER_H_
