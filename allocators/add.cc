#include "allocators/add.h"

#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "allocators/build.h"
#include "allocators/debian.h"
#include "allocators/family.h"
#include "allocators/git.h"
#include "allocators/process.h"
#include "allocators/specification.h"

namespace heaptape {
namespace {

namespace fs = std::filesystem;

constexpr char kDebianSource[] = "debian:";
// What else a library of another release may need of that release, besides itself.
constexpr const char* kRuntimePackages[] = {"libc6", "libgcc-s1", "libstdc++6"};

std::string WithoutV(const std::string& version) {
  return version.size() > 1 && version[0] == 'v' && std::isdigit(static_cast<unsigned char>(version[1])) != 0 ? version.substr(1) : version;
}

std::string Join(const std::string& top, const std::string& below) { return below.empty() ? top : absl::StrCat(top, "/", below); }

// Whether the loader refused the library for want of a newer C or C++ library.
bool WantsNewerRuntime(const absl::Status& status) {
  const std::string message(status.message());
  return message.find("version `GLIBC") != std::string::npos || message.find("version `CXXABI") != std::string::npos ||
         message.find("version `GCC_") != std::string::npos || message.find("libstdc++") != std::string::npos;
}

void SetLoader(StoredAllocator& stored, const std::string& folder) {
  stored.loader_path = FindLibrary(folder, "ld-linux-x86-64.so.2");
  std::vector<std::string> places;
  for (const char* name : {"libc.so.6", "libgcc_s.so.1", "libstdc++.so.6"}) {
    const std::string found = FindLibrary(folder, name);
    const std::string place = fs::path(found).parent_path().string();
    if (!found.empty() && std::find(places.begin(), places.end(), place) == places.end()) places.push_back(place);
  }
  stored.loader_library_path = absl::StrJoin(places, ":");
}

// What a C library's package has besides the libraries: megabytes that nothing here reads.
void RemoveBallast(const std::string& folder) {
  std::error_code error;
  for (const char* part : {"usr/share", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/audit", "usr/lib/locale", "etc", "var"}) {
    fs::remove_all(fs::path(folder) / part, error);
  }
}

std::string LibraryIn(const std::string& folder, const Family& family, const std::string& package) {
  for (const DebianPackage& known : family.packages) {
    if (known.name != package) continue;
    if (const std::string library = FindLibrary(folder, known.library); !library.empty()) return library;
  }
  return "";
}

// Unpacks an archive into `folder`, which is empty; returns the folder of what was in it.
absl::StatusOr<std::string> UnpackArchive(const std::string& archive, const std::string& folder, const std::atomic<bool>* cancelled) {
  const absl::StatusOr<ProcessResult> unpacked = RunProcess({"tar", "-xf", archive, "--no-same-owner"}, {.directory = folder, .cancelled = cancelled});
  if (!unpacked.ok()) return unpacked.status();
  if (unpacked->exit_status != 0) {
    return absl::InvalidArgumentError(absl::StrCat(archive, ": is no archive that tar can read: ", unpacked->errors.substr(0, unpacked->errors.find('\n'))));
  }
  // An archive mostly holds one folder.
  std::vector<fs::path> items;
  for (const auto& item : fs::directory_iterator(folder)) items.push_back(item.path());
  return items.size() == 1 && fs::is_directory(items[0]) ? items[0].string() : folder;
}

class Adding {
 public:
  Adding(const AddRequest& request, const Family& family)
      : request_(request), family_(family), store_(request.cache_folder) {}

  absl::StatusOr<AddResult> FromPackages();
  absl::StatusOr<AddResult> FromSource(const std::string& source);
  absl::StatusOr<AddResult> FromDebianSource(const SourcePackage& source);

 private:
  std::string Wanted() const { return request_.version.empty() ? family_.name : absl::StrCat(family_.name, "@", request_.version); }
  // Whether the family says what this release has of it inside that package. Another release may have another.
  static bool VersionIsKnown(const SourcePackage& source, const std::string& release) {
    return !source.version.empty() &&
           (source.releases.empty() || std::find(source.releases.begin(), source.releases.end(), release) != source.releases.end());
  }
  bool Answers(const PackageVersion& package) const {
    return VersionAnswers(UpstreamVersion(package.version), WithoutV(request_.version)) || VersionAnswers(package.version, request_.version);
  }
  absl::Status CheckRelease(const std::vector<std::string>& known) const {
    if (std::find(known.begin(), known.end(), request_.release) != known.end()) return absl::OkStatus();
    const std::string nearest = NearestName(request_.release, known);
    return absl::InvalidArgumentError(absl::StrCat("there is no Debian release \"", request_.release, "\"", nearest.empty() ? "" : "; did you mean ", nearest,
                                                   nearest.empty() ? "" : "?", " Known: ", absl::StrJoin(DebianReleases(), ", ")));
  }
  absl::StatusOr<AddResult> Take(const PrivateApt& apt, const PackageVersion& package);
  absl::StatusOr<AddResult> FromGit(const std::string& source);
  absl::StatusOr<AddResult> FromFiles(const std::string& source);
  absl::StatusOr<AddResult> BuildIt(const Source& source, const std::string& family_commands = "");
  absl::StatusOr<PrivateApt> Apt() const { return PrivateApt::Open(request_.cache_folder + "/apt", request_.talk, request_.cancelled); }

  const AddRequest& request_;
  const Family& family_;
  const Store store_;
};

absl::StatusOr<AddResult> Adding::Take(const PrivateApt& apt, const PackageVersion& package) {
  const std::string key = absl::StrReplaceAll(absl::StrCat(package.release, "-", package.package, "-", package.version), {{":", "_"}, {"/", "_"}});
  const auto make = [&](const std::string& folder) -> absl::StatusOr<StoredAllocator> {
    if (absl::Status unpacked = apt.Unpack(package, folder); !unpacked.ok()) return unpacked;
    const std::string what = absl::StrCat(package.package, " ", package.version);
    StoredAllocator stored{.family = family_.name,
                           .label = request_.version.empty() ? UpstreamVersion(package.version) : request_.version,
                           .identity = what,
                           .origin = absl::StrCat("Debian ", package.release, " package ", what),
                           .command = request_.command};
    if (family_.builtin == Family::Builtin::kSystemMalloc) {
      RemoveBallast(folder);
      SetLoader(stored, folder);
    } else {
      stored.library_path = LibraryIn(folder, family_, package.package);
    }
    if (stored.library_path.empty() && stored.loader_path.empty()) {
      return absl::NotFoundError(absl::StrCat("the package ", what, " of Debian ", package.release, " has no library of ", family_.name));
    }
    absl::Status verified = VerifyStored(stored, family_, UpstreamVersion(package.version), request_.talk, request_.cancelled);
    if (!verified.ok() && WantsNewerRuntime(verified) && stored.loader_path.empty()) {
      if (request_.talk) request_.talk(absl::StrCat(what, " needs a newer C library than this system's; taking that of Debian ", package.release, " beside it"));
      std::string runtime;
      for (const char* name : kRuntimePackages) {
        const absl::StatusOr<std::vector<PackageVersion>> versions = apt.Versions(package.release, {name});
        if (!versions.ok()) return versions.status();
        if (versions->empty()) continue;
        if (absl::Status unpacked = apt.Unpack(versions->front(), folder + "/runtime"); !unpacked.ok()) return unpacked;
        if (runtime.empty()) runtime = absl::StrCat(versions->front().package, " ", versions->front().version);
      }
      RemoveBallast(folder + "/runtime");
      SetLoader(stored, folder + "/runtime");
      absl::StrAppend(&stored.origin, " under ", runtime);
      verified = VerifyStored(stored, family_, UpstreamVersion(package.version), request_.talk, request_.cancelled);
    }
    if (!verified.ok()) return verified;
    return stored;
  };
  AddResult result;
  absl::StatusOr<StoredAllocator> stored = store_.GetOrMake(family_.name, key, make, request_.talk, request_.cancelled, &result.was_there);
  if (!stored.ok()) return stored.status();
  result.allocator = Resolved(*stored, family_);
  return result;
}

absl::StatusOr<AddResult> Adding::FromPackages() {
  absl::StatusOr<PrivateApt> apt = Apt();
  if (!apt.ok()) return apt.status();
  std::vector<std::string> releases = apt->releases();
  if (!request_.release.empty()) {
    if (absl::Status known = CheckRelease(releases); !known.ok()) return known;
    releases = {request_.release};
  }
  if (family_.packages.empty()) releases.clear();
  // What is known already is looked through before the network is asked.
  std::stable_partition(releases.begin(), releases.end(), [&](const std::string& release) { return apt->HasIndex(release); });
  std::vector<std::string> offered, unreachable;
  std::string homepage;
  for (const std::string& release : releases) {
    if (absl::Status updated = apt->Update(release); !updated.ok()) {
      if (absl::IsCancelled(updated)) return updated;
      unreachable.push_back(std::string(updated.message()));
      continue;
    }
    const std::vector<PackageVersion> packages = PackagesOf(*apt, release, family_);
    for (const PackageVersion& package : packages) {
      if (Answers(package)) return Take(*apt, package);
      const std::string version = absl::StrCat(UpstreamVersion(package.version), " (", release, ")");
      if (std::find(offered.begin(), offered.end(), version) == offered.end()) offered.push_back(version);
      if (homepage.empty()) homepage = apt->Homepage(release, package.package);
    }
  }
  // The family's own source where it is in no package, and a copy of that version inside another source package.
  for (const SourcePackage& source : family_.source_packages) {
    if (source.version.empty() ? family_.packages.empty()
                               : source.version == WithoutV(request_.version) && (request_.release.empty() || VersionIsKnown(source, request_.release))) {
      absl::StatusOr<AddResult> result = FromDebianSource(source);
      if (result.ok() || !(absl::IsNotFound(result.status()) || absl::IsUnavailable(result.status()))) return result;
      unreachable.push_back(std::string(result.status().message()));
    } else if (!source.version.empty() && !offered.empty()) {
      offered.push_back(absl::StrCat(source.version, " (source ", source.name, ")"));
    }
  }
  const std::string packages_say =
      offered.empty() ? (unreachable.empty() ? "no Debian release has it"
                                             : absl::StrCat(unreachable.front(), unreachable.size() == 1 ? "" : absl::StrCat(" (and ", unreachable.size() - 1, " more like it)")))
                      : absl::StrCat("Debian has ", absl::StrJoin(offered, ", "));
  if (!request_.version.empty() && !homepage.empty() && request_.release.empty()) {
    if (request_.talk) request_.talk(absl::StrCat(packages_say, "; trying ", homepage));
    absl::StatusOr<AddResult> result = FromGit(homepage);
    if (result.ok() || !absl::IsNotFound(result.status())) return result;
    return absl::NotFoundError(absl::StrCat(Wanted(), " can't be had: ", packages_say, ", and upstream's own repository did not give it (",
                                            std::string(result.status().message()), "). Name a clone, archive or folder with --source PATH"));
  }
  if (!unreachable.empty() && offered.empty()) {
    return absl::UnavailableError(absl::StrCat(Wanted(), " can't be had: ", packages_say, ". Give a library's path or --source PATH"));
  }
  return absl::NotFoundError(absl::StrCat(Wanted(), " can't be had as a package: ", packages_say, ". Build it with --source PATH-OR-URL"));
}

absl::StatusOr<AddResult> Adding::BuildIt(const Source& source, const std::string& family_commands) {
  AddResult result;
  absl::StatusOr<StoredAllocator> stored = Build(store_, family_, source,
                                                 {.commands = request_.build_commands.empty() ? family_commands : request_.build_commands,
                                                  .library = request_.library,
                                                  .options = request_.options,
                                                  .command = request_.command,
                                                  .talk = request_.talk,
                                                  .cancelled = request_.cancelled},
                                                 &result.was_there);
  if (!stored.ok()) return stored.status();
  result.allocator = Resolved(*stored, family_);
  return result;
}

absl::StatusOr<AddResult> Adding::FromGit(const std::string& source) {
  if (request_.talk) request_.talk(absl::StrCat("fetching ", source));
  absl::StatusOr<GitMirror> mirror = GitMirror::Open(source, request_.cache_folder + "/git", request_.cancelled);
  if (!mirror.ok()) return mirror.status();
  if (!mirror->warning().empty() && request_.talk) request_.talk(mirror->warning());
  const std::string asked = request_.version.empty() ? "HEAD" : request_.version;
  absl::StatusOr<std::string> hash = mirror->Resolve(asked);
  std::string label = asked;
  for (const std::string& form : family_.tag_forms) {
    if (hash.ok()) break;
    const std::string tag = absl::StrReplaceAll(form, {{"VERSION", asked}});
    if (absl::StatusOr<std::string> tagged = mirror->Resolve(tag); tagged.ok()) {
      hash = tagged;
      label = tag;
    }
  }
  if (!hash.ok()) return hash.status();
  if (request_.version.empty() || hash->rfind(asked, 0) == 0) label = hash->substr(0, 12);
  return BuildIt({.label = label,
                  .identity = *hash,
                  .origin = absl::StrCat(label == hash->substr(0, 12) ? "commit " : label + ", commit ", hash->substr(0, 12), " of ", source),
                  .unpack = [&](const std::string& folder) -> absl::StatusOr<std::string> {
                    const std::string clone = folder + "/source";
                    if (absl::Status cloned = mirror->CloneInto(clone); !cloned.ok()) return cloned;
                    if (absl::Status checked_out = CheckOut(clone, *hash, request_.cancelled); !checked_out.ok()) return checked_out;
                    return clone;
                  }});
}

// A checksum of every file's name and content, in the order of names.
absl::StatusOr<std::string> ContentDigest(const fs::path& path) {
  std::vector<fs::path> files;
  std::error_code error;
  if (fs::is_directory(path, error)) {
    for (fs::recursive_directory_iterator item(path, error), end; !error && item != end; item.increment(error)) {
      if (item->is_regular_file() && !item->is_symlink()) files.push_back(item->path());
    }
  } else {
    files.push_back(path);
  }
  if (error) return absl::NotFoundError(absl::StrCat(path.string(), ": cannot be read: ", error.message()));
  std::sort(files.begin(), files.end());
  std::string digests;
  for (const fs::path& file : files) {
    std::ifstream stream(file, std::ios::binary);
    const std::string content(std::istreambuf_iterator<char>(stream), {});
    absl::StrAppend(&digests, file.lexically_relative(path).string(), absl::StrFormat(" %016x\n", XXH3_64bits(content.data(), content.size())));
  }
  return absl::StrFormat("%016x", XXH3_64bits(digests.data(), digests.size()));
}

absl::StatusOr<AddResult> Adding::FromFiles(const std::string& source) {
  std::error_code error;
  const fs::path path = fs::canonical(source, error);
  if (error) return absl::NotFoundError(absl::StrCat(source, ": ", error.message()));
  absl::StatusOr<std::string> digest = ContentDigest(path);
  if (!digest.ok()) return digest.status();
  const std::string label = request_.version.empty() ? path.filename().string() : request_.version;
  return BuildIt({.label = label,
                  .identity = *digest,
                  .origin = path.string(),
                  .unpack = [&](const std::string& folder) -> absl::StatusOr<std::string> {
                    if (fs::is_directory(path)) {
                      fs::copy(path, folder + "/source", fs::copy_options::recursive | fs::copy_options::copy_symlinks, error);
                      if (error) return absl::FailedPreconditionError(absl::StrCat(path.string(), ": cannot be copied: ", error.message()));
                      return folder + "/source";
                    }
                    return UnpackArchive(path.string(), folder, request_.cancelled);
                  }});
}

absl::StatusOr<AddResult> Adding::FromDebianSource(const SourcePackage& source) {
  absl::StatusOr<PrivateApt> apt = Apt();
  if (!apt.ok()) return apt.status();
  std::vector<std::string> releases = apt->releases();
  if (!request_.release.empty()) {
    if (absl::Status known = CheckRelease(releases); !known.ok()) return known;
    releases = {request_.release};
  } else if (!source.releases.empty() && VersionAnswers(source.version, WithoutV(request_.version))) {
    releases = source.releases;
  }
  // A bundled copy's version is not the package's: the family says it of some releases, of others only what is built there does.
  const bool bundled = !source.version.empty() || !source.folder.empty();
  std::vector<std::string> different;
  std::vector<PackageVersion> others;
  absl::Status unreachable, no_copy;
  for (const std::string& release : releases) {
    const bool known = VersionIsKnown(source, release);
    if (known && !VersionAnswers(source.version, WithoutV(request_.version))) {
      different.push_back(absl::StrCat(source.version, " (", release, ")"));
      continue;
    }
    if (absl::Status updated = apt->Update(release, true); !updated.ok()) {
      if (absl::IsCancelled(updated)) return updated;
      unreachable = updated;
      continue;
    }
    const absl::StatusOr<std::vector<PackageVersion>> versions = apt->SourceVersions(release, source.name);
    if (!versions.ok()) return versions.status();
    for (const PackageVersion& version : *versions) {
      if (!bundled && !Answers(version)) {
        others.push_back(version);
        continue;
      }
      const std::string label = !request_.version.empty() ? WithoutV(request_.version)
                                : known                    ? source.version
                                : bundled                  ? absl::StrCat(source.name, "_", UpstreamVersion(version.version))
                                                           : UpstreamVersion(version.version);
      bool has_folder = true;
      absl::StatusOr<AddResult> built = BuildIt(
          {.label = label,
           .identity = absl::StrCat(source.name, "_", version.version, source.folder.empty() ? "" : "_", source.folder),
           .origin = absl::StrCat(source.folder.empty() ? "" : source.folder + " of ", "Debian ", release, " source ", source.name, " ", version.version),
           .unpack = [&](const std::string& place) -> absl::StatusOr<std::string> {
             absl::StatusOr<std::string> top = bundled ? apt->DownloadUpstream(version, place) : apt->UnpackSource(version, place);
             if (top.ok() && bundled) {
               fs::create_directory(place + "/upstream");
               top = UnpackArchive(*top, place + "/upstream", request_.cancelled);
             }
             if (!top.ok()) return top;
             const std::string wanted = Join(*top, source.folder);
             has_folder = fs::is_directory(wanted);
             if (!has_folder) return absl::NotFoundError(absl::StrCat("the source package ", source.name, " ", version.version, " has no folder ", source.folder));
             return wanted;
           }},
          source.build);
      if (built.ok()) return built;
      // Another release may have it.
      const auto other_version = built.status().GetPayload(kOtherVersion);
      if (bundled && other_version.has_value()) {
        different.push_back(absl::StrCat(std::string(*other_version), " (", release, ")"));
      } else if (!has_folder) {
        no_copy = built.status();
      } else if (absl::IsUnavailable(built.status())) {
        // In the mirror's list but not in the mirror.
        unreachable = built.status();
      } else {
        return built;
      }
    }
  }
  if (!unreachable.ok()) {
    // What can be had instead: the package, other versions' sources. A mirror that lacks one file may lack those too.
    std::vector<std::string> instead;
    for (const std::string& release : apt->releases()) {
      for (const PackageVersion& package : PackagesOf(*apt, release, family_)) {
        if (Answers(package) && apt->HasFiles(package, false)) instead.push_back(absl::StrCat("its package (heaptape allocators add ", Wanted(), " --release ", release, ")"));
      }
    }
    for (const PackageVersion& other : others) {
      if (apt->HasFiles(other, true)) instead.push_back(absl::StrCat("the source of ", other.version, " (", other.release, ")"));
    }
    instead.push_back("a clone, archive or folder (--source PATH)");
    return absl::UnavailableError(absl::StrCat(std::string(unreachable.message()), "; take ", absl::StrJoin(instead, ", ")));
  }
  if (!different.empty()) {
    return absl::NotFoundError(absl::StrCat("the source package ", source.name, " has ", family_.name, " ", absl::StrJoin(different, ", "), ", not ",
                                            request_.version));
  }
  if (!no_copy.ok()) return no_copy;
  std::vector<std::string> offered;
  for (const PackageVersion& other : others) offered.push_back(absl::StrCat(other.version, " (", other.release, ")"));
  return absl::NotFoundError(absl::StrCat("no Debian release asked has a source package ", source.name,
                                          offered.empty() ? "" : absl::StrCat(" of version ", request_.version, "; there is ", absl::StrJoin(offered, ", "))));
}

absl::StatusOr<AddResult> Adding::FromSource(const std::string& source) {
  if (source.rfind(kDebianSource, 0) == 0) {
    const std::string rest = source.substr(sizeof(kDebianSource) - 1);
    const std::size_t slash = rest.find('/');
    if (rest.empty() || slash == 0) return absl::InvalidArgumentError(absl::StrCat("\"", source, "\" names no package; write debian:PACKAGE or debian:PACKAGE/FOLDER"));
    SourcePackage wanted{.name = rest.substr(0, slash), .folder = slash == std::string::npos ? "" : rest.substr(slash + 1)};
    for (const SourcePackage& known : family_.source_packages) {
      if (known.name == wanted.name && (wanted.folder.empty() || wanted.folder == known.folder)) wanted = known;
    }
    return FromDebianSource(wanted);
  }
  std::error_code error;
  const bool is_clone = fs::exists(source + "/.git", error) || (fs::exists(source + "/HEAD", error) && fs::exists(source + "/objects", error));
  const bool is_url = source.find("://") != std::string::npos || (source.find(':') != std::string::npos && !fs::exists(source, error));
  return is_clone || is_url ? FromGit(source) : FromFiles(source);
}

}  // namespace

std::vector<PackageVersion> PackagesOf(const PrivateApt& apt, const std::string& release, const Family& family) {
  if (family.packages.empty() || !apt.HasIndex(release)) return {};
  std::vector<std::string> names;
  for (const DebianPackage& package : family.packages) names.push_back(package.name);
  absl::StatusOr<std::vector<PackageVersion>> versions = apt.Versions(release, names);
  return versions.ok() ? *std::move(versions) : std::vector<PackageVersion>{};
}

absl::StatusOr<AddResult> AddAllocator(const AddRequest& request) {
  const absl::StatusOr<const Family*> family = KnownFamily(request.family);
  if (!family.ok()) return family.status();
  if ((*family)->builtin == Family::Builtin::kOurs) {
    return absl::InvalidArgumentError(absl::StrCat(request.family, " is part of heaptape and always here"));
  }
  Adding adding(request, **family);
  if (!request.source.empty()) return adding.FromSource(request.source);
  if (!request.options.empty() || !request.build_commands.empty()) {
    return absl::InvalidArgumentError("options of a build need the source to be built: name it with --source");
  }
  return adding.FromPackages();
}

}  // namespace heaptape
