// A fleet: order, parallel limits, failures that stay rows, the cache, and interruption.

#include "replayer/fleet.h"

#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replayer/result_cache.h"
#include "tests/replayer/sample_results.h"

namespace heaptape {
namespace {

class FleetTest : public testing::Test {
 protected:
  FleetTest() {
    char name[] = "/tmp/heaptape-fleet-XXXXXX";
    folder_ = mkdtemp(name);
    for (const char* path : {"a.tape", "b.tape"}) {
      FleetTrace trace;
      trace.report.trace.path = path;
      trace.report.trace.digest = std::string("digest of ") + path;
      trace.memory_bytes = 100;
      traces_.push_back(trace);
    }
    for (const char* family : {"glibc", "mimalloc"}) allocators_.push_back({.family = family, .version = "1"});
    options_.seeds = 3;
    options_.jobs = 4;
    options_.memory_budget_bytes = 1000;
    options_.replay_one = [this](const std::string& path, const ResolvedAllocator& allocator, const ReplayOptions& options) {
      return ReplayOne(path, allocator, options);
    };
  }
  ~FleetTest() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<RunResult> ReplayOne(const std::string& path, const ResolvedAllocator& allocator, const ReplayOptions& options) {
    const int running = ++running_;
    most_running_ = std::max(most_running_.load(), running);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    --running_;
    ++replays_;
    if (path == broken_) return absl::FailedPreconditionError("cannot load it");
    RunResult run = SampleRun(allocator.family, allocator.version, options.seed, 1e6, 0);
    run.notes = {path};
    return run;
  }

  std::string folder_;
  std::vector<FleetTrace> traces_;
  std::vector<ResolvedAllocator> allocators_;
  FleetOptions options_;
  std::string broken_;
  std::atomic<int> running_{0}, most_running_{0}, replays_{0};
};

TEST_F(FleetTest, RunsComeInTheOrderAskedForWhateverOrderTheyEndIn) {
  const auto reports = ReplayFleet(traces_, allocators_, options_);
  ASSERT_TRUE(reports.ok()) << reports.status();
  ASSERT_EQ(reports->size(), 2u);
  for (const ReplayReport& report : *reports) {
    ASSERT_EQ(report.runs.size(), 6u);
    for (std::size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(report.runs[i].allocator, i < 3 ? "glibc" : "mimalloc");
      EXPECT_EQ(report.runs[i].settings.seed, i % 3);
      EXPECT_THAT(report.runs[i].notes, testing::ElementsAre(report.trace.path));
    }
  }
}

TEST_F(FleetTest, RunsAtATimeAreLimitedByJobsAndByMemory) {
  ASSERT_TRUE(ReplayFleet(traces_, allocators_, options_).ok());
  EXPECT_LE(most_running_, 4);
  most_running_ = 0;
  options_.memory_budget_bytes = 250;
  ASSERT_TRUE(ReplayFleet(traces_, allocators_, options_).ok());
  EXPECT_LE(most_running_, 2);
  most_running_ = 0;
  options_.memory_budget_bytes = 10;  // less than one needs: alone
  ASSERT_TRUE(ReplayFleet(traces_, allocators_, options_).ok());
  EXPECT_EQ(most_running_, 1);
}

TEST_F(FleetTest, WhatCannotBeLoadedIsThatRowsError) {
  broken_ = "b.tape";
  const auto reports = ReplayFleet(traces_, allocators_, options_);
  ASSERT_TRUE(reports.ok());
  EXPECT_FALSE((*reports)[0].runs[0].error.has_value());
  EXPECT_EQ((*reports)[1].runs[0].error, "cannot load it");
  EXPECT_EQ((*reports)[1].runs[0].verdict, Verdict::kFailed);
  EXPECT_EQ((*reports)[1].runs[4].settings.seed, 1u);
}

TEST_F(FleetTest, NothingIsReplayedTwice) {
  options_.cache_folder = folder_ + "/cache";
  const auto first = ReplayFleet(traces_, allocators_, options_);
  EXPECT_EQ(replays_, 12);
  const auto second = ReplayFleet(traces_, allocators_, options_);
  EXPECT_EQ(replays_, 12);
  EXPECT_EQ((*second)[1].runs[5].series, (*first)[1].runs[5].series);
  options_.seeds = 4;  // only the new seed
  ASSERT_TRUE(ReplayFleet(traces_, allocators_, options_).ok());
  EXPECT_EQ(replays_, 16);
}

TEST_F(FleetTest, FailuresAreTriedAgain) {
  options_.cache_folder = folder_ + "/cache";
  broken_ = "a.tape";
  ASSERT_TRUE(ReplayFleet(traces_, allocators_, options_).ok());
  broken_ = "";
  replays_ = 0;
  ASSERT_TRUE(ReplayFleet(traces_, allocators_, options_).ok());
  EXPECT_EQ(replays_, 6);
}

TEST_F(FleetTest, AnInterruptedFleetGoesOnWhereItStopped) {
  std::atomic<bool> cancelled{false};
  options_.cache_folder = folder_ + "/cache";
  options_.jobs = 1;
  options_.replay.cancelled = &cancelled;
  class Interrupter : public FleetObserver {
   public:
    explicit Interrupter(std::atomic<bool>& cancelled) : cancelled_(cancelled) {}
    void Started(const FleetJob&) override { cancelled_ = ++started_ == 5; }
    int started_ = 0;
    std::atomic<bool>& cancelled_;
  } interrupter(cancelled);
  options_.observer = &interrupter;
  EXPECT_EQ(ReplayFleet(traces_, allocators_, options_).status().code(), absl::StatusCode::kCancelled);
  // The fifth had begun when the interruption came: it is not kept.
  cancelled = false;
  options_.observer = nullptr;
  replays_ = 0;
  ASSERT_TRUE(ReplayFleet(traces_, allocators_, options_).ok());
  EXPECT_EQ(replays_, 8);
}

TEST_F(FleetTest, EveryRunIsToldOfOnce) {
  class Counter : public FleetObserver {
   public:
    void Started(const FleetJob& job) override { EXPECT_TRUE(started.insert({job.trace, job.allocator, job.seed}).second); }
    void Finished(const FleetJob& job, const RunResult&, bool) override { finished.insert({job.trace, job.allocator, job.seed}); }
    std::set<std::tuple<std::size_t, std::size_t, std::uint64_t>> started, finished;
  } counter;
  options_.observer = &counter;
  ASSERT_TRUE(ReplayFleet(traces_, allocators_, options_).ok());
  EXPECT_EQ(counter.started.size(), 12u);
  EXPECT_EQ(counter.finished, counter.started);
}

TEST(ResultKeyTest, EveryPartOfTheIdentityCounts) {
  const ResolvedAllocator allocator{.family = "mimalloc", .version = "2.0.9"};
  const ReplayOptions options;
  const std::string key = ResultKey("digest", allocator, options);
  EXPECT_EQ(key.size(), 32u);
  EXPECT_EQ(ResultKey("digest", allocator, options), key);
  std::set<std::string> keys = {key, ResultKey("other", allocator, options)};
  const auto with_allocator = [&](auto change) {
    ResolvedAllocator changed = allocator;
    change(changed);
    keys.insert(ResultKey("digest", changed, options));
  };
  with_allocator([](ResolvedAllocator& a) { a.family = "glibc"; });
  with_allocator([](ResolvedAllocator& a) { a.version = "2.1.7"; });
  with_allocator([](ResolvedAllocator& a) { a.library_path = "/bin/sh"; });
  with_allocator([](ResolvedAllocator& a) { a.environment = {{"MIMALLOC_PURGE_DELAY", "0"}}; });
  with_allocator([](ResolvedAllocator& a) { a.loader_path = "/bin/sh"; });
  const auto with_options = [&](auto change) {
    ReplayOptions changed = options;
    change(changed);
    keys.insert(ResultKey("digest", allocator, changed));
  };
  with_options([](ReplayOptions& o) { o.seed = 1; });
  with_options([](ReplayOptions& o) { o.engine = Engine::kLockstep; });
  with_options([](ReplayOptions& o) { o.touch = Touch::kFull; });
  with_options([](ReplayOptions& o) { o.huge_pages = HugePageMode::kAlways; });
  with_options([](ReplayOptions& o) { o.cpu_count = 7; });
  with_options([](ReplayOptions& o) { o.memory_limit_bytes = 7; });
  with_options([](ReplayOptions& o) { o.sample_count = 7; });
  with_options([](ReplayOptions& o) { o.time_scale = 0.7; });
  with_options([](ReplayOptions& o) { o.count_own_memory = true; });
  with_options([](ReplayOptions& o) { o.worker_path = "/bin/sh"; });
  EXPECT_EQ(keys.size(), 17u);
  ReplayOptions real;
  real.clock = Clock::kReal;
  EXPECT_EQ(ResultKey("digest", allocator, real), "") << "no two runs by the real clock are the same";
  ReplayOptions interrupted;
  interrupted.vary_signals = true;
  EXPECT_EQ(ResultKey("digest", allocator, interrupted), "") << "signals come when they come";
}

}  // namespace
}  // namespace heaptape
