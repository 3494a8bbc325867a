#include "replayer/export/json.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace heaptape {
namespace {

using Json = nlohmann::ordered_json;

// --- writing ------------------------------------------------------------------------------------------

// One array per column: a tenth of the size of one object per sample.
template <typename Sample, typename Field>
Json Column(const std::vector<Sample>& samples, Field Sample::*field) {
  Json column = Json::array();
  for (const Sample& sample : samples) column.push_back(sample.*field);
  return column;
}

Json Pairs(const std::vector<std::pair<std::string, std::string>>& pairs) {
  Json object = Json::object();
  for (const auto& [name, value] : pairs) object[name] = value;
  return object;
}

Json TraceJson(const ReplayReport& report) {
  const TraceIdentity& trace = report.trace;
  Json json;
  json["path"] = trace.path;
  json["digest"] = trace.digest;
  json["program"] = trace.program;
  json["recorded_under"] = trace.recorded_under;
  json["events"] = trace.events;
  json["duration_ns"] = trace.duration_ns;
  json["complete"] = trace.complete;
  json["truth"]["time_ns"] = Column(report.truth, &TruthSample::time_ns);
  json["truth"]["heap_rss_bytes"] = Column(report.truth, &TruthSample::heap_rss_bytes);
  json["truth"]["rss_bytes"] = Column(report.truth, &TruthSample::rss_bytes);
  return json;
}

Json SettingsJson(const ReplaySettings& settings) {
  Json json;
  json["engine"] = settings.engine;
  json["clock"] = settings.clock;
  json["touch"] = settings.touch;
  json["huge_pages"] = settings.huge_pages;
  json["cpu_count"] = settings.cpu_count;
  json["memory_limit_bytes"] = settings.memory_limit_bytes;
  return json;
}

Json HeapMapJson(const HeapMap& map) {
  Json json;
  json["time_ns"] = map.time_ns;
  json["event_number"] = map.event_number;
  json["heap_rss_bytes"] = map.heap_rss_bytes;
  json["live_bytes"] = map.live_bytes;
  json["internal_bytes"] = map.internal_bytes;
  json["partly_free_bytes"] = map.partly_free_bytes;
  json["wholly_free_bytes"] = map.wholly_free_bytes;
  json["metadata_bytes"] = map.metadata_bytes;
  json["occupancy_pages"] = map.occupancy_pages;
  json["classes"] = Json::array();
  for (const HeapMap::SizeClass& its : map.classes) {
    Json& row = json["classes"].emplace_back();
    row["usable_bytes"] = its.usable_bytes;
    row["objects"] = its.objects;
    row["live_bytes"] = its.live_bytes;
    row["partly_free_bytes"] = its.partly_free_bytes;
  }
  return json;
}

Json RunJson(const RunResult& run, std::size_t trace, const std::string& digest) {
  Json json;
  json["trace"] = trace;
  json["trace_digest"] = digest;
  json["allocator"] = run.allocator;
  json["version"] = run.version;
  json["tunables"] = Pairs(run.tunables);
  json["library_path"] = run.library_path;
  json["build_id"] = run.build_id;
  json["origin"] = run.origin;
  json["seed"] = run.settings.seed;
  json["settings"] = SettingsJson(run.settings);
  json["verdict"] = VerdictName(run.verdict);
  json["error"] = run.error ? Json(*run.error) : Json(nullptr);
  json["peak_rss_bytes"] = run.peak_rss_bytes;
  json["peak_time_ns"] = run.peak_time_ns;
  json["steady_rss_bytes"] = run.steady_rss_bytes;
  json["steady_live_bytes"] = run.steady_live_bytes;
  json["steady_start_ns"] = run.steady_start_ns;
  json["end_rss_bytes"] = run.end_rss_bytes;
  json["growth_bytes_per_day"] = run.growth_bytes_per_day;
  json["growth_low_bytes_per_day"] = run.growth_low_bytes_per_day;
  json["growth_high_bytes_per_day"] = run.growth_high_bytes_per_day;
  json["baseline_rss_bytes"] = run.baseline_rss_bytes;
  json["peak_live_bytes"] = run.peak_live_bytes;
  json["events_replayed"] = run.events_replayed;
  json["allocation_failures"] = run.allocation_failures;
  json["minor_faults"] = run.minor_faults;
  Json& calls = json["system_calls"];
  calls["mmap"] = run.system_calls.mmap;
  calls["munmap"] = run.system_calls.munmap;
  calls["mremap"] = run.system_calls.mremap;
  calls["madvise"] = run.system_calls.madvise;
  calls["mprotect"] = run.system_calls.mprotect;
  calls["brk"] = run.system_calls.brk;
  json["wall_ns"] = run.wall_ns;
  json["cpu_user_ns"] = run.cpu_user_ns;
  json["cpu_system_ns"] = run.cpu_system_ns;
  json["series_digest"] = run.series_digest;
  json["notes"] = run.notes;
  Json& series = json["series"];
  series["time_ns"] = Column(run.series, &ReplaySample::time_ns);
  series["event_number"] = Column(run.series, &ReplaySample::event_number);
  series["heap_rss_bytes"] = Column(run.series, &ReplaySample::heap_rss_bytes);
  series["live_bytes"] = Column(run.series, &ReplaySample::live_bytes);
  series["live_objects"] = Column(run.series, &ReplaySample::live_objects);
  series["lazy_free_bytes"] = Column(run.series, &ReplaySample::lazy_free_bytes);
  json["heap_maps"] = Json::array();
  for (const HeapMap& map : run.heap_maps) json["heap_maps"].push_back(HeapMapJson(map));
  return json;
}

Json BandJson(const Band& band) {
  Json json;
  json["median"] = band.median;
  json["low"] = band.low;
  json["high"] = band.high;
  return json;
}

Json RowJson(const SummaryRow& row) {
  Json json;
  json["label"] = row.label;
  json["allocator"] = row.allocator;
  json["version"] = row.version;
  json["tunables"] = row.tunables;
  json["runs"] = row.runs;
  json["failed_runs"] = row.failed_runs;
  json["verdict"] = VerdictName(row.verdict);
  json["error"] = row.error.empty() ? Json(nullptr) : Json(row.error);
  json["recorded_under"] = row.recorded_under;
  json["ratio"] = row.ratio ? Json(*row.ratio) : Json(nullptr);
  json["peak_rss_bytes"] = BandJson(row.peak_rss_bytes);
  json["steady_rss_bytes"] = BandJson(row.steady_rss_bytes);
  json["end_rss_bytes"] = BandJson(row.end_rss_bytes);
  json["growth_bytes_per_day"] = BandJson(row.growth_bytes_per_day);
  json["growth_low_bytes_per_day"] = row.growth_low_bytes_per_day;
  json["growth_high_bytes_per_day"] = row.growth_high_bytes_per_day;
  json["peak_live_bytes"] = BandJson(row.peak_live_bytes);
  json["steady_live_bytes"] = BandJson(row.steady_live_bytes);
  json["overhead_share"] = BandJson(row.overhead_share);
  json["minor_faults"] = BandJson(row.minor_faults);
  json["system_calls"] = BandJson(row.system_calls);
  json["wall_ns"] = BandJson(row.wall_ns);
  return json;
}

Json SummaryJson(const Summary& summary) {
  Json json;
  json["trace"] = summary.report ? Json(*summary.report) : Json(nullptr);
  json["title"] = summary.title;
  json["baseline"] = summary.baseline;
  json["truth"] = nullptr;
  if (summary.truth) {
    Json& truth = json["truth"] = Json::object();
    truth["recorded_under"] = summary.truth->recorded_under;
    truth["peak_bytes"] = summary.truth->peak_bytes;
    truth["steady_bytes"] = summary.truth->steady_bytes;
    truth["growth_bytes_per_day"] = summary.truth->growth_bytes_per_day;
    truth["verdict"] = VerdictName(summary.truth->verdict);
    truth["row"] = summary.truth->row.empty() ? Json(nullptr) : Json(summary.truth->row);
    truth["sentence"] = TruthSentence(summary);
  }
  json["rows"] = Json::array();
  for (const SummaryRow& row : summary.rows) json["rows"].push_back(RowJson(row));
  return json;
}

// --- reading ------------------------------------------------------------------------------------------

// Thrown by the helpers below with the key at fault; never leaves this file.
struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

const Json& Member(const Json& object, const char* key) {
  if (!object.is_object()) throw Malformed(absl::StrCat("an object with \"", key, "\" was expected"));
  const auto member = object.find(key);
  if (member == object.end()) throw Malformed(absl::StrCat("\"", key, "\" is missing"));
  return *member;
}

const Json& Array(const Json& object, const char* key) {
  const Json& array = Member(object, key);
  if (!array.is_array()) throw Malformed(absl::StrCat("\"", key, "\" is not an array"));
  return array;
}

std::string Text(const Json& object, const char* key) {
  const Json& text = Member(object, key);
  if (!text.is_string()) throw Malformed(absl::StrCat("\"", key, "\" is not a text"));
  return text.get<std::string>();
}

std::uint64_t Count(const Json& object, const char* key) {
  const Json& count = Member(object, key);
  if (!count.is_number_unsigned()) throw Malformed(absl::StrCat("\"", key, "\" is not a non-negative whole number"));
  return count.get<std::uint64_t>();
}

double Number(const Json& object, const char* key) {
  const Json& number = Member(object, key);
  if (!number.is_number()) throw Malformed(absl::StrCat("\"", key, "\" is not a number"));
  return number.get<double>();
}

template <typename Sample>
void ReadColumn(const Json& columns, const char* key, std::vector<Sample>& samples, std::uint64_t Sample::*field,
                bool first) {
  const Json& column = Array(columns, key);
  if (first) samples.resize(column.size());
  if (column.size() != samples.size()) throw Malformed(absl::StrCat("\"", key, "\" has another length than \"time_ns\""));
  for (std::size_t i = 0; i < samples.size(); ++i) {
    if (!column[i].is_number_unsigned()) throw Malformed(absl::StrCat("\"", key, "\" holds something else than counts"));
    samples[i].*field = column[i].get<std::uint64_t>();
  }
}

template <typename Sample>
void CheckAscending(const std::vector<Sample>& samples) {
  for (std::size_t i = 1; i < samples.size(); ++i) {
    if (samples[i].time_ns < samples[i - 1].time_ns) throw Malformed("\"time_ns\" does not ascend");
  }
}

Verdict ReadVerdict(const Json& run) {
  const std::string name = Text(run, "verdict");
  for (const Verdict verdict :
       {Verdict::kStable, Verdict::kGrowing, Verdict::kBloating, Verdict::kSettling, Verdict::kFailed}) {
    if (name == VerdictName(verdict)) return verdict;
  }
  throw Malformed(absl::StrCat("\"verdict\" is \"", name, "\""));
}

ReplayReport ReadTrace(const Json& json) {
  ReplayReport report;
  report.trace.path = Text(json, "path");
  report.trace.digest = Text(json, "digest");
  report.trace.program = Text(json, "program");
  report.trace.recorded_under = Text(json, "recorded_under");
  report.trace.events = Count(json, "events");
  report.trace.duration_ns = Count(json, "duration_ns");
  report.trace.complete = Member(json, "complete") == true;
  const Json& truth = Member(json, "truth");
  ReadColumn(truth, "time_ns", report.truth, &TruthSample::time_ns, true);
  ReadColumn(truth, "heap_rss_bytes", report.truth, &TruthSample::heap_rss_bytes, false);
  ReadColumn(truth, "rss_bytes", report.truth, &TruthSample::rss_bytes, false);
  CheckAscending(report.truth);
  return report;
}

HeapMap ReadHeapMap(const Json& json) {
  HeapMap map;
  map.time_ns = Count(json, "time_ns");
  map.event_number = Count(json, "event_number");
  map.heap_rss_bytes = Count(json, "heap_rss_bytes");
  map.live_bytes = Count(json, "live_bytes");
  map.internal_bytes = Count(json, "internal_bytes");
  map.partly_free_bytes = Count(json, "partly_free_bytes");
  map.wholly_free_bytes = Count(json, "wholly_free_bytes");
  const Json& metadata = Member(json, "metadata_bytes");
  if (!metadata.is_number_integer()) throw Malformed("\"metadata_bytes\" is not a whole number");
  map.metadata_bytes = metadata.get<std::int64_t>();
  for (const Json& pages : Array(json, "occupancy_pages")) {
    if (!pages.is_number_unsigned()) throw Malformed("\"occupancy_pages\" holds something else than counts");
    map.occupancy_pages.push_back(pages.get<std::uint64_t>());
  }
  for (const Json& row : Array(json, "classes")) {
    map.classes.push_back({Count(row, "usable_bytes"), Count(row, "objects"), Count(row, "live_bytes"),
                           Count(row, "partly_free_bytes")});
  }
  return map;
}

RunResult ReadRun(const Json& json) {
  RunResult run;
  run.allocator = Text(json, "allocator");
  run.version = Text(json, "version");
  for (const auto& [name, value] : Member(json, "tunables").items()) {
    if (!value.is_string()) throw Malformed("\"tunables\" holds something else than texts");
    run.tunables.emplace_back(name, value.get<std::string>());
  }
  run.library_path = Text(json, "library_path");
  run.build_id = Text(json, "build_id");
  run.origin = Text(json, "origin");
  const Json& settings = Member(json, "settings");
  run.settings.seed = Count(json, "seed");
  run.settings.engine = Text(settings, "engine");
  run.settings.clock = Text(settings, "clock");
  run.settings.touch = Text(settings, "touch");
  run.settings.huge_pages = Text(settings, "huge_pages");
  const std::uint64_t cpu_count = Count(settings, "cpu_count");
  if (cpu_count > std::numeric_limits<std::uint32_t>::max()) throw Malformed("\"cpu_count\" is too large");
  run.settings.cpu_count = static_cast<std::uint32_t>(cpu_count);
  run.settings.memory_limit_bytes = Count(settings, "memory_limit_bytes");
  run.verdict = ReadVerdict(json);
  if (!Member(json, "error").is_null()) run.error = Text(json, "error");
  run.peak_rss_bytes = Count(json, "peak_rss_bytes");
  run.peak_time_ns = Count(json, "peak_time_ns");
  run.steady_rss_bytes = Count(json, "steady_rss_bytes");
  run.steady_live_bytes = Count(json, "steady_live_bytes");
  run.steady_start_ns = Count(json, "steady_start_ns");
  run.end_rss_bytes = Count(json, "end_rss_bytes");
  run.growth_bytes_per_day = Number(json, "growth_bytes_per_day");
  run.growth_low_bytes_per_day = Number(json, "growth_low_bytes_per_day");
  run.growth_high_bytes_per_day = Number(json, "growth_high_bytes_per_day");
  run.baseline_rss_bytes = Count(json, "baseline_rss_bytes");
  run.peak_live_bytes = Count(json, "peak_live_bytes");
  run.events_replayed = Count(json, "events_replayed");
  run.allocation_failures = Count(json, "allocation_failures");
  run.minor_faults = Count(json, "minor_faults");
  const Json& calls = Member(json, "system_calls");
  run.system_calls = {Count(calls, "mmap"),    Count(calls, "munmap"),   Count(calls, "mremap"),
                      Count(calls, "madvise"), Count(calls, "mprotect"), Count(calls, "brk")};
  run.wall_ns = Count(json, "wall_ns");
  run.cpu_user_ns = Count(json, "cpu_user_ns");
  run.cpu_system_ns = Count(json, "cpu_system_ns");
  run.series_digest = Text(json, "series_digest");
  for (const Json& note : Array(json, "notes")) {
    if (!note.is_string()) throw Malformed("\"notes\" holds something else than texts");
    run.notes.push_back(note.get<std::string>());
  }
  const Json& series = Member(json, "series");
  ReadColumn(series, "time_ns", run.series, &ReplaySample::time_ns, true);
  ReadColumn(series, "event_number", run.series, &ReplaySample::event_number, false);
  ReadColumn(series, "heap_rss_bytes", run.series, &ReplaySample::heap_rss_bytes, false);
  ReadColumn(series, "live_bytes", run.series, &ReplaySample::live_bytes, false);
  ReadColumn(series, "live_objects", run.series, &ReplaySample::live_objects, false);
  ReadColumn(series, "lazy_free_bytes", run.series, &ReplaySample::lazy_free_bytes, false);
  CheckAscending(run.series);
  for (const Json& map : Array(json, "heap_maps")) run.heap_maps.push_back(ReadHeapMap(map));
  return run;
}

std::vector<ReplayReport> ReadResults(const Json& json) {
  const std::uint64_t version = Count(json, "schema_version");
  if (version != kResultsSchemaVersion) {
    throw Malformed(absl::StrCat("it has schema_version ", version, ", this heaptape reads ", kResultsSchemaVersion));
  }
  std::vector<std::string> command;
  for (const Json& word : Array(json, "command")) {
    if (!word.is_string()) throw Malformed("\"command\" holds something else than texts");
    command.push_back(word.get<std::string>());
  }
  std::vector<ReplayReport> reports;
  for (const Json& trace : Array(json, "traces")) {
    ReplayReport report = ReadTrace(trace);
    report.kernel = Text(json, "kernel");
    report.machine = Text(json, "machine");
    report.heaptape_version = Text(json, "heaptape_version");
    report.command = command;
    reports.push_back(std::move(report));
  }
  for (const Json& run : Array(json, "runs")) {
    const std::uint64_t trace = Count(run, "trace");
    if (trace >= reports.size()) throw Malformed("a run names a trace that is not there");
    reports[trace].runs.push_back(ReadRun(run));
  }
  return reports;
}

}  // namespace

absl::StatusOr<std::string> ToJson(const std::vector<ReplayReport>& reports, const ViewOptions& options) {
  const absl::StatusOr<std::vector<Summary>> summaries = Summarize(reports, options);
  if (!summaries.ok()) return summaries.status();
  const ReplayReport general = reports.empty() ? ReplayReport{} : reports.front();
  Json json;
  json["schema_version"] = kResultsSchemaVersion;
  json["heaptape_version"] = general.heaptape_version;
  json["kernel"] = general.kernel;
  json["machine"] = general.machine;
  json["command"] = general.command;
  json["traces"] = Json::array();
  json["summaries"] = Json::array();
  json["runs"] = Json::array();
  for (const Summary& summary : *summaries) json["summaries"].push_back(SummaryJson(summary));
  for (std::size_t i = 0; i < reports.size(); ++i) {
    json["traces"].push_back(TraceJson(reports[i]));
    for (const RunResult& run : reports[i].runs) json["runs"].push_back(RunJson(run, i, reports[i].trace.digest));
  }
  // File names need not be UTF-8; what is not is replaced rather than refused.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<std::vector<ReplayReport>> ParseJson(const std::string& text, const std::string& name) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return absl::DataLossError(name + ": not JSON; give a file that `heaptape replay --format json` wrote");
  }
  try {
    return ReadResults(json);
  } catch (const Malformed& error) {
    return absl::DataLossError(
        absl::StrCat(name, ": not results of heaptape: ", error.what(), "; give a file that `heaptape replay -o` wrote"));
  }
}

}  // namespace heaptape
