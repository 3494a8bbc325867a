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
#include "allocators/debian.h"
#include "allocators/family.h"
#include "allocators/parts.h"
#include "allocators/specification.h"

namespace heaptape {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLibraryFolders[] = {"/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu",
                                           "/usr/lib64", "/usr/lib"};

std::vector<std::string> FamilyNames() {
  std::vector<std::string> names;
  for (const Family* family : Families()) names.push_back(family->name);
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
  }
  return found;
}

std::string UpperCase(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
  return text;
}

// The name by which the library itself knows a tunable.
std::string DeliveredName(const Family& family, const std::string& tunable) {
  return family.delivery == TunableDelivery::kList ? family.tunable_name_prefix + tunable : tunable;
}

absl::Status SetTunables(const Family& family, const std::vector<std::pair<std::string, std::string>>& tunables,
                         ResolvedAllocator& allocator) {
  if (tunables.empty()) return absl::OkStatus();
  if (family.tunables.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(family.name, " has no tunables, but \"", tunables[0].first, "\" was given"));
  }
  std::vector<std::string> known;
  for (const Tunable& tunable : family.tunables) known.push_back(tunable.name);
  std::string list;
  std::set<std::string> given;
  for (const auto& [name, value] : tunables) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return absl::InvalidArgumentError(absl::StrCat(family.name, " has no tunable \"", name, "\".", DidYouMean(name, known),
                                                     " Known: ", absl::StrJoin(known, ", ")));
    }
    if (!given.insert(name).second) {
      return absl::InvalidArgumentError(absl::StrCat(family.name, ": tunable \"", name, "\" is given twice"));
    }
    if (family.delivery == TunableDelivery::kVariables) {
      allocator.environment.emplace_back(family.tunable_variable + UpperCase(name), value);
    } else {
      if (!list.empty()) list += family.tunable_separator;
      absl::StrAppend(&list, DeliveredName(family, name), std::string(1, family.tunable_assign), value);
    }
    allocator.tunables.emplace_back(name, value);
  }
  if (!list.empty()) allocator.environment.emplace_back(family.tunable_variable, list);
  return absl::OkStatus();
}

absl::StatusOr<ResolvedAllocator> ResolvePath(const AllocatorSpecification& specification) {
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
      if (absl::Status set = SetTunables(*family, specification.tunables, allocator); !set.ok()) return set;
      return allocator;
    }
  }
  if (!specification.tunables.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(specification.path, ": is of no known family, so its tunables are not known; ",
                                                   "set them in the environment instead"));
  }
  return allocator;
}

}  // namespace

std::string ResolvedAllocator::DisplayName() const {
  std::string name = family == "library" ? fs::path(library_path).filename().string() : family;
  if (!version.empty()) absl::StrAppend(&name, " ", version);
  for (const auto& [key, value] : tunables) absl::StrAppend(&name, " ", key, "=", value);
  return name;
}

absl::StatusOr<std::vector<ResolvedAllocator>> ResolveAllocators(const std::string& text) {
  absl::StatusOr<AllocatorSpecification> specification = ParseSpecification(text);
  if (!specification.ok()) return specification.status();
  if (!specification->path.empty()) {
    absl::StatusOr<ResolvedAllocator> allocator = ResolvePath(*specification);
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
      std::vector<ResolvedAllocator> found = Installed(*family);
      std::move(found.begin(), found.end(), std::back_inserter(all));
    }
    return all;
  }
  const Family* family = FindFamily(specification->name);
  if (family == nullptr) {
    return absl::NotFoundError(absl::StrCat("there is no allocator \"", specification->name, "\".",
                                            DidYouMean(specification->name, FamilyNames()), " Known: ",
                                            absl::StrJoin(FamilyNames(), ", "), ", all, or the path of a library"));
  }
  const std::vector<ResolvedAllocator> installed = Installed(*family);
  for (const ResolvedAllocator& candidate : installed) {
    if (!VersionAnswers(candidate.version, specification->version)) continue;
    ResolvedAllocator allocator = candidate;
    if (absl::Status set = SetTunables(*family, specification->tunables, allocator); !set.ok()) return set;
    return std::vector<ResolvedAllocator>{std::move(allocator)};
  }
  const std::string wanted =
      specification->version.empty() ? family->name : absl::StrCat(family->name, "@", specification->version);
  return absl::NotFoundError(absl::StrCat(wanted, " is not here; `heaptape allocators add ", wanted, "` gets it"));
}

}  // namespace heaptape
