#include "replayer/bisect/metric.h"

#include "gtest/gtest.h"

namespace heaptape {
namespace {

TEST(MetricTest, NamesReadBack) {
  for (const Metric metric : kMetrics) EXPECT_EQ(*ParseMetric(MetricName(metric)), metric);
  EXPECT_EQ(ParseMetric("rss").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(MetricTest, TakesItsFigureFromARun) {
  RunResult run;
  run.steady_rss_bytes = 100;
  run.peak_rss_bytes = 200;
  run.growth_bytes_per_day = -5;
  run.cpu_user_ns = 30;
  run.cpu_system_ns = 12;
  EXPECT_EQ(MetricValue(Metric::kSteady, run), 100);
  EXPECT_EQ(MetricValue(Metric::kPeak, run), 200);
  EXPECT_EQ(MetricValue(Metric::kGrowth, run), -5);
  EXPECT_EQ(MetricValue(Metric::kTime, run), 42);
}

TEST(ThresholdTest, RatioAndAddition) {
  EXPECT_EQ(ParseThreshold(Metric::kSteady, "1.5x")->Limit(100), 150);
  EXPECT_EQ(ParseThreshold(Metric::kPeak, "+200MB")->Limit(1e6), 201e6);
  EXPECT_EQ(ParseThreshold(Metric::kPeak, "+1MiB")->Limit(0), 1 << 20);
  EXPECT_EQ(ParseThreshold(Metric::kGrowth, "+10MB/day")->Limit(-5e6), 5e6);
  EXPECT_EQ(ParseThreshold(Metric::kTime, "+250ms")->Limit(1e9), 1.25e9);
}

TEST(ThresholdTest, RefusesWhatHasNoMeaning) {
  // Growth is often about nought: no ratio says anything about it.
  EXPECT_FALSE(ParseThreshold(Metric::kGrowth, "1.5x").ok());
  EXPECT_FALSE(ParseThreshold(Metric::kGrowth, "+10MB").ok());
  for (const char* text : {"", "x", "1x", "0.5x", "nanx", "1.5", "200MB", "+", "+0MB", "+-3MB", "+3", "+3MB/day", "+3s", "+3MBx", "+infMB"}) {
    EXPECT_EQ(ParseThreshold(Metric::kSteady, text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace heaptape
