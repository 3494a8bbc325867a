#include "replayer/bisect/history_report.h"

#include <algorithm>
#include <cmath>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "replayer/export/external_text.h"
#include "replayer/export/format.h"
#include "replayer/export/table.h"
#include "replayer/export/text_table.h"

namespace heaptape {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kBarColumns = 24;

std::string Padded(const std::string& text, std::size_t columns, bool right = false) {
  const std::string space(columns > DisplayWidth(text) ? columns - DisplayWidth(text) : 0, ' ');
  return right ? space + text : text + space;
}

// A bar of `share` of kBarColumns, to an eighth of a column.
std::string Bar(double share) {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * kBarColumns * 8));
  std::string bar;
  for (int i = 0; i < eighths / 8; ++i) bar += "█";
  return bar + kEighths[eighths % 8];
}

double HighestValue(const std::vector<Measurement>& measurements) {
  double highest = 0;
  for (const Measurement& measurement : measurements) {
    if (measurement.measured()) highest = std::max(highest, measurement.value);
  }
  return highest;
}

std::string ValueText(Metric metric, const Measurement& measurement) {
  return measurement.measured() ? FormatMetric(metric, measurement.value) : "-";
}

// Of a reason for skipping, without the end of the build's log and its place.
std::string FirstLine(const std::string& text) {
  const std::string line = text.substr(0, text.find('\n'));
  return line.substr(0, line.find(". The end of "));
}

// What a row says beside its figure.
std::string RowMark(const HistoryReport& report, std::size_t index) {
  const Measurement& measurement = ShownMeasurements(report)[index];
  if (!measurement.measured()) return "skipped";
  if (report.bisection.has_value()) {
    const Bisection& bisection = *report.bisection;
    if (bisection.end == Bisection::End::kFound && bisection.first->commit.hash == measurement.commit.hash) {
      return absl::StrCat("first ", JudgementName(measurement.judgement));
    }
    return JudgementName(measurement.judgement);
  }
  for (const Step& step : LargestSteps(report.threshold, report.sweep)) {
    if (step.to == index) return step.change > 0 ? "step up" : "step down";
  }
  return "";
}

// "112.0 MiB -> 710.2 MiB (6.34x)"
std::string Change(Metric metric, const Measurement& from, const Measurement& to) {
  const std::string ratio = metric == Metric::kGrowth || from.value <= 0 ? "" : FormatRatio(to.value / from.value);
  return absl::StrCat(FormatMetric(metric, from.value), " -> ", FormatMetric(metric, to.value),
                      ratio.empty() ? "" : absl::StrCat(" (", ratio, ")"));
}

std::string CommitText(const Commit& commit) {
  return absl::StrCat(commit.hash, " of ", commit.date, " by ", commit.author, ": ", commit.subject);
}

// The ends between which the largest step of a sweep lies, as options of `heaptape bisect`.
std::string BisectOptionsOf(const Step& step, const std::vector<Measurement>& sweep) {
  const std::string& from = sweep[step.from].commit.name;
  const std::string& to = sweep[step.to].commit.name;
  return step.change > 0 ? absl::StrCat("--good ", from, " --bad ", to) : absl::StrCat("--first-good --bad ", from, " --good ", to);
}

bool IsUrl(const std::string& source) { return source.find("://") != std::string::npos || source.find('@') != std::string::npos; }

// A place that every machine has and that says nothing of this one.
bool IsEverywhere(const std::string& path) {
  static const std::set<std::string> kDevices = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom",
                                                 "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/tty"};
  const std::size_t slash = path.rfind('/');
  const std::string folder = path.substr(0, slash);
  const bool is_program = folder == "/bin" || folder == "/sbin" || folder == "/usr/bin" || folder == "/usr/sbin";
  return kDevices.count(path) > 0 || (is_program && slash + 1 < path.size());
}

// Text without the paths of the machine it was made on: each absolute path that others do not have is cut to its last part.
std::string WithoutPaths(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const bool begins = text[i] == '/' && (i == 0 || !(std::isalnum(static_cast<unsigned char>(text[i - 1])) ||
                                                       std::strchr("._-/:", text[i - 1]) != nullptr));
    if (!begins) {
      out += text[i++];
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && !std::strchr(" \t\n'\"`,;:()[]{}<>|&", text[end])) ++end;
    const std::string path = text.substr(i, end - i);
    const std::size_t slash = path.find_last_of('/', path.size() > 1 ? path.size() - 2 : 0);
    out += IsEverywhere(path) ? path : slash == 0 && path.find('/', 1) == std::string::npos ? path.substr(1) : path.substr(slash + 1);
    i = end;
  }
  return out;
}

// An address without the user and password that it may hold.
std::string WithoutUser(const std::string& url) {
  const std::size_t host = url.find("://");
  if (host == std::string::npos) return url;
  const std::size_t user_end = url.substr(0, url.find('/', host + 3)).rfind('@');
  return user_end == std::string::npos ? url : url.substr(0, host + 3) + url.substr(user_end + 1);
}

// The command as somebody else may give it: what says where this machine has its files or wants its results is not in it.
std::vector<std::string> RepeatableCommand(const HistoryReport& report) {
  static const std::set<std::string> results = {"-f", "--format", "-o", "--output", "--chart", "--issue", "--log"};
  std::vector<std::string> command = {"heaptape"};
  for (std::size_t i = 1; i < report.command.size(); ++i) {
    const std::string& argument = report.command[i];
    if (argument == "--force") continue;
    const bool is_short = argument.size() > 2 && argument[0] == '-' && argument[1] != '-';
    const std::size_t equals = argument.rfind("--", 0) == 0 ? argument.find('=') : std::string::npos;
    const std::string option = is_short ? argument.substr(0, 2) : argument.substr(0, equals);
    if (results.count(option)) {
      if (!is_short && equals == std::string::npos) ++i;
      continue;
    }
    const std::string value = argument.substr(equals == std::string::npos ? 0 : equals + 1);
    std::string shown = WithoutPaths(value);
    // The recording's name may say whose program it is.
    if (value == report.trace.path) shown = "recording.tape";
    if (value == report.source) shown = IsUrl(value) ? WithoutUser(value) : report.family.substr(0, report.family.find(':'));
    command.push_back(equals == std::string::npos ? shown : absl::StrCat(option, "=", shown));
  }
  return command;
}

Json ToJson(const Measurement& measurement, const HistoryReport& report, std::size_t index) {
  Json json = {{"hash", measurement.commit.hash},       {"name", measurement.commit.name},
               {"date", measurement.commit.date},       {"author", measurement.commit.author},
               {"subject", measurement.commit.subject}, {"mark", RowMark(report, index)}};
  json["value"] = measurement.measured() ? Json(measurement.value) : Json();
  json["low"] = measurement.measured() ? Json(measurement.low) : Json();
  json["high"] = measurement.measured() ? Json(measurement.high) : Json();
  json["skip_reason"] = measurement.measured() ? Json() : Json(measurement.outcome.skip_reason);
  json["failed_checks"] = measurement.outcome.failed_checks;
  json["built_before"] = measurement.outcome.built_before;
  json["replayed_before"] = measurement.outcome.replayed_before;
  json["runs"] = Json::array();
  for (const RunResult& run : measurement.outcome.runs) {
    json["runs"].push_back({{"seed", run.settings.seed},
                            {"steady_rss_bytes", run.steady_rss_bytes},
                            {"peak_rss_bytes", run.peak_rss_bytes},
                            {"end_rss_bytes", run.end_rss_bytes},
                            {"growth_bytes_per_day", run.growth_bytes_per_day},
                            {"verdict", VerdictName(run.verdict)},
                            {"cpu_user_ns", run.cpu_user_ns},
                            {"cpu_system_ns", run.cpu_system_ns},
                            {"series_digest", run.series_digest}});
  }
  return json;
}

// How many events were replayed of a recording that is damaged; nothing where all were.
std::optional<std::uint64_t> EventsBeforeDamage(const HistoryReport& report) {
  std::uint64_t fewest = report.trace.events;
  for (const Measurement& measurement : ShownMeasurements(report)) {
    for (const RunResult& run : measurement.outcome.runs) fewest = std::min(fewest, run.events_replayed);
  }
  return fewest < report.trace.events ? std::optional(fewest) : std::nullopt;
}

const char* EndName(Bisection::End end) {
  switch (end) {
    case Bisection::End::kFound: return "found";
    case Bisection::End::kOnlySkipped: return "only_skipped";
    case Bisection::End::kMergeBaseDiffers: return "merge_base_differs";
    case Bisection::End::kNoDifference: return "no_difference";
    case Bisection::End::kEndNotMeasured: return "end_not_measured";
  }
  return "";
}

}  // namespace

const std::vector<Measurement>& ShownMeasurements(const HistoryReport& report) {
  return report.bisection.has_value() ? report.bisection->measured : report.sweep;
}

std::vector<std::string> Findings(const HistoryReport& report) {
  std::vector<std::string> lines;
  if (const std::optional<std::uint64_t> events = EventsBeforeDamage(report)) {
    lines.push_back(absl::StrCat("The recording is damaged: every commit was measured on its first ", *events, " of ", report.trace.events, " events."));
  }
  const Metric metric = report.metric;
  if (!report.bisection.has_value()) {
    const std::vector<Step> steps = LargestSteps(report.threshold, report.sweep);
    if (steps.empty()) {
      lines.push_back(absl::StrCat("No step of ", report.threshold.text, " in ", MetricDescription(metric), "."));
      return lines;
    }
    const Measurement& from = report.sweep[steps[0].from];
    const Measurement& to = report.sweep[steps[0].to];
    lines.push_back(absl::StrCat("Largest step: ", from.commit.name, " to ", to.commit.name, ", ", Change(metric, from, to), "."));
    lines.push_back(absl::StrCat("To find its commit: heaptape bisect ", BisectOptionsOf(steps[0], report.sweep)));
    return lines;
  }
  const Bisection& found = *report.bisection;
  for (const CameAgain& again : found.came_again) {
    lines.push_back(absl::StrCat("It came again with ", again.commit.name, ", but was there before: ", again.parent.commit.name, ", its parent, is ",
                                 JudgementName(again.parent.judgement), " already (", FormatMetric(metric, again.parent.value),
                                 "), and what was measured between lies on another line. The search went on from that parent."));
  }
  switch (found.end) {
    case Bisection::End::kFound: {
      const bool bad = found.first->judgement == Judgement::kBad;
      lines.push_back(absl::StrCat("First ", bad ? "bad" : "good", " commit: ", CommitText(found.first->commit)));
      if (found.before.has_value() && found.before->measured()) {
        lines.push_back(absl::StrCat(MetricDescription(metric), " before and after: ", Change(metric, *found.before, *found.first)));
      } else if (found.before.has_value()) {
        lines.push_back(absl::StrCat("Its parent could not be measured: ", FirstLine(found.before->outcome.skip_reason)));
      }
      break;
    }
    case Bisection::End::kOnlySkipped:
      lines.push_back(absl::StrCat("It is one of these ", found.candidates.size(), " commits, of which only the last could be measured:"));
      for (const Commit& commit : found.candidates) lines.push_back("  " + CommitText(commit));
      if (found.before.has_value() && found.before->measured() && found.after.has_value()) {
        lines.push_back(absl::StrCat(MetricDescription(metric), " before and after them: ", Change(metric, *found.before, *found.after),
                                     ". All that they change: git diff ", found.before->commit.name, " ", found.after->commit.name));
      }
      break;
    case Bisection::End::kMergeBaseDiffers: {
      const bool bad = found.first->judgement == Judgement::kBad;
      lines.push_back(absl::StrCat("The commit where both lines part is already ", bad ? "bad" : "good", ": ", CommitText(found.first->commit)));
      lines.push_back(bad ? absl::StrCat("So it was mended on the way to ", found.good.commit.name,
                                         ": heaptape bisect --first-good --bad ", found.first->commit.name, " --good ", found.good.commit.name)
                          : absl::StrCat("So it was broken on the way to ", found.bad.commit.name, ": heaptape bisect --good ",
                                         found.first->commit.name, " --bad ", found.bad.commit.name));
      break;
    }
    case Bisection::End::kNoDifference:
      lines.push_back(absl::StrCat(found.good.commit.name, " and ", found.bad.commit.name, " do not differ by ",
                                   report.threshold.text, " in ", MetricDescription(metric), ": ",
                                   Change(metric, found.good, found.bad), "; choose a smaller --threshold or other ends."));
      break;
    case Bisection::End::kEndNotMeasured:
      for (const Measurement* end : {&found.good, &found.bad}) {
        if (!end->measured()) {
          lines.push_back(absl::StrCat(end->commit.name, " cannot be measured, so there is no end to start from: ", end->outcome.skip_reason));
        }
      }
      break;
  }
  return lines;
}

std::string HistoryTable(const HistoryReport& report, std::size_t width) {
  const std::vector<Measurement>& rows = ShownMeasurements(report);
  const double highest = HighestValue(rows);
  std::size_t name = 6, value = std::string(MetricName(report.metric)).size(), mark = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    name = std::max(name, DisplayWidth(PlainText(rows[i].commit.name)));
    value = std::max(value, DisplayWidth(ValueText(report.metric, rows[i])));
    mark = std::max(mark, RowMark(report, i).size());
  }
  std::string out = absl::StrCat(Padded("commit", name), "  ", Padded("date", 10), "  ", Padded(MetricName(report.metric), value, true),
                                 "  ", Padded("", kBarColumns), "  ", Padded("", mark), "  subject\n");
  const std::size_t taken = name + 10 + value + kBarColumns + mark + 10;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Measurement& row = rows[i];
    const std::string text = PlainText(row.measured() ? row.commit.subject : FirstLine(row.outcome.skip_reason));
    absl::StrAppend(&out, Padded(PlainText(row.commit.name), name), "  ", PlainText(row.commit.date), "  ",
                    Padded(ValueText(report.metric, row), value, true), "  ",
                    Padded(row.measured() && highest > 0 ? Bar(row.value / highest) : "", kBarColumns), "  ",
                    Padded(RowMark(report, i), mark), "  ", width > taken + 12 ? Shortened(text, width - taken) : text, "\n");
  }
  out += "\n";
  for (const std::string& line : Findings(report)) out += PlainText(line) + "\n";
  return out;
}

std::string HistoryJson(const HistoryReport& report) {
  Json json = {{"schema_version", 1}, {"kind", report.bisection.has_value() ? "bisection" : "sweep"}};
  json["trace"] = {{"path", report.trace.path},
                   {"digest", report.trace.digest},
                   {"program", report.trace.program},
                   {"recorded_under", report.trace.recorded_under},
                   {"events", report.trace.events},
                   {"events_measured", EventsBeforeDamage(report).value_or(report.trace.events)},
                   {"duration_ns", report.trace.duration_ns}};
  json["family"] = report.family;
  json["source"] = report.source;
  json["metric"] = MetricName(report.metric);
  json["threshold"] = report.threshold.text;
  json["command"] = report.command;
  json["heaptape_version"] = HEAPTAPE_VERSION;
  json["kernel"] = report.kernel;
  json["machine"] = report.machine;
  if (report.bisection.has_value()) {
    const Bisection& found = *report.bisection;
    json["end"] = EndName(found.end);
    json["good"] = found.good.commit.hash;
    json["bad"] = found.bad.commit.hash;
    json["limit"] = found.good.measured() ? Json(found.limit) : Json();
    json["first"] = Json();
    if (found.first.has_value()) {
      const Commit& commit = found.first->commit;
      json["first"] = {{"hash", commit.hash},     {"name", commit.name},       {"date", commit.date},
                       {"author", commit.author}, {"subject", commit.subject}, {"judgement", JudgementName(found.first->judgement)}};
      json["first"]["value_before"] = found.before.has_value() && found.before->measured() ? Json(found.before->value) : Json();
      json["first"]["value_after"] = found.first->measured() ? Json(found.first->value) : Json();
    }
    json["candidates"] = Json::array();
    for (const Commit& commit : found.candidates) json["candidates"].push_back(commit.hash);
    json["came_again"] = Json::array();
    for (const CameAgain& again : found.came_again) {
      json["came_again"].push_back({{"commit", again.commit.hash}, {"parent", again.parent.commit.hash}, {"parent_value", again.parent.value}});
    }
    json["asked"] = found.asked;
    json["log"] = found.log;
  } else {
    json["steps"] = Json::array();
    for (const Step& step : LargestSteps(report.threshold, report.sweep)) {
      json["steps"].push_back({{"from", report.sweep[step.from].commit.hash},
                               {"to", report.sweep[step.to].commit.hash},
                               {"change", step.change},
                               {"bisect", BisectOptionsOf(step, report.sweep)}});
    }
  }
  json["findings"] = Findings(report);
  json["commits"] = Json::array();
  const std::vector<Measurement>& rows = ShownMeasurements(report);
  for (std::size_t i = 0; i < rows.size(); ++i) json["commits"].push_back(ToJson(rows[i], report, i));
  return JsonText(json) + "\n";
}

std::string HistoryCsv(const HistoryReport& report) {
  std::string out = absl::StrCat("hash,name,date,author,subject,mark,", MetricName(report.metric), ",low,high,skip_reason\n");
  const std::vector<Measurement>& rows = ShownMeasurements(report);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Measurement& row = rows[i];
    const std::string figures = row.measured() ? absl::StrFormat("%.0f,%.0f,%.0f", row.value, row.low, row.high) : ",,";
    absl::StrAppend(&out, CsvCell(row.commit.hash), ",", CsvCell(row.commit.name), ",", CsvCell(row.commit.date), ",", CsvCell(row.commit.author), ",",
                    CsvCell(row.commit.subject), ",", RowMark(report, i), ",", figures, ",", CsvCell(FirstLine(row.outcome.skip_reason)), "\n");
  }
  return out;
}

std::string HistoryChart(const HistoryReport& report) {
  const std::vector<Measurement>& rows = ShownMeasurements(report);
  constexpr double kWidth = 960, kHeight = 420, kLeft = 90, kRight = 20, kTop = 40, kBottom = 110;
  const double limit = report.bisection.has_value() && report.bisection->good.measured() ? report.bisection->limit : 0;
  double top = std::max(HighestValue(rows), limit), bottom = 0;
  for (const Measurement& row : rows) bottom = std::min(bottom, row.measured() ? row.value : 0);
  if (top <= bottom) top = bottom + 1;
  const auto x = [&](std::size_t i) {
    return kLeft + (kWidth - kLeft - kRight) * (rows.size() > 1 ? static_cast<double>(i) / static_cast<double>(rows.size() - 1) : 0.5);
  };
  const auto y = [&](double value) { return kTop + (kHeight - kTop - kBottom) * (top - value) / (top - bottom); };
  std::string out = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<style>.back{fill:#fff}text{fill:#222}.axis{stroke:#bbb}.line{fill:none;stroke:#888}.good{fill:#1a7f37}.bad{fill:#cf222e}"
      ".skipped{fill:none;stroke:#888}.plain{fill:#0969da}.limit{stroke:#bf8700;stroke-dasharray:6 4}"
      "@media(prefers-color-scheme:dark){.back{fill:#0d1117}text{fill:#e6edf3}.axis{stroke:#484f58}}</style>\n"
      "<rect class=\"back\" width=\"100%%\" height=\"100%%\"/>\n<text x=\"%.0f\" y=\"22\" font-size=\"15\">%s</text>\n",
      kWidth, kHeight, kLeft, HtmlText(absl::StrCat(report.family, ": ", MetricDescription(report.metric))));
  for (int i = 0; i <= 4; ++i) {
    const double value = bottom + (top - bottom) * i / 4;
    absl::StrAppend(&out, absl::StrFormat("<line class=\"axis\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                                          "<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                                          kLeft, kWidth - kRight, y(value), y(value), kLeft - 8, y(value) + 4,
                                          HtmlText(FormatMetric(report.metric, value))));
  }
  if (limit != 0) {
    absl::StrAppend(&out, absl::StrFormat("<line class=\"limit\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"><title>limit %s</title></line>\n",
                                          kLeft, kWidth - kRight, y(limit), y(limit), HtmlText(FormatMetric(report.metric, limit))));
  }
  std::string points;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].measured()) absl::StrAppend(&points, absl::StrFormat("%.1f,%.1f ", x(i), y(rows[i].value)));
  }
  absl::StrAppend(&out, "<polyline class=\"line\" points=\"", points, "\"/>\n");
  // Names are legible for about forty commits; of more, every so many-th is written.
  const std::size_t labelled_every = rows.size() / 40 + 1;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Measurement& row = rows[i];
    const char* kind = !row.measured() ? "skipped" : report.bisection.has_value() ? JudgementName(row.judgement) : "plain";
    const bool first = RowMark(report, i).find("first") == 0;
    absl::StrAppend(&out, absl::StrFormat("<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"><title>%s</title></circle>\n", kind, x(i),
                                          row.measured() ? y(row.value) : kHeight - kBottom, first ? 8 : 5,
                                          HtmlText(absl::StrCat(row.commit.name, " ", row.commit.date, " ", ValueText(report.metric, row), " ",
                                                               RowMark(report, i), "\n", row.commit.subject))));
    if (i % labelled_every == 0 || first) {
      absl::StrAppend(&out, absl::StrFormat("<text transform=\"translate(%.1f %.0f) rotate(50)\">%s</text>\n", x(i) - 3, kHeight - kBottom + 18,
                                            HtmlText(row.commit.name)));
    }
  }
  return out + "</svg>\n";
}

std::string HistoryIssue(const HistoryReport& report) {
  const std::vector<Measurement>& rows = ShownMeasurements(report);
  const Metric metric = report.metric;
  std::string out;
  const bool found = report.bisection.has_value() && report.bisection->end == Bisection::End::kFound;
  if (found) {
    const Bisection& bisection = *report.bisection;
    const bool bad = bisection.first->judgement == Judgement::kBad;
    absl::StrAppend(&out, "# ", MetricDescription(metric), bad ? " rose with " : " fell with ", bisection.first->commit.hash.substr(0, 12));
    if (bisection.before.has_value() && bisection.before->measured()) {
      absl::StrAppend(&out, ": ", Change(metric, *bisection.before, *bisection.first));
    }
    out += "\n\n";
  } else if (report.bisection.has_value() && report.bisection->after.has_value() && report.bisection->before.has_value() &&
             report.bisection->before->measured()) {
    absl::StrAppend(&out, "# ", MetricDescription(metric), " changed between ", report.bisection->before->commit.hash.substr(0, 12), " and ",
                    report.bisection->after->commit.hash.substr(0, 12), ": ", Change(metric, *report.bisection->before, *report.bisection->after), "\n\n");
  } else {
    absl::StrAppend(&out, "# ", MetricDescription(metric), " over the history of ", MarkdownText(report.family), "\n\n");
  }
  for (const std::string& line : Findings(report)) absl::StrAppend(&out, MarkdownText(WithoutPaths(line)), "\n\n");

  absl::StrAppend(&out, "## What was measured\n\n",
                  "A recording of a real program's allocations was replayed, deterministically, against each commit below: the same calls in the "
                  "same order, on recorded time, so two commits differ only by the allocator.\n\n");
  absl::StrAppend(&out, "- figure: ", MetricDescription(metric), "\n- threshold: ", MarkdownText(report.threshold.text));
  if (report.bisection.has_value() && report.bisection->good.measured()) {
    absl::StrAppend(&out, " against ", MarkdownText(report.bisection->good.commit.name), " (", FormatMetric(metric, report.bisection->good.value),
                    "), so a commit is bad from ", FormatMetric(metric, report.bisection->limit), " on");
  }
  absl::StrAppend(&out, "\n- recording: ", report.trace.events, " events in ",
                  absl::StrFormat("%.0f s", static_cast<double>(report.trace.duration_ns) / 1e9), ", made under ",
                  MarkdownText(report.trace.recorded_under.empty() ? "an unknown allocator" : report.trace.recorded_under), ", digest ",
                  MarkdownText(report.trace.digest), "\n");
  absl::StrAppend(&out, "- machine: ", MarkdownText(report.machine.empty() ? "unknown" : report.machine), ", kernel ", MarkdownText(report.kernel), "\n- heaptape ",
                  HEAPTAPE_VERSION, "\n\n");

  std::vector<Metric> others;
  for (const Metric each : {Metric::kPeak, Metric::kSteady, Metric::kGrowth}) {
    if (each != metric) others.push_back(each);
  }
  absl::StrAppend(&out, "| commit | date | ", MetricName(metric));
  for (const Metric each : others) absl::StrAppend(&out, " | ", MetricName(each));
  out += " | | subject |\n|---|---|---:";
  for (std::size_t i = 0; i < others.size(); ++i) out += "|---:";
  out += "|---|---|\n";
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Measurement& row = rows[i];
    absl::StrAppend(&out, "| ", MarkdownText(row.commit.name), " | ", MarkdownText(row.commit.date), " | ", ValueText(metric, row), " | ");
    for (const Metric each : others) {
      Measurement other = row;
      if (row.measured()) FillValue(each, &other);
      absl::StrAppend(&out, ValueText(each, other), " | ");
    }
    absl::StrAppend(&out, RowMark(report, i), " | ",
                    MarkdownText(row.measured() ? row.commit.subject : WithoutPaths(FirstLine(row.outcome.skip_reason))), " |\n");
  }
  const double highest = HighestValue(rows);
  if (highest > 0) {
    std::string bars;
    for (const Measurement& row : rows) {
      if (row.measured()) absl::StrAppend(&bars, Padded(PlainText(row.commit.name), 14), " ", Bar(row.value / highest), " ", ValueText(metric, row), "\n");
    }
    absl::StrAppend(&out, "\n", MarkdownBlock(bars, ""));
  }

  absl::StrAppend(&out, "\n## How to repeat it\n\n", MarkdownBlock(ShellText(RepeatableCommand(report)), ""));
  if (report.bisection.has_value() && !report.bisection->log.empty()) {
    absl::StrAppend(&out, "\n<details><summary>for <code>git bisect replay</code></summary>\n\n", MarkdownBlock(report.bisection->log, ""), "</details>\n");
  }
  return out;
}

}  // namespace heaptape
