#include "replayer/steady_state.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace heaptape {
namespace {

// The constants of NUMBERS.md, "Steady state and verdict".
constexpr double kRestartDrop = 0.15;           // of the level before
constexpr std::size_t kMinimumPoints = 6;       // in the steady window
constexpr double kMinimumWindowNs = 5e9;
constexpr std::size_t kBinCount = 64;
constexpr double kGrowingShare = 0.02;          // of the steady level, over the window
constexpr double kBloatingShare = 0.20;         // of the steady level, over the window, and
constexpr double kBloatingSharePerDay = 0.05;   // of the steady level, a day
constexpr double kFallingShare = 0.10;          // of the steady level, over the window
constexpr std::size_t kMinimumHalfPoints = 8;   // to compare the slopes of both halves of the window
constexpr double kSlowingRatio = 0.6;           // of the first half's slope
constexpr double kNsPerDay = 86400e9;

double Median(std::vector<double>& values) {
  const std::size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + middle, values.end());
  const double upper = values[middle];
  if (values.size() % 2 == 1) return upper;
  return (upper + *std::max_element(values.begin(), values.begin() + middle)) / 2;
}

// Each point stands for the time half-way to its neighbours.
double TimeWeightedMedian(std::span<const MemoryPoint> points) {
  struct Weighted {
    double bytes, weight;
  };
  std::vector<Weighted> weighted(points.size());
  double total = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::uint64_t before = points[i > 0 ? i - 1 : 0].time_ns;
    const std::uint64_t after = points[std::min(i + 1, points.size() - 1)].time_ns;
    weighted[i] = {points[i].bytes, static_cast<double>(after - before) / 2};
    total += weighted[i].weight;
  }
  std::sort(weighted.begin(), weighted.end(),
            [](const Weighted& a, const Weighted& b) { return a.bytes < b.bytes; });
  if (total == 0) return weighted[weighted.size() / 2].bytes;
  double sum = 0;
  for (const Weighted& point : weighted) {
    sum += point.weight;
    if (2 * sum >= total) return point.bytes;
  }
  return weighted.back().bytes;
}

// A long series becomes kBinCount points, each the time-weighted median of an equal stretch of time:
// neighbouring samples of one process are not independent, and the confidence interval assumes they are.
std::vector<MemoryPoint> Thin(std::span<const MemoryPoint> points) {
  if (points.size() <= kBinCount) return {points.begin(), points.end()};
  const std::uint64_t start = points.front().time_ns;
  const double width = static_cast<double>(points.back().time_ns - start) / kBinCount;
  std::vector<MemoryPoint> bins;
  std::size_t first = 0;
  for (std::size_t bin = 0; bin < kBinCount; ++bin) {
    const double end = static_cast<double>(bin + 1) * width;
    std::size_t last = first;
    while (last < points.size() &&
           (bin + 1 == kBinCount || static_cast<double>(points[last].time_ns - start) < end)) {
      ++last;
    }
    if (last == first) continue;
    const double middle = (static_cast<double>(bin) + 0.5) * width;
    bins.push_back({start + static_cast<std::uint64_t>(middle),
                    TimeWeightedMedian(points.subspan(first, last - first))});
    first = last;
  }
  return bins;
}

// White's marginal standard error rule: the start of the steady window is where the standard error of
// the mean of what remains is least, looked for in the first half.
std::size_t WarmUpLength(std::span<const MemoryPoint> points) {
  std::size_t best = 0;
  double best_error = std::numeric_limits<double>::infinity();
  for (std::size_t skip = 0; skip <= points.size() / 2; ++skip) {
    const std::span<const MemoryPoint> rest = points.subspan(skip);
    const double count = static_cast<double>(rest.size());
    double mean = 0;
    for (const MemoryPoint& point : rest) mean += point.bytes / count;
    double squares = 0;
    for (const MemoryPoint& point : rest) squares += (point.bytes - mean) * (point.bytes - mean);
    const double error = squares / (count * count);
    if (error < best_error) {
      best = skip;
      best_error = error;
    }
  }
  return best;
}

struct Slope {
  double median = 0, low = 0, high = 0;  // bytes per day
};

// Theil and Sen: the median slope of all pairs, and the 95 % interval that Kendall's statistic gives.
Slope RobustSlope(std::span<const MemoryPoint> points) {
  std::vector<double> slopes;
  for (std::size_t i = 0; i < points.size(); ++i) {
    for (std::size_t j = i + 1; j < points.size(); ++j) {
      const double days = static_cast<double>(points[j].time_ns - points[i].time_ns) / kNsPerDay;
      if (days > 0) slopes.push_back((points[j].bytes - points[i].bytes) / days);
    }
  }
  if (slopes.empty()) return {};
  std::sort(slopes.begin(), slopes.end());
  const double n = static_cast<double>(points.size());
  const double reach = 1.96 * std::sqrt(n * (n - 1) * (2 * n + 5) / 18);
  const double count = static_cast<double>(slopes.size());
  const auto at = [&](double rank) {
    return slopes[static_cast<std::size_t>(std::clamp(rank, 0.0, count - 1))];
  };
  Slope slope;
  slope.low = at(std::floor((count - reach) / 2));
  slope.high = at(std::ceil((count + reach) / 2));
  slope.median = Median(slopes);
  return slope;
}

// True if growth comes to an end: the second half of the window grows clearly more slowly.
bool IsSlowingDown(std::span<const MemoryPoint> window) {
  const std::size_t half = window.size() / 2;
  if (half < kMinimumHalfPoints) return false;
  const Slope first = RobustSlope(window.first(half));
  const Slope second = RobustSlope(window.last(half));
  return second.high < first.low && second.median < kSlowingRatio * first.median;
}

// `window` is thinned; what it was thinned from lasts `window_ns`.
Verdict VerdictOf(const Slope& slope, double steady_bytes, std::span<const MemoryPoint> window, std::uint64_t window_ns) {
  const double days = static_cast<double>(window.back().time_ns - window.front().time_ns) / kNsPerDay;
  const double growth = slope.median * days;
  const bool bloating_rate = slope.median > kBloatingSharePerDay * steady_bytes;
  if (slope.low > 0 && growth > kGrowingShare * steady_bytes) {
    // Seen for a short time, what fills up once looks like what grows for ever.
    if (!SaysGrowthByDay(window_ns) || IsSlowingDown(window)) return Verdict::kSettling;
    return growth > kBloatingShare * steady_bytes && bloating_rate ? Verdict::kBloating : Verdict::kGrowing;
  }
  if (slope.high < 0 && -growth > kFallingShare * steady_bytes) return Verdict::kSettling;
  // The interval holds both "no growth" and "bloating": nothing can be said yet.
  if (slope.high * days > kBloatingShare * steady_bytes && slope.high > kBloatingSharePerDay * steady_bytes) {
    return Verdict::kSettling;
  }
  return Verdict::kStable;
}

}  // namespace

bool SaysGrowthByDay(std::uint64_t window_ns) { return window_ns >= kDayRateWindowNs; }

SteadyState JudgeSteadyState(std::span<const MemoryPoint> points, Lifetime lifetime) {
  SteadyState state;
  if (points.empty()) return state;
  std::size_t life_start = 0;
  if (lifetime == Lifetime::kMayRestart) {
    for (std::size_t i = 1; i < points.size(); ++i) {
      if (points[i].bytes < (1 - kRestartDrop) * points[i - 1].bytes) {
        state.restart_times_ns.push_back(points[i].time_ns);
        life_start = i;
      }
    }
  }
  const std::span<const MemoryPoint> life = points.subspan(life_start);
  const std::vector<MemoryPoint> thinned = Thin(life);
  const std::size_t warm_up = WarmUpLength(thinned);
  const std::span<const MemoryPoint> window = std::span(thinned).subspan(warm_up);

  // The window as the samples see it, so that the level is exact and not that of bins, which stand at the middle of
  // their stretch of time.
  const std::uint64_t half_bin_ns =
      thinned.size() < life.size() ? (life.back().time_ns - life.front().time_ns) / kBinCount / 2 : 0;
  const auto first_steady = std::find_if(life.begin(), life.end(), [&](const MemoryPoint& point) {
    return warm_up == 0 || point.time_ns + half_bin_ns >= window.front().time_ns;
  });
  state.window_start_ns = first_steady->time_ns;
  state.window_ns = life.back().time_ns - state.window_start_ns;
  state.steady_bytes = TimeWeightedMedian({first_steady, life.end()});
  const Slope slope = RobustSlope(window);
  state.growth_bytes_per_day = slope.median;
  state.growth_low_bytes_per_day = slope.low;
  state.growth_high_bytes_per_day = slope.high;
  const double window_ns = static_cast<double>(window.back().time_ns - window.front().time_ns);
  if (window.size() >= kMinimumPoints && window_ns >= kMinimumWindowNs) {
    state.verdict = VerdictOf(slope, state.steady_bytes, window, state.window_ns);
  }
  return state;
}

void Judge(RunResult& run) {
  std::vector<MemoryPoint> rss, live;
  for (const ReplaySample& sample : run.series) {
    rss.push_back({sample.time_ns, static_cast<double>(sample.heap_rss_bytes)});
  }
  const SteadyState state = JudgeSteadyState(rss);
  for (const ReplaySample& sample : run.series) {
    if (sample.time_ns >= state.window_start_ns) {
      live.push_back({sample.time_ns, static_cast<double>(sample.live_bytes)});
    }
  }
  run.steady_rss_bytes = static_cast<std::uint64_t>(std::llround(state.steady_bytes));
  run.steady_live_bytes = live.empty() ? 0 : static_cast<std::uint64_t>(std::llround(TimeWeightedMedian(live)));
  run.steady_start_ns = state.window_start_ns;
  run.steady_window_ns = state.window_ns;
  run.growth_bytes_per_day = state.growth_bytes_per_day;
  run.growth_low_bytes_per_day = state.growth_low_bytes_per_day;
  run.growth_high_bytes_per_day = state.growth_high_bytes_per_day;
  run.verdict = run.error ? Verdict::kFailed : state.verdict;
}

}  // namespace heaptape
