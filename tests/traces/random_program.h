// A made-up program whose every allocator call is known, for tests of what writes and reads traces.

#ifndef HEAPTAPE_TESTS_TRACES_RANDOM_PROGRAM_H_
#define HEAPTAPE_TESTS_TRACES_RANDOM_PROGRAM_H_

#include <cstdint>
#include <random>
#include <vector>

#include "traces/event.h"
#include "traces/trace_info.h"
#include "traces/trace_writer.h"

namespace heaptape {

// Drives a writer and remembers the events a reader must return.
class RandomProgram {
 public:
  RandomProgram(TraceWriter& writer, std::uint64_t resolution_ns, unsigned seed = 1)
      : writer_(writer), resolution_ns_(resolution_ns), random_(seed) {}

  // About `count` events more; between `fewest` and `most` objects are alive.
  void Run(std::uint64_t count, std::size_t fewest = 0, std::size_t most = 2000) {
    for (std::uint64_t i = 0; i < count; ++i) Step(fewest, most);
  }
  void Flush() { (void)writer_.Flush(); }

  const std::vector<Event>& events() const { return events_; }
  const std::vector<std::uint32_t>& live() const { return live_; }
  const std::vector<TouchRecord>& touched() const { return touched_; }
  const std::vector<ResidentSample>& resident() const { return resident_; }

 private:
  std::uint64_t Pick(std::uint64_t below) { return random_() % below; }

  std::uint16_t Thread() {
    if (Pick(20) == 0) thread_ = threads_[Pick(threads_.size())];
    return thread_;
  }

  void Step(std::size_t fewest, std::size_t most) {
    const std::uint64_t dice = Pick(1000);
    const std::uint16_t thread = Thread();
    if (dice < 10) {
      time_ns_ += Pick(3'000'000);
      writer_.Time(time_ns_);
      if (time_ns_ / resolution_ns_ > step_) {
        step_ = time_ns_ / resolution_ns_;
        marked_events_ = events_.size() + 1;
        events_.push_back({Op::kTime, 0, 0, 0, step_ * resolution_ns_});
      }
    } else if (dice < 14) {
      if (threads_.size() < 6) {
        const auto number = static_cast<std::uint16_t>(threads_.size() == 1 ? 1 : threads_.back() + 1 + Pick(40));
        threads_.push_back(number);
        Append({Op::kThreadStart, 0, number, 0, 0});
      } else {
        const std::uint16_t number = threads_.back();
        threads_.pop_back();
        if (thread_ == number) thread_ = 0;
        Append({Op::kThreadEnd, 0, number, 0, 0});
      }
    } else if (dice < 16) {
      Append({Op::kTrim, 0, thread, 0, Pick(1 << 20)});
    } else if (dice < 18) {
      Append({Op::kMallopt, 0, thread, static_cast<std::uint32_t>(-1), Pick(1 << 20)});
    } else if (dice < 20) {
      const bool of_live = !live_.empty() && Pick(2) == 0;
      const std::uint32_t slot = of_live ? live_[Pick(live_.size())] : ~0u;
      const Op op = of_live ? Op::kRealloc : Op::kMemalign;
      const std::uint64_t size = ~std::uint64_t{0} - Pick(100);
      writer_.Failure(op, slot, size, of_live ? 0 : 64, thread);
      events_.push_back({op, static_cast<std::uint8_t>(Event::kFailed | (of_live ? 0 : 6)), thread, slot, size});
    } else if (dice < 120 && !live_.empty()) {
      const std::uint32_t slot = Pick(3) ? live_.back() : live_[Pick(live_.size())];
      const Op op = Pick(9) ? Op::kRealloc : Op::kReallocArray;
      const std::uint64_t size = Size();
      writer_.Reallocate(op, slot, size, thread);
      events_.push_back({op, 0, thread, slot, size});
    } else if (live_.size() >= most || (live_.size() > fewest && dice < 560)) {
      const std::uint64_t way = Pick(4);
      const std::size_t index = way == 0 ? Pick(live_.size()) : way == 1 ? 0 : live_.size() - 1;
      const std::uint32_t slot = live_[index];
      live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(index));
      free_.push_back(slot);
      writer_.Free(slot, thread);
      events_.push_back({Op::kFree, 0, thread, slot, 0});
    } else {
      static constexpr Op kOps[] = {Op::kMalloc, Op::kMalloc, Op::kMalloc, Op::kCalloc, Op::kRealloc, Op::kReallocArray,
                                    Op::kPosixMemalign, Op::kAlignedAlloc, Op::kMemalign, Op::kValloc, Op::kPvalloc};
      const Op op = kOps[Pick(std::size(kOps))];
      const bool aligned = op >= Op::kPosixMemalign && op <= Op::kMemalign;
      const unsigned log2_alignment = aligned ? 4 + static_cast<unsigned>(Pick(9)) : 0;
      const std::uint64_t size = Size();
      const std::uint32_t slot = writer_.Allocate(op, size, aligned ? std::uint64_t{1} << log2_alignment : 0, thread);
      // What event.h promises of slots.
      std::uint32_t expected = slots_;
      if (free_.empty()) {
        ++slots_;
      } else {
        expected = free_.back();
        free_.pop_back();
      }
      auto flags = static_cast<std::uint8_t>(log2_alignment);
      if (op == Op::kRealloc || op == Op::kReallocArray) flags |= Event::kFresh;
      events_.push_back({op, flags, thread, expected, size});
      live_.push_back(expected);
      if (size >= 65536) {
        TouchRecord record{writer_.ObjectNumber(slot), TouchRecord::When::kAllocation, {{0, 3}, {7, 2}}};
        writer_.Touched(record);
        touched_.push_back(record);
      }
    }
    if (events_.size() % 997 == 0) {
      const std::uint64_t pages = Pick(100000) * 4096;
      ResidentSample sample{time_ns_, writer_.event_count(), pages, pages / 2, 8192, pages, 0, 0};
      writer_.Resident(sample);
      // No finer than the marks are.
      sample.time_ns = time_ns_ / resolution_ns_ * resolution_ns_;
      sample.event_number = marked_events_;
      if (resident_.empty() || sample.time_ns > resident_.back().time_ns) resident_.push_back(sample);
    }
  }

  std::uint64_t Size() {
    const std::uint64_t dice = Pick(200);
    if (dice == 0) return std::uint64_t{1} << 60;
    if (dice < 4) return 65536 + Pick(1 << 20);
    if (dice < 60) return Pick(100000);
    return 8 * Pick(30);
  }

  void Append(const Event& event) {
    writer_.Append(event);
    events_.push_back(event);
  }

  TraceWriter& writer_;
  const std::uint64_t resolution_ns_;
  std::mt19937_64 random_;
  std::vector<Event> events_;
  std::vector<std::uint32_t> live_, free_;
  std::vector<std::uint16_t> threads_{0};
  std::uint16_t thread_ = 0;
  std::uint32_t slots_ = 0;
  std::uint64_t time_ns_ = 0, step_ = 0, marked_events_ = 0;
  std::vector<TouchRecord> touched_;
  std::vector<ResidentSample> resident_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TESTS_TRACES_RANDOM_PROGRAM_H_
