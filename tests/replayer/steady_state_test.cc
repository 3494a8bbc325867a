// The verdict on the figures of production relays, and on series whose answer is known.

#include "replayer/steady_state.h"

#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace heaptape {
namespace {

constexpr double kMegabyte = 1e6;
constexpr double kDayNs = 86400e9;

std::uint64_t TimeNs(const std::string& iso) {
  std::tm time{};
  EXPECT_NE(strptime(iso.c_str(), "%Y-%m-%dT%H:%M:%S", &time), nullptr) << iso;
  return static_cast<std::uint64_t>(timegm(&time)) * 1'000'000'000u;
}

// The relay groups' mean (column 3) or median (column 4) resident memory by allocator.
std::map<std::string, std::vector<MemoryPoint>> ProductionFigures(int column) {
  std::ifstream file(HEAPTAPE_TEST_DATA "/guard-relay-memory.csv");
  EXPECT_TRUE(file) << "the test data is missing";
  std::map<std::string, std::vector<MemoryPoint>> figures;
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::vector<std::string> row;
    for (std::string field; std::getline(fields, field, ',');) row.push_back(field);
    figures[row[1]].push_back({TimeNs(row[0]), std::stod(row[column]) * 1000});
  }
  return figures;
}

class ProductionFiguresTest : public testing::TestWithParam<int> {
 protected:
  SteadyState JudgeGroup(const std::string& allocator) {
    const auto figures = ProductionFigures(GetParam());
    return JudgeSteadyState(figures.at(allocator), Lifetime::kMayRestart);
  }
};

TEST_P(ProductionFiguresTest, VerdictsAreThoseOfTheOperatorsWhoMeasured) {
  EXPECT_EQ(JudgeGroup("mimalloc 2.0.9").verdict, Verdict::kStable);
  EXPECT_EQ(JudgeGroup("mimalloc 2.1.7").verdict, Verdict::kStable);
  EXPECT_EQ(JudgeGroup("jemalloc 5.3.0").verdict, Verdict::kStable);
  EXPECT_EQ(JudgeGroup("glibc 2.41").verdict, Verdict::kGrowing);
  EXPECT_EQ(JudgeGroup("mimalloc 3.0.1").verdict, Verdict::kBloating);
}

TEST_P(ProductionFiguresTest, Mimalloc301GrowsByAboutOneGigabyteADay) {
  const SteadyState state = JudgeGroup("mimalloc 3.0.1");
  EXPECT_NEAR(state.growth_bytes_per_day, 1000 * kMegabyte, 100 * kMegabyte);
  EXPECT_GT(state.growth_low_bytes_per_day, 750 * kMegabyte);
  EXPECT_LT(state.growth_high_bytes_per_day, 1250 * kMegabyte);
}

TEST_P(ProductionFiguresTest, LevelsAreThoseTheOperatorsReported) {
  EXPECT_NEAR(JudgeGroup("mimalloc 2.0.9").steady_bytes, 1320 * kMegabyte, 80 * kMegabyte);
  EXPECT_NEAR(JudgeGroup("mimalloc 2.1.7").steady_bytes, 1790 * kMegabyte, 50 * kMegabyte);
  EXPECT_NEAR(JudgeGroup("jemalloc 5.3.0").steady_bytes, 2850 * kMegabyte, 50 * kMegabyte);
}

TEST_P(ProductionFiguresTest, RestartsAreRecognised) {
  const auto second_restart = testing::ElementsAre(TimeNs("2026-01-05T10:58:06"));
  EXPECT_THAT(JudgeGroup("mimalloc 2.0.9").restart_times_ns, second_restart);
  EXPECT_THAT(JudgeGroup("mimalloc 2.1.7").restart_times_ns, second_restart);
  EXPECT_THAT(JudgeGroup("jemalloc 5.3.0").restart_times_ns, testing::IsEmpty());
  EXPECT_THAT(JudgeGroup("glibc 2.41").restart_times_ns, testing::Contains(TimeNs("2026-01-04T22:16:58")));
}

std::string ColumnName(const testing::TestParamInfo<int>& column) {
  return column.param == 3 ? "Mean" : "Median";
}
INSTANTIATE_TEST_SUITE_P(GroupFigure, ProductionFiguresTest, testing::Values(3, 4), ColumnName);

// `bytes` at 2,000 evenly spread moments of `duration_ns`, as the engine samples, with noise.
std::vector<MemoryPoint> Series(double duration_ns, const std::function<double(double)>& bytes, double noise_bytes = 0) {
  std::mt19937 random(7);
  std::normal_distribution<double> noise(0, 1);
  std::vector<MemoryPoint> points;
  for (int i = 0; i <= 2000; ++i) {
    const double share = i / 2000.0;
    points.push_back({static_cast<std::uint64_t>(share * duration_ns), bytes(share) + noise_bytes * noise(random)});
  }
  return points;
}

constexpr double kHalfHour = 1800e9;

TEST(SteadyStateTest, WarmUpIsLeftOut) {
  const auto points = Series(kHalfHour, [](double t) { return 100e6 * (t < 0.2 ? t / 0.2 : 1); }, 1e6);
  const SteadyState state = JudgeSteadyState(points);
  EXPECT_EQ(state.verdict, Verdict::kStable);
  EXPECT_NEAR(state.steady_bytes, 100e6, 0.2e6);
  EXPECT_NEAR(static_cast<double>(state.window_start_ns), 0.2 * kHalfHour, 0.02 * kHalfHour);
  EXPECT_LT(state.growth_low_bytes_per_day, 0);
  EXPECT_GT(state.growth_high_bytes_per_day, 0);
}

TEST(SteadyStateTest, ShortSpikesMoveNeitherLevelNorVerdict) {
  // A relay that compresses a directory document every twentieth of the time.
  const auto spikes = [](double t) { return std::fmod(t, 0.05) < 0.005 ? 470e6 : 70e6; };
  const SteadyState state = JudgeSteadyState(Series(kHalfHour, spikes, 0.5e6));
  EXPECT_EQ(state.verdict, Verdict::kStable);
  EXPECT_NEAR(state.steady_bytes, 70e6, 1e6);
}

TEST(SteadyStateTest, LeakIsBloatingWithItsRate) {
  const double per_minute = 5.7e6;
  const auto leak = [&](double t) { return 190e6 + per_minute * 30 * t; };
  const SteadyState state = JudgeSteadyState(Series(kHalfHour, leak, 3e6));
  EXPECT_EQ(state.verdict, Verdict::kBloating);
  EXPECT_NEAR(state.growth_bytes_per_day, per_minute * 1440, 0.03 * per_minute * 1440);
}

TEST(SteadyStateTest, ARiseSeenForAShortTimeIsNoGrowthYet) {
  // The same leak in a recording of a minute and a half, and in the longest that is too short.
  const double per_minute = 5.7e6;
  for (const double minutes : {1.5, 9.5}) {
    const auto leak = [&](double t) { return 30e6 + per_minute * minutes * t; };
    const SteadyState state = JudgeSteadyState(Series(minutes * 60e9, leak, 0.1e6));
    EXPECT_EQ(state.verdict, Verdict::kSettling) << minutes;
    EXPECT_FALSE(SaysGrowthByDay(state.window_ns));
    EXPECT_NEAR(state.growth_bytes_per_day, per_minute * 1440, 0.05 * per_minute * 1440) << "the slope is told all the same";
  }
}

TEST(SteadyStateTest, AShortRecordingThatIsFlatIsStable) {
  const auto flat = [](double t) { return 153e6 + 0.7e6 * t; };  // half a percent
  const SteadyState state = JudgeSteadyState(Series(90e9, flat, 0.1e6));
  EXPECT_EQ(state.verdict, Verdict::kStable);
  EXPECT_FALSE(SaysGrowthByDay(state.window_ns));
}

TEST(SteadyStateTest, AWindowOfTenMinutesSpeaksOfDays) {
  EXPECT_FALSE(SaysGrowthByDay(599'999'999'999));
  EXPECT_TRUE(SaysGrowthByDay(600'000'000'000));
  // Whatever is cut off as warm-up, of twice as long a recording so much is left.
  const auto leak = [](double t) { return 50e6 + 100e6 * t; };
  const SteadyState state = JudgeSteadyState(Series(2.0 * kDayRateWindowNs, leak, 1e6));
  EXPECT_TRUE(SaysGrowthByDay(state.window_ns)) << state.window_ns;
  EXPECT_EQ(state.verdict, Verdict::kBloating);
}

TEST(SteadyStateTest, SlowGrowthOfManyDaysIsGrowingNotBloating) {
  const auto slow = [](double t) { return 4e9 * (1 + 0.6 * t); };  // 60 % in 40 days: 1 % a day
  EXPECT_EQ(JudgeSteadyState(Series(40 * kDayNs, slow, 10e6)).verdict, Verdict::kGrowing);
}

TEST(SteadyStateTest, GrowthThatSlowsDownIsStillSettling) {
  const auto slowing = [](double t) { return 100e6 * (1 - std::exp(-4 * t)); };
  EXPECT_EQ(JudgeSteadyState(Series(kHalfHour, slowing, 0.1e6)).verdict, Verdict::kSettling);
}

TEST(SteadyStateTest, MemoryThatStillFallsIsStillSettling) {
  const auto falling = [](double t) { return 100e6 * (1 - 0.7 * t); };
  EXPECT_EQ(JudgeSteadyState(Series(kHalfHour, falling)).verdict, Verdict::kSettling);
}

TEST(SteadyStateTest, NoiseThatCouldHideBloatIsNotCalledStable) {
  const auto flat = [](double) { return 100e6; };
  auto points = Series(kHalfHour, flat);
  std::vector<MemoryPoint> few;
  for (std::size_t i = 0; i < points.size(); i += 200) few.push_back(points[i]);
  for (std::size_t i = 0; i < few.size(); ++i) few[i].bytes += i % 2 == 0 ? 60e6 : -40e6;
  EXPECT_EQ(JudgeSteadyState(few).verdict, Verdict::kSettling);
}

TEST(SteadyStateTest, TooLittleGivesNoVerdict) {
  EXPECT_EQ(JudgeSteadyState({}).verdict, Verdict::kSettling);
  const MemoryPoint one[] = {{5, 10.0}};
  EXPECT_EQ(JudgeSteadyState(one).verdict, Verdict::kSettling);
  EXPECT_EQ(JudgeSteadyState(one).steady_bytes, 10);
  const auto flat = [](double) { return 100e6; };
  EXPECT_EQ(JudgeSteadyState(Series(2e9, flat)).verdict, Verdict::kSettling) << "two seconds";
  EXPECT_EQ(JudgeSteadyState(Series(60e9, flat)).verdict, Verdict::kStable) << "a minute";
}

TEST(SteadyStateTest, EqualTimesAreNoDivisionByZero) {
  const std::vector<MemoryPoint> points(100, MemoryPoint{1000, 5e6});
  const SteadyState state = JudgeSteadyState(points);
  EXPECT_EQ(state.verdict, Verdict::kSettling);
  EXPECT_EQ(state.steady_bytes, 5e6);
  EXPECT_EQ(state.growth_bytes_per_day, 0);
}

TEST(SteadyStateTest, OneProcessNeverRestarts) {
  // Half of the data set is dropped, and the rest is steady: the later level is what the program needs.
  const auto dropped = [](double t) { return t < 0.3 ? 100e6 : 40e6; };
  const SteadyState state = JudgeSteadyState(Series(kHalfHour, dropped, 0.1e6));
  EXPECT_THAT(state.restart_times_ns, testing::IsEmpty());
  EXPECT_EQ(state.verdict, Verdict::kStable);
  EXPECT_NEAR(state.steady_bytes, 40e6, 0.1e6);
}

TEST(SteadyStateTest, LevelWeighsTimeNotSamples) {
  // Ten samples in the first tenth at one level, five in the rest at another.
  std::vector<MemoryPoint> points;
  for (std::uint64_t i = 0; i < 10; ++i) points.push_back({i * 10'000'000'000, 90e6});
  for (std::uint64_t i = 1; i <= 5; ++i) points.push_back({100'000'000'000 + i * 180'000'000'000, 50e6});
  EXPECT_EQ(JudgeSteadyState(points).steady_bytes, 50e6);
}

TEST(JudgeTest, FillsTheRunFromItsSeries) {
  RunResult run;
  for (std::uint64_t i = 0; i <= 1000; ++i) {
    run.series.push_back({.time_ns = i * 60'000'000, .event_number = i, .heap_rss_bytes = 30 << 20, .live_bytes = 20 << 20});
  }
  Judge(run);
  EXPECT_EQ(run.verdict, Verdict::kStable);
  EXPECT_EQ(run.steady_rss_bytes, 30u << 20);
  EXPECT_EQ(run.steady_live_bytes, 20u << 20);
  EXPECT_EQ(run.steady_start_ns + run.steady_window_ns, 60'000'000'000u);
  EXPECT_EQ(run.growth_bytes_per_day, 0);
  run.error = "signal 11 at event 17";
  Judge(run);
  EXPECT_EQ(run.verdict, Verdict::kFailed);
}

TEST(VerdictNameTest, NamesAreThoseOfTheJson) {
  EXPECT_STREQ(VerdictName(Verdict::kStable), "stable");
  EXPECT_STREQ(VerdictName(Verdict::kGrowing), "growing");
  EXPECT_STREQ(VerdictName(Verdict::kBloating), "bloating");
  EXPECT_STREQ(VerdictName(Verdict::kSettling), "settling");
  EXPECT_STREQ(VerdictName(Verdict::kFailed), "failed");
}

}  // namespace
}  // namespace heaptape
