#include "replayer/result_cache.h"

#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "replayer/export/json.h"

namespace heaptape {
namespace {

std::string HexDigest(const std::string& bytes) {
  const XXH128_hash_t digest = XXH3_128bits(bytes.data(), bytes.size());
  return absl::StrFormat("%016x%016x", static_cast<std::uint64_t>(digest.high64), static_cast<std::uint64_t>(digest.low64));
}

std::optional<std::string> FileBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string FileDigest(const std::string& path) {
  const std::optional<std::string> bytes = FileBytes(path);
  return bytes ? HexDigest(*bytes) : "absent";
}

// The C library this process runs under, which is also the worker's unless it has a loader of its own.
std::string OwnCLibrary() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&gnu_get_libc_version), &info) == 0 || info.dli_fname == nullptr) return "";
  return info.dli_fname;
}

std::string CLibraryDigest(const ResolvedAllocator& allocator) {
  if (allocator.loader_path.empty()) return FileDigest(OwnCLibrary());
  std::string digests = FileDigest(allocator.loader_path);
  const std::string& folders = allocator.loader_library_path;
  for (std::size_t start = 0; start <= folders.size();) {
    const std::size_t end = std::min(folders.find(':', start), folders.size());
    absl::StrAppend(&digests, " ", FileDigest(folders.substr(start, end - start) + "/libc.so.6"));
    start = end + 1;
  }
  return digests;
}

}  // namespace

std::string ResultKey(const std::string& trace_digest, const ResolvedAllocator& allocator, const ReplayOptions& options) {
  const bool chance = options.vary_addresses || options.vary_keys || options.vary_signals;
  if (options.clock != Clock::kVirtual || chance || trace_digest.empty()) return "";
  utsname system{};
  uname(&system);
  static const std::string program = FileDigest("/proc/self/exe");  // decodes the trace and feeds the worker
  std::string text = absl::StrCat("heaptape ", HEAPTAPE_VERSION, "\nschema ", kResultsSchemaVersion, "\nprogram ", program, "\nworker ",
                                  FileDigest(options.worker_path), "\nkernel ", system.release, "\ntrace ", trace_digest);
  absl::StrAppend(&text, "\nallocator ", allocator.family, "\n", allocator.version, "\n", allocator.library_path, "\n",
                  allocator.library_path.empty() ? "" : FileDigest(allocator.library_path), "\n", allocator.symbol_prefix,
                  "\n", CLibraryDigest(allocator));
  for (const auto& [name, value] : allocator.environment) absl::StrAppend(&text, "\nenvironment ", name, "=", value);
  for (const auto& [name, value] : allocator.tunables) absl::StrAppend(&text, "\ntunable ", name, "=", value);
  absl::StrAppend(&text, "\nseed ", options.seed, "\nengine ", static_cast<int>(options.engine), "\ntouch ",
                  static_cast<int>(options.touch), "\nhuge_pages ", static_cast<int>(options.huge_pages), "\ncpus ",
                  options.cpu_count, "\nmemory_limit ", options.memory_limit_bytes);
  if (options.time_scale != 1) absl::StrAppend(&text, "\ntime_scale ", options.time_scale);
  if (options.count_own_memory) absl::StrAppend(&text, "\ncount_own_memory");
  absl::StrAppend(&text, "\nsamples ", options.sample_count);
  for (const std::uint32_t sample : options.map_samples) absl::StrAppend(&text, "\nmap ", sample);
  for (const std::string& folder : options.symbol_folders) absl::StrAppend(&text, "\nsymbols ", folder);
  return HexDigest(text);
}

std::optional<RunResult> ResultCache::Load(const std::string& key) const {
  if (folder_.empty() || key.empty()) return std::nullopt;
  const std::optional<std::string> text = FileBytes(absl::StrCat(folder_, "/", key, ".json"));
  if (!text) return std::nullopt;
  absl::StatusOr<std::vector<ReplayReport>> reports = ParseJson(*text, key);
  if (!reports.ok() || reports->size() != 1 || reports->front().runs.size() != 1) return std::nullopt;
  return std::move(reports->front().runs.front());
}

void ResultCache::Store(const std::string& key, const RunResult& run) const {
  if (folder_.empty() || key.empty() || run.error) return;
  ReplayReport report;
  report.runs.push_back(run);
  const absl::StatusOr<std::string> text = ToJson({report}, {});
  std::error_code ignored;
  std::filesystem::create_directories(folder_, ignored);
  const std::string path = absl::StrCat(folder_, "/", key, ".json");
  const std::string part = absl::StrCat(path, ".", getpid(), ".part");
  {
    std::ofstream file(part, std::ios::binary);
    if (!text.ok() || !(file << *text) || !file.flush()) {
      file.close();
      std::remove(part.c_str());
      return;
    }
  }
  std::rename(part.c_str(), path.c_str());
}

}  // namespace heaptape
