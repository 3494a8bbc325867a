// What makes one replay differ from the next: the same trace replayed again and again with each cause of spread
// let loose in turn.
//
// spread [--runs N] TRACE [ALLOCATOR...]
// Prints, as Markdown, for each allocator the greatest difference in KiB between two runs at any sample of the RSS
// series: with every measure in place, with one cause let loose, and with all of them. Then what settings that are the
// same at every run do to the mean RSS: the number of CPUs, huge pages, the clock, the worker's own memory, other seeds.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
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

void PrintHead(const char* first, std::span<const Column> columns) {
  std::printf("| %s |", first);
  for (const Column& column : columns) std::printf(" %s |", column.name);
  std::printf("\n|---|");
  for (std::size_t i = 0; i < columns.size() + (std::strchr(first, '|') != nullptr); ++i) std::printf("---:|");
  std::printf("\n");
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

  const Column spreads[] = {{"every measure", {}},
                            {"addresses", {.vary_addresses = true}},
                            {"keys", {.vary_keys = true}},
                            {"clock", {.clock = Clock::kReal}},
                            {"huge pages", {.huge_pages = HugePageMode::kAlways}},
                            {"signals", {.vary_signals = true}},
                            {"own memory", {.count_own_memory = true}},
                            {"all of these",
                             {.clock = Clock::kReal,
                              .huge_pages = HugePageMode::kAlways,
                              .vary_addresses = true,
                              .vary_keys = true,
                              .vary_signals = true,
                              .count_own_memory = true}}};
  std::printf("Greatest difference of two of %d runs at any sample, KiB, with every measure in place or one cause let loose:\n\n", runs);
  PrintHead("allocator", spreads);
  for (const ResolvedAllocator& allocator : allocators) {
    std::printf("| %s |", allocator.DisplayName().c_str());
    for (const Column& column : spreads) {
      std::printf(" %llu |", static_cast<unsigned long long>(SpreadKib(trace, allocator, column.options, runs)));
      std::fflush(stdout);
    }
    std::printf("\n");
  }

  const Column shapes[] = {{"1 CPU", {.cpu_count = 1}},
                           {"16 CPUs", {.cpu_count = 16}},
                           {"huge pages", {.huge_pages = HugePageMode::kAlways}},
                           {"real clock", {.clock = Clock::kReal}},
                           {"own memory", {.count_own_memory = true}},
                           {"seed 1", {.seed = 1}},
                           {"seed 2", {.seed = 2}}};
  std::printf("\nMean RSS, and what another setting makes of it:\n\n");
  PrintHead("allocator | mean RSS, MiB", shapes);
  for (const ResolvedAllocator& allocator : allocators) {
    const double mean = MeanRss(MustReplay(trace, allocator, {}));
    std::printf("| %s | %.1f |", allocator.DisplayName().c_str(), mean / 1048576);
    for (const Column& column : shapes) {
      std::printf(" %+.1f %% |", 100 * (MeanRss(MustReplay(trace, allocator, column.options)) / mean - 1));
      std::fflush(stdout);
    }
    std::printf("\n");
  }
  return 0;
}

}  // namespace
}  // namespace heaptape

int main(int argc, char** argv) { return heaptape::Main(argc, argv); }
