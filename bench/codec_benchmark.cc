// Writing and reading trace files: nanoseconds of CPU per event, events per second, bytes per event. WriteTrace and ReadTrace: by
// compression level and events per block, over a synthetic program of one megabyte of live objects. WriteSample and ReadSample: a
// relay's recording, written again as `record` writes it (level 3, blocks of 64 Ki events, 1 ms), checkpoints included,
// and read into events that can be replayed; argument 1 reads it as `pack` leaves it.
//
// Memory beside one block and zstd's window: a reader 8 bytes a live object; a writer 8 for its place among them, 4 for its age and 16
// for what a checkpoint says of it. What they take is counted here too, as the growth of the resident set.

#include <algorithm>
#include <cstdio>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "bench/trace_benchmark.h"
#include "benchmark/benchmark.h"
#include "traces/synth.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kCalls = 1'000'000;

SynthProfile Program(std::uint64_t longest_lifetime) {
  SynthPhase phase{.call_count = kCalls, .calls_per_second = 50'000, .threads = {{}}};
  for (const std::uint64_t size : {16, 24, 48, 100, 1000}) {
    phase.classes.push_back({.low_bytes = size, .high_bytes = size, .weight = 1000.0 / static_cast<double>(size),
                             .calls = {{}}, .lifetimes = {{0, 8, 5}, {9, longest_lifetime, 1}}});
  }
  return {.phases = {phase}};
}

// Events as they were made, so that writing them can be timed by itself.
class Replayer {
 public:
  explicit Replayer(const std::string& path) {
    auto reader = TraceReader::Open(path);
    for (auto block = (*reader)->Next(); block.ok() && !block->events.empty(); block = (*reader)->Next()) {
      events_.insert(events_.end(), block->events.begin(), block->events.end());
    }
  }
  const std::vector<Event>& events() const { return events_; }

  // The writer numbers slots as the reader does, so each event's slot is right.
  void Write(TraceWriter& writer) const {
    for (const Event& event : events_) {
      if (StartsObject(event)) {
        writer.Allocate(event.op, event.size, event.alignment(), event.thread);
      } else if (event.op == Op::kFree) {
        writer.Free(event.slot, event.thread);
      } else if (event.op == Op::kTime) {
        writer.Time(event.size);
      } else if (event.failed()) {
        writer.Failure(event.op, event.slot, event.size, event.alignment(), event.thread);
      } else if (event.op == Op::kRealloc || event.op == Op::kReallocArray) {
        writer.Reallocate(event.op, event.slot, event.size, event.thread);
      } else {
        writer.Append(event);
      }
    }
  }

 private:
  std::vector<Event> events_;
};

std::uint64_t Make(const std::string& path, std::uint64_t longest_lifetime, const TraceWriterOptions& options) {
  auto writer = TraceWriter::Create(path, {.program = "bench", .time_resolution_ns = 1'000'000}, options);
  if (!writer.ok() || !WriteSynthetic(Program(longest_lifetime), {}, **writer).ok() || !(*writer)->Finish().ok()) std::abort();
  return (*writer)->event_count();
}

void SetPerEvent(benchmark::State& state, std::uint64_t events, const Folder& folder) {
  SetTimePerEvent(state, events);
  SetBytesPerEvent(state, folder, events);
  state.counters["events_per_second"] =
      benchmark::Counter(static_cast<double>(events), benchmark::Counter::kIsIterationInvariantRate);
}

TraceWriterOptions OptionsOf(const benchmark::State& state) {
  return {.compression_level = static_cast<int>(state.range(0)), .block_events = static_cast<std::uint32_t>(state.range(1)) << 10, .replace = true};
}

void WriteTrace(benchmark::State& state) {
  const Folder folder;
  const auto longest = static_cast<std::uint64_t>(state.range(2));
  Make(folder.Tape(), longest, {.compression_level = 1});
  const Replayer program(folder.Tape());
  for (auto unused : state) {
    auto writer = TraceWriter::Create(folder.Tape(), {.program = "bench", .time_resolution_ns = 1'000'000}, OptionsOf(state));
    program.Write(**writer);
    if (!(*writer)->Finish().ok()) state.SkipWithError("not written");
  }
  SetPerEvent(state, program.events().size(), folder);
}

void ReadTrace(benchmark::State& state) {
  const Folder folder;
  const std::uint64_t events = Make(folder.Tape(), static_cast<std::uint64_t>(state.range(2)), OptionsOf(state));
  auto reader = TraceReader::Open(folder.Tape());
  for (auto unused : state) {
    std::uint64_t seen = 0;
    if (!(*reader)->Seek(0).ok()) state.SkipWithError("not read");
    for (auto block = (*reader)->Next(); block.ok() && !block->events.empty(); block = (*reader)->Next()) {
      seen += block->events.size();
    }
    if (seen != events) state.SkipWithError("events are missing");
  }
  SetPerEvent(state, events, folder);
}

// HEAPTAPE_BENCH_TRACE names another trace.
std::string Sample() {
  const char* other = std::getenv("HEAPTAPE_BENCH_TRACE");
  return other != nullptr ? other : HEAPTAPE_SAMPLES_DIR "/guard-small.tape";
}

constexpr TraceWriterOptions kLive = {.compression_level = 3, .replace = true};
constexpr TraceWriterOptions kPacked = {.compression_level = 19, .window_log = 25, .block_events = 1u << 17, .replace = true};

std::uint64_t ResidentBytes() {
  std::ifstream in("/proc/self/statm");
  std::uint64_t all = 0, resident = 0;
  in >> all >> resident;
  return resident * 4096;
}

void WriteSample(benchmark::State& state) {
  const Folder folder;
  const Replayer program(Sample());
  std::uint64_t live = 0;
  const std::uint64_t before = ResidentBytes();
  std::uint64_t after = before;
  for (auto unused : state) {
    auto writer = TraceWriter::Create(folder.Tape(), {.program = "bench", .time_resolution_ns = 1'000'000}, kLive);
    program.Write(**writer);
    after = std::max(after, ResidentBytes());
    if (!(*writer)->Finish().ok()) state.SkipWithError("not written");
    live = TraceReader::Open(folder.Tape()).value()->summary().peak_live_objects;
  }
  SetPerEvent(state, program.events().size(), folder);
  state.counters["resident_bytes_per_live_object"] = static_cast<double>(after - before) / static_cast<double>(live);
}

void ReadSample(benchmark::State& state) {
  const Folder folder;
  std::uint64_t events = 0;
  {
    const Replayer program(Sample());
    auto writer = TraceWriter::Create(folder.Tape(), {.program = "bench", .time_resolution_ns = 1'000'000}, state.range(0) ? kPacked : kLive);
    program.Write(**writer);
    if (!(*writer)->Finish().ok()) std::abort();
    events = program.events().size();
  }
  for (auto unused : state) {
    auto reader = TraceReader::Open(folder.Tape());
    std::uint64_t seen = 0;
    for (auto block = (*reader)->Next(); block.ok() && !block->events.empty(); block = (*reader)->Next()) {
      seen += block->events.size();
      benchmark::DoNotOptimize(block->events.data());
    }
    if (seen != events) state.SkipWithError("events are missing");
  }
  SetPerEvent(state, events, folder);
}

BENCHMARK(WriteSample)->Unit(benchmark::kMillisecond);
BENCHMARK(ReadSample)->ArgName("packed")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

void Grid(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"level", "block_ki_events", "longest_lifetime"})->Unit(benchmark::kMillisecond);
  for (const int level : {1, 3, 6, 9}) bench->Args({level, 64, 1000});
  for (const int block : {4, 16}) bench->Args({3, block, 1000});
  bench->Args({3, 64, 100'000});
}

BENCHMARK(WriteTrace)->Apply(Grid);
BENCHMARK(ReadTrace)->Apply(Grid);

}  // namespace
}  // namespace heaptape

BENCHMARK_MAIN();
