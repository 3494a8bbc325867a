// The gate: what changed between two sets of results, and which bounds the change breaks.

#ifndef HEAPTAPE_REPLAYER_COMPARE_H_
#define HEAPTAPE_REPLAYER_COMPARE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "replayer/export/summary.h"
#include "replayer/results.h"

namespace heaptape {

enum class Figure { kPeak, kSteady, kEnd, kGrowth, kFaults, kSystemCalls, kTime };
const char* FigureName(Figure figure);  // "peak", ... as in bounds and JSON

// "peak=+5%": the new figure may exceed the old by so much.
struct Bound {
  Figure figure = Figure::kPeak;
  bool relative = false;
  double limit = 0;  // a share where relative, else bytes, bytes per day, a count or nanoseconds
  std::string text;  // "+5%"
};

// "peak=+5%", "steady=3%", "end=+20MiB", "growth=+10MB/day", "faults=+1000", "time=+10%". MB is 10^6 bytes,
// MiB 2^20. InvalidArgument says what is wrong and shows an example.
absl::StatusOr<Bound> ParseBound(const std::string& text);

// One figure of one row, before and after: medians over the seeds.
struct Change {
  Figure figure = Figure::kPeak;
  double base = 0, now = 0;
  // The wider of both bands over the seeds; of growth also how far the slopes' intervals reach. A smaller change
  // says nothing.
  double noise = 0;
  std::optional<std::string> broken;  // the bound it breaks: "+5%"

  double difference() const { return now - base; }
  bool within_noise() const { return difference() <= noise && -difference() <= noise && difference() != 0; }
};

struct ComparedRow {
  std::string trace;  // title of its summary
  std::string label;  // as in the new results
  Verdict base_verdict = Verdict::kFailed, now_verdict = Verdict::kFailed;
  // Of the shorter steady window, where one is too short for growth to be a rate by the day (steady_state.h); else 0.
  std::uint64_t short_window_ns = 0;
  std::vector<Change> changes;  // of every figure; empty where one side failed
  std::string failure;          // why the row breaks the gate whatever its figures: it fails, it is missing
};

// A figure or its difference as people read it; growth as it was seen where the row's window is short.
std::string FigureText(const ComparedRow& row, Figure figure, double value);

struct Comparison {
  std::vector<ComparedRow> rows;
  std::vector<std::string> broken;  // one sentence per broken bound: what, by how much, what was allowed
};

// Traces are matched by digest, rows by allocator, version and tunables, and where a version is new by
// allocator and tunables. FailedPrecondition if the two have no recording in common.
absl::StatusOr<Comparison> Compare(const std::vector<ReplayReport>& base, const std::vector<ReplayReport>& now,
                                   const std::vector<Bound>& bounds);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_COMPARE_H_
