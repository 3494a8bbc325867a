#include "replayer/export/table.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "replayer/export/format.h"
#include "replayer/export/text_table.h"

namespace heaptape {
namespace {

Colour ColourOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kStable:
      return Colour::kGreen;
    case Verdict::kGrowing:
    case Verdict::kSettling:
      return Colour::kYellow;
    case Verdict::kBloating:
    case Verdict::kFailed:
      return Colour::kRed;
  }
  return Colour::kNone;
}

// "405.1 MiB", and over several seeds or traces "405.1 MiB (399.0 MiB .. 411.2 MiB)".
std::string BandText(const Band& band, std::string (*format)(double)) {
  const std::string median = format(band.median), low = format(band.low), high = format(band.high);
  return low == high ? median : absl::StrCat(median, " (", low, " .. ", high, ")");
}

// "+1.02 GiB/day", or "±230.6 MiB/day" where the interval holds no growth at all.
std::string GrowthText(const SummaryRow& row) {
  const double low = row.growth_low_bytes_per_day, high = row.growth_high_bytes_per_day;
  if (low > 0 || high < 0) return BandText(row.growth_bytes_per_day, FormatGrowth);
  if (low == 0 && high == 0) return FormatGrowth(0);
  return absl::StrCat("±", FormatBytes(std::max(-low, high)), "/day");
}

std::string VerdictText(const SummaryRow& row) {
  if (row.failed_runs == 0 || row.failed_runs == row.runs) return VerdictName(row.verdict);
  return absl::StrCat(VerdictName(row.verdict), ", ", row.failed_runs, "/", row.runs, " failed");
}

TextTable MakeTable(const Summary& summary) {
  TextTable table({{"allocator", false, 100},
                   {"version", false, 50},
                   {"peak", true, 80},
                   {"steady", true, 90},
                   {"growth", true, 70},
                   {"live", true, 30},
                   {"overhead", true, 40},
                   {"faults", true, 20},
                   {"syscalls", true, 10},
                   {"time", true, 15},
                   {"verdict", false, 85},
                   {summary.baseline.empty() ? "ratio" : absl::StrCat("to ", summary.baseline), true, 60}});
  for (const SummaryRow& row : summary.rows) {
    // The label less the version, which has a column of its own: "mimalloc purge_delay=0".
    std::string name = row.allocator;
    const std::string plain = absl::StrCat(row.allocator, row.version.empty() ? "" : " ", row.version);
    if (row.label.size() > plain.size() && row.label.rfind(plain, 0) == 0) name += row.label.substr(plain.size());
    if (row.failed_runs == row.runs) {
      table.AddRow({{name}, {row.version}, {"-"}, {"-"}, {"-"}, {"-"}, {"-"}, {"-"}, {"-"}, {"-"},
                    {VerdictText(row), ColourOf(row.verdict)}, {"-"}});
      continue;
    }
    const auto count = [](const Band& band) { return FormatCount(static_cast<std::uint64_t>(band.median)); };
    table.AddRow({{name},
                  {row.version},
                  {BandText(row.peak_rss_bytes, FormatBytes)},
                  {BandText(row.steady_rss_bytes, FormatBytes)},
                  {GrowthText(row)},
                  {FormatBytes(row.steady_live_bytes.median)},
                  {BandText(row.overhead_share, FormatShare)},
                  {count(row.minor_faults)},
                  {count(row.system_calls)},
                  {FormatDuration(static_cast<std::uint64_t>(row.wall_ns.median))},
                  {VerdictText(row), ColourOf(row.verdict)},
                  {row.ratio ? FormatRatio(*row.ratio) : "-"}});
  }
  return table;
}

// Where the memory of each allocator is at its highest sample and at the end: the first seed's run.
TextTable MakeHeapMapTable(const ReplayReport& report) {
  TextTable table({{"where the memory is", false, 100},
                   {"at the", false, 99},
                   {"RSS", true, 90},
                   {"live", true, 80},
                   {"internal", true, 60},
                   {"partly free pages", true, 70},
                   {"wholly free pages", true, 65},
                   {"metadata", true, 50},
                   {"worst size class", true, 40}});
  std::set<std::string> done;
  for (const RunResult& run : report.runs) {
    if (run.heap_maps.empty() || !done.insert(RunLabel(run)).second) continue;
    const auto highest = std::max_element(run.heap_maps.begin(), run.heap_maps.end(),
                                          [](const HeapMap& a, const HeapMap& b) { return a.heap_rss_bytes < b.heap_rss_bytes; });
    for (const HeapMap* map : {&*highest, &run.heap_maps.back()}) {
      const bool at_end = map == &run.heap_maps.back();
      const auto bytes = [](auto value) { return FormatBytes(static_cast<double>(value)); };
      const std::string worst = map->classes.empty() ? "-"
                                                     : absl::StrCat(bytes(map->classes[0].usable_bytes), " holds ",
                                                                    bytes(map->classes[0].partly_free_bytes));
      table.AddRow({{at_end ? "" : RunLabel(run)},
                    {at_end ? "end" : "peak"},
                    {bytes(map->heap_rss_bytes)},
                    {bytes(map->live_bytes)},
                    {bytes(map->internal_bytes)},
                    {bytes(map->partly_free_bytes)},
                    {bytes(map->wholly_free_bytes)},
                    {bytes(map->metadata_bytes)},
                    {worst}});
    }
  }
  return table;
}

std::string TraceLine(const ReplayReport& report) {
  const TraceIdentity& trace = report.trace;
  std::string line = trace.path;
  absl::StrAppend(&line, ": ", trace.program.empty() ? "a program" : trace.program, ", ", FormatCount(trace.events),
                  " events in ", FormatDuration(trace.duration_ns));
  if (!trace.recorded_under.empty()) absl::StrAppend(&line, ", recorded under ", trace.recorded_under);
  return line;
}

}  // namespace

std::string ShellText(const std::vector<std::string>& command) {
  const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
  return absl::StrJoin(command, " ", [&](std::string* out, const std::string& word) {
    if (!word.empty() && word.find_first_not_of(safe) == std::string::npos) {
      *out += word;
      return;
    }
    *out += '\'';
    for (const char c : word) *out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    *out += '\'';
  });
}

absl::StatusOr<std::string> ToTable(const std::vector<ReplayReport>& reports, const ViewOptions& options,
                                    const TerminalOptions& terminal) {
  const absl::StatusOr<std::vector<Summary>> summaries = Summarize(reports, options);
  if (!summaries.ok()) return summaries.status();
  std::string out;
  for (const Summary& summary : *summaries) {
    if (!out.empty()) out += "\n";
    out += summary.report ? TraceLine(reports[*summary.report]) : absl::StrCat(summary.title, ", pooled");
    out += "\n\n";
    std::vector<std::string> left_out;
    out += MakeTable(summary).Plain(terminal.width, terminal.colour, &left_out);
    if (!left_out.empty()) {
      absl::StrAppend(&out, "(too narrow for: ", absl::StrJoin(left_out, ", "), ")\n");
    }
    if (summary.truth) absl::StrAppend(&out, "\n", TruthSentence(summary), "\n");
    if (!summary.report) continue;
    if (const TextTable where = MakeHeapMapTable(reports[*summary.report]); !where.empty()) {
      absl::StrAppend(&out, "\n", where.Plain(terminal.width, terminal.colour));
    }
  }
  return out;
}

absl::StatusOr<std::string> ToMarkdown(const std::vector<ReplayReport>& reports, const ViewOptions& options) {
  const absl::StatusOr<std::vector<Summary>> summaries = Summarize(reports, options);
  if (!summaries.ok()) return summaries.status();
  std::string out;
  for (const Summary& summary : *summaries) {
    if (!out.empty()) out += "\n";
    absl::StrAppend(&out, "### ", summary.title, "\n\n");
    if (summary.report) absl::StrAppend(&out, TraceLine(reports[*summary.report]), "\n\n");
    out += MakeTable(summary).Markdown();
    if (summary.truth) absl::StrAppend(&out, "\n", TruthSentence(summary), "\n");
    if (!summary.report) continue;
    if (const TextTable where = MakeHeapMapTable(reports[*summary.report]); !where.empty()) {
      absl::StrAppend(&out, "\n", where.Markdown());
    }
  }
  const std::vector<std::string> remarks = Remarks(reports);
  if (!remarks.empty()) out += "\n";
  for (const std::string& remark : remarks) absl::StrAppend(&out, "- ", remark, "\n");
  if (!reports.empty() && !reports.front().command.empty()) {
    absl::StrAppend(&out, "\nRepeat it (heaptape ", reports.front().heaptape_version, ", Linux ",
                    reports.front().kernel, "):\n\n```sh\n", ShellText(reports.front().command), "\n```\n");
  }
  return out;
}

}  // namespace heaptape
