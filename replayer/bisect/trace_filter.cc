#include "replayer/bisect/trace_filter.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <optional>
#include <unistd.h>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "traces/huge_table.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"

namespace heaptape {
namespace {

// A live object of the input.
struct LiveObject {
  std::uint64_t number;
  std::uint64_t size_bytes;
  std::uint32_t out_slot;
  std::uint16_t thread;
  Op op;
  std::uint8_t alignment_log2;
  bool live;
  bool kept;
  bool written;
};
static_assert(sizeof(LiveObject) == 32);
// What reduction takes of memory for each live object, the writer's 24 included, and for each object: its lifetime's class.
ReadLimits LimitsOf(const TraceFilter& filter, std::uint64_t memory_limit_bytes) {
  constexpr std::uint64_t kWriterBytes = 24, kOrderBytes = 8;
  return {.memory_limit_bytes = memory_limit_bytes,
          .bytes_per_live_object = sizeof(LiveObject) + kWriterBytes + kOrderBytes,
          .bytes_per_object = filter.keep ? std::uint64_t{1} : 0};
}

// The end of the trace, or damage: what a checkpoint brings back is of another live set than the one that is known.
bool EndsFilter(const EventBlock& block) { return block.events.empty() || block.restored; }

// One byte per object: its lifetime class, 0 where it lives on.
absl::StatusOr<HugeTable<std::uint8_t>> LifetimeClasses(const std::string& path, const ReadLimits& limits, const std::atomic<bool>* cancelled) {
  absl::StatusOr<std::unique_ptr<TraceReader>> reader = TraceReader::Open(path, limits);
  if (!reader.ok()) return reader.status();
  HugeTable<std::uint8_t> classes;
  struct Start {
    std::uint64_t object, event;
  };
  HugeTable<Start> live;
  while (true) {
    if (cancelled != nullptr && *cancelled) return absl::CancelledError("interrupted");
    absl::StatusOr<EventBlock> block = (*reader)->Next();
    if (!block.ok()) return block.status();
    if (EndsFilter(*block)) return classes;
    std::uint64_t next_object = block->first_object;
    for (std::size_t i = 0; i < block->events.size(); ++i) {
      const Event& event = block->events[i];
      const std::uint64_t number = block->first_event + i;
      if (StartsObject(event)) {
        const std::uint64_t object = next_object++;
        classes.GrowTo(object + 1);
        live.At(event.slot) = {object, number};
      } else if (event.op == Op::kFree && event.slot < live.size()) {
        const Start& start = live[event.slot];
        if (start.object < classes.size()) classes[start.object] = static_cast<std::uint8_t>(std::bit_width(number - start.event));
      }
    }
  }
}

class Filter {
 public:
  Filter(const TraceFilter& filter, TraceWriter& writer, const std::vector<TouchRecord>& touched)
      : filter_(filter), writer_(writer), began_(filter.from_ns == 0) {
    threads_.resize(1);
    threads_[0].alive = threads_[0].written = true;
    for (const TouchRecord& record : touched) touched_[record.object].push_back(&record);
  }

  // False: the end of the kept stretch is reached.
  bool Take(const Event& event, std::uint64_t object, std::uint8_t lifetime_class) {
    ++events_read_;
    switch (event.op) {
      case Op::kTime:
        return TakeTime(event.size);
      case Op::kThreadStart:
      case Op::kThreadEnd:
        TakeThread(event);
        return true;
      case Op::kTrim:
      case Op::kMallopt:
      case Op::kFork:
      case Op::kLost:
        if (began_ && !filter_.only_successful_calls) {
          WriteTime();
          Event out = event;
          out.thread = OutThread(event.thread);
          writer_.Append(out);
          ++events_;
        }
        return true;
      default:
        break;
    }
    if (event.failed()) {
      TakeFailure(event);
    } else if (StartsObject(event)) {
      TakeStart(event, object, lifetime_class);
    } else if (event.op == Op::kFree) {
      TakeFree(event);
    } else {
      TakeReallocation(event);
    }
    return true;
  }

  FilteredTrace Finish() {
    if (!began_) Begin();
    if (pending_time_.has_value()) WriteTime();
    return {.events_read = events_read_,
            .events = writer_.event_count(),
            .objects = writer_.object_count(),
            .threads = threads_written_,
            .duration_ns = written_time_,
            .file_bytes = 0};
  }

 private:
  struct Thread {
    bool alive = false, written = false;
    std::uint16_t out = 0;
  };

  bool TakeTime(std::uint64_t time_ns) {
    if (!began_ && time_ns >= filter_.from_ns) Begin();
    if (!began_) return true;
    const std::uint64_t time = std::min(time_ns, filter_.to_ns) - std::min({time_ns, filter_.to_ns, filter_.from_ns});
    // The first mark after an event says when it was over, the last one before the next when that began.
    // Those between say nothing.
    if (marked_events_ != events_) {
      writer_.Time(time);
      written_time_ = time;
      marked_events_ = events_;
      pending_time_.reset();
    } else {
      pending_time_ = time;
    }
    return time_ns < filter_.to_ns;
  }

  void WriteTime() {
    if (!pending_time_.has_value()) return;
    writer_.Time(*pending_time_);
    written_time_ = *pending_time_;
    pending_time_.reset();
  }

  void TakeThread(const Event& event) {
    if (threads_.size() <= event.thread) threads_.resize(event.thread + 1);
    Thread& thread = threads_[event.thread];
    if (event.op == Op::kThreadStart) {
      thread = {.alive = true};
      return;
    }
    if (thread.written && event.thread != 0) {
      WriteTime();
      writer_.Append({.op = Op::kThreadEnd, .flags = 0, .thread = thread.out, .slot = 0, .size = 0});
      ++events_;
      out_threads_[thread.out] = false;
    }
    thread = {};
  }

  // A thread is started in the new trace when it is first heard of there.
  std::uint16_t OutThread(std::uint16_t number) {
    if (number >= threads_.size() || (filter_.merge_thread && filter_.merge_thread(number))) return 0;
    Thread& thread = threads_[number];
    if (!thread.alive) return 0;
    if (!thread.written) {
      const auto free_number = std::find(out_threads_.begin(), out_threads_.end(), false);
      thread.out = static_cast<std::uint16_t>(free_number - out_threads_.begin());
      if (free_number == out_threads_.end()) out_threads_.push_back(false);
      out_threads_[thread.out] = true;
      thread.written = true;
      writer_.Append({.op = Op::kThreadStart, .flags = 0, .thread = thread.out, .slot = 0, .size = 0});
      ++events_;
      ++threads_written_;
    }
    return thread.out;
  }

  std::uint64_t Size(std::uint64_t size, std::uint64_t object) const {
    return filter_.size && !touched_.contains(object) ? filter_.size(size) : size;
  }

  void Write(LiveObject& object) {
    const std::uint64_t alignment = object.alignment_log2 ? std::uint64_t{1} << object.alignment_log2 : 0;
    const std::uint16_t thread = OutThread(object.thread);
    object.out_slot = writer_.Allocate(object.op, Size(object.size_bytes, object.number), alignment, thread);
    object.written = true;
    ++events_;
    if (const auto records = touched_.find(object.number); records != touched_.end()) {
      for (const TouchRecord* record : records->second) {
        TouchRecord renumbered = *record;
        renumbered.object = writer_.ObjectNumber(object.out_slot);
        writer_.Touched(renumbered);
      }
    }
  }

  // What is live at the cut is there from the start.
  void Begin() {
    began_ = true;
    std::vector<LiveObject*> live;
    for (LiveObject& object : objects_) {
      if (object.live && object.kept) live.push_back(&object);
    }
    std::sort(live.begin(), live.end(), [](const LiveObject* a, const LiveObject* b) { return a->number < b->number; });
    for (LiveObject* object : live) Write(*object);
  }

  void TakeStart(const Event& event, std::uint64_t number, std::uint8_t lifetime_class) {
    LiveObject& object = objects_.At(event.slot);
    object = {.number = number,
              .size_bytes = event.size,
              .out_slot = 0,
              .thread = event.thread,
              .op = event.op,
              .alignment_log2 = static_cast<std::uint8_t>(event.flags & Event::kAlignmentMask),
              .live = true,
              .kept = !filter_.keep || filter_.keep({.number = number,
                                                     .size_bytes = event.size,
                                                     .thread = event.thread,
                                                     .lifetime_class = lifetime_class}),
              .written = false};
    if (!began_ || !object.kept) return;
    WriteTime();
    Write(object);
  }

  LiveObject* Live(std::uint32_t slot) { return slot < objects_.size() && objects_[slot].live ? &objects_[slot] : nullptr; }

  void TakeFree(const Event& event) {
    LiveObject* object = Live(event.slot);
    if (object == nullptr) return;
    if (object->written) {
      WriteTime();
      const std::uint16_t thread = OutThread(event.thread);
      writer_.Free(object->out_slot, thread);
      ++events_;
    }
    *object = LiveObject();
  }

  void TakeReallocation(const Event& event) {
    LiveObject* object = Live(event.slot);
    if (object == nullptr) return;
    object->size_bytes = event.size;
    // What realloc gives has no alignment of its own.
    object->alignment_log2 = 0;
    if (object->op != Op::kCalloc) object->op = Op::kMalloc;
    if (!object->written) return;
    WriteTime();
    const std::uint16_t thread = OutThread(event.thread);
    writer_.Reallocate(event.op, object->out_slot, Size(event.size, object->number), thread);
    ++events_;
  }

  void TakeFailure(const Event& event) {
    if (!began_ || filter_.only_successful_calls) return;
    const bool of_object = (event.op == Op::kRealloc || event.op == Op::kReallocArray) && !event.fresh();
    LiveObject* object = of_object ? Live(event.slot) : nullptr;
    if (of_object && (object == nullptr || !object->written)) return;
    WriteTime();
    const std::uint16_t thread = OutThread(event.thread);
    writer_.Failure(event.op, object ? object->out_slot : ~0u, event.size, event.alignment(), thread);
    ++events_;
  }

  const TraceFilter& filter_;
  TraceWriter& writer_;
  bool began_;
  HugeTable<LiveObject> objects_;            // by the input's slot
  std::vector<Thread> threads_;              // by the input's number
  std::vector<bool> out_threads_ = {true};   // taken numbers of the output
  std::uint64_t threads_written_ = 1;
  absl::flat_hash_map<std::uint64_t, std::vector<const TouchRecord*>> touched_;
  std::optional<std::uint64_t> pending_time_;
  std::uint64_t written_time_ = 0;
  std::uint64_t events_read_ = 0;
  std::uint64_t events_ = 0;                 // written, time marks apart
  std::uint64_t marked_events_ = ~std::uint64_t{0};
};

// What a maintainer needs of the recorded machine; not who ran what when.
TraceInfo ReducedInfo(TraceInfo info) {
  info.program.clear();
  info.start_unix_seconds = 0;
  info.stack_sample_bytes = 0;
  info.ForgetSegment();
  return info;
}

}  // namespace

absl::StatusOr<FilteredTrace> FilterTrace(const std::string& input, const std::string& output, const TraceFilter& filter,
                                          const std::atomic<bool>* cancelled, std::uint64_t memory_limit_bytes) {
  const ReadLimits limits = LimitsOf(filter, memory_limit_bytes);
  HugeTable<std::uint8_t> lifetimes;
  if (filter.keep) {
    absl::StatusOr<HugeTable<std::uint8_t>> classes = LifetimeClasses(input, limits, cancelled);
    if (!classes.ok()) return classes.status();
    lifetimes = *std::move(classes);
  }
  absl::StatusOr<std::unique_ptr<TraceReader>> reader = TraceReader::Open(input, limits);
  if (!reader.ok()) return reader.status();
  absl::StatusOr<std::vector<TouchRecord>> touched = (*reader)->ReadTouched();
  if (!touched.ok()) return touched.status();
  absl::StatusOr<std::unique_ptr<TraceWriter>> writer = TraceWriter::Create(output, ReducedInfo((*reader)->info()));
  if (!writer.ok()) return writer.status();
  Filter state(filter, **writer, *touched);
  for (bool more = true; more;) {
    if (cancelled != nullptr && *cancelled) {
      writer->reset();
      unlink((output + ".part").c_str());
      return absl::CancelledError("interrupted");
    }
    absl::StatusOr<EventBlock> block = (*reader)->Next();
    if (!block.ok()) return block.status();
    if (EndsFilter(*block)) break;
    std::uint64_t next_object = block->first_object;
    for (std::size_t i = 0; i < block->events.size() && more; ++i) {
      const Event& event = block->events[i];
      const std::uint64_t object = StartsObject(event) ? next_object++ : 0;
      more = state.Take(event, object, object < lifetimes.size() && lifetimes[object] != 0 ? lifetimes[object] : kLivesOn);
    }
  }
  FilteredTrace result = state.Finish();
  if (absl::Status finished = (*writer)->Finish(); !finished.ok()) return finished;
  result.file_bytes = (*writer)->bytes_written();
  return result;
}

}  // namespace heaptape
