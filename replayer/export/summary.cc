#include "replayer/export/summary.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <map>
#include <set>
#include <tuple>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "replayer/export/format.h"
#include "replayer/steady_state.h"

namespace heaptape {
namespace {

// Identical programs beside each other differ by up to so much.
constexpr double kTruthTolerance = 0.15;

Band BandOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  const double median = values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back()};
}

std::uint64_t Total(const SystemCalls& calls) {
  return calls.mmap + calls.munmap + calls.mremap + calls.madvise + calls.mprotect + calls.brk;
}

double Overhead(const RunResult& run) {
  if (run.steady_live_bytes == 0) return 0;
  return static_cast<double>(run.steady_rss_bytes) / static_cast<double>(run.steady_live_bytes) - 1;
}

template <std::uint64_t RunResult::*figure>
double Count(const RunResult& run) {
  return static_cast<double>(run.*figure);
}

// Most runs' verdict; the worse of equals. Verdicts ascend in how bad they are, but for "settling",
// which says least.
Verdict CommonVerdict(const std::vector<const RunResult*>& runs) {
  const Verdict by_weight[] = {Verdict::kFailed, Verdict::kBloating, Verdict::kGrowing, Verdict::kSettling,
                               Verdict::kStable};
  Verdict common = Verdict::kFailed;
  std::ptrdiff_t most = 0;
  for (const Verdict verdict : by_weight) {
    const auto count = std::count_if(runs.begin(), runs.end(), [&](const RunResult* r) { return r->verdict == verdict; });
    if (count > most) {
      most = count;
      common = verdict;
    }
  }
  return common;
}

// What makes two runs the same row: everything but trace and seed.
using RowKey = std::tuple<std::string, std::string, std::string, std::string, std::string, std::string>;

std::string SettingsText(const ReplaySettings& settings) {
  return absl::StrCat(settings.engine, " ", settings.clock, " ", settings.touch, " ", settings.huge_pages, " ",
                      settings.cpu_count);
}

RowKey KeyOf(const RunResult& run) {
  return {run.allocator, run.version, TunablesText(run), SettingsText(run.settings), run.origin, run.library_path};
}

using Groups = std::vector<std::pair<RowKey, std::vector<const RunResult*>>>;  // in order of appearance

Groups GroupRuns(const std::vector<const RunResult*>& runs) {
  Groups groups;
  for (const RunResult* run : runs) {
    const RowKey key = KeyOf(*run);
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == key; });
    if (group == groups.end()) {
      groups.push_back({key, {}});
      group = groups.end() - 1;
    }
    group->second.push_back(run);
  }
  return groups;
}

SummaryRow RowOf(const std::vector<const RunResult*>& runs) {
  SummaryRow row;
  row.label = RunLabel(*runs.front());
  row.allocator = runs.front()->allocator;
  row.version = runs.front()->version;
  row.tunables = TunablesText(*runs.front());
  row.runs = runs.size();
  row.verdict = CommonVerdict(runs);
  std::vector<const RunResult*> good;
  for (const RunResult* run : runs) {
    if (!run->error) {
      good.push_back(run);
    } else {
      ++row.failed_runs;
      if (row.error.empty()) row.error = *run->error;
    }
  }
  const auto band = [](const std::vector<const RunResult*>& of, const auto& figure) {
    std::vector<double> values;
    values.reserve(of.size());
    for (const RunResult* run : of) values.push_back(figure(*run));
    return BandOf(std::move(values));
  };
  for (const RowFigure& figure : RowFigures()) row.*figure.band = band(good, figure.of);
  // Beside growth by the day, what was seen for a minute says nothing.
  std::vector<const RunResult*> growing;
  std::copy_if(good.begin(), good.end(), std::back_inserter(growing), [](const RunResult* run) { return SaysGrowthByDay(run->steady_window_ns); });
  row.growth_by_day = !growing.empty();
  if (growing.empty()) growing = good;
  row.growth_bytes_per_day = band(growing, [](const RunResult& run) { return run.growth_bytes_per_day; });
  row.growth_low_bytes_per_day = band(growing, [](const RunResult& run) { return run.growth_low_bytes_per_day; }).median;
  row.growth_high_bytes_per_day = band(growing, [](const RunResult& run) { return run.growth_high_bytes_per_day; }).median;
  return row;
}

// Rows that would bear the same name are told apart by what differs between them: their settings, else where
// the library comes from, else its file.
void MakeLabelsUnique(std::vector<SummaryRow>& rows, const Groups& groups) {
  const auto differences = {+[](const RowKey& key) { return std::get<3>(key); }, +[](const RowKey& key) { return std::get<4>(key); },
                            +[](const RowKey& key) { return std::get<5>(key); }};
  for (const auto difference : differences) {
    std::map<std::string, std::set<std::string>> values;
    for (std::size_t i = 0; i < rows.size(); ++i) values[rows[i].label].insert(difference(groups[i].first));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (values[rows[i].label].size() > 1) absl::StrAppend(&rows[i].label, " (", difference(groups[i].first), ")");
    }
  }
}

// The rows of the version the trace was recorded under, else those of its family.
void MarkRecordedUnder(std::vector<SummaryRow>& rows, const std::string& recorded_under) {
  const auto same_version = [&](const SummaryRow& row) { return absl::StrCat(row.allocator, " ", row.version) == recorded_under; };
  const bool version_is_there = std::any_of(rows.begin(), rows.end(), same_version);
  for (SummaryRow& row : rows) {
    row.recorded_under = version_is_there ? same_version(row) : recorded_under.substr(0, recorded_under.find(' ')) == row.allocator;
  }
}

bool Failed(const SummaryRow& row) { return row.failed_runs == row.runs; }

bool Before(const SummaryRow& a, const SummaryRow& b, SortKey key) {
  if (Failed(a) != Failed(b)) return Failed(b);
  const auto by = [](double x, double y, const SummaryRow& a, const SummaryRow& b) {
    return std::tie(x, a.label) < std::tie(y, b.label);
  };
  switch (key) {
    case SortKey::kSteady:
      return by(a.steady_rss_bytes.median, b.steady_rss_bytes.median, a, b);
    case SortKey::kPeak:
      return by(a.peak_rss_bytes.median, b.peak_rss_bytes.median, a, b);
    case SortKey::kEnd:
      return by(a.end_rss_bytes.median, b.end_rss_bytes.median, a, b);
    case SortKey::kGrowth:
      return by(a.growth_bytes_per_day.median, b.growth_bytes_per_day.median, a, b);
    case SortKey::kOverhead:
      return by(a.overhead_share.median, b.overhead_share.median, a, b);
    case SortKey::kFaults:
      return by(a.minor_faults.median, b.minor_faults.median, a, b);
    case SortKey::kSystemCalls:
      return by(a.system_calls.median, b.system_calls.median, a, b);
    case SortKey::kTime:
      return by(a.wall_ns.median, b.wall_ns.median, a, b);
    case SortKey::kVerdict:
      return by(static_cast<double>(a.verdict), static_cast<double>(b.verdict), a, b);
    case SortKey::kName:
      break;
  }
  return a.label < b.label;
}

const SummaryRow* FindBaseline(const std::vector<SummaryRow>& rows, std::string name) {
  std::replace(name.begin(), name.end(), '@', ' ');
  const SummaryRow* best = nullptr;
  for (const SummaryRow& row : rows) {
    if (row.label == name) return &row;
    if (row.label.rfind(name, 0) != 0 || Failed(row)) continue;
    if (best == nullptr || row.steady_rss_bytes.median < best->steady_rss_bytes.median) best = &row;
  }
  return best;
}

std::optional<GroundTruth> TruthOf(const ReplayReport& report, const std::vector<SummaryRow>& rows) {
  if (report.truth.empty()) return std::nullopt;
  GroundTruth truth;
  std::vector<MemoryPoint> points;
  for (const TruthSample& sample : report.truth) {
    points.push_back({sample.time_ns, static_cast<double>(sample.heap_rss_bytes)});
    truth.peak_bytes = std::max(truth.peak_bytes, points.back().bytes);
  }
  const SteadyState state = JudgeSteadyState(points);
  truth.steady_bytes = state.steady_bytes;
  truth.growth_bytes_per_day = state.growth_bytes_per_day;
  truth.steady_window_ns = state.window_ns;
  truth.verdict = state.verdict;
  truth.recorded_under = report.trace.recorded_under;
  for (const SummaryRow& row : rows) {
    if (truth.row.empty() && row.recorded_under && !Failed(row) && row.tunables.empty()) truth.row = row.label;
  }
  return truth;
}

std::string AdviceOnLength(const std::vector<ReplayReport>& reports) {
  std::uint64_t shortest = kDayRateWindowNs, longest = 0;
  for (const ReplayReport& report : reports) {
    for (const RunResult& run : report.runs) {
      if (run.error || SaysGrowthByDay(run.steady_window_ns)) continue;
      shortest = std::min(shortest, run.steady_window_ns);
      longest = std::max(longest, run.steady_window_ns);
    }
  }
  if (shortest == kDayRateWindowNs) return "";
  return absl::StrCat("the steady state was seen for ", FormatDuration(shortest),
                      FormatDuration(shortest) == FormatDuration(longest) ? "" : absl::StrCat(" to ", FormatDuration(longest)),
                      " only: growth is shown as it was seen, and whether it goes on for days cannot be said; record for ",
                      2 * kDayRateWindowNs / 60'000'000'000, " minutes or longer");
}

const SummaryRow* RowOfTruth(const Summary& summary) {
  if (!summary.truth) return nullptr;
  const auto row = std::find_if(summary.rows.begin(), summary.rows.end(),
                                [&](const SummaryRow& candidate) { return candidate.label == summary.truth->row; });
  return row == summary.rows.end() ? nullptr : &*row;
}

std::string AdviceOnTruth(const Summary& summary) {
  const SummaryRow* row = RowOfTruth(summary);
  if (row == nullptr || summary.truth->steady_bytes <= 0) return "";
  const double difference = row->steady_rss_bytes.median / summary.truth->steady_bytes - 1;
  if (std::fabs(difference) <= kTruthTolerance) return "";
  return absl::StrCat(summary.title, ": the replay under ", row->label, " differs by ", FormatShare(difference),
                      " from the recorded process, in which the program's own mappings count too: trust the order of the allocators more than the levels; "
                      "replayer/ENGINE.md says where a replay can differ");
}

absl::Status SetBaseline(Summary& summary, const ViewOptions& options) {
  const SummaryRow* baseline = FindBaseline(summary.rows, options.baseline);
  if (baseline == nullptr && !options.baseline.empty()) {
    std::vector<std::string> labels;
    for (const SummaryRow& row : summary.rows) labels.push_back(row.label);
    return absl::InvalidArgumentError(absl::StrCat("no result bears the baseline's name \"", options.baseline,
                                                   "\"; there are: ", absl::StrJoin(labels, ", ")));
  }
  if (baseline == nullptr || Failed(*baseline)) return absl::OkStatus();
  summary.baseline = baseline->label;
  const double base = baseline->steady_rss_bytes.median;
  for (SummaryRow& row : summary.rows) {
    if (!Failed(row) && base > 0) row.ratio = row.steady_rss_bytes.median / base;
  }
  return absl::OkStatus();
}

}  // namespace

std::span<const RowFigure> RowFigures() {
  static constexpr RowFigure kFigures[] = {
      {"peak_rss_bytes", &SummaryRow::peak_rss_bytes, Count<&RunResult::peak_rss_bytes>},
      {"steady_rss_bytes", &SummaryRow::steady_rss_bytes, Count<&RunResult::steady_rss_bytes>},
      {"end_rss_bytes", &SummaryRow::end_rss_bytes, Count<&RunResult::end_rss_bytes>},
      {"growth_bytes_per_day", &SummaryRow::growth_bytes_per_day, [](const RunResult& run) { return run.growth_bytes_per_day; }},
      {"steady_window_ns", &SummaryRow::steady_window_ns, Count<&RunResult::steady_window_ns>},
      {"peak_live_bytes", &SummaryRow::peak_live_bytes, Count<&RunResult::peak_live_bytes>},
      {"steady_live_bytes", &SummaryRow::steady_live_bytes, Count<&RunResult::steady_live_bytes>},
      {"overhead_share", &SummaryRow::overhead_share, Overhead},
      {"minor_faults", &SummaryRow::minor_faults, Count<&RunResult::minor_faults>},
      {"system_calls", &SummaryRow::system_calls, [](const RunResult& run) { return static_cast<double>(Total(run.system_calls)); }},
      {"wall_ns", &SummaryRow::wall_ns, Count<&RunResult::wall_ns>}};
  return kFigures;
}

std::string TunablesText(const RunResult& run) {
  return absl::StrJoin(run.tunables, ",", absl::PairFormatter("="));
}

std::string RunLabel(const RunResult& run) {
  std::string label = run.allocator;
  if (!run.version.empty()) absl::StrAppend(&label, " ", run.version);
  if (!run.tunables.empty()) absl::StrAppend(&label, " ", TunablesText(run));
  return label;
}

absl::StatusOr<std::vector<Summary>> Summarize(const std::vector<ReplayReport>& reports, const ViewOptions& options) {
  std::vector<Summary> summaries;
  std::vector<const RunResult*> all;
  // Ratios to the baseline of each trace, by row, for the pooled ratio.
  std::map<std::string, std::vector<double>> ratios;
  const auto sort = [&](Summary& summary) {
    std::stable_sort(summary.rows.begin(), summary.rows.end(),
                     [&](const SummaryRow& a, const SummaryRow& b) { return Before(a, b, options.sort); });
  };
  const auto fill_rows = [](Summary& summary, const std::vector<const RunResult*>& runs) {
    const Groups groups = GroupRuns(runs);
    for (const auto& [key, group] : groups) summary.rows.push_back(RowOf(group));
    MakeLabelsUnique(summary.rows, groups);
  };
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const ReplayReport& report = reports[i];
    std::vector<const RunResult*> runs;
    for (const RunResult& run : report.runs) runs.push_back(&run);
    all.insert(all.end(), runs.begin(), runs.end());
    Summary summary;
    summary.report = i;
    summary.title = std::filesystem::path(report.trace.path).filename().string();
    fill_rows(summary, runs);
    MarkRecordedUnder(summary.rows, report.trace.recorded_under);
    summary.truth = TruthOf(report, summary.rows);
    if (absl::Status status = SetBaseline(summary, options); !status.ok()) return status;
    sort(summary);
    for (const SummaryRow& row : summary.rows) {
      if (row.ratio) ratios[row.label].push_back(*row.ratio);
    }
    summaries.push_back(std::move(summary));
  }
  if (reports.size() < 2) return summaries;

  Summary pooled;
  pooled.title = absl::StrCat("all ", reports.size(), " traces");
  fill_rows(pooled, all);
  if (absl::Status status = SetBaseline(pooled, options); !status.ok()) return status;
  // The pooled ratio is the geometric mean of the traces' own: a large relay weighs no more than a small one.
  for (SummaryRow& row : pooled.rows) {
    const std::vector<double>& own = ratios[row.label];
    const double base = [&] {
      double logarithms = 0;
      for (const double ratio : ratios[pooled.baseline]) logarithms += std::log(ratio);
      return ratios[pooled.baseline].empty() ? 0 : logarithms / static_cast<double>(ratios[pooled.baseline].size());
    }();
    double logarithms = 0;
    for (const double ratio : own) logarithms += std::log(ratio);
    row.ratio.reset();
    if (!own.empty()) row.ratio = std::exp(logarithms / static_cast<double>(own.size()) - base);
  }
  sort(pooled);
  summaries.push_back(std::move(pooled));
  return summaries;
}

std::string GrowthText(const SummaryRow& row) {
  const double low = row.growth_low_bytes_per_day, high = row.growth_high_bytes_per_day;
  const auto window_ns = static_cast<std::uint64_t>(row.steady_window_ns.median);
  const auto text = [&](double bytes_per_day) {
    return row.growth_by_day ? FormatGrowth(bytes_per_day) : FormatGrowthSeen(bytes_per_day, window_ns);
  };
  if (low > 0 || high < 0) {
    const Band& band = row.growth_bytes_per_day;
    const std::string least = text(band.low), most = text(band.high);
    return absl::StrCat(text(band.median), !row.growth_by_day || least == most ? "" : absl::StrCat(" (", least, " .. ", most, ")"));
  }
  const std::string bound = text(std::max(-low, high));
  return bound.starts_with('+') ? absl::StrCat("±", bound.substr(1)) : bound;
}

std::string TruthSentence(const Summary& summary) {
  if (!summary.truth) return "";
  const GroundTruth& truth = *summary.truth;
  std::string sentence = absl::StrCat("recorded process");
  if (!truth.recorded_under.empty()) absl::StrAppend(&sentence, " (", truth.recorded_under, ")");
  absl::StrAppend(&sentence, ": peak ", FormatBytes(truth.peak_bytes), ", steady ", FormatBytes(truth.steady_bytes));
  const SummaryRow* row = RowOfTruth(summary);
  if (row == nullptr) return sentence;
  const auto beside = [](double replayed, double recorded) {
    return recorded > 0 ? absl::StrCat(FormatBytes(replayed), " (", FormatShare(replayed / recorded - 1), ")")
                        : FormatBytes(replayed);
  };
  absl::StrAppend(&sentence, "; replay under ", row->label, ": peak ",
                  beside(row->peak_rss_bytes.median, truth.peak_bytes), ", steady ",
                  beside(row->steady_rss_bytes.median, truth.steady_bytes));
  return sentence;
}

std::vector<std::string> Remarks(const std::vector<ReplayReport>& reports) {
  std::vector<std::string> remarks;
  // A sentence that several allocators share is said once, of all of them.
  std::vector<std::pair<std::string, std::vector<std::string>>> sentences;
  std::set<std::string> labels;
  const auto add = [&](const std::string& label, const std::string& sentence) {
    auto known = std::find_if(sentences.begin(), sentences.end(), [&](const auto& s) { return s.first == sentence; });
    if (known == sentences.end()) known = sentences.insert(sentences.end(), {sentence, {}});
    if (std::find(known->second.begin(), known->second.end(), label) == known->second.end()) known->second.push_back(label);
  };
  for (const ReplayReport& report : reports) {
    if (!report.trace.complete) remarks.push_back(report.trace.path + ": the recording was not finished in good order");
    if (report.trace.segment_start_ns != 0) {
      remarks.push_back(absl::StrCat(report.trace.path, ": begins ", FormatDuration(report.trace.segment_start_ns),
                                     " after its recording's start with what was alive then: what an allocator would still hold of the time before is not in "
                                     "the figures; heaptape join makes one trace of its segments"));
    }
    if (const auto& frees = report.trace.unmatched_frees; frees && frees->HideHeap(report.trace.events)) {
      remarks.push_back(absl::StrCat(report.trace.path, ": ", MissingHeapSentence(*frees)));
    }
    const std::string where = reports.size() > 1 ? absl::StrCat(" on ", report.trace.path) : "";
    for (const RunResult& run : report.runs) {
      const std::string label = RunLabel(run);
      labels.insert(label);
      if (run.error) add(label, absl::StrCat("failed", where, ": ", *run.error));
      for (const std::string& note : run.notes) add(label, note);
    }
  }
  if (std::string advice = AdviceOnLength(reports); !advice.empty()) remarks.push_back(std::move(advice));
  const absl::StatusOr<std::vector<Summary>> summaries = Summarize(reports, {});
  for (const Summary& summary : summaries.ok() ? *summaries : std::vector<Summary>()) {
    if (std::string advice = AdviceOnTruth(summary); !advice.empty()) remarks.push_back(std::move(advice));
  }
  for (const auto& [sentence, who] : sentences) {
    const bool everyone = who.size() == labels.size() && labels.size() > 1;
    remarks.push_back(everyone ? sentence : absl::StrCat(absl::StrJoin(who, ", "), ": ", sentence));
  }
  return remarks;
}

}  // namespace heaptape
