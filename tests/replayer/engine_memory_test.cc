// What counts as resident, and what the machine looks like to the allocator.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "engine_test_support.h"
#include "tests/traces/temporary_trace.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMiB = 1 << 20;

TEST(EngineMemory, LargeBlocksAreResidentAsRecorded) {
  MemoryTrace trace;
  trace.Time(1'000'000);
  trace.Malloc(64 * kMiB);
  trace.Time(2'000'000);
  trace.Touched(0, TouchRecord::When::kAllocation, {{0, 1}});
  trace.Touched(0, TouchRecord::When::kFree, {{0, 1}, {100, 2000}});
  const std::uint64_t none = MustReplay(trace, Glibc(), {.touch = Touch::kNone}).end_rss_bytes;
  const std::uint64_t recorded = MustReplay(trace, Glibc(), {.touch = Touch::kRecorded}).end_rss_bytes;
  const std::uint64_t full = MustReplay(trace, Glibc(), {.touch = Touch::kFull}).end_rss_bytes;
  EXPECT_LT(none, kMiB);
  EXPECT_EQ(recorded - none, 2000 * kPage);  // the first page holds glibc's header, touched by itself
  EXPECT_EQ(full - none, 64 * kMiB);
}

TEST(EngineMemory, ThePeakIsExactBetweenSamples) {
  // A peak of 32 MiB that lives for one event, far from any sample.
  MemoryTrace trace;
  for (int i = 1; i <= 100; ++i) {
    trace.Malloc(16);
    if (i == 33) trace.Free(trace.Malloc(32 * kMiB));
    trace.Time(static_cast<std::uint64_t>(i) * 1'000'000);
  }
  const RunResult run = MustReplay(trace, Glibc(), {.sample_count = 2});
  EXPECT_LT(run.end_rss_bytes, kMiB);
  EXPECT_GE(run.peak_rss_bytes, 32 * kMiB);
  EXPECT_LE(run.peak_rss_bytes, 32 * kMiB + run.end_rss_bytes + 2 * kPage);
  EXPECT_GE(run.peak_time_ns, 32'000'000u);
  EXPECT_LE(run.peak_time_ns, 33'000'000u);
}

// Pages given back by MADV_FREE stay until the kernel wants them: in the figure, and shown beside it.
TEST(EngineMemory, LazilyFreedPagesAreToldApart) {
  MemoryTrace trace;
  std::vector<std::uint32_t> blocks;
  for (int i = 0; i < 64; ++i) blocks.push_back(trace.Malloc(kMiB));
  trace.Time(10'000'000);
  trace.Time(11'000'000);
  for (const std::uint32_t block : blocks) trace.Free(block);
  trace.Time(20'000'000);
  const RunResult run = MustReplay(trace, Misbehaving("lazy", 0), {});
  EXPECT_EQ(run.error, std::nullopt);
  EXPECT_GE(run.series.back().lazy_free_bytes, 60 * kMiB);
  EXPECT_GE(run.series.back().heap_rss_bytes, run.series.back().lazy_free_bytes);
  EXPECT_EQ(run.series[50].lazy_free_bytes, 0u);
  EXPECT_EQ(MustReplay(trace, Glibc(), {}).series.back().lazy_free_bytes, 0u);
}

// Anonymous memory of this process, looked at every millisecond while something runs.
class HostMemory {
 public:
  ~HostMemory() { Stop(); }
  std::uint64_t Stop() {
    done_ = true;
    if (looker_.joinable()) looker_.join();
    most_ = std::max(most_, Now());  // on a busy machine it may have come late
    return most_ > before_ ? most_ - before_ : 0;
  }

 private:
  static std::uint64_t Now() {
    std::ifstream statm("/proc/self/statm");
    std::uint64_t size = 0, resident = 0, shared = 0;
    statm >> size >> resident >> shared;
    return (resident - shared) * kPage;
  }
  std::uint64_t before_ = Now(), most_ = 0;
  std::atomic<bool> done_ = false;
  std::thread looker_{[this] {
    while (!done_) {
      most_ = std::max(most_, Now());
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }};
};

// What the engine itself takes on both its sides, for a trace of so many objects alive and so many events.
std::uint64_t OwnBytes(std::uint32_t live, std::uint32_t events) {
  TemporaryTrace trace;
  for (std::uint32_t i = 0; i < events; ++i) {
    if (i < live || i % 2 == live % 2) {
      trace.writer().Allocate(Op::kMalloc, 16, 0, 0);
    } else {
      trace.writer().Free(live, 0);
    }
    if (i % 10'000 == 0) trace.writer().Time(std::uint64_t{i} * 1'000);
  }
  const std::unique_ptr<TraceReader> reader = trace.Open();
  HostMemory host;
  absl::StatusOr<RunResult> run = Replay(*reader, NullAllocator(), {.worker_path = HEAPTAPE_WORKER, .count_own_memory = true});
  const std::uint64_t host_bytes = host.Stop();
  EXPECT_TRUE(run.ok()) << run.status();
  if (!run.ok()) return 0;
  EXPECT_EQ(run->series.back().live_objects, live + (events - live) % 2);
  return host_bytes + run->peak_rss_bytes;
}

TEST(EngineMemory, TheReplayTakesSixteenBytesForEachLiveObject) {
  OwnBytes(1'000, 10'000);  // what the first replay of a process takes for good
  // A thread that looks on may miss a peak, so the smaller trace is looked at more than once.
  const std::uint64_t few = std::max({OwnBytes(100'000, 2'200'000), OwnBytes(100'000, 2'200'000), OwnBytes(100'000, 2'200'000)});
  const std::uint64_t many = OwnBytes(2'100'000, 4'200'000);
  EXPECT_LE(many, few + 16 * 2'000'000 + 2 * kMiB);
  EXPECT_LE(OwnBytes(100'000, 8'200'000), few + 2 * kMiB) << "memory grows with the length of the trace";
}

TEST(EngineMemory, BothSourcesOfMemoryAgree) {
  const MemoryTrace trace = ChurnTrace(20'000, 2, 9);
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    SCOPED_TRACE(allocator.family);
    const RunResult counters = MustReplay(trace, allocator, {.sample_count = 40});
    const RunResult page_tables = MustReplay(trace, allocator, {.trust_counters = false, .sample_count = 40});
    EXPECT_EQ(SeriesDifference(counters, page_tables), "");
    EXPECT_LE(page_tables.peak_rss_bytes, counters.peak_rss_bytes);
    EXPECT_GE(page_tables.peak_rss_bytes + (256 << 10) + counters.peak_rss_bytes / 128, counters.peak_rss_bytes);
    EXPECT_NE(page_tables.notes, counters.notes);
  }
}

TEST(EngineMemory, SystemCallsOfTheCLibrarysOwnMallocAreCounted) {
  MemoryTrace trace;
  for (int i = 0; i < 10; ++i) trace.Free(trace.Malloc(40 * kMiB));  // beyond the largest mmap threshold
  trace.Time(1'000'000);
  const RunResult run = MustReplay(trace, Glibc(), {});
  EXPECT_EQ(run.system_calls.mmap, 10u);
  EXPECT_EQ(run.system_calls.munmap, 10u);
  EXPECT_GE(run.minor_faults, 10u * 40 * kMiB / kPage);
}

TEST(EngineMemory, TheRecordedCpuCountDecidesGlibcsArenas) {
  // 40 threads that all keep something: one arena each, up to eight per CPU.
  MemoryTrace trace;
  for (std::uint16_t thread = 1; thread <= 40; ++thread) {
    trace.StartThread(thread);
    trace.Malloc(1000, thread);
  }
  trace.Time(1'000'000);
  trace.info.cpu_count = 1;
  const RunResult one = MustReplay(trace, Glibc(), {});
  trace.info.cpu_count = 16;
  const RunResult sixteen = MustReplay(trace, Glibc(), {});
  const RunResult told = MustReplay(trace, Glibc(), {.cpu_count = 1});
  EXPECT_EQ(one.settings.cpu_count, 1u);
  EXPECT_EQ(sixteen.settings.cpu_count, 16u);
  EXPECT_LT(one.system_calls.mmap + 20, sixteen.system_calls.mmap);
  EXPECT_EQ(told.system_calls.mmap, one.system_calls.mmap);
}

TEST(EngineMemory, SamplesLieEvenlyInRecordedTime) {
  const MemoryTrace trace = ChurnTrace(50'000, 1, 2);
  const RunResult run = MustReplay(trace, NullAllocator(), {.sample_count = 50});
  ASSERT_EQ(run.series.size(), 51u);
  for (std::size_t i = 1; i < run.series.size(); ++i) {
    EXPECT_GE(run.series[i].event_number, run.series[i - 1].event_number);
    EXPECT_EQ(run.series[i].time_ns, run.series.back().time_ns * i / 50);
  }
  EXPECT_EQ(run.series.back().event_number, trace.events());
}

TEST(EngineMemory, ManyThreadsComeAndGo) {
  MemoryTrace trace;
  for (int i = 0; i < 500; ++i) {
    const auto thread = static_cast<std::uint16_t>(1 + i % 3);
    trace.StartThread(thread);
    const std::uint32_t slot = trace.Malloc(2000, thread);
    trace.Free(slot, thread);
    trace.EndThread(thread);
    trace.Time(static_cast<std::uint64_t>(i + 1) * 1'000'000);
  }
  for (const ResolvedAllocator& allocator : PromisedAllocators()) {
    SCOPED_TRACE(allocator.family);
    const RunResult run = MustReplay(trace, allocator, {});
    EXPECT_EQ(run.error, std::nullopt);
    EXPECT_EQ(run.events_replayed, trace.events());
  }
  EXPECT_EQ(MustReplay(trace, NullAllocator(), {}).peak_rss_bytes, 0u);
}

}  // namespace
}  // namespace heaptape
