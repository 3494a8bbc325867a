// The fast engine against real threads that take turns.

#include <gtest/gtest.h>

#include "engine_test_support.h"

namespace heaptape {
namespace {

TEST(EngineLockstep, SamePointersAndSeriesAsTheFastEngine) {
  const MemoryTrace trace = ChurnTrace(100'000, 5, 11);
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    SCOPED_TRACE(allocator.family);
    const RunResult fast = MustReplay(trace, allocator, {.engine = Engine::kFast});
    const RunResult lockstep = MustReplay(trace, allocator, {.engine = Engine::kLockstep});
    EXPECT_EQ(fast.settings.engine, "fast");
    EXPECT_EQ(lockstep.settings.engine, "lockstep");
    EXPECT_EQ(SeriesDifference(fast, lockstep), "");
    EXPECT_NE(fast.address_hash, 0u);
    EXPECT_EQ(fast.address_hash, lockstep.address_hash);
    EXPECT_EQ(fast.peak_rss_bytes, lockstep.peak_rss_bytes);
  }
}

}  // namespace
}  // namespace heaptape
