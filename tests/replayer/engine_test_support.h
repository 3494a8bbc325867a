// Allocators and shorthands of the engine tests.

#ifndef HEAPTAPE_TESTS_REPLAYER_ENGINE_TEST_SUPPORT_H_
#define HEAPTAPE_TESTS_REPLAYER_ENGINE_TEST_SUPPORT_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "allocators/catalog.h"
#include "memory_trace.h"
#include "replayer/replay.h"

namespace heaptape {

inline ResolvedAllocator NullAllocator() {
  ResolvedAllocator allocator;
  allocator.family = kNullAllocator;
  return allocator;
}

inline ResolvedAllocator Glibc() {
  ResolvedAllocator allocator;
  allocator.family = "glibc";
  return allocator;
}

// tests/replayer/misbehaving_allocator.c: goes wrong as `how` says at malloc number `after` + 1.
inline ResolvedAllocator Misbehaving(const std::string& how, int after) {
  ResolvedAllocator allocator;
  allocator.family = "misbehaving";
  allocator.library_path = HEAPTAPE_MISBEHAVING_ALLOCATOR;
  allocator.environment = {{"MISBEHAVE_HOW", how}, {"MISBEHAVE_AFTER", std::to_string(after)}};
  return allocator;
}

// What is not installed is obtained once, into a cache of the tests' own.
inline const CatalogOptions kTestCatalog = {.cache_folder = HEAPTAPE_TEST_CACHE "/heaptape"};

inline void Obtain(const std::string& specification) {
  if (ResolveAllocators(specification, kTestCatalog).ok()) return;
  std::filesystem::create_directories(HEAPTAPE_TEST_CACHE);
  const std::string command = absl::StrCat("XDG_CACHE_HOME='" HEAPTAPE_TEST_CACHE "' flock '" HEAPTAPE_TEST_CACHE "/lock' '" HEAPTAPE_PROGRAM
                                           "' allocators add ", specification, " >&2");
  EXPECT_EQ(std::system(command.c_str()), 0) << specification << " is neither installed nor to be had: the tests need it, "
                                             << "from Debian's registry (see above for what it said)";
}

// Every allocator installed here, and those obtained for the tests.
inline std::vector<ResolvedAllocator> InstalledAllocators() {
  absl::StatusOr<std::vector<ResolvedAllocator>> all = ResolveAllocators("all", kTestCatalog);
  EXPECT_TRUE(all.ok()) << all.status();
  return all.ok() ? *std::move(all) : std::vector<ResolvedAllocator>();
}

inline RunResult MustReplay(const MemoryTrace& trace, const ResolvedAllocator& allocator, ReplayOptions options) {
  options.worker_path = HEAPTAPE_WORKER;
  if (options.sample_count == ReplayOptions().sample_count) options.sample_count = 200;
  absl::StatusOr<RunResult> run = Replay(*trace.Read(), allocator, options);
  EXPECT_TRUE(run.ok()) << run.status();
  return run.ok() ? *std::move(run) : RunResult();
}

// Those of the families that are promised to be deterministic: glibc, jemalloc, both mimallocs, tcmalloc at least.
inline std::vector<ResolvedAllocator> PromisedAllocators() {
  for (const char* version : {"mimalloc@2.0.9", "mimalloc@3.0.1"}) Obtain(version);
  std::vector<ResolvedAllocator> promised;
  for (ResolvedAllocator& allocator : InstalledAllocators()) {
    const auto& family = allocator.family;
    if (family == "glibc" || family == "jemalloc" || family == "mimalloc" || family == "tcmalloc" || family == "scudo") {
      promised.push_back(std::move(allocator));
    }
  }
  EXPECT_GE(promised.size(), 5u) << "glibc, jemalloc, mimalloc and tcmalloc are to be installed";
  return promised;
}

// Empty if both runs show the same at every sample; else where they first differ.
inline std::string SeriesDifference(const RunResult& a, const RunResult& b) {
  for (std::size_t i = 0; i < a.series.size() && i < b.series.size(); ++i) {
    if (a.series[i] == b.series[i]) continue;
    return absl::StrCat("sample ", i, " of ", a.series.size(), ", event ", a.series[i].event_number, ": ",
                        a.series[i].heap_rss_bytes, " and ", b.series[i].heap_rss_bytes, " bytes");
  }
  return a.series.size() == b.series.size() ? "" : "of different length";
}

}  // namespace heaptape

#endif  // HEAPTAPE_TESTS_REPLAYER_ENGINE_TEST_SUPPORT_H_
