#include <gtest/gtest.h>

#include "engine_test_support.h"

namespace heaptape {
namespace {

TEST(EngineDeterminism, SameSeedSameSeries) {
  const MemoryTrace trace = ChurnTrace(150'000, 4, 3);
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    SCOPED_TRACE(allocator.family);
    const RunResult first = MustReplay(trace, allocator, {});
    for (int i = 1; i < 5; ++i) {
      const RunResult again = MustReplay(trace, allocator, {});
      EXPECT_EQ(SeriesDifference(again, first), "");
      EXPECT_EQ(again.series_digest, first.series_digest);
      EXPECT_EQ(again.peak_rss_bytes, first.peak_rss_bytes);
    }
  }
}

TEST(EngineDeterminism, TheSeedMovesAddresses) {
  const MemoryTrace trace = ChurnTrace(50'000, 2, 3);
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    SCOPED_TRACE(allocator.family);
    const RunResult zero = MustReplay(trace, allocator, {.seed = 0});
    const RunResult one = MustReplay(trace, allocator, {.seed = 1});
    const RunResult one_again = MustReplay(trace, allocator, {.seed = 1});
    EXPECT_NE(zero.address_hash, one.address_hash);
    EXPECT_EQ(one_again.address_hash, one.address_hash);
    EXPECT_EQ(SeriesDifference(one_again, one), "");
  }
}

TEST(EngineDeterminism, ThePlacesOfSamplesDoNotMoveTheFigures) {
  const MemoryTrace trace = ChurnTrace(50'000, 2, 3);
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    SCOPED_TRACE(allocator.family);
    const RunResult few = MustReplay(trace, allocator, {.sample_count = 10});
    const RunResult many = MustReplay(trace, allocator, {.sample_count = 1000});
    EXPECT_EQ(few.address_hash, many.address_hash);
    EXPECT_EQ(few.peak_rss_bytes, many.peak_rss_bytes);
    EXPECT_EQ(few.end_rss_bytes, many.end_rss_bytes);
  }
}

// Time that really passes, at the recorded pace, against the virtual clock.
TEST(EngineDeterminism, PacedRealTimeGivesTheVirtualSeries) {
  const MemoryTrace trace = ChurnTrace(60'000, 3, 5);
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    if (allocator.family == "scudo") continue;  // seeds its sampling with the clock itself
    SCOPED_TRACE(allocator.family);
    const RunResult fast = MustReplay(trace, allocator, {.clock = Clock::kVirtual, .sample_count = 100});
    const RunResult paced = MustReplay(trace, allocator, {.clock = Clock::kPaced, .sample_count = 100});
    EXPECT_EQ(paced.settings.clock, "paced");
    EXPECT_GE(paced.wall_ns, fast.series.back().time_ns);
    EXPECT_EQ(SeriesDifference(fast, paced), "");
  }
}

}  // namespace
}  // namespace heaptape
