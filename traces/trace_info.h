// What a trace says of itself beside its events: the recorded process and the machine it ran on, the
// resident set it really had, the pages it really touched, and sampled call stacks.

#ifndef HEAPTAPE_TRACES_TRACE_INFO_H_
#define HEAPTAPE_TRACES_TRACE_INFO_H_

#include <cstdint>
#include <string>
#include <vector>

namespace heaptape {

enum class HugePages : std::uint8_t { kUnknown = 0, kNever = 1, kMadvise = 2, kAlways = 3 };

// Written once, at the start of a trace. Empty strings and zeros mean "not known".
struct TraceInfo {
  std::string program;          // base name of the executable; empty where privacy asks for it
  std::string c_library;        // "glibc 2.36"
  std::string allocator;        // name of the allocator recorded under: "glibc", "mimalloc"
  std::string allocator_version;
  std::string allocator_path;   // base name of its library
  std::string allocator_build_id;
  std::string kernel;           // "6.1.0-13-amd64"
  std::string heaptape_version;
  std::uint64_t memory_bytes = 0;      // of the machine
  std::uint64_t start_unix_seconds = 0;  // rounded to the hour unless asked; 0 where privacy asks
  std::uint64_t time_resolution_ns = 0;
  std::uint32_t cpu_count = 0;         // CPUs the process could run on
  std::uint32_t page_bytes = 4096;
  HugePages huge_pages = HugePages::kUnknown;
  std::uint8_t privacy_level = 0;      // defined in recorder/PRIVACY.md
  std::uint64_t stack_sample_bytes = 0;  // one stack per so many bytes allocated; 0: none
  // Of a later segment of a recording: how long after the recording's start it begins, with what was alive then. A multiple of
  // the resolution. All times in the file count from there.
  std::uint64_t segment_start_ns = 0;
  std::uint64_t segment_number = 0;  // 1, 2, ... where the recording is in several files

  // Of a copy that does not go on where a segment ends.
  void ForgetSegment() { segment_start_ns = segment_number = 0; }

  friend bool operator==(const TraceInfo&, const TraceInfo&) = default;
};

// Calls that do not fit what was recorded before them: a part of the heap was not seen. A plugin loaded with RTLD_DEEPBIND
// allocates past the preload library, and the program frees its blocks through it.
struct UnmatchedFrees {
  std::uint64_t unknown = 0;  // frees and reallocs of blocks that were not seen being allocated; the frees are left out
  std::uint64_t missed = 0;   // objects that were not seen being freed, until their address was given out again

  // Are they more than about one in a hundred of the frees of a trace with so many events? Then replays lack a part of the heap.
  bool HideHeap(std::uint64_t events) const { return unknown > events / 200 || missed > events / 200; }

  friend bool operator==(const UnmatchedFrees&, const UnmatchedFrees&) = default;
};

// Ground truth: the recorded process's memory as the kernel told it at `time_ns`. In bytes.
struct ResidentSample {
  std::uint64_t time_ns = 0;
  std::uint64_t event_number = 0;   // events of the trace before the sample: up to the last time mark, that one included
  std::uint64_t rss_bytes = 0;      // total resident
  std::uint64_t anonymous_bytes = 0;
  std::uint64_t non_heap_bytes = 0;  // part of anonymous that is not the allocator's: stacks, data, own mmaps
  std::uint64_t peak_rss_bytes = 0;  // VmHWM
  std::uint64_t lazy_free_bytes = 0;
  std::uint64_t huge_page_bytes = 0;

  friend bool operator==(const ResidentSample&, const ResidentSample&) = default;
};

struct PageRange {
  std::uint32_t first_page = 0;  // from the page that holds the block's first byte
  std::uint32_t page_count = 0;

  friend bool operator==(const PageRange&, const PageRange&) = default;
};

inline constexpr std::uint64_t kTouchedFromBytes = 64 << 10;  // blocks smaller than this have no touch records

// The pages of one block that were present (resident and not the zero page).
struct TouchRecord {
  enum class When : std::uint8_t { kAllocation = 0, kFree = 1 };

  std::uint64_t object = 0;  // number of the object: how many objects were started before it
  When when = When::kFree;
  std::vector<PageRange> present;  // ascending, disjoint

  friend bool operator==(const TouchRecord&, const TouchRecord&) = default;
};

struct StackFrame {
  std::uint32_t module = 0;  // index into the trace's module table
  std::uint64_t offset = 0;  // within the module's file

  friend bool operator==(const StackFrame&, const StackFrame&) = default;
};

// One sampled call stack, innermost frame first, for the object it allocated.
struct StackSample {
  std::uint64_t object = 0;
  std::vector<StackFrame> frames;

  friend bool operator==(const StackSample&, const StackSample&) = default;
};

struct Module {
  std::string name;  // base name
  std::string build_id;

  friend bool operator==(const Module&, const Module&) = default;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_TRACE_INFO_H_
