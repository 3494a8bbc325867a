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

}  // namespace
}  // namespace heaptape
