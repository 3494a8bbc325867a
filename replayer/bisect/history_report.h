// What a bisection or a sweep found, as a table, JSON, CSV, a chart and an issue to paste upstream.

#ifndef HEAPTAPE_REPLAYER_BISECT_HISTORY_REPORT_H_
#define HEAPTAPE_REPLAYER_BISECT_HISTORY_REPORT_H_

#include <optional>
#include <string>
#include <vector>

#include "replayer/bisect/history.h"

namespace heaptape {

struct HistoryReport {
  TraceIdentity trace;
  std::string family;
  std::string source;                // as the user gave it
  Metric metric = Metric::kSteady;
  Threshold threshold;
  std::vector<std::string> command;  // how to repeat it
  std::string kernel, machine;

  // One of the two.
  std::optional<Bisection> bisection;
  std::vector<Measurement> sweep;
};

// The measurements of either, in the order in which they are shown.
const std::vector<Measurement>& ShownMeasurements(const HistoryReport& report);

// For the terminal: a row with a bar for each commit, then what was found in sentences. `width` in columns.
std::string HistoryTable(const HistoryReport& report, std::size_t width);
std::string HistoryJson(const HistoryReport& report);  // schema_version 1
std::string HistoryCsv(const HistoryReport& report);
// One SVG file: the metric over the commits. Light and dark.
std::string HistoryChart(const HistoryReport& report);
// Markdown for the maintainers: what was measured, how to repeat it, tables. Names no path but the source's
// where that is a URL, no user, no host, neither the traced program nor the recording's file.
std::string HistoryIssue(const HistoryReport& report);

// The sentences on what was found: one for each line.
std::vector<std::string> Findings(const HistoryReport& report);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_BISECT_HISTORY_REPORT_H_
