#include <unistd.h>
#include <xxhash.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "allocators/parts.h"
#include "allocators/probe.h"
#include "allocators/process.h"

extern char** environ;

namespace heaptape {
namespace {

namespace fs = std::filesystem;

// Room for the static TLS of libraries that are opened late, as the replay worker has it.
constexpr char kStaticTlsTunable[] = "glibc.rtld.optional_static_tls=16384";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string QueryText(const Family* family) {
  if (family == nullptr) return "";
  switch (family->version_query) {
    case VersionQuery::kNone: return "";
    case VersionQuery::kText: return "text:" + family->version_symbol;
    case VersionQuery::kNumber: return "number:" + family->version_symbol;
    case VersionQuery::kMallctl: return "mallctl:" + family->version_symbol;
  }
  return "";
}

std::string Digest(const std::string& text) { return absl::StrFormat("%016x", XXH3_64bits(text.data(), text.size())); }

// All that the answer depends on: the library's content, the C library it runs under, the questions and its settings.
std::string CacheKey(const ResolvedAllocator& allocator, const std::string& probe, const std::vector<std::string>& question) {
  std::string key;
  const std::string c_library = allocator.loader_path.empty() ? "/lib/x86_64-linux-gnu/libc.so.6" : allocator.loader_path;
  for (const std::string& path : {allocator.library_path, c_library, probe}) absl::StrAppend(&key, Digest(ReadFile(path)), "\n");
  for (const std::string& word : question) absl::StrAppend(&key, word, "\n");
  for (const auto& [name, value] : allocator.environment) absl::StrAppend(&key, name, "=", value, "\n");
  return Digest(key);
}

}  // namespace

absl::StatusOr<LibraryFacts> ParseProbe(const std::string& text) {
  LibraryFacts facts;
  bool done = false;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t space = line.find(' ');
    const std::string key = line.substr(0, space);
    const std::string value = space == std::string::npos ? "" : line.substr(space + 1);
    if (key == "error") return absl::FailedPreconditionError(value);
    if (key == "version") facts.version = value;
    if (key == "build_id") facts.build_id = value;
    if (key == "library") facts.library_path = value;
    if (key == "unconfined") facts.confined = false;
    if (key == "late") facts.late = true;
    if (key == "done") done = true;
    if (key != "check") continue;
    std::istringstream words(value);
    ConformanceCheck check;
    std::string outcome;
    words >> check.name >> outcome;
    std::getline(words >> std::ws, check.detail);
    check.outcome = outcome == "passed"   ? ConformanceCheck::Outcome::kPassed
                    : outcome == "absent" ? ConformanceCheck::Outcome::kAbsent
                                          : ConformanceCheck::Outcome::kFailed;
    if (check.detail == "did not end") facts.late = true;
    facts.checks.push_back(std::move(check));
  }
  if (!done) return absl::DataLossError("the library ended the process that loaded it");
  return facts;
}

absl::StatusOr<LibraryFacts> AskLibrary(const ResolvedAllocator& allocator, const Family* family, const ProbeOptions& options) {
  const std::string probe = PartsFolder() + "/heaptape-probe";
  std::vector<std::string> question = {allocator.library_path, allocator.symbol_prefix, QueryText(family)};
  if (options.conformance) question.emplace_back("conformance");
  std::string cached;
  if (!options.cache_folder.empty()) {
    cached = absl::StrCat(options.cache_folder, "/facts/", CacheKey(allocator, probe, question), ".txt");
    if (absl::StatusOr<LibraryFacts> facts = ParseProbe(ReadFile(cached)); facts.ok()) return facts;
  }
  std::vector<std::string> command;
  if (!allocator.loader_path.empty()) {
    command = {allocator.loader_path};
    if (!allocator.loader_library_path.empty()) command.insert(command.end(), {"--library-path", allocator.loader_library_path});
  }
  command.push_back(probe);
  command.insert(command.end(), question.begin(), question.end());
  command.insert(command.end() - (options.conformance ? 1 : 0), absl::StrCat(options.seconds));
  // Nothing of the user's environment, as in a replay.
  std::vector<std::string> without;
  for (char** entry = environ; *entry != nullptr; ++entry) without.push_back(std::string(*entry).substr(0, std::string(*entry).find('=')));
  std::string tunables = kStaticTlsTunable;
  std::vector<std::pair<std::string, std::string>> environment;
  for (const auto& [name, value] : allocator.environment) {
    if (name == "GLIBC_TUNABLES") {
      absl::StrAppend(&tunables, ":", value);
    } else {
      environment.emplace_back(name, value);
    }
  }
  environment.emplace_back("GLIBC_TUNABLES", tunables);
  absl::StatusOr<ProcessResult> result =
      RunProcess(command, {.environment = environment, .without = without, .cancelled = options.cancelled});
  if (!result.ok()) return result.status();
  absl::StatusOr<LibraryFacts> facts = ParseProbe(result->output);
  const std::string name = allocator.library_path.empty() ? allocator.family : allocator.library_path;
  if (!facts.ok()) {
    std::string why(facts.status().message());
    if (result->output.empty() && !result->errors.empty()) why = result->errors.substr(0, result->errors.find('\n'));
    if (result->exit_status > 128) absl::StrAppend(&why, " (signal ", result->exit_status - 128, ")");
    return absl::FailedPreconditionError(why.find(name) == std::string::npos ? absl::StrCat(name, ": ", why) : why);
  }
  if (!cached.empty() && !facts->late) {
    std::error_code error;
    fs::create_directories(fs::path(cached).parent_path(), error);
    const std::string unfinished = absl::StrCat(cached, ".", getpid());
    std::ofstream(unfinished) << result->output;
    fs::rename(unfinished, cached, error);
  }
  return facts;
}

std::string ConformanceSummary(const std::vector<ConformanceCheck>& checks) {
  int passed = 0, asked = 0;
  std::string failures;
  for (const ConformanceCheck& check : checks) {
    if (check.outcome == ConformanceCheck::Outcome::kAbsent) continue;
    ++asked;
    if (check.outcome == ConformanceCheck::Outcome::kPassed) {
      ++passed;
    } else {
      absl::StrAppend(&failures, failures.empty() ? "; failed: " : ", ", check.name, " (", check.detail, ")");
    }
  }
  return absl::StrCat(passed, " of ", asked, failures);
}

}  // namespace heaptape
