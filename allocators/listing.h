// What `heaptape allocators` shows: what is here, how it stood the checks, and what can be had.

#ifndef HEAPTAPE_ALLOCATORS_LISTING_H_
#define HEAPTAPE_ALLOCATORS_LISTING_H_

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "allocators/apt.h"
#include "allocators/probe.h"
#include "allocators/store.h"

namespace heaptape {

struct ListedAllocator {
  enum class State {
    kInstalled,  // on this system
    kAdded,      // obtained by heaptape
    kAvailable,  // as a package of some Debian release
    kBroken,     // here, but can't be loaded
  };
  std::string family;
  std::string version;
  State state = State::kInstalled;
  std::string origin;
  std::string library_path;
  std::string build_id;
  std::string command;                   // that obtains it, or did
  std::string problem;                   // of a broken one
  std::vector<ConformanceCheck> checks;  // of one that is here
  bool confined = true;                  // of one that is here: as LibraryFacts has it
};

const char* StateName(ListedAllocator::State state);

struct ListOptions {
  std::string cache_folder;
  bool update = false;          // ask the mirror for every Debian release's packages first
  bool conformance = true;
  Talk talk;
  const std::atomic<bool>* cancelled = nullptr;
};

struct Listing {
  std::vector<ListedAllocator> allocators;
  std::vector<std::string> releases;     // whose packages are known
  std::vector<std::string> notes;        // what could not be asked, and how the libraries were, as sentences
};

absl::StatusOr<Listing> ListAllocators(const ListOptions& options);

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_LISTING_H_
