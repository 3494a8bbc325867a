#include "replayer/compare.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "replayer/export/format.h"

namespace heaptape {
namespace {

struct FigureDefinition {
  Figure figure;
  const char* name;
  Band SummaryRow::*band;
  std::string (*format)(double);
};

std::string CountText(double count) { return FormatCount(static_cast<std::uint64_t>(std::max(count, 0.0))); }
std::string TimeText(double ns) { return FormatDuration(static_cast<std::uint64_t>(std::max(ns, 0.0))); }

const FigureDefinition kFigures[] = {
    {Figure::kPeak, "peak", &SummaryRow::peak_rss_bytes, FormatBytes},
    {Figure::kSteady, "steady", &SummaryRow::steady_rss_bytes, FormatBytes},
    {Figure::kEnd, "end", &SummaryRow::end_rss_bytes, FormatBytes},
    {Figure::kGrowth, "growth", &SummaryRow::growth_bytes_per_day, FormatGrowth},
    {Figure::kFaults, "faults", &SummaryRow::minor_faults, CountText},
    {Figure::kSystemCalls, "syscalls", &SummaryRow::system_calls, CountText},
    {Figure::kTime, "time", &SummaryRow::wall_ns, TimeText},
};

const FigureDefinition& DefinitionOf(Figure figure) {
  return *std::find_if(std::begin(kFigures), std::end(kFigures),
                       [&](const FigureDefinition& definition) { return definition.figure == figure; });
}

// 0 where the unit does not suit the figure.
double UnitFactor(Figure figure, std::string unit) {
  const bool bytes = figure == Figure::kPeak || figure == Figure::kSteady || figure == Figure::kEnd;
  if (figure == Figure::kGrowth) {
    const std::string per_day = "/day";
    if (unit.size() < per_day.size() || unit.substr(unit.size() - per_day.size()) != per_day) return 0;
    unit.resize(unit.size() - per_day.size());
  } else if (figure == Figure::kTime) {
    return unit == "s" ? 1e9 : unit == "ms" ? 1e6 : 0;
  } else if (!bytes) {
    return unit.empty() ? 1 : 0;
  }
  const std::pair<const char*, double> units[] = {{"B", 1},           {"KB", 1e3},         {"MB", 1e6},
                                                  {"GB", 1e9},        {"KiB", 0x1p10},     {"MiB", 0x1p20},
                                                  {"GiB", 0x1p30}};
  for (const auto& [name, factor] : units) {
    if (unit == name) return factor;
  }
  return 0;
}

// How far a slope may lie from the one measured: half of its interval.
double SlopeDoubt(const SummaryRow& row) { return (row.growth_high_bytes_per_day - row.growth_low_bytes_per_day) / 2; }

bool Failed(const SummaryRow& row) { return row.failed_runs == row.runs; }

// The row of `rows` that stands for the same allocator: same label, or the only one of its family with
// the same tunables.
const SummaryRow* Counterpart(const SummaryRow& row, const std::vector<SummaryRow>& rows) {
  const SummaryRow* found = nullptr;
  for (const SummaryRow& candidate : rows) {
    if (candidate.label == row.label) return &candidate;
  }
  for (const SummaryRow& candidate : rows) {
    if (candidate.allocator != row.allocator || candidate.tunables != row.tunables) continue;
    if (found != nullptr) return nullptr;
    found = &candidate;
  }
  return found;
}

std::optional<std::string> BrokenBound(const Change& change, const std::vector<Bound>& bounds) {
  for (const Bound& bound : bounds) {
    if (bound.figure != change.figure) continue;
    const double limit = bound.relative ? bound.limit * std::fabs(change.base) : bound.limit;
    if (change.difference() > limit && change.difference() > change.noise) return bound.text;
  }
  return std::nullopt;
}

std::string BrokenSentence(const std::string& name, const ComparedRow& row, const Change& change) {
  const auto text = [&](double value) { return FigureText(row, change.figure, value); };
  std::string by = text(change.difference());
  if (absl::StartsWith(by, "+")) by.erase(0, 1);
  std::string sentence = absl::StrCat(name, ": ", FigureName(change.figure), " is up by ", by);
  if (change.base > 0 && change.figure != Figure::kGrowth) {
    absl::StrAppend(&sentence, " (", FormatShare(change.now / change.base - 1), ")");
  }
  absl::StrAppend(&sentence, ", from ", text(change.base), " to ", text(change.now), "; allowed is ", *change.broken);
  if (change.figure == Figure::kGrowth && row.short_window_ns > 0) absl::StrAppend(&sentence, ", which is ", FormatGrowth(change.difference()), " here");
  return sentence;
}

const ReplayReport* SameTrace(const ReplayReport& report, const std::vector<ReplayReport>& others) {
  for (const ReplayReport& other : others) {
    if (other.trace.digest == report.trace.digest) return &other;
  }
  return nullptr;
}

}  // namespace

std::string FigureText(const ComparedRow& row, Figure figure, double value) {
  if (figure == Figure::kGrowth && row.short_window_ns > 0) return FormatGrowthSeen(value, row.short_window_ns);
  return DefinitionOf(figure).format(value);
}

const char* FigureName(Figure figure) { return DefinitionOf(figure).name; }

absl::StatusOr<Bound> ParseBound(const std::string& text) {
  const auto wrong = [&](const std::string& why) {
    return absl::InvalidArgumentError(
        absl::StrCat("bound \"", text, "\": ", why, "; write it like peak=+5%, steady=+20MiB or growth=+10MB/day"));
  };
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) return wrong("it has no \"=\"");
  const std::string name = text.substr(0, equals);
  const auto definition = std::find_if(std::begin(kFigures), std::end(kFigures),
                                       [&](const FigureDefinition& figure) { return name == figure.name; });
  if (definition == std::end(kFigures)) {
    std::string names;
    for (const FigureDefinition& figure : kFigures) absl::StrAppend(&names, names.empty() ? "" : ", ", figure.name);
    return wrong(absl::StrCat("there is no figure \"", name, "\", only ", names));
  }
  Bound bound{.figure = definition->figure, .text = text.substr(equals + 1)};
  const char* start = bound.text.c_str();
  char* end = nullptr;
  const double value = std::strtod(start, &end);
  if (end == start || !std::isfinite(value)) return wrong("it has no number");
  if (value < 0) return wrong("it is negative");
  const std::string unit = end;
  if (unit == "%") {
    bound.relative = true;
    bound.limit = value / 100;
    return bound;
  }
  const double factor = UnitFactor(bound.figure, unit);
  if (factor == 0) return wrong(unit.empty() ? "it has no unit" : absl::StrCat("the unit \"", unit, "\" does not suit it"));
  bound.limit = value * factor;
  return bound;
}

absl::StatusOr<Comparison> Compare(const std::vector<ReplayReport>& base, const std::vector<ReplayReport>& now,
                                   const std::vector<Bound>& bounds) {
  Comparison comparison;
  bool common = false;
  for (const ReplayReport& base_report : base) {
    const ReplayReport* now_report = SameTrace(base_report, now);
    if (now_report == nullptr) continue;
    common = true;
    const auto base_summaries = Summarize({base_report}, {.sort = SortKey::kName});
    const auto now_summaries = Summarize({*now_report}, {.sort = SortKey::kName});
    if (!base_summaries.ok()) return base_summaries.status();
    if (!now_summaries.ok()) return now_summaries.status();
    const std::string title = base_summaries->front().title;
    for (const SummaryRow& base_row : base_summaries->front().rows) {
      const SummaryRow* now_row = Counterpart(base_row, now_summaries->front().rows);
      ComparedRow row{.trace = title, .label = now_row ? now_row->label : base_row.label, .base_verdict = base_row.verdict};
      const std::string name = base.size() > 1 ? absl::StrCat(title, ", ", row.label) : row.label;
      if (now_row == nullptr) {
        row.failure = "missing in the new results";
      } else {
        row.now_verdict = now_row->verdict;
        if (now_row->failed_runs > base_row.failed_runs) row.failure = absl::StrCat("fails now: ", now_row->error);
      }
      if (now_row != nullptr && !Failed(*now_row) && !Failed(base_row)) {
        if (!base_row.growth_by_day || !now_row->growth_by_day) {
          row.short_window_ns = static_cast<std::uint64_t>(std::min(base_row.steady_window_ns.median, now_row->steady_window_ns.median));
        }
        for (const FigureDefinition& figure : kFigures) {
          const Band& before = base_row.*figure.band;
          const Band& after = now_row->*figure.band;
          Change change{.figure = figure.figure, .base = before.median, .now = after.median,
                        .noise = std::max(before.high - before.low, after.high - after.low)};
          if (figure.figure == Figure::kGrowth) change.noise = std::max({change.noise, SlopeDoubt(base_row), SlopeDoubt(*now_row)});
          change.broken = BrokenBound(change, bounds);
          if (change.broken) comparison.broken.push_back(BrokenSentence(name, row, change));
          row.changes.push_back(change);
        }
      }
      if (!row.failure.empty() && !bounds.empty()) comparison.broken.push_back(absl::StrCat(name, ": ", row.failure));
      comparison.rows.push_back(std::move(row));
    }
  }
  if (!common) {
    return absl::FailedPreconditionError("the two results are of different recordings; compare results of the same one");
  }
  return comparison;
}

}  // namespace heaptape
