// Debian's packages as this machine knows them: what dpkg has installed, and how versions compare.

#ifndef HEAPTAPE_ALLOCATORS_DEBIAN_H_
#define HEAPTAPE_ALLOCATORS_DEBIAN_H_

#include <istream>
#include <map>
#include <string>
#include <vector>

namespace heaptape {

// Package -> version of every installed package, from the text of dpkg's status file.
std::map<std::string, std::string> ParseDpkgStatus(std::istream& status);

struct InstalledPackage {
  std::string name;     // empty: no package has that file
  std::string version;  // "2.0.9+ds-2"
};

// Which of `candidates` (package names) installed the file at `path`.
InstalledPackage PackageOfFile(const std::string& path, const std::vector<std::string>& candidates);

// "1:2.0.9+ds-2" -> "2.0.9": without epoch, Debian revision and repacking marks.
std::string UpstreamVersion(const std::string& debian_version);

// Whether `version` answers to `wanted`: the same, or more parts of the same ("2.0.9" answers to "2.0").
bool VersionAnswers(const std::string& version, const std::string& wanted);

// Negative, zero or positive as in strcmp, numbers compared as numbers: "2.1.10" is after "2.1.9".
int CompareVersions(const std::string& left, const std::string& right);

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_DEBIAN_H_
