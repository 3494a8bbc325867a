#include "traces/statistics.h"

#include <algorithm>
#include <bit>

#include "traces/huge_table.h"

namespace heaptape {
namespace {

struct LiveObject {
  std::uint64_t size;
  std::uint64_t event;
  std::uint64_t time_ns;
  std::uint16_t thread;
  bool live;
};
static_assert(sizeof(LiveObject) == kStatisticsBytes);

}  // namespace

absl::StatusOr<TraceStatistics> GatherStatistics(TraceReader& reader, const std::atomic<bool>* cancelled,
                                                 const std::function<void(std::uint64_t)>& progress) {
  TraceStatistics statistics;
  HugeTable<LiveObject> objects;
  std::uint64_t live_bytes = 0, live_objects = 0, number = 0, time_ns = 0;
  std::uint32_t last_thread = 0;
  std::array<ThreadStatistics*, 65536> threads{};
  const std::uint64_t slice_ns =
      std::max<std::uint64_t>((reader.summary().duration_ns + kActivityPoints - 1) / kActivityPoints, 1);
  ActivityPoint point;
  const auto end_slice = [&](std::uint64_t end_time_ns) {
    point.end_time_ns = end_time_ns;
    point.live_bytes = live_bytes;
    point.live_objects = live_objects;
    statistics.activity.push_back(point);
    point = {};
    point.peak_live_bytes = live_bytes;
  };
  while (true) {
    absl::StatusOr<EventBlock> block = reader.Next();
    if (!block.ok()) return block.status();
    if (block->events.empty()) break;
    if (cancelled != nullptr && *cancelled) return absl::CancelledError("interrupted");
    number = block->first_event;
    for (const Event& event : block->events) {
      ++number;
      const auto op = static_cast<std::size_t>(event.op);
      if (event.op == Op::kTime) {
        if (!block->restored) ++statistics.events_by_op[op];
        time_ns = std::max(time_ns, event.size);
        const std::uint64_t slice = std::min<std::uint64_t>(time_ns / slice_ns, kActivityPoints - 1);
        while (statistics.activity.size() < slice) end_slice((statistics.activity.size() + 1) * slice_ns);
        continue;
      }
      if (event.op == Op::kLost) statistics.lost_events += event.size;
      if (!block->restored) {
        ++statistics.events_by_op[op];
        statistics.failures_by_op[op] += event.failed();
        if (event.op == Op::kThreadStart) ++statistics.thread_starts;
        if (event.thread != last_thread) ++statistics.thread_switches;
        last_thread = event.thread;
      }
      if (!IsCall(event.op)) continue;
      ThreadStatistics*& thread = threads[event.thread];
      if (thread == nullptr) thread = &statistics.threads[event.thread];
      if (!block->restored) {
        ++thread->calls;
        ++point.calls;
      }
      if (event.failed()) continue;
      const bool starts = StartsObject(event);
      const bool moves = (event.op == Op::kRealloc || event.op == Op::kReallocArray) && !event.fresh();
      if (starts || moves) {
        LiveObject& object = objects.At(event.slot);
        if (starts) {
          object = {0, number, time_ns, event.thread, true};
          ++live_objects;
        }
        live_bytes += event.size - object.size;
        object.size = event.size;
        if (!block->restored) {
          const int bucket = std::bit_width(event.size);
          ++statistics.sizes[static_cast<std::size_t>(bucket)];
          statistics.size_bytes[static_cast<std::size_t>(bucket)] += event.size;
          statistics.allocated_bytes += event.size;
          thread->allocated_bytes += event.size;
          statistics.allocations += starts;
          thread->allocations += starts;
        }
        if (live_bytes > statistics.peak_live_bytes) {
          statistics.peak_live_bytes = live_bytes;
          statistics.peak_live_bytes_time_ns = time_ns;
        }
        if (live_objects > statistics.peak_live_objects) {
          statistics.peak_live_objects = live_objects;
          statistics.peak_live_objects_time_ns = time_ns;
        }
        point.peak_live_bytes = std::max(point.peak_live_bytes, live_bytes);
      } else if (event.op == Op::kFree && event.slot < objects.size() && objects[event.slot].live) {
        LiveObject& object = objects[event.slot];
        live_bytes -= object.size;
        --live_objects;
        if (!block->restored) {
          ++statistics.lifetime_events[static_cast<std::size_t>(std::bit_width(number - object.event))];
          ++statistics.lifetime_ns[static_cast<std::size_t>(std::bit_width(time_ns - object.time_ns))];
          ++thread->frees;
          thread->foreign_frees += object.thread != event.thread;
        }
        object.live = false;
      }
    }
    if (progress) progress(number);
  }
  end_slice(std::max(time_ns, reader.summary().duration_ns));
  statistics.never_freed_objects = live_objects;
  statistics.never_freed_bytes = live_bytes;
  return statistics;
}

}  // namespace heaptape
