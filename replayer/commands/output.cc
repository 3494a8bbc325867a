#include "replayer/commands/output.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "replayer/commands/progress.h"
#include "replayer/export/json.h"
#include "traces/output_file.h"

namespace heaptape::commands {
TerminalOptions TerminalForStdout() {
  const char* no_colour = std::getenv("NO_COLOR");
  const std::size_t width = TerminalWidth(STDOUT_FILENO);
  return {.width = width, .colour = width > 0 && (no_colour == nullptr || *no_colour == '\0')};
}

void AddViewOptions(CLI::App& command, ViewOptions& view) {
  static const std::map<std::string, SortKey> kSortKeys = {
      {"steady", SortKey::kSteady},     {"peak", SortKey::kPeak},         {"end", SortKey::kEnd},
      {"growth", SortKey::kGrowth},     {"overhead", SortKey::kOverhead}, {"faults", SortKey::kFaults},
      {"syscalls", SortKey::kSystemCalls}, {"time", SortKey::kTime},      {"name", SortKey::kName},
      {"verdict", SortKey::kVerdict}};
  command.add_option("--baseline", view.baseline, "Allocator that ratios refer to, e.g. glibc (default: the best steady state)")
      ->type_name("NAME");
  command.add_option("--sort", view.sort, "Order of the rows (default: steady)")
      ->transform(OneOf(kSortKeys))
      ->type_name("steady|peak|end|growth|overhead|faults|syscalls|time|name|verdict");
}

void AddForceOption(CLI::App& command, bool& force) {
  command.add_flag("--force", force, "Replace output files that exist; only regular files ever are");
}

absl::Status CheckOutputs(const std::vector<std::string>& paths, bool force) {
  for (const std::string& path : paths) {
    if (path.empty() || IsOpenDescriptor(path)) continue;
    if (absl::Status free = CheckOutput(path, force); !free.ok()) return free;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read (", file ? "it is a folder" : strerror(errno), ")"));
  }
  return std::string(std::istreambuf_iterator<char>(file), {});
}

absl::StatusOr<std::vector<ReplayReport>> ReadResults(const std::vector<std::string>& paths) {
  std::vector<ReplayReport> all;
  for (const std::string& path : paths) {
    const absl::StatusOr<std::string> text = ReadWhole(path);
    if (!text.ok()) return text.status();
    absl::StatusOr<std::vector<ReplayReport>> reports = ParseJson(*text, path);
    if (!reports.ok()) return reports.status();
    for (ReplayReport& report : *reports) {
      const auto same = std::find_if(all.begin(), all.end(), [&](const ReplayReport& other) {
        return !report.trace.digest.empty() && other.trace.digest == report.trace.digest;
      });
      if (same == all.end()) {
        all.push_back(std::move(report));
      } else {
        same->runs.insert(same->runs.end(), report.runs.begin(), report.runs.end());
      }
    }
  }
  return all;
}

absl::Status Print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write to the standard output: ", strerror(errno)));
}

std::vector<std::string> OwnCommand() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  if (!words.empty()) words.front() = "heaptape";
  return words;
}

}  // namespace heaptape::commands
