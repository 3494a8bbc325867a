#include "traces/transcribe.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace heaptape {
namespace {

struct LiveObject {
  std::uint64_t number = 0;  // in the source
  std::uint64_t size = 0;
  std::uint32_t slot = 0;    // in the copy
  Op op = Op::kMalloc;
  std::uint8_t flags = 0;
  bool live = false;
};

class Transcriber {
 public:
  Transcriber(TraceReader& reader, TraceWriter& writer, const TranscribeOptions& options)
      : reader_(reader), writer_(writer), options_(options) {}

  absl::Status Run() {
    if (absl::Status status = ReadSideRecords(); !status.ok()) return status;
    if (absl::Status status = reader_.SeekTime(options_.from_ns); !status.ok()) return status;
    if (options_.from_ns == 0) Begin();
    while (true) {
      absl::StatusOr<EventBlock> block = reader_.Next();
      if (!block.ok()) return block.status();
      if (block->events.empty()) break;
      if (options_.cancelled != nullptr && *options_.cancelled) return absl::CancelledError("interrupted");
      event_ = block->first_event;
      next_number_ = block->first_object;
      restoring_ = block->restored;
      for (std::size_t i = 0; i < block->events.size(); ++i) {
        const Event& event = block->events[i];
        if (begun_ && block->restored && event.op == Op::kLost) {
          inherited_.clear();
          inherited_base_ = writer_.object_count();
        }
        if (event.op == Op::kTime && event.size >= options_.to_ns) return Finish();
        const std::uint64_t number = block->object_numbers.empty() ? next_number_ : block->object_numbers[i];
        if (StartsObject(event) && block->object_numbers.empty()) ++next_number_;
        if (!begun_ && event.op == Op::kTime && event.size >= options_.from_ns) Begin();
        Apply(event, number);
        if (!block->restored) ++event_;
      }
      if (begun_ && block->restored) {
        // Damage: the numbers go on from those of the checkpoint.
        first_copied_number_ = block->first_object;
        first_new_number_ = writer_.object_count();
        first_copied_event_ = event_;
        copied_base_ = writer_.event_count();
      }
      WriteSideRecords();
      if (!writer_.status().ok()) return writer_.status();
      if (options_.progress) options_.progress(event_);
    }
    if (!begun_) return absl::OutOfRangeError("the trace ends before the time at which the copy should begin; choose an earlier one (heaptape inspect shows the duration)");
    return Finish();
  }

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  absl::Status ReadSideRecords() {
    auto resident = reader_.ReadResident();
    if (!resident.ok()) return resident.status();
    resident_ = *std::move(resident);
    auto touched = reader_.ReadTouched();
    if (!touched.ok()) return touched.status();
    touched_ = *std::move(touched);
    if (!options_.keep_stacks) return absl::OkStatus();
    auto stacks = reader_.ReadStacks();
    if (!stacks.ok()) return stacks.status();
    stacks_ = *std::move(stacks);
    auto modules = reader_.ReadModules();
    if (!modules.ok()) return modules.status();
    for (const Module& module : *modules) writer_.AddModule(module);
    return absl::OkStatus();
  }

  std::uint64_t Size(std::uint64_t size) const { return options_.size ? options_.size(size) : size; }

  // Writes what is alive and switches from following to copying.
  void Begin() {
    begun_ = true;
    first_copied_number_ = next_number_;
    first_copied_event_ = event_;
    for (std::size_t thread = 1; thread < threads_.size(); ++thread)
      if (threads_[thread]) writer_.Append({Op::kThreadStart, 0, static_cast<std::uint16_t>(thread), 0, 0});
    std::uint16_t thread = 0;
    if (!threads_[0]) {
      while (thread < threads_.size() && !threads_[thread]) ++thread;
      if (thread == threads_.size()) thread = 0;
      else writer_.Append({Op::kThreadEnd, 0, 0, 0, 0});
    }
    std::vector<LiveObject*> order;
    for (LiveObject& object : objects_)
      if (object.live) order.push_back(&object);
    std::sort(order.begin(), order.end(), [](const LiveObject* a, const LiveObject* b) { return a->number < b->number; });
    for (LiveObject* object : order) {
      const Event event{object->op, object->flags, 0, 0, 0};
      object->slot = writer_.Allocate(object->op, Size(object->size), event.alignment(), thread);
      inherited_.push_back(object->number);
    }
    first_new_number_ = writer_.object_count();
    copied_base_ = writer_.event_count();
  }

  LiveObject& At(std::uint32_t slot) {
    if (slot >= objects_.size()) objects_.resize(std::max<std::size_t>(std::size_t{slot} + 1, objects_.size() * 3 / 2));
    return objects_[slot];
  }

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
      if (begun_ && number < next_number_ && restoring_) inherited_.push_back(number);
      if (begun_) object.slot = writer_.Allocate(event.op, Size(event.size), event.alignment(), event.thread);
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
      if (begun_) writer_.Time(event.size - std::min(event.size, options_.from_ns));
    } else {
      if (event.op == Op::kThreadStart || event.op == Op::kThreadEnd) {
        if (threads_.size() <= event.thread) threads_.resize(std::size_t{event.thread} + 1);
        threads_[event.thread] = event.op == Op::kThreadStart;
      }
      if (begun_) writer_.Append(event);
    }
  }

  // The number in the copy of an object that the source knows by `number`, or kNone.
  std::uint64_t NewNumber(std::uint64_t number) const {
    if (number >= first_copied_number_) return number - first_copied_number_ + first_new_number_;
    const auto found = std::lower_bound(inherited_.begin(), inherited_.end(), number);
    if (found == inherited_.end() || *found != number) return kNone;
    return inherited_base_ + static_cast<std::uint64_t>(found - inherited_.begin());
  }

  // Those whose object or event has been copied by now.
  void WriteSideRecords() {
    if (!begun_) return;
    for (; next_touched_ < touched_.size() && touched_[next_touched_].object < next_number_; ++next_touched_) {
      TouchRecord record = touched_[next_touched_];
      record.object = NewNumber(record.object);
      if (record.object != kNone) writer_.Touched(record);
    }
    for (; next_stack_ < stacks_.size() && stacks_[next_stack_].object < next_number_; ++next_stack_) {
      StackSample sample = stacks_[next_stack_];
      sample.object = NewNumber(sample.object);
      if (sample.object != kNone) writer_.Stack(sample);
    }
    for (; next_resident_ < resident_.size() && resident_[next_resident_].event_number <= event_; ++next_resident_) {
      ResidentSample sample = resident_[next_resident_];
      if (sample.time_ns < options_.from_ns || sample.event_number < first_copied_event_ || sample.time_ns >= options_.to_ns)
        continue;
      sample.time_ns -= options_.from_ns;
      sample.event_number = sample.event_number - first_copied_event_ + copied_base_;
      writer_.Resident(sample);
    }
  }

  absl::Status Finish() {
    WriteSideRecords();
    return writer_.status();
  }

  TraceReader& reader_;
  TraceWriter& writer_;
  const TranscribeOptions& options_;
  bool begun_ = false;
  bool restoring_ = false;
  std::vector<LiveObject> objects_;  // by the source's slot
  std::vector<bool> threads_ = std::vector<bool>(1, true);
  std::uint64_t event_ = 0;          // of the source, read so far
  std::uint64_t next_number_ = 0;    // of the source's next object
  std::uint64_t first_copied_event_ = 0, first_copied_number_ = 0;
  std::uint64_t first_new_number_ = 0;
  std::uint64_t copied_base_ = 0;
  std::uint64_t inherited_base_ = 0;
  std::vector<std::uint64_t> inherited_;  // source numbers of the objects the copy begins with, ascending
  std::vector<ResidentSample> resident_;
  std::vector<TouchRecord> touched_;
  std::vector<StackSample> stacks_;
  std::size_t next_resident_ = 0, next_touched_ = 0, next_stack_ = 0;
};

}  // namespace

absl::Status Transcribe(TraceReader& reader, TraceWriter& writer, const TranscribeOptions& options) {
  return Transcriber(reader, writer, options).Run();
}

}  // namespace heaptape
