#include "traces/synth_profile.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "traces/huge_table.h"

namespace heaptape {
namespace {

constexpr int kSchemaVersion = 1;
constexpr std::uint64_t kMaxValue = std::uint64_t{1} << 40;
constexpr std::size_t kMaxThreads = 65535;
constexpr std::size_t kMaxClasses = 65535;
// Fewer observations than this say little about how long such objects live.
constexpr double kEnoughObserved = 20;

// Values below 16 each have a bucket of their own, above there are eight to the octave.
constexpr std::uint64_t kExactBuckets = 16;
constexpr std::size_t kBucketCount = kExactBuckets + 8 * 60;

std::size_t BucketOf(std::uint64_t value) {
  if (value < kExactBuckets) return static_cast<std::size_t>(value);
  const int octave = std::bit_width(value) - 1;
  const std::size_t eighth = (value >> (octave - 3)) & 7;
  return kExactBuckets + (static_cast<std::size_t>(octave) - 4) * 8 + eighth;
}

std::uint64_t BucketLow(std::size_t bucket) {
  if (bucket < kExactBuckets) return bucket;
  const std::size_t octave = 4 + (bucket - kExactBuckets) / 8;
  return (8 + (bucket - kExactBuckets) % 8) << (octave - 3);
}

std::uint64_t BucketHigh(std::size_t bucket) { return BucketLow(bucket + 1) - 1; }

bool IsShare(double value) { return value >= 0 && value <= 1; }
bool IsWeight(double value) { return value >= 0 && std::isfinite(value); }

template <typename Weighted>
double TotalWeight(const std::vector<Weighted>& items) {
  double total = 0;
  for (const Weighted& item : items) total += item.weight;
  return total;
}

template <typename Weighted>
bool HasWeights(const std::vector<Weighted>& items) {
  const bool valid = std::all_of(items.begin(), items.end(), [](const Weighted& item) { return IsWeight(item.weight); });
  return valid && TotalWeight(items) > 0 && std::isfinite(TotalWeight(items));
}

bool CallStartsObject(const WeightedCall& call) {
  Event event{.op = call.op, .flags = Event::kFresh};
  return StartsObject(event) && call.alignment_bytes <= kMaxValue &&
         (call.alignment_bytes == 0 || std::has_single_bit(call.alignment_bytes));
}

absl::Status CheckClass(const SynthPhase& phase, const SynthClass& object_class, const std::string& place) {
  const auto bad = [&](const char* what) { return absl::InvalidArgumentError(absl::StrCat(place, ": ", what)); };
  if (object_class.low_bytes > object_class.high_bytes || object_class.high_bytes > kMaxValue) {
    return bad("low_bytes to high_bytes must be a range below 2^40");
  }
  if (!IsWeight(object_class.weight)) return bad("weight must be a number of at least 0");
  if (!IsShare(object_class.permanent_share)) return bad("permanent_share must lie between 0 and 1");
  if (!IsShare(object_class.realloc_share)) return bad("realloc_share must lie between 0 and 1");
  if (object_class.weight > 0) {
    if (!HasWeights(object_class.calls)) return bad("calls must have weights of which one is above 0");
    if (!std::all_of(object_class.calls.begin(), object_class.calls.end(), CallStartsObject)) {
      return bad("calls must be allocations with an alignment that is 0 or a power of two");
    }
  }
  if (object_class.permanent_share < 1) {
    if (!HasWeights(object_class.lifetimes)) return bad("lifetimes must have weights of which one is above 0");
    for (const WeightedRange& range : object_class.lifetimes) {
      if (range.low > range.high || range.high > kMaxValue) return bad("lifetimes must be ranges below 2^40");
    }
  }
  if (object_class.realloc_share > 0) {
    if (!HasWeights(object_class.realloc_targets)) return bad("realloc_targets must have weights of which one is above 0");
    for (const WeightedClass& target : object_class.realloc_targets) {
      if (target.class_index >= phase.classes.size()) return bad("realloc_targets names a class that does not exist");
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::uint64_t SynthProfile::call_count() const {
  std::uint64_t total = 0;
  for (const SynthPhase& phase : phases) total += phase.call_count;
  return total;
}

absl::Status CheckProfile(const SynthProfile& profile) {
  if (profile.phases.empty()) return absl::InvalidArgumentError("profile: it has no phases; give at least one");
  if (profile.repeat_from >= profile.phases.size()) {
    return absl::InvalidArgumentError("profile: repeat_from names a phase that does not exist; use 0 for the first");
  }
  std::size_t class_count = 0;
  std::uint64_t call_count = 0;
  for (std::size_t p = 0; p < profile.phases.size(); ++p) {
    const SynthPhase& phase = profile.phases[p];
    const std::string place = absl::StrCat("profile: phase ", p);
    const auto bad = [&](const char* what) { return absl::InvalidArgumentError(absl::StrCat(place, ": ", what)); };
    if (phase.call_count == 0 || phase.call_count > std::numeric_limits<std::uint64_t>::max() / 2 - call_count) {
      return bad("call_count must be at least 1 and their sum below 2^63");
    }
    call_count += phase.call_count;
    if (!(phase.calls_per_second > 1e-6 && phase.calls_per_second <= 1e12)) {
      return bad("calls_per_second must lie between 1e-6 and 1e12");
    }
    if (!IsShare(phase.cross_thread_free_share)) return bad("cross_thread_free_share must lie between 0 and 1");
    if (!HasWeights(phase.threads) || phase.threads.size() > kMaxThreads) {
      return bad("threads must be 1 to 65535 with weights of which one is above 0");
    }
    for (const SynthThread& thread : phase.threads) {
      if (!(thread.run_calls >= 1 && std::isfinite(thread.run_calls))) return bad("run_calls must be at least 1");
    }
    if (!HasWeights(phase.classes)) return bad("classes must have weights of which one is above 0");
    class_count += phase.classes.size();
    if (class_count > kMaxClasses) return bad("more than 65535 classes in all phases");
    for (std::size_t c = 0; c < phase.classes.size(); ++c) {
      const absl::Status status = CheckClass(phase, phase.classes[c], absl::StrCat(place, ": class ", c));
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

// --- JSON -------------------------------------------------------------------------------------------

namespace {

using Json = nlohmann::ordered_json;

Op OpNamed(const std::string& name) {
  for (std::uint8_t op = 0; op < kOpCount; ++op) {
    if (name == OpName(static_cast<Op>(op))) return static_cast<Op>(op);
  }
  throw nlohmann::json::other_error::create(501, "unknown call \"" + name + "\"", static_cast<const Json*>(nullptr));
}

// Ranges, the bulk of a profile, are [low, high, weight] to keep the file small.
Json RangesToJson(const std::vector<WeightedRange>& ranges) {
  Json array = Json::array();
  for (const WeightedRange& range : ranges) array.push_back({range.low, range.high, range.weight});
  return array;
}

std::vector<WeightedRange> RangesFromJson(const Json& array) {
  std::vector<WeightedRange> ranges;
  for (const Json& item : array) {
    ranges.push_back({item.at(0).get<std::uint64_t>(), item.at(1).get<std::uint64_t>(), item.at(2).get<double>()});
  }
  return ranges;
}

Json ClassToJson(const SynthClass& object_class) {
  Json calls = Json::array();
  for (const WeightedCall& call : object_class.calls) {
    calls.push_back({{"call", OpName(call.op)}, {"alignment_bytes", call.alignment_bytes}, {"weight", call.weight}});
  }
  Json targets = Json::array();
  for (const WeightedClass& target : object_class.realloc_targets) targets.push_back({target.class_index, target.weight});
  return {{"low_bytes", object_class.low_bytes},
          {"high_bytes", object_class.high_bytes},
          {"weight", object_class.weight},
          {"permanent_share", object_class.permanent_share},
          {"realloc_share", object_class.realloc_share},
          {"calls", calls},
          {"lifetimes", RangesToJson(object_class.lifetimes)},
          {"realloc_targets", targets}};
}

SynthClass ClassFromJson(const Json& json) {
  SynthClass object_class;
  object_class.low_bytes = json.at("low_bytes").get<std::uint64_t>();
  object_class.high_bytes = json.at("high_bytes").get<std::uint64_t>();
  object_class.weight = json.at("weight").get<double>();
  object_class.permanent_share = json.at("permanent_share").get<double>();
  object_class.realloc_share = json.at("realloc_share").get<double>();
  for (const Json& call : json.at("calls")) {
    object_class.calls.push_back({OpNamed(call.at("call").get<std::string>()),
                                  call.at("alignment_bytes").get<std::uint64_t>(), call.at("weight").get<double>()});
  }
  object_class.lifetimes = RangesFromJson(json.at("lifetimes"));
  for (const Json& target : json.at("realloc_targets")) {
    object_class.realloc_targets.push_back({target.at(0).get<std::size_t>(), target.at(1).get<double>()});
  }
  return object_class;
}

}  // namespace

std::string ProfileToJson(const SynthProfile& profile) {
  Json phases = Json::array();
  for (const SynthPhase& phase : profile.phases) {
    Json threads = Json::array();
    for (const SynthThread& thread : phase.threads) {
      threads.push_back({{"weight", thread.weight}, {"run_calls", thread.run_calls}});
    }
    Json classes = Json::array();
    for (const SynthClass& object_class : phase.classes) classes.push_back(ClassToJson(object_class));
    phases.push_back({{"call_count", phase.call_count},
                      {"calls_per_second", phase.calls_per_second},
                      {"cross_thread_free_share", phase.cross_thread_free_share},
                      {"threads", threads},
                      {"classes", classes}});
  }
  const Json json = {{"schema_version", kSchemaVersion},
                     {"kind", "heaptape profile"},
                     {"repeat_from", profile.repeat_from},
                     {"phases", phases}};
  // One class a line reads well and compares well.
  std::string text = json.dump();
  for (const char* start : {"{\"low_bytes\"", "{\"call_count\""}) {
    for (std::size_t at = text.find(start); at != std::string::npos; at = text.find(start, at + 2)) text.insert(at, 1, '\n');
  }
  return text + "\n";
}

absl::StatusOr<SynthProfile> ProfileFromJson(const std::string& text, const std::string& name) {
  SynthProfile profile;
  try {
    const Json json = Json::parse(text);
    if (json.at("kind").get<std::string>() != "heaptape profile" || json.at("schema_version").get<int>() != kSchemaVersion) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": not a heaptape profile of version ", kSchemaVersion,
                                                     "; make one with heaptape synth --profile"));
    }
    profile.repeat_from = json.at("repeat_from").get<std::size_t>();
    for (const Json& item : json.at("phases")) {
      SynthPhase phase;
      phase.call_count = item.at("call_count").get<std::uint64_t>();
      phase.calls_per_second = item.at("calls_per_second").get<double>();
      phase.cross_thread_free_share = item.at("cross_thread_free_share").get<double>();
      for (const Json& thread : item.at("threads")) {
        phase.threads.push_back({thread.at("weight").get<double>(), thread.at("run_calls").get<double>()});
      }
      for (const Json& object_class : item.at("classes")) phase.classes.push_back(ClassFromJson(object_class));
      profile.phases.push_back(std::move(phase));
    }
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not a heaptape profile: ", error.what()));
  }
  const absl::Status status = CheckProfile(profile);
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat(name, ": ", status.message()));
  return profile;
}

// --- Distributions as users write them ----------------------------------------------------------------

absl::StatusOr<std::uint64_t> ParseCount(const std::string& text, bool binary) {
  const auto bad = [&] {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is no count; write for example 300, 2.5K or 10M"));
  };
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    return bad();
  }
  const double step = binary ? 1024 : 1000;
  std::string suffix = text.substr(used);
  if (!suffix.empty()) {
    static constexpr std::string_view kSuffixes = "KMGT";
    const std::size_t power = kSuffixes.find(static_cast<char>(suffix[0] & ~0x20));
    if (power == std::string_view::npos || suffix.size() > 1) return bad();
    value *= std::pow(step, static_cast<double>(power) + 1);
  }
  if (!(value >= 0 && value < 9e18)) return bad();
  return static_cast<std::uint64_t>(std::llround(value));
}

namespace {

// The ranges of a continuous distribution whose share below x is `cumulative(x)`.
template <typename Cumulative>
std::vector<WeightedRange> Discretize(std::uint64_t low, std::uint64_t high, const Cumulative& cumulative) {
  std::vector<WeightedRange> ranges;
  for (std::size_t bucket = BucketOf(low); bucket <= BucketOf(high); ++bucket) {
    const std::uint64_t from = std::max(low, BucketLow(bucket)), to = std::min(high, BucketHigh(bucket));
    const double weight = cumulative(static_cast<double>(to) + 1) - cumulative(static_cast<double>(from));
    if (weight > 1e-12) ranges.push_back({from, to, weight});
  }
  return ranges;
}

absl::StatusOr<std::vector<WeightedRange>> ParseShape(const std::string& text, bool binary) {
  const std::vector<std::string> parts = absl::StrSplit(text, '/');
  if (parts.size() > 1) {
    std::vector<double> parameters;
    for (std::size_t i = 1; i < parts.size(); ++i) {
      // A standard deviation is no count: it may be a fraction.
      if (parts[0] == "lognormal" && i == 2) {
        char* end = nullptr;
        parameters.push_back(std::strtod(parts[i].c_str(), &end));
        if (end == parts[i].c_str() || *end) parameters.back() = 0;
      } else {
        const auto value = ParseCount(parts[i], binary);
        if (!value.ok()) return value.status();
        parameters.push_back(static_cast<double>(*value));
      }
    }
    const bool positive = std::all_of(parameters.begin(), parameters.end(), [](double p) { return p > 0 && p < 1e12; });
    if (positive && parts[0] == "exponential" && parameters.size() == 1) {
      const double mean = parameters[0];
      const double most = std::min(mean * 30 + 1, static_cast<double>(kMaxValue));
      return Discretize(0, static_cast<std::uint64_t>(most), [&](double x) { return 1 - std::exp(-x / mean); });
    }
    if (positive && parts[0] == "lognormal" && parameters.size() == 2) {
      const double median = std::log(parameters[0]), deviation = parameters[1];
      const double most = std::min(std::exp(median + 6 * deviation) + 1, static_cast<double>(kMaxValue));
      return Discretize(1, static_cast<std::uint64_t>(most), [&](double x) {
        return 0.5 * std::erfc(-(std::log(x) - median) / (deviation * std::sqrt(2.0)));
      });
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", text, "\" is no distribution; write 64, 16-4K, exponential/MEAN or lognormal/MEDIAN/SIGMA"));
  }
  const std::vector<std::string> bounds = absl::StrSplit(text, '-');
  const auto low = ParseCount(bounds.front(), binary), high = ParseCount(bounds.back(), binary);
  if (!low.ok()) return low.status();
  if (!high.ok()) return high.status();
  if (bounds.size() > 2 || *low > *high || *high > kMaxValue) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is no range below 2^40; write for example 16-4K"));
  }
  if (*low == *high) return std::vector<WeightedRange>{{*low, *high, 1}};
  const double from = std::log(static_cast<double>(*low) + 1), to = std::log(static_cast<double>(*high) + 2);
  return Discretize(*low, *high, [&](double x) { return (std::log(x + 1) - from) / (to - from); });
}

}  // namespace

absl::StatusOr<std::vector<WeightedRange>> ParseDistribution(const std::string& text, bool binary) {
  std::vector<WeightedRange> ranges;
  const std::vector<std::string> items = absl::StrSplit(text, ',');
  for (const std::string& item : items) {
    const std::size_t colon = item.find(':');
    double weight = 1;
    if (colon != std::string::npos) {
      char* end = nullptr;
      weight = std::strtod(item.c_str() + colon + 1, &end);
      if (end == item.c_str() + colon + 1 || *end || !IsWeight(weight)) {
        return absl::InvalidArgumentError(absl::StrCat("\"", item, "\": after the colon stands a weight of at least 0; write for example 16-4K:3"));
      }
    }
    auto shape = ParseShape(item.substr(0, colon), binary);
    if (!shape.ok()) return shape.status();
    const double total = TotalWeight(*shape);
    for (WeightedRange& range : *shape) {
      range.weight *= weight / total;
      if (range.weight > 0) ranges.push_back(range);
    }
  }
  if (ranges.empty()) return absl::InvalidArgumentError(absl::StrCat("\"", text, "\": all weights are 0; give one that is more"));
  return ranges;
}

double MeanOf(const std::vector<WeightedRange>& ranges) {
  double sum = 0;
  for (const WeightedRange& range : ranges) {
    sum += range.weight * (static_cast<double>(range.low) + static_cast<double>(range.high)) / 2;
  }
  return sum / TotalWeight(ranges);
}

// --- Fitting -------------------------------------------------------------------------------------------

namespace {

// How the lives of some objects went, by BucketOf(lifetime in allocations).
struct LifeTable {
  std::map<std::size_t, double> ended;
  std::map<std::size_t, double> censored;  // still alive at the trace's end, at this age

  void Add(const LifeTable& other) {
    for (const auto& [bucket, count] : other.ended) ended[bucket] += count;
    for (const auto& [bucket, count] : other.censored) censored[bucket] += count;
  }
};

// Of the objects that reached a bucket's age: how many were observed there, and which share ended there.
struct Hazard {
  double observed = 0;
  double share = 0;
  bool complete = false;  // the ends of all that were left are known: few, but nothing is guessed of them
};

using Hazards = std::map<std::size_t, Hazard>;  // of the buckets in which something happened

double Sum(const std::map<std::size_t, double>& counts) {
  double sum = 0;
  for (const auto& [bucket, count] : counts) sum += count;
  return sum;
}

Hazards HazardsOf(const LifeTable& table) {
  Hazards hazards;
  for (const auto& [bucket, count] : table.ended) hazards[bucket];
  for (const auto& [bucket, count] : table.censored) hazards[bucket];
  double at_risk = Sum(table.ended) + Sum(table.censored);
  for (auto& [bucket, hazard] : hazards) {
    const auto ended_at = table.ended.find(bucket), censored_at = table.censored.find(bucket);
    const double ended = ended_at == table.ended.end() ? 0 : ended_at->second;
    const double censored = censored_at == table.censored.end() ? 0 : censored_at->second;
    // Those who left sight within the bucket are taken to have been seen for half of it.
    hazard.observed = at_risk - censored / 2;
    hazard.share = hazard.observed > 0 ? std::min(1.0, ended / hazard.observed) : 0;
    at_risk -= ended + censored;
  }
  const std::size_t last_censored = table.censored.empty() ? 0 : table.censored.rbegin()->first + 1;
  for (auto& [bucket, hazard] : hazards) hazard.complete = bucket >= last_censored;
  return hazards;
}

// The lifetimes that the first table tells where enough was observed, else the next.
void FillLifetimes(const std::vector<const Hazards*>& tables, SynthClass& object_class) {
  double surviving = 1;
  for (std::size_t bucket = 0; bucket < kBucketCount && surviving > 1e-9; ++bucket) {
    for (const Hazards* table : tables) {
      const auto found = table->find(bucket);
      // Where nothing happened in this table, the next event tells how many were still under observation.
      const auto next = found != table->end() ? found : table->lower_bound(bucket);
      const bool last = table == tables.back();
      if (!last && (next == table->end() || (next->second.observed < kEnoughObserved && !next->second.complete))) continue;
      if (found != table->end() && found->second.share > 0) {
        object_class.lifetimes.push_back({BucketLow(bucket), BucketHigh(bucket), surviving * found->second.share});
        surviving *= 1 - found->second.share;
      }
      break;
    }
  }
  object_class.permanent_share = object_class.lifetimes.empty() ? 1 : std::max(0.0, surviving);
}

struct ObservedClass {
  std::uint64_t low_bytes = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t high_bytes = 0;
  std::uint64_t started = 0;
  std::uint64_t ended = 0;
  std::map<std::pair<Op, std::uint64_t>, std::uint64_t> calls;
  std::map<std::size_t, std::uint64_t> realloc_targets;  // by size bucket
  LifeTable lives;

  void See(std::uint64_t size_bytes) {
    low_bytes = std::min(low_bytes, size_bytes);
    high_bytes = std::max(high_bytes, size_bytes);
  }
};

struct ObservedPhase {
  std::uint64_t call_count = 0;
  std::uint64_t first_ns = 0, last_ns = 0;
  std::uint64_t frees = 0, cross_thread_frees = 0;
  struct Runs {
    std::uint64_t runs = 0, calls = 0;
  };
  std::vector<Runs> threads;
  std::map<std::size_t, ObservedClass> classes;  // by size bucket
};

// Follows every object of a trace through its lives (from an allocation or realloc to a realloc or free).
class Observer {
 public:
  explicit Observer(std::size_t phase_count) : phases_(phase_count) {}

  void See(const Event& event, std::size_t phase_index) {
    if (event.op == Op::kTime) {
      time_ns_ = event.size;
      return;
    }
    if (!IsCall(event.op) || event.failed() || event.op == Op::kTrim || event.op == Op::kMallopt) return;
    ObservedPhase& phase = phases_[phase_index];
    if (phase.call_count++ == 0) phase.first_ns = time_ns_;
    phase.last_ns = time_ns_;
    if (phase.threads.size() <= event.thread) phase.threads.resize(event.thread + std::size_t{1});
    ++phase.threads[event.thread].calls;
    if (event.thread != last_thread_ || phase.threads[event.thread].runs == 0) ++phase.threads[event.thread].runs;
    if (idle_.size() <= event.thread) idle_.resize(event.thread + std::size_t{1});
    Idle& idle = idle_[event.thread];
    if (event.thread != last_thread_) idle = {idle.last_ran, idle.last_ran, false};
    last_thread_ = event.thread;

    Life& life = lives_.At(event.slot);
    if (StartsObject(event)) {
      ++clock_;
      idle.started_object = true;
      Start(event, phase_index, life);
      ++phase.classes[BucketOf(event.size)].started;
      ++phase.classes[BucketOf(event.size)].calls[{event.op, event.alignment()}];
    } else if (event.op == Op::kFree) {
      ++phase.frees;
      if (life.thread != event.thread) ++phase.cross_thread_frees;
      End(life, idle);
      life.alive = false;
    } else {
      ++End(life, idle).realloc_targets[BucketOf(event.size)];
      // The new size may be new in the phase in which the object was started: a class of its own there.
      const std::size_t started_in = life.phase;
      Start(event, phase_index, life);
      phases_[started_in].classes[BucketOf(event.size)].See(event.size);
    }
    idle.last_ran = clock_;
  }

  SynthProfile Finish() {
    for (Life& life : lives_) {
      if (!life.alive) continue;
      ObservedClass& observed = phases_[life.phase].classes[life.bucket];
      ++observed.lives.censored[BucketOf(clock_ - life.birth)];
    }
    std::map<std::size_t, LifeTable> by_size;
    LifeTable all;
    for (const ObservedPhase& phase : phases_) {
      for (const auto& [bucket, observed] : phase.classes) {
        by_size[bucket].Add(observed.lives);
        all.Add(observed.lives);
      }
    }
    std::map<std::size_t, Hazards> size_hazards;
    for (const auto& [bucket, table] : by_size) size_hazards[bucket] = HazardsOf(table);
    const Hazards all_hazards = HazardsOf(all);

    SynthProfile profile;
    for (const ObservedPhase& observed_phase : phases_) {
      if (observed_phase.call_count == 0) continue;
      SynthPhase phase = ShapeOf(observed_phase);
      std::map<std::size_t, std::size_t> index_of;
      for (const auto& [bucket, observed] : observed_phase.classes) index_of.emplace(bucket, index_of.size());
      for (const auto& [bucket, observed] : observed_phase.classes) {
        SynthClass object_class{.low_bytes = observed.low_bytes,
                                .high_bytes = observed.high_bytes,
                                .weight = static_cast<double>(observed.started)};
        for (const auto& [call, count] : observed.calls) {
          object_class.calls.push_back({call.first, call.second, static_cast<double>(count)});
        }
        std::uint64_t reallocs = 0;
        for (const auto& [target, count] : observed.realloc_targets) {
          object_class.realloc_targets.push_back({index_of.at(target), static_cast<double>(count)});
          reallocs += count;
        }
        if (reallocs) object_class.realloc_share = static_cast<double>(reallocs) / static_cast<double>(observed.ended);
        const Hazards own = HazardsOf(observed.lives);
        FillLifetimes({&own, &size_hazards.at(bucket), &all_hazards}, object_class);
        phase.classes.push_back(std::move(object_class));
      }
      if (TotalWeight(phase.classes) > 0) profile.phases.push_back(std::move(phase));
    }
    profile.repeat_from = profile.phases.size() / 2;
    return profile;
  }

 private:
  struct Life {
    std::uint64_t birth;
    std::uint16_t phase;
    std::uint16_t bucket;
    std::uint16_t thread;
    bool alive;
  };
  static_assert(sizeof(Life) == kFitBytes);

  struct Idle {  // of a thread, in allocations done
    std::uint64_t last_ran = 0;
    std::uint64_t since = 0;      // when the run before the present one ended
    bool started_object = false;  // in the present run
  };

  void Start(const Event& event, std::size_t phase_index, Life& life) {
    life = {clock_, static_cast<std::uint16_t>(phase_index), static_cast<std::uint16_t>(BucketOf(event.size)), event.thread,
            true};
    phases_[phase_index].classes[life.bucket].See(event.size);
  }

  // What a thread ends before anything else when it runs again could have been ended at any time since it
  // last ran: half of that wait is taken off, as `synth` will make it wait anew.
  ObservedClass& End(const Life& life, const Idle& idle) {
    ObservedClass& observed = phases_[life.phase].classes[life.bucket];
    const std::uint64_t earliest = idle.started_object ? clock_ : std::max(life.birth, idle.since);
    ++observed.ended;
    ++observed.lives.ended[BucketOf((earliest + clock_) / 2 - life.birth)];
    return observed;
  }

  static SynthPhase ShapeOf(const ObservedPhase& observed) {
    SynthPhase phase;
    phase.call_count = observed.call_count;
    const double seconds = static_cast<double>(observed.last_ns - observed.first_ns) / 1e9;
    // Without time marks any pace is as right as another.
    phase.calls_per_second = seconds > 0 ? static_cast<double>(observed.call_count) / seconds : 1e6;
    phase.calls_per_second = std::clamp(phase.calls_per_second, 1e-3, 1e12);
    if (observed.frees) {
      phase.cross_thread_free_share = static_cast<double>(observed.cross_thread_frees) / static_cast<double>(observed.frees);
    }
    for (const ObservedPhase::Runs& runs : observed.threads) {
      phase.threads.push_back({static_cast<double>(runs.runs),
                               runs.runs ? static_cast<double>(runs.calls) / static_cast<double>(runs.runs) : 1.0});
    }
    return phase;
  }

  std::vector<ObservedPhase> phases_;
  HugeTable<Life> lives_;    // by slot
  std::vector<Idle> idle_;   // by thread
  std::uint64_t clock_ = 0;  // objects started
  std::uint64_t time_ns_ = 0;
  std::uint32_t last_thread_ = ~0u;
};

}  // namespace

absl::StatusOr<SynthProfile> FitProfile(TraceReader& reader, std::size_t phase_count) {
  if (phase_count == 0 || phase_count > 100) return absl::InvalidArgumentError("a profile has 1 to 100 phases; choose a number in between");
  absl::Status status = reader.Seek(0);
  if (!status.ok()) return status;
  const std::uint64_t event_count = std::max<std::uint64_t>(1, reader.summary().event_count);
  Observer observer(phase_count);
  std::uint64_t seen = 0;
  while (true) {
    const auto block = reader.Next();
    if (!block.ok()) return block.status();
    if (block->events.empty()) break;
    if (!reader.loss().empty()) {
      return absl::DataLossError(absl::StrCat(reader.loss(), "; a profile is fitted to undamaged traces only: copy the readable part with heaptape cut first"));
    }
    for (const Event& event : block->events) {
      const double share = static_cast<double>(seen++) / static_cast<double>(event_count);
      observer.See(event, std::min(phase_count - 1, static_cast<std::size_t>(share * static_cast<double>(phase_count))));
    }
  }
  SynthProfile profile = observer.Finish();
  if (profile.phases.empty()) return absl::InvalidArgumentError("the trace holds no allocations to fit a profile to; record one that does (heaptape inspect shows them)");
  status = CheckProfile(profile);
  if (!status.ok()) return absl::InternalError(absl::StrCat("the fitted profile is not usable: ", status.message()));
  return profile;
}

}  // namespace heaptape
