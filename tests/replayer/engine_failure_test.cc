// Allocators that go wrong, and users who have seen enough: each is a result, never the end of the run.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <cerrno>

#include "engine_test_support.h"

namespace heaptape {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

MemoryTrace Mallocs(int count) {
  MemoryTrace trace;
  trace.info.cpu_count = 1;
  for (int i = 0; i < count; ++i) {
    trace.Malloc(100);
    if (i % 10 == 9) trace.Time(static_cast<std::uint64_t>(i) * 1'000'000);
  }
  return trace;
}

void ExpectNoChildren() {
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(EngineFailure, ACrashIsTheResultWithSignalAndEvent) {
  const RunResult run = MustReplay(Mallocs(1000), Misbehaving("crash", 500), {});
  ASSERT_TRUE(run.error.has_value());
  EXPECT_THAT(*run.error, HasSubstr("SIGSEGV"));
  EXPECT_THAT(*run.error, HasSubstr("event 550"));  // 500 mallocs and 50 time marks
  EXPECT_EQ(run.events_replayed, 550u);
  EXPECT_EQ(run.verdict, Verdict::kFailed);
  EXPECT_GT(run.series.size(), 50u);
  EXPECT_LT(run.series.size(), 201u);
  ExpectNoChildren();
}

TEST(EngineFailure, AnAbortShowsWhatTheAllocatorSaid) {
  const RunResult run = MustReplay(Mallocs(1000), Misbehaving("abort", 10), {});
  ASSERT_TRUE(run.error.has_value());
  EXPECT_THAT(*run.error, HasSubstr("SIGABRT"));
  EXPECT_THAT(*run.error, HasSubstr("misbehaving: giving up"));
}

TEST(EngineFailure, NullIsCountedAndTheReplayGoesOn) {
  const RunResult run = MustReplay(Mallocs(1000), Misbehaving("null", 900), {});
  ASSERT_TRUE(run.error.has_value());
  EXPECT_THAT(*run.error, HasSubstr("returned NULL"));
  EXPECT_THAT(*run.error, HasSubstr("malloc of 100 bytes at event 990"));
  EXPECT_EQ(run.allocation_failures, 100u);
  EXPECT_EQ(run.events_replayed, 1100u);
  EXPECT_EQ(run.series.size(), 201u);
}

TEST(EngineFailure, AHangEndsAfterItsTime) {
  const RunResult run = MustReplay(Mallocs(100), Misbehaving("hang", 50), {.hang_timeout_seconds = 5});
  ASSERT_TRUE(run.error.has_value());
  EXPECT_THAT(*run.error, HasSubstr("no progress for 5 s at event 55"));
  ExpectNoChildren();
}

TEST(EngineFailure, TheMemoryLimitStopsAtTheSameEventEachTime) {
  const MemoryTrace trace = Mallocs(20'000);
  const ReplayOptions options = {.memory_limit_bytes = 64 << 20};
  const RunResult run = MustReplay(trace, Misbehaving("eat", 100), options);
  ASSERT_TRUE(run.error.has_value());
  EXPECT_THAT(*run.error, HasSubstr("memory limit"));
  EXPECT_LE(run.peak_rss_bytes, 66u << 20);
  EXPECT_EQ(MustReplay(trace, Misbehaving("eat", 100), options).events_replayed, run.events_replayed);
}

// A block of which nothing is known is written as a whole.
TEST(EngineFailure, TheDefaultLimitEndsAReplayAndElseMovesNoFigure) {
  MemoryTrace trace = Mallocs(20'000);
  const RunResult without = MustReplay(trace, Glibc(), {});
  const RunResult within = MustReplay(trace, Glibc(), {.default_memory_limit_bytes = 64 << 20});
  EXPECT_EQ(within.error, std::nullopt);
  EXPECT_EQ(within.series_digest, without.series_digest);
  EXPECT_EQ(within.peak_rss_bytes, without.peak_rss_bytes);
  EXPECT_EQ(within.peak_time_ns, without.peak_time_ns);
  EXPECT_EQ(within.settings.memory_limit_bytes, 0u);
  trace.Malloc(std::uint64_t{2} << 30);
  trace.Malloc(100);
  for (const Touch touch : {Touch::kRecorded, Touch::kFull}) {
    const RunResult run = MustReplay(trace, Glibc(), {.touch = touch, .default_memory_limit_bytes = 64 << 20});
    EXPECT_THAT(run.error.value_or(""), HasSubstr("passed the memory limit of 64.0 MiB, its share of what the machine has available (see --memory-limit)"));
    EXPECT_LE(run.peak_rss_bytes, 72u << 20);
  }
  ExpectNoChildren();
}

TEST(EngineFailure, ALibraryThatReachesForMoreThanMemoryGetsNoneOfItAndIsNamed) {
  const RunResult run = MustReplay(Mallocs(1000), Misbehaving("reach", 500), {});
  EXPECT_EQ(run.error.value_or(""), "");
  EXPECT_EQ(run.events_replayed, 1100u);
  EXPECT_THAT(run.notes, Contains(HasSubstr("made system calls that a replay refuses")));
  EXPECT_THAT(MustReplay(Mallocs(10), Misbehaving("nothing", 0), {}).notes, Not(Contains(HasSubstr("refuses"))));
}

TEST(EngineFailure, CancellingKillsTheWorker) {
  const std::atomic<bool> cancelled = true;
  const RunResult run = MustReplay(Mallocs(100), Misbehaving("hang", 50), {.cancelled = &cancelled});
  EXPECT_EQ(run.error, "cancelled");
  ExpectNoChildren();
}

TEST(EngineFailure, DamageEndsTheReplayWithANote) {
  MemoryTrace trace = Mallocs(500);
  trace.Damage("guard.tape: block 17 at byte 812345: checksum mismatch");
  for (int i = 0; i < 100; ++i) trace.Malloc(100);
  const RunResult run = MustReplay(trace, Glibc(), {});
  EXPECT_EQ(run.error, std::nullopt);
  EXPECT_EQ(run.events_replayed, 550u);
  EXPECT_THAT(run.notes, Contains(HasSubstr("guard.tape: block 17 at byte 812345: checksum mismatch")));
}

TEST(EngineFailure, ALibraryThatCannotBeLoadedIsAnErrorOfItsOwn) {
  ResolvedAllocator missing;
  missing.family = "library";
  missing.library_path = "/nonexistent/libfoo.so";
  ReplayOptions options = {.worker_path = HEAPTAPE_WORKER};
  absl::StatusOr<RunResult> run = Replay(*Mallocs(10).Read(), missing, options);
  EXPECT_EQ(run.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(run.status().message()), HasSubstr("/nonexistent/libfoo.so"));

  ResolvedAllocator stranger;
  stranger.family = "library";
  stranger.library_path = "libm.so.6";
  run = Replay(*Mallocs(10).Read(), stranger, options);
  EXPECT_THAT(std::string(run.status().message()), HasSubstr("is not an allocator"));

  options.worker_path = "/nonexistent/heaptape-worker";
  run = Replay(*Mallocs(10).Read(), Glibc(), options);
  EXPECT_THAT(std::string(run.status().message()), HasSubstr("/nonexistent/heaptape-worker"));
  ExpectNoChildren();
}

TEST(EngineFailure, AnEventOutOfRangeIsDataLoss) {
  MemoryTrace trace = Mallocs(10);
  trace.Append({Op::kFree, 0, 0, 4'000'000'000u, 0});
  absl::StatusOr<RunResult> run = Replay(*trace.Read(), Glibc(), {.worker_path = HEAPTAPE_WORKER});
  EXPECT_EQ(run.status().code(), absl::StatusCode::kDataLoss);
  ExpectNoChildren();
}

}  // namespace
}  // namespace heaptape
