// The figure a bisection is about, and how far apart two of them must lie.

#ifndef HEAPTAPE_REPLAYER_BISECT_METRIC_H_
#define HEAPTAPE_REPLAYER_BISECT_METRIC_H_

#include <array>
#include <string>

#include "absl/status/statusor.h"
#include "replayer/results.h"

namespace heaptape {

enum class Metric { kSteady, kPeak, kGrowth, kTime };
inline constexpr std::array kMetrics = {Metric::kSteady, Metric::kPeak, Metric::kGrowth, Metric::kTime};

const char* MetricName(Metric metric);         // "steady"
const char* MetricDescription(Metric metric);  // "steady-state heap RSS"
absl::StatusOr<Metric> ParseMetric(const std::string& text);

// Bytes for steady and peak, bytes per day for growth, nanoseconds of CPU (user and system) for time.
double MetricValue(Metric metric, const RunResult& run);
// "412.3 MiB", "+10.1 MiB/day", "2.31 s".
std::string FormatMetric(Metric metric, double value);
// A size as a user writes it, in the metric's unit: "200MB", "1.5GiB", "10MB/day", "2s", "350ms".
absl::StatusOr<double> ParseMetricValue(Metric metric, const std::string& text);

// "1.5x": at least 1.5 times the good figure. "+200MB", "+10MB/day", "+2s": at least so much above it.
struct Threshold {
  bool is_ratio = true;
  double amount = 1.5;   // a factor, or an addition in the metric's unit
  std::string text = "1.5x";

  // From where on a figure is bad when the good end has this one.
  double Limit(double good_value) const { return is_ratio ? good_value * amount : good_value + amount; }
};

// Growth may be nought or negative, so its threshold must be an addition: a ratio is InvalidArgument.
absl::StatusOr<Threshold> ParseThreshold(Metric metric, const std::string& text);
Threshold DefaultThreshold(Metric metric);  // "1.5x"; "+10MB/day" for growth

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_BISECT_METRIC_H_
