#include "allocators/build.h"

#include <fnmatch.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "allocators/debian.h"
#include "allocators/probe.h"
#include "allocators/process.h"

extern char** environ;

namespace heaptape {
namespace {

namespace fs = std::filesystem;

constexpr int kLogLinesShown = 12;

std::string FileNameOf(std::string text) {
  for (char& c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.' && c != '-' && c != '+') c = '_';
  }
  return text;
}

// Of the caller's environment a build sees what says how to compile, and nothing else: no passwords, tokens or agents, and
// nothing that would change what it makes (LD_PRELOAD, MAKEFLAGS, another repository's GIT_DIR).
bool IsForBuilds(const std::string& name) {
  static const std::set<std::string> names = {"PATH", "HOME", "USER", "LOGNAME", "SHELL",  "TMPDIR", "TZ",     "PKG_CONFIG_PATH", "CC",
                                              "CXX",  "CPP",  "LD",   "AR",      "RANLIB", "CFLAGS", "CXXFLAGS", "CPPFLAGS",      "LDFLAGS"};
  return names.count(name) > 0 || name.rfind("CCACHE_", 0) == 0 || name.rfind("CMAKE_", 0) == 0;
}

std::vector<std::string> BuildStrangers() {
  std::vector<std::string> strangers;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string name = *entry;
    name.resize(name.find('='));
    if (!IsForBuilds(name)) strangers.push_back(std::move(name));
  }
  return strangers;
}

// The version that a label names: "v2.1.7" and "gperftools-2.15" do, "v3.0.2-rc1" and "a1b2c3d" do not.
std::string NumberIn(const std::string& label) {
  const std::size_t begin = label.find_first_of("0123456789");
  if (begin == std::string::npos || (begin > 0 && label[begin - 1] != 'v' && label[begin - 1] != '-')) return "";
  const std::string number = label.substr(begin);
  return number.find_first_not_of("0123456789.") == std::string::npos && number.find('.') != std::string::npos ? number : "";
}

}  // namespace

std::string LastLines(const std::string& path, int count, const std::string& indent) {
  std::ifstream file(path);
  std::deque<std::string> last;
  for (std::string line; std::getline(file, line);) {
    if (line.empty()) continue;
    last.push_back(std::move(line));
    if (static_cast<int>(last.size()) > count) last.pop_front();
  }
  std::string text;
  for (const std::string& line : last) absl::StrAppend(&text, indent, line, "\n");
  return text;
}

std::string FindLibrary(const std::string& folder, const std::string& pattern) {
  std::vector<std::string> found;
  std::error_code error;
  const std::string top = fs::canonical(folder, error).string();
  for (fs::recursive_directory_iterator item(folder, fs::directory_options::skip_permission_denied, error), end; item != end;
       item.increment(error)) {
    if (error) break;
    const std::string name = item->path().filename().string();
    const std::string below = item->path().string().substr(folder.size() + 1);
    if (fnmatch(pattern.c_str(), name.c_str(), 0) != 0 && fnmatch(pattern.c_str(), below.c_str(), FNM_PATHNAME) != 0) continue;
    // A link may be absolute and so lead to the system's own file.
    const fs::path real = fs::canonical(item->path(), error);
    if (!error && real.string().rfind(top + "/", 0) == 0 && fs::is_regular_file(real, error)) {
      found.push_back(folder + real.string().substr(top.size()));
    }
    error.clear();
  }
  // The shallowest is the installed one; among those of one folder the order is that of the names.
  std::sort(found.begin(), found.end(), [](const std::string& a, const std::string& b) {
    const auto depth_a = std::count(a.begin(), a.end(), '/'), depth_b = std::count(b.begin(), b.end(), '/');
    return depth_a != depth_b ? depth_a < depth_b : a < b;
  });
  return found.empty() ? "" : found.front();
}

absl::Status VerifyStored(StoredAllocator& stored, const Family& family, const std::string& expected_version,
                          const Talk& talk, const std::atomic<bool>* cancelled) {
  const absl::StatusOr<LibraryFacts> facts = AskLibrary(Resolved(stored, family), &family, {.cancelled = cancelled});
  if (!facts.ok()) return facts.status();
  if (!facts->version.empty() && !VersionAnswers(facts->version, expected_version) && !VersionAnswers(expected_version, facts->version)) {
    absl::Status other = absl::FailedPreconditionError(absl::StrCat("what was to be ", family.name, " ", expected_version, " says itself that it is ",
                                                                    facts->version, "; not taken"));
    other.SetPayload(kOtherVersion, absl::Cord(facts->version));
    return other;
  }
  stored.version = facts->version.empty() ? (expected_version.empty() ? stored.label : expected_version) : facts->version;
  stored.build_id = facts->build_id;
  if (!facts->confined && talk) talk(kUnconfined);
  return absl::OkStatus();
}

absl::Status CheckBuildNeeds(const Family& family) {
  std::vector<std::string> missing, packages;
  for (const std::string& need : family.build_needs) {
    const std::string program = need.substr(0, need.find(':'));
    const absl::StatusOr<ProcessResult> found = RunProcess({"sh", "-c", "command -v \"$1\"", "sh", program});
    if (!found.ok()) return found.status();
    if (found->exit_status == 0) continue;
    missing.push_back(program);
    packages.push_back(need.substr(need.find(':') + 1));
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("building ", family.name, " needs ", absl::StrJoin(missing, ", "), ", not here: apt-get install ",
                                                    absl::StrJoin(packages, " ")));
}

ResolvedAllocator Resolved(const StoredAllocator& stored, const Family& family) {
  ResolvedAllocator allocator{.family = stored.family,
                              .version = stored.version,
                              .library_path = stored.library_path,
                              .loader_path = stored.loader_path,
                              .loader_library_path = stored.loader_library_path,
                              .symbol_prefix = family.symbol_prefix,
                              .origin = stored.origin};
  SetEnvironment(family, allocator);
  return allocator;
}

absl::StatusOr<StoredAllocator> Build(const Store& store, const Family& family, const Source& source,
                                      const BuildOptions& options, bool* was_there) {
  const std::string& commands = options.commands.empty() ? family.build : options.commands;
  if (commands.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(family.name, " has no known way to be built; give one with --build"));
  }
  const std::string recipe = absl::StrCat(source.identity, "\n", commands, "\n", options.options, "\n", options.library);
  const std::string key = FileNameOf(absl::StrCat(source.label, "-", source.identity.substr(0, 12), "-",
                                                  absl::StrFormat("%08x", XXH3_64bits(recipe.data(), recipe.size()) & 0xffffffff)));
  const std::string log = store.LogPath(family.name, key);
  const auto make = [&](const std::string& folder) -> absl::StatusOr<StoredAllocator> {
    if (options.commands.empty()) {
      if (absl::Status needs = CheckBuildNeeds(family); !needs.ok()) return needs;
    }
    // The source lies outside the entry's folder, where a build in a parent's git repository can't happen.
    const std::string work = folder + "/.work", prefix = folder + "/prefix";
    std::error_code error;
    fs::create_directories(work, error);
    fs::create_directories(prefix, error);
    if (error) return absl::FailedPreconditionError(absl::StrCat(folder, ": cannot be made: ", error.message()));
    const absl::StatusOr<std::string> top = source.unpack(work);
    if (!top.ok()) return top.status();
    if (options.talk) options.talk(absl::StrCat("building ", family.name, " ", source.label, " (log: ", log, ")"));
    const int jobs = options.jobs > 0 ? options.jobs : static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
    const absl::StatusOr<ProcessResult> built = RunProcess({"sh", "-c", commands}, {.directory = *top,
                                                                                    .environment = {{"PREFIX", prefix},
                                                                                                    {"JOBS", absl::StrCat(jobs)},
                                                                                                    {"OPTIONS", options.options},
                                                                                                    {"LABEL", source.label},
                                                                                                    {"IDENTITY", source.identity},
                                                                                                    {"LC_ALL", "C"}},
                                                                                    .without = BuildStrangers(),
                                                                                    .log_path = log,
                                                                                    .cancelled = options.cancelled});
    if (!built.ok()) return built.status();
    if (built->exit_status != 0) {
      return absl::FailedPreconditionError(absl::StrCat(family.name, " ", source.label, " does not build (exit status ",
                                                        built->exit_status, "). The end of ", log, ":\n",
                                                        LastLines(log, kLogLinesShown, "  ")));
    }
    std::vector<std::string> patterns = {options.library};
    if (options.library.empty()) patterns = family.library_after_build.empty() ? family.libraries : std::vector<std::string>{family.library_after_build};
    std::string library;
    for (const std::string& pattern : patterns) {
      for (const std::string& place : {prefix, *top}) {
        if (library.empty()) library = FindLibrary(place, pattern);
      }
    }
    if (library.empty()) {
      return absl::FailedPreconditionError(absl::StrCat(family.name, " ", source.label, " was built, but there is no ", patterns.front(),
                                                        "; name it with --library. Log: ", log));
    }
    if (library.rfind(prefix + "/", 0) != 0) {
      const std::string kept = absl::StrCat(prefix, "/", fs::path(library).filename().string());
      fs::copy_file(library, kept, fs::copy_options::overwrite_existing, error);
      if (error) return absl::FailedPreconditionError(absl::StrCat(library, ": cannot be copied: ", error.message()));
      library = kept;
    }
    fs::remove_all(work, error);
    StoredAllocator stored{.family = family.name,
                           .label = source.label,
                           .identity = source.identity,
                           .options = options.options,
                           .origin = absl::StrCat("built from ", source.origin),
                           .command = options.command,
                           .library_path = library};
    if (family.builtin == Family::Builtin::kSystemMalloc) {
      stored.loader_path = FindLibrary(prefix, "ld-linux-x86-64.so.2");
      stored.loader_library_path = fs::path(library).parent_path().string();
      stored.library_path.clear();
      if (stored.loader_path.empty()) return absl::FailedPreconditionError(absl::StrCat(source.label, " was built without its loader. Log: ", log));
    }
    if (absl::Status verified = VerifyStored(stored, family, NumberIn(source.label), options.talk, options.cancelled); !verified.ok()) return verified;
    return stored;
  };
  return store.GetOrMake(family.name, key, make, options.talk, options.cancelled, was_there);
}

}  // namespace heaptape
