// Determinism and the two engines on recordings of real programs: a relay (the sample that comes with the
// project), a program of many threads, a program of one.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include "engine_test_support.h"

namespace heaptape {
namespace {

constexpr int kRuns = 20;  // at least; two at a time

class RealTraces : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string name = (std::filesystem::temp_directory_path() / "heaptape-real-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = new std::string(name);
    Record("threads", "'" HEAPTAPE_THREADS_PROGRAM "' 4 5 2000");
    Record("perl", R"(perl -e 'my %h; $h{"k$_"} = [$_, "x" x ($_ % 300)] for 0..9000; my @k = sort keys %h; delete @h{@k[0..4000]};')");
    // The smallest of the sample traces; all of them, for many minutes, where HEAPTAPE_LONG_TESTS is set.
    for (const auto& file : std::filesystem::directory_iterator(HEAPTAPE_SAMPLE_TRACES)) {
      if (file.path().filename() == "guard-small.tape" ||
          (file.path().extension() == ".tape" && std::getenv("HEAPTAPE_LONG_TESTS") != nullptr)) {
        traces_.push_back(file.path());
      }
    }
  }
  static void TearDownTestSuite() {
    std::filesystem::remove_all(*folder_);
    delete folder_;
    traces_.clear();
  }

  static void Record(const std::string& name, const std::string& command) {
    const std::string tape = *folder_ + "/" + name + ".tape";
    const std::string line = "'" HEAPTAPE_PROGRAM "' record -o '" + tape + "' -- " + command + " >/dev/null 2>&1";
    ASSERT_EQ(std::system(line.c_str()), 0) << line;
    traces_.push_back(tape);
  }

  static RunResult MustReplayFile(const std::string& trace, const ResolvedAllocator& allocator, Engine engine) {
    ReplayOptions options = {.worker_path = HEAPTAPE_WORKER, .engine = engine};
    options.sample_count = 200;
    absl::StatusOr<RunResult> run = Replay(trace, allocator, options);
    EXPECT_TRUE(run.ok()) << run.status();
    return run.ok() ? *std::move(run) : RunResult();
  }

  static std::string* folder_;
  static std::vector<std::string> traces_;
};

std::string* RealTraces::folder_ = nullptr;
std::vector<std::string> RealTraces::traces_;

TEST_F(RealTraces, TwentyReplaysGiveOneSeries) {
  for (const std::string& trace : traces_) {
    for (const ResolvedAllocator& allocator : PromisedAllocators()) {
      SCOPED_TRACE(trace + " on " + allocator.DisplayName());
      const RunResult first = MustReplayFile(trace, allocator, Engine::kFast);
      EXPECT_EQ(first.error, std::nullopt);
      EXPECT_GT(first.peak_rss_bytes, 0u);
      const auto replay = [&] { return MustReplayFile(trace, allocator, Engine::kFast); };
      for (int i = 1; i < kRuns; i += 2) {
        std::future<RunResult> beside = std::async(std::launch::async, replay);
        for (const RunResult& again : {replay(), beside.get()}) {
          ASSERT_EQ(SeriesDifference(again, first), "");
          ASSERT_EQ(again.series_digest, first.series_digest);
          ASSERT_EQ(again.peak_rss_bytes, first.peak_rss_bytes);
          ASSERT_EQ(again.address_hash, first.address_hash);
        }
      }
    }
  }
}

TEST_F(RealTraces, RealThreadsGiveTheSameAddressesAndSeries) {
  for (const std::string& trace : traces_) {
    for (const ResolvedAllocator& allocator : PromisedAllocators()) {
      SCOPED_TRACE(trace + " on " + allocator.DisplayName());
      const RunResult fast = MustReplayFile(trace, allocator, Engine::kFast);
      const RunResult lockstep = MustReplayFile(trace, allocator, Engine::kLockstep);
      EXPECT_EQ(lockstep.settings.engine, "lockstep");
      EXPECT_EQ(SeriesDifference(fast, lockstep), "");
      EXPECT_EQ(fast.address_hash, lockstep.address_hash);
      EXPECT_EQ(fast.peak_rss_bytes, lockstep.peak_rss_bytes);
    }
  }
}

}  // namespace
}  // namespace heaptape
