// The steady-state verdict: from a series of resident memory over time to "stable", "growing" ...
//
// The method and every constant are defined in replayer/NUMBERS.md. Pure functions.

#ifndef HEAPTAPE_REPLAYER_STEADY_STATE_H_
#define HEAPTAPE_REPLAYER_STEADY_STATE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "replayer/results.h"

namespace heaptape {

struct MemoryPoint {
  std::uint64_t time_ns = 0;
  double bytes = 0;
};

// Whether the series follows one process, as a recording does, or a service that somebody may have
// restarted meanwhile, as the figures of a monitoring system do. In the second case a sharp drop begins
// the judgement anew; in the first it is only memory given back.
enum class Lifetime { kOneProcess, kMayRestart };

struct SteadyState {
  Verdict verdict = Verdict::kSettling;
  double steady_bytes = 0;               // time-weighted median of the steady window
  double growth_bytes_per_day = 0;       // robust slope over the steady window
  double growth_low_bytes_per_day = 0;   // bounds of its 95 % confidence interval
  double growth_high_bytes_per_day = 0;
  std::uint64_t window_start_ns = 0;     // end of the warm-up
  std::uint64_t window_ns = 0;           // from there to the last point
  std::vector<std::uint64_t> restart_times_ns;  // of the first point after each restart
};

// Whether a steady window is long enough for its slope to be read as a rate by the day, and for a rise in it to be
// called growth. Over less the slope only says what was seen.
inline constexpr std::uint64_t kDayRateWindowNs = 600'000'000'000;
bool SaysGrowthByDay(std::uint64_t window_ns);

// `points` ascend in time. Fewer than a handful gives kSettling.
SteadyState JudgeSteadyState(std::span<const MemoryPoint> points, Lifetime lifetime = Lifetime::kOneProcess);

// Fills the judged fields of `run` from its series; a run with an error has failed whatever its series.
void Judge(RunResult& run);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_STEADY_STATE_H_
