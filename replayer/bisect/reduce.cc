#include "replayer/bisect/reduce.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "traces/output_file.h"
#include "traces/trace_reader.h"

namespace heaptape {
namespace {

namespace fs = std::filesystem;

// A stretch of time is narrowed to this share of itself.
constexpr int kCutSteps = 5;
// A round that takes off less than this share of the events is the last.
constexpr double kWorthAnotherRound = 0.1;
// Blocks of this size and more have recorded pages and few enough members to leave their sizes alone.
constexpr std::uint64_t kBigBlockBytes = 64 << 10;

// Four classes for each power of two.
unsigned SizeClass(std::uint64_t size) {
  if (size < 8) return 0;
  const int exponent = std::bit_width(size) - 1;
  return static_cast<unsigned>(exponent * 4 + ((size >> (exponent - 2)) & 3));
}

// A number's fate in thinning, the same on every machine.
std::uint64_t Mixed(std::uint64_t number) {
  number += 0x9e3779b97f4a7c15;
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9;
  number = (number ^ (number >> 27)) * 0x94d049bb133111eb;
  return number ^ (number >> 31);
}

// What groups of objects a trace has.
struct Groups {
  std::set<unsigned> sizes, lifetimes, threads;
};

class Reducer {
 public:
  Reducer(const MeasurePair& measure, const ReduceOptions& options) : measure_(measure), options_(options) {}

  absl::StatusOr<Reduction> Run(const std::string& input, const std::string& output) {
    // Also the proof that a filtered trace still shows the difference: side records are gone from it.
    current_ = Candidate();
    absl::StatusOr<FilteredTrace> copied = FilterTrace(input, current_, {}, options_.cancelled, options_.memory_limit_bytes);
    if (!copied.ok()) return copied.status();
    absl::StatusOr<Pair> pair = measure_(current_);
    if (!pair.ok()) return pair.status();
    if (!pair->failure.empty()) return absl::FailedPreconditionError(pair->failure);
    result_.before = result_.after = *pair;
    result_.original = result_.reduced = *copied;
    if (pair->bad - pair->good < options_.min_difference) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the two allocators do not differ enough to reduce by: ", FormatMetric(options_.metric, pair->good), " and ",
          FormatMetric(options_.metric, pair->bad), "; the bad one must need at least ",
          FormatMetric(options_.metric, options_.min_difference), " more (--min-difference)"));
    }
    if (absl::Status status = Rounds(); !status.ok()) {
      if (status.code() != absl::StatusCode::kCancelled) return status;
      result_.interrupted = true;
    }
    std::error_code error;
    if (absl::Status copied_out = CopyOut(output); !copied_out.ok()) return copied_out;
    fs::remove(current_, error);
    return std::move(result_);
  }

 private:
  // The work folder may lie on another file system.
  absl::Status CopyOut(const std::string& output) {
    absl::StatusOr<OutputFile> file = OutputFile::Create(output, options_.replace);
    if (!file.ok()) return file.status();
    std::ifstream trace(current_, std::ios::binary);
    std::vector<char> buffer(1 << 20);
    while (trace.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), trace.gcount() > 0) {
      if (!file->Write({buffer.data(), static_cast<std::size_t>(trace.gcount())})) break;
    }
    if (trace.bad()) return absl::FailedPreconditionError(absl::StrCat(current_, ": cannot be read: ", std::strerror(errno)));
    return file->Finish();
  }

  std::string Candidate() { return absl::StrCat(options_.work_directory, "/candidate-", ++candidates_, ".tape"); }

  double Excess(const Pair& pair) const {
    // The least that a kernel gives is a page; a figure below it would make any ratio.
    if (options_.metric == Metric::kGrowth) return pair.bad - pair.good;
    return pair.bad / std::max(pair.good, 4096.0) - 1;
  }

  bool Keeps(const Pair& pair) const {
    return pair.failure.empty() && pair.bad - pair.good >= options_.min_difference &&
           Excess(pair) >= options_.keep_ratio * Excess(result_.before);
  }

  // Tries a filter on the smallest trace so far; true where the difference stayed and it was taken.
  absl::StatusOr<bool> Try(const std::string& what, const TraceFilter& filter) {
    if (result_.steps.size() >= options_.max_steps) return false;
    const std::string path = Candidate();
    absl::StatusOr<FilteredTrace> trace = FilterTrace(current_, path, filter, options_.cancelled, options_.memory_limit_bytes);
    if (!trace.ok()) return trace.status();
    std::error_code error;
    const bool smaller = trace->events < result_.reduced.events || trace->threads < result_.reduced.threads ||
                         trace->duration_ns < result_.reduced.duration_ns || (filter.size && trace->file_bytes < result_.reduced.file_bytes);
    if (!smaller) {
      fs::remove(path, error);
      return false;
    }
    absl::StatusOr<Pair> pair = measure_(path);
    if (!pair.ok()) {
      fs::remove(path, error);
      return pair.status();
    }
    const ReduceStep step{.what = what, .trace = *trace, .pair = *pair, .kept = Keeps(*pair)};
    fs::remove(step.kept ? current_ : path, error);
    if (step.kept) {
      current_ = path;
      result_.after = step.pair;
      result_.reduced = step.trace;
    }
    result_.steps.push_back(step);
    if (options_.stepped) options_.stepped(step, result_.steps.size());
    return step.kept;
  }

  absl::Status Rounds() {
    while (true) {
      const std::uint64_t events = result_.reduced.events;
      for (const auto pass : {&Reducer::OnlySuccessfulCalls, &Reducer::CutEnd, &Reducer::CutBeginning, &Reducer::MergeThreads,
                              &Reducer::Thin, &Reducer::DropLifetimes, &Reducer::DropSizes, &Reducer::RoundSizes}) {
        if (absl::Status status = (this->*pass)(); !status.ok()) return status;
      }
      const double gone = 1 - static_cast<double>(result_.reduced.events) / static_cast<double>(std::max<std::uint64_t>(events, 1));
      if (gone < kWorthAnotherRound || result_.steps.size() >= options_.max_steps) return absl::OkStatus();
    }
  }

  absl::Status OnlySuccessfulCalls() { return Try("calls that failed or free no block left out", {.only_successful_calls = true}).status(); }

  absl::Status CutEnd() {
    // Halving as long as it goes, then narrowing.
    double keep = 0.5, step = 0.25;
    for (int i = 0; i < kCutSteps; ++i) {
      const auto to = static_cast<std::uint64_t>(static_cast<double>(result_.reduced.duration_ns) * keep);
      absl::StatusOr<bool> kept = Try(absl::StrFormat("only the first %.0f %% of the time", keep * 100), {.to_ns = to});
      if (!kept.ok()) return kept.status();
      if (*kept) continue;
      keep += step;
      step /= 2;
      if (keep > 0.95) break;
    }
    return absl::OkStatus();
  }

  absl::Status CutBeginning() {
    double drop = 0.5;
    for (int i = 0; i < kCutSteps; ++i) {
      const auto from = static_cast<std::uint64_t>(static_cast<double>(result_.reduced.duration_ns) * drop);
      if (from == 0) break;
      absl::StatusOr<bool> kept = Try(absl::StrFormat("the first %.0f %% of the time cut off", drop * 100), {.from_ns = from});
      if (!kept.ok()) return kept.status();
      if (!*kept) drop /= 2;
    }
    return absl::OkStatus();
  }

  absl::Status MergeThreads() {
    absl::StatusOr<Groups> groups = FindGroups();
    if (!groups.ok()) return groups.status();
    std::vector<unsigned> threads(groups->threads.begin(), groups->threads.end());
    threads.erase(std::remove(threads.begin(), threads.end(), 0u), threads.end());
    return DropChunks(threads, [&](const std::set<unsigned>& gone) {
      return Try(absl::StrCat(gone.size(), " threads merged into the first"), {.merge_thread = [gone](std::uint16_t thread) {
                   return gone.count(thread) > 0;
                 }});
    });
  }

  absl::Status Thin() {
    double keep = 0.5;
    for (int failures = 0; failures < 3;) {
      const auto below = static_cast<std::uint64_t>(keep * 0x1p64);
      // Another salt each time: what stayed once would stay again.
      const std::uint64_t salt = Mixed(result_.steps.size());
      absl::StatusOr<bool> kept =
          Try(absl::StrFormat("%.0f %% of the objects, by chance", keep * 100),
              {.keep = [below, salt](const ObjectFacts& object) { return Mixed(object.number ^ salt) < below; }});
      if (!kept.ok()) return kept.status();
      if (*kept) continue;
      ++failures;
      keep = (1 + keep) / 2;
    }
    return absl::OkStatus();
  }

  absl::Status DropLifetimes() {
    absl::StatusOr<Groups> groups = FindGroups();
    if (!groups.ok()) return groups.status();
    return DropChunks({groups->lifetimes.begin(), groups->lifetimes.end()}, [&](const std::set<unsigned>& gone) {
      return Try(absl::StrCat("objects of ", gone.size(), " classes of lifetime dropped"),
                 {.keep = [gone](const ObjectFacts& object) { return gone.count(object.lifetime_class) == 0; }});
    });
  }

  absl::Status DropSizes() {
    absl::StatusOr<Groups> groups = FindGroups();
    if (!groups.ok()) return groups.status();
    return DropChunks({groups->sizes.begin(), groups->sizes.end()}, [&](const std::set<unsigned>& gone) {
      return Try(absl::StrCat("objects of ", gone.size(), " classes of size dropped"),
                 {.keep = [gone](const ObjectFacts& object) { return gone.count(SizeClass(object.size_bytes)) == 0; }});
    });
  }

  absl::Status RoundSizes() {
    absl::StatusOr<bool> rounded = Try("sizes below 64 KiB rounded up to powers of two", {.size = [](std::uint64_t size) {
                                         return size < kBigBlockBytes ? std::bit_ceil(size) : size;
                                       }});
    if (!rounded.ok() || *rounded) return rounded.status();
    return Try("sizes below 64 KiB rounded up to multiples of 16", {.size = [](std::uint64_t size) {
                 return size < kBigBlockBytes ? (size + 15) / 16 * 16 : size;
               }}).status();
  }

  // Tries to drop halves, quarters, ... of the groups, those dropped being gone for what follows.
  absl::Status DropChunks(std::vector<unsigned> groups, const std::function<absl::StatusOr<bool>(const std::set<unsigned>&)>& drop) {
    for (std::size_t chunk = (groups.size() + 1) / 2; chunk > 0 && !groups.empty(); chunk = chunk == 1 ? 0 : (chunk + 1) / 2) {
      for (std::size_t start = 0; start < groups.size();) {
        const std::size_t end = std::min(start + chunk, groups.size());
        absl::StatusOr<bool> dropped = drop({groups.begin() + start, groups.begin() + end});
        if (!dropped.ok()) return dropped.status();
        if (*dropped) {
          groups.erase(groups.begin() + start, groups.begin() + end);
        } else {
          start = end;
        }
        if (result_.steps.size() >= options_.max_steps) return absl::OkStatus();
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Groups> FindGroups() {
    Groups groups;
    const std::string path = Candidate();
    // The filter knows each object's lifetime; what it writes is thrown away.
    absl::StatusOr<FilteredTrace> seen = FilterTrace(current_, path,
                                                     {.keep =
                                                          [&](const ObjectFacts& object) {
                                                            groups.sizes.insert(SizeClass(object.size_bytes));
                                                            groups.lifetimes.insert(object.lifetime_class);
                                                            groups.threads.insert(object.thread);
                                                            return false;
                                                          }},
                                                     options_.cancelled);
    std::error_code error;
    fs::remove(path, error);
    if (!seen.ok()) return seen.status();
    return groups;
  }

  const MeasurePair& measure_;
  const ReduceOptions& options_;
  std::string current_;
  std::uint64_t candidates_ = 0;
  Reduction result_;
};

}  // namespace

absl::StatusOr<Reduction> ReduceTrace(const std::string& input, const std::string& output, const MeasurePair& measure,
                                      const ReduceOptions& options) {
  if (options.metric == Metric::kTime) {
    return absl::InvalidArgumentError("time: no replay repeats it exactly; reduce by steady, peak or growth");
  }
  return Reducer(measure, options).Run(input, output);
}

}  // namespace heaptape
