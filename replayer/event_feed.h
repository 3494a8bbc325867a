// Turns a trace into the worker's ring entries: time spans between marks, samples at their moments, pages of
// large blocks to write. Constant memory but for the touch records.

#ifndef HEAPTAPE_REPLAYER_EVENT_FEED_H_
#define HEAPTAPE_REPLAYER_EVENT_FEED_H_

#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "replayer/touch_plan.h"
#include "replayer/worker_process.h"
#include "traces/trace_reader.h"

namespace heaptape {

class EventFeed {
 public:
  // `reader` must stand at its start; it and `process` must outlive the feed. `sample_count` samples are
  // spread over the recording, beside one at its start. A null `plan` leaves large blocks to the worker.
  EventFeed(TraceReader& reader, WorkerProcess& process, std::uint32_t sample_count, TouchPlan* plan);

  // After the samples whose indices stand in `samples` (ascending) the worker writes down every live block and
  // `visit` is called while it stands still. To be called before Run().
  void MapHeapAfter(std::vector<std::uint32_t> samples, std::function<void()> visit) {
    map_samples_ = std::move(samples);
    visit_map_ = std::move(visit);
  }

  // Multiplies all recorded times. To be called before Run().
  void ScaleTime(double factor) { time_millionths_ = static_cast<std::uint64_t>(std::llround(factor * kMillion)); }

  // `follow` sees all events in order, each before the worker does. To be called before Run().
  void Follow(std::function<void(std::span<const Event>)> follow) { follow_ = std::move(follow); }

  // Feeds the whole trace, or until the worker is gone. DataLoss: an event that cannot be (slot or thread out
  // of range). Damage that the reader survives ends the feed early with a note instead.
  absl::Status Run();

  const std::vector<std::string>& notes() const { return notes_; }

 private:
  static constexpr std::uint64_t kMillion = 1'000'000;

  // Sends the events between the last time mark and the one at `end_ns`, with the samples due.
  bool SendSpan(std::span<const Event> events, std::uint64_t end_ns);
  bool SendPending(std::uint64_t end_ns);
  bool SendEvents(std::span<const Event> events);
  bool SendClock(std::uint64_t events, std::uint64_t span_ns);
  bool SendSample(std::uint64_t time_ns);
  std::uint64_t SampleDue(std::uint32_t index) const;
  std::uint64_t Scaled(std::uint64_t ns) const;

  TraceReader& reader_;
  WorkerProcess& process_;
  const std::uint32_t sample_count_;
  TouchPlan* const plan_;
  const bool by_event_number_;  // a trace without time: samples are spread over its events

  std::vector<Event> pending_;  // events of earlier blocks since the last time mark
  std::uint64_t span_first_event_ = 0;
  std::uint64_t span_start_ns_ = 0;
  std::uint64_t time_millionths_ = kMillion;
  std::uint64_t next_object_ = 0;
  std::uint32_t next_sample_ = 0;
  std::uint16_t last_thread_ = 0;
  std::vector<std::uint32_t> map_samples_;
  std::function<void()> visit_map_;
  std::function<void(std::span<const Event>)> follow_;
  std::uint32_t maps_ = 0;
  std::vector<std::string> notes_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_EVENT_FEED_H_
