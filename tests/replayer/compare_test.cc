// The gate: what a bound means, what breaks it, and what is only noise.

#include "replayer/compare.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replayer/sample_results.h"

namespace heaptape {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<Bound> Bounds(const std::vector<std::string>& texts) {
  std::vector<Bound> bounds;
  for (const std::string& text : texts) {
    const auto bound = ParseBound(text);
    EXPECT_TRUE(bound.ok()) << bound.status();
    if (bound.ok()) bounds.push_back(*bound);
  }
  return bounds;
}

// Results with one allocator and one seed at given figures.
std::vector<ReplayReport> OneRun(std::uint64_t steady_bytes, double growth = 0) {
  ReplayReport report = SampleReport("guard.tape", 1);
  report.runs.resize(1);
  report.runs[0].peak_rss_bytes = report.runs[0].steady_rss_bytes = steady_bytes;
  report.runs[0].growth_bytes_per_day = report.runs[0].growth_low_bytes_per_day = report.runs[0].growth_high_bytes_per_day = growth;
  return {report};
}

TEST(BoundTest, NumbersHaveUnits) {
  const auto limit = [](const std::string& text) { return ParseBound(text)->limit; };
  EXPECT_DOUBLE_EQ(limit("peak=+5%"), 0.05);
  EXPECT_TRUE(ParseBound("peak=+5%")->relative);
  EXPECT_DOUBLE_EQ(limit("steady=3.5%"), 0.035);
  EXPECT_DOUBLE_EQ(limit("growth=+10MB/day"), 10e6);
  EXPECT_DOUBLE_EQ(limit("end=+20MiB"), 20 * 1024.0 * 1024.0);
  EXPECT_DOUBLE_EQ(limit("faults=+1000"), 1000);
  EXPECT_DOUBLE_EQ(limit("time=+2s"), 2e9);
}

TEST(BoundTest, WhatMakesNoSenseIsRefusedWithAnExample) {
  for (const char* text : {"peak", "peak=", "peak=+x%", "peak=+5", "peak=+5MB/day", "growth=+5MB", "speed=+5%", "peak=-5%",
                           "faults=+5MB", "peak=inf%", "peak=nan%"}) {
    const auto bound = ParseBound(text);
    EXPECT_EQ(bound.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(bound.status().message()), HasSubstr("write it like peak=+5%")) << text;
  }
}

TEST(CompareTest, SameResultsBreakNothing) {
  const std::vector<ReplayReport> same = {SampleReport("guard.tape", 1)};
  const auto comparison = Compare(same, same, Bounds({"peak=+0%", "steady=+0%", "growth=+0MB/day"}));
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  EXPECT_EQ(comparison->rows.size(), 4u);
  EXPECT_THAT(comparison->broken, IsEmpty());
}

TEST(CompareTest, SaysWhichBoundAndByHowMuch) {
  const auto comparison = Compare(OneRun(100 << 20), OneRun(110 << 20), Bounds({"peak=+5%", "steady=+20%"}));
  ASSERT_TRUE(comparison.ok());
  EXPECT_THAT(comparison->broken, ElementsAre("glibc 2.36: peak is up by 10.0 MiB (+10.0 %), from 100.0 MiB to 110.0 MiB; "
                                              "allowed is +5%"));
}

TEST(CompareTest, ExactlyTheBoundIsAllowed) {
  EXPECT_THAT(Compare(OneRun(1000), OneRun(1050), Bounds({"peak=+5%"}))->broken, IsEmpty());
  EXPECT_THAT(Compare(OneRun(1000), OneRun(1051), Bounds({"peak=+5%"}))->broken, testing::SizeIs(1));
  EXPECT_THAT(Compare(OneRun(1000), OneRun(500), Bounds({"peak=+0%"}))->broken, IsEmpty());
}

TEST(CompareTest, GrowthIsBoundedInBytesPerDay) {
  const auto comparison = Compare(OneRun(100 << 20, -3e6), OneRun(100 << 20, 9e6), Bounds({"growth=+10MB/day"}));
  EXPECT_THAT(comparison->broken, ElementsAre(HasSubstr("growth is up by 11.4 MiB/day, from -2.86 MiB/day to +8.58 MiB/day")));
}

TEST(CompareTest, GrowthOfAShortRecordingIsToldAsItWasSeen) {
  auto base = OneRun(100 << 20, 0), now = OneRun(100 << 20, 86400e6);  // 1 MB a second
  base[0].runs[0].steady_window_ns = now[0].runs[0].steady_window_ns = 60'000'000'000;
  const auto comparison = Compare(base, now, Bounds({"growth=+10MB/day"}));
  EXPECT_THAT(comparison->broken, ElementsAre("glibc 2.36: growth is up by 57.2 MiB in 60 s, from 0 to +57.2 MiB in 60 s; "
                                              "allowed is +10MB/day, which is +80.5 GiB/day here"));
}

TEST(CompareTest, AGrowthThatTheSlopesDoNotTellApartIsNoise) {
  auto base = OneRun(100 << 20, 2e6), now = OneRun(100 << 20, 20e6);
  now[0].runs[0].growth_low_bytes_per_day = -10e6;
  now[0].runs[0].growth_high_bytes_per_day = 50e6;
  EXPECT_THAT(Compare(base, now, Bounds({"growth=+10MB/day"}))->broken, IsEmpty());
  now[0].runs[0].growth_low_bytes_per_day = 15e6;
  EXPECT_THAT(Compare(base, now, Bounds({"growth=+10MB/day"}))->broken, testing::SizeIs(1)) << "half of the interval is 17.5 MB";
}

TEST(CompareTest, AnIncreaseWithinTheBandOverSeedsIsNoise) {
  // The sample's seeds lie 2 % apart.
  std::vector<ReplayReport> base = {SampleReport("guard.tape", 1)}, now = base;
  for (RunResult& run : now[0].runs) run.steady_rss_bytes += run.steady_rss_bytes / 100;
  auto comparison = Compare(base, now, Bounds({"steady=+0.5%"}));
  EXPECT_THAT(comparison->broken, IsEmpty());
  EXPECT_TRUE(comparison->rows[0].changes[1].within_noise());
  for (RunResult& run : now[0].runs) run.steady_rss_bytes += run.steady_rss_bytes / 20;
  comparison = Compare(base, now, Bounds({"steady=+0.5%"}));
  EXPECT_THAT(comparison->broken, testing::SizeIs(3));
}

TEST(CompareTest, AnAllocatorThatFailsOrIsMissingBreaksTheGate) {
  std::vector<ReplayReport> base = {SampleReport("guard.tape", 1)}, now = base;
  for (RunResult& run : now[0].runs) {
    if (run.allocator == "glibc") run.error = "ended by SIGSEGV at event 5";
  }
  EXPECT_THAT(Compare(base, now, Bounds({"peak=+5%"}))->broken,
              ElementsAre("glibc 2.36: fails now: ended by SIGSEGV at event 5"));
  std::erase_if(now[0].runs, [](const RunResult& run) { return run.allocator == "glibc"; });
  EXPECT_THAT(Compare(base, now, Bounds({"peak=+5%"}))->broken, ElementsAre("glibc 2.36: missing in the new results"));
}

TEST(CompareTest, ANewVersionIsComparedWithTheOld) {
  auto base = OneRun(1000), now = OneRun(2000);
  now[0].runs[0].version = "2.41";
  EXPECT_THAT(Compare(base, now, Bounds({"peak=+5%"}))->broken, ElementsAre(HasSubstr("glibc 2.41: peak is up by 1000 B")));
}

TEST(CompareTest, DifferentRecordingsAreNotCompared) {
  auto base = OneRun(1000), now = OneRun(1000);
  now[0].trace.digest = "another";
  EXPECT_EQ(Compare(base, now, {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace heaptape
