// Which allocators a trace can be replayed against, and how each is loaded. Host side.

#ifndef HEAPTAPE_ALLOCATORS_CATALOG_H_
#define HEAPTAPE_ALLOCATORS_CATALOG_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace heaptape {

// One allocator, found on this machine and ready for a worker to load.
struct ResolvedAllocator {
  std::string family;         // "mimalloc"; "library" for a path outside the catalog
  std::string version;        // as the library itself says once resolved; else as its package or build is named
  std::string library_path;   // absolute; empty: the malloc of the C library the worker runs under
  std::string loader_path;    // another glibc's ld-linux; empty: the system's
  std::string loader_library_path;  // its --library-path
  std::string symbol_prefix;  // put before "malloc" and so on: "je_"; mostly empty
  // Environment the worker is started with: tunables in the form the library wants
  // ("MIMALLOC_PURGE_DELAY", "0").
  std::vector<std::pair<std::string, std::string>> environment;
  // The tunables as the user gave them ("purge_delay", "0"), for results.
  std::vector<std::pair<std::string, std::string>> tunables;
  std::string origin;         // "Debian package libmimalloc2.0 2.0.9+ds-2", "/path", "built from v2.1.7"
  std::string problem;        // of one among "all" that can't be replayed: a sentence; empty: none

  // "mimalloc 2.0.9 purge_delay=0"
  std::string DisplayName() const;
};

struct Family;

// Sets the environment by the tunables and by what the family always sets.
void SetEnvironment(const Family& family, ResolvedAllocator& allocator);

// The family of that name; NotFound names the nearest.
absl::StatusOr<const Family*> KnownFamily(const std::string& name);

// What is here of a family: installed on this system first, then what `heaptape allocators add` obtained,
// oldest version first (nothing obtained with an empty `cache_folder`). Versions are those of packages and builds; no library is asked.
std::vector<ResolvedAllocator> AllocatorsHere(const Family& family, const std::string& cache_folder);

// How long a library may take to answer; a fraction of a second does where the machine is idle.
inline constexpr std::uint64_t kProbeSeconds = 60;

struct CatalogOptions {
  std::string cache_folder;    // empty: DefaultCacheFolder()
  std::uint64_t probe_seconds = kProbeSeconds;
  const std::atomic<bool>* cancelled = nullptr;   // set: Cancelled
};

// Resolves what a user wrote after --allocator: "glibc", "mimalloc@2.0.9", "./libfoo.so",
// "jemalloc@5.3.0:dirty_decay_ms=0,narenas=4", or "all" (each family's versions that are here). Each
// library is asked its version and a few blocks: FailedPrecondition where it cannot be loaded, is another than
// the one named, or takes its blocks from the C library; among "all" that is the allocator's `problem`. NotFound names the nearest known name and how to get it; InvalidArgument names the nearest
// known tunable, also where the family knows a tunable that this version lacks.
absl::StatusOr<std::vector<ResolvedAllocator>> ResolveAllocators(const std::string& specification,
                                                                 const CatalogOptions& options = {});

// Crosses allocators with values of tunables: "mimalloc:purge_delay=0,10,1000" in `tunables` makes three of
// each mimalloc; two keys of one family make all their combinations. Others stay as they are.
// InvalidArgument where no allocator is of the family or the tunable is unknown.
absl::StatusOr<std::vector<ResolvedAllocator>> ExpandTunables(const std::vector<ResolvedAllocator>& allocators,
                                                              const std::vector<std::string>& tunables);

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_CATALOG_H_
