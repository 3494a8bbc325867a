// Obtains an allocator that is not here: a package of any Debian release, or a build from source.

#ifndef HEAPTAPE_ALLOCATORS_ADD_H_
#define HEAPTAPE_ALLOCATORS_ADD_H_

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "allocators/apt.h"
#include "allocators/catalog.h"
#include "allocators/store.h"

namespace heaptape {

struct AddRequest {
  std::string family;
  std::string version;         // "3.0.1", "5.3.0-3", a tag, branch or commit of `source`; empty: the nearest at hand
  std::string release;         // of Debian; empty: all are asked, the running one first
  // Where the source is: a git URL, a clone, an archive, a folder, or "debian:PACKAGE[/FOLDER]" for a Debian
  // source package or what it bundles. Empty: packages first, then bundled copies, then upstream's own git.
  std::string source;
  std::string build_commands;  // in place of the family's
  std::string library;         // glob of what they make
  std::string options;         // for the family's configure step
  std::string cache_folder;    // DefaultCacheFolder()
  std::string command;         // of the user, kept with the entry
  Talk talk;
  const std::atomic<bool>* cancelled = nullptr;
};

struct AddResult {
  ResolvedAllocator allocator;
  bool was_there = false;
};

// NotFound names what can be had instead; Unavailable where the network is not there; FailedPrecondition
// where a build fails or the library is not what it was to be.
absl::StatusOr<AddResult> AddAllocator(const AddRequest& request);

// The packages of the family that this release has and whose index is here.
std::vector<PackageVersion> PackagesOf(const PrivateApt& apt, const std::string& release, const Family& family);

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_ADD_H_
