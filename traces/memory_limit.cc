#include "traces/memory_limit.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include "absl/strings/str_format.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kUnlimited = ~std::uint64_t{0};

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// The number behind `name` at the start of a line.
std::uint64_t Field(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(name, 0) == 0) return std::strtoull(line.c_str() + name.size(), nullptr, 10);
  }
  return 0;
}

// What one group's limit leaves; page cache can be taken back and does not count.
std::uint64_t LeftInGroup(const FileText& read, const std::string& folder, const char* limit_file, const char* usage_file, const char* total) {
  const std::string limit = read(folder + limit_file);
  if (limit.empty() || limit[0] < '0' || limit[0] > '9') return kUnlimited;
  const std::uint64_t bytes = std::strtoull(limit.c_str(), nullptr, 10);
  const std::string statistics = read(folder + "/memory.stat");
  const std::string prefix = total;
  const std::uint64_t used = std::strtoull(read(folder + usage_file).c_str(), nullptr, 10);
  const std::uint64_t cache = Field(statistics, prefix + "inactive_file ") + Field(statistics, prefix + "active_file ");
  return bytes - std::min(bytes, used - std::min(used, cache));
}

// The least of a group and all it lies in. In a container the path may be one of the host's: then only the top is seen.
std::uint64_t LeftInGroups(const FileText& read, const std::string& top, std::string path, bool second_version) {
  std::uint64_t left = kUnlimited;
  for (;;) {
    if (path == "/") path.clear();
    left = std::min(left, second_version ? LeftInGroup(read, top + path, "/memory.max", "/memory.current", "")
                                         : LeftInGroup(read, top + path, "/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_"));
    if (path.empty()) return left;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

std::string Gibibytes(double bytes) {
  constexpr double kMebibyte = 1 << 20, kGibibyte = 1 << 30;
  return bytes < kGibibyte ? absl::StrFormat("%.1f MiB", bytes / kMebibyte) : absl::StrFormat("%.1f GiB", bytes / kGibibyte);
}

}  // namespace

std::uint64_t AvailableMemory(const FileText& read) {
  std::uint64_t available = Field(read("/proc/meminfo"), "MemAvailable:") * 1024;
  if (available == 0) available = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  std::istringstream groups(read("/proc/self/cgroup"));
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty()) available = std::min(available, LeftInGroups(read, "/sys/fs/cgroup", path, true));
    if (controllers == "memory") available = std::min(available, LeftInGroups(read, "/sys/fs/cgroup/memory", path, false));
  }
  return available;
}

std::uint64_t AvailableMemory() { return AvailableMemory(ReadFile); }

std::uint64_t DefaultMemoryLimit() { return AvailableMemory() / 4 * 3; }

absl::Status OverMemoryLimit(const std::string& name, double needed_bytes, const std::string& what, std::uint64_t limit_bytes) {
  return absl::ResourceExhaustedError(absl::StrFormat("%s: needs %s of memory for %s, more than the limit of %s; give a higher --memory-limit if the machine has it",
                                                      name, Gibibytes(needed_bytes), what, Gibibytes(static_cast<double>(limit_bytes))));
}

}  // namespace heaptape
