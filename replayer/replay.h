// Replays one trace against one allocator in a worker process of its own and says what memory it took.

#ifndef HEAPTAPE_REPLAYER_REPLAY_H_
#define HEAPTAPE_REPLAYER_REPLAY_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "allocators/catalog.h"
#include "replayer/results.h"
#include "traces/trace_reader.h"

namespace heaptape {

enum class Engine { kAuto, kFast, kLockstep };
enum class Clock { kVirtual, kReal, kPaced };
enum class Touch { kRecorded, kFull, kNone };
enum class HugePageMode { kOff, kRecorded, kAlways };

struct ReplayOptions {
  std::string worker_path;                 // of heaptape-worker
  std::uint64_t seed = 0;
  Engine engine = Engine::kAuto;
  Clock clock = Clock::kVirtual;
  Touch touch = Touch::kRecorded;
  HugePageMode huge_pages = HugePageMode::kOff;
  std::uint32_t cpu_count = 0;             // 0: as recorded
  // Recorded times are multiplied by this: below 1 for a program that the recorder, or its machine, slowed down.
  double time_scale = 1;
  // Left to chance, as in production: no two runs are alike then. (--seed moves both, the same way each time.)
  bool vary_addresses = false;
  bool vary_keys = false;                  // what getrandom() and the random devices give
  bool vary_signals = false;               // one comes every millisecond, as under a profiler
  // The worker's tables and stacks are private memory and count in the figures, as they do in other replayers.
  bool count_own_memory = false;
  // Of the allocator's heap RSS. 0: `default_memory_limit_bytes`, which is no part of a result: it ends a replay or changes
  // nothing. That one is DefaultMemoryLimit() where it is 0 too.
  std::uint64_t memory_limit_bytes = 0;
  std::uint64_t default_memory_limit_bytes = 0;
  std::uint64_t hang_timeout_seconds = 60; // without progress
  bool trust_counters = true;              // false: as on kernels whose memory counters are inexact
  bool trust_fsgsbase = true;              // false: as on CPUs that cannot set the FS base by an instruction
  bool trust_identities = true;            // false: as where one thread cannot take another's identity at all
  std::uint32_t sample_count = 2000;       // of the RSS series, spread evenly over virtual time
  // Indices of samples, ascending, after which a heap map is taken. Asking the allocator for usable sizes and
  // marking used pages takes time, but moves no address.
  std::vector<std::uint32_t> map_samples;
  std::vector<std::string> symbol_folders;  // where heap maps look for the recorded program's files first
  std::function<void(std::uint64_t events_done)> progress;  // called a few times a second; may be empty
  const std::atomic<bool>* cancelled = nullptr;             // set by Ctrl-C
};

// What reading a trace for a replay may take. --memory-limit is of the heap: it never makes this less than the default.
ReadLimits LimitsForReplay(const ReplayOptions& options);

// Runs to the end even if the allocator crashes: that is in RunResult::error. An error status means that
// the trace or the allocator could not be opened at all. The verdict is filled in. Thread-safe: several
// replays may run at once, each in its own worker.
absl::StatusOr<RunResult> Replay(const std::string& trace_path, const ResolvedAllocator& allocator,
                                 const ReplayOptions& options);
// The same from a reader that stands at its start.
absl::StatusOr<RunResult> Replay(TraceReader& reader, const ResolvedAllocator& allocator,
                                 const ReplayOptions& options);

// The family that does nothing: what remains is the engine. It replays any trace at 0 bytes.
inline constexpr char kNullAllocator[] = "null";

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_REPLAY_H_
