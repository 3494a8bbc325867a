#include "replayer/replay.h"

#include <signal.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "allocators/probe.h"
#include "replayer/call_sites.h"
#include "replayer/event_feed.h"
#include "replayer/export/format.h"
#include "replayer/heap_mapper.h"
#include "replayer/steady_state.h"
#include "replayer/touch_plan.h"
#include "replayer/worker_process.h"
#include "traces/memory_limit.h"

namespace heaptape {
namespace {

using SteadyClock = std::chrono::steady_clock;

// 2 MiB of events: stays in the cache that host and worker share.
constexpr std::uint32_t kRingEntries = 128 << 10;
// jemalloc has 2.6 KiB of static TLS, more than the loader keeps for libraries opened later.
constexpr char kStaticTlsTunable[] = "glibc.rtld.optional_static_tls=16384";
// glibc's own rule: so many arenas per CPU at most.
constexpr std::uint32_t kGlibcArenasPerCpu = 8;
// The worker ends itself at the memory limit; the host does if it is this far beyond.
constexpr double kLimitSlack = 1.5;

// What HEAPTAPE_DISTRUST names is not used, as on a machine without it: the tests need no such machine (ENGINE.md).
absl::Status ApplyDistrust(worker::Settings& settings) {
  const char* names = std::getenv("HEAPTAPE_DISTRUST");
  for (const absl::string_view name : absl::StrSplit(names != nullptr ? names : "", ',', absl::SkipEmpty())) {
    if (name == "counters") {
      settings.distrust_counters = 1;
    } else if (name == "fsgsbase") {
      settings.distrust_fsgsbase = 1;
    } else if (name == "identities") {
      settings.distrust_identities = 1;
    } else {
      return absl::InvalidArgumentError(absl::StrCat("HEAPTAPE_DISTRUST: there is no \"", name, "\". Known: counters, fsgsbase, identities"));
    }
  }
  return absl::OkStatus();
}

std::string SignalText(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? absl::StrCat("SIG", name) : absl::StrCat("signal ", signal);
}

// The environment of the worker, all of it: nothing of the user's own moves the figures.
std::vector<std::string> WorkerEnvironment(const ResolvedAllocator& allocator, std::uint32_t cpu_count) {
  std::vector<std::string> environment;
  std::string tunables;
  for (const auto& [name, value] : allocator.environment) {
    if (name == "GLIBC_TUNABLES") {
      tunables = value;
    } else {
      environment.push_back(absl::StrCat(name, "=", value));
    }
  }
  if (tunables.find("glibc.malloc.arena_") == std::string::npos) {
    absl::StrAppend(&tunables, tunables.empty() ? "" : ":", "glibc.malloc.arena_max=", kGlibcArenasPerCpu * cpu_count);
  }
  absl::StrAppend(&tunables, tunables.empty() ? "" : ":", kStaticTlsTunable);
  environment.push_back(absl::StrCat("GLIBC_TUNABLES=", tunables));
  return environment;
}

worker::HugePageMode HugePagesFor(HugePageMode mode, const TraceInfo& info) {
  if (mode == HugePageMode::kAlways) return worker::HugePageMode::kAlways;
  if (mode == HugePageMode::kOff) return worker::HugePageMode::kOff;
  switch (info.huge_pages) {
    case HugePages::kAlways:
      return worker::HugePageMode::kAlways;
    case HugePages::kMadvise:
      return worker::HugePageMode::kMadvise;
    default:
      return worker::HugePageMode::kOff;
  }
}

std::string SeriesDigest(const std::vector<ReplaySample>& series) {
  XXH64_hash_t digest = 0;
  for (const ReplaySample& sample : series) {
    const std::uint64_t fields[] = {sample.time_ns, sample.event_number, sample.heap_rss_bytes};
    digest = XXH64(fields, sizeof(fields), digest);
  }
  return absl::StrFormat("%016x", static_cast<std::uint64_t>(digest));
}

// Adds what the allocator printed last, in one line.
std::string WithOutput(std::string sentence, const std::string& output) {
  if (output.empty()) return sentence;
  std::string tail = output.size() > 300 ? absl::StrCat("...", output.substr(output.size() - 300)) : output;
  while (!tail.empty() && tail.back() == '\n') tail.pop_back();
  std::replace(tail.begin(), tail.end(), '\n', ' ');
  return absl::StrCat(std::move(sentence), "; it printed: ", tail);
}

std::string LimitSentence(const ReplayOptions& options, std::uint64_t limit_bytes) {
  return options.memory_limit_bytes != 0
             ? absl::StrFormat("passed the memory limit of %s", FormatBytes(static_cast<double>(limit_bytes)))
             : absl::StrFormat("passed the memory limit of %s, its share of what the machine has available (see --memory-limit)",
                               FormatBytes(static_cast<double>(limit_bytes)));
}

// Of the recorded process: by its samples, else no more than its machine had; where neither is known, anything.
std::uint64_t MostResidentBytes(TraceReader& reader) {
  std::uint64_t most = 0;
  if (const absl::StatusOr<std::vector<ResidentSample>> samples = reader.ReadResident(); samples.ok()) {
    for (const ResidentSample& sample : *samples) most = std::max({most, sample.rss_bytes, sample.peak_rss_bytes});
  }
  if (most == 0) most = reader.info().memory_bytes;
  return most != 0 ? most : ~std::uint64_t{0};
}

// Ends the worker when the user, the clock or the memory limit says so, and remembers which.
class Watchdog {
 public:
  Watchdog(const WorkerProcess& process, const ReplayOptions& options, std::uint64_t memory_limit_bytes)
      : process_(process), options_(options), memory_limit_bytes_(memory_limit_bytes) {}

  bool operator()() {
    if (options_.cancelled != nullptr && options_.cancelled->load()) {
      reason = "cancelled";
      return true;
    }
    const std::uint64_t position = process_.position();
    const worker::Phase phase = process_.phase();
    // Where this process was stopped or starved so was the worker: of such a gap no more than a second counts.
    const SteadyClock::time_point now = SteadyClock::now();
    without_progress_ += std::min<SteadyClock::duration>(now - last_poll_, std::chrono::seconds(1));
    last_poll_ = now;
    if (position != last_position_ || phase != last_phase_) {
      last_position_ = position;
      last_phase_ = phase;
      without_progress_ = {};
    }
    // A paced replay waits as long as the recorded program did.
    if (options_.clock != Clock::kPaced && without_progress_ > std::chrono::seconds(options_.hang_timeout_seconds)) {
      reason = absl::StrCat("hangs: no progress for ", options_.hang_timeout_seconds, " s at event ", position);
      return true;
    }
    if (static_cast<double>(process_.ResidentBytes()) > kLimitSlack * static_cast<double>(memory_limit_bytes_)) {
      reason = absl::StrCat(limit_sentence(), " at event ", position);
      return true;
    }
    if (options_.progress) options_.progress(position);
    return false;
  }

  std::string limit_sentence() const { return LimitSentence(options_, memory_limit_bytes_); }

  std::string reason;

 private:
  const WorkerProcess& process_;
  const ReplayOptions& options_;
  const std::uint64_t memory_limit_bytes_;
  std::uint64_t last_position_ = 0;
  worker::Phase last_phase_ = worker::Phase::kStarting;
  SteadyClock::time_point last_poll_ = SteadyClock::now();
  SteadyClock::duration without_progress_{};
};

void CopyFindings(const WorkerProcess& process, RunResult& result) {
  const worker::Findings& findings = process.findings();
  result.baseline_rss_bytes = findings.baseline_rss_bytes;
  result.peak_rss_bytes = findings.peak_rss_bytes;
  result.peak_time_ns = findings.peak_time_ns;
  result.allocation_failures = findings.allocation_failures;
  result.minor_faults = findings.minor_faults;
  result.system_calls = {findings.calls.mmap,    findings.calls.munmap,   findings.calls.mremap,
                         findings.calls.madvise, findings.calls.mprotect, findings.calls.brk};
  result.cpu_user_ns = findings.cpu_user_ns;
  result.cpu_system_ns = findings.cpu_system_ns;
  result.uses_fsgsbase = findings.fsgsbase != 0;
  result.events_replayed = process.position();
  const worker::WorkerSample* samples = process.samples();
  result.series.reserve(findings.samples);
  for (std::uint32_t i = 0; i < findings.samples; ++i) {
    const worker::WorkerSample& sample = samples[i];
    result.series.push_back({sample.time_ns, sample.event_number, sample.heap_rss_bytes, sample.live_bytes,
                             sample.live_objects, sample.lazy_free_bytes});
    // A worker that was killed had no time to tell its peak.
    if (sample.heap_rss_bytes > result.peak_rss_bytes) {
      result.peak_rss_bytes = sample.heap_rss_bytes;
      result.peak_time_ns = sample.time_ns;
    }
  }
  if (!result.series.empty()) result.end_rss_bytes = result.series.back().heap_rss_bytes;
  result.series_digest = SeriesDigest(result.series);
  result.address_hash = findings.pointer_hash;

  result.settings.engine =
      findings.engine == static_cast<std::uint32_t>(worker::EngineMode::kLockstep) ? "lockstep" : "fast";
  result.library_path = findings.library_path;
  result.build_id = findings.build_id;
}

// Why the run ended early, if it did.
std::optional<std::string> EndingOf(const WorkerProcess& process, const Watchdog& watchdog) {
  const worker::Findings& findings = process.findings();
  const std::uint64_t position = process.position();
  if (!watchdog.reason.empty()) return WithOutput(watchdog.reason, process.output());
  if (process.phase() == worker::Phase::kStopped) {
    const std::string why = strcmp(findings.error, worker::kPassedMemoryLimit) == 0 ? watchdog.limit_sentence() : findings.error;
    return WithOutput(absl::StrCat(why, " at event ", position), process.output());
  }
  if (process.phase() != worker::Phase::kDone) {
    const std::string how = process.end_signal() != 0 ? absl::StrCat("ended by ", SignalText(process.end_signal()))
                                                      : absl::StrCat("exited with status ", process.exit_status());
    return WithOutput(absl::StrCat(how, " at event ", position), process.output());
  }
  if (findings.allocation_failures != 0) {
    return WithOutput(absl::StrCat("returned NULL where the recorded allocator did not: ", findings.allocation_failures,
                                   " times, first for ", OpName(static_cast<Op>(findings.first_failure_op)), " of ",
                                   findings.first_failure_bytes, " bytes at event ", findings.first_failure_event),
                      process.output());
  }
  return std::nullopt;
}

}  // namespace

ReadLimits LimitsForReplay(const ReplayOptions& options) {
  // The worker's table and that of sizes from 64 KiB on; a heap map's list of blocks and its call stacks.
  constexpr std::uint64_t kWorkerBytes = 16, kHeapMapBytes = 40;
  return {.memory_limit_bytes = std::max(options.memory_limit_bytes, DefaultMemoryLimit()),
          .bytes_per_live_object = kWorkerBytes + (options.map_samples.empty() ? 0 : kHeapMapBytes)};
}

absl::StatusOr<RunResult> Replay(const std::string& trace_path, const ResolvedAllocator& allocator,
                                 const ReplayOptions& options) {
  absl::StatusOr<std::unique_ptr<TraceReader>> reader = TraceReader::Open(trace_path, LimitsForReplay(options));
  if (!reader.ok()) return reader.status();
  return Replay(**reader, allocator, options);
}

absl::StatusOr<RunResult> Replay(TraceReader& reader, const ResolvedAllocator& allocator, const ReplayOptions& options) {
  const SteadyClock::time_point start = SteadyClock::now();
  if (!allocator.problem.empty()) return absl::FailedPreconditionError(allocator.problem);
  const TraceInfo& info = reader.info();
  const TraceSummary& summary = reader.summary();

  RunResult result;
  result.allocator = allocator.family;
  result.version = allocator.version;
  result.library_path = allocator.library_path;
  result.origin = allocator.origin;
  result.tunables = allocator.tunables;

  worker::Settings settings = {};
  settings.seed = options.seed;
  settings.slot_count = summary.peak_live_objects;
  settings.memory_limit_bytes = options.memory_limit_bytes != 0           ? options.memory_limit_bytes
                                : options.default_memory_limit_bytes != 0 ? options.default_memory_limit_bytes
                                                                          : DefaultMemoryLimit();
  settings.machine_memory_bytes = info.memory_bytes;
  settings.thread_count = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(summary.peak_threads, 1, 1 << 16));
  settings.cpu_count = options.cpu_count != 0 ? options.cpu_count : std::clamp(info.cpu_count, 1u, 1024u);
  settings.ring_entries = kRingEntries;
  settings.sample_capacity = std::max(1u, options.sample_count) + 1;
  settings.clock = static_cast<worker::ClockMode>(options.clock);
  settings.touch = static_cast<worker::TouchMode>(options.touch);
  settings.engine = static_cast<worker::EngineMode>(options.engine);
  settings.huge_pages = HugePagesFor(options.huge_pages, info);
  settings.distrust_counters = !options.trust_counters;
  settings.distrust_fsgsbase = !options.trust_fsgsbase;
  settings.distrust_identities = !options.trust_identities;
  if (absl::Status distrusted = ApplyDistrust(settings); !distrusted.ok()) return distrusted;
  settings.vary_addresses = options.vary_addresses;
  settings.vary_keys = options.vary_keys;
  settings.vary_signals = options.vary_signals;
  settings.count_own_memory = options.count_own_memory;
  settings.heap_maps = !options.map_samples.empty();
  settings.null_allocator = allocator.family == kNullAllocator;
  if (allocator.library_path.size() >= sizeof(settings.library_path) ||
      allocator.symbol_prefix.size() >= sizeof(settings.symbol_prefix)) {
    return absl::InvalidArgumentError(absl::StrCat("the path of ", allocator.family, " is too long; move the library to a shorter one"));
  }
  strcpy(settings.library_path, allocator.library_path.c_str());
  strcpy(settings.symbol_prefix, allocator.symbol_prefix.c_str());

  result.settings.seed = settings.seed;
  result.settings.clock = options.clock == Clock::kVirtual ? "virtual" : options.clock == Clock::kReal ? "real" : "paced";
  result.settings.touch = options.touch == Touch::kRecorded ? "recorded" : options.touch == Touch::kFull ? "full" : "none";
  result.settings.huge_pages = options.huge_pages == HugePageMode::kOff        ? "off"
                               : options.huge_pages == HugePageMode::kRecorded ? "recorded"
                                                                               : "always";
  result.settings.cpu_count = settings.cpu_count;
  result.settings.memory_limit_bytes = options.memory_limit_bytes;
  result.settings.time_scale = options.time_scale;
  result.settings.vary_addresses = options.vary_addresses;
  result.settings.vary_keys = options.vary_keys;
  result.settings.vary_signals = options.vary_signals;
  result.settings.count_own_memory = options.count_own_memory;
  result.peak_live_bytes = summary.peak_live_bytes;
  if (info.cpu_count == 0 && options.cpu_count == 0) {
    result.notes.push_back("the recording does not say how many CPUs its machine had; replayed as if it had one (see --cpus)");
  }
  if (info.page_bytes != worker::kPageBytes) {
    result.notes.push_back(absl::StrCat("recorded with pages of ", info.page_bytes, " bytes, replayed with ", worker::kPageBytes));
  }

  if (options.time_scale != 1) result.notes.push_back(absl::StrCat("recorded times were multiplied by ", options.time_scale));
  if (options.vary_addresses) result.notes.push_back("addresses were left to chance: another run gives other figures");
  if (options.vary_keys) result.notes.push_back("random keys were left to chance: another run gives other figures");
  if (options.count_own_memory) result.notes.push_back("the replay's own memory is in the figures: the allocator's is less");

  std::unique_ptr<TouchPlan> plan;
  if (options.touch == Touch::kRecorded) {
    absl::StatusOr<std::vector<TouchRecord>> records = reader.ReadTouched();
    if (absl::IsResourceExhausted(records.status())) return records.status();
    if (!records.ok()) {
      result.notes.push_back(absl::StrCat("touched pages unreadable: ", std::string(records.status().message())));
      records = std::vector<TouchRecord>();
    }
    plan = std::make_unique<TouchPlan>(*std::move(records), settings.slot_count, MostResidentBytes(reader));
    if (plan->empty()) {
      result.notes.push_back("the recording does not tell which pages of large blocks were written: taken as all of a malloc, none of a calloc");
    }
  }

  WorkerCommand command;
  command.worker_path = options.worker_path;
  command.loader_path = allocator.loader_path;
  command.loader_library_path = allocator.loader_library_path;
  command.environment = WorkerEnvironment(allocator, settings.cpu_count);
  command.vary_addresses = options.vary_addresses;
  command.huge_pages_allowed = settings.huge_pages != worker::HugePageMode::kOff;
  absl::StatusOr<std::unique_ptr<WorkerProcess>> started = WorkerProcess::Start(settings, command);
  if (!started.ok()) return started.status();
  WorkerProcess& process = **started;
  Watchdog watchdog(process, options, settings.memory_limit_bytes);
  process.set_watch([&watchdog] { return watchdog(); });

  EventFeed feed(reader, process, settings.sample_capacity - 1, plan.get());
  feed.ScaleTime(options.time_scale);
  HeapMapper mapper(process);
  std::unique_ptr<CallSites> call_sites;  // null where no stacks were recorded
  if (settings.heap_maps) {
    absl::StatusOr<std::unique_ptr<CallSites>> read = CallSites::Read(reader, options.symbol_folders);
    if (read.ok()) {
      call_sites = *std::move(read);
    } else {
      result.notes.push_back(absl::StrCat("call stacks unreadable: ", std::string(read.status().message())));
    }
    if (call_sites != nullptr) feed.Follow([&](std::span<const Event> events) { call_sites->Follow(events); });
    feed.MapHeapAfter(options.map_samples, [&] { result.heap_maps.push_back(mapper.Map(call_sites.get())); });
  }
  if (absl::Status fed = feed.Run(); !fed.ok()) return fed;
  process.AwaitEnd();

  if (process.phase() == worker::Phase::kFailedToStart) return absl::FailedPreconditionError(process.findings().error);
  if (process.phase() == worker::Phase::kStarting) {
    const std::string why = process.exit_status() == 127
                                ? absl::StrCat("cannot run the replay worker ", options.worker_path)
                                : WithOutput(absl::StrCat("cannot load ", allocator.DisplayName(), ": the worker ended by ",
                                                          SignalText(process.end_signal())),
                                             process.output());
    if (watchdog.reason.empty()) return absl::FailedPreconditionError(why);
  }
  CopyFindings(process, result);
  result.notes.insert(result.notes.end(), feed.notes().begin(), feed.notes().end());
  const worker::Findings& findings = process.findings();
  if (!findings.calls_exact) {
    result.notes.push_back("the C library's own system calls could not be counted: the kernel has no Syscall User Dispatch");
  }
  if (!findings.counters_exact) {
    result.notes.push_back(
        "this kernel's memory counters are inexact: samples were read from smaps_rollup, the peak is exact to 0.4 % and 256 KiB");
  }
  if (findings.threads_refused != 0) {
    result.notes.push_back("the allocator wanted threads of its own, which would make runs differ: it got none");
  }
  if (!findings.confined && !settings.null_allocator) {
    result.notes.push_back(kUnconfined);
  }
  if (findings.calls_refused != 0) {
    result.notes.push_back(absl::StrCat("the allocator made system calls that a replay refuses (network, programs, processes, writing to files): ",
                                        findings.calls_refused, ", the first with number ", findings.first_refused_call));
  }
  result.error = EndingOf(process, watchdog);
  Judge(result);
  result.wall_ns = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(SteadyClock::now() - start).count());
  return result;
}

}  // namespace heaptape
