#include "replayer/bisect/metric.h"

#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "replayer/export/format.h"

namespace heaptape {
namespace {

struct Unit {
  const char* name;
  double factor;
};

constexpr Unit kByteUnits[] = {{"B", 1},       {"kB", 1e3},        {"KB", 1e3},        {"MB", 1e6},        {"GB", 1e9},
                               {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
constexpr Unit kTimeUnits[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};

}  // namespace

const char* MetricName(Metric metric) {
  switch (metric) {
    case Metric::kSteady: return "steady";
    case Metric::kPeak: return "peak";
    case Metric::kGrowth: return "growth";
    case Metric::kTime: return "time";
  }
  return "";
}

const char* MetricDescription(Metric metric) {
  switch (metric) {
    case Metric::kSteady: return "steady-state heap RSS";
    case Metric::kPeak: return "peak heap RSS";
    case Metric::kGrowth: return "growth of heap RSS";
    case Metric::kTime: return "CPU time of the replay";
  }
  return "";
}

absl::StatusOr<Metric> ParseMetric(const std::string& text) {
  for (const Metric metric : kMetrics) {
    if (text == MetricName(metric)) return metric;
  }
  return absl::InvalidArgumentError(absl::StrCat(text, ": no such metric; use steady, peak, growth or time"));
}

double MetricValue(Metric metric, const RunResult& run) {
  switch (metric) {
    case Metric::kSteady: return static_cast<double>(run.steady_rss_bytes);
    case Metric::kPeak: return static_cast<double>(run.peak_rss_bytes);
    case Metric::kGrowth: return run.growth_bytes_per_day;
    case Metric::kTime: return static_cast<double>(run.cpu_user_ns) + static_cast<double>(run.cpu_system_ns);
  }
  return 0;
}

std::string FormatMetric(Metric metric, double value) {
  if (metric == Metric::kTime) return absl::StrFormat("%.2f s", value / 1e9);
  return metric == Metric::kGrowth ? FormatGrowth(value) : FormatBytes(value);
}

absl::StatusOr<double> ParseMetricValue(Metric metric, const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  std::string unit = end;
  while (!unit.empty() && unit[0] == ' ') unit.erase(0, 1);
  const std::string per_day = "/day";
  const bool has_per_day = unit.size() > per_day.size() && unit.substr(unit.size() - per_day.size()) == per_day;
  if (has_per_day) unit.resize(unit.size() - per_day.size());
  if (end != text.c_str() && std::isfinite(number) && has_per_day == (metric == Metric::kGrowth)) {
    if (metric == Metric::kTime) {
      for (const Unit& known : kTimeUnits) {
        if (unit == known.name) return number * known.factor;
      }
    } else {
      for (const Unit& known : kByteUnits) {
        if (unit == known.name) return number * known.factor;
      }
    }
  }
  const char* example = metric == Metric::kTime ? "2s" : metric == Metric::kGrowth ? "10MB/day" : "200MB";
  return absl::InvalidArgumentError(
      absl::StrCat(text, ": not a figure of the metric ", MetricName(metric), "; write it like ", example));
}

absl::StatusOr<Threshold> ParseThreshold(Metric metric, const std::string& text) {
  Threshold threshold;
  threshold.text = text;
  if (!text.empty() && text.back() == 'x') {
    char* end = nullptr;
    threshold.amount = std::strtod(text.c_str(), &end);
    if (metric == Metric::kGrowth) {
      return absl::InvalidArgumentError(
          absl::StrCat(text, ": growth may be zero, so its threshold must be an addition, like +10MB/day"));
    }
    if (end == text.c_str() + text.size() - 1 && std::isfinite(threshold.amount) && threshold.amount > 1) return threshold;
    return absl::InvalidArgumentError(absl::StrCat(text, ": a ratio must be more than 1, like 1.5x"));
  }
  if (text.empty() || text[0] != '+') {
    return absl::InvalidArgumentError(
        absl::StrCat(text, ": a threshold is a ratio like 1.5x or an addition like ",
                     metric == Metric::kTime ? "+2s" : metric == Metric::kGrowth ? "+10MB/day" : "+200MB"));
  }
  absl::StatusOr<double> amount = ParseMetricValue(metric, text.substr(1));
  if (!amount.ok()) return amount.status();
  if (*amount <= 0) return absl::InvalidArgumentError(absl::StrCat(text, ": a threshold must be more than nothing"));
  threshold.is_ratio = false;
  threshold.amount = *amount;
  return threshold;
}

Threshold DefaultThreshold(Metric metric) {
  if (metric != Metric::kGrowth) return Threshold();
  return {.is_ratio = false, .amount = 10e6, .text = "+10MB/day"};
}

}  // namespace heaptape
