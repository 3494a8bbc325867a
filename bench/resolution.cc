// What coarse time marks do to the figures: one trace replayed with its marks kept to ever larger steps.
//
// resolution TRACE [ALLOCATOR...]
// Prints, as Markdown, for each allocator mean and peak heap RSS at the trace's own resolution and the change at each step.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "allocators/catalog.h"
#include "replayer/replay.h"
#include "traces/trace_reader.h"

namespace heaptape {
namespace {

// Shows another reader's trace with only the first time mark of each step of `step_ns`, as a recording at
// that resolution would have kept it.
class CoarseReader : public TraceReader {
 public:
  CoarseReader(TraceReader& reader, std::uint64_t step_ns) : reader_(reader), step_ns_(step_ns) {}

  const TraceInfo& info() const override { return reader_.info(); }
  const TraceSummary& summary() const override { return reader_.summary(); }
  absl::StatusOr<EventBlock> Next() override {
    absl::StatusOr<EventBlock> block = reader_.Next();
    if (!block.ok() || step_ns_ == 0) return block;
    events_.assign(block->events.begin(), block->events.end());
    for (Event& event : events_) {
      if (event.op != Op::kTime) continue;
      event.size = std::max(last_ns_, event.size / step_ns_ * step_ns_);
      // A mark that tells nothing new would still end a span: it becomes an event that does nothing.
      if (event.size == last_ns_) event = {Op::kLost, 0, 0, 0, 0};
      else last_ns_ = event.size;
    }
    block->events = events_;
    return block;
  }
  absl::Status Seek(std::uint64_t event) override { return reader_.Seek(event); }
  absl::Status SeekTime(std::uint64_t time_ns) override { return reader_.SeekTime(time_ns); }
  absl::StatusOr<std::vector<ResidentSample>> ReadResident() override { return reader_.ReadResident(); }
  absl::StatusOr<std::vector<TouchRecord>> ReadTouched() override { return reader_.ReadTouched(); }
  absl::StatusOr<std::vector<StackSample>> ReadStacks() override { return reader_.ReadStacks(); }
  absl::StatusOr<std::vector<Module>> ReadModules() override { return reader_.ReadModules(); }
  const std::vector<std::string>& damage() const override { return reader_.damage(); }
  const std::string& loss() const override { return reader_.loss(); }

 private:
  TraceReader& reader_;
  const std::uint64_t step_ns_;
  std::uint64_t last_ns_ = 0;
  std::vector<Event> events_;
};

struct Step {
  const char* name;
  std::uint64_t ns;
};
constexpr std::array<Step, 5> kSteps = {{{"as is", 0}, {"1 ms", 1'000'000}, {"10 ms", 10'000'000}, {"100 ms", 100'000'000}, {"1 s", 1'000'000'000}}};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "resolution: %s\n", what.c_str());
  std::exit(1);
}

double MeanRss(const RunResult& run) {
  double sum = 0;
  for (const ReplaySample& sample : run.series) sum += static_cast<double>(sample.heap_rss_bytes);
  return run.series.empty() ? 0 : sum / static_cast<double>(run.series.size());
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: resolution TRACE [ALLOCATOR...]\n");
    return 2;
  }
  std::vector<std::string> specifications(argv + 2, argv + argc);
  if (specifications.empty()) specifications.push_back("all");
  std::printf("Mean and peak heap RSS, and the change where time marks are kept only to so much (mean / peak):\n\n| allocator | MiB |");
  for (const Step& step : kSteps) {
    if (step.ns != 0) std::printf(" %s |", step.name);
  }
  std::printf("\n|---|");
  for (std::size_t i = 0; i < kSteps.size(); ++i) std::printf("---:|");
  std::printf("\n");
  for (const std::string& specification : specifications) {
    absl::StatusOr<std::vector<ResolvedAllocator>> allocators = ResolveAllocators(specification);
    if (!allocators.ok()) Die(std::string(allocators.status().message()));
    for (const ResolvedAllocator& allocator : *allocators) {
      double mean = 0, peak = 0;
      for (const Step& step : kSteps) {
        absl::StatusOr<std::unique_ptr<TraceReader>> reader = TraceReader::Open(argv[1]);
        if (!reader.ok()) Die(std::string(reader.status().message()));
        CoarseReader coarse(**reader, step.ns);
        ReplayOptions options;
        options.worker_path = HEAPTAPE_WORKER;
        absl::StatusOr<RunResult> run = Replay(coarse, allocator, options);
        if (!run.ok()) Die(std::string(run.status().message()));
        if (run->error) Die(allocator.DisplayName() + ": " + *run->error);
        if (step.ns == 0) {
          mean = MeanRss(*run);
          peak = static_cast<double>(run->peak_rss_bytes);
          std::printf("| %s | %.1f / %.1f |", allocator.DisplayName().c_str(), mean / 1048576, peak / 1048576);
        } else {
          std::printf(" %+.1f %% / %+.1f %% |", 100 * (MeanRss(*run) / mean - 1),
                      100 * (static_cast<double>(run->peak_rss_bytes) / peak - 1));
        }
        std::fflush(stdout);
      }
      std::printf("\n");
    }
  }
  return 0;
}

}  // namespace
}  // namespace heaptape

int main(int argc, char** argv) { return heaptape::Main(argc, argv); }
