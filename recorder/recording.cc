#include "recorder/recording.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace heaptape {
namespace {

constexpr std::uint16_t kUnseenThread = 0xffff;
constexpr std::uint16_t kEndedThread = 0xfffe;
constexpr std::uint32_t kNoSlot = ~0u;
static_assert(kBigBytes == kTouchedFromBytes);
// What waits for an event of its own. A program has a few of each; only one that overwrites the pool has more, and loses
// the oldest.
constexpr std::size_t kAwaitedMax = 1 << 16;
// Serials are given out one after another, so a new one is never so far above all others. The first thread stands for
// one that is.
constexpr std::size_t kSerialStepMax = 1 << 14;
constexpr std::size_t kCachedObjects = 16 << 10;  // with fewer all that is read of them stays in the caches

std::optional<Op> AllocationOp(RawOp op) {
  switch (op) {
    case RawOp::kMalloc: return Op::kMalloc;
    case RawOp::kCalloc: return Op::kCalloc;
    case RawOp::kReallocFresh: return Op::kRealloc;
    case RawOp::kReallocArrayFresh: return Op::kReallocArray;
    case RawOp::kPosixMemalign: return Op::kPosixMemalign;
    case RawOp::kAlignedAlloc: return Op::kAlignedAlloc;
    case RawOp::kMemalign: return Op::kMemalign;
    case RawOp::kValloc: return Op::kValloc;
    case RawOp::kPvalloc: return Op::kPvalloc;
    default: return std::nullopt;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Recording>> Recording::Create(const RecordingOptions& options, std::shared_ptr<RecordingFiles> files) {
  std::unique_ptr<Recording> recording(new Recording(options, std::move(files)));
  recording->segment_number_ = options.segment_bytes || options.segment_ns ? 1 : 0;
  if (const auto before = recording->Open(recording->segment_number_); !before.ok()) return before.status();
  return recording;
}

absl::StatusOr<std::unique_ptr<TraceWriter>> Recording::Open(std::uint64_t segment) {
  TraceWriterOptions options;
  options.compression_level = options_.compression_level;
  TraceInfo info = options_.info;
  segment_start_ns_ = time_ns_ - time_ns_ % std::max<std::uint64_t>(info.time_resolution_ns, 1);
  info.segment_start_ns = segment_start_ns_;
  info.segment_number = segment;
  FileName name = final_name_;
  name.segment = segment;
  const absl::StatusOr<int> file = files_->Open(name);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::unique_ptr<TraceWriter>> writer = TraceWriter::CreateOnDescriptor(*file, info, options, files_->Path(name));
  if (!writer.ok()) return writer.status();
  writer_.swap(*writer);
  writer_->AddUnmatchedFrees({});
  open_name_ = name;
  modules_written_ = 0;
  return writer;
}

void Recording::Touched(std::uint32_t number, std::vector<PageRange> ranges) {
  if (touched_.size() >= kAwaitedMax) touched_.clear();
  touched_[order_.Widen(number)] = std::move(ranges);
}

void Recording::Stack(std::uint32_t number, std::vector<StackFrame> frames) {
  if (stacks_.size() >= kAwaitedMax) stacks_.clear();
  stacks_[order_.Widen(number)] = std::move(frames);
}

void Recording::Prefetch(std::uint64_t address) {
  live_.Prefetch(address);
  if (live_.size() < kCachedObjects) return;
  const auto before = [this](std::uint32_t events) -> Soon& { return soon_[(soon_at_ - events) % soon_.size()]; };
  soon_[++soon_at_ % soon_.size()] = {address, kNoSlot};
  Soon& found = before(8);
  if (const AddressTable::Entry* const object = live_.Find(found.address)) {
    found.slot = object->slot;
    writer_->PrefetchFree(found.slot);
  }
  writer_->PrefetchFreeNeighbours(before(15).slot);
}

void Recording::Mark(std::uint32_t number, std::uint64_t time_ns) {
  const std::uint64_t wide = order_.Widen(number);
  if (!marks_.empty() && marks_.back().number == wide) {
    marks_.back().time_ns = time_ns;
  } else {
    if (marks_.size() >= kAwaitedMax) marks_.pop_front();
    marks_.push_back({wide, time_ns});
  }
}

bool Recording::HasRoomFor(std::uint32_t number) {
  if (order_.HasRoomFor(number)) return true;
  Drain();
  return order_.HasRoomFor(number);
}

void Recording::Take(const OrderedEvent& event) {
  if (order_.Ahead(event.event.number()) == 0 && order_.Advance()) {
    const std::uint64_t number = order_.next_number() - 1;
    ApplyMarks(number);
    Apply(event, number);
  } else if (!order_.Place(event)) {
    ++counts_.late;
    Apply(event, order_.Widen(event.event.number()));
  }
}

void Recording::ApplyMarks(std::uint64_t number) {
  while (!marks_.empty() && marks_.front().number <= number) {
    time_ns_ = std::max(time_ns_, marks_.front().time_ns);
    const std::uint64_t events = writer_->event_count();
    writer_->Time(time_ns_ - segment_start_ns_);
    marks_.pop_front();
    if (!flush_at_mark_ || writer_->event_count() == events) continue;
    flush_at_mark_ = false;
    (void)Flush();
  }
}

void Recording::Drain() {
  for (;;) {
    const std::uint64_t number = order_.next_number();
    ApplyMarks(number);
    const OrderedEvent* event = order_.Next();
    if (!event) return;
    Prefetch(order_.AddressAhead(kPrefetchAhead));
    Apply(*event, number);
  }
}

std::uint16_t Recording::Thread(std::uint32_t serial) {
  if (serial >= threads_.size()) {
    if (serial - threads_.size() >= kSerialStepMax) return 0;
    threads_.resize(serial + 1, kUnseenThread);
  }
  std::uint16_t& number = threads_[serial];
  if (number < kEndedThread) return number;
  // What the C library frees of a thread after the last destructor: any thread may free.
  if (number == kEndedThread) return 0;
  if (!free_threads_.empty()) {
    number = free_threads_.back();
    free_threads_.pop_back();
  } else {
    number = next_thread_ < kEndedThread - 1 ? next_thread_++ : 0;
  }
  if (number != 0) writer_->Append({.op = Op::kThreadStart, .flags = 0, .thread = number, .slot = 0, .size = 0});
  return number;
}

void Recording::EndThread(std::uint32_t serial) {
  if (serial >= threads_.size() || threads_[serial] >= kEndedThread) return;
  const std::uint16_t number = threads_[serial];
  threads_[serial] = kEndedThread;
  if (number == 0) return;  // the first thread's number stays: late events go there
  writer_->Append({.op = Op::kThreadEnd, .flags = 0, .thread = number, .slot = 0, .size = 0});
  free_threads_.push_back(number);
}

void Recording::ThreadGone(std::uint32_t serial) { EndThread(serial); }

void Recording::AddTouch(std::uint64_t number, std::uint32_t slot, TouchRecord::When when, std::uint64_t size) {
  // A block below kBigBytes may have been looked at for its usable size.
  if (size < kBigBytes && touched_.empty()) return;
  if (const auto found = touched_.find(number); found != touched_.end()) {
    WriteTouch(slot, when, size, found->second);
    touched_.erase(found);
  } else if (const auto big = big_.find(slot); when == TouchRecord::When::kFree && big != big_.end() && big->second.seen) {
    WriteTouch(slot, when, size, big->second.present);
  }
}

void Recording::WriteTouch(std::uint32_t slot, TouchRecord::When when, std::uint64_t size,
                           const std::vector<PageRange>& present) {
  TouchRecord record;
  record.object = writer_->ObjectNumber(slot);
  record.when = when;
  // The scan went by the usable size; pages beyond what was asked for are not the program's doing.
  const auto pages = static_cast<std::uint32_t>((size + 2 * 4096 - 1) / 4096);
  for (PageRange range : present) {
    if (range.first_page >= pages) break;
    range.page_count = std::min(range.page_count, pages - range.first_page);
    record.present.push_back(range);
  }
  writer_->Touched(record);
}

void Recording::LookAtLiveBlocks(const PresentPages& present) {
  for (auto& [slot, block] : big_) {
    block.present = present(block.address, SizeOf(slot));
    block.seen = true;
  }
}

void Recording::WriteLastLooks() {
  for (const auto& [slot, block] : big_) {
    if (block.seen) WriteTouch(slot, TouchRecord::When::kFree, SizeOf(slot), block.present);
  }
}

void Recording::BigBegins(std::uint32_t slot, std::uint64_t address) { big_[slot].address = address; }

void Recording::BigEnds(std::uint32_t slot, std::uint64_t address) {
  if (big_.erase(slot) != 0 && big_filter_) big_filter_[BigFilterIndex(address)].fetch_sub(1);
}

void Recording::AddStack(std::uint64_t number, std::uint32_t slot) {
  const auto found = stacks_.find(number);
  if (found == stacks_.end()) return;
  for (; modules_ && modules_written_ < modules_->size(); ++modules_written_) writer_->AddModule((*modules_)[modules_written_]);
  writer_->Stack({.object = writer_->ObjectNumber(slot), .frames = std::move(found->second)});
  stacks_.erase(found);
}

void Recording::CountUnknownFree() {
  if (!writer_->status().ok()) return;
  ++counts_.unknown_frees;
  writer_->AddUnmatchedFrees({.unknown = 1, .missed = 0});
}

void Recording::CountMissedFree() {
  if (!writer_->status().ok()) return;
  ++counts_.missed_frees;
  writer_->AddUnmatchedFrees({.unknown = 0, .missed = 1});
}

void Recording::FreeSlot(std::uint32_t slot, std::uint64_t address, std::uint64_t size, std::uint16_t thread) {
  if (size >= kBigBytes) BigEnds(slot, address);
  writer_->Free(slot, thread);
}

void Recording::Allocate(const OrderedEvent& event, Op op, std::uint16_t thread, std::uint64_t number) {
  const std::uint64_t address = event.event.address();
  const std::uint64_t size = event.event.size();
  const std::uint64_t alignment = event.align_log2 ? std::uint64_t{1} << event.align_log2 : 0;
  if (address == 0) {
    writer_->Failure(op, kNoSlot, size, alignment, thread);
    return;
  }
  const auto [place, inserted] = live_.Insert(address);
  if (!inserted) {
    CountMissedFree();
    FreeSlot(place->slot, address, SizeOf(place->slot), thread);
  }
  const std::uint32_t slot = writer_->Allocate(op, size, alignment, thread);
  if (slot == kNoSlot) {  // nothing more is written: the disk is full, or a limit reached
    live_.Erase(place);
    return;
  }
  place->slot = slot;
  pages_.Mark(address);
  if (size >= kBigBytes) {
    BigBegins(slot, address);
    AddTouch(number, slot, TouchRecord::When::kAllocation, size);
  }
  if (!stacks_.empty()) AddStack(number, slot);
}

void Recording::Apply(const OrderedEvent& event, std::uint64_t number) {
  ++counts_.events;
  const RawOp raw = event.event.op();
  if (raw == RawOp::kThreadEnd) return EndThread(event.thread);
  const std::uint16_t thread = Thread(event.thread);
  const std::uint64_t address = event.event.address();
  const std::uint64_t size = event.event.size();
  if (const std::optional<Op> op = AllocationOp(raw)) return Allocate(event, *op, thread, number);
  switch (raw) {
    case RawOp::kFree: {
      const AddressTable::Entry* const found = live_.Find(address);
      if (found == nullptr) {
        CountUnknownFree();
        touched_.erase(number);
        return;
      }
      const std::uint32_t slot = found->slot;
      const std::uint64_t freed = SizeOf(slot);
      AddTouch(number, slot, TouchRecord::When::kFree, freed);
      live_.Erase(found);
      FreeSlot(slot, address, freed, thread);
      return;
    }
    case RawOp::kReallocBegin: {
      const AddressTable::Entry* const found = live_.Find(address);
      PendingRealloc pending = {event.thread, kNoSlot, address};
      if (found != nullptr) {
        pending.slot = found->slot;
        live_.Erase(found);
        AddTouch(number, pending.slot, TouchRecord::When::kFree, SizeOf(pending.slot));
        BigEnds(pending.slot, address);
      }
      if (reallocs_.size() >= kAwaitedMax) reallocs_.erase(reallocs_.begin(), reallocs_.begin() + kAwaitedMax / 2);
      reallocs_.push_back(pending);
      return;
    }
    case RawOp::kReallocEnd:
    case RawOp::kReallocArrayEnd:
    case RawOp::kReallocFreed: {
      const Op op = raw == RawOp::kReallocArrayEnd ? Op::kReallocArray : Op::kRealloc;
      // The newest of this thread: a signal handler's comes and goes within the one it interrupted.
      auto pending = std::find_if(reallocs_.rbegin(), reallocs_.rend(),
                                  [&event](const PendingRealloc& entry) { return entry.thread == event.thread; });
      if (pending == reallocs_.rend() || pending->slot == kNoSlot) {
        if (pending != reallocs_.rend()) {
          CountUnknownFree();
          reallocs_.erase(std::next(pending).base());
        }
        if (raw != RawOp::kReallocFreed) Allocate(event, op, thread, number);
        return;
      }
      const PendingRealloc begun = *pending;
      reallocs_.erase(std::next(pending).base());
      if (raw == RawOp::kReallocFreed) {
        FreeSlot(begun.slot, begun.address, SizeOf(begun.slot), thread);
        return;
      }
      const bool failed = address == 0;
      const std::uint64_t now_at = failed ? begun.address : address;
      const auto [place, inserted] = live_.Insert(now_at);
      if (!inserted) {
        CountMissedFree();
        FreeSlot(place->slot, now_at, SizeOf(place->slot), thread);
      }
      place->slot = begun.slot;
      if (failed) {
        writer_->Failure(op, begun.slot, size, 0, thread);
        if (SizeOf(begun.slot) >= kBigBytes) {
          BigBegins(begun.slot, now_at);
          if (big_filter_) big_filter_[BigFilterIndex(now_at)].fetch_add(1);
        }
      } else {
        writer_->Reallocate(op, begun.slot, size, thread);
        pages_.Mark(address);
        if (size >= kBigBytes) {
          BigBegins(begun.slot, address);
          AddTouch(number, begun.slot, TouchRecord::When::kAllocation, size);
        }
        if (!stacks_.empty()) AddStack(number, begun.slot);
      }
      return;
    }
    case RawOp::kTrim:
      writer_->Append({.op = Op::kTrim, .flags = 0, .thread = thread, .slot = 0, .size = size});
      return;
    case RawOp::kMallopt:
      writer_->Append({.op = Op::kMallopt, .flags = 0, .thread = thread, .slot = static_cast<std::uint32_t>(address),
                       .size = size});
      return;
    case RawOp::kFork:
      writer_->Append({.op = Op::kFork, .flags = 0, .thread = thread, .slot = 0,
                       .size = size != 0 ? std::uint64_t{1} : std::uint64_t{0}});
      if (size != 0 && fork_hook_) fork_hook_(static_cast<std::uint32_t>(size));
      return;
    default:
      return;
  }
}

void Recording::Resident(ResidentSample sample) {
  time_ns_ = std::max(time_ns_, sample.time_ns);
  sample.time_ns -= std::min(sample.time_ns, segment_start_ns_);
  writer_->Resident(sample);
}

void Recording::Resumed() {
  writer_->Append({.op = Op::kLost, .flags = 0, .thread = 0, .slot = 0, .size = 0});
}

// As a part of a recording begins (FORMAT.md, "Description"). The slots of a new file are its own.
absl::Status Recording::BeginWithLiveSet(const TraceWriter& before) {
  std::vector<bool> alive(1);
  for (const std::uint16_t thread : threads_) {
    if (thread >= kEndedThread) continue;
    if (thread >= alive.size()) alive.resize(thread + 1);
    alive[thread] = true;
  }
  const std::uint16_t thread = writer_->BeginWithThreads(alive);
  std::vector<std::uint32_t> slots;
  slots.reserve(before.live_objects());
  for (std::uint32_t slot = 0; slot < before.slot_count(); ++slot) {
    if (before.Object(slot) != nullptr) slots.push_back(slot);
  }
  std::sort(slots.begin(), slots.end(), [&before](std::uint32_t a, std::uint32_t b) { return before.ObjectNumber(a) < before.ObjectNumber(b); });
  std::vector<std::uint32_t> moved(before.slot_count(), kNoSlot);
  for (const std::uint32_t slot : slots) {
    const LiveObject& object = *before.Object(slot);
    const std::uint64_t alignment = object.log2_alignment() ? std::uint64_t{1} << object.log2_alignment() : 0;
    moved[slot] = writer_->Allocate(object.op(), object.size(), alignment, thread);
    if (moved[slot] == kNoSlot) return writer_->status();
  }
  absl::flat_hash_map<std::uint32_t, BigBlock> big;
  for (auto& [slot, block] : big_) big[moved[slot]] = std::move(block);
  big_ = std::move(big);
  live_.ForEach([&moved](AddressTable::Entry& entry) { entry.slot = moved[entry.slot]; });
  for (PendingRealloc& pending : reallocs_) {
    if (pending.slot != kNoSlot) pending.slot = moved[pending.slot];
  }
  return writer_->status();
}

absl::Status Recording::ContinueAs(const FileName& name, std::shared_ptr<RecordingFiles> files) {
  files_ = std::move(files);
  final_name_ = name;
  time_ns_ = 0;
  segment_number_ = options_.segment_bytes || options_.segment_ns ? 1 : 0;
  absl::StatusOr<std::unique_ptr<TraceWriter>> opened = Open(segment_number_);
  if (!opened.ok()) return opened.status();
  // What it has not written yet is written by the parent's writer, whose file it is.
  const TraceWriter& before = *opened->release();
  counts_ = RecordingCounts();
  // The forked process has one thread, with a serial of its own.
  threads_.clear();
  free_threads_.clear();
  next_thread_ = 0;
  reallocs_.clear();
  marks_.clear();
  touched_.clear();
  stacks_.clear();
  order_ = EventOrder(options_.order_capacity);
  earlier_events_ = earlier_bytes_ = 0;
  finished_segments_.clear();
  return BeginWithLiveSet(before);
}

void Recording::Discard() {
  // Nothing that the destructor might still write shall come into being again.
  (void)writer_.release();
  files_->Discard(open_name_);
}

void Recording::RotateIfDue(std::uint64_t time_ns) {
  if (segment_number_ == 0 || !status().ok()) return;
  const bool due = (options_.segment_bytes && writer_->bytes_written() >= options_.segment_bytes) ||
                   (options_.segment_ns && time_ns - segment_start_ns_ >= options_.segment_ns);
  if (!due) return;
  WriteLastLooks();
  if (!writer_->Finish().ok()) return;
  rotation_error_ = files_->Finish(open_name_, open_name_);
  if (!rotation_error_.ok()) return;
  const std::uint64_t bytes = writer_->bytes_written();
  finished_segments_.emplace_back(open_name_, bytes);
  std::uint64_t total = 0;
  for (const auto& segment : finished_segments_) total += segment.second;
  // The segment to come may become as large as this one.
  while (options_.total_bytes && finished_segments_.size() > 1 && total + bytes > options_.total_bytes) {
    files_->Remove(finished_segments_.front().first);
    total -= finished_segments_.front().second;
    finished_segments_.pop_front();
  }
  time_ns_ = std::max(time_ns_, time_ns);
  ++segment_number_;
  const auto before = Open(segment_number_);
  rotation_error_ = before.status();
  if (!rotation_error_.ok()) {
    --segment_number_;
    return;
  }
  earlier_events_ += (*before)->event_count();
  earlier_bytes_ += (*before)->bytes_written();
  (void)BeginWithLiveSet(**before);
}

absl::Status Recording::Finish() {
  if (!rotation_error_.ok()) return rotation_error_;
  WriteLastLooks();
  const absl::Status finished = writer_->Finish();
  // A trace that ended on a full disk is finished as far as it goes.
  if (!finished.ok() && !absl::IsResourceExhausted(finished)) return finished;
  const absl::Status named = files_->Finish(open_name_, segment_number_ != 0 ? open_name_ : final_name_);
  return finished.ok() ? named : finished;
}

}  // namespace heaptape
