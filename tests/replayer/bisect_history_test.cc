#include "replayer/bisect/history.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "allocators/process.h"
#include "tests/replayer/bisect_repository.h"

namespace heaptape {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Finds a commit's figure (MB of steady RSS) in its file `figure`; a word there is why it cannot be built.
class FileMeasurer : public CommitMeasurer {
 public:
  FileMeasurer(const GitMirror& mirror, const std::string& clone) : clone_(clone) {
    EXPECT_TRUE(mirror.CloneInto(clone).ok());
  }
  absl::StatusOr<Outcome> Measure(const Commit& commit) override {
    asked.push_back(commit.subject);
    if (static_cast<int>(asked.size()) > fail_after) return absl::ResourceExhaustedError("disk full");
    if (absl::Status status = CheckOut(clone_, commit.hash); !status.ok()) return status;
    std::ifstream file(clone_ + "/figure");
    Outcome outcome;
    double figure = 0;
    if (file >> figure) {
      RunResult run;
      run.steady_rss_bytes = static_cast<std::uint64_t>(figure * 1e6);
      run.growth_bytes_per_day = (figure - 100) * 1e6;
      outcome.runs = {run};
      if (failing.count(commit.subject)) outcome.failed_checks = {"realloc"};
    } else {
      outcome.skip_reason = "does not build";
    }
    return outcome;
  }
  void Expect(const std::vector<std::string>& hashes) override { expected.insert(expected.end(), hashes.begin(), hashes.end()); }

  std::vector<std::string> asked, expected;
  int fail_after = 1000;
  std::set<std::string> failing;  // the check "realloc"

 private:
  std::string clone_;
};

// v1 - a1 - broken1 - a2 ------------- merge - broken2 - v2 - c1 - fix - c2 - v3
//            \- s1 - s2 - culprit - s3 -/
class BisectHistoryTest : public ::testing::Test {
 protected:
  BisectHistoryTest() : repository_(folder_ / "allocator") {
    Add("v1", "100");
    Add("a1", "104");
    repository_.Branch("side", "a1");
    Add("s1", "98");
    Add("s2", "110");
    Add("culprit", "700");
    Add("s3", "690");
    repository_.Switch("main");
    Add("broken1", "compiler error");
    Add("a2", "101");
    repository_.Merge("merge", "side", "figure", "705");
    Add("broken2", "compiler error");
    Add("v2", "710");
    Add("c1", "720");
    Add("fix", "120");
    Add("c2", "118");
    Add("v3", "121");
  }
  void Add(const std::string& name, const std::string& figure) { repository_.Commit(name, "figure", figure + "\n" + name); }

  absl::StatusOr<Bisection> Run(BisectOptions options) {
    absl::StatusOr<GitMirror> mirror = GitMirror::Open(repository_.path(), folder_ / "cache");
    if (!mirror.ok()) return mirror.status();
    measurer_ = std::make_unique<FileMeasurer>(*mirror, folder_ / ("measured" + std::to_string(++runs_)));
    measurer_->fail_after = fail_after_;
    measurer_->failing = failing_;
    options.work_directory = folder_.path();
    return BisectHistory(*mirror, *measurer_, options);
  }

  // What git says to a log in another clone. It exits with 2 where only skipped commits are left.
  std::string Replayed(const std::string& log, int status = 0) {
    std::ofstream(folder_ / "log") << log;
    TestRepository other(folder_ / "other");
    other.Git({"fetch", "-q", repository_.path(), "+refs/tags/*:refs/tags/*"});
    other.Git({"checkout", "-q", "v1"});
    return other.Git({"bisect", "replay", folder_ / "log"}, status);
  }

  TemporaryFolder folder_;
  TestRepository repository_;
  std::unique_ptr<FileMeasurer> measurer_;
  int runs_ = 0;
  int fail_after_ = 1000;
  std::set<std::string> failing_;
};

TEST_F(BisectHistoryTest, FindsTheCulpritInAMergedBranch) {
  const auto result = Run({.good = "v1", .bad = "v2"});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->end, Bisection::End::kFound);
  EXPECT_EQ(result->first->commit.hash, repository_.hash("culprit"));
  EXPECT_EQ(result->first->commit.subject, "culprit");
  EXPECT_EQ(result->first->commit.author, "Ada Author");
  EXPECT_EQ(result->first->value, 700e6);
  EXPECT_EQ(result->before->commit.subject, "s2");
  EXPECT_EQ(result->before->value, 110e6);
  EXPECT_EQ(result->limit, 150e6);
  // Both ends first, each commit once, and what was asked was foreseen.
  EXPECT_EQ(measurer_->asked[0], "v1");
  EXPECT_EQ(measurer_->asked[1], "v2");
  EXPECT_EQ(std::set<std::string>(measurer_->asked.begin(), measurer_->asked.end()).size(), measurer_->asked.size());
  EXPECT_THAT(measurer_->expected, Contains(repository_.hash("culprit")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "bisect"));
}

// base ------------------ mended (merge) - m1 ------ again (merge) - end
//     \- origin - d1 ---/--- broken - d2 - d3 ------/
TEST_F(BisectHistoryTest, WhatWasTakenBackOnAnotherLineAndCameAgainIsFoundWhereItBegan) {
  Add("base", "121");
  repository_.Branch("dev", "base");
  Add("origin", "700");
  Add("d1", "701");
  repository_.Switch("main");
  repository_.Merge("mended", "dev", "figure", "122");
  Add("m1", "123");
  repository_.Switch("dev");
  Add("broken", "compiler error");
  Add("d2", "702");
  Add("d3", "703");
  repository_.Switch("main");
  repository_.Merge("again", "dev", "figure", "704");
  Add("end", "705");
  const auto result = Run({.good = "v3", .bad = "end"});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->end, Bisection::End::kFound);
  EXPECT_EQ(result->first->commit.subject, "origin");
  EXPECT_EQ(result->before->commit.subject, "base");
  ASSERT_EQ(result->came_again.size(), 1u);
  EXPECT_EQ(result->came_again[0].commit.subject, "broken");
  EXPECT_EQ(result->came_again[0].parent.commit.subject, "d1");
  EXPECT_TRUE(result->candidates.empty());
  EXPECT_THAT(result->log, HasSubstr("# first bad commit: [" + repository_.hash("origin")));
}

TEST_F(BisectHistoryTest, LogReplaysInAnotherClone) {
  const auto result = Run({.good = "v1", .bad = "v2"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(Replayed(result->log), HasSubstr(repository_.hash("culprit") + " is the first bad commit"));
}

TEST_F(BisectHistoryTest, FirstGoodFindsTheFix) {
  const auto result = Run({.good = "v3", .bad = "v2", .first_good = true});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->end, Bisection::End::kFound);
  EXPECT_EQ(result->first->commit.subject, "fix");
  EXPECT_EQ(result->before->commit.subject, "c1");
  EXPECT_EQ(result->first->judgement, Judgement::kGood);
  EXPECT_THAT(Replayed(result->log), HasSubstr(repository_.hash("fix") + " is the first fixed commit"));
  EXPECT_EQ(result->before->judgement, Judgement::kBad);
  EXPECT_THAT(result->log, HasSubstr("--term-new=fixed"));
}

TEST_F(BisectHistoryTest, EndsTheWrongWayRoundAreNamed) {
  const auto fixed = Run({.good = "v3", .bad = "v2"});
  EXPECT_EQ(fixed.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(fixed.status().message(), HasSubstr("add --first-good"));
  const auto broken = Run({.good = "v1", .bad = "v2", .first_good = true});
  EXPECT_THAT(broken.status().message(), HasSubstr("leave out --first-good"));
  EXPECT_EQ(Run({.good = "v1", .bad = "v1"}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(measurer_->asked.empty());
}

TEST_F(BisectHistoryTest, StopsWhereTheEndsDoNotDiffer) {
  const auto result = Run({.good = "v1", .bad = "v3"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->end, Bisection::End::kNoDifference);
  EXPECT_THAT(measurer_->asked, ElementsAre("v1", "v3"));
  EXPECT_TRUE(result->log.empty());
  // The same two differ by a smaller threshold.
  const auto finer = Run({.good = "v1", .bad = "v3", .threshold = {.is_ratio = false, .amount = 15e6}});
  ASSERT_TRUE(finer.ok()) << finer.status();
  EXPECT_NE(finer->end, Bisection::End::kNoDifference);
}

TEST_F(BisectHistoryTest, SkipsWhatFailsACheckThatTheEndsPass) {
  failing_ = {"merge"};
  const auto result = Run({.good = "v1", .bad = "merge"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->first->commit.subject, "culprit");  // the bad end fails it: it is no reason
  failing_ = {"s2"};
  const auto skipped = Run({.good = "s1", .bad = "culprit"});
  ASSERT_TRUE(skipped.ok()) << skipped.status();
  ASSERT_EQ(skipped->end, Bisection::End::kOnlySkipped);
  EXPECT_EQ(skipped->candidates.size(), 2u);
  EXPECT_THAT(skipped->measured[1].outcome.skip_reason, HasSubstr("realloc"));
}

TEST_F(BisectHistoryTest, StopsWhereAnEndCannotBeMeasured) {
  const auto result = Run({.good = "v1", .bad = "broken2"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->end, Bisection::End::kEndNotMeasured);
  EXPECT_EQ(result->bad.outcome.skip_reason, "does not build");
}

TEST_F(BisectHistoryTest, NamesTheCandidatesWhereSkippedCommitsHideTheCulprit) {
  Add("d1", "120");
  Add("no-build-1", "error");
  Add("no-build-2", "error");
  Add("d2", "900");
  const auto result = Run({.good = "v3", .bad = "d2"});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->end, Bisection::End::kOnlySkipped);
  std::vector<std::string> names;
  for (const Commit& commit : result->candidates) names.push_back(commit.subject);
  EXPECT_THAT(names, ElementsAre("no-build-1", "no-build-2", "d2"));
  EXPECT_THAT(Replayed(result->log, 2), HasSubstr("The first bad commit could be any of:\n" + repository_.hash("no-build-1")));
}

TEST_F(BisectHistoryTest, AMergeBaseThatIsAlreadyBadIsSaid) {
  repository_.Branch("old", "v2");
  Add("old1", "100");
  const auto result = Run({.good = "old1", .bad = "c1"});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->end, Bisection::End::kMergeBaseDiffers);
  EXPECT_EQ(result->first->commit.subject, "v2");
}

TEST_F(BisectHistoryTest, GoodOnAnotherLineThanBad) {
  repository_.Branch("old", "a1");
  Add("old2", "99");
  const auto result = Run({.good = "old2", .bad = "v2"});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->end, Bisection::End::kFound);
  EXPECT_EQ(result->first->commit.subject, "culprit");
  EXPECT_EQ(measurer_->asked[2], "a1");  // where the lines part
  EXPECT_THAT(Replayed(result->log), HasSubstr(repository_.hash("culprit") + " is the first bad commit"));
}

// m0 - m1 - fork - rise ---------------------- join - m6 - m7
//   \           \- s1 - s2 - s3 - s4 - s5 - s6 -/
//    \- old
// Git asks for a commit of the side line and so takes `fork` for good, unseen; when the log is replayed it wants to know of it,
// for there `rise` and the side line part.
class BisectSideLineTest : public BisectHistoryTest {
 protected:
  void MakeHistory(const std::string& fork) {
    Add("m0", "100");
    Add("m1", "101");
    Add("fork", fork);
    repository_.Branch("long-side", "fork");
    for (const char* name : {"s1", "s2", "s3", "s4", "s5", "s6"}) Add(std::string("side-") + name, "102");
    repository_.Switch("main");
    Add("rise", "700");
    repository_.Merge("join", "long-side", "figure", "702");
    Add("m6", "703");
    Add("m7", "704");
    repository_.Branch("old", "m0");
    Add("old", "99");
  }
};

TEST_F(BisectSideLineTest, LogHoldsTheMergeBaseThatReplayingItAsksFor) {
  MakeHistory("103");
  const auto result = Run({.good = "m0", .bad = "m7"});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->end, Bisection::End::kFound);
  EXPECT_EQ(result->first->commit.subject, "rise");
  EXPECT_EQ(result->before->commit.subject, "fork");
  EXPECT_EQ(measurer_->asked.back(), "fork");
  EXPECT_THAT(result->log, HasSubstr("git bisect good " + repository_.hash("fork")));
  EXPECT_THAT(Replayed(result->log), HasSubstr(repository_.hash("rise") + " is the first bad commit"));
}

TEST_F(BisectSideLineTest, LogReplaysWhereGoodIsNoAncestorOfBad) {
  MakeHistory("103");
  const auto result = Run({.good = "old", .bad = "m7"});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->end, Bisection::End::kFound);
  EXPECT_EQ(result->first->commit.subject, "rise");
  EXPECT_EQ(measurer_->asked[2], "m0");  // where the ends' own lines part
  EXPECT_EQ(measurer_->asked.back(), "fork");
  EXPECT_THAT(Replayed(result->log), HasSubstr(repository_.hash("rise") + " is the first bad commit"));
}

TEST_F(BisectSideLineTest, LogReplaysWhereTheMergeBaseCannotBeMeasured) {
  MakeHistory("compiler error");
  const auto result = Run({.good = "old", .bad = "m7"});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->end, Bisection::End::kFound);
  EXPECT_EQ(result->first->commit.subject, "rise");
  EXPECT_FALSE(result->before->measured());
  EXPECT_THAT(result->log, HasSubstr("git bisect skip " + repository_.hash("fork")));
  EXPECT_THAT(Replayed(result->log), HasSubstr(repository_.hash("rise") + " is the first bad commit"));
}

TEST_F(BisectHistoryTest, TroubleThatIsNoCommitsFaultEndsTheWalk) {
  fail_after_ = 3;
  EXPECT_EQ(Run({.good = "v1", .bad = "v2"}).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "bisect"));
  const std::atomic<bool> cancelled = true;
  fail_after_ = 1000;
  EXPECT_EQ(Run({.good = "v1", .bad = "v2", .cancelled = &cancelled}).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(BisectHistoryTest, OtherMetricsAreJudgedByTheirOwnThreshold) {
  const auto result =
      Run({.good = "v1", .bad = "v2", .metric = Metric::kGrowth, .threshold = *ParseThreshold(Metric::kGrowth, "+50MB/day")});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->end, Bisection::End::kFound);
  EXPECT_EQ(result->first->commit.subject, "culprit");
  EXPECT_EQ(result->limit, 50e6);
}

TEST_F(BisectHistoryTest, ASweepMarksTheLargestSteps) {
  absl::StatusOr<GitMirror> mirror = GitMirror::Open(repository_.path(), folder_ / "cache");
  ASSERT_TRUE(mirror.ok()) << mirror.status();
  std::vector<Commit> commits;
  for (const char* name : {"v1", "a1", "broken2", "v2", "c1", "v3"}) commits.push_back(*mirror->Describe(repository_.hash(name)));
  FileMeasurer measurer(*mirror, folder_ / "sweep");
  const auto sweep = SweepHistory(commits, Metric::kSteady, measurer, {});
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  ASSERT_EQ(sweep->size(), 6u);
  EXPECT_EQ((*sweep)[2].outcome.skip_reason, "does not build");
  const std::vector<Step> steps = LargestSteps(Threshold(), *sweep);
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].from, 1u);  // a1 to v2, over the one that does not build
  EXPECT_EQ(steps[0].to, 3u);
  EXPECT_EQ(steps[0].change, 606e6);
  EXPECT_EQ(steps[1].from, 4u);
  EXPECT_EQ(steps[1].to, 5u);
  EXPECT_LT(steps[1].change, 0);
}

TEST(FillValueTest, TakesTheMedianAndTheBand) {
  Measurement measurement;
  for (const std::uint64_t bytes : {300, 100, 200, 500}) {
    RunResult run;
    run.peak_rss_bytes = bytes;
    measurement.outcome.runs.push_back(run);
  }
  FillValue(Metric::kPeak, &measurement);
  EXPECT_EQ(measurement.value, 250);
  EXPECT_EQ(measurement.low, 100);
  EXPECT_EQ(measurement.high, 500);
}

}  // namespace
}  // namespace heaptape
