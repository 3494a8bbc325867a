// heaptape inspect: what is in a trace, without replaying it.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "replayer/commands/commands.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/export/external_text.h"
#include "replayer/export/format.h"
#include "replayer/export/text_table.h"
#include "traces/statistics.h"
#include "traces/trace_reader.h"

namespace heaptape::commands {
namespace {

using Json = nlohmann::ordered_json;

// Of the JSON form below.
constexpr int kSchemaVersion = 1;

struct Inspection {
  std::string path;
  std::unique_ptr<TraceReader> reader;
  TraceStatistics statistics;
  std::vector<ResidentSample> resident;
  std::size_t touched_records = 0;
  std::size_t stack_samples = 0;
  std::vector<Module> modules;
};

absl::StatusOr<Inspection> Inspect(const std::string& path, std::uint64_t memory_limit_bytes) {
  Inspection found;
  found.path = path;
  auto reader = TraceReader::Open(path, LimitTo(memory_limit_bytes, kStatisticsBytes));
  if (!reader.ok()) return reader.status();
  found.reader = *std::move(reader);
  auto statistics = GatherStatistics(*found.reader);
  if (!statistics.ok()) return statistics.status();
  found.statistics = *std::move(statistics);
  auto resident = found.reader->ReadResident();
  auto touched = found.reader->ReadTouched();
  auto stacks = found.reader->ReadStacks();
  auto modules = found.reader->ReadModules();
  for (const absl::Status& status : {resident.status(), touched.status(), stacks.status(), modules.status()})
    if (!status.ok()) return status;
  found.resident = *std::move(resident);
  found.touched_records = touched->size();
  found.stack_samples = stacks->size();
  found.modules = *std::move(modules);
  return found;
}

double BytesPerEvent(const TraceSummary& summary) {
  return summary.event_count == 0 ? 0
                                  : static_cast<double>(summary.file_bytes) / static_cast<double>(summary.event_count);
}

double PerSecond(std::uint64_t count, std::uint64_t duration_ns) {
  return duration_ns == 0 ? 0 : static_cast<double>(count) / (static_cast<double>(duration_ns) / 1e9);
}

const char* HugePagesName(HugePages mode) {
  static constexpr std::array<const char*, 4> kNames = {"unknown", "never", "madvise", "always"};
  return kNames[static_cast<std::size_t>(mode)];
}

// The smallest and the largest value that falls into a bucket.
std::uint64_t BucketLow(std::size_t bucket) { return bucket == 0 ? 0 : std::uint64_t{1} << (bucket - 1); }
std::uint64_t BucketHigh(std::size_t bucket) {
  return bucket == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bucket) - 1;
}

Json HistogramJson(const Histogram& counts, const Histogram* bytes = nullptr) {
  Json buckets = Json::array();
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    Json bucket = {{"from", BucketLow(i)}, {"to", BucketHigh(i)}, {"count", counts[i]}};
    if (bytes != nullptr) bucket["bytes"] = (*bytes)[i];
    buckets.push_back(bucket);
  }
  return buckets;
}

Json ToJson(const Inspection& found) {
  const TraceSummary& summary = found.reader->summary();
  const TraceInfo& info = found.reader->info();
  const TraceStatistics& statistics = found.statistics;
  Json json;
  json["schema_version"] = kSchemaVersion;
  json["trace"] = found.path;
  json["digest"] = summary.digest;
  json["events"] = summary.event_count;
  json["file_bytes"] = summary.file_bytes;
  json["bytes_per_event"] = BytesPerEvent(summary);
  json["threads"] = statistics.thread_starts + 1;
  json["peak_threads"] = summary.peak_threads;
  json["duration_ns"] = summary.duration_ns;
  json["events_per_second"] = PerSecond(summary.event_count, summary.duration_ns);
  json["peak_live_bytes"] = statistics.peak_live_bytes;
  json["peak_live_bytes_time_ns"] = statistics.peak_live_bytes_time_ns;
  json["peak_live_objects"] = statistics.peak_live_objects;
  json["objects"] = summary.object_count;
  json["allocated_bytes"] = statistics.allocated_bytes;
  json["never_freed_objects"] = statistics.never_freed_objects;
  json["never_freed_bytes"] = statistics.never_freed_bytes;
  json["events_lost"] = summary.lost_events;
  if (summary.unmatched_frees) {
    json["unknown_frees"] = summary.unmatched_frees->unknown;
    json["missed_frees"] = summary.unmatched_frees->missed;
  }
  json["complete"] = summary.complete;
  json["ended_at_size_limit"] = summary.ended_at_limit;
  json["damage"] = found.reader->damage();
  json["recorded"] = {{"program", info.program},
                      {"start_unix_seconds", info.start_unix_seconds},
                      {"segment_start_ns", info.segment_start_ns},
                      {"segment_number", info.segment_number},
                      {"c_library", info.c_library},
                      {"allocator", info.allocator},
                      {"allocator_version", info.allocator_version},
                      {"allocator_path", info.allocator_path},
                      {"allocator_build_id", info.allocator_build_id},
                      {"kernel", info.kernel},
                      {"heaptape_version", info.heaptape_version},
                      {"memory_bytes", info.memory_bytes},
                      {"cpu_count", info.cpu_count},
                      {"page_bytes", info.page_bytes},
                      {"huge_pages", HugePagesName(info.huge_pages)},
                      {"time_resolution_ns", info.time_resolution_ns},
                      {"stack_sample_bytes", info.stack_sample_bytes},
                      {"privacy_level", info.privacy_level}};
  json["blocks"] = summary.block_count;
  json["checkpoints"] = summary.checkpoint_count;
  Json by_kind = Json::object(), failures = Json::object();
  for (std::size_t op = 0; op < kOpCount; ++op) {
    if (statistics.events_by_op[op] != 0) by_kind[OpName(static_cast<Op>(op))] = statistics.events_by_op[op];
    if (statistics.failures_by_op[op] != 0) failures[OpName(static_cast<Op>(op))] = statistics.failures_by_op[op];
  }
  json["events_by_kind"] = by_kind;
  json["failures_by_kind"] = failures;
  json["thread_switches"] = statistics.thread_switches;
  Json threads = Json::array();
  for (const auto& [number, thread] : statistics.threads)
    threads.push_back({{"thread", number},
                       {"calls", thread.calls},
                       {"allocations", thread.allocations},
                       {"allocated_bytes", thread.allocated_bytes},
                       {"frees", thread.frees},
                       {"foreign_frees", thread.foreign_frees}});
  json["by_thread"] = threads;
  json["size_histogram_bytes"] = HistogramJson(statistics.sizes, &statistics.size_bytes);
  json["lifetime_histogram_events"] = HistogramJson(statistics.lifetime_events);
  json["lifetime_histogram_ns"] = HistogramJson(statistics.lifetime_ns);
  Json series = Json::array();
  std::uint64_t start_ns = 0;
  for (const ActivityPoint& point : statistics.activity) {
    series.push_back({{"end_time_ns", point.end_time_ns},
                      {"calls", point.calls},
                      {"calls_per_second", PerSecond(point.calls, point.end_time_ns - start_ns)},
                      {"live_bytes", point.live_bytes},
                      {"live_objects", point.live_objects},
                      {"peak_live_bytes", point.peak_live_bytes}});
    start_ns = point.end_time_ns;
  }
  json["series"] = series;
  Json resident = Json::array();
  for (const ResidentSample& sample : found.resident)
    resident.push_back({{"time_ns", sample.time_ns},
                        {"rss_bytes", sample.rss_bytes},
                        {"anonymous_bytes", sample.anonymous_bytes},
                        {"non_heap_bytes", sample.non_heap_bytes},
                        {"peak_rss_bytes", sample.peak_rss_bytes},
                        {"lazy_free_bytes", sample.lazy_free_bytes},
                        {"huge_page_bytes", sample.huge_page_bytes}});
  json["resident"] = resident;
  json["touch_records"] = found.touched_records;
  json["stack_samples"] = found.stack_samples;
  Json modules = Json::array();
  for (const Module& module : found.modules) modules.push_back({{"name", module.name}, {"build_id", module.build_id}});
  json["modules"] = modules;
  return json;
}

std::string Bar(double share, std::size_t width) {
  const auto filled = static_cast<std::size_t>(std::lround(share * static_cast<double>(width)));
  return std::string(std::min(filled, width), '#');
}

std::string BytesText(std::uint64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }
std::string Percent(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? "-" : absl::StrFormat("%.1f %%", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}
std::string NameOr(const std::string& text, const char* otherwise) { return text.empty() ? otherwise : text; }

std::string HistogramText(const char* title, const Histogram& counts, const Histogram* bytes,
                          std::string (*name)(std::uint64_t)) {
  std::uint64_t total = 0, most = 0, total_bytes = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    total += counts[i];
    most = std::max(most, counts[i]);
    if (bytes != nullptr) total_bytes += (*bytes)[i];
  }
  if (total == 0) return "";
  std::vector<Column> columns = {{title}, {"count"}, {"share"}};
  if (bytes != nullptr) columns.push_back({"of bytes"});
  columns.push_back({"", false});
  TextTable table(columns);
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    std::vector<Cell> row = {{absl::StrCat("up to ", name(BucketHigh(i)))}, {FormatCount(counts[i])}, {Percent(counts[i], total)}};
    if (bytes != nullptr) row.push_back({Percent((*bytes)[i], total_bytes)});
    row.push_back({Bar(static_cast<double>(counts[i]) / static_cast<double>(most), 30)});
    table.AddRow(std::move(row));
  }
  return absl::StrCat("\n", table.Plain(0, false));
}

std::string ToText(const Inspection& found) {
  const TraceSummary& summary = found.reader->summary();
  const TraceInfo& info = found.reader->info();
  const TraceStatistics& statistics = found.statistics;
  std::string out;
  const auto line = [&out](const char* name, const std::string& value) {
    absl::StrAppend(&out, absl::StrFormat("%-14s %s\n", name, PlainText(value)));
  };
  line("trace", found.path);
  line("program", NameOr(info.program, "(not recorded)"));
  line("under", absl::StrCat(NameOr(info.allocator, "(unknown allocator)"), " ", info.allocator_version, ", ",
                             NameOr(info.c_library, "(unknown C library)"), ", kernel ", NameOr(info.kernel, "(unknown)")));
  line("machine", absl::StrFormat("%d CPUs, %s memory, %d-byte pages, huge pages %s", info.cpu_count,
                                  BytesText(info.memory_bytes), info.page_bytes, HugePagesName(info.huge_pages)));
  line("duration", absl::StrCat(FormatDuration(summary.duration_ns), ", kept to ", FormatDuration(info.time_resolution_ns),
                                info.segment_number > 0 ? absl::StrCat("; segment ", info.segment_number, " of a recording") : "",
                                info.segment_start_ns > 0 ? absl::StrCat("; from ", FormatDuration(info.segment_start_ns), " after the recording's start on") : ""));
  line("events", absl::StrCat(FormatCount(summary.event_count), " (", summary.event_count, ")",
                              summary.duration_ns > 0 ? absl::StrFormat(", %.0f a second", PerSecond(summary.event_count, summary.duration_ns)) : ""));
  line("threads", absl::StrFormat("%d, at most %d at once; %s switches", statistics.thread_starts + 1, summary.peak_threads,
                                  FormatCount(statistics.thread_switches)));
  line("live bytes", absl::StrFormat("at most %s, after %s", BytesText(statistics.peak_live_bytes),
                                     FormatDuration(statistics.peak_live_bytes_time_ns)));
  line("live objects", absl::StrFormat("at most %s, after %s", FormatCount(statistics.peak_live_objects),
                                       FormatDuration(statistics.peak_live_objects_time_ns)));
  line("never freed", absl::StrFormat("%s in %s objects", BytesText(statistics.never_freed_bytes),
                                      FormatCount(statistics.never_freed_objects)));
  line("file", absl::StrFormat("%s, %.3f bytes an event, %d blocks, %d checkpoints", BytesText(summary.file_bytes),
                               BytesPerEvent(summary), summary.block_count, summary.checkpoint_count));
  line("beside", absl::StrFormat("%d resident samples, %d touched blocks, %d call stacks, %d modules", found.resident.size(),
                                 found.touched_records, found.stack_samples, found.modules.size()));
  line("privacy", absl::StrCat("level ", info.privacy_level));
  line("digest", summary.digest);
  std::string missing;
  if (!summary.complete)
    missing = "the recording was not finished: it was killed, or is still going on, or the file was cut";
  else if (summary.ended_at_limit)
    missing = "what came after the file reached its size limit";
  if (summary.lost_events != 0) absl::StrAppend(&missing, missing.empty() ? "" : "; ", FormatCount(summary.lost_events), " events");
  line("missing", missing.empty() ? "nothing" : missing);
  line("not seen", !summary.unmatched_frees                         ? "not counted"
                   : *summary.unmatched_frees == UnmatchedFrees() ? "nothing"
                   : summary.unmatched_frees->HideHeap(summary.event_count) ? MissingHeapSentence(*summary.unmatched_frees)
                                                                            : FormatUnmatchedFrees(*summary.unmatched_frees));
  for (const std::string& sentence : found.reader->damage()) line("damage", sentence);

  TextTable kinds({{"event", false}, {"count"}, {"share"}, {"failed"}});
  for (std::size_t op = 0; op < kOpCount; ++op) {
    if (statistics.events_by_op[op] == 0) continue;
    kinds.AddRow({{OpName(static_cast<Op>(op))},
                  {FormatCount(statistics.events_by_op[op])},
                  {Percent(statistics.events_by_op[op], summary.event_count)},
                  {statistics.failures_by_op[op] ? FormatCount(statistics.failures_by_op[op]) : ""}});
  }
  absl::StrAppend(&out, "\n", kinds.Plain(0, false));

  // The busiest threads say enough.
  constexpr std::size_t kThreadRows = 16;
  std::vector<std::pair<std::uint16_t, ThreadStatistics>> threads(statistics.threads.begin(), statistics.threads.end());
  std::stable_sort(threads.begin(), threads.end(),
                   [](const auto& a, const auto& b) { return a.second.calls > b.second.calls; });
  TextTable by_thread({{"thread"}, {"calls"}, {"share"}, {"allocated"}, {"frees of others'"}});
  std::uint64_t calls = 0;
  for (const auto& [number, thread] : threads) calls += thread.calls;
  for (std::size_t i = 0; i < std::min(threads.size(), kThreadRows); ++i) {
    const auto& [number, thread] = threads[i];
    by_thread.AddRow({{absl::StrCat(number)},
                      {FormatCount(thread.calls)},
                      {Percent(thread.calls, calls)},
                      {BytesText(thread.allocated_bytes)},
                      {Percent(thread.foreign_frees, thread.frees)}});
  }
  absl::StrAppend(&out, "\n", by_thread.Plain(0, false));
  if (threads.size() > kThreadRows) absl::StrAppend(&out, "and ", threads.size() - kThreadRows, " threads more\n");

  absl::StrAppend(&out, HistogramText("size", statistics.sizes, &statistics.size_bytes, BytesText),
                  HistogramText("lifetime, events", statistics.lifetime_events, nullptr, FormatCount),
                  HistogramText("lifetime", statistics.lifetime_ns, nullptr, FormatDuration));

  constexpr std::size_t kActivityRows = 20;
  TextTable activity({{"after"}, {"calls/s"}, {"live objects"}, {"live bytes"}, {"peak"}, {"", false}});
  const std::size_t group = (statistics.activity.size() + kActivityRows - 1) / kActivityRows;
  std::uint64_t start_ns = 0;
  for (std::size_t i = 0; i < statistics.activity.size(); i += std::max<std::size_t>(group, 1)) {
    ActivityPoint row;
    for (std::size_t j = i; j < std::min(i + group, statistics.activity.size()); ++j) {
      const ActivityPoint& point = statistics.activity[j];
      row = {point.end_time_ns, row.calls + point.calls, point.live_bytes, point.live_objects,
             std::max(row.peak_live_bytes, point.peak_live_bytes)};
    }
    const double rate = PerSecond(row.calls, row.end_time_ns - start_ns);
    start_ns = row.end_time_ns;
    activity.AddRow({{FormatDuration(row.end_time_ns)},
                     {rate > 0 ? FormatCount(static_cast<std::uint64_t>(rate)) : "-"},
                     {FormatCount(row.live_objects)},
                     {BytesText(row.live_bytes)},
                     {BytesText(row.peak_live_bytes)},
                     {Bar(static_cast<double>(row.live_bytes) /
                              static_cast<double>(std::max<std::uint64_t>(statistics.peak_live_bytes, 1)), 30)}});
  }
  absl::StrAppend(&out, "\n", activity.Plain(0, false));
  if (!found.resident.empty()) {
    const ResidentSample& last = found.resident.back();
    absl::StrAppend(&out, absl::StrFormat("\nThe program itself had %s resident at the end (%s anonymous), at most %s.\n",
                                          BytesText(last.rss_bytes), BytesText(last.anonymous_bytes), BytesText(last.peak_rss_bytes)));
  }
  return out;
}

}  // namespace

void AddInspect(CLI::App& program, int& status) {
  struct Options {
    std::string path;
    std::string format = "text";
    std::uint64_t memory_limit_bytes = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("inspect", "Shows what is in a trace");
  command->add_option("trace", options->path, "The trace file")->required();
  command->add_option("--format", options->format, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  AddMemoryLimit(*command, options->memory_limit_bytes);
  command->footer(
      "Examples:\n"
      "  heaptape inspect guard.tape\n"
      "  heaptape inspect --format json guard.tape | jq .bytes_per_event");
  command->callback([options, &status] {
    const auto found = Inspect(options->path, options->memory_limit_bytes);
    if (!found.ok()) {
      status = Fail(found.status());
      return;
    }
    const std::string text = options->format == "json" ? JsonText(ToJson(*found)) + "\n" : ToText(*found);
    std::fwrite(text.data(), 1, text.size(), stdout);
  });
}

}  // namespace heaptape::commands
