// Builds an allocator's library from its source, with the family's own build system, into the store.

#ifndef HEAPTAPE_ALLOCATORS_BUILD_H_
#define HEAPTAPE_ALLOCATORS_BUILD_H_

#include <atomic>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocators/catalog.h"
#include "allocators/family.h"
#include "allocators/store.h"

namespace heaptape {

// What is to be built. `identity` and the build's commands and options decide whether a build that is
// there already is the same one.
struct Source {
  std::string label;      // as people name it: "v2.1.7", "a1b2c3d"
  std::string identity;   // commit hash, or a checksum of the archive or the Debian version
  std::string origin;     // for people: "commit a1b2c3d of https://...", "Debian trixie source mold 2.37"
  // Puts the source into `folder` (exists, empty) for the build to write in, and returns its top folder.
  // Not called where the build is there already.
  std::function<absl::StatusOr<std::string>(const std::string& folder)> unpack;
};

struct BuildOptions {
  std::string commands;   // shell, in place of the family's own; sees $PREFIX, $JOBS, $OPTIONS, $LABEL, $IDENTITY
  std::string library;    // glob of the result, below $PREFIX or the source; empty: the family's
  std::string options;    // added to the family's configure step, as $OPTIONS
  int jobs = 0;           // 0: as many as there are CPUs
  std::string command;    // of the user, kept with the entry
  Talk talk;
  const std::atomic<bool>* cancelled = nullptr;
};

// Builds, or finds what was built before (`was_there`). FailedPrecondition where the build fails, with the
// last lines of its log and the log's place. Two processes that build the same take turns.
absl::StatusOr<StoredAllocator> Build(const Store& store, const Family& family, const Source& source,
                                      const BuildOptions& options, bool* was_there = nullptr);

// FailedPrecondition names what the family's own build calls and is not here, with the packages to install.
absl::Status CheckBuildNeeds(const Family& family);

// What a worker needs to load a stored allocator.
ResolvedAllocator Resolved(const StoredAllocator& stored, const Family& family);

// Of a status: the version that the library says to be where it was to be another.
inline constexpr char kOtherVersion[] = "heaptape/other-version";

// Asks the library itself: fills version and build id. FailedPrecondition where it can't be loaded, or
// where it says to be another than `expected_version` (empty: any), with that as the payload kOtherVersion.
absl::Status VerifyStored(StoredAllocator& stored, const Family& family, const std::string& expected_version,
                          const Talk& talk, const std::atomic<bool>* cancelled);

// The last `count` lines of a log, each with `indent` before it.
std::string LastLines(const std::string& path, int count, const std::string& indent);

// The first file that matches a glob ("libmimalloc.so*") in `folder` or below it; empty if none. Links are
// followed, so that the file itself is named.
std::string FindLibrary(const std::string& folder, const std::string& pattern);

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_BUILD_H_
