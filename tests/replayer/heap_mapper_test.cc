// Where the memory is: by hand-made pages, and on real allocators, whose parts must add up to the RSS.

#include "replayer/heap_mapper.h"

#include <sys/utsname.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "allocators/catalog.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replayer/replay.h"
#include "tests/replayer/memory_trace.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kPage = 4096;

TEST(JudgeHeapMapTest, EveryByteOfAPageIsInOnePart) {
  const std::vector<worker::LiveBlock> blocks = {
      {10 * kPage + 16, 100, 112, 0},       // alone in page 10
      {11 * kPage, 3 * kPage, 3 * kPage, 1},  // pages 11 to 13, of which 12 is not resident
      {20 * kPage + 4000, 200, 200, 2},     // across pages 20 and 21
  };
  const std::set<std::uint64_t> used = {10, 11, 12, 13, 20, 21, 30};
  const std::vector<std::uint64_t> resident = {5, 10, 11, 13, 20, 21, 30, 40, 41};
  const HeapMap map = JudgeHeapMap(blocks, resident, [&](std::uint64_t page) { return used.count(page) != 0; }, kPage);
  EXPECT_EQ(map.live_bytes, 100 + 2 * kPage + 200);
  EXPECT_EQ(map.internal_bytes, 12u);
  EXPECT_EQ(map.partly_free_bytes, (kPage - 112) + (kPage - 96) + (kPage - 104));
  EXPECT_EQ(map.wholly_free_bytes, kPage) << "page 30";
  EXPECT_EQ(map.metadata_bytes, static_cast<std::int64_t>(2 * kPage)) << "5, 40 and 41 less the baseline";
  EXPECT_THAT(map.occupancy_pages, testing::ElementsAre(3, 0, 0, 0, 0, 0, 0, 0, 0, 2));
  ASSERT_EQ(map.classes.size(), 3u);
  EXPECT_EQ(map.classes[0], (HeapMap::SizeClass{200, 1, 200, 2 * kPage - 200}));
  EXPECT_EQ(map.classes[1], (HeapMap::SizeClass{112, 1, 100, kPage - 112}));
}

TEST(JudgeHeapMapTest, OverlappingClaimsCountOnce) {
  // An allocator that calls usable what belongs to its next block.
  const std::vector<worker::LiveBlock> blocks = {{kPage, 24, 40, 0}, {kPage + 32, 24, 40, 1}};
  const std::vector<std::uint64_t> resident = {1};
  const HeapMap map = JudgeHeapMap(blocks, resident, [](std::uint64_t) { return true; }, 0);
  EXPECT_EQ(map.live_bytes + map.internal_bytes + map.partly_free_bytes, kPage);
  EXPECT_EQ(map.live_bytes, 24u + 16u);
}

TEST(SteadyHeapMapTest, LiesNearestToTheLevelWithinTheWindow) {
  RunResult run;
  run.steady_start_ns = 10;
  run.steady_rss_bytes = 100;
  const auto add = [&](std::uint64_t time_ns, std::uint64_t bytes) {
    run.heap_maps.emplace_back();
    run.heap_maps.back().time_ns = time_ns;
    run.heap_maps.back().heap_rss_bytes = bytes;
  };
  add(5, 100);  // while warming up
  EXPECT_EQ(SteadyHeapMap(run).time_ns, 5u) << "there is no other";
  add(10, 300);
  add(20, 89);
  add(30, 109);
  add(40, 109);
  add(50, 20);
  EXPECT_EQ(SteadyHeapMap(run).time_ns, 30u);
  EXPECT_EQ(HighestHeapMap(run).time_ns, 10u);
}

// Linux 6.7 and later.
bool KernelTellsZeroPages() {
  utsname system{};
  uname(&system);
  int major = 0, minor = 0;
  EXPECT_EQ(std::sscanf(system.release, "%d.%d", &major, &minor), 2);
  return major > 6 || (major == 6 && minor >= 7);
}

std::int64_t Sum(const HeapMap& map) {
  return static_cast<std::int64_t>(map.live_bytes + map.internal_bytes + map.partly_free_bytes + map.wholly_free_bytes) +
         map.metadata_bytes;
}

class HeapMapTest : public testing::TestWithParam<std::string> {
 protected:
  RunResult Run(const MemoryTrace& trace, std::vector<std::uint32_t> map_samples) {
    const auto allocators = ResolveAllocators(GetParam());
    EXPECT_TRUE(allocators.ok()) << allocators.status();
    ReplayOptions options;
    options.worker_path = HEAPTAPE_WORKER;
    options.sample_count = 20;
    options.map_samples = std::move(map_samples);
    const std::unique_ptr<TraceReader> reader = trace.Read();
    const auto result = Replay(*reader, allocators->front(), options);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : RunResult{};
  }
};

TEST_P(HeapMapTest, PartsAddUpToTheResidentMemory) {
  const MemoryTrace trace = ChurnTrace(60'000, 3, 1);
  const RunResult run = Run(trace, {1, 5, 10, 20});
  ASSERT_EQ(run.heap_maps.size(), 4u);
  for (const HeapMap& map : run.heap_maps) {
    if (KernelTellsZeroPages()) {
      EXPECT_EQ(Sum(map), static_cast<std::int64_t>(map.heap_rss_bytes));
    } else {  // pages read and never written are no memory, but look like it
      EXPECT_GE(Sum(map), static_cast<std::int64_t>(map.heap_rss_bytes));
      EXPECT_LT(Sum(map), static_cast<std::int64_t>(map.heap_rss_bytes + map.heap_rss_bytes / 20));
    }
    EXPECT_GE(map.metadata_bytes, 0);
    EXPECT_EQ(std::accumulate(map.occupancy_pages.begin(), map.occupancy_pages.end(), std::uint64_t{0}) * kPage,
              map.live_bytes + map.internal_bytes + map.partly_free_bytes);
  }
  EXPECT_EQ(run.heap_maps.back().heap_rss_bytes, run.end_rss_bytes);
}

TEST_P(HeapMapTest, MappingMovesNoFigure) {
  const MemoryTrace trace = ChurnTrace(60'000, 3, 2);
  const RunResult plain = Run(trace, {}), mapped = Run(trace, {1, 2, 3, 10, 20});
  EXPECT_TRUE(plain.heap_maps.empty());
  EXPECT_EQ(mapped.series, plain.series);
  EXPECT_EQ(mapped.peak_rss_bytes, plain.peak_rss_bytes);
}

TEST_P(HeapMapTest, SparsePagesAreSeenAsPartlyFree) {
  // 40,000 objects of 256 bytes, of which every sixteenth stays: about one a page.
  MemoryTrace trace;
  std::vector<std::uint32_t> slots;
  for (int i = 0; i < 40'000; ++i) slots.push_back(trace.Malloc(256));
  trace.Time(1'000'000'000);
  for (int i = 0; i < 40'000; ++i) {
    if (i % 16 != 0) trace.Free(slots[static_cast<std::size_t>(i)]);
  }
  trace.Time(2'000'000'000);
  const RunResult run = Run(trace, {10, 20});
  ASSERT_EQ(run.heap_maps.size(), 2u);
  const HeapMap &full = run.heap_maps[0], &sparse = run.heap_maps[1];
  EXPECT_EQ(full.live_bytes, 40'000u * 256);
  EXPECT_EQ(sparse.live_bytes, 2'500u * 256);
  EXPECT_LT(full.partly_free_bytes, full.live_bytes / 5);
  EXPECT_GT(sparse.partly_free_bytes, 7 * sparse.live_bytes);
  // Nearly all used pages are now less than a fifth full, and the class of 256 bytes holds them.
  const std::uint64_t pages = std::accumulate(sparse.occupancy_pages.begin(), sparse.occupancy_pages.end(), std::uint64_t{0});
  EXPECT_GT(sparse.occupancy_pages[0] + sparse.occupancy_pages[1], pages * 9 / 10);
  EXPECT_GE(sparse.classes.front().usable_bytes, 256u);
  EXPECT_LT(sparse.classes.front().usable_bytes, 330u);
  EXPECT_EQ(sparse.classes.front().objects, 2'500u);
}

// Three places that allocate; the last one through two callers, and all of them through a wrapper.
void AddStacks(MemoryTrace& trace, std::uint64_t objects, const std::function<bool(std::uint64_t object)>& sampled) {
  trace.modules = {{"program", "aa"}, {"libc.so.6", "bb"}};
  for (std::uint64_t object = 0; object < objects; ++object) {
    if (!sampled(object)) continue;
    const std::uint64_t place = object % 3;
    trace.stacks.push_back({object, {{1, 0x100}, {0, 0x1000 * (place + 1)}, {0, 0x9000 + (place == 2 && object % 2 ? 0x10u : 0u)}}});
  }
}

TEST_P(HeapMapTest, CallSitesAddUpToWhatIsPartlyFree) {
  MemoryTrace trace = ChurnTrace(60'000, 3, 3);
  AddStacks(trace, trace.objects(), [](std::uint64_t) { return true; });
  const RunResult run = Run(trace, {10, 20});
  ASSERT_EQ(run.heap_maps.size(), 2u);
  for (const HeapMap& map : run.heap_maps) {
    ASSERT_FALSE(map.call_sites.empty());
    std::uint64_t partly_free = 0, samples = 0;
    for (const HeapMap::CallSite& site : map.call_sites) {
      EXPECT_EQ(site.module, "program") << "the C library only passes on what others ask for";
      EXPECT_EQ(site.build_id, "aa");
      EXPECT_THAT(site.offset, testing::AnyOf(0x1000u, 0x2000u, 0x3000u));
      EXPECT_EQ(site.name, absl::StrCat("program+0x", absl::Hex(site.offset)));
      EXPECT_THAT(site.stack, testing::ElementsAre("libc.so.6+0x100", site.name, testing::StartsWith("program+0x90")));
      partly_free += site.partly_free_bytes;
      samples += site.samples;
    }
    EXPECT_NEAR(static_cast<double>(partly_free), static_cast<double>(map.partly_free_bytes), 3);
    EXPECT_EQ(samples, run.series[map.time_ns == run.heap_maps[0].time_ns ? 10 : 20].live_objects);
    EXPECT_TRUE(std::is_sorted(map.call_sites.begin(), map.call_sites.end(), [](const auto& a, const auto& b) {
      return a.partly_free_bytes > b.partly_free_bytes;
    }));
  }
}

TEST_P(HeapMapTest, FewStacksStandForAll) {
  // Objects of 256 bytes of which most are freed; one stack for every 8 KiB allocated.
  MemoryTrace trace;
  std::vector<std::uint32_t> slots;
  for (int i = 0; i < 60'000; ++i) slots.push_back(trace.Malloc(256));
  for (int i = 0; i < 60'000; ++i) {
    if (i % 16 > 3) trace.Free(slots[static_cast<std::size_t>(i)]);
  }
  trace.Time(1'000'000'000);
  trace.info.stack_sample_bytes = 8 << 10;
  std::mt19937_64 random(11);
  std::exponential_distribution<double> bytes_between(1.0 / (8 << 10));
  double left = bytes_between(random);
  AddStacks(trace, trace.objects(), [&](std::uint64_t) {
    left -= 256;
    const bool sampled = left < 0;
    while (left < 0) left += bytes_between(random);
    return sampled;
  });
  const RunResult run = Run(trace, {20});
  const HeapMap& map = run.heap_maps.front();
  double partly_free = 0, live = 0;
  for (const HeapMap::CallSite& site : map.call_sites) {
    partly_free += static_cast<double>(site.partly_free_bytes);
    live += static_cast<double>(site.live_bytes);
    EXPECT_LT(site.samples, 1000u);
  }
  EXPECT_NEAR(live, 15'000 * 256, 0.15 * 15'000 * 256);
  EXPECT_NEAR(partly_free, static_cast<double>(map.partly_free_bytes), 0.15 * static_cast<double>(map.partly_free_bytes));
}

TEST_P(HeapMapTest, ARecordingWithoutStacksHasNoCallSites) {
  const RunResult run = Run(ChurnTrace(5'000, 1, 4), {20});
  EXPECT_THAT(run.heap_maps.front().call_sites, testing::IsEmpty());
}

std::string AllocatorName(const testing::TestParamInfo<std::string>& name) { return name.param; }
INSTANTIATE_TEST_SUITE_P(Installed, HeapMapTest, testing::Values("glibc", "jemalloc", "mimalloc"), AllocatorName);

}  // namespace
}  // namespace heaptape
