#include "traces/extend.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "traces/huge_table.h"
#include "traces/memory_limit.h"

namespace heaptape {
namespace {

constexpr std::uint32_t kNone = ~std::uint32_t{0};

// What is alive in one slot of the recorded trace.
struct Occupant {
  std::uint64_t object;  // its number in the recorded trace
  std::uint64_t size_bytes;
  std::uint32_t slot_out;  // its slot in the long trace; kNone: it was not replaced
  std::uint16_t thread;    // that allocated it
  bool alive;
  bool older;  // than the stretch
};
static_assert(sizeof(Occupant) == 24);

// One object at a seam.
struct SeamObject {
  std::uint64_t size_bytes;
  std::uint64_t object;
  std::uint32_t slot;  // in the recorded trace
  std::uint16_t thread;
};

static_assert(sizeof(SeamObject) == 24);

// An older object that is freed in the stretch, and what replaces it there. Slots of the recorded trace.
struct Carried {
  std::uint32_t freed_slot, replacement_slot;
  std::uint64_t size_bytes;  // of the replacement
};

// What happens at each seam, found while the stretch is read for the first time.
struct Seam {
  HugeTable<Occupant> start;  // by slot, when the stretch begins
  std::vector<Carried> carried;
  std::vector<SeamObject> left_over;
  std::vector<SeamObject> not_replaced;
  std::set<std::uint16_t> start_threads = {0}, end_threads;
  std::uint64_t first_event = 0, event_count = 0;  // of the stretch, in the recorded trace
  std::uint64_t start_ns = 0, end_ns = 0;          // recorded
};

void Pair(std::vector<SeamObject> freed, std::vector<SeamObject> left_alive, Seam& seam) {
  const auto by_size_then_age = [](const SeamObject& a, const SeamObject& b) {
    return std::pair(a.size_bytes, a.object) < std::pair(b.size_bytes, b.object);
  };
  std::sort(freed.begin(), freed.end(), by_size_then_age);
  std::sort(left_alive.begin(), left_alive.end(), by_size_then_age);
  seam.carried.reserve(std::min(freed.size(), left_alive.size()));
  // Twice through both in order of size: pairs those that `alike` lets pass, keeps the others where they are read.
  const auto pass = [&seam, &freed, &left_alive](const auto& alike) {
    auto f = freed.begin(), l = left_alive.begin();
    auto freed_rest = f, left_rest = l;
    while (f != freed.end() && l != left_alive.end()) {
      if (alike(f->size_bytes, l->size_bytes)) {
        seam.carried.push_back({f->slot, l->slot, l->size_bytes});
        ++f, ++l;
      } else if (f->size_bytes < l->size_bytes) {
        *freed_rest++ = *f++;
      } else {
        *left_rest++ = *l++;
      }
    }
    freed.erase(freed_rest, f);
    left_alive.erase(left_rest, l);
  };
  pass([](std::uint64_t a, std::uint64_t b) { return a == b; });
  pass([](std::uint64_t a, std::uint64_t b) { return std::max(a, b) - std::min(a, b) <= std::min(a, b) / 4; });
  seam.not_replaced = std::move(freed);
  seam.left_over = std::move(left_alive);
}

class Extender {
 public:
  Extender(TraceReader& reader, const ExtendOptions& options, TraceWriter& writer)
      : reader_(reader), options_(options), writer_(writer) {}

  absl::StatusOr<ExtendSummary> Run() {
    absl::Status status = ReadSideRecords();
    if (!status.ok()) return status;
    status = WriteRecorded();
    if (!status.ok()) return status;
    summary_.repetitions = 1;
    while (!done_) {
      Cross();
      status = Repeat();
      if (!status.ok()) return status;
      status = CheckGrowth();
      if (!status.ok()) return status;
      ++summary_.repetitions;
    }
    AddUnmatchedFrees();
    status = writer_.status();
    if (!status.ok()) return status;
    return summary_;
  }

 private:
  // In proportion to the events: what the recording lacks is lacking in each repetition.
  void AddUnmatchedFrees() {
    const std::optional<UnmatchedFrees>& recorded = reader_.summary().unmatched_frees;
    if (!recorded) return;
    const auto extended = [this](std::uint64_t count) {
      const auto product = static_cast<unsigned __int128>(count) * writer_.event_count();
      const auto quotient = product / std::max<std::uint64_t>(reader_.summary().event_count, 1);
      return static_cast<std::uint64_t>(std::min<unsigned __int128>(quotient, ~std::uint64_t{0}));
    };
    writer_.AddUnmatchedFrees({.unknown = extended(recorded->unknown), .missed = extended(recorded->missed)});
  }

  absl::Status ReadSideRecords() {
    const auto touched = reader_.ReadTouched();
    if (!touched.ok()) return touched.status();
    for (const TouchRecord& record : *touched) touched_[{record.object, record.when}].push_back(record.present);
    auto stacks = reader_.ReadStacks();
    if (!stacks.ok()) return stacks.status();
    stacks_ = *std::move(stacks);
    std::stable_sort(stacks_.begin(), stacks_.end(),
                     [](const StackSample& a, const StackSample& b) { return a.object < b.object; });
    auto resident = reader_.ReadResident();
    if (!resident.ok()) return resident.status();
    resident_ = *std::move(resident);
    const auto modules = reader_.ReadModules();
    if (!modules.ok()) return modules.status();
    for (const Module& module : *modules) modules_out_.push_back(writer_.AddModule(module));
    return absl::OkStatus();
  }

  // Calls `visit` with each event from number `first` on until it returns false or the trace ends.
  template <typename Visit>
  absl::Status EachEvent(std::uint64_t first, const Visit& visit) {
    absl::Status status = reader_.Seek(0);
    if (!status.ok()) return status;
    std::uint64_t number = 0;
    while (true) {
      const auto block = reader_.Next();
      if (!block.ok()) return block.status();
      if (block->events.empty()) return absl::OkStatus();
      if (!reader_.loss().empty()) {
        return absl::DataLossError(absl::StrCat(reader_.loss(), "; only an undamaged trace can be extended: copy the readable part with heaptape cut first"));
      }
      if (options_.cancelled && options_.cancelled->load()) return absl::CancelledError("stopped");
      if (!writer_.status().ok()) return writer_.status();
      if (number + block->events.size() <= first) {
        number += block->events.size();
        continue;
      }
      for (const Event& event : block->events) {
        if (number++ >= first && !visit(event)) return absl::OkStatus();
      }
    }
  }

  // The recorded trace up to the end of the stretch.
  absl::Status WriteRecorded() {
    threads_ = {0};
    std::uint64_t number = 0, time_ns = 0;
    bool in_stretch = options_.stretch_start_ns == 0, gap = false;
    std::vector<SeamObject> freed;
    const absl::Status status = EachEvent(0, [&](const Event& event) {
      CopyResident(number++);
      gap |= event.op == Op::kLost;
      if (event.op == Op::kTime) {
        time_ns = event.size;
        WriteTime(in_stretch ? Stretched(time_ns) : time_ns);
        if (in_stretch && options_.stretch_end_ns && time_ns >= options_.stretch_end_ns) return false;
        if (!in_stretch && time_ns >= options_.stretch_start_ns) {
          in_stretch = true;
          Begin(number, time_ns);
        }
        return !done_;
      }
      if (in_stretch && event.op == Op::kFree) {
        const Occupant& occupant = At(event.slot);
        if (occupant.older) freed.push_back({occupant.size_bytes, occupant.object, event.slot, occupant.thread});
      }
      WriteEvent(event);
      return true;
    });
    if (!status.ok()) return status;
    if (!done_ && Stretched(time_ns) == seam_.start_ns) {
      return absl::InvalidArgumentError("at this pace the stretch takes no time; choose a longer one or a higher pace");
    }
    if (gap) return absl::DataLossError("the trace has gaps (lost events); only a whole trace can be extended: record anew, or extend a part without gaps (heaptape cut)");
    if (!in_stretch || time_ns <= seam_.start_ns) {
      return absl::InvalidArgumentError(
          "the stretch to repeat holds no time; choose it within the trace's duration (heaptape inspect shows that)");
    }
    seam_.event_count = number - seam_.first_event;
    seam_.end_ns = time_ns;
    base_ns_ = Stretched(time_ns);
    seam_.end_threads = threads_;
    std::vector<SeamObject> left_alive;
    left_alive.reserve(static_cast<std::size_t>(
        std::count_if(occupants_.begin(), occupants_.end(), [](const Occupant& occupant) { return occupant.alive && !occupant.older; })));
    for (std::uint32_t slot = 0; slot < occupants_.size(); ++slot) {
      const Occupant& occupant = occupants_[slot];
      if (!occupant.alive) continue;
      ++summary_.end_live_objects;
      summary_.end_live_bytes += occupant.size_bytes;
      if (!occupant.older) left_alive.push_back({occupant.size_bytes, occupant.object, slot, occupant.thread});
    }
    Pair(std::move(freed), std::move(left_alive), seam_);
    Summarize();
    return absl::OkStatus();
  }

  void Begin(std::uint64_t first_event, std::uint64_t time_ns) {
    seam_.first_event = first_event;
    seam_.start_ns = time_ns;
    base_ns_ = time_ns;
    seam_.start_threads = threads_;
    seam_objects_started_ = objects_started_;
    for (Occupant& occupant : occupants_) {
      occupant.older = occupant.alive;
      if (!occupant.alive) continue;
      ++summary_.start_live_objects;
      summary_.start_live_bytes += occupant.size_bytes;
    }
    seam_.start = occupants_.Copy();
  }

  void Summarize() {
    summary_.stretch_events = seam_.event_count;
    summary_.stretch_ns = seam_.end_ns - seam_.start_ns;
    summary_.carried_objects = seam_.carried.size();
    summary_.left_over_objects = seam_.left_over.size();
    for (const SeamObject& object : seam_.left_over) summary_.left_over_bytes += object.size_bytes;
    summary_.not_replaced_objects = seam_.not_replaced.size();
    for (const SeamObject& object : seam_.not_replaced) summary_.not_replaced_bytes += object.size_bytes;
  }

  // From the end of the stretch to its start: what is alive now takes the places of what was alive then.
  void Cross() {
    left_over_.clear();
    if (!options_.keep_growth) {
      left_over_.reserve(seam_.left_over.size());
      for (const SeamObject& object : seam_.left_over) {
        left_over_.push_back({occupants_[object.slot].slot_out, object.thread});
      }
    }
    std::vector<std::uint32_t> replacements;  // of what is carried: slots of the long trace
    replacements.reserve(seam_.carried.size());
    for (const Carried& carried : seam_.carried) replacements.push_back(occupants_[carried.replacement_slot].slot_out);
    for (std::uint32_t slot = 0; slot < occupants_.size(); ++slot) {
      Occupant next = slot < seam_.start.size() ? seam_.start[slot] : Occupant{0, 0, kNone, 0, false, false};
      // Older objects that were not freed are the same as ever, at the size they have now.
      if (next.alive) {
        next.slot_out = occupants_[slot].slot_out;
        next.size_bytes = occupants_[slot].size_bytes;
      }
      occupants_[slot] = next;
    }
    for (const SeamObject& object : seam_.not_replaced) occupants_[object.slot].slot_out = kNone;
    for (std::size_t i = 0; i < seam_.carried.size(); ++i) {
      occupants_[seam_.carried[i].freed_slot].slot_out = replacements[i];
      occupants_[seam_.carried[i].freed_slot].size_bytes = seam_.carried[i].size_bytes;
    }
    for (const std::uint16_t thread : seam_.end_threads) {
      if (!seam_.start_threads.count(thread)) AppendThread(Op::kThreadEnd, thread);
    }
    for (const std::uint16_t thread : seam_.start_threads) {
      if (!seam_.end_threads.count(thread)) AppendThread(Op::kThreadStart, thread);
    }
    threads_ = seam_.start_threads;
    objects_started_ = seam_objects_started_;
    next_stack_ = static_cast<std::size_t>(
        std::lower_bound(stacks_.begin(), stacks_.end(), objects_started_,
                         [](const StackSample& stack, std::uint64_t object) { return stack.object < object; }) -
        stacks_.begin());
  }

  absl::Status Repeat() {
    std::uint64_t number = 0;
    std::size_t freed = 0;
    const absl::Status status = EachEvent(seam_.first_event, [&](const Event& event) {
      if (number == seam_.event_count) return false;
      ++number;
      // The first of n left over goes after 1/n of the stretch, the last with its end.
      const std::size_t freed_by_now = ShareOf(left_over_.size(), number, seam_.event_count);
      for (; freed < freed_by_now; ++freed) {
        const auto& [slot, thread] = left_over_[freed];
        writer_.Free(slot, threads_.count(thread) ? thread : 0);
      }
      if (event.op == Op::kTime) {
        WriteTime(Stretched(event.size));
      } else if (event.op != Op::kFork) {
        WriteEvent(event);
      }
      return !done_;
    });
    base_ns_ = Stretched(seam_.end_ns);
    return status;
  }

  // The reader has seen to the recorded objects; with `keep_growth` there are more in each repetition.
  absl::Status CheckGrowth() const {
    const std::uint64_t limit = options_.memory_limit_bytes != 0 ? options_.memory_limit_bytes : default_memory_limit_;
    const double needed = static_cast<double>(writer_.live_objects()) * static_cast<double>(kExtendGrowthBytes);
    if (needed <= static_cast<double>(limit)) return absl::OkStatus();
    return OverMemoryLimit("the long trace", needed, absl::StrCat(writer_.live_objects(), " live objects"), limit);
  }

  static std::size_t ShareOf(std::size_t whole, std::uint64_t part, std::uint64_t of) {
    return static_cast<std::size_t>(static_cast<unsigned __int128>(whole) * part / of);
  }

  std::uint64_t Stretched(std::uint64_t recorded_ns) const {
    return base_ns_ + static_cast<std::uint64_t>(static_cast<double>(recorded_ns - seam_.start_ns) * options_.pace);
  }

  void WriteTime(std::uint64_t time_ns) {
    writer_.Time(time_ns);
    if (options_.progress) options_.progress(time_ns);
    done_ = time_ns >= options_.duration_ns;
  }

  void AppendThread(Op op, std::uint16_t thread) {
    writer_.Append({.op = op, .flags = 0, .thread = thread, .slot = 0, .size = 0});
  }

  Occupant& At(std::uint32_t slot) { return occupants_.At(slot); }

  void WriteEvent(const Event& event) {
    if (event.op == Op::kThreadStart) threads_.insert(event.thread);
    if (event.op == Op::kThreadEnd) threads_.erase(event.thread);
    if (event.failed()) {
      const bool of_object = (event.op == Op::kRealloc || event.op == Op::kReallocArray) && !event.fresh() && event.slot != kNone;
      writer_.Failure(event.op, of_object ? At(event.slot).slot_out : kNone, event.size, event.alignment(), event.thread);
      return;
    }
    if (StartsObject(event)) {
      Start(event, writer_.Allocate(event.op, event.size, event.alignment(), event.thread));
      return;
    }
    switch (event.op) {
      case Op::kFree: {
        Occupant& occupant = At(event.slot);
        occupant.alive = false;
        if (occupant.slot_out == kNone) return;
        WriteTouched(occupant, TouchRecord::When::kFree);
        writer_.Free(occupant.slot_out, event.thread);
        return;
      }
      case Op::kRealloc:
      case Op::kReallocArray: {
        Occupant& occupant = At(event.slot);
        occupant.size_bytes = event.size;
        if (occupant.slot_out == kNone) {
          // Not replaced by the repetition before, but used here: it comes to be now.
          occupant.slot_out = writer_.Allocate(event.op, event.size, event.alignment(), event.thread);
        } else {
          writer_.Reallocate(event.op, occupant.slot_out, event.size, event.thread);
        }
        return;
      }
      default:
        writer_.Append(event);
    }
  }

  void Start(const Event& event, std::uint32_t slot_out) {
    Occupant& occupant = At(event.slot);
    occupant = {objects_started_++, event.size, slot_out, event.thread, true, false};
    WriteTouched(occupant, TouchRecord::When::kAllocation);
    while (next_stack_ < stacks_.size() && stacks_[next_stack_].object < occupant.object) ++next_stack_;
    for (; next_stack_ < stacks_.size() && stacks_[next_stack_].object == occupant.object; ++next_stack_) {
      StackSample stack = stacks_[next_stack_];
      stack.object = writer_.ObjectNumber(slot_out);
      for (StackFrame& frame : stack.frames) {
        if (frame.module < modules_out_.size()) frame.module = modules_out_[frame.module];
      }
      writer_.Stack(stack);
    }
  }

  void WriteTouched(const Occupant& occupant, TouchRecord::When when) {
    if (occupant.size_bytes < kTouchedFromBytes) return;
    const auto found = touched_.find({occupant.object, when});
    if (found == touched_.end()) return;
    for (const std::vector<PageRange>& present : found->second) {
      writer_.Touched({.object = writer_.ObjectNumber(occupant.slot_out), .when = when, .present = present});
    }
  }

  void CopyResident(std::uint64_t events_before) {
    for (; next_resident_ < resident_.size() && resident_[next_resident_].event_number <= events_before; ++next_resident_) {
      ResidentSample sample = resident_[next_resident_];
      if (sample.time_ns > seam_.start_ns && seam_.first_event) sample.time_ns = Stretched(sample.time_ns);
      writer_.Resident(sample);
    }
  }

  TraceReader& reader_;
  const ExtendOptions& options_;
  TraceWriter& writer_;
  const std::uint64_t default_memory_limit_ = DefaultMemoryLimit();
  ExtendSummary summary_;
  Seam seam_;

  HugeTable<Occupant> occupants_;    // by slot of the recorded trace
  std::set<std::uint16_t> threads_;  // alive
  std::uint64_t objects_started_ = 0, seam_objects_started_ = 0;  // of the recorded trace
  std::vector<std::pair<std::uint32_t, std::uint16_t>> left_over_;  // {slot of the long trace, thread}
  std::uint64_t base_ns_ = 0;  // time in the long trace when this repetition began
  bool done_ = false;

  absl::flat_hash_map<std::pair<std::uint64_t, TouchRecord::When>, std::vector<std::vector<PageRange>>> touched_;
  std::vector<StackSample> stacks_;
  std::size_t next_stack_ = 0;
  std::vector<ResidentSample> resident_;
  std::size_t next_resident_ = 0;
  std::vector<std::uint32_t> modules_out_;
};

}  // namespace

absl::StatusOr<ExtendSummary> ExtendTrace(TraceReader& reader, const ExtendOptions& options, TraceWriter& writer) {
  if (!(options.pace >= 1e-6 && options.pace <= 1e9)) return absl::InvalidArgumentError("the pace must lie between 1e-6 and 1e9");
  if (options.stretch_end_ns && options.stretch_end_ns <= options.stretch_start_ns) {
    return absl::InvalidArgumentError("the stretch to repeat ends before it begins; give --from below --to");
  }
  if (options.duration_ns > std::numeric_limits<std::uint64_t>::max() / 4) {
    return absl::InvalidArgumentError("the duration is longer than a trace can say; use a shorter one");
  }
  return Extender(reader, options, writer).Run();
}

}  // namespace heaptape
