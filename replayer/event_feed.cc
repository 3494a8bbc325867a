#include "replayer/event_feed.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

// As many events may wait for a time mark; then they are sent with the clock standing still.
constexpr std::size_t kPendingLimit = 1 << 20;

bool UsesSlot(const Event& event) {
  return event.op <= Op::kPvalloc && !(event.failed() && event.op != Op::kRealloc && event.op != Op::kReallocArray);
}

std::uint64_t MulDiv(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  return static_cast<std::uint64_t>(static_cast<unsigned __int128>(a) * b / c);
}

}  // namespace

EventFeed::EventFeed(TraceReader& reader, WorkerProcess& process, std::uint32_t sample_count, TouchPlan* plan)
    : reader_(reader),
      process_(process),
      sample_count_(std::max(1u, sample_count)),
      plan_(plan),
      by_event_number_(reader.summary().duration_ns == 0) {}

std::uint64_t EventFeed::SampleDue(std::uint32_t index) const {
  const TraceSummary& summary = reader_.summary();
  return MulDiv(by_event_number_ ? summary.event_count : summary.duration_ns, index, sample_count_);
}

bool EventFeed::SendSample(std::uint64_t time_ns) {
  return process_.Push({.op = static_cast<Op>(worker::kEntrySample),
                        .flags = 0,
                        .thread = last_thread_,
                        .slot = next_sample_++,
                        .size = time_ns});
}

bool EventFeed::SendEvent(const Event& event) {
  if (!process_.Push(event)) return false;
  last_thread_ = event.op == Op::kThreadStart || event.op == Op::kThreadEnd ? 0 : event.thread;
  if (plan_ == nullptr) return true;
  for (const PageRange& range : plan_->Next(event, next_object_)) {
    if (!process_.Push({.op = static_cast<Op>(worker::kEntryTouch),
                        .flags = 0,
                        .thread = last_thread_,
                        .slot = event.slot,
                        .size = std::uint64_t{range.first_page} << 32 | range.page_count})) {
      return false;
    }
  }
  next_object_ += StartsObject(event);
  return true;
}

bool EventFeed::Send(std::uint64_t end_ns) {
  const std::uint64_t count = pending_.size();
  const std::uint64_t span_ns = end_ns > span_start_ns_ ? end_ns - span_start_ns_ : 0;
  if (count != 0) {
    const Event clock = {.op = static_cast<Op>(worker::kEntryClock),
                         .flags = 0,
                         .thread = last_thread_,
                         .slot = static_cast<std::uint32_t>(count),
                         .size = span_start_ns_};
    const worker::ClockSpan span = {span_ns, pending_first_event_};
    if (!process_.Push(clock) || !process_.Push(std::bit_cast<Event>(span))) return false;
  }
  // Samples come right before the first event that happens at their time or later.
  std::uint64_t sent = 0;
  while (next_sample_ < sample_count_) {
    const std::uint64_t due = SampleDue(next_sample_);
    std::uint64_t before;  // events to send first
    std::uint64_t time_ns = due;
    if (by_event_number_) {
      before = due > pending_first_event_ ? due - pending_first_event_ : 0;
      time_ns = 0;
    } else {
      if (due > end_ns) break;
      before = due <= span_start_ns_ ? 0 : (MulDiv(due - span_start_ns_, count, std::max<std::uint64_t>(1, span_ns)));
      if (span_ns != 0 && MulDiv(before, span_ns, std::max<std::uint64_t>(1, count)) < due - std::min(due, span_start_ns_)) ++before;
    }
    if (before > count) {
      if (by_event_number_) break;
      before = count;
    }
    for (; sent < before; ++sent) {
      if (!SendEvent(pending_[sent])) return false;
    }
    if (!SendSample(time_ns)) return false;
  }
  for (; sent < count; ++sent) {
    if (!SendEvent(pending_[sent])) return false;
  }
  pending_first_event_ += count;
  pending_.clear();
  span_start_ns_ = std::max(span_start_ns_, end_ns);
  return true;
}

absl::Status EventFeed::Run() {
  const TraceSummary& summary = reader_.summary();
  const std::uint64_t thread_count = std::max<std::uint64_t>(1, summary.peak_threads);
  bool ended = false, damaged = false;
  std::uint64_t lost = 0;
  while (!ended) {
    absl::StatusOr<EventBlock> block = reader_.Next();
    if (!block.ok()) {
      notes_.push_back(absl::StrCat("stopped at damage: ", std::string(block.status().message())));
      damaged = true;
      break;
    }
    if (block->events.empty()) break;
    if (pending_.empty()) pending_first_event_ = block->first_event;
    std::uint64_t number = block->first_event;
    for (const Event& event : block->events) {
      ++number;
      if (event.op == Op::kTime) {
        if (!Send(event.size)) return absl::OkStatus();
        pending_first_event_ = number;
        continue;
      }
      if (event.op == Op::kLost) {
        if (!reader_.damage().empty()) {
          notes_.push_back(absl::StrCat("stopped at damage: ", reader_.damage().front()));
          ended = damaged = true;
          break;
        }
        lost += event.size;
      }
      if (static_cast<std::uint8_t>(event.op) >= kOpCount || event.thread >= thread_count ||
          (UsesSlot(event) && !event.failed() && event.slot >= summary.peak_live_objects)) {
        return absl::DataLossError(absl::StrCat("event ", number - 1, " names an object or thread the trace does not have"));
      }
      pending_.push_back(event);
      if (pending_.size() == kPendingLimit && !Send(span_start_ns_)) return absl::OkStatus();
    }
  }
  if (!Send(std::max(span_start_ns_, damaged ? 0 : summary.duration_ns))) return absl::OkStatus();
  if (lost != 0) notes_.push_back(absl::StrCat(lost, " events are missing in the recording: the replay goes on without them"));
  // Marks after the last event count as events too.
  const Event clock = {.op = static_cast<Op>(worker::kEntryClock), .flags = 0, .thread = 0, .slot = 0, .size = span_start_ns_};
  const worker::ClockSpan span = {0, pending_first_event_};
  if (!process_.Push(clock) || !process_.Push(std::bit_cast<Event>(span))) return absl::OkStatus();
  last_thread_ = 0;
  if (!SendSample(damaged ? span_start_ns_ : std::max(span_start_ns_, summary.duration_ns))) return absl::OkStatus();
  process_.Push({.op = static_cast<Op>(worker::kEntryEnd), .flags = 0, .thread = 0, .slot = 0, .size = 0});
  process_.Publish();
  return absl::OkStatus();
}

}  // namespace heaptape
