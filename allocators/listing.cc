#include "allocators/listing.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "allocators/add.h"
#include "allocators/build.h"
#include "allocators/catalog.h"
#include "allocators/debian.h"
#include "allocators/family.h"

namespace heaptape {
namespace {

ListedAllocator Ask(const Family& family, const ResolvedAllocator& allocator, ListedAllocator::State state, const ListOptions& options) {
  ListedAllocator listed{.family = family.name,
                         .version = allocator.version,
                         .state = state,
                         .origin = allocator.origin,
                         .library_path = allocator.library_path.empty() ? allocator.loader_path : allocator.library_path};
  if (options.talk && options.conformance) options.talk(absl::StrCat("checking ", allocator.DisplayName()));
  const absl::StatusOr<LibraryFacts> facts = AskLibrary(
      allocator, &family, {.conformance = options.conformance, .cache_folder = options.cache_folder, .cancelled = options.cancelled});
  if (!facts.ok()) {
    listed.state = ListedAllocator::State::kBroken;
    listed.problem = std::string(facts.status().message());
    return listed;
  }
  if (!facts->version.empty()) listed.version = facts->version;
  listed.build_id = facts->build_id;
  listed.checks = facts->checks;
  listed.confined = facts->confined;
  if (listed.library_path.empty()) listed.library_path = facts->library_path;
  return listed;
}

}  // namespace

const char* StateName(ListedAllocator::State state) {
  switch (state) {
    case ListedAllocator::State::kInstalled: return "installed";
    case ListedAllocator::State::kAdded: return "added";
    case ListedAllocator::State::kAvailable: return "available";
    case ListedAllocator::State::kBroken: return "broken";
  }
  return "";
}

absl::StatusOr<Listing> ListAllocators(const ListOptions& options) {
  Listing listing;
  const Store store(options.cache_folder);
  const absl::StatusOr<PrivateApt> apt = PrivateApt::Open(options.cache_folder + "/apt", options.talk, options.cancelled);
  if (!apt.ok()) listing.notes.push_back(std::string(apt.status().message()));
  if (apt.ok()) {
    for (const std::string& release : apt->releases()) {
      if (options.update) {
        if (absl::Status updated = apt->Update(release); !updated.ok()) {
          if (absl::IsCancelled(updated)) return updated;
          listing.notes.push_back(std::string(updated.message()));
        }
      }
      if (apt->HasIndex(release)) listing.releases.push_back(release);
    }
  }
  for (const Family* family : Families()) {
    std::set<std::string> shown;  // packages as "name version", builds of source packages as "name_version"
    for (const ResolvedAllocator& allocator : AllocatorsHere(*family, "")) {
      listing.allocators.push_back(Ask(*family, allocator, ListedAllocator::State::kInstalled, options));
      shown.insert(allocator.origin.substr(allocator.origin.find("package ") + 8));
    }
    for (const StoredAllocator& stored : store.List(family->name)) {
      listing.allocators.push_back(Ask(*family, Resolved(stored, *family), ListedAllocator::State::kAdded, options));
      listing.allocators.back().command = stored.command;
      shown.insert(stored.identity);
    }
    if (options.cancelled != nullptr && *options.cancelled) return absl::CancelledError("interrupted");
    std::vector<ListedAllocator> available;
    for (const std::string& release : listing.releases) {
      for (const PackageVersion& package : PackagesOf(*apt, release, *family)) {
        if (!shown.insert(absl::StrCat(package.package, " ", package.version)).second) continue;
        const std::string version = UpstreamVersion(package.version);
        available.push_back({.family = family->name,
                             .version = version,
                             .state = ListedAllocator::State::kAvailable,
                             .origin = absl::StrCat("Debian ", release, " package ", package.package, " ", package.version),
                             .command = absl::StrCat("heaptape allocators add ", family->name, "@", version, " --release ", release)});
      }
    }
    for (const SourcePackage& source : family->source_packages) {
      const bool own = source.version.empty();
      if (own && !family->packages.empty()) continue;
      if (std::any_of(shown.begin(), shown.end(), [&](const std::string& identity) { return identity.rfind(source.name + "_", 0) == 0; })) continue;
      available.push_back({.family = family->name,
                           .version = source.version,
                           .state = ListedAllocator::State::kAvailable,
                           .origin = absl::StrCat(source.folder.empty() ? "" : source.folder + " of ", "Debian source package ", source.name),
                           .command = absl::StrCat("heaptape allocators add ", family->name, own ? "" : "@", source.version)});
    }
    std::stable_sort(available.begin(), available.end(), [](const ListedAllocator& a, const ListedAllocator& b) {
      return CompareVersions(a.version, b.version) < 0;
    });
    std::move(available.begin(), available.end(), std::back_inserter(listing.allocators));
  }
  if (std::any_of(listing.allocators.begin(), listing.allocators.end(), [](const ListedAllocator& listed) { return !listed.confined; })) {
    listing.notes.push_back(kUnconfined);
  }
  return listing;
}

}  // namespace heaptape
