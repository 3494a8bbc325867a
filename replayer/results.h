// What one replay found. Plain values: filled by the engine, judged by steady_state, shown by exporters.
//
// Units stand in the names: bytes, nanoseconds of the trace's own (virtual) time unless "wall" or "cpu".

#ifndef HEAPTAPE_REPLAYER_RESULTS_H_
#define HEAPTAPE_REPLAYER_RESULTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "traces/trace_info.h"

namespace heaptape {

// Where the replayed heap stood at one moment. heap_rss_bytes is RSS less the worker's baseline.
struct ReplaySample {
  std::uint64_t time_ns = 0;
  std::uint64_t event_number = 0;
  std::uint64_t heap_rss_bytes = 0;
  std::uint64_t live_bytes = 0;       // requested bytes of live objects
  std::uint64_t live_objects = 0;
  std::uint64_t lazy_free_bytes = 0;  // resident but given back by MADV_FREE

  friend bool operator==(const ReplaySample&, const ReplaySample&) = default;
};

// Where the heap RSS of one moment is. The five parts add up to what the page tables say is resident; that
// this is also heap_rss_bytes, which the kernel's counters say, is tested.
struct HeapMap {
  std::uint64_t time_ns = 0;
  std::uint64_t event_number = 0;
  std::uint64_t heap_rss_bytes = 0;
  std::uint64_t live_bytes = 0;         // requested by live objects, where resident
  std::uint64_t internal_bytes = 0;     // usable to them beyond what was requested, where resident
  std::uint64_t partly_free_bytes = 0;  // in pages with live objects, but none's: free, or the allocator's headers
  std::uint64_t wholly_free_bytes = 0;  // in pages that held objects once and hold none now
  std::int64_t metadata_bytes = 0;      // in pages that never held any
  // Pages with live objects by the share of them that is usable to objects: up to 10 %, 20 % ... 100 %.
  std::vector<std::uint64_t> occupancy_pages;
  struct SizeClass {
    std::uint64_t usable_bytes = 0;     // of each object; above 32 KiB the next power of two
    std::uint64_t objects = 0;
    std::uint64_t live_bytes = 0;
    std::uint64_t partly_free_bytes = 0;  // of the pages its objects are in; shared pages by their share

    friend bool operator==(const SizeClass&, const SizeClass&) = default;
  };
  std::vector<SizeClass> classes;       // those that hold most of partly_free_bytes, the largest first
  // A place in the recorded program that asked for memory: the innermost frame of a recorded stack that is no
  // wrapper of the allocator. Bytes are estimates where only some stacks were recorded (NUMBERS.md).
  struct CallSite {
    std::string name;                   // "buf_add+0x2f (tor)", without its symbol "tor+0x1f2e0"
    std::string module, build_id;
    std::uint64_t offset = 0;           // within the module's file
    std::uint64_t samples = 0;          // live objects whose stack was recorded
    std::uint64_t live_bytes = 0;
    std::uint64_t partly_free_bytes = 0;
    std::vector<std::string> stack;     // the one that holds most, innermost first

    friend bool operator==(const CallSite&, const CallSite&) = default;
  };
  std::vector<CallSite> call_sites;     // as classes; only of the highest, the steady and the last heap map

  friend bool operator==(const HeapMap&, const HeapMap&) = default;
};

enum class Verdict { kStable, kGrowing, kBloating, kSettling, kFailed };
const char* VerdictName(Verdict verdict);  // "stable", ... as in JSON

struct SystemCalls {
  std::uint64_t mmap = 0, munmap = 0, mremap = 0, madvise = 0, mprotect = 0, brk = 0;
};

// How the replay ran: everything needed to run it again and get the same number.
struct ReplaySettings {
  std::uint64_t seed = 0;
  std::string engine = "fast";        // "fast" (TLS switching) or "lockstep" (real threads)
  std::string clock = "virtual";      // "virtual", "real"
  std::string touch = "recorded";     // "recorded", "full", "none"
  std::string huge_pages = "off";     // "off", "recorded", "always"
  std::uint32_t cpu_count = 0;        // what the allocator was told
  std::uint64_t memory_limit_bytes = 0;
  double time_scale = 1;              // recorded times were multiplied by it
  // Left to chance, or counted, where the engine otherwise sees to it that they move nothing (ENGINE.md).
  bool vary_addresses = false;
  bool vary_keys = false;
  bool vary_signals = false;
  bool count_own_memory = false;

  friend bool operator==(const ReplaySettings&, const ReplaySettings&) = default;
};

struct RunResult {
  // What was replayed against.
  std::string allocator;              // family: "mimalloc"
  std::string version;                // as the library itself says, or the catalog where it cannot be asked
  std::string library_path;
  std::string build_id;
  std::string origin;
  std::vector<std::pair<std::string, std::string>> tunables;
  ReplaySettings settings;

  // Measured.
  std::vector<ReplaySample> series;
  std::uint64_t peak_rss_bytes = 0;   // heap RSS, exact (from the kernel's high-water mark)
  std::uint64_t peak_time_ns = 0;     // of the sample nearest to the peak
  std::uint64_t end_rss_bytes = 0;
  std::uint64_t baseline_rss_bytes = 0;
  std::uint64_t peak_live_bytes = 0;
  std::uint64_t events_replayed = 0;
  std::uint64_t allocation_failures = 0;  // calls that returned NULL though the recorded one did not
  std::uint64_t minor_faults = 0;
  SystemCalls system_calls;
  std::uint64_t wall_ns = 0;
  std::uint64_t cpu_user_ns = 0;
  std::uint64_t cpu_system_ns = 0;
  std::uint64_t address_hash = 0;     // over every address the allocator returned, in order
  std::string series_digest;          // 16 hex digits over every sample's time, RSS and event number
  bool uses_fsgsbase = false;         // how the fast engine changed threads; moves no figure, so no output has it
  std::vector<std::string> notes;     // sentences for the user
  std::vector<HeapMap> heap_maps;     // where asked for: at moments spread over the run, at the peak, at the end

  // Judged: filled by Judge() of steady_state.h from the series and the error.
  std::uint64_t steady_rss_bytes = 0;
  std::uint64_t steady_live_bytes = 0;   // live bytes over the same window
  std::uint64_t steady_start_ns = 0;     // where the warm-up ends
  std::uint64_t steady_window_ns = 0;    // from there to the end
  double growth_bytes_per_day = 0;
  double growth_low_bytes_per_day = 0;   // bounds of its confidence interval
  double growth_high_bytes_per_day = 0;
  Verdict verdict = Verdict::kSettling;

  std::optional<std::string> error;   // why the run ended early: signal, NULL, hang, memory limit
};

// Of a run that has heap maps: the one with the most memory, and the one of the steady window that lies nearest to the
// steady level (the last, where the window has none).
const HeapMap& HighestHeapMap(const RunResult& run);
const HeapMap& SteadyHeapMap(const RunResult& run);

struct TraceIdentity {
  std::string path;
  std::string digest;
  std::string program;
  std::string recorded_under;         // "glibc 2.36"
  std::uint64_t events = 0;
  std::uint64_t duration_ns = 0;
  bool complete = false;
  std::uint64_t segment_start_ns = 0;  // TraceInfo
  std::optional<UnmatchedFrees> unmatched_frees;  // TraceSummary
};

struct TruthSample {                  // of the recorded process itself
  std::uint64_t time_ns = 0;
  std::uint64_t heap_rss_bytes = 0;   // anonymous less what is known not to be heap
  std::uint64_t rss_bytes = 0;
};

// All runs of one trace.
struct ReplayReport {
  TraceIdentity trace;
  std::string kernel;
  std::string machine;                // CPU model
  std::string heaptape_version;
  std::vector<std::string> command;   // how to repeat it
  std::vector<TruthSample> truth;
  std::vector<RunResult> runs;
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_RESULTS_H_
