// What the writer beside a recorded program does for each raw event, step by step: putting the events of several
// threads back into order, giving addresses object ids, encoding. Nanoseconds of CPU and bytes per event.
//
//   Merge            chunks of each thread's events put in order
//   MergeIdEncode    the whole way from raw events to a file
//   Encode           the last part alone, by events that have their ids; the difference is what ids cost

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "bench/trace_benchmark.h"
#include "benchmark/benchmark.h"
#include "recorder/event_order.h"
#include "recorder/recording.h"
#include "traces/trace_writer.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kEvents = 1 << 20;

std::uint64_t Next(std::uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

// One call of a program that replaces its `live` objects, mostly the youngest.
struct Call {
  bool free;
  std::uint32_t place;  // whose address is place * 1024
  std::uint32_t size;
};

std::vector<Call> Program(std::uint64_t live) {
  std::vector<Call> calls;
  std::uint64_t state = 88172645463325252u;
  for (std::uint32_t place = 0; place < live && calls.size() < kEvents / 2; ++place) calls.push_back({false, place, 64});
  const auto places = static_cast<std::uint32_t>(calls.size());
  while (calls.size() + 2 <= kEvents) {
    const std::uint64_t draw = Next(state);
    const auto place = static_cast<std::uint32_t>((draw & 7) != 0 ? (draw >> 8) % std::min<std::uint32_t>(64, places) : (draw >> 8) % places);
    calls.push_back({true, place, 0});
    calls.push_back({false, place, static_cast<std::uint32_t>(16 + 16 * (draw >> 40 & 15))});
  }
  return calls;
}

// As the writer meets them: a chunk of one thread after a chunk of another, numbers interleaved between the threads.
std::vector<OrderedEvent> InChunks(const std::vector<Call>& calls, std::uint32_t threads) {
  std::vector<OrderedEvent> events;
  const std::size_t span = std::size_t{kChunkEvents} * threads;
  for (std::size_t start = 0; start < calls.size(); start += span) {
    for (std::uint32_t thread = 0; thread < threads; ++thread) {
      for (std::size_t number = start + thread; number < std::min(calls.size(), start + span); number += threads) {
        const Call& call = calls[number];
        events.push_back({RawEvent::Make(call.free ? RawOp::kFree : RawOp::kMalloc, (call.place + std::uint64_t{1}) * 1024, call.size,
                                         static_cast<std::uint32_t>(number)),
                          thread + 1, 0});
      }
    }
  }
  return events;
}

void Merge(benchmark::State& state) {
  const std::vector<OrderedEvent> events = InChunks(Program(1000), static_cast<std::uint32_t>(state.range(0)));
  for (auto unused : state) {
    EventOrder order(RecordingOptions().order_capacity);
    std::uint64_t taken = 0;
    for (const OrderedEvent& event : events) {
      if (!order.Place(event)) state.SkipWithError("not placed");
      while (const OrderedEvent* next = order.Next()) taken += next->thread != 0;
    }
    if (taken != events.size()) state.SkipWithError("not all came back");
  }
  SetTimePerEvent(state, events.size());
}
BENCHMARK(Merge)->ArgName("threads")->Arg(1)->Arg(3)->Arg(64)->Unit(benchmark::kMillisecond);

void MergeIdEncode(benchmark::State& state) {
  const Folder folder;
  const std::vector<OrderedEvent> events = InChunks(Program(static_cast<std::uint64_t>(state.range(0))), static_cast<std::uint32_t>(state.range(1)));
  for (auto unused : state) {
    auto files = LocalFiles::Create(folder.Tape(), true);
    if (!files.ok()) std::abort();
    auto recording = Recording::Create({.info = {.program = "bench"}, .compression_level = static_cast<int>(state.range(2))}, *std::move(files));
    if (!recording.ok()) std::abort();
    for (std::size_t i = 0; i < events.size(); ++i) {
      (*recording)->Prefetch(events[std::min(i + kPrefetchAhead, events.size() - 1)].event.address());
      if (!(*recording)->HasRoomFor(events[i].event.number())) state.SkipWithError("no room");
      (*recording)->Take(events[i]);
      if (i % kChunkEvents == 0) (*recording)->Drain();
    }
    (*recording)->Drain();
    if (!(*recording)->Finish().ok() || (*recording)->counts().unknown_frees != 0) state.SkipWithError("not recorded");
  }
  SetTimePerEvent(state, events.size());
  SetBytesPerEvent(state, folder, kEvents);
}
BENCHMARK(MergeIdEncode)
    ->ArgNames({"live", "threads", "level"})
    ->Args({1000, 1, 3})->Args({1000, 3, 3})->Args({100'000, 1, 1})->Args({100'000, 1, 3})->Args({100'000, 3, 3})->Args({100'000, 1, 6})
    ->Unit(benchmark::kMillisecond);

void Encode(benchmark::State& state) {
  const Folder folder;
  const std::vector<Call> calls = Program(static_cast<std::uint64_t>(state.range(0)));
  std::vector<std::uint32_t> slots(static_cast<std::size_t>(state.range(0)));
  for (auto unused : state) {
    auto writer = TraceWriter::Create(folder.Tape(), {.program = "bench"}, {.compression_level = static_cast<int>(state.range(1)), .replace = true});
    if (!writer.ok()) std::abort();
    for (const Call& call : calls) {
      if (call.free) {
        (*writer)->Free(slots[call.place], 0);
      } else {
        slots[call.place] = (*writer)->Allocate(Op::kMalloc, call.size, 0, 0);
      }
    }
    if (!(*writer)->Finish().ok()) state.SkipWithError("not written");
  }
  SetTimePerEvent(state, calls.size());
  SetBytesPerEvent(state, folder, kEvents);
}
BENCHMARK(Encode)->ArgNames({"live", "level"})->Args({1000, 3})->Args({100'000, 1})->Args({100'000, 3})->Args({100'000, 6})->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace heaptape

BENCHMARK_MAIN();
