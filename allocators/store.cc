#include "allocators/store.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "allocators/debian.h"
#include "nlohmann/json.hpp"

namespace heaptape {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kSchemaVersion = 1;
constexpr char kEntryFile[] = "entry.json";

// `path` list ("a:b") with each part under `from` put under `to` instead.
std::string Moved(const std::string& paths, const std::string& from, const std::string& to) {
  std::vector<std::string> moved;
  for (const auto part : absl::StrSplit(paths, ':')) {
    std::string path(part.data(), part.size());
    if (absl::StartsWith(path, absl::StrCat(from, "/"))) path = to.empty() ? path.substr(from.size() + 1) : absl::StrCat(to, path.substr(from.size()));
    moved.push_back(std::move(path));
  }
  return absl::StrJoin(moved, ":");
}

std::string Absolute(const std::string& paths, const std::string& folder) {
  if (paths.empty()) return paths;
  std::vector<std::string> absolute;
  for (const auto part : absl::StrSplit(paths, ':')) {
    const std::string path(part.data(), part.size());
    absolute.push_back(path.rfind('/', 0) == 0 ? path : absl::StrCat(folder, "/", path));
  }
  return absl::StrJoin(absolute, ":");
}

std::optional<StoredAllocator> ReadEntry(const fs::path& folder) {
  std::ifstream file(folder / kEntryFile);
  if (!file) return std::nullopt;
  const json entry = json::parse(file, nullptr, false);
  if (!entry.is_object() || entry.value("schema_version", 0) != kSchemaVersion) return std::nullopt;
  const auto text = [&entry](const char* key) {
    const auto found = entry.find(key);
    return found != entry.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  StoredAllocator stored{.family = text("family"),
                         .version = text("version"),
                         .label = text("label"),
                         .identity = text("identity"),
                         .options = text("options"),
                         .origin = text("origin"),
                         .command = text("command"),
                         .library_path = Absolute(text("library"), folder.string()),
                         .loader_path = Absolute(text("loader"), folder.string()),
                         .loader_library_path = Absolute(text("loader_library_path"), folder.string()),
                         .build_id = text("build_id"),
                         .folder = folder.string()};
  std::error_code error;
  if (stored.library_path.empty() && stored.loader_path.empty()) return std::nullopt;
  if (!stored.library_path.empty() && !fs::is_regular_file(stored.library_path, error)) return std::nullopt;
  if (!stored.loader_path.empty() && !fs::is_regular_file(stored.loader_path, error)) return std::nullopt;
  return stored;
}

absl::Status WriteEntry(const fs::path& folder, const StoredAllocator& stored) {
  const std::string from = folder.string();
  const json entry = {{"schema_version", kSchemaVersion},
                      {"family", stored.family},
                      {"version", stored.version},
                      {"label", stored.label},
                      {"identity", stored.identity},
                      {"options", stored.options},
                      {"origin", stored.origin},
                      {"command", stored.command},
                      {"library", Moved(stored.library_path, from, "")},
                      {"loader", Moved(stored.loader_path, from, "")},
                      {"loader_library_path", Moved(stored.loader_library_path, from, "")},
                      {"build_id", stored.build_id}};
  std::ofstream file(folder / kEntryFile);
  file << entry.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
  file.close();
  if (!file) return absl::InternalError(absl::StrCat((folder / kEntryFile).string(), ": cannot be written; is the disk full?"));
  return absl::OkStatus();
}

}  // namespace

std::string DefaultCacheFolder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/') return absl::StrCat(cache, "/heaptape");
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') {
    const passwd* user = getpwuid(getuid());
    home = user != nullptr ? user->pw_dir : "/tmp";
  }
  return absl::StrCat(home, "/.cache/heaptape");
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock::~FileLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::StatusOr<FileLock> FileLock::Take(const std::string& path, const std::string& waiting, const Talk& talk,
                                        const std::atomic<bool>* cancelled) {
  FileLock lock(open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  if (lock.descriptor_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot be opened"));
  bool said = false;
  while (flock(lock.descriptor_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot be locked"));
    if (cancelled != nullptr && *cancelled) return absl::CancelledError("interrupted");
    if (!said && talk) talk(waiting);
    said = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return lock;
}

std::vector<StoredAllocator> Store::List(const std::string& family) const {
  std::vector<StoredAllocator> entries;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(fs::path(folder_) / family, error)) {
    if (item.path().filename().string().front() == '.') continue;
    if (auto entry = ReadEntry(item.path()); entry && entry->family == family) entries.push_back(*std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const StoredAllocator& a, const StoredAllocator& b) {
    if (const int order = CompareVersions(a.version, b.version); order != 0) return order < 0;
    return a.folder < b.folder;
  });
  return entries;
}

std::string Store::LogPath(const std::string& family, const std::string& key) const {
  return absl::StrCat(folder_, "/", family, "/.", key, ".log");
}

absl::StatusOr<StoredAllocator> Store::GetOrMake(
    const std::string& family, const std::string& key,
    const std::function<absl::StatusOr<StoredAllocator>(const std::string& folder)>& make, const Talk& talk,
    const std::atomic<bool>* cancelled, bool* was_there) const {
  const fs::path family_folder = fs::path(folder_) / family;
  std::error_code error;
  fs::create_directories(family_folder, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(family_folder.string(), ": cannot be made: ", error.message()));
  const fs::path done = family_folder / key;
  const fs::path unfinished = family_folder / ("." + key + ".new");
  const absl::StatusOr<FileLock> lock =
      FileLock::Take((family_folder / ("." + key + ".lock")).string(),
                     absl::StrCat("another heaptape is making ", family, " ", key, "; waiting for it"), talk, cancelled);
  if (!lock.ok()) return lock.status();
  if (was_there != nullptr) *was_there = true;
  if (auto entry = ReadEntry(done)) return *std::move(entry);
  if (was_there != nullptr) *was_there = false;
  // Left by somebody who was stopped half-way, or damaged since.
  fs::remove_all(unfinished, error);
  fs::remove_all(done, error);
  fs::create_directories(unfinished, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(unfinished.string(), ": cannot be made: ", error.message()));
  absl::StatusOr<StoredAllocator> made = make(unfinished.string());
  absl::Status written = made.ok() ? WriteEntry(unfinished, *made) : made.status();
  if (written.ok()) {
    fs::rename(unfinished, done, error);
    if (error) written = absl::InternalError(absl::StrCat(done.string(), ": cannot be put in place: ", error.message()));
  }
  if (!written.ok()) {
    fs::remove_all(unfinished, error);
    return written;
  }
  if (auto entry = ReadEntry(done)) return *std::move(entry);
  return absl::InternalError(absl::StrCat(done.string(), ": was made but has no library"));
}

}  // namespace heaptape
