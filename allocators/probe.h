// What a library says of itself and how it stands the conformance checks, asked by heaptape-probe in a
// process of its own. Host side.

#ifndef HEAPTAPE_ALLOCATORS_PROBE_H_
#define HEAPTAPE_ALLOCATORS_PROBE_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "allocators/catalog.h"
#include "allocators/family.h"

namespace heaptape {

struct ConformanceCheck {
  enum class Outcome { kPassed, kFailed, kAbsent };
  std::string name;     // "realloc"
  Outcome outcome = Outcome::kPassed;
  std::string detail;   // of a failure: one sentence; of an absence: the function
};

inline constexpr char kUnconfined[] =
    "the allocator's library ran with all rights of this user: the kernel has no system call filters";

struct LibraryFacts {
  std::string version;        // as the library says; empty where it can't be asked
  std::string build_id;       // hex digits; may be empty
  std::string library_path;   // what was mapped
  bool confined = true;       // else kUnconfined is to be said
  bool late = false;          // something was given up for its time, as where the machine stood still: not to be remembered
  std::vector<ConformanceCheck> checks;  // empty unless asked for
};

// From the text that heaptape-probe prints. FailedPrecondition with its "error" line's sentence; DataLoss where
// it ended early.
absl::StatusOr<LibraryFacts> ParseProbe(const std::string& text);

struct ProbeOptions {
  bool conformance = false;
  std::string cache_folder;   // results are kept there by the library's content; empty: asked anew
  std::uint64_t seconds = kProbeSeconds;  // the library has so long to answer, and as long for each check
  const std::atomic<bool>* cancelled = nullptr;
};

// `family` may be null for a library outside the catalog. FailedPrecondition where it can't be loaded.
absl::StatusOr<LibraryFacts> AskLibrary(const ResolvedAllocator& allocator, const Family* family, const ProbeOptions& options);

// "14 of 15, failed: aligned_stream (memalign(...) returned NULL ...)"
std::string ConformanceSummary(const std::vector<ConformanceCheck>& checks);

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_PROBE_H_
