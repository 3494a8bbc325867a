// Writing and reading trace files: nanoseconds of CPU per event, bytes per event, by compression level and
// events per block, over a synthetic program of one megabyte of live objects.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

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

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "heaptape-bench-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string Tape() const { return path_ + "/t.tape"; }

 private:
  std::string path_;
};

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

void PerEvent(benchmark::State& state, std::uint64_t events, const std::string& path) {
  state.counters["ns_per_event"] =
      benchmark::Counter(static_cast<double>(events) * 1e-9,
                         benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.counters["bytes_per_event"] = static_cast<double>(std::filesystem::file_size(path)) / static_cast<double>(events);
}

TraceWriterOptions OptionsOf(const benchmark::State& state) {
  return {.compression_level = static_cast<int>(state.range(0)), .block_events = static_cast<std::uint32_t>(state.range(1)) << 10};
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
  PerEvent(state, program.events().size(), folder.Tape());
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
  PerEvent(state, events, folder.Tape());
}

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
