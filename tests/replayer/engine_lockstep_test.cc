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

TEST(EngineLockstep, WhereNoInstructionSetsTheFsBaseASystemCallDoes) {
  const MemoryTrace trace = ChurnTrace(20'000, 3, 11);
  const RunResult fast = MustReplay(trace, Glibc(), {});
  const RunResult by_call = MustReplay(trace, Glibc(), {.trust_fsgsbase = false});
  EXPECT_EQ(by_call.settings.engine, "fast");
  EXPECT_FALSE(by_call.uses_fsgsbase);
  EXPECT_EQ(by_call.notes, fast.notes) << "what moves no figure is not told";
  EXPECT_EQ(fast.address_hash, by_call.address_hash);
  EXPECT_EQ(SeriesDifference(fast, by_call), "");
}

TEST(EngineLockstep, WhereIdentitiesCannotBeTakenRealThreadsRun) {
  const MemoryTrace trace = ChurnTrace(20'000, 3, 11);
  const RunResult fast = MustReplay(trace, Glibc(), {});
  const RunResult fallback = MustReplay(trace, Glibc(), {.trust_identities = false});
  EXPECT_EQ(fallback.settings.engine, "lockstep");
  EXPECT_EQ(fallback.notes, fast.notes);
  EXPECT_EQ(fast.address_hash, fallback.address_hash);
  EXPECT_EQ(SeriesDifference(fast, fallback), "");
}

}  // namespace
}  // namespace heaptape
