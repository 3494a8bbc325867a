#include "traces/transcribe.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "traces/huge_table.h"

namespace heaptape {
namespace {

struct LiveObject {
  std::uint64_t number;  // in the source
  std::uint64_t size;
  std::uint32_t slot;    // in the copy
  Op op;
  std::uint8_t flags;
  bool live;
};
static_assert(sizeof(LiveObject) == 24);

class Transcriber {
 public:
  Transcriber(TraceWriter& writer, const TranscribeOptions& options) : writer_(writer), options_(options) {}

  // `is_last`: of the segments of a recording.
  absl::Status Run(TraceReader& reader, bool is_last = true) {
    if (absl::Status status = ReadSideRecords(reader); !status.ok()) return status;
    if (!is_last) HoldLastLooks();
    if (absl::Status status = reader.SeekTime(options_.from_ns); !status.ok()) return status;
    unmatched_before_ = unmatched_ = {};
    if (!follows_ && options_.from_ns == 0) Begin();
    while (true) {
      absl::StatusOr<EventBlock> block = reader.Next();
      if (!block.ok()) return block.status();
      if (block->events.empty()) break;
      if (options_.cancelled != nullptr && *options_.cancelled) return absl::CancelledError("interrupted");
      event_ = block->first_event;
      next_number_ = block->first_object;
      restoring_ = block->restored;
      for (std::size_t i = 0; i < block->events.size(); ++i) {
        const Event& event = block->events[i];
        if (begun_ && block->restored && event.op == Op::kLost) inherited_.clear();
        if (event.op == Op::kTime && event.size >= options_.to_ns) return Finish(block->unmatched_frees);
        const std::uint64_t number_before = next_number_;
        const std::uint64_t number = block->object_numbers.empty() ? next_number_ : block->object_numbers[i];
        if (StartsObject(event) && block->object_numbers.empty()) ++next_number_;
        if (follows_ && !begun_ && BeginsAsAwaited()) BeginWith(number_before);
        if (follows_ && !begun_) {
          if (!Await(event, number)) return absl::FailedPreconditionError("does not begin with what was alive before");
        } else {
          if (!begun_ && event.op == Op::kTime && event.size >= options_.from_ns) Begin();
          WriteResident();
          Apply(event, number);
        }
        if (!block->restored) ++event_;
      }
      if (begun_ && block->restored) {
        // Damage: the numbers go on from those of the checkpoint.
        first_copied_number_ = block->first_object;
        first_new_number_ = writer_.object_count();
        first_copied_event_ = event_;
      }
      unmatched_ = block->unmatched_frees.value_or(unmatched_);
      WriteSideRecords();
      if (!writer_.status().ok()) return writer_.status();
      if (options_.progress) options_.progress(event_before_ + event_);
    }
    if (follows_ && !begun_) {
      if (!BeginsAsAwaited()) return absl::FailedPreconditionError("ends before all that was alive before has come");
      BeginWith(next_number_);
    }
    if (!begun_) return absl::OutOfRangeError("the trace ends before the time at which the copy should begin; choose an earlier one (heaptape inspect shows the duration)");
    return Finish(reader.summary().unmatched_frees);
  }

  // The next Run() reads a segment that begins where the last one ended, `time_ns` after the copy's start.
  void Follow(std::uint64_t time_ns) {
    follows_ = true;
    begun_ = false;
    time_ns_ = time_ns;
    awaited_.clear();
    for (const LiveObject& object : objects_)
      if (object.live) awaited_.push_back(object);
    std::sort(awaited_.begin(), awaited_.end(), [](const LiveObject& a, const LiveObject& b) { return a.number < b.number; });
    next_awaited_ = 0;
    awaited_threads_ = threads_;
    if (std::find(threads_.begin(), threads_.end(), true) == threads_.end()) awaited_threads_[0] = true;
    threads_.assign(1, true);
    objects_ = HugeTable<LiveObject>();
    inherited_.clear();
    event_before_ += event_;
    event_ = next_number_ = 0;
    next_resident_ = next_touched_ = next_stack_ = 0;
  }

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  absl::Status ReadSideRecords(TraceReader& reader) {
    auto resident = reader.ReadResident();
    if (!resident.ok()) return resident.status();
    resident_ = *std::move(resident);
    auto touched = reader.ReadTouched();
    if (!touched.ok()) return touched.status();
    touched_ = *std::move(touched);
    touched_end_ = touched_.size();
    if (!options_.keep_stacks) return absl::OkStatus();
    auto stacks = reader.ReadStacks();
    if (!stacks.ok()) return stacks.status();
    stacks_ = *std::move(stacks);
    auto modules = reader.ReadModules();
    if (!modules.ok()) return modules.status();
    module_numbers_.clear();
    for (const Module& module : *modules) {
      auto found = std::find(modules_.begin(), modules_.end(), module);
      if (found == modules_.end()) {
        writer_.AddModule(module);
        found = modules_.insert(found, module);
      }
      module_numbers_.push_back(static_cast<std::uint32_t>(found - modules_.begin()));
    }
    return absl::OkStatus();
  }

  // A segment ends with a last look at the blocks that outlive it: how they are when they are freed is told by a later one. So
  // these looks are not written. What else is among the last comes at the segment's end.
  void HoldLastLooks() {
    while (touched_end_ > 0 && touched_[touched_end_ - 1].when == TouchRecord::When::kFree) --touched_end_;
  }

  std::uint64_t Size(std::uint64_t size) const { return options_.size ? options_.size(size) : size; }

  // Writes what is alive and switches from following to copying.
  void Begin() {
    begun_ = true;
    unmatched_before_ = unmatched_;
    first_copied_number_ = next_number_;
    first_copied_event_ = event_;
    const std::uint16_t thread = writer_.BeginWithThreads(threads_);
    const auto live = static_cast<std::size_t>(std::count_if(objects_.begin(), objects_.end(), [](const LiveObject& object) { return object.live; }));
    std::vector<LiveObject*> order;
    order.reserve(live);
    inherited_.reserve(live);
    for (LiveObject& object : objects_)
      if (object.live) order.push_back(&object);
    std::sort(order.begin(), order.end(), [](const LiveObject* a, const LiveObject* b) { return a->number < b->number; });
    for (LiveObject* object : order) {
      const Event event{object->op, object->flags, 0, 0, 0};
      object->slot = writer_.Allocate(object->op, Size(object->size), event.alignment(), thread);
      inherited_.emplace_back(object->number, writer_.ObjectNumber(object->slot));
    }
    first_new_number_ = writer_.object_count();
  }

  bool BeginsAsAwaited() const { return next_awaited_ == awaited_.size() && threads_ == awaited_threads_; }

  // One of the events that a segment begins with: true if it brings what is awaited.
  bool Await(const Event& event, std::uint64_t number) {
    if (event.op == Op::kThreadStart || event.op == Op::kThreadEnd) {
      SetAlive(event);
      return event.thread < awaited_threads_.size() && awaited_threads_[event.thread] == threads_[event.thread];
    }
    if (event.failed() || !StartsObject(event) || next_awaited_ == awaited_.size()) return false;
    LiveObject object = awaited_[next_awaited_++];
    if (object.op != event.op || object.size != event.size || object.flags != (event.flags & Event::kAlignmentMask)) return false;
    object.number = number;
    At(event.slot) = object;
    inherited_.emplace_back(number, writer_.ObjectNumber(object.slot));
    return true;
  }

  // What comes now is of this segment alone: its objects are numbered on from `number`.
  void BeginWith(std::uint64_t number) {
    begun_ = true;
    awaited_ = {};
    writer_.Time(time_ns_);
    first_copied_number_ = number;
    first_copied_event_ = event_;
    first_new_number_ = writer_.object_count();
  }

  void SetAlive(const Event& event) {
    if (threads_.size() <= event.thread) threads_.resize(std::size_t{event.thread} + 1);
    threads_[event.thread] = event.op == Op::kThreadStart;
    while (threads_.size() > 1 && !threads_.back()) threads_.pop_back();
  }

  LiveObject& At(std::uint32_t slot) { return objects_.At(slot); }

  void Apply(const Event& event, std::uint64_t number) {
    const bool realloc = event.op == Op::kRealloc || event.op == Op::kReallocArray;
    if (event.failed()) {
      if (!begun_) return;
      std::uint32_t slot = ~0u;
      if (realloc && !event.fresh() && event.slot != ~0u) slot = At(event.slot).slot;
      writer_.Failure(event.op, slot, event.size, event.alignment(), event.thread);
    } else if (StartsObject(event)) {
      LiveObject& object = At(event.slot);
      object = {number, event.size, 0, event.op, static_cast<std::uint8_t>(event.flags & Event::kAlignmentMask), true};
      if (begun_) object.slot = writer_.Allocate(event.op, Size(event.size), event.alignment(), event.thread);
      if (begun_ && number < next_number_ && restoring_) inherited_.emplace_back(number, writer_.object_count() - 1);
    } else if (realloc) {
      LiveObject& object = At(event.slot);
      object.size = event.size;
      object.op = event.op;
      object.flags = 0;
      if (begun_) writer_.Reallocate(event.op, object.slot, Size(event.size), event.thread);
    } else if (event.op == Op::kFree) {
      LiveObject& object = At(event.slot);
      object.live = false;
      if (begun_) writer_.Free(object.slot, event.thread);
    } else if (event.op == Op::kTime) {
      if (begun_) writer_.Time(time_ns_ + event.size - std::min(event.size, options_.from_ns));
    } else {
      if (event.op == Op::kThreadStart || event.op == Op::kThreadEnd) SetAlive(event);
      if (begun_) writer_.Append(event);
    }
  }

  // The number in the copy of an object that the source knows by `number`, or kNone.
  std::uint64_t NewNumber(std::uint64_t number) const {
    if (number >= first_copied_number_) return number - first_copied_number_ + first_new_number_;
    const auto found = std::lower_bound(inherited_.begin(), inherited_.end(), std::pair<std::uint64_t, std::uint64_t>(number, 0));
    return found != inherited_.end() && found->first == number ? found->second : kNone;
  }

  // Those whose object or event has been copied by now.
  void WriteSideRecords() {
    if (!begun_) return;
    for (; next_touched_ < touched_end_ && touched_[next_touched_].object < next_number_; ++next_touched_)
      WriteTouched(touched_[next_touched_]);
    for (; next_stack_ < stacks_.size() && stacks_[next_stack_].object < next_number_; ++next_stack_) {
      StackSample sample = stacks_[next_stack_];
      sample.object = NewNumber(sample.object);
      for (StackFrame& frame : sample.frames) frame.module = frame.module < module_numbers_.size() ? module_numbers_[frame.module] : frame.module;
      if (sample.object != kNone) writer_.Stack(sample);
    }
  }

  // Those before the event that is copied next.
  void WriteResident() {
    for (; next_resident_ < resident_.size() && resident_[next_resident_].event_number <= event_; ++next_resident_) {
      ResidentSample sample = resident_[next_resident_];
      // Before the first mark of a later segment a sample is of no event of that segment's own.
      const bool before = sample.event_number < first_copied_event_ && !(follows_ && sample.event_number == 0);
      if (!begun_ || before || sample.time_ns < options_.from_ns || sample.time_ns >= options_.to_ns) continue;
      sample.time_ns += time_ns_ - options_.from_ns;
      writer_.Resident(sample);
    }
  }

  void WriteTouched(TouchRecord record) {
    record.object = NewNumber(record.object);
    if (record.object != kNone) writer_.Touched(record);
  }

  // `unmatched_frees`: of the source, up to the end of the last block that was read.
  absl::Status Finish(const std::optional<UnmatchedFrees>& unmatched_frees) {
    if (unmatched_frees) {
      writer_.AddUnmatchedFrees({.unknown = unmatched_frees->unknown - std::min(unmatched_frees->unknown, unmatched_before_.unknown),
                                 .missed = unmatched_frees->missed - std::min(unmatched_frees->missed, unmatched_before_.missed)});
    }
    WriteResident();
    WriteSideRecords();
    if (touched_end_ < touched_.size()) {
      absl::flat_hash_set<std::uint64_t> alive;
      for (const LiveObject& object : objects_)
        if (object.live && object.size >= kTouchedFromBytes) alive.insert(object.number);
      for (; touched_end_ < touched_.size(); ++touched_end_)
        if (!alive.contains(touched_[touched_end_].object)) WriteTouched(touched_[touched_end_]);
    }
    return writer_.status();
  }

  TraceWriter& writer_;
  const TranscribeOptions& options_;
  bool begun_ = false;
  bool follows_ = false;  // this is a later segment of the recording
  bool restoring_ = false;
  HugeTable<LiveObject> objects_;    // by the source's slot
  std::vector<bool> threads_ = std::vector<bool>(1, true);
  std::uint64_t event_ = 0;          // of the source, read so far
  std::uint64_t next_number_ = 0;    // of the source's next object
  std::uint64_t first_copied_event_ = 0, first_copied_number_ = 0;
  std::uint64_t first_new_number_ = 0;
  // Of the source, up to the end of the last block read, and where the copy begins. They are known by the block: a copy of a
  // part has those of every block it has a part of.
  UnmatchedFrees unmatched_, unmatched_before_;
  // Of the objects that this segment, or the copy, begins with: their numbers in the source, ascending, and in the copy.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> inherited_;
  std::vector<LiveObject> awaited_;  // what the segment has to begin with, in the order of their start
  std::size_t next_awaited_ = 0;
  std::vector<bool> awaited_threads_;
  std::uint64_t time_ns_ = 0;        // of the segment's beginning, in the copy
  std::uint64_t event_before_ = 0;   // of the segments before
  std::vector<Module> modules_;      // of the copy
  std::vector<std::uint32_t> module_numbers_;  // in the copy, by that in the source
  std::vector<ResidentSample> resident_;
  std::vector<TouchRecord> touched_;
  std::vector<StackSample> stacks_;
  std::size_t next_resident_ = 0, next_touched_ = 0, next_stack_ = 0;
  std::size_t touched_end_ = 0;  // from here on they are held back
};

}  // namespace

absl::Status Transcribe(TraceReader& reader, TraceWriter& writer, const TranscribeOptions& options) {
  return Transcriber(writer, options).Run(reader);
}

absl::Status Join(std::span<TraceReader* const> segments, TraceWriter& writer, const TranscribeOptions& options, std::size_t* joined) {
  TranscribeOptions whole = options;
  whole.from_ns = 0;
  whole.to_ns = ~std::uint64_t{0};
  whole.size = nullptr;
  Transcriber transcriber(writer, whole);
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (joined != nullptr) *joined = i;
    if (i > 0) transcriber.Follow(segments[i]->info().segment_start_ns - segments[0]->info().segment_start_ns);
    if (absl::Status status = transcriber.Run(*segments[i], i + 1 == segments.size()); !status.ok()) return status;
    if (absl::Status status = segments[i]->Seek(0); !status.ok()) return status;  // so that it lets go of its live set
  }
  return absl::OkStatus();
}

}  // namespace heaptape
