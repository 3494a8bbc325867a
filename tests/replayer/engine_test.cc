// The engine's promises on traces made for them: what is resident, what is counted, how runs end.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine_test_support.h"
#include "memory_trace.h"
#include "replayer/replay.h"

namespace heaptape {
namespace {

TEST(Engine, NullAllocatorReplaysAnyTraceAtZeroBytes) {
  for (std::uint16_t threads : {1, 5}) {
    const MemoryTrace trace = ChurnTrace(300'000, threads, 7);
    const RunResult run = MustReplay(trace, NullAllocator(), {});
    EXPECT_EQ(run.error, std::nullopt);
    EXPECT_EQ(run.peak_rss_bytes, 0u);
    ASSERT_EQ(run.series.size(), 201u);
    for (const ReplaySample& sample : run.series) EXPECT_EQ(sample.heap_rss_bytes, 0u);
  }
}

TEST(Engine, ItsOwnMemoryIsSeenWhereItIsToCount) {
  const MemoryTrace trace = ChurnTrace(20'000, 4, 1);
  const RunResult kept_out = MustReplay(trace, NullAllocator(), {});
  const RunResult counted = MustReplay(trace, NullAllocator(), {.count_own_memory = true});
  EXPECT_EQ(kept_out.peak_rss_bytes, 0u);
  EXPECT_GT(counted.peak_rss_bytes, 0u);
  EXPECT_TRUE(counted.settings.count_own_memory);
  EXPECT_EQ(MustReplay(trace, NullAllocator(), {.count_own_memory = true}).series_digest, counted.series_digest);
}

TEST(Engine, ReplaysEveryEventOnEveryAllocator) {
  const MemoryTrace trace = ChurnTrace(200'000, 4, 1);
  for (const ResolvedAllocator& allocator : InstalledAllocators()) {
    SCOPED_TRACE(allocator.family);
    const RunResult run = MustReplay(trace, allocator, {});
    EXPECT_EQ(run.error, std::nullopt);
    EXPECT_EQ(run.events_replayed, trace.events());
    EXPECT_EQ(run.series.back().live_bytes, trace.live_bytes());
    EXPECT_GE(run.peak_rss_bytes, run.end_rss_bytes);
    EXPECT_GT(run.peak_rss_bytes, run.peak_live_bytes / 2);
    EXPECT_LT(run.peak_rss_bytes, run.peak_live_bytes * 4);
    EXPECT_NE(run.version, "");
    EXPECT_NE(run.build_id, "");
  }
}

}  // namespace
}  // namespace heaptape
