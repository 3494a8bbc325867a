#include "replayer/bisect/measure.h"

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replayer/bisect_repository.h"

namespace heaptape {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ReplayMeasurerTest : public ::testing::Test {
 protected:
  std::unique_ptr<ReplayMeasurer> Measurer(MeasureOptions options = {.identity = "trace 1, mimalloc"}) {
    return std::make_unique<ReplayMeasurer>(
        [this](const std::string& hash, const std::atomic<bool>*) -> absl::StatusOr<Built> {
          built_.push_back(hash);
          Built built;
          if (hash == "nobuild") built.failure = "does not build";
          built.allocator.version = hash;
          return built;
        },
        [](const ResolvedAllocator& allocator) -> absl::StatusOr<std::vector<std::string>> {
          if (allocator.version == "unloadable") return absl::FailedPreconditionError("undefined symbol: foo");
          if (allocator.version == "wrong") return std::vector<std::string>{"realloc"};
          return std::vector<std::string>{};
        },
        [this](const ResolvedAllocator& allocator, std::uint64_t seed) -> absl::StatusOr<RunResult> {
          ++replays_;
          RunResult run;
          run.settings.seed = seed;
          run.events_replayed = 1000;
          run.steady_rss_bytes = 100 + seed;
          run.growth_bytes_per_day = -0.125;
          run.verdict = Verdict::kBloating;
          run.series.resize(3);
          if (allocator.version == "crash") run.error = "SIGSEGV at event 7";
          if (allocator.version == "refuses") run.allocation_failures = 500;
          if (allocator.version == "trouble") return absl::ResourceExhaustedError("out of memory");
          return run;
        },
        OutcomeCache(folder_ / "cache"), std::move(options));
  }

  TemporaryFolder folder_;
  std::vector<std::string> built_;
  int replays_ = 0;
};

TEST_F(ReplayMeasurerTest, ASecondWalkBuildsAndReplaysNothing) {
  const auto first = Measurer({.identity = "x", .seeds = {1, 2, 3}})->Measure({.hash = "a"});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_FALSE(first->replayed_before);
  EXPECT_EQ(replays_, 3);
  const auto second = Measurer({.identity = "x", .seeds = {1, 2, 3}})->Measure({.hash = "a"});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(second->replayed_before);
  EXPECT_EQ(replays_, 3);
  EXPECT_THAT(built_, ElementsAre("a"));
  // Every metric can be taken from what was kept.
  ASSERT_EQ(second->runs.size(), 3u);
  EXPECT_EQ(second->runs[1].steady_rss_bytes, 102u);
  EXPECT_EQ(second->runs[1].growth_bytes_per_day, -0.125);
  EXPECT_EQ(second->runs[1].verdict, Verdict::kBloating);
  EXPECT_EQ(second->runs[1].settings.seed, 2u);
}

TEST_F(ReplayMeasurerTest, AnotherTraceOrBuildOrSeedIsAnotherMeasure) {
  ASSERT_TRUE(Measurer({.identity = "x"})->Measure({.hash = "a"}).ok());
  ASSERT_TRUE(Measurer({.identity = "y"})->Measure({.hash = "a"}).ok());
  ASSERT_TRUE(Measurer({.identity = "x", .seeds = {7}})->Measure({.hash = "a"}).ok());
  ASSERT_TRUE(Measurer({.identity = "x"})->Measure({.hash = "b"}).ok());
  EXPECT_EQ(replays_, 4);
}

TEST_F(ReplayMeasurerTest, KeepsWhyACommitWasSkipped) {
  for (const auto& [hash, reason] : std::vector<std::pair<std::string, std::string>>{{"nobuild", "does not build"},
                                                                                      {"crash", "SIGSEGV at event 7"},
                                                                                      {"refuses", "500 calls of 1000 returned NULL"},
                                                                                      {"unloadable", "undefined symbol"}}) {
    EXPECT_THAT(Measurer()->Measure({.hash = hash})->skip_reason, HasSubstr(reason));
    const auto again = Measurer()->Measure({.hash = hash});
    EXPECT_THAT(again->skip_reason, HasSubstr(reason));
    EXPECT_TRUE(again->replayed_before);
    EXPECT_TRUE(again->runs.empty());
  }
  EXPECT_EQ(built_.size(), 4u);
  Measurer({.identity = "trace 1, mimalloc", .retry_skipped = true})->Measure({.hash = "nobuild"}).IgnoreError();
  EXPECT_EQ(built_.size(), 5u);
}

TEST_F(ReplayMeasurerTest, RemembersWhichChecksFail) {
  for (int i = 0; i < 2; ++i) EXPECT_THAT(Measurer()->Measure({.hash = "wrong"})->failed_checks, ElementsAre("realloc"));
  EXPECT_EQ(replays_, 1);
}

TEST_F(ReplayMeasurerTest, TroubleOfTheMachineIsNotKept) {
  EXPECT_EQ(Measurer()->Measure({.hash = "trouble"}).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Measurer()->Measure({.hash = "trouble"}).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(replays_, 2);
}

TEST_F(ReplayMeasurerTest, ADamagedFileOfTheCacheIsMeasuredAgain) {
  ASSERT_TRUE(Measurer()->Measure({.hash = "a"}).ok());
  for (const char* text : {"", "{", "[]", "{\"key\": 1}", "{\"key\":\"trace 1, mimalloc\\ncommit a\\nseeds 0\",\"skip_reason\":\"\",\"runs\":[{}]}"}) {
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "cache")) std::ofstream(entry.path()) << text;
    const auto outcome = Measurer()->Measure({.hash = "a"});
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    EXPECT_FALSE(outcome->replayed_before) << text;
  }
}

TEST_F(ReplayMeasurerTest, ExpectsOnlyWhatIsNotKnownAndNothingWhereTimeIsMeasured) {
  ASSERT_TRUE(Measurer()->Measure({.hash = "a"}).ok());
  built_.clear();
  {
    const auto measurer = Measurer();
    measurer->Expect({"a", "b"});
    ASSERT_TRUE(measurer->Measure({.hash = "b"}).ok());
  }
  EXPECT_THAT(built_, ElementsAre("b"));
  const auto quiet = Measurer({.identity = "time", .build_ahead = false});
  quiet->Expect({"c", "d"});
  ASSERT_TRUE(quiet->Measure({.hash = "e"}).ok());
  EXPECT_THAT(built_, ElementsAre("b", "e"));
}

}  // namespace
}  // namespace heaptape
