// heaptape lab days: memory by day of a replayed ten-day trace, beside what production relays took.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/lab.h"
#include "replayer/commands/output.h"
#include "replayer/export/summary.h"
#include "replayer/export/text_table.h"
#include "replayer/steady_state.h"

namespace heaptape::commands {
namespace {

constexpr double kNsPerDay = 86400e9;
// A relay's memory goes up and down with every hour's consensus: a day's figure is the mean of its last hours.
constexpr double kAveragedNs = 6 * 3600e9;

struct DaysFlags {
  std::vector<std::string> results;
  std::string published;
  std::vector<double> days = {1, 3, 5, 7, 9};
  std::string format = "table";
};

std::optional<double> MeanBefore(const std::vector<MemoryPoint>& points, double end_ns) {
  double weighted = 0, weight = 0;
  if (points.empty() || static_cast<double>(points.back().time_ns) < end_ns - kAveragedNs / 2) return std::nullopt;
  for (std::size_t i = 1; i < points.size(); ++i) {
    const auto time = static_cast<double>(points[i].time_ns);
    if (time <= end_ns - kAveragedNs || time > end_ns) continue;
    const auto span = static_cast<double>(points[i].time_ns - points[i - 1].time_ns);
    weighted += span * points[i].bytes;
    weight += span;
  }
  if (weight == 0) return std::nullopt;
  return weighted / weight;
}

// Those who published took their figures about once a day: between two of them on a straight line.
std::optional<double> Between(const std::vector<MemoryPoint>& points, double time_ns) {
  for (std::size_t i = 1; i < points.size(); ++i) {
    const auto before = static_cast<double>(points[i - 1].time_ns), after = static_cast<double>(points[i].time_ns);
    if (time_ns < before || time_ns > after || after == before) continue;
    return points[i - 1].bytes + (points[i].bytes - points[i - 1].bytes) * (time_ns - before) / (after - before);
  }
  return std::nullopt;
}

// The mean of each group of relays over time, from its first row on, by "mimalloc 3.0.1".
absl::StatusOr<std::map<std::string, std::vector<MemoryPoint>>> ReadPublished(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadWhole(path);
  if (!text.ok()) return text.status();
  std::map<std::string, std::vector<MemoryPoint>> groups;
  std::map<std::string, absl::Time> starts;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    if (++number == 1) continue;  // names of the columns
    const std::vector<std::string> fields = absl::StrSplit(line, ',');
    absl::Time time;
    std::string error;
    char* end = nullptr;
    const double kilobytes = fields.size() > 3 ? std::strtod(fields[3].c_str(), &end) : 0;
    if (fields.size() < 4 || end == fields[3].c_str() || !absl::ParseTime("%Y-%m-%dT%H:%M:%S", fields[0], &time, &error)) {
      return absl::DataLossError(absl::StrCat(path, ": line ", number, ": wants timestamp,allocator,relays,mean_rss_kb"));
    }
    const absl::Time start = starts.emplace(fields[1], time).first->second;
    std::vector<MemoryPoint>& group = groups[fields[1]];
    const std::int64_t gone = absl::ToInt64Nanoseconds(time - start);
    if (gone < 0 || (!group.empty() && static_cast<std::uint64_t>(gone) < group.back().time_ns)) {
      return absl::DataLossError(absl::StrCat(path, ": line ", number, ": earlier than the one before it of ", fields[1]));
    }
    group.push_back({static_cast<std::uint64_t>(gone), kilobytes * 1024});
  }
  return groups;
}

std::string Mebibytes(const std::optional<double>& bytes) { return bytes ? absl::StrFormat("%.0f", *bytes / 1048576) : "-"; }

absl::Status Run(const DaysFlags& flags) {
  const absl::StatusOr<std::vector<ReplayReport>> reports = ReadResults(flags.results);
  if (!reports.ok()) return reports.status();
  std::map<std::string, std::vector<MemoryPoint>> published;
  if (!flags.published.empty()) {
    absl::StatusOr<std::map<std::string, std::vector<MemoryPoint>>> read = ReadPublished(flags.published);
    if (!read.ok()) return read.status();
    published = *std::move(read);
  }

  std::vector<Column> columns = {{"MiB at day", false}};
  for (const double day : flags.days) columns.push_back({absl::StrFormat("%g", day)});
  columns.push_back({"verdict", false});
  if (!published.empty()) {
    for (const double day : flags.days) columns.push_back({absl::StrFormat("published %g", day)});
    columns.push_back({"verdict", false});
  }
  TextTable table(columns);
  for (const ReplayReport& report : *reports) {
    std::vector<const RunResult*> runs;
    for (const RunResult& run : report.runs) runs.push_back(&run);
    std::stable_sort(runs.begin(), runs.end(), [](const RunResult* a, const RunResult* b) { return a->steady_rss_bytes < b->steady_rss_bytes; });
    for (const RunResult* run : runs) {
      std::vector<Cell> cells = {{RunLabel(*run)}};
      std::vector<MemoryPoint> points;
      for (const ReplaySample& sample : run->series) points.push_back({sample.time_ns, static_cast<double>(sample.heap_rss_bytes)});
      for (const double day : flags.days) cells.push_back({Mebibytes(MeanBefore(points, day * kNsPerDay))});
      cells.push_back({run->error ? absl::StrCat("failed: ", *run->error) : VerdictName(run->verdict)});
      if (!published.empty()) {
        const auto group = published.find(RunLabel(*run));
        for (const double day : flags.days) cells.push_back({group == published.end() ? "-" : Mebibytes(Between(group->second, day * kNsPerDay))});
        cells.push_back({group == published.end() ? "-" : VerdictName(JudgeSteadyState(group->second, Lifetime::kMayRestart).verdict)});
      }
      table.AddRow(std::move(cells));
    }
  }
  if (flags.format == "markdown") return Print(table.Markdown());
  const TerminalOptions terminal = TerminalForStdout();
  return Print(table.Plain(terminal.width, terminal.colour));
}

}  // namespace

void AddLabDays(CLI::App& lab_command, int& status) {
  auto flags = std::make_shared<DaysFlags>();
  CLI::App* command = lab_command.add_subcommand("days", "Memory by day of a replayed trace of many days, beside published figures");
  command->add_option("results", flags->results, "Files written by heaptape replay -o")->required()->type_name("RESULTS")->check(CLI::ExistingFile);
  command->add_option("--published", flags->published, "Production relays' memory: a CSV of timestamp,allocator,relays,mean_rss_kb")
      ->type_name("CSV")->check(CLI::ExistingFile);
  command->add_option("--days", flags->days, "Which days")->delimiter(',')->check(CLI::Range(0.01, 3650.0))->capture_default_str();
  command->add_option("-f,--format", flags->format, "table or markdown")->check(CLI::IsMember({"table", "markdown"}))->capture_default_str();
  command->footer(
      "A day's figure is the mean of the six hours before its end; a published one lies between its neighbours in time.\n"
      "Examples:\n"
      "  heaptape extend guard.tape --days 10 --pace 30 -o long.tape\n"
      "  heaptape replay long.tape -o long.json\n"
      "  heaptape lab days long.json --published tests/replayer/data/guard-relay-memory.csv");
  command->callback([flags, &status] {
    const absl::Status result = Run(*flags);
    if (!result.ok()) status = Fail(result);
  });
}

}  // namespace heaptape::commands
