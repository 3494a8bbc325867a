// From raw events in order to a trace: addresses become slots, the two events of a realloc become one,
// thread serials become dense numbers. Owns the table of live objects and the file (or the segments).
//
// What a program does without our seeing it (a block freed by a thread that was killed half-way, a block
// from before a suspended recording) must never make the trace inconsistent: an unknown free is left out,
// an allocation at a live address frees the old object first, and both are counted.
//
// One thread only. After an error nothing more is written and status() says why.

#ifndef HEAPTAPE_RECORDER_RECORDING_H_
#define HEAPTAPE_RECORDER_RECORDING_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "recorder/address_table.h"
#include "recorder/event_order.h"
#include "recorder/process_memory.h"
#include "recorder/writer/recording_files.h"
#include "traces/trace_writer.h"

namespace heaptape {

// How many events before its own an address is named to Recording::Prefetch().
inline constexpr std::uint32_t kPrefetchAhead = 24;

struct RecordingOptions {
  FileName name;
  TraceInfo info;
  int compression_level = 3;
  std::uint64_t segment_bytes = 0;
  std::uint64_t segment_ns = 0;
  std::uint64_t total_bytes = 0;
  std::uint32_t order_capacity = 128 << 10;  // events that may wait for those before them; a power of two
};

struct RecordingCounts {
  std::uint64_t events = 0;          // raw events taken
  std::uint64_t unknown_frees = 0;   // of blocks that were not seen being allocated
  std::uint64_t missed_frees = 0;    // an allocation came at the address of a live object
  std::uint64_t lost = 0;            // numbers that never came: a thread was killed or jumped out half-way
  std::uint64_t late = 0;            // came after they had been given up
};

class Recording {
 public:
  // Creates the first file. Errors name the path.
  static absl::StatusOr<std::unique_ptr<Recording>> Create(const RecordingOptions& options, std::shared_ptr<RecordingFiles> files);

  // `ranges` of a big block, read when its event `number` (unwidened) was published and applied with it.
  void Touched(std::uint32_t number, std::vector<PageRange> ranges);

  // Reads the pages of all big blocks that are alive. Of those that do not live to a free of their own that was
  // looked at, the last look stands for it. `present` gives the pages of (address, bytes).
  using PresentPages = std::function<std::vector<PageRange>(std::uint64_t address, std::uint64_t bytes)>;
  void LookAtLiveBlocks(const PresentPages& present);

  // The call stack of an allocation, read as Touched(); its modules are indices into `modules`, which stays alive.
  void Stack(std::uint32_t number, std::vector<StackFrame> frames);
  void set_modules(const std::vector<Module>* modules) { modules_ = modules; }

  const EventOrder& order() const { return order_; }
  // May the event with this number be taken? Applies what is in order where that makes room.
  bool HasRoomFor(std::uint32_t number);
  // Applies it if it is the next, keeps it until its turn if not.
  void Take(const OrderedEvent& event);
  // The event kPrefetchAhead after the one that is taken now is at this address. A free in a large live set reads from
  // half a dozen places that are in no cache, one telling the next: each is fetched some events before it is needed.
  void Prefetch(std::uint64_t address);

  ObjectPages& pages() { return pages_; }

  // All events below `number` happened before `time_ns`.
  void Mark(std::uint32_t number, std::uint64_t time_ns);
  // Applies all events that are in order.
  void Drain();
  void SkipGap() { counts_.lost += order_.Skip(); }

  void Resident(ResidentSample sample);
  // The recording was stopped and goes on: what happened in between is not known.
  void Resumed();
  // A thread is gone without having said so.
  void ThreadGone(std::uint32_t serial);
  // Called with (slot's address) when a big object ends, so that the program's filter can forget it.
  void set_big_filter(std::atomic<std::uint16_t>* filter) { big_filter_ = filter; }
  // Called for each kFork event that names a region for the child.
  void set_fork_hook(std::function<void(std::uint32_t region)> hook) { fork_hook_ = std::move(hook); }

  // In a forked writer: goes on in a new file that begins with the live set. The old file is the parent's. After
  // AlreadyExists another name may be tried.
  absl::Status ContinueAs(const FileName& name, std::shared_ptr<RecordingFiles> files);
  // Drops the file that is being written. No call may follow.
  void Discard();

  // Begins a new segment where one is due; keeps the total within its bound.
  void RotateIfDue(std::uint64_t time_ns);
  absl::Status Flush() { return writer_->Flush(); }
  // Flushes with the next time mark: where a block ends shall tell no more of time than the marks do.
  void FlushAtMark() { flush_at_mark_ = true; }
  absl::Status Finish();
  // Once this is an error no other call than Finish() may follow.
  absl::Status status() const { return rotation_error_.ok() ? writer_->status() : rotation_error_; }

  // The file gets this name at Finish(), unless there are segments, which have theirs.
  void set_final_name(const FileName& name) { final_name_ = name; }
  const FileName& name() const { return final_name_; }
  std::string path() const { return files_->Path(final_name_); }
  const RecordingFiles& files() const { return *files_; }
  RecordingFiles& files() { return *files_; }
  const RecordingCounts& counts() const { return counts_; }
  // In all files; once they have ended (status()), what they hold.
  std::uint64_t event_count() const { return earlier_events_ + writer_->event_count(); }
  std::uint64_t bytes_written() const { return earlier_bytes_ + writer_->bytes_written(); }
  std::uint64_t live_objects() const { return writer_->live_objects(); }
  std::uint64_t live_bytes() const { return writer_->live_bytes(); }
  std::uint64_t segments() const { return segment_number_; }

 private:
  struct PendingRealloc {
    std::uint32_t thread;
    std::uint32_t slot;  // ~0u: of a block that was not seen being allocated
    std::uint64_t address;
  };
  // A block of kBigBytes or more that is alive.
  struct BigBlock {
    std::uint64_t address = 0;
    bool seen = false;
    std::vector<PageRange> present;  // at the last look
  };
  struct TimeMark {
    std::uint64_t number;
    std::uint64_t time_ns;
  };

  Recording(const RecordingOptions& options, std::shared_ptr<RecordingFiles> files)
      : options_(options), files_(std::move(files)), final_name_(options.name), order_(options.order_capacity) {}

  // Begins a file, the recording's one or a segment. Returns the writer of the one before.
  absl::StatusOr<std::unique_ptr<TraceWriter>> Open(std::uint64_t segment);
  // `before` is the writer of the file before.
  absl::Status BeginWithLiveSet(const TraceWriter& before);
  void ApplyMarks(std::uint64_t number);
  void Apply(const OrderedEvent& event, std::uint64_t number);
  std::uint16_t Thread(std::uint32_t serial);
  void EndThread(std::uint32_t serial);
  void Allocate(const OrderedEvent& event, Op op, std::uint16_t thread, std::uint64_t number);
  void FreeSlot(std::uint32_t slot, std::uint64_t address, std::uint64_t size, std::uint16_t thread);
  std::uint64_t SizeOf(std::uint32_t slot) const {
    const LiveObject* const object = writer_->Object(slot);
    return object != nullptr ? object->size() : 0;
  }
  void AddStack(std::uint64_t number, std::uint32_t slot);
  void AddTouch(std::uint64_t number, std::uint32_t slot, TouchRecord::When when, std::uint64_t size);
  void WriteTouch(std::uint32_t slot, TouchRecord::When when, std::uint64_t size, const std::vector<PageRange>& present);
  // What was seen last of the blocks that outlive the file.
  void WriteLastLooks();
  // Once for each such block, here and in the file. Not of what comes after the file has ended.
  void CountUnknownFree();
  void CountMissedFree();
  void BigBegins(std::uint32_t slot, std::uint64_t address);
  void BigEnds(std::uint32_t slot, std::uint64_t address);

  RecordingOptions options_;
  std::shared_ptr<RecordingFiles> files_;
  FileName final_name_;
  FileName open_name_;
  std::unique_ptr<TraceWriter> writer_;
  EventOrder order_;
  ObjectPages pages_;
  AddressTable live_;
  absl::flat_hash_map<std::uint32_t, BigBlock> big_;        // by slot
  // Of the last addresses named to Prefetch(): a table of live objects that does not fit into the caches is read ahead.
  struct Soon {
    std::uint64_t address = 0;
    std::uint32_t slot = 0;
  };
  std::array<Soon, 16> soon_;
  std::uint32_t soon_at_ = 0;
  std::vector<PendingRealloc> reallocs_;
  std::deque<TimeMark> marks_;
  absl::flat_hash_map<std::uint64_t, std::vector<PageRange>> touched_;  // by event number
  absl::flat_hash_map<std::uint64_t, std::vector<StackFrame>> stacks_;  // by event number
  const std::vector<Module>* modules_ = nullptr;
  std::size_t modules_written_ = 0;  // to this file
  std::vector<std::uint16_t> threads_;                      // by serial
  std::vector<std::uint16_t> free_threads_;
  std::uint16_t next_thread_ = 0;
  std::atomic<std::uint16_t>* big_filter_ = nullptr;
  std::function<void(std::uint32_t)> fork_hook_;
  RecordingCounts counts_;
  std::uint64_t earlier_events_ = 0;
  std::uint64_t earlier_bytes_ = 0;
  std::uint64_t segment_number_ = 0;
  std::uint64_t segment_start_ns_ = 0;
  std::uint64_t time_ns_ = 0;
  bool flush_at_mark_ = false;
  absl::Status rotation_error_;
  std::deque<std::pair<FileName, std::uint64_t>> finished_segments_;  // with bytes
};

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_RECORDING_H_
