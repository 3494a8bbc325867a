// The allocators that heaptape obtained itself, each in a folder of its own below the cache.
//
// FOLDER/FAMILY/KEY/entry.json says what an entry is; its files lie beside it. An entry appears whole or
// not at all: it is made in FOLDER/FAMILY/.KEY.new and renamed. Who makes one holds FOLDER/FAMILY/.KEY.lock.

#ifndef HEAPTAPE_ALLOCATORS_STORE_H_
#define HEAPTAPE_ALLOCATORS_STORE_H_

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace heaptape {

// One entry. Paths in the file are relative to the entry's folder, here absolute.
struct StoredAllocator {
  std::string family;
  std::string version;       // as the library itself says; else as it was named
  std::string label;         // as it was asked for: "3.0.1", "v2.1.7", a commit, "5.3.0-3"
  std::string identity;      // "libmimalloc3 3.0.1+ds-2.1", or a commit, or an archive's checksum
  std::string options;       // of the build
  std::string origin;        // for people: "Debian trixie package libmimalloc3 3.0.1+ds-2.1"
  std::string command;       // that obtained it
  std::string library_path;  // empty only for a C library, whose loader_path is set
  std::string loader_path;   // needed where the library wants another C library than the system's
  std::string loader_library_path;
  std::string build_id;
  std::string folder;        // of the entry
};

// Called with one sentence about what goes on: for stderr.
using Talk = std::function<void(const std::string& sentence)>;

// $XDG_CACHE_HOME/heaptape, or ~/.cache/heaptape.
std::string DefaultCacheFolder();

// A file's lock, held until destroyed.
class FileLock {
 public:
  // Waits while another process holds it, having said `waiting` once. Cancelled if the flag is set meanwhile.
  static absl::StatusOr<FileLock> Take(const std::string& path, const std::string& waiting, const Talk& talk,
                                       const std::atomic<bool>* cancelled);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

// Thread-safe, and safe beside other processes.
class Store {
 public:
  explicit Store(std::string cache_folder) : folder_(std::move(cache_folder) + "/allocators") {}

  // Every whole entry of a family, oldest version first.
  std::vector<StoredAllocator> List(const std::string& family) const;

  // The entry of that key; if there is none, `make` fills the folder it is given (absolute; renamed
  // afterwards) and returns the entry with paths inside that folder. `was_there` may be null.
  absl::StatusOr<StoredAllocator> GetOrMake(
      const std::string& family, const std::string& key,
      const std::function<absl::StatusOr<StoredAllocator>(const std::string& folder)>& make, const Talk& talk,
      const std::atomic<bool>* cancelled, bool* was_there = nullptr) const;

  // Where the log of making an entry lies; outlives a failure.
  std::string LogPath(const std::string& family, const std::string& key) const;

  const std::string& folder() const { return folder_; }

 private:
  std::string folder_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_STORE_H_
