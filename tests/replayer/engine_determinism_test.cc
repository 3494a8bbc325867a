#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine_test_support.h"

namespace heaptape {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

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

TEST(EngineDeterminism, WhatIsLeftToChanceIsSaidAndMovesAddresses) {
  const MemoryTrace trace = ChurnTrace(20'000, 2, 3);
  const RunResult once = MustReplay(trace, Glibc(), {.vary_addresses = true});
  const RunResult twice = MustReplay(trace, Glibc(), {.vary_addresses = true});
  EXPECT_THAT(once.notes, Contains(HasSubstr("addresses were left to chance")));
  EXPECT_NE(once.address_hash, twice.address_hash);

  int moved = 0;  // mimalloc draws keys
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    const RunResult drawn = MustReplay(trace, allocator, {.vary_keys = true});
    EXPECT_THAT(drawn.notes, Contains(HasSubstr("random keys were left to chance")));
    moved += drawn.address_hash != MustReplay(trace, allocator, {.vary_keys = true}).address_hash;
  }
  EXPECT_GE(moved, 1) << "no allocator asked for random bytes: the option does nothing";
}

TEST(EngineDeterminism, SignalsMoveNoFigure) {
  const MemoryTrace trace = ChurnTrace(200'000, 4, 3);
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    SCOPED_TRACE(allocator.family);
    const RunResult blocked = MustReplay(trace, allocator, {});
    for (const Engine engine : {Engine::kFast, Engine::kLockstep}) {
      const RunResult interrupted = MustReplay(trace, allocator, {.engine = engine, .vary_signals = true});
      EXPECT_EQ(interrupted.error, std::nullopt);
      EXPECT_EQ(SeriesDifference(interrupted, blocked), "");
      EXPECT_EQ(interrupted.address_hash, blocked.address_hash);
    }
  }
}

// Where the program lies, and how large it is, is no part of what is replayed.
TEST(EngineDeterminism, AnotherInstallationGivesTheSameAddresses) {
  const MemoryTrace trace = ChurnTrace(50'000, 2, 3);
  std::string folder = (std::filesystem::temp_directory_path() / "heaptape-elsewhere-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string deep = folder + "/" + std::string(200, 'a') + "/" + std::string(200, 'b');
  std::filesystem::create_directories(deep);
  const std::string elsewhere = deep + "/heaptape-worker";
  std::filesystem::copy_file(HEAPTAPE_WORKER, elsewhere);
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    SCOPED_TRACE(allocator.family);
    const RunResult here = MustReplay(trace, allocator, {});
    const absl::StatusOr<RunResult> there = Replay(*trace.Read(), allocator, {.worker_path = elsewhere, .sample_count = 200});
    EXPECT_TRUE(there.ok()) << there.status();
    if (!there.ok()) continue;
    EXPECT_EQ(there->address_hash, here.address_hash);
    EXPECT_EQ(SeriesDifference(*there, here), "");
  }
  std::filesystem::remove_all(folder);
}

TEST(EngineDeterminism, TimeScaleStretchesTheSeries) {
  const MemoryTrace trace = ChurnTrace(20'000, 2, 3);
  const RunResult as_is = MustReplay(trace, Glibc(), {});
  const RunResult half = MustReplay(trace, Glibc(), {.time_scale = 0.5});
  ASSERT_EQ(as_is.series.size(), half.series.size());
  EXPECT_EQ(half.series.back().time_ns, as_is.series.back().time_ns / 2);
  EXPECT_EQ(half.address_hash, as_is.address_hash);
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

// How far `other` is from `series`, sample by sample, as a share of the latter.
double Distance(const RunResult& series, const RunResult& other) {
  EXPECT_EQ(series.series.size(), other.series.size());
  double distance = 0, whole = 0;
  for (std::size_t i = 0; i < std::min(series.series.size(), other.series.size()); ++i) {
    const double bytes = static_cast<double>(series.series[i].heap_rss_bytes);
    distance += std::abs(bytes - static_cast<double>(other.series[i].heap_rss_bytes));
    whole += bytes;
  }
  return distance / whole;
}

// Time that really passes, at the recorded pace, against the virtual clock. Allocation comes in bursts, as in
// a program that serves requests, so that a decay is due in a pause and a few microseconds do not decide. A
// busy machine may still hold bursts up, and with them what is purged: so what is asserted is that the pace brings
// the series near, which the same clock without it does not. An undisturbed run, the best of five, gives the very series.
TEST(EngineDeterminism, PacedRealTimeGivesTheVirtualSeries) {
  MemoryTrace trace;
  trace.info.cpu_count = 4;
  std::mt19937_64 random(5);
  std::vector<std::uint32_t> live;
  constexpr std::uint64_t kMillisecond = 1'000'000;
  for (std::uint64_t burst = 0; burst < 40; ++burst) {
    const std::uint64_t start = 5 * kMillisecond + burst * 37 * kMillisecond;
    trace.Time(start);
    for (int i = 0; i < 1000; ++i) {
      const bool grow = burst % 8 < 4;
      if (live.empty() || random() % 10 < (grow ? 7u : 3u)) {
        live.push_back(trace.Malloc(16 + random() % (i % 20 == 0 ? 40'000 : 600)));
      } else {
        std::swap(live[random() % live.size()], live.back());
        trace.Free(live.back());
        live.pop_back();
      }
    }
    trace.Time(start + kMillisecond / 2);
  }
  int moved_by_time = 0;
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    SCOPED_TRACE(allocator.family);
    const RunResult fast = MustReplay(trace, allocator, {.clock = Clock::kVirtual, .sample_count = 100});
    const RunResult hurried = MustReplay(trace, allocator, {.clock = Clock::kReal, .sample_count = 100});
    const double unpaced = Distance(fast, hurried);
    moved_by_time += unpaced > 0;
    double nearest = 1e9;
    for (int attempt = 0; attempt < 5 && nearest > 0; ++attempt) {
      const RunResult paced = MustReplay(trace, allocator, {.clock = Clock::kPaced, .sample_count = 100});
      EXPECT_EQ(paced.settings.clock, "paced");
      EXPECT_GE(paced.wall_ns, fast.series.back().time_ns);
      nearest = std::min(nearest, Distance(fast, paced));
    }
    RecordProperty(allocator.DisplayName(), absl::StrCat(nearest, " of ", unpaced));
    EXPECT_LE(nearest, unpaced / 3);
  }
  EXPECT_GE(moved_by_time, 1) << "no allocator looked at the clock: the trace tests nothing";
}

}  // namespace
}  // namespace heaptape
