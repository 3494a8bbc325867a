#include "allocators/apt.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "allocators/process.h"

namespace heaptape {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::hours kIndexLifetime{24};

std::string ReadText(const fs::path& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::vector<std::string> Words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

bool IsRelease(const std::string& suite) {
  const auto& all = DebianReleases();
  return std::find(all.begin(), all.end(), suite) != all.end();
}

std::vector<AptSource> MachineSources() {
  std::vector<AptSource> sources = ParseSourcesList(ReadText("/etc/apt/sources.list"));
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& item : fs::directory_iterator("/etc/apt/sources.list.d", error)) files.push_back(item.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    std::vector<AptSource> more;
    if (file.extension() == ".list") more = ParseSourcesList(ReadText(file));
    if (file.extension() == ".sources") more = ParseDeb822Sources(ReadText(file));
    std::move(more.begin(), more.end(), std::back_inserter(sources));
  }
  return sources;
}

// What apt says went wrong: of its lines that begin with E: the first; those after it are of the general.
std::string AptErrors(const ProcessResult& result) {
  const std::vector<std::string> lines = Lines(result.errors);
  for (const std::string& line : lines) {
    if (line.rfind("E: ", 0) == 0) return line.substr(3);
  }
  return lines.empty() ? absl::StrCat("exit status ", result.exit_status) : lines.back();
}

}  // namespace

const std::vector<std::string>& DebianReleases() {
  static const std::vector<std::string> releases = {"bullseye", "bookworm", "trixie", "forky", "sid"};
  return releases;
}

std::string RunningRelease(const std::string& os_release) {
  for (const std::string& line : Lines(os_release)) {
    if (line.rfind("VERSION_CODENAME=", 0) != 0) continue;
    std::string name = line.substr(17);
    name.erase(std::remove(name.begin(), name.end(), '"'), name.end());
    return IsRelease(name) ? name : "";
  }
  return "";
}

std::vector<AptSource> ParseSourcesList(const std::string& text) {
  std::vector<AptSource> sources;
  for (std::string line : Lines(text)) {
    line.resize(std::min(line.find('#'), line.size()));
    AptSource source;
    if (const std::size_t begin = line.find('['), end = line.find(']'); begin != std::string::npos && end != std::string::npos && begin < end) {
      for (const std::string& option : Words(line.substr(begin + 1, end - begin - 1))) {
        if (option.rfind("signed-by=", 0) == 0) source.signed_by = option.substr(10);
      }
      line.erase(begin, end - begin + 1);
    }
    const std::vector<std::string> words = Words(line);
    if (words.size() < 3 || words[0] != "deb") continue;
    source.uri = words[1];
    source.suites = {words[2]};
    source.components.assign(words.begin() + 3, words.end());
    sources.push_back(std::move(source));
  }
  return sources;
}

std::vector<AptSource> ParseDeb822Sources(const std::string& text) {
  std::vector<AptSource> sources;
  std::map<std::string, std::string> fields;
  std::string last;
  const auto finish = [&] {
    const std::vector<std::string> types = Words(fields["types"]), uris = Words(fields["uris"]);
    std::string signed_by = fields["signed-by"];
    // Key text in place of a file's name is of no use here: apt's trusted keys must do.
    if (signed_by.find("BEGIN") != std::string::npos) signed_by.clear();
    if (std::find(types.begin(), types.end(), "deb") != types.end() && !uris.empty() && fields["enabled"] != "no") {
      const std::vector<std::string> keys = Words(signed_by);
      sources.push_back({uris[0], Words(fields["suites"]), Words(fields["components"]), keys.empty() ? "" : keys[0]});
    }
    fields.clear();
    last.clear();
  };
  for (const std::string& line : Lines(text)) {
    if (!line.empty() && line[0] == '#') continue;
    if (Words(line).empty()) {
      finish();
    } else if (line[0] == ' ' || line[0] == '\t') {
      if (!last.empty()) fields[last] += "\n" + line;
    } else if (const std::size_t colon = line.find(':'); colon != std::string::npos) {
      last = line.substr(0, colon);
      std::transform(last.begin(), last.end(), last.begin(), [](unsigned char c) { return std::tolower(c); });
      const std::vector<std::string> value = Words(line.substr(colon + 1));
      fields[last] = absl::StrJoin(value, " ");
    }
  }
  finish();
  return sources;
}

absl::StatusOr<AptSource> DebianMirror(const std::vector<AptSource>& sources) {
  for (const AptSource& source : sources) {
    const bool has_main = std::find(source.components.begin(), source.components.end(), "main") != source.components.end();
    if (has_main && std::any_of(source.suites.begin(), source.suites.end(), [](const std::string& suite) {
          return IsRelease(suite) || suite == "stable" || suite == "testing" || suite == "unstable" || suite == "oldstable";
        })) {
      return source;
    }
  }
  return absl::FailedPreconditionError(
      "this machine's apt has no source of a Debian release, so no packages can be had; build from source with --source, or "
      "give a library's path");
}

absl::StatusOr<PrivateApt> PrivateApt::Open(const std::string& folder, const Talk& talk, const std::atomic<bool>* cancelled) {
  absl::StatusOr<AptSource> mirror = DebianMirror(MachineSources());
  if (!mirror.ok()) return mirror.status();
  PrivateApt apt;
  apt.folder_ = folder;
  apt.mirror_ = *std::move(mirror);
  apt.talk_ = talk;
  apt.cancelled_ = cancelled;
  apt.running_release_ = RunningRelease(ReadText("/etc/os-release"));
  apt.releases_ = DebianReleases();
  const auto position = [](const std::string& release) {
    const auto& all = DebianReleases();
    return static_cast<int>(std::find(all.begin(), all.end(), release) - all.begin());
  };
  // The neighbours in age first, of two the newer.
  const int here = position(apt.running_release_.empty() ? "bookworm" : apt.running_release_);
  std::sort(apt.releases_.begin(), apt.releases_.end(), [&](const std::string& a, const std::string& b) {
    const int from_a = position(a) - here, from_b = position(b) - here;
    if (std::abs(from_a) != std::abs(from_b)) return std::abs(from_a) < std::abs(from_b);
    return from_a > from_b;
  });
  return apt;
}

std::string PrivateApt::Root(const std::string& release, bool sources) const {
  return absl::StrCat(folder_, "/", release, sources ? "-source" : "");
}

bool PrivateApt::HasIndex(const std::string& release) const {
  std::error_code error;
  return fs::exists(Root(release, false) + "/complete", error);
}

absl::StatusOr<std::string> PrivateApt::Run(const std::string& release, bool sources, std::vector<std::string> command,
                                            const std::string& directory) const {
  absl::StatusOr<ProcessResult> result =
      RunProcess(command, {.directory = directory,
                           .environment = {{"APT_CONFIG", Root(release, sources) + "/apt.conf"}, {"LC_ALL", "C"}},
                           .cancelled = cancelled_});
  if (!result.ok()) return result.status();
  if (result->exit_status != 0) {
    const std::string errors = AptErrors(*result);
    // Of a download: an index that is newer or older than what the mirror still has.
    if (errors.find(" 404 ") != std::string::npos && (command[1] == "download" || command[1] == "source")) {
      return absl::UnavailableError(absl::StrCat("the mirror lists ", command.back(), " for Debian ", release, " but has not its files (404 Not Found)"));
    }
    return absl::UnavailableError(absl::StrCat("Debian ", release, ": ", errors));
  }
  return std::move(result->output);
}

absl::Status PrivateApt::Update(const std::string& release, bool sources) const {
  const fs::path root = Root(release, sources);
  const fs::path complete = root / "complete";
  std::error_code error;
  const auto fresh = [&] {
    const auto written = fs::last_write_time(complete, error);
    return !error && fs::file_time_type::clock::now() - written < kIndexLifetime;
  };
  if (fresh()) return absl::OkStatus();
  for (const char* part : {"state/lists/partial", "cache/archives/partial"}) {
    fs::create_directories(root / part, error);
    if (error) return absl::FailedPreconditionError(absl::StrCat((root / part).string(), ": cannot be made: ", error.message()));
  }
  const absl::StatusOr<FileLock> lock = FileLock::Take(
      (root / "lock").string(), absl::StrCat("another heaptape is asking for Debian ", release, "; waiting for it"), talk_, cancelled_);
  if (!lock.ok()) return lock.status();
  if (fresh()) return absl::OkStatus();

  // The machine's proxy and transport settings, but none of its hooks: those would act on the system.
  absl::StatusOr<ProcessResult> dump =
      RunProcess({"apt-config", "dump", "--no-empty"}, {.environment = {{"LC_ALL", "C"}}, .cancelled = cancelled_});
  if (!dump.ok()) return absl::FailedPreconditionError("apt is not here, so no packages can be had; build from source with --source");
  std::ofstream conf(root / "apt.conf");
  for (const std::string& line : Lines(dump->output)) {
    if (line.rfind("Acquire::", 0) == 0 && line.rfind("Acquire::IndexTargets", 0) != 0) conf << line << "\n";
  }
  conf << "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n"
       << "Dir::Etc::sourcelist \"" << (root / "sources.list").string() << "\";\nDir::Etc::sourceparts \"/dev/null\";\n"
       << "Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n"
       << "Dir::State \"" << (root / "state").string() << "\";\nDir::State::status \"/dev/null\";\n"
       << "Dir::Cache \"" << (root / "cache").string() << "\";\nDir::Log \"" << root.string() << "\";\n"
       // The cache folder may be closed to the user that apt would change to.
       << "APT::Sandbox::User \"root\";\nAPT::Get::List-Cleanup \"true\";\nAcquire::Languages \"none\";\nAcquire::Retries \"2\";\n";
  conf.close();
  std::ofstream list(root / "sources.list");
  list << (sources ? "deb-src " : "deb ") << (mirror_.signed_by.empty() ? "" : absl::StrCat("[signed-by=", mirror_.signed_by, "] "))
       << mirror_.uri << " " << release << " main\n";
  list.close();
  if (!conf || !list) return absl::InternalError(absl::StrCat(root.string(), ": cannot be written; is the disk full?"));
  if (talk_) talk_(absl::StrCat("asking the mirror what Debian ", release, " has"));
  const absl::StatusOr<std::string> updated = Run(release, sources, {"apt-get", "update", "-q", "--error-on=any"});
  if (!updated.ok()) return updated.status();
  std::ofstream(complete) << "";
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PackageVersion>> PrivateApt::Versions(const std::string& release,
                                                                 const std::vector<std::string>& packages) const {
  std::vector<std::string> command = {"apt-cache", "madison"};
  command.insert(command.end(), packages.begin(), packages.end());
  const absl::StatusOr<std::string> output = Run(release, false, command);
  if (!output.ok()) return output.status();
  std::vector<PackageVersion> versions;
  for (const std::string& line : Lines(*output)) {
    const std::vector<std::string> words = Words(line);  // "name | version | source"
    if (words.size() >= 3 && words[1] == "|") versions.push_back({release, words[0], words[2]});
  }
  return versions;
}

absl::StatusOr<std::vector<PackageVersion>> PrivateApt::SourceVersions(const std::string& release,
                                                                       const std::string& source_package) const {
  const absl::StatusOr<std::string> output = Run(release, true, {"apt-cache", "showsrc", "--only-source", source_package});
  if (!output.ok()) return std::vector<PackageVersion>{};
  std::vector<PackageVersion> versions;
  for (const std::string& line : Lines(*output)) {
    if (line.rfind("Version: ", 0) == 0) versions.push_back({release, source_package, line.substr(9)});
  }
  return versions;
}

std::string PrivateApt::Homepage(const std::string& release, const std::string& package) const {
  const absl::StatusOr<std::string> output = Run(release, false, {"apt-cache", "show", package});
  if (!output.ok()) return "";
  for (const std::string& line : Lines(*output)) {
    if (line.rfind("Homepage: ", 0) == 0) return line.substr(10);
  }
  return "";
}

absl::Status PrivateApt::Unpack(const PackageVersion& package, const std::string& folder) const {
  const fs::path download = fs::path(folder) / ".download";
  std::error_code error;
  fs::remove_all(download, error);
  fs::create_directories(download, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(download.string(), ": cannot be made: ", error.message()));
  if (talk_) talk_(absl::StrCat("downloading ", package.package, " ", package.version, " of Debian ", package.release));
  const absl::StatusOr<std::string> downloaded =
      Run(package.release, false, {"apt-get", "download", "-q", package.package + "=" + package.version}, download.string());
  if (!downloaded.ok()) return downloaded.status();
  for (const auto& item : fs::directory_iterator(download, error)) {
    const absl::StatusOr<ProcessResult> unpacked =
        RunProcess({"dpkg-deb", "-x", item.path().string(), folder}, {.cancelled = cancelled_});
    if (!unpacked.ok()) return unpacked.status();
    if (unpacked->exit_status != 0) {
      return absl::DataLossError(absl::StrCat(item.path().filename().string(), ": cannot be unpacked: ", unpacked->errors));
    }
  }
  fs::remove_all(download, error);
  return absl::OkStatus();
}

bool PrivateApt::HasFiles(const PackageVersion& package, bool source) const {
  const fs::path place = absl::StrCat(Root(package.release, source), "/asked-", getpid());
  std::error_code error;
  if (!fs::create_directory(place, error)) return false;
  std::vector<std::string> command = {"apt-get", "download", "-q"};
  if (source) command = {"apt-get", "source", "-q", "--only-source", "--download-only", "--dsc-only"};
  command.push_back(absl::StrCat(package.package, "=", package.version));
  const bool has = Run(package.release, source, command, place.string()).ok();
  fs::remove_all(place, error);
  return has;
}

absl::Status PrivateApt::DownloadSource(const PackageVersion& source_package, const std::vector<std::string>& options,
                                        const std::string& folder) const {
  const auto& [release, package, version] = source_package;
  if (talk_) talk_(absl::StrCat("downloading the source of ", package, " ", version, " of Debian ", release));
  std::vector<std::string> command = {"apt-get", "source", "-q", "--only-source"};
  command.insert(command.end(), options.begin(), options.end());
  command.push_back(absl::StrCat(package, "=", version));
  return Run(release, true, command, folder).status();
}

absl::StatusOr<std::string> PrivateApt::UnpackSource(const PackageVersion& source_package, const std::string& folder) const {
  if (absl::Status downloaded = DownloadSource(source_package, {}, folder); !downloaded.ok()) return downloaded;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(folder, error)) {
    if (item.is_directory()) return item.path().string();
  }
  return absl::DataLossError(absl::StrCat("the source package ", source_package.package, " ", source_package.version, " unpacked to nothing"));
}

absl::StatusOr<std::string> PrivateApt::DownloadUpstream(const PackageVersion& source_package, const std::string& folder) const {
  if (absl::Status downloaded = DownloadSource(source_package, {"--download-only", "--tar-only"}, folder); !downloaded.ok()) return downloaded;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(folder, error)) {
    const std::string name = item.path().filename().string();
    if (name.find(".orig.tar.") != std::string::npos && item.path().extension() != ".asc") return item.path().string();
  }
  return absl::NotFoundError(absl::StrCat("the source package ", source_package.package, " ", source_package.version, " has no archive of upstream's"));
}

}  // namespace heaptape
