#include "replayer/export/table.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "replayer/export/external_text.h"
#include "replayer/export/format.h"
#include "replayer/export/text_table.h"

namespace heaptape {
namespace {

constexpr std::size_t kCallSitesShown = 5;

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

std::string VerdictText(const SummaryRow& row) {
  if (row.failed_runs == 0 || row.failed_runs == row.runs) return VerdictName(row.verdict);
  return absl::StrCat(VerdictName(row.verdict), ", ", row.failed_runs, "/", row.runs, " failed");
}

// "to jemalloc", or "to mimalloc 2.0.9" where several rows are of the baseline's family.
std::string RatioTitle(const Summary& summary) {
  const auto row = std::find_if(summary.rows.begin(), summary.rows.end(), [&](const SummaryRow& r) { return r.label == summary.baseline; });
  if (row == summary.rows.end()) return "ratio";
  const auto of_family = [&](const SummaryRow& r) { return r.allocator == row->allocator; };
  return absl::StrCat("to ", std::count_if(summary.rows.begin(), summary.rows.end(), of_family) == 1 ? row->allocator : row->label);
}

TextTable MakeTable(const Summary& summary) {
  TextTable table({{"allocator", false, 100},
                   {"version", false, 88},
                   {"peak", true, 80},
                   {"steady", true, 90},
                   {"growth", true, 70},
                   {"live", true, 30},
                   {"overhead", true, 40},
                   {"faults", true, 20},
                   {"syscalls", true, 10},
                   {"time", true, 15},
                   {"verdict", false, 85},
                   {RatioTitle(summary), true, 60}});
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

// Where the memory of each allocator is at its highest sample, in the steady state and at the end: the first seed's run.
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
    const std::pair<const char*, const HeapMap*> moments[] = {
        {"peak", &HighestHeapMap(run)}, {"steady", &SteadyHeapMap(run)}, {"end", &run.heap_maps.back()}};
    for (std::size_t i = 0; i < std::size(moments); ++i) {
      const auto& [moment, map] = moments[i];
      const auto bytes = [](auto value) { return FormatBytes(static_cast<double>(value)); };
      const std::string worst = map->classes.empty() ? "-"
                                                     : absl::StrCat(bytes(map->classes[0].usable_bytes), " holds ",
                                                                    bytes(map->classes[0].partly_free_bytes));
      table.AddRow({{i == 0 ? RunLabel(run) : ""},
                    {moment},
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

// Which places in the program hold the partly used pages in the steady state: the first seed's run of each allocator.
TextTable MakeCallSiteTable(const ReplayReport& report) {
  TextTable table({{"who holds partly used pages", false, 100},
                   {"free in them", true, 90},
                   {"live", true, 80},
                   {"samples", true, 50},
                   {"called from", false, 40}});
  std::set<std::string> done;
  for (const RunResult& run : report.runs) {
    if (run.heap_maps.empty() || !done.insert(RunLabel(run)).second) continue;
    const std::vector<HeapMap::CallSite>& sites = SteadyHeapMap(run).call_sites;
    if (!sites.empty()) table.AddRow({{absl::StrCat(RunLabel(run), ":")}, {""}, {""}, {""}, {""}});
    for (std::size_t i = 0; i < std::min(sites.size(), kCallSitesShown); ++i) {
      const HeapMap::CallSite& site = sites[i];
      const auto frame = std::find(site.stack.begin(), site.stack.end(), site.name);
      const bool has_caller = frame != site.stack.end() && frame + 1 != site.stack.end();
      table.AddRow({{absl::StrCat("  ", site.name)},
                    {FormatBytes(static_cast<double>(site.partly_free_bytes))},
                    {FormatBytes(static_cast<double>(site.live_bytes))},
                    {FormatCount(site.samples)},
                    {has_caller ? *(frame + 1) : ""}});
    }
  }
  return table;
}

// Breaks a sentence between words where the terminal is narrower; the lines that follow are indented.
std::string Wrapped(const std::string& sentence, std::size_t width) {
  if (width == 0) return sentence;
  std::string text;
  std::size_t column = 0;
  for (const auto& word : absl::StrSplit(sentence, ' ')) {
    if (column > 0 && column + 1 + word.size() > width) {
      text += "\n  ";
      column = 2;
    } else if (column > 0) {
      text += " ";
      ++column;
    }
    text.append(word.data(), word.size());
    column += word.size();
  }
  return text;
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
    // What may not be shown as it is can be said to a shell too: $'\x1b'.
    const std::string plain = PlainText(word);
    const bool escaped = plain != word;
    *out += escaped ? "$'" : "'";
    if (escaped) {
      *out += PlainText(absl::StrReplaceAll(word, {{"\\", "\\\\"}, {"'", "\\'"}}));
    } else {
      *out += absl::StrReplaceAll(word, {{"'", "'\\''"}});
    }
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
    out += Wrapped(PlainText(summary.report ? TraceLine(reports[*summary.report]) : absl::StrCat(summary.title, ", pooled")), terminal.width);
    out += "\n\n";
    std::vector<std::string> left_out;
    out += MakeTable(summary).Plain(terminal.width, terminal.colour, &left_out);
    if (!left_out.empty()) {
      absl::StrAppend(&out, Wrapped(PlainText(absl::StrCat("(too narrow for: ", absl::StrJoin(left_out, ", "), ")")), terminal.width), "\n");
    }
    if (summary.truth) absl::StrAppend(&out, "\n", Wrapped(PlainText(TruthSentence(summary)), terminal.width), "\n");
    if (!summary.report) continue;
    if (const TextTable where = MakeHeapMapTable(reports[*summary.report]); !where.empty()) {
      absl::StrAppend(&out, "\n", where.Plain(terminal.width, terminal.colour));
    }
    if (const TextTable who = MakeCallSiteTable(reports[*summary.report]); !who.empty()) {
      absl::StrAppend(&out, "\n", who.Plain(terminal.width, terminal.colour));
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
    absl::StrAppend(&out, "### ", MarkdownText(summary.title), "\n\n");
    if (summary.report) absl::StrAppend(&out, MarkdownText(TraceLine(reports[*summary.report])), "\n\n");
    out += MakeTable(summary).Markdown();
    if (summary.truth) absl::StrAppend(&out, "\n", MarkdownText(TruthSentence(summary)), "\n");
    if (!summary.report) continue;
    if (const TextTable where = MakeHeapMapTable(reports[*summary.report]); !where.empty()) {
      absl::StrAppend(&out, "\n", where.Markdown());
    }
    if (const TextTable who = MakeCallSiteTable(reports[*summary.report]); !who.empty()) {
      absl::StrAppend(&out, "\n", who.Markdown());
    }
  }
  const std::vector<std::string> remarks = Remarks(reports);
  if (!remarks.empty()) out += "\n";
  for (const std::string& remark : remarks) absl::StrAppend(&out, "- ", MarkdownText(remark), "\n");
  if (!reports.empty() && !reports.front().command.empty()) {
    absl::StrAppend(&out, "\nRepeat it (heaptape ", MarkdownText(reports.front().heaptape_version), ", Linux ",
                    MarkdownText(reports.front().kernel), "):\n\n", MarkdownBlock(ShellText(reports.front().command), "sh"));
  }
  return out;
}

}  // namespace heaptape
