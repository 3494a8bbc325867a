// What makes one replay differ from the next: the same trace replayed again and again with each cause of spread
// let loose in turn.
//
// spread [--runs N] TRACE [ALLOCATOR...]
// Prints, for each allocator, the greatest difference in KiB between two runs at any sample of the RSS series: with
// every measure in place, with one cause left to chance, and with all of them. Then what the machine's shape does to
// the mean RSS, each the same at every run: the number of CPUs, huge pages, other seeds.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "allocators/catalog.h"
#include "replayer/replay.h"

namespace heaptape {
namespace {

struct Column {
  const char* name;
  ReplayOptions options;
};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "spread: %s\n", what.c_str());
  std::exit(1);
}

RunResult MustReplay(const std::string& trace, const ResolvedAllocator& allocator, ReplayOptions options) {
  options.worker_path = HEAPTAPE_WORKER;
  options.sample_count = 500;
  absl::StatusOr<RunResult> run = Replay(trace, allocator, options);
  if (!run.ok()) Die(std::string(run.status().message()));
  if (run->error) Die(allocator.DisplayName() + ": " + *run->error);
  return *std::move(run);
}

std::uint64_t SpreadKib(const std::string& trace, const ResolvedAllocator& allocator, const ReplayOptions& options, int runs) {
  std::vector<std::uint64_t> least, most;
  for (int i = 0; i < runs; ++i) {
    const RunResult run = MustReplay(trace, allocator, options);
    least.resize(run.series.size(), ~std::uint64_t{0});
    most.resize(run.series.size(), 0);
    for (std::size_t k = 0; k < run.series.size(); ++k) {
      least[k] = std::min(least[k], run.series[k].heap_rss_bytes);
      most[k] = std::max(most[k], run.series[k].heap_rss_bytes);
    }
  }
  std::uint64_t spread = 0;
  for (std::size_t k = 0; k < least.size(); ++k) spread = std::max(spread, most[k] - least[k]);
  return spread >> 10;
}

double MeanRss(const RunResult& run) {
  double sum = 0;
  for (const ReplaySample& sample : run.series) sum += static_cast<double>(sample.heap_rss_bytes);
  return run.series.empty() ? 0 : sum / static_cast<double>(run.series.size());
}

int Main(int argc, char** argv) {
  int runs = 10, next = 1;
  if (next + 1 < argc && std::string(argv[next]) == "--runs") {
    runs = std::atoi(argv[next + 1]);
    next += 2;
  }
  if (next >= argc || runs < 2) {
    std::fprintf(stderr, "usage: spread [--runs N] TRACE [ALLOCATOR...]\n");
    return 2;
  }
  const std::string trace = argv[next++];
  std::vector<std::string> specifications(argv + next, argv + argc);
  if (specifications.empty()) specifications.push_back("all");
  std::vector<ResolvedAllocator> allocators;
  for (const std::string& specification : specifications) {
    absl::StatusOr<std::vector<ResolvedAllocator>> found = ResolveAllocators(specification);
    if (!found.ok()) Die(std::string(found.status().message()));
    allocators.insert(allocators.end(), found->begin(), found->end());
  }

  const Column spreads[] = {{"fixed", {}},
                            {"addresses", {.vary_addresses = true}},
                            {"keys", {.vary_keys = true}},
                            {"clock", {.clock = Clock::kReal}},
                            {"all", {.clock = Clock::kReal, .vary_addresses = true, .vary_keys = true}}};
  std::printf("greatest spread of the RSS series over %d runs, KiB\n%-22s", runs, "allocator");
  for (const Column& column : spreads) std::printf(" %10s", column.name);
  std::printf("\n");
  for (const ResolvedAllocator& allocator : allocators) {
    std::printf("%-22s", allocator.DisplayName().c_str());
    for (const Column& column : spreads) {
      std::printf(" %10llu", static_cast<unsigned long long>(SpreadKib(trace, allocator, column.options, runs)));
      std::fflush(stdout);
    }
    std::printf("\n");
  }

  const Column shapes[] = {{"1 CPU", {.cpu_count = 1}},
                           {"16 CPUs", {.cpu_count = 16}},
                           {"huge pages", {.huge_pages = HugePageMode::kAlways}},
                           {"real clock", {.clock = Clock::kReal}},
                           {"seed 1", {.seed = 1}},
                           {"seed 2", {.seed = 2}}};
  std::printf("\nmean RSS, MiB, and its change\n%-22s %10s", "allocator", "as is");
  for (const Column& column : shapes) std::printf(" %10s", column.name);
  std::printf("\n");
  for (const ResolvedAllocator& allocator : allocators) {
    const double mean = MeanRss(MustReplay(trace, allocator, {}));
    std::printf("%-22s %10.1f", allocator.DisplayName().c_str(), mean / 1048576);
    for (const Column& column : shapes) {
      std::printf(" %+9.1f%%", 100 * (MeanRss(MustReplay(trace, allocator, column.options)) / mean - 1));
      std::fflush(stdout);
    }
    std::printf("\n");
  }
  return 0;
}

}  // namespace
}  // namespace heaptape

int main(int argc, char** argv) { return heaptape::Main(argc, argv); }
