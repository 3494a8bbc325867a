#include "replayer/fleet.h"

#include <sys/utsname.h>

#include <algorithm>
#include <condition_variable>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "replayer/result_cache.h"
#include "replayer/steady_state.h"
#include "traces/memory_limit.h"
#include "traces/trace_reader.h"

namespace heaptape {
namespace {

// What a replay takes at most, by rule of thumb: the worst allocators of the production figures held
// several times the live bytes, and the worker keeps 16 bytes per live object and its own pools.
constexpr std::uint64_t kMemoryPerLiveByte = 4;
constexpr std::uint64_t kMemoryPerLiveObject = 64;
constexpr std::uint64_t kMemoryOfWorker = 64 << 20;

// The value of "name" in a file of lines "name<blanks>: value" such as those of /proc.
std::string ProcValue(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || line.rfind(name, 0) != 0) continue;
    const std::size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

// Of a trace's call stacks, which its own digest leaves out; empty where there are none.
std::string StackDigest(const std::string& path) {
  const absl::StatusOr<std::unique_ptr<TraceReader>> reader = TraceReader::Open(path);
  if (!reader.ok()) return "";
  const absl::StatusOr<std::vector<StackSample>> stacks = (*reader)->ReadStacks();
  const absl::StatusOr<std::vector<Module>> modules = (*reader)->ReadModules();
  if (!stacks.ok() || !modules.ok() || stacks->empty()) return "";
  XXH64_hash_t digest = 0;
  const auto add = [&](const void* bytes, std::size_t size) { digest = XXH64(bytes, size, digest); };
  for (const Module& module : *modules) {
    add(module.name.data(), module.name.size());
    add(module.build_id.data(), module.build_id.size());
  }
  for (const StackSample& stack : *stacks) {
    add(&stack.object, sizeof(stack.object));
    for (const StackFrame& frame : stack.frames) {
      const std::uint64_t fields[] = {frame.module, frame.offset};
      add(fields, sizeof(fields));
    }
  }
  return absl::StrCat(" stacks ", absl::Hex(digest));
}

// The runs of all traces in one list, handed to threads as memory allows.
class Fleet {
 public:
  Fleet(const std::vector<FleetTrace>& traces, const std::vector<ResolvedAllocator>& allocators,
        const FleetOptions& options)
      : traces_(traces), allocators_(allocators), options_(options), cache_(options.cache_folder) {
    for (std::size_t trace = 0; trace < traces.size(); ++trace) {
      // Only a heap map shows the stacks, and only a cache asks whether they are the same.
      const bool shown = options.heap_maps > 0 && !options.cache_folder.empty();
      stack_digests_.push_back(shown ? StackDigest(traces[trace].report.trace.path) : "");
      for (std::size_t allocator = 0; allocator < allocators.size(); ++allocator) {
        for (std::uint32_t seed = 0; seed < options.seeds; ++seed) {
          jobs_.push_back({trace, allocator, options.replay.seed + seed});
        }
      }
    }
    results_.resize(jobs_.size());
    budget_ = options.memory_budget_bytes != 0 ? options.memory_budget_bytes : DefaultMemoryLimit();
  }

  absl::StatusOr<std::vector<ReplayReport>> Run() {
    const std::size_t cores = std::max(1u, std::thread::hardware_concurrency());
    const std::size_t count = std::min(jobs_.size(), options_.jobs != 0 ? std::size_t{options_.jobs} : cores);
    share_ = budget_ / std::max<std::size_t>(count, 1);
    std::vector<std::thread> threads;
    for (std::size_t i = 1; i < count; ++i) threads.emplace_back([this] { Work(); });
    Work();
    for (std::thread& thread : threads) thread.join();
    if (Cancelled()) return absl::CancelledError("interrupted");
    std::vector<ReplayReport> reports;
    for (const FleetTrace& trace : traces_) reports.push_back(trace.report);
    for (std::size_t i = 0; i < jobs_.size(); ++i) reports[jobs_[i].trace].runs.push_back(std::move(results_[i]));
    return reports;
  }

 private:
  bool Cancelled() const { return options_.replay.cancelled != nullptr && options_.replay.cancelled->load(); }

  std::uint64_t Memory(std::size_t job) const { return traces_[jobs_[job].trace].memory_bytes; }

  void Work() {
    for (;;) {
      std::size_t index;
      std::uint64_t granted;
      {
        std::unique_lock lock(mutex_);
        // A job larger than the budget runs alone.
        room_.wait(lock, [&] {
          return next_ == jobs_.size() || running_ == 0 || used_ + Memory(next_) <= budget_;
        });
        if (next_ == jobs_.size() || Cancelled()) return;
        index = next_++;
        // What all that run may take together stays within the budget.
        granted = std::max(std::min(share_, budget_ - std::min(budget_, used_)), std::min(Memory(index), budget_));
        ++running_;
        used_ += granted;
      }
      try {
        results_[index] = RunOne(jobs_[index], granted);
      } catch (const std::bad_alloc&) {
        results_[index] = Failed(jobs_[index], "the system gave no more memory; replay fewer at once (--jobs)");
      }
      {
        const std::lock_guard lock(mutex_);
        --running_;
        used_ -= granted;
      }
      room_.notify_all();
    }
  }

  RunResult Failed(const FleetJob& job, std::string error) const {
    const ResolvedAllocator& allocator = allocators_[job.allocator];
    RunResult failed;
    failed.allocator = allocator.family;
    failed.version = allocator.version;
    failed.library_path = allocator.library_path;
    failed.origin = allocator.origin;
    failed.tunables = allocator.tunables;
    failed.settings.seed = job.seed;
    failed.error = std::move(error);
    failed.verdict = Verdict::kFailed;
    return failed;
  }

  RunResult RunOne(const FleetJob& job, std::uint64_t memory_bytes) {
    const ResolvedAllocator& allocator = allocators_[job.allocator];
    ReplayOptions options = options_.replay;
    options.seed = job.seed;
    options.default_memory_limit_bytes = memory_bytes;
    if (options_.heap_maps > 0) options.map_samples = {options_.heap_maps};  // for the key; the moments follow from the run
    const FleetTrace& trace = traces_[job.trace];
    const std::string digest = absl::StrCat(trace.report.trace.digest, stack_digests_[job.trace]);
    const std::string key = options_.cache_folder.empty() ? "" : ResultKey(digest, allocator, options);
    Tell([&](FleetObserver& observer) { observer.Started(job); });
    if (std::optional<RunResult> kept = cache_.Load(key)) {
      Judge(*kept);  // by this version's method
      Tell([&](FleetObserver& observer) { observer.Finished(job, *kept, true); });
      return *std::move(kept);
    }
    options.progress = [&](std::uint64_t done) {
      Tell([&](FleetObserver& observer) { observer.Progressed(job, done); });
    };
    const std::string& path = trace.report.trace.path;
    options.map_samples.clear();
    absl::StatusOr<RunResult> result =
        options_.replay_one ? options_.replay_one(path, allocator, options) : Replay(path, allocator, options);
    if (!result.ok()) result = Failed(job, std::string(result.status().message()));
    if (result->series.size() > 1 && !result->error && options_.heap_maps > 0 && !Cancelled()) {
      AddHeapMaps(path, allocator, options, *result);
    }
    if (!Cancelled()) cache_.Store(key, *result);
    Tell([&](FleetObserver& observer) { observer.Finished(job, *result, false); });
    return *std::move(result);
  }

  // The same replay again, which now stops at moments spread over the run, at the highest sample and at the
  // end, to say where the memory is. What it says holds only if it was the same replay.
  void AddHeapMaps(const std::string& path, const ResolvedAllocator& allocator, ReplayOptions options, RunResult& result) {
    const std::vector<ReplaySample>& series = result.series;
    const std::size_t last = series.size() - 1;
    const auto highest = std::max_element(series.begin(), series.end(), [](const ReplaySample& a, const ReplaySample& b) {
      return a.heap_rss_bytes < b.heap_rss_bytes;
    });
    std::set<std::uint32_t> moments = {static_cast<std::uint32_t>(highest - series.begin()), static_cast<std::uint32_t>(last)};
    for (std::size_t i = 1; i <= options_.heap_maps; ++i) {
      moments.insert(static_cast<std::uint32_t>(last * i / options_.heap_maps));
    }
    options.map_samples.assign(moments.begin(), moments.end());
    absl::StatusOr<RunResult> mapped =
        options_.replay_one ? options_.replay_one(path, allocator, options) : Replay(path, allocator, options);
    if (mapped.ok() && !mapped->error && mapped->series_digest == result.series_digest) {
      result.heap_maps = std::move(mapped->heap_maps);
      const HeapMap* shown[] = {&HighestHeapMap(result), &SteadyHeapMap(result), &result.heap_maps.back()};
      for (HeapMap& map : result.heap_maps) {
        if (std::find(std::begin(shown), std::end(shown), &map) == std::end(shown)) map.call_sites.clear();
      }
    } else {
      result.notes.push_back("where the memory is cannot be said: the second replay was not the same as the first");
    }
  }

  template <typename Message>
  void Tell(const Message& message) {
    if (options_.observer == nullptr) return;
    const std::lock_guard lock(observer_mutex_);
    message(*options_.observer);
  }

  const std::vector<FleetTrace>& traces_;
  const std::vector<ResolvedAllocator>& allocators_;
  const FleetOptions& options_;
  ResultCache cache_;
  std::vector<std::string> stack_digests_;  // by trace
  std::vector<FleetJob> jobs_;
  std::vector<RunResult> results_;  // one thread writes each
  std::uint64_t budget_ = 0;
  std::mutex mutex_, observer_mutex_;
  std::condition_variable room_;
  std::size_t next_ = 0, running_ = 0;
  std::uint64_t used_ = 0;   // what those that run may take
  std::uint64_t share_ = 0;  // of the budget, for each that may run at once
};

// DataLoss where damage lets none of a trace's events be read: a replay of nothing would say that nothing is needed.
absl::Status CheckReadable(TraceReader& reader) {
  const TraceSummary& summary = reader.summary();
  if (summary.event_count == 0 || reader.loss().empty()) return absl::OkStatus();
  const absl::StatusOr<EventBlock> first = reader.Next();
  if (!first.ok()) return first.status();
  if (first->events.empty() || first->events.front() != Event{Op::kLost, 0, 0, 0, summary.event_count}) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(reader.loss(), "; none of its ", summary.event_count,
                                          " events can be read, so there is nothing to replay"));
}

}  // namespace

absl::StatusOr<FleetTrace> DescribeTrace(const std::string& path, const ReplayOptions& options) {
  absl::StatusOr<std::unique_ptr<TraceReader>> reader = TraceReader::Open(path, LimitsForReplay(options));
  if (!reader.ok()) return reader.status();
  if (const absl::Status readable = CheckReadable(**reader); !readable.ok()) return readable;
  const TraceInfo& info = (*reader)->info();
  const TraceSummary& summary = (*reader)->summary();
  FleetTrace trace;
  trace.memory_bytes = kMemoryOfWorker + kMemoryPerLiveByte * summary.peak_live_bytes +
                       kMemoryPerLiveObject * summary.peak_live_objects;
  ReplayReport& report = trace.report;
  report.trace = {.path = path,
                  .digest = summary.digest,
                  .program = info.program,
                  .recorded_under = info.allocator,
                  .events = summary.event_count,
                  .duration_ns = summary.duration_ns,
                  .complete = summary.complete,
                  .segment_start_ns = info.segment_start_ns,
                  .unmatched_frees = summary.unmatched_frees};
  if (!info.allocator_version.empty()) absl::StrAppend(&report.trace.recorded_under, " ", info.allocator_version);
  utsname system{};
  uname(&system);
  report.kernel = system.release;
  report.machine = ProcValue("/proc/cpuinfo", "model name");
  report.heaptape_version = HEAPTAPE_VERSION;
  const absl::StatusOr<std::vector<ResidentSample>> resident = (*reader)->ReadResident();
  if (absl::IsResourceExhausted(resident.status())) return resident.status();
  if (!resident.ok()) return trace;  // without ground truth a replay is as good
  for (const ResidentSample& sample : *resident) {
    const std::uint64_t heap = sample.anonymous_bytes - std::min(sample.anonymous_bytes, sample.non_heap_bytes);
    report.truth.push_back({sample.time_ns, heap, sample.rss_bytes});
  }
  return trace;
}

absl::StatusOr<std::vector<ReplayReport>> ReplayFleet(const std::vector<FleetTrace>& traces,
                                                      const std::vector<ResolvedAllocator>& allocators,
                                                      const FleetOptions& options) {
  return Fleet(traces, allocators, options).Run();
}

}  // namespace heaptape
