#include "replayer/export/json.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "replayer/export/external_text.h"
#include "replayer/steady_state.h"

namespace heaptape {
namespace {

using Json = nlohmann::ordered_json;

// Members that are written and read alike.
template <typename Object, typename Value>
struct Place {
  const char* key;
  Value Object::*place;
};

constexpr Place<HeapMap, std::uint64_t> kMapCounts[] = {{"time_ns", &HeapMap::time_ns},
                                                        {"event_number", &HeapMap::event_number},
                                                        {"heap_rss_bytes", &HeapMap::heap_rss_bytes},
                                                        {"live_bytes", &HeapMap::live_bytes},
                                                        {"internal_bytes", &HeapMap::internal_bytes},
                                                        {"partly_free_bytes", &HeapMap::partly_free_bytes},
                                                        {"wholly_free_bytes", &HeapMap::wholly_free_bytes}};
constexpr Place<HeapMap::SizeClass, std::uint64_t> kClassCounts[] = {{"usable_bytes", &HeapMap::SizeClass::usable_bytes},
                                                                     {"objects", &HeapMap::SizeClass::objects},
                                                                     {"live_bytes", &HeapMap::SizeClass::live_bytes},
                                                                     {"partly_free_bytes", &HeapMap::SizeClass::partly_free_bytes}};
constexpr Place<HeapMap::CallSite, std::uint64_t> kSiteCounts[] = {{"offset", &HeapMap::CallSite::offset},
                                                                   {"samples", &HeapMap::CallSite::samples},
                                                                   {"live_bytes", &HeapMap::CallSite::live_bytes},
                                                                   {"partly_free_bytes", &HeapMap::CallSite::partly_free_bytes}};
constexpr Place<HeapMap::CallSite, std::string> kSiteTexts[] = {{"name", &HeapMap::CallSite::name},
                                                                {"module", &HeapMap::CallSite::module},
                                                                {"build_id", &HeapMap::CallSite::build_id}};
constexpr Place<RunResult, std::string> kRunTexts[] = {{"allocator", &RunResult::allocator},
                                                       {"version", &RunResult::version},
                                                       {"library_path", &RunResult::library_path},
                                                       {"build_id", &RunResult::build_id},
                                                       {"origin", &RunResult::origin},
                                                       {"series_digest", &RunResult::series_digest}};
constexpr Place<RunResult, std::uint64_t> kRunCounts[] = {{"peak_rss_bytes", &RunResult::peak_rss_bytes},
                                                          {"peak_time_ns", &RunResult::peak_time_ns},
                                                          {"steady_rss_bytes", &RunResult::steady_rss_bytes},
                                                          {"steady_live_bytes", &RunResult::steady_live_bytes},
                                                          {"steady_start_ns", &RunResult::steady_start_ns},
                                                          {"steady_window_ns", &RunResult::steady_window_ns},
                                                          {"end_rss_bytes", &RunResult::end_rss_bytes},
                                                          {"baseline_rss_bytes", &RunResult::baseline_rss_bytes},
                                                          {"peak_live_bytes", &RunResult::peak_live_bytes},
                                                          {"events_replayed", &RunResult::events_replayed},
                                                          {"allocation_failures", &RunResult::allocation_failures},
                                                          {"minor_faults", &RunResult::minor_faults},
                                                          {"wall_ns", &RunResult::wall_ns},
                                                          {"cpu_user_ns", &RunResult::cpu_user_ns},
                                                          {"cpu_system_ns", &RunResult::cpu_system_ns}};
constexpr Place<RunResult, double> kRunRates[] = {{"growth_bytes_per_day", &RunResult::growth_bytes_per_day},
                                                  {"growth_low_bytes_per_day", &RunResult::growth_low_bytes_per_day},
                                                  {"growth_high_bytes_per_day", &RunResult::growth_high_bytes_per_day}};
constexpr Place<SystemCalls, std::uint64_t> kCallCounts[] = {
    {"mmap", &SystemCalls::mmap},       {"munmap", &SystemCalls::munmap},     {"mremap", &SystemCalls::mremap},
    {"madvise", &SystemCalls::madvise}, {"mprotect", &SystemCalls::mprotect}, {"brk", &SystemCalls::brk}};
constexpr Place<ReplaySettings, std::string> kSettingTexts[] = {{"engine", &ReplaySettings::engine},
                                                                {"clock", &ReplaySettings::clock},
                                                                {"touch", &ReplaySettings::touch},
                                                                {"huge_pages", &ReplaySettings::huge_pages}};
constexpr Place<ReplaySettings, bool> kSettingFlags[] = {{"vary_addresses", &ReplaySettings::vary_addresses},
                                                        {"vary_keys", &ReplaySettings::vary_keys},
                                                        {"vary_signals", &ReplaySettings::vary_signals},
                                                        {"count_own_memory", &ReplaySettings::count_own_memory}};
constexpr Place<TraceIdentity, std::string> kTraceTexts[] = {{"path", &TraceIdentity::path},
                                                             {"digest", &TraceIdentity::digest},
                                                             {"program", &TraceIdentity::program},
                                                             {"recorded_under", &TraceIdentity::recorded_under}};
constexpr Place<TraceIdentity, std::uint64_t> kTraceCounts[] = {{"events", &TraceIdentity::events},
                                                                {"duration_ns", &TraceIdentity::duration_ns}};

// One array per column: a tenth of the size of one object per sample. The first is the time.
constexpr Place<ReplaySample, std::uint64_t> kSeriesColumns[] = {{"time_ns", &ReplaySample::time_ns},
                                                                 {"event_number", &ReplaySample::event_number},
                                                                 {"heap_rss_bytes", &ReplaySample::heap_rss_bytes},
                                                                 {"live_bytes", &ReplaySample::live_bytes},
                                                                 {"live_objects", &ReplaySample::live_objects},
                                                                 {"lazy_free_bytes", &ReplaySample::lazy_free_bytes}};
constexpr Place<TruthSample, std::uint64_t> kTruthColumns[] = {{"time_ns", &TruthSample::time_ns},
                                                               {"heap_rss_bytes", &TruthSample::heap_rss_bytes},
                                                               {"rss_bytes", &TruthSample::rss_bytes}};

// --- writing ------------------------------------------------------------------------------------------

template <typename Object, typename Value, std::size_t count>
void Put(Json& json, const Object& object, const Place<Object, Value> (&places)[count]) {
  for (const auto& [key, place] : places) json[key] = object.*place;
}

template <typename Sample, std::size_t count>
Json Columns(const std::vector<Sample>& samples, const Place<Sample, std::uint64_t> (&columns)[count]) {
  Json json;
  for (const auto& [key, place] : columns) {
    Json& column = json[key] = Json::array();
    for (const Sample& sample : samples) column.push_back(sample.*place);
  }
  return json;
}

Json Pairs(const std::vector<std::pair<std::string, std::string>>& pairs) {
  Json object = Json::object();
  for (const auto& [name, value] : pairs) object[name] = value;
  return object;
}

Json TraceJson(const ReplayReport& report) {
  Json json;
  Put(json, report.trace, kTraceTexts);
  Put(json, report.trace, kTraceCounts);
  json["complete"] = report.trace.complete;
  if (report.trace.segment_start_ns != 0) json["segment_start_ns"] = report.trace.segment_start_ns;
  if (report.trace.unmatched_frees) {
    json["unknown_frees"] = report.trace.unmatched_frees->unknown;
    json["missed_frees"] = report.trace.unmatched_frees->missed;
  }
  json["truth"] = Columns(report.truth, kTruthColumns);
  return json;
}

Json HeapMapJson(const HeapMap& map) {
  Json json;
  Put(json, map, kMapCounts);
  json["metadata_bytes"] = map.metadata_bytes;
  json["occupancy_pages"] = map.occupancy_pages;
  json["classes"] = Json::array();
  for (const HeapMap::SizeClass& its : map.classes) Put(json["classes"].emplace_back(), its, kClassCounts);
  json["call_sites"] = Json::array();
  for (const HeapMap::CallSite& site : map.call_sites) {
    Json& row = json["call_sites"].emplace_back();
    Put(row, site, kSiteTexts);
    Put(row, site, kSiteCounts);
    row["stack"] = site.stack;
  }
  return json;
}

Json RunJson(const RunResult& run, std::size_t trace, const std::string& digest) {
  Json json;
  json["trace"] = trace;
  json["trace_digest"] = digest;
  Put(json, run, kRunTexts);
  json["tunables"] = Pairs(run.tunables);
  json["seed"] = run.settings.seed;
  Put(json["settings"], run.settings, kSettingTexts);
  json["settings"]["cpu_count"] = run.settings.cpu_count;
  json["settings"]["memory_limit_bytes"] = run.settings.memory_limit_bytes;
  json["settings"]["time_scale"] = run.settings.time_scale;
  Put(json["settings"], run.settings, kSettingFlags);
  json["verdict"] = VerdictName(run.verdict);
  json["error"] = run.error ? Json(*run.error) : Json(nullptr);
  Put(json, run, kRunCounts);
  Put(json, run, kRunRates);
  json["growth_by_day"] = SaysGrowthByDay(run.steady_window_ns);
  Put(json["system_calls"], run.system_calls, kCallCounts);
  json["notes"] = run.notes;
  json["series"] = Columns(run.series, kSeriesColumns);
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
  for (const RowFigure& figure : RowFigures()) json[figure.key] = BandJson(row.*figure.band);
  json["growth_low_bytes_per_day"] = row.growth_low_bytes_per_day;
  json["growth_high_bytes_per_day"] = row.growth_high_bytes_per_day;
  json["growth_by_day"] = row.growth_by_day;
  json["growth"] = GrowthText(row);
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
    truth["steady_window_ns"] = summary.truth->steady_window_ns;
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

std::vector<std::string> Texts(const Json& object, const char* key) {
  std::vector<std::string> texts;
  for (const Json& text : Array(object, key)) {
    if (!text.is_string()) throw Malformed(absl::StrCat("\"", key, "\" holds something else than texts"));
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

void Get(const Json& json, const char* key, std::string& value) { value = Text(json, key); }
void Get(const Json& json, const char* key, std::uint64_t& value) { value = Count(json, key); }
void Get(const Json& json, const char* key, double& value) { value = Number(json, key); }
void Get(const Json& json, const char* key, bool& value) {
  const Json& flag = Member(json, key);
  if (!flag.is_boolean()) throw Malformed(absl::StrCat("\"", key, "\" is neither true nor false"));
  value = flag.get<bool>();
}

template <typename Object, typename Value, std::size_t count>
void Get(const Json& json, Object& object, const Place<Object, Value> (&places)[count]) {
  for (const auto& [key, place] : places) Get(json, key, object.*place);
}

template <typename Sample>
void CheckAscending(const std::vector<Sample>& samples) {
  for (std::size_t i = 1; i < samples.size(); ++i) {
    if (samples[i].time_ns < samples[i - 1].time_ns) throw Malformed("\"time_ns\" does not ascend");
  }
}

template <typename Sample, std::size_t count>
void ReadColumns(const Json& columns, std::vector<Sample>& samples, const Place<Sample, std::uint64_t> (&places)[count]) {
  samples.resize(Array(columns, places[0].key).size());
  for (const auto& [key, place] : places) {
    const Json& column = Array(columns, key);
    if (column.size() != samples.size()) throw Malformed(absl::StrCat("\"", key, "\" has another length than \"", places[0].key, "\""));
    for (std::size_t i = 0; i < samples.size(); ++i) {
      if (!column[i].is_number_unsigned()) throw Malformed(absl::StrCat("\"", key, "\" holds something else than counts"));
      samples[i].*place = column[i].template get<std::uint64_t>();
    }
  }
  CheckAscending(samples);
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
  Get(json, report.trace, kTraceTexts);
  Get(json, report.trace, kTraceCounts);
  report.trace.complete = Member(json, "complete") == true;
  if (json.contains("segment_start_ns")) Get(json, "segment_start_ns", report.trace.segment_start_ns);
  if (json.contains("unknown_frees")) {
    UnmatchedFrees& frees = report.trace.unmatched_frees.emplace();
    Get(json, "unknown_frees", frees.unknown);
    Get(json, "missed_frees", frees.missed);
  }
  ReadColumns(Member(json, "truth"), report.truth, kTruthColumns);
  return report;
}

HeapMap ReadHeapMap(const Json& json) {
  HeapMap map;
  Get(json, map, kMapCounts);
  const Json& metadata = Member(json, "metadata_bytes");
  if (!metadata.is_number_integer()) throw Malformed("\"metadata_bytes\" is not a whole number");
  map.metadata_bytes = metadata.get<std::int64_t>();
  for (const Json& pages : Array(json, "occupancy_pages")) {
    if (!pages.is_number_unsigned()) throw Malformed("\"occupancy_pages\" holds something else than counts");
    map.occupancy_pages.push_back(pages.get<std::uint64_t>());
  }
  for (const Json& row : Array(json, "classes")) Get(row, map.classes.emplace_back(), kClassCounts);
  for (const Json& row : Array(json, "call_sites")) {
    HeapMap::CallSite& site = map.call_sites.emplace_back();
    Get(row, site, kSiteTexts);
    Get(row, site, kSiteCounts);
    site.stack = Texts(row, "stack");
  }
  return map;
}

RunResult ReadRun(const Json& json) {
  RunResult run;
  Get(json, run, kRunTexts);
  for (const auto& [name, value] : Member(json, "tunables").items()) {
    if (!value.is_string()) throw Malformed("\"tunables\" holds something else than texts");
    run.tunables.emplace_back(name, value.get<std::string>());
  }
  run.settings.seed = Count(json, "seed");
  const Json& settings = Member(json, "settings");
  Get(settings, run.settings, kSettingTexts);
  const std::uint64_t cpu_count = Count(settings, "cpu_count");
  if (cpu_count > std::numeric_limits<std::uint32_t>::max()) throw Malformed("\"cpu_count\" is too large");
  run.settings.cpu_count = static_cast<std::uint32_t>(cpu_count);
  run.settings.memory_limit_bytes = Count(settings, "memory_limit_bytes");
  run.settings.time_scale = Number(settings, "time_scale");
  Get(settings, run.settings, kSettingFlags);
  run.verdict = ReadVerdict(json);
  if (!Member(json, "error").is_null()) run.error = Text(json, "error");
  Get(json, run, kRunCounts);
  Get(json, run, kRunRates);
  Get(Member(json, "system_calls"), run.system_calls, kCallCounts);
  run.notes = Texts(json, "notes");
  ReadColumns(Member(json, "series"), run.series, kSeriesColumns);
  for (const Json& map : Array(json, "heap_maps")) run.heap_maps.push_back(ReadHeapMap(map));
  return run;
}

std::vector<ReplayReport> ReadResults(const Json& json) {
  const std::uint64_t version = Count(json, "schema_version");
  if (version != kResultsSchemaVersion) {
    throw Malformed(absl::StrCat("it has schema_version ", version, ", this heaptape reads ", kResultsSchemaVersion));
  }
  const std::vector<std::string> command = Texts(json, "command");
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

absl::StatusOr<std::string> ToJson(const std::vector<ReplayReport>& reports, const ViewOptions& options, JsonTexts texts) {
  const absl::StatusOr<std::vector<Summary>> summaries = Summarize(reports, options);
  if (!summaries.ok()) return summaries.status();
  const ReplayReport general = reports.empty() ? ReplayReport{} : reports.front();
  Json json;
  json["schema_version"] = kResultsSchemaVersion;
  json["heaptape_version"] = general.heaptape_version;
  json["kernel"] = general.kernel;
  json["machine"] = general.machine;
  json["command"] = general.command;
  json["remarks"] = Remarks(reports);
  json["traces"] = Json::array();
  json["summaries"] = Json::array();
  json["runs"] = Json::array();
  for (const Summary& summary : *summaries) json["summaries"].push_back(SummaryJson(summary));
  for (std::size_t i = 0; i < reports.size(); ++i) {
    json["traces"].push_back(TraceJson(reports[i]));
    for (const RunResult& run : reports[i].runs) json["runs"].push_back(RunJson(run, i, reports[i].trace.digest));
  }
  return JsonText(texts == JsonTexts::kPlain ? WithPlainTexts(json) : json, -1) + "\n";
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
