#include "replayer/export/csv.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "replayer/export/external_text.h"
#include "replayer/export/summary.h"

namespace heaptape {
namespace {

std::string Seconds(std::uint64_t ns) { return absl::StrFormat("%d.%09d", ns / 1'000'000'000, ns % 1'000'000'000); }

}  // namespace

std::string ToCsv(const std::vector<ReplayReport>& reports) {
  std::string csv =
      "trace,allocator,version,tunables,seed,time_s,event_number,heap_rss_bytes,live_bytes,live_objects,"
      "lazy_free_bytes\n";
  for (const ReplayReport& report : reports) {
    const std::string trace = CsvCell(report.trace.path);
    for (const TruthSample& sample : report.truth) {
      absl::StrAppend(&csv, trace, ",recorded process,", CsvCell(report.trace.recorded_under), ",,,",
                      Seconds(sample.time_ns), ",,", sample.heap_rss_bytes, ",,,\n");
    }
    for (const RunResult& run : report.runs) {
      const std::string start = absl::StrCat(trace, ",", CsvCell(run.allocator), ",", CsvCell(run.version), ",",
                                             CsvCell(TunablesText(run)), ",", run.settings.seed, ",");
      for (const ReplaySample& sample : run.series) {
        absl::StrAppend(&csv, start, Seconds(sample.time_ns), ",", sample.event_number, ",");
        absl::StrAppend(&csv, sample.heap_rss_bytes, ",", sample.live_bytes, ",", sample.live_objects, ",",
                        sample.lazy_free_bytes, "\n");
      }
    }
  }
  return csv;
}

}  // namespace heaptape
