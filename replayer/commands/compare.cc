// heaptape compare: two results of the same recordings, what changed, and whether that may be.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "replayer/commands/commands.h"
#include "replayer/commands/output.h"
#include "replayer/commands/talk.h"
#include "replayer/compare.h"
#include "replayer/export/external_text.h"
#include "replayer/export/format.h"
#include "replayer/export/text_table.h"

namespace heaptape::commands {
namespace {

enum class Format { kTable, kJson, kMarkdown };

struct CompareArguments {
  std::string base, now;
  std::vector<std::string> bounds;
  Format format = Format::kTable;
};

Cell ChangeCell(const ComparedRow& row, Figure figure) {
  const auto format = [&](double value) { return FigureText(row, figure, value); };
  for (const Change& change : row.changes) {
    if (change.figure != figure) continue;
    if (change.difference() == 0) return {absl::StrCat(format(change.now), " (same)"), Colour::kDim};
    // A slope may be near zero or change its sign: there only the difference says something.
    const std::string by = figure == Figure::kGrowth || change.base <= 0 ? format(change.difference())
                                                                           : FormatShare(change.now / change.base - 1);
    const std::string text = absl::StrCat(format(change.now), " (", by, change.within_noise() ? ", noise" : "", ")");
    if (change.broken) return {text, Colour::kRed};
    if (change.within_noise()) return {text, Colour::kDim};
    return {text, change.difference() < 0 ? Colour::kGreen : Colour::kYellow};
  }
  return {"-"};
}

TextTable MakeTable(const Comparison& comparison, bool several_traces) {
  std::vector<Column> columns = {{"allocator", false, 100}, {"peak", true, 80},     {"steady", true, 90},
                                 {"end", true, 40},         {"growth", true, 70},   {"verdict", false, 60},
                                 {"result", false, 95}};
  if (several_traces) columns.insert(columns.begin(), {"trace", false, 99});
  TextTable table(columns);
  for (const ComparedRow& row : comparison.rows) {
    bool broken = !row.failure.empty();
    for (const Change& change : row.changes) broken |= change.broken.has_value();
    const std::string before = VerdictName(row.base_verdict), after = VerdictName(row.now_verdict);
    std::vector<Cell> cells = {{row.label},
                               ChangeCell(row, Figure::kPeak),
                               ChangeCell(row, Figure::kSteady),
                               ChangeCell(row, Figure::kEnd),
                               ChangeCell(row, Figure::kGrowth),
                               {before == after ? after : absl::StrCat(before, " -> ", after)},
                               {broken ? "broken" : "ok", broken ? Colour::kRed : Colour::kGreen}};
    if (several_traces) cells.insert(cells.begin(), {row.trace});
    table.AddRow(std::move(cells));
  }
  return table;
}

std::string ToJson(const Comparison& comparison) {
  nlohmann::ordered_json json;
  json["schema_version"] = 1;
  json["broken"] = comparison.broken;
  json["rows"] = nlohmann::ordered_json::array();
  for (const ComparedRow& row : comparison.rows) {
    nlohmann::ordered_json& out = json["rows"].emplace_back();
    out["trace"] = row.trace;
    out["allocator"] = row.label;
    out["base_verdict"] = VerdictName(row.base_verdict);
    out["new_verdict"] = VerdictName(row.now_verdict);
    out["failure"] = row.failure.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(row.failure);
    out["growth_by_day"] = row.short_window_ns == 0;
    out["changes"] = nlohmann::ordered_json::object();
    for (const Change& change : row.changes) {
      nlohmann::ordered_json& figure = out["changes"][FigureName(change.figure)];
      figure["base"] = change.base;
      figure["new"] = change.now;
      figure["noise"] = change.noise;
      figure["broken"] = change.broken ? nlohmann::ordered_json(*change.broken) : nlohmann::ordered_json(nullptr);
    }
  }
  return JsonText(json) + "\n";
}

int RunCompare(const CompareArguments& arguments) {
  std::vector<Bound> bounds;
  for (const std::string& text : arguments.bounds) {
    const absl::StatusOr<Bound> bound = ParseBound(text);
    if (!bound.ok()) return Fail(bound.status());
    bounds.push_back(*bound);
  }
  const absl::StatusOr<std::vector<ReplayReport>> base = ReadResults({arguments.base});
  if (!base.ok()) return Fail(base.status());
  const absl::StatusOr<std::vector<ReplayReport>> now = ReadResults({arguments.now});
  if (!now.ok()) return Fail(now.status());
  const absl::StatusOr<Comparison> comparison = Compare(*base, *now, bounds);
  if (!comparison.ok()) return Fail(comparison.status());

  const TextTable table = MakeTable(*comparison, base->size() > 1);
  const TerminalOptions terminal = TerminalForStdout();
  std::string text;
  switch (arguments.format) {
    case Format::kTable:
      text = table.Plain(terminal.width, terminal.colour);
      break;
    case Format::kMarkdown:
      text = table.Markdown();
      for (const std::string& broken : comparison->broken) absl::StrAppend(&text, "\n**Broken:** ", MarkdownText(broken), "\n");
      break;
    case Format::kJson:
      text = ToJson(*comparison);
      break;
  }
  if (const absl::Status printed = Print(text); !printed.ok()) return Fail(printed);
  for (const std::string& broken : comparison->broken) Tell(broken);
  return comparison->broken.empty() ? kExitDone : kExitThresholdExceeded;
}

}  // namespace

void AddCompare(CLI::App& program, int& status) {
  static const std::map<std::string, Format> kFormats = {
      {"table", Format::kTable}, {"json", Format::kJson}, {"markdown", Format::kMarkdown}};
  auto arguments = std::make_shared<CompareArguments>();
  CLI::App* command = program.add_subcommand("compare", "Compare two results; fail where memory grew more than allowed");
  command->add_option("base", arguments->base, "Results before, written by heaptape replay -o")->required()->type_name("BASE");
  command->add_option("new", arguments->now, "Results after, of the same recordings")->required()->type_name("NEW");
  command->add_option("--max", arguments->bounds,
                      "Largest increase allowed of peak, steady, end, growth, faults, syscalls or time; may be given several "
                      "times. An increase within the band over the seeds is noise and breaks nothing")
      ->type_name("FIGURE=+LIMIT")->allow_extra_args(false);
  command->add_option("-f,--format", arguments->format, "What is printed (default: table)")
      ->transform(OneOf(kFormats))->type_name("table|json|markdown");
  command->footer(
      "Exit status: 0 nothing broken, 1 failed, 2 wrong usage, 3 a bound is broken\n\n"
      "Examples:\n"
      "  heaptape compare base.json new.json --max peak=+5% --max steady=+3% --max growth=+10MB/day\n"
      "  heaptape compare base.json new.json --format markdown >> comment.md");
  command->callback([arguments, &status] { status = RunCompare(*arguments); });
}

}  // namespace heaptape::commands
