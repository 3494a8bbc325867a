#include "replayer/bisect/measure.h"

#include <unistd.h>
#include <xxhash.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "replayer/export/external_text.h"

namespace heaptape {
namespace {

using Json = nlohmann::json;

// An allocator that refuses more than this share of the calls needs little memory for the wrong reason.
constexpr double kRefusedShare = 0.01;

Json ToJson(const RunResult& run) {
  return {{"allocator", run.allocator},
          {"version", run.version},
          {"build_id", run.build_id},
          {"seed", run.settings.seed},
          {"steady_rss_bytes", run.steady_rss_bytes},
          {"peak_rss_bytes", run.peak_rss_bytes},
          {"end_rss_bytes", run.end_rss_bytes},
          {"peak_live_bytes", run.peak_live_bytes},
          {"growth_bytes_per_day", run.growth_bytes_per_day},
          {"growth_low_bytes_per_day", run.growth_low_bytes_per_day},
          {"growth_high_bytes_per_day", run.growth_high_bytes_per_day},
          {"verdict", static_cast<int>(run.verdict)},
          {"events_replayed", run.events_replayed},
          {"allocation_failures", run.allocation_failures},
          {"cpu_user_ns", run.cpu_user_ns},
          {"cpu_system_ns", run.cpu_system_ns},
          {"wall_ns", run.wall_ns},
          {"series_digest", run.series_digest}};
}

RunResult RunOf(const Json& json) {
  RunResult run;
  json.at("allocator").get_to(run.allocator);
  json.at("version").get_to(run.version);
  json.at("build_id").get_to(run.build_id);
  json.at("seed").get_to(run.settings.seed);
  json.at("steady_rss_bytes").get_to(run.steady_rss_bytes);
  json.at("peak_rss_bytes").get_to(run.peak_rss_bytes);
  json.at("end_rss_bytes").get_to(run.end_rss_bytes);
  json.at("peak_live_bytes").get_to(run.peak_live_bytes);
  json.at("growth_bytes_per_day").get_to(run.growth_bytes_per_day);
  json.at("growth_low_bytes_per_day").get_to(run.growth_low_bytes_per_day);
  json.at("growth_high_bytes_per_day").get_to(run.growth_high_bytes_per_day);
  run.verdict = static_cast<Verdict>(json.at("verdict").get<int>());
  json.at("events_replayed").get_to(run.events_replayed);
  json.at("allocation_failures").get_to(run.allocation_failures);
  json.at("cpu_user_ns").get_to(run.cpu_user_ns);
  json.at("cpu_system_ns").get_to(run.cpu_system_ns);
  json.at("wall_ns").get_to(run.wall_ns);
  json.at("series_digest").get_to(run.series_digest);
  return run;
}

}  // namespace

std::string OutcomeCache::Path(const std::string& key) const {
  const XXH128_hash_t hash = XXH3_128bits(key.data(), key.size());
  return absl::StrFormat("%s/%016x%016x.json", folder_, hash.high64, hash.low64);
}

std::optional<Outcome> OutcomeCache::Find(const std::string& key) const {
  std::ifstream file(Path(key));
  if (!file) return std::nullopt;
  const Json json = Json::parse(file, nullptr, false);
  try {
    // The key itself is in the file: a file of another is never taken for it.
    if (json.is_discarded() || json.at("key") != key) return std::nullopt;
    Outcome outcome{.skip_reason = json.at("skip_reason").get<std::string>(), .built_before = true, .replayed_before = true};
    json.at("failed_checks").get_to(outcome.failed_checks);
    for (const Json& run : json.at("runs")) outcome.runs.push_back(RunOf(run));
    if (outcome.skip_reason.empty() && outcome.runs.empty()) return std::nullopt;
    return outcome;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

absl::Status OutcomeCache::Keep(const std::string& key, const Outcome& outcome) const {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  Json json = {{"key", key}, {"skip_reason", outcome.skip_reason}, {"failed_checks", outcome.failed_checks}, {"runs", Json::array()}};
  for (const RunResult& run : outcome.runs) json["runs"].push_back(ToJson(run));
  const std::string path = Path(key), made = absl::StrCat(path, ".", getpid());
  {
    std::ofstream file(made);
    file << JsonText(json, 1) << "\n";
    file.close();
    if (!file) return absl::ResourceExhaustedError(absl::StrCat(made, ": cannot be written; is the disk full?"));
  }
  std::filesystem::rename(made, path, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(path, ": ", error.message()));
  return absl::OkStatus();
}

ReplayMeasurer::ReplayMeasurer(BuildFunction build, CheckFunction check, ReplayFunction replay, OutcomeCache cache, MeasureOptions options)
    : check_(std::move(check)), replay_(std::move(replay)), cache_(std::move(cache)), options_(std::move(options)), builds_(std::move(build), options_.cancelled) {}

std::string ReplayMeasurer::Key(const std::string& hash) const {
  std::string key = absl::StrCat(options_.identity, "\ncommit ", hash, "\nseeds");
  for (const std::uint64_t seed : options_.seeds) absl::StrAppend(&key, " ", seed);
  return key;
}

std::optional<Outcome> ReplayMeasurer::Known(const std::string& hash) const {
  std::optional<Outcome> known = cache_.Find(Key(hash));
  if (known.has_value() && !known->skip_reason.empty() && options_.retry_skipped) return std::nullopt;
  return known;
}

void ReplayMeasurer::Expect(const std::vector<std::string>& hashes) {
  if (!options_.build_ahead) return;
  std::vector<std::string> unknown;
  for (const std::string& hash : hashes) {
    if (!Known(hash).has_value()) unknown.push_back(hash);
  }
  builds_.Expect(unknown);
}

absl::StatusOr<Outcome> ReplayMeasurer::Measure(const Commit& commit) {
  if (std::optional<Outcome> known = Known(commit.hash)) return *std::move(known);
  absl::StatusOr<Outcome> outcome = MeasureNow(commit);
  if (!outcome.ok()) return outcome.status();
  if (absl::Status kept = cache_.Keep(Key(commit.hash), *outcome); !kept.ok()) return kept;
  return outcome;
}

absl::StatusOr<Outcome> ReplayMeasurer::MeasureNow(const Commit& commit) {
  absl::StatusOr<Built> built = builds_.Get(commit.hash);
  if (!built.ok()) return built.status();
  Outcome outcome{.skip_reason = built->failure, .built_before = built->built_before};
  if (!outcome.skip_reason.empty()) return outcome;
  const absl::StatusOr<std::vector<std::string>> failed = check_(built->allocator);
  if (!failed.ok() && failed.status().code() == absl::StatusCode::kFailedPrecondition) {
    outcome.skip_reason = std::string(failed.status().message());
    return outcome;
  }
  if (!failed.ok()) return failed.status();
  outcome.failed_checks = *failed;
  for (const std::uint64_t seed : options_.seeds) {
    if (options_.cancelled != nullptr && *options_.cancelled) return absl::CancelledError("interrupted");
    absl::StatusOr<RunResult> run = replay_(built->allocator, seed);
    if (!run.ok() && (run.status().code() == absl::StatusCode::kFailedPrecondition || run.status().code() == absl::StatusCode::kNotFound)) {
      outcome.skip_reason = std::string(run.status().message());
      outcome.runs.clear();
      return outcome;
    }
    if (!run.ok()) return run.status();
    if (options_.cancelled != nullptr && *options_.cancelled) return absl::CancelledError("interrupted");
    if (run->error.has_value()) outcome.skip_reason = absl::StrCat("replay: ", *run->error);
    const double refused = static_cast<double>(run->allocation_failures) / static_cast<double>(std::max<std::uint64_t>(run->events_replayed, 1));
    if (outcome.skip_reason.empty() && refused > kRefusedShare) {
      outcome.skip_reason = absl::StrFormat("replay: %d calls of %d returned NULL", run->allocation_failures, run->events_replayed);
    }
    if (!outcome.skip_reason.empty()) {
      outcome.runs.clear();
      return outcome;
    }
    run->series.clear();
    outcome.runs.push_back(*std::move(run));
  }
  return outcome;
}

}  // namespace heaptape
