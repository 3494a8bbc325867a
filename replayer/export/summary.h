// The rows that every table shows: runs of one trace grouped by allocator over seeds, and the same
// pooled over several traces. The definitions are in NUMBERS.md.

#ifndef HEAPTAPE_REPLAYER_EXPORT_SUMMARY_H_
#define HEAPTAPE_REPLAYER_EXPORT_SUMMARY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "replayer/results.h"

namespace heaptape {

enum class SortKey { kSteady, kPeak, kEnd, kGrowth, kOverhead, kFaults, kSystemCalls, kTime, kName, kVerdict };

struct ViewOptions {
  // A row's label or the beginning of one ("glibc", "mimalloc 2.0.9"; "@" may stand for the space).
  // Empty: the row with the lowest steady RSS.
  std::string baseline;
  SortKey sort = SortKey::kSteady;
};

// Over the seeds of one trace, or over the traces of a pool: the median and the extremes.
struct Band {
  double median = 0, low = 0, high = 0;
};

struct SummaryRow {
  std::string label;                   // "mimalloc 2.0.9 purge_delay=0"; unique within a summary
  std::string allocator, version;
  std::string tunables;                // "purge_delay=0,..."
  std::size_t runs = 0;
  std::size_t failed_runs = 0;         // they count in no figure below
  Band peak_rss_bytes, steady_rss_bytes, end_rss_bytes;
  Band growth_bytes_per_day;
  double growth_low_bytes_per_day = 0, growth_high_bytes_per_day = 0;  // medians of the runs' intervals
  Band steady_window_ns;
  bool growth_by_day = false;          // a window suffices for it (steady_state.h): of those runs alone
  Band peak_live_bytes, steady_live_bytes;
  Band overhead_share;                 // steady RSS over steady live bytes, less 1
  Band minor_faults, system_calls, wall_ns;
  Verdict verdict = Verdict::kFailed;  // of most runs; among equals the worse
  std::optional<double> ratio;         // of steady RSS to the baseline's
  std::string error;                   // the first one
  bool recorded_under = false;         // the trace was recorded under this version, or, where none of the rows is it, this family
};

// The figures of a row that are a band, each with its JSON key and what it is of one run.
struct RowFigure {
  const char* key;
  Band SummaryRow::*band;
  double (*of)(const RunResult&);
};
std::span<const RowFigure> RowFigures();

// The recorded process itself beside the replay under the same allocator.
struct GroundTruth {
  double peak_bytes = 0;               // highest sample of heap RSS
  double steady_bytes = 0;
  double growth_bytes_per_day = 0;
  std::uint64_t steady_window_ns = 0;
  Verdict verdict = Verdict::kSettling;
  std::string recorded_under;
  std::string row;                     // label of the row to compare with; empty where there is none
};

struct Summary {
  std::optional<std::size_t> report;   // index of the trace; nullopt: pooled over all
  std::string title;                   // the trace's file name, or "3 traces"
  std::string baseline;                // its row's label; empty where every run failed
  std::vector<SummaryRow> rows;
  std::optional<GroundTruth> truth;
};

// "mimalloc 2.0.9 purge_delay=0"
std::string RunLabel(const RunResult& run);
std::string TunablesText(const RunResult& run);  // "purge_delay=0,arena_reserve=1"

// One summary per report, and after them the pooled one where there are several reports.
// InvalidArgument if no row bears the baseline's name.
absl::StatusOr<std::vector<Summary>> Summarize(const std::vector<ReplayReport>& reports, const ViewOptions& options);

// Growth as tables show it: "+1.02 GiB/day"; "±230.6 MiB/day" where the interval holds no growth at all; and where
// the window says nothing of days, what was seen in it: "+8.20 MiB in 76 s".
std::string GrowthText(const SummaryRow& row);

// "recorded process 412 MiB, replay under the same allocator 405 MiB" for one summary with a truth.
std::string TruthSentence(const Summary& summary);

// Sentences the user should see once: notes and errors of runs, traces that are not complete, and what limits what
// the figures say, with what to do about it.
std::vector<std::string> Remarks(const std::vector<ReplayReport>& reports);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_EXPORT_SUMMARY_H_
