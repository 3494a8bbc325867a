#include "allocators/catalog.h"

#include <glob.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "allocators/build.h"
#include "allocators/debian.h"
#include "allocators/family.h"
#include "allocators/parts.h"
#include "allocators/probe.h"
#include "allocators/specification.h"
#include "allocators/store.h"

namespace heaptape {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLibraryFolders[] = {"/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu",
                                           "/usr/lib64", "/usr/lib"};

std::vector<std::string> FamilyNames() {
  std::vector<std::string> names;
  for (const Family* family : Families()) {
    names.push_back(family->name);
    names.insert(names.end(), family->aliases.begin(), family->aliases.end());
  }
  return names;
}

std::string DidYouMean(const std::string& name, const std::vector<std::string>& known) {
  const std::string nearest = NearestName(name, known);
  return nearest.empty() ? "" : absl::StrCat(" Did you mean ", nearest, "?");
}

std::vector<std::string> Glob(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> paths;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  return paths;
}

// The files behind the family's library names on this system, each once.
std::vector<std::string> InstalledLibraries(const Family& family) {
  std::vector<std::string> libraries;
  std::set<std::string> seen;
  const auto add = [&](const std::string& pattern) {
    for (const std::string& path : Glob(pattern)) {
      std::error_code error;
      const std::string real = fs::canonical(path, error).string();
      if (!error && seen.insert(real).second) libraries.push_back(real);
    }
  };
  for (const std::string& pattern : family.libraries) {
    if (pattern.front() == '/') {
      add(pattern);
      continue;
    }
    for (const char* folder : kLibraryFolders) add(absl::StrCat(folder, "/", pattern));
  }
  return libraries;
}

std::vector<ResolvedAllocator> Installed(const Family& family) {
  if (family.builtin == Family::Builtin::kOurs) {
    const std::string path = PartsFolder() + "/" + family.libraries.front();
    if (!fs::exists(path)) return {};
    return {{.family = family.name,
             .version = HEAPTAPE_VERSION,
             .library_path = path,
             .symbol_prefix = family.symbol_prefix,
             .origin = "part of heaptape"}};
  }
  std::vector<std::string> packages;
  for (const DebianPackage& package : family.packages) packages.push_back(package.name);
  std::vector<ResolvedAllocator> found;
  for (const std::string& path : InstalledLibraries(family)) {
    const InstalledPackage package = PackageOfFile(path, packages);
    const bool is_system = family.builtin == Family::Builtin::kSystemMalloc;
    if (is_system && package.name.empty()) continue;
    found.push_back({.family = family.name,
                     .version = UpstreamVersion(package.version),
                     .library_path = is_system ? "" : path,
                     .symbol_prefix = family.symbol_prefix,
                     .origin = package.name.empty()
                                   ? path
                                   : absl::StrCat("Debian package ", package.name, " ", package.version)});
    SetEnvironment(family, found.back());
  }
  return found;
}

std::string UpperCase(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
  return text;
}

bool IsVariable(const std::string& name) {
  return std::isdigit(static_cast<unsigned char>(name.front())) == 0 &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
}

// The name by which the library itself knows a tunable.
std::string DeliveredName(const Family& family, const std::string& tunable) {
  return family.delivery == TunableDelivery::kList ? family.tunable_name_prefix + tunable : tunable;
}

// Whether this very library reads that tunable: a name that it ignores would give a figure that means
// nothing. All of them look names up by their text, which thus stands in the file.
bool LibraryKnows(const Family& family, const ResolvedAllocator& allocator, const std::string& tunable) {
  const bool in_loader = family.builtin == Family::Builtin::kSystemMalloc;
  const std::string path = !in_loader                       ? allocator.library_path
                           : allocator.loader_path.empty() ? "/lib64/ld-linux-x86-64.so.2"
                                                           : allocator.loader_path;
  std::ifstream file(path, std::ios::binary);
  const std::string content(std::istreambuf_iterator<char>(file), {});
  std::string name = DeliveredName(family, tunable);
  return content.find(name) != std::string::npos || content.find(UpperCase(name)) != std::string::npos;
}

// Replaces the tunables of `allocator`.
absl::Status SetTunables(const Family& family, const std::vector<std::pair<std::string, std::string>>& tunables,
                         ResolvedAllocator& allocator) {
  allocator.tunables.clear();
  SetEnvironment(family, allocator);
  if (tunables.empty()) return absl::OkStatus();
  if (family.tunables.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(family.name, " has no tunables, but \"", tunables[0].first, "\" was given"));
  }
  std::vector<std::string> known;
  for (const Tunable& tunable : family.tunables) known.push_back(tunable.name);
  std::set<std::string> given;
  for (const auto& [name, value] : tunables) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return absl::InvalidArgumentError(absl::StrCat(family.name, " has no tunable \"", name, "\".", DidYouMean(name, known),
                                                     " Known: ", absl::StrJoin(known, ", ")));
    }
    if (!LibraryKnows(family, allocator, name)) {
      return absl::InvalidArgumentError(absl::StrCat(allocator.DisplayName(), " has no tunable \"", name, "\": other versions of ", family.name, " do"));
    }
    if (!given.insert(name).second) {
      return absl::InvalidArgumentError(absl::StrCat(family.name, ": tunable \"", name, "\" is given twice"));
    }
    allocator.tunables.emplace_back(name, value);
  }
  SetEnvironment(family, allocator);
  return absl::OkStatus();
}

// What is loaded is what is named: the library's own word against the package's or the build's.
absl::Status AskVersion(const Family& family, const ProbeOptions& options, ResolvedAllocator& allocator) {
  const absl::StatusOr<LibraryFacts> facts = AskLibrary(allocator, &family, options);
  if (!facts.ok()) return facts.status();
  if (facts->version.empty()) return absl::OkStatus();
  if (!VersionAnswers(facts->version, allocator.version) && !VersionAnswers(allocator.version, facts->version)) {
    return absl::FailedPreconditionError(absl::StrCat(allocator.library_path.empty() ? allocator.loader_path : allocator.library_path, ": is named ",
                                                      family.name, " ", allocator.version, " (", allocator.origin, ") but says itself that it is ", facts->version));
  }
  allocator.version = facts->version;
  return absl::OkStatus();
}

absl::StatusOr<ResolvedAllocator> ResolvePath(const AllocatorSpecification& specification, const ProbeOptions& probe) {
  std::error_code error;
  const fs::path path = fs::canonical(specification.path, error);
  if (error || !fs::is_regular_file(path)) {
    return absl::NotFoundError(absl::StrCat(specification.path, ": no such library; give the path of a shared library that has malloc"));
  }
  ResolvedAllocator allocator{.family = "library", .library_path = path.string(), .origin = path.string()};
  // A library of a known family keeps its name and its tunables, whatever its place.
  for (const Family* family : Families()) {
    if (family->builtin == Family::Builtin::kSystemMalloc) continue;
    for (const std::string& pattern : family->libraries) {
      std::string stem = pattern.substr(pattern.rfind('/') + 1);
      stem.resize(std::min(stem.find(".so"), stem.size()));
      if (path.filename().string().rfind(stem, 0) != 0) continue;
      allocator.family = family->name;
      allocator.symbol_prefix = family->symbol_prefix;
      SetEnvironment(*family, allocator);
      if (absl::Status asked = AskVersion(*family, probe, allocator); !asked.ok()) return asked;
      if (absl::Status set = SetTunables(*family, specification.tunables, allocator); !set.ok()) return set;
      return allocator;
    }
  }
  // Nobody knows its tunables: what is given are variables of its environment. Those of the loader would act on the worker.
  for (const auto& [name, value] : specification.tunables) {
    if (!IsVariable(name) || name.rfind("LD_", 0) == 0) {
      return absl::InvalidArgumentError(absl::StrCat(specification.path, ": is of no known family, so \"", name, "\" would be a variable of its environment, ",
                                                     "which it cannot be; write ", specification.path, ":NAME=VALUE, and no LD_ variable"));
    }
    if (std::any_of(allocator.tunables.begin(), allocator.tunables.end(), [&name = name](const auto& given) { return given.first == name; })) {
      return absl::InvalidArgumentError(absl::StrCat(specification.path, ": tunable \"", name, "\" is given twice"));
    }
    allocator.tunables.emplace_back(name, value);
  }
  allocator.environment = allocator.tunables;
  if (const auto facts = AskLibrary(allocator, nullptr, probe); !facts.ok()) return facts.status();
  return allocator;
}

// The version asked for, else the one installed, else the newest obtained.
absl::StatusOr<ResolvedAllocator> Choose(const Family& family, const std::string& version, const std::string& cache_folder) {
  const std::vector<ResolvedAllocator> installed = Installed(family);
  for (const ResolvedAllocator& candidate : installed) {
    if (VersionAnswers(candidate.version, version) || VersionAnswers(candidate.origin.substr(candidate.origin.rfind(' ') + 1), version)) {
      return candidate;
    }
  }
  const std::vector<StoredAllocator> stored = Store(cache_folder).List(family.name);
  // As it was named when it was added is the surest; then any that answers to the version, newest first.
  for (auto entry = stored.rbegin(); entry != stored.rend(); ++entry) {
    if (entry->label == version || (version.size() >= 7 && entry->identity.rfind(version, 0) == 0)) return Resolved(*entry, family);
  }
  for (auto entry = stored.rbegin(); entry != stored.rend(); ++entry) {
    if (VersionAnswers(entry->version, version)) return Resolved(*entry, family);
  }
  std::vector<std::string> here;
  // The same version may be here as a package and as a build.
  const auto add = [&here](const std::string& there) {
    if (std::find(here.begin(), here.end(), there) == here.end()) here.push_back(there);
  };
  for (const ResolvedAllocator& candidate : installed) add(candidate.version);
  for (const StoredAllocator& entry : stored) add(entry.version);
  const std::string wanted = version.empty() ? family.name : absl::StrCat(family.name, "@", version);
  return absl::NotFoundError(absl::StrCat(wanted, " is not here", here.empty() ? "" : absl::StrCat(" (of ", family.name, " there is ", absl::StrJoin(here, ", "), ")"),
                                          "; `heaptape allocators add ", wanted, "` gets it"));
}

}  // namespace

void SetEnvironment(const Family& family, ResolvedAllocator& allocator) {
  allocator.environment.clear();
  std::vector<std::pair<std::string, std::string>> settings = allocator.tunables;
  for (const auto& setting : family.always_set) {
    if (LibraryKnows(family, allocator, setting.first)) settings.push_back(setting);
  }
  std::string list;
  for (const auto& [name, value] : settings) {
    if (family.delivery == TunableDelivery::kVariables) {
      allocator.environment.emplace_back(family.tunable_variable + UpperCase(name), value);
    } else {
      if (!list.empty()) list += family.tunable_separator;
      absl::StrAppend(&list, DeliveredName(family, name), std::string(1, family.tunable_assign), value);
    }
  }
  if (!list.empty()) allocator.environment.emplace_back(family.tunable_variable, list);
}

std::string ResolvedAllocator::DisplayName() const {
  std::string name = family == "library" ? fs::path(library_path).filename().string() : family;
  if (!version.empty()) absl::StrAppend(&name, " ", version);
  for (const auto& [key, value] : tunables) absl::StrAppend(&name, " ", key, "=", value);
  return name;
}

absl::StatusOr<const Family*> KnownFamily(const std::string& name) {
  if (const Family* family = FindFamily(name)) return family;
  return absl::NotFoundError(absl::StrCat("there is no allocator \"", name, "\".", DidYouMean(name, FamilyNames()), " Known: ",
                                          absl::StrJoin(FamilyNames(), ", "), ", all, or the path of a library"));
}

std::vector<ResolvedAllocator> AllocatorsHere(const Family& family, const std::string& cache_folder) {
  std::vector<ResolvedAllocator> here = Installed(family);
  if (cache_folder.empty()) return here;
  for (const StoredAllocator& stored : Store(cache_folder).List(family.name)) here.push_back(Resolved(stored, family));
  return here;
}

absl::StatusOr<std::vector<ResolvedAllocator>> ResolveAllocators(const std::string& text, const CatalogOptions& options) {
  const std::string cache_folder = options.cache_folder.empty() ? DefaultCacheFolder() : options.cache_folder;
  const ProbeOptions probe = {.cache_folder = cache_folder, .seconds = options.probe_seconds, .cancelled = options.cancelled};
  absl::StatusOr<AllocatorSpecification> specification = ParseSpecification(text);
  if (!specification.ok()) return specification.status();
  if (!specification->path.empty()) {
    absl::StatusOr<ResolvedAllocator> allocator = ResolvePath(*specification, probe);
    if (!allocator.ok()) return allocator.status();
    return std::vector<ResolvedAllocator>{*std::move(allocator)};
  }
  if (specification->name == "all") {
    if (!specification->version.empty() || !specification->tunables.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("allocator \"", text, "\": all takes neither version nor tunables; name a family"));
    }
    std::vector<ResolvedAllocator> all;
    for (const Family* family : Families()) {
      if (!family->in_all) continue;
      std::vector<ResolvedAllocator> found = AllocatorsHere(*family, cache_folder);
      for (ResolvedAllocator& allocator : found) {
        const absl::Status asked = AskVersion(*family, probe, allocator);
        if (absl::IsCancelled(asked)) return asked;
        if (!asked.ok()) allocator.problem = std::string(asked.message());
        all.push_back(std::move(allocator));
      }
    }
    return all;
  }
  const absl::StatusOr<const Family*> known = KnownFamily(specification->name);
  if (!known.ok()) return known.status();
  const Family& family = **known;
  absl::StatusOr<ResolvedAllocator> allocator = Choose(family, specification->version, cache_folder);
  if (!allocator.ok()) return allocator.status();
  if (absl::Status asked = AskVersion(family, probe, *allocator); !asked.ok()) return asked;
  if (absl::Status set = SetTunables(family, specification->tunables, *allocator); !set.ok()) return set;
  return std::vector<ResolvedAllocator>{*std::move(allocator)};
}

absl::StatusOr<std::vector<ResolvedAllocator>> ExpandTunables(const std::vector<ResolvedAllocator>& allocators,
                                                              const std::vector<std::string>& tunables) {
  std::vector<ResolvedAllocator> expanded = allocators;
  for (const std::string& text : tunables) {
    const std::size_t colon = text.find(':'), equals = text.find('=');
    if (colon == std::string::npos || equals == std::string::npos || colon == 0 || equals < colon + 2 || equals + 1 == text.size()) {
      return absl::InvalidArgumentError(absl::StrCat("tunable \"", text, "\" is not of the form FAMILY:KEY=VALUE,VALUE,..."));
    }
    const absl::StatusOr<const Family*> family = KnownFamily(text.substr(0, colon));
    if (!family.ok()) return absl::InvalidArgumentError(std::string(family.status().message()));
    const std::string key = text.substr(colon + 1, equals - colon - 1);
    std::vector<ResolvedAllocator> crossed;
    bool found = false;
    for (const ResolvedAllocator& allocator : expanded) {
      if (allocator.family != (*family)->name) {
        crossed.push_back(allocator);
        continue;
      }
      found = true;
      for (const auto part : absl::StrSplit(text.substr(equals + 1), ',')) {
        std::vector<std::pair<std::string, std::string>> all = allocator.tunables;
        all.emplace_back(key, std::string(part.data(), part.size()));
        if (all.back().second.empty()) return absl::InvalidArgumentError(absl::StrCat("tunable \"", text, "\" has an empty value"));
        ResolvedAllocator with = allocator;
        if (absl::Status set = SetTunables(**family, all, with); !set.ok()) return set;
        crossed.push_back(std::move(with));
      }
    }
    if (!found) {
      return absl::InvalidArgumentError(absl::StrCat("tunable \"", text, "\": no ", (*family)->name, " is to be replayed; add --allocator ", (*family)->name));
    }
    expanded = std::move(crossed);
  }
  return expanded;
}

}  // namespace heaptape
