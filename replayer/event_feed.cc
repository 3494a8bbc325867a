#include "replayer/event_feed.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

// As many events may wait for a time mark; then they are sent with the clock standing still.
constexpr std::size_t kPendingLimit = 1 << 20;

// A failed call took or changed no object; the worker passes it over.
bool UsesSlot(const Event& event) { return event.op <= Op::kPvalloc && !event.failed(); }

std::uint64_t MulDiv(std::uint64_t a, std::uint64_t b, std::uint64_t c, bool round_up = false) {
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(a) * b + (round_up ? c - 1 : 0)) / c);
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
  return MulDiv(by_event_number_ ? summary.event_count : Scaled(summary.duration_ns), index, sample_count_);
}

std::uint64_t EventFeed::Scaled(std::uint64_t ns) const {
  return time_millionths_ == kMillion ? ns : MulDiv(ns, time_millionths_, kMillion);
}

bool EventFeed::SendSample(std::uint64_t time_ns) {
  const std::uint32_t sample = next_sample_++;
  const auto push = [&](worker::EntryKind kind) {
    return process_.Push({.op = static_cast<Op>(kind), .flags = 0, .thread = last_thread_, .slot = sample, .size = time_ns});
  };
  if (!push(worker::kEntrySample)) return false;
  if (!std::binary_search(map_samples_.begin(), map_samples_.end(), sample)) return true;
  if (!push(worker::kEntryMap) || !process_.AwaitMap(++maps_)) return false;
  visit_map_();
  return true;
}

bool EventFeed::SendEvents(std::span<const Event> events) {
  if (events.empty()) return true;
  if (follow_) follow_(events);
  std::size_t sent = 0;
  if (plan_ != nullptr) {
    std::uint64_t object = next_object_;
    for (std::size_t i = 0; i < events.size(); ++i) {
      const Event& event = events[i];
      if (event.op == Op::kFree) continue;
      const bool starts = StartsObject(event);
      if (plan_->Concerns(event, starts, object)) {
        const std::span<const PageRange> ranges = plan_->Next(event, object);
        if (!ranges.empty()) {
          if (!process_.Push(events.subspan(sent, i + 1 - sent))) return false;
          sent = i + 1;
          for (const PageRange& range : ranges) {
            if (!process_.Push({.op = static_cast<Op>(worker::kEntryTouch),
                                .flags = 0,
                                .thread = event.thread,
                                .slot = event.slot,
                                .size = std::uint64_t{range.first_page} << 32 | range.page_count})) {
              return false;
            }
          }
        }
      }
      object += starts;
    }
    next_object_ = object;
  }
  const Event& last = events.back();
  last_thread_ = last.op == Op::kThreadStart || last.op == Op::kThreadEnd ? 0 : last.thread;
  return process_.Push(events.subspan(sent));
}

bool EventFeed::SendClock(std::uint64_t events, std::uint64_t span_ns) {
  const Event clock = {.op = static_cast<Op>(worker::kEntryClock),
                       .flags = 0,
                       .thread = last_thread_,
                       .slot = static_cast<std::uint32_t>(events),
                       .size = span_start_ns_};
  const worker::ClockSpan span = {span_ns, span_first_event_};
  return process_.Push(clock) && process_.Push(std::bit_cast<Event>(span));
}

bool EventFeed::SendSpan(std::span<const Event> events, std::uint64_t end_ns) {
  const std::uint64_t count = events.size();
  const std::uint64_t span_ns = end_ns > span_start_ns_ ? end_ns - span_start_ns_ : 0;
  if (count != 0 && !SendClock(count, span_ns)) return false;
  // Samples come right before the first event that happens at their time or later.
  std::uint64_t sent = 0;
  while (next_sample_ < sample_count_) {
    const std::uint64_t due = SampleDue(next_sample_);
    std::uint64_t before = 0;  // events to send first
    if (by_event_number_) {
      if (due > span_first_event_ + count) break;
      before = due > span_first_event_ ? due - span_first_event_ : 0;
    } else {
      if (due > end_ns) break;
      if (due > span_start_ns_) before = MulDiv(due - span_start_ns_, count, span_ns, /*round_up=*/true);
    }
    if (before > sent) {
      if (!SendEvents(events.subspan(sent, before - sent))) return false;
      sent = before;
    }
    if (!SendSample(by_event_number_ ? span_start_ns_ : due)) return false;
  }
  if (!SendEvents(events.subspan(sent))) return false;
  span_first_event_ += count;
  span_start_ns_ = std::max(span_start_ns_, end_ns);
  return true;
}

bool EventFeed::SendPending(std::uint64_t end_ns) {
  const bool alive = SendSpan(pending_, end_ns);
  pending_.clear();
  return alive;
}

absl::Status EventFeed::Run() {
  const TraceSummary& summary = reader_.summary();
  const std::uint64_t thread_count = std::max<std::uint64_t>(1, summary.peak_threads);
  bool damaged = false;
  std::uint64_t lost = 0;
  while (!damaged) {
    absl::StatusOr<EventBlock> block = reader_.Next();
    if (absl::IsResourceExhausted(block.status())) return block.status();
    if (!block.ok()) {
      notes_.push_back(absl::StrCat("stopped at damage: ", std::string(block.status().message())));
      damaged = true;
      break;
    }
    if (block->events.empty()) break;
    // What the reader brings back behind damage. A loss that the recorder wrote down itself comes in no such block.
    if (block->restored) {
      notes_.push_back(absl::StrCat("stopped at damage: ", reader_.loss()));
      damaged = true;
      break;
    }
    const std::span<const Event> events = block->events;
    if (pending_.empty()) span_first_event_ = block->first_event;
    std::size_t from = 0;
    for (std::size_t i = 0; i < events.size(); ++i) {
      const std::uint64_t number = block->first_event + i;
      const Event& event = events[i];
      // Nearly all are calls of known threads on known objects.
      if (event.op < Op::kThreadStart && event.thread < thread_count && event.slot < summary.peak_live_objects) continue;
      if (event.op == Op::kTime) {
        const std::span<const Event> since_mark = events.subspan(from, i - from);
        bool alive;
        if (pending_.empty()) {
          alive = SendSpan(since_mark, Scaled(event.size));
        } else {
          pending_.insert(pending_.end(), since_mark.begin(), since_mark.end());
          alive = SendPending(Scaled(event.size));
        }
        if (!alive) return absl::OkStatus();
        from = i + 1;
        span_first_event_ = number + 1;
        continue;
      }
      if (event.op == Op::kLost) lost += event.size;
      if (static_cast<std::uint8_t>(event.op) >= kOpCount || event.thread >= thread_count ||
          (event.slot >= summary.peak_live_objects && UsesSlot(event))) {
        return absl::DataLossError(absl::StrCat("event ", number, " names an object or thread the trace does not have"));
      }
    }
    pending_.insert(pending_.end(), events.begin() + static_cast<std::ptrdiff_t>(from), events.end());
    if (pending_.size() >= kPendingLimit && !SendPending(span_start_ns_)) return absl::OkStatus();
  }
  if (!SendPending(damaged ? span_start_ns_ : Scaled(summary.duration_ns))) return absl::OkStatus();
  if (lost != 0) notes_.push_back(absl::StrCat(lost, " events are missing in the recording: the replay goes on without them"));
  last_thread_ = 0;
  // The clock entry tells the event number too: marks after the last event count.
  if (SendClock(0, 0) && SendSample(span_start_ns_)) {
    process_.Push({.op = static_cast<Op>(worker::kEntryEnd), .flags = 0, .thread = 0, .slot = 0, .size = 0});
    process_.Publish();
  }
  return absl::OkStatus();
}

}  // namespace heaptape
