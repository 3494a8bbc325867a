#include "replayer/export/prometheus.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "replayer/export/external_text.h"
#include "replayer/export/summary.h"
#include "replayer/steady_state.h"

namespace heaptape {
namespace {

std::string Escaped(const std::string& value) {
  std::string escaped;
  for (const char c : PlainText(value)) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

struct Metric {
  const char* name;
  const char* help;
  double (*value)(const RunResult&);
  bool of_failed_runs;   // means something where the run ended early
  bool by_day = false;   // means something where the steady window is long enough for a rate by the day
};

const Metric kMetrics[] = {
    {"heaptape_peak_rss_bytes", "Highest heap RSS of the replay.",
     [](const RunResult& run) { return static_cast<double>(run.peak_rss_bytes); }, false},
    {"heaptape_steady_rss_bytes", "Heap RSS in the steady state.",
     [](const RunResult& run) { return static_cast<double>(run.steady_rss_bytes); }, false},
    {"heaptape_end_rss_bytes", "Heap RSS after the last event.",
     [](const RunResult& run) { return static_cast<double>(run.end_rss_bytes); }, false},
    {"heaptape_growth_bytes_per_day", "Slope of heap RSS in the steady state.",
     [](const RunResult& run) { return run.growth_bytes_per_day; }, false, true},
    {"heaptape_steady_window_seconds", "Length of the steady window.",
     [](const RunResult& run) { return static_cast<double>(run.steady_window_ns) / 1e9; }, false},
    {"heaptape_peak_live_bytes", "Highest sum of requested bytes of live objects.",
     [](const RunResult& run) { return static_cast<double>(run.peak_live_bytes); }, false},
    {"heaptape_steady_live_bytes", "Requested bytes of live objects in the steady state.",
     [](const RunResult& run) { return static_cast<double>(run.steady_live_bytes); }, false},
    {"heaptape_minor_faults", "Page faults of the replay.",
     [](const RunResult& run) { return static_cast<double>(run.minor_faults); }, false},
    {"heaptape_events_replayed", "Events of the trace that were replayed.",
     [](const RunResult& run) { return static_cast<double>(run.events_replayed); }, true},
    {"heaptape_replay_wall_seconds", "Time the replay took.",
     [](const RunResult& run) { return static_cast<double>(run.wall_ns) / 1e9; }, true},
    {"heaptape_failed", "1 where the run ended early.", [](const RunResult& run) { return run.error ? 1.0 : 0.0; },
     true},
};

}  // namespace

std::string ToPrometheus(const std::vector<ReplayReport>& reports) {
  const auto labels = [](const ReplayReport& report, const RunResult& run) {
    return absl::StrCat("trace=\"", Escaped(report.trace.path), "\",trace_digest=\"", Escaped(report.trace.digest),
                        "\",allocator=\"", Escaped(run.allocator), "\",version=\"", Escaped(run.version),
                        "\",tunables=\"", Escaped(TunablesText(run)), "\",seed=\"", run.settings.seed, "\"");
  };
  std::string text;
  const auto head = [&](const char* name, const char* help) {
    absl::StrAppend(&text, "# HELP ", name, " ", help, "\n# TYPE ", name, " gauge\n");
  };
  for (const Metric& metric : kMetrics) {
    head(metric.name, metric.help);
    for (const ReplayReport& report : reports) {
      for (const RunResult& run : report.runs) {
        if (run.error && !metric.of_failed_runs) continue;
        if (metric.by_day && !SaysGrowthByDay(run.steady_window_ns)) continue;
        absl::StrAppend(&text, metric.name, "{", labels(report, run), "} ",
                        absl::StrFormat("%.17g", metric.value(run)), "\n");
      }
    }
  }
  head("heaptape_verdict", "1 for the verdict of the run.");
  for (const ReplayReport& report : reports) {
    for (const RunResult& run : report.runs) {
      absl::StrAppend(&text, "heaptape_verdict{", labels(report, run), ",verdict=\"", VerdictName(run.verdict), "\"} 1\n");
    }
  }
  return text;
}

}  // namespace heaptape
