// Packages of any Debian release, by apt with folders of its own: the system's apt and dpkg state is
// neither changed nor asked for more than where its mirror is, whose keys it trusts and which proxy it uses.

#ifndef HEAPTAPE_ALLOCATORS_APT_H_
#define HEAPTAPE_ALLOCATORS_APT_H_

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "allocators/store.h"

namespace heaptape {

// One source of the machine's own apt configuration.
struct AptSource {
  std::string uri;
  std::vector<std::string> suites;
  std::vector<std::string> components;
  std::string signed_by;   // a key file; empty: apt's trusted keys
};

// From the text of a sources.list file, and of a deb822 .sources file. Disabled ones and deb-src are left out.
std::vector<AptSource> ParseSourcesList(const std::string& text);
std::vector<AptSource> ParseDeb822Sources(const std::string& text);

// The source that has Debian's releases: of `sources` the first with a suite named like one of them.
absl::StatusOr<AptSource> DebianMirror(const std::vector<AptSource>& sources);

// Debian's releases, oldest first.
const std::vector<std::string>& DebianReleases();
// Of this machine, from the text of os-release: "bookworm"; empty if it is none.
std::string RunningRelease(const std::string& os_release);

struct PackageVersion {
  std::string release;     // "trixie"
  std::string package;
  std::string version;     // "3.0.1+ds-2.1"
};

class PrivateApt {
 public:
  // `folder` is below the cache. Reads the machine's apt sources; asks no network.
  static absl::StatusOr<PrivateApt> Open(const std::string& folder, const Talk& talk, const std::atomic<bool>* cancelled);

  // The releases to be asked, the running one first, then those nearest to it in age.
  const std::vector<std::string>& releases() const { return releases_; }
  const std::string& running_release() const { return running_release_; }

  // Makes sure that a release's index is here and at most a day old; `sources` that of source packages.
  // Unavailable where the mirror has no such release or cannot be reached.
  absl::Status Update(const std::string& release, bool sources = false) const;
  bool HasIndex(const std::string& release) const;

  // The versions of these packages in a release whose index is here.
  absl::StatusOr<std::vector<PackageVersion>> Versions(const std::string& release,
                                                       const std::vector<std::string>& packages) const;
  // The homepage that the release's index names for a package; empty if none.
  std::string Homepage(const std::string& release, const std::string& package) const;

  // Downloads one package and unpacks its files into `folder`.
  absl::Status Unpack(const PackageVersion& package, const std::string& folder) const;
  // Downloads a source package and unpacks it, Debian's patches applied; returns the folder of its source.
  // Update(..., true) first.
  absl::StatusOr<std::string> UnpackSource(const PackageVersion& source_package, const std::string& folder) const;
  // Downloads only the archive that Debian has of upstream; returns its path. Update(..., true) first.
  absl::StatusOr<std::string> DownloadUpstream(const PackageVersion& source_package, const std::string& folder) const;
  absl::StatusOr<std::vector<PackageVersion>> SourceVersions(const std::string& release,
                                                             const std::string& source_package) const;
  // Whether the mirror has the files that its index names: a package is downloaded, of a source package the description.
  bool HasFiles(const PackageVersion& package, bool source) const;

 private:
  PrivateApt() = default;
  std::string Root(const std::string& release, bool sources) const;
  absl::StatusOr<std::string> Run(const std::string& release, bool sources, std::vector<std::string> command,
                                  const std::string& directory = "") const;

  absl::Status DownloadSource(const PackageVersion& source_package, const std::vector<std::string>& options,
                              const std::string& folder) const;

  std::string folder_, running_release_;
  AptSource mirror_;
  std::vector<std::string> releases_;
  Talk talk_;
  const std::atomic<bool>* cancelled_ = nullptr;
};

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_APT_H_
