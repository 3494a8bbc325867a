#include "recorder/process_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

// Of <linux/fs.h> since Linux 6.7; older headers lack it.
struct PageRegion {
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t categories;
};
struct PagemapScanArguments {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t vec;
  std::uint64_t vec_len;
  std::uint64_t max_pages;
  std::uint64_t category_inverted;
  std::uint64_t category_mask;
  std::uint64_t category_anyof_mask;
  std::uint64_t return_mask;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PagemapScanArguments);
constexpr std::uint64_t kPageIsPresent = 1 << 3;
constexpr std::uint64_t kPageIsSwapped = 1 << 4;
constexpr std::uint64_t kPageIsZeroPage = 1 << 5;

constexpr std::uint64_t kPagemapPresent = std::uint64_t{1} << 63;
constexpr std::uint64_t kPagemapSwapped = std::uint64_t{1} << 62;
constexpr std::uint64_t kPagemapFileOrShared = std::uint64_t{1} << 61;
constexpr std::uint64_t kPagemapExclusive = std::uint64_t{1} << 56;

constexpr std::uint64_t kPageBitsBytes = std::uint64_t{1} << (47 - 12 - 3);

std::uint64_t Number(std::string_view text, int base = 10) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, base);
  return value;
}

// Joins a range to the last one where they touch. False: there is no room for another.
bool AddRange(std::vector<PageRange>& ranges, std::uint32_t first_page, std::uint32_t page_count) {
  if (!ranges.empty() && ranges.back().first_page + ranges.back().page_count == first_page) {
    ranges.back().page_count += page_count;
    return true;
  }
  if (ranges.size() >= ProcessMemory::kRangesMax) return false;
  ranges.push_back({first_page, page_count});
  return true;
}

}  // namespace

std::string_view StatusField(std::string_view text, std::string_view name) {
  for (std::size_t at = 0; (at = text.find(name, at)) != std::string_view::npos; ++at) {
    if (at == 0 || text[at - 1] == '\n') {
      text.remove_prefix(at + name.size());
      return text.substr(0, text.find('\n'));
    }
  }
  return {};
}

bool ReadAll(int descriptor, std::string& buffer) {
  std::size_t used = 0;
  if (buffer.size() < 4096) buffer.resize(4096);
  for (;;) {
    const ssize_t got = pread(descriptor, buffer.data() + used, buffer.size() - used, static_cast<off_t>(used));
    if (got <= 0) break;
    used += static_cast<std::size_t>(got);
    if (used == buffer.size()) buffer.resize(buffer.size() * 2);
  }
  std::memset(buffer.data() + used, 0, std::min<std::size_t>(1, buffer.size() - used));
  const bool any = used > 0;
  if (any) buffer.resize(used);
  return any;
}

std::optional<Statm> ParseStatm(std::string_view text, std::uint64_t page_bytes) {
  Statm statm;
  const std::size_t first = text.find(' ');
  if (first == std::string_view::npos) return std::nullopt;
  const std::size_t second = text.find(' ', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  statm.resident_bytes = Number(text.substr(first + 1)) * page_bytes;
  statm.shared_bytes = Number(text.substr(second + 1)) * page_bytes;
  return statm;
}

std::uint64_t ParsePeakRss(std::string_view status) { return Number(StatusField(status, "VmHWM:")) * 1024; }

int ParseSeccomp(std::string_view status) { return static_cast<int>(Number(StatusField(status, "Seccomp:"))); }

std::vector<Mapping> ParseSmaps(std::string_view text) {
  std::vector<Mapping> mappings;
  while (!text.empty()) {
    const std::size_t length = text.find('\n');
    const std::string_view line = text.substr(0, length);
    text.remove_prefix(length == std::string_view::npos ? text.size() : length + 1);
    if (line.empty()) continue;
    const bool header = (line[0] >= '0' && line[0] <= '9') || (line[0] >= 'a' && line[0] <= 'f');
    if (header) {
      // start-end perms offset device inode   name
      Mapping mapping;
      const std::size_t dash = line.find('-');
      const std::size_t space = line.find(' ');
      if (dash == std::string_view::npos || space == std::string_view::npos || space + 4 >= line.size()) continue;
      mapping.start = Number(line.substr(0, dash), 16);
      mapping.end = Number(line.substr(dash + 1), 16);
      mapping.writable = line[space + 2] == 'w';
      mapping.shared = line[space + 4] == 's';
      std::size_t at = line.find(' ', space + 1);
      if (at != std::string_view::npos) mapping.file_offset = Number(line.substr(at), 16);
      for (int field = 1; field < 4 && at != std::string_view::npos; ++field) at = line.find(' ', at + 1);
      if (at != std::string_view::npos) at = line.find_first_not_of(' ', at);
      if (at != std::string_view::npos) mapping.name = std::string(line.substr(at));
      mappings.push_back(std::move(mapping));
      continue;
    }
    if (mappings.empty()) continue;
    Mapping& mapping = mappings.back();
    const auto value = [&line] { return Number(line.substr(line.find(':') + 1)) * 1024; };
    if (line.rfind("Rss:", 0) == 0) mapping.rss_bytes = value();
    if (line.rfind("Anonymous:", 0) == 0) mapping.anonymous_bytes = value();
    if (line.rfind("LazyFree:", 0) == 0) mapping.lazy_free_bytes = value();
    if (line.rfind("AnonHugePages:", 0) == 0) mapping.huge_page_bytes = value();
  }
  return mappings;
}

ObjectPages::ObjectPages() {
  void* memory = mmap(nullptr, kPageBitsBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  madvise(memory, kPageBitsBytes, MADV_NOHUGEPAGE);
  bits_ = static_cast<std::uint64_t*>(memory);
}

ObjectPages::~ObjectPages() {
  if (bits_) munmap(bits_, kPageBitsBytes);
}

bool ObjectPages::AnyIn(std::uint64_t start, std::uint64_t end) const {
  if (!bits_ || end > std::uint64_t{1} << 47) return false;
  for (std::uint64_t page = start >> 12; page < end >> 12;) {
    if (page % 64 == 0 && page + 64 <= end >> 12) {
      if (bits_[page / 64]) return true;
      page += 64;
    } else {
      if (bits_[page / 64] >> (page % 64) & 1) return true;
      ++page;
    }
  }
  return false;
}

std::uint64_t NonHeapBytes(const std::vector<Mapping>& mappings, const ObjectPages& pages) {
  std::uint64_t bytes = 0;
  for (const Mapping& mapping : mappings) {
    if (mapping.anonymous_bytes == 0 || mapping.shared) continue;
    if (mapping.name == "[heap]") continue;
    const bool from_file = !mapping.name.empty() && mapping.name[0] == '/';
    const bool stack = mapping.name.rfind("[stack", 0) == 0;
    if (from_file || stack || !pages.AnyIn(mapping.start, mapping.end)) bytes += mapping.anonymous_bytes;
  }
  return bytes;
}

ProcessFiles OpenProcessFiles(pid_t pid) {
  const auto open_one = [pid](const char* name) {
    return open(absl::StrCat("/proc/", pid, "/", name).c_str(), O_RDONLY | O_CLOEXEC);
  };
  ProcessFiles files;
  files.statm = open_one("statm");
  files.status = open_one("status");
  files.smaps = open_one("smaps");
  files.pagemap = open_one("pagemap");
  files.maps = open_one("maps");
  files.task = open_one("task");
  return files;
}

ProcessMemory::ProcessMemory(const ProcessFiles& files)
    : statm_(files.statm), status_(files.status), smaps_(files.smaps), pagemap_(files.pagemap),
      page_bytes_(static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE))) {}

ProcessMemory::~ProcessMemory() {
  for (int descriptor : {statm_, status_, smaps_, pagemap_}) {
    if (descriptor >= 0) close(descriptor);
  }
}

std::optional<ResidentSample> ProcessMemory::Sample(const ObjectPages& pages, bool with_mappings) {
  if (!ReadAll(statm_, buffer_)) return std::nullopt;
  const std::optional<Statm> statm = ParseStatm(buffer_, page_bytes_);
  if (!statm || statm->resident_bytes == 0) return std::nullopt;
  last_.rss_bytes = statm->resident_bytes;
  last_.anonymous_bytes = statm->resident_bytes - std::min(statm->shared_bytes, statm->resident_bytes);
  if (ReadAll(status_, buffer_)) last_.peak_rss_bytes = ParsePeakRss(buffer_);
  if (with_mappings && smaps_ >= 0 && ReadAll(smaps_, buffer_)) {
    const std::vector<Mapping> mappings = ParseSmaps(buffer_);
    last_.lazy_free_bytes = last_.huge_page_bytes = 0;
    for (const Mapping& mapping : mappings) {
      last_.lazy_free_bytes += mapping.lazy_free_bytes;
      last_.huge_page_bytes += mapping.huge_page_bytes;
    }
    last_.non_heap_bytes = pages.available() ? NonHeapBytes(mappings, pages) : 0;
  }
  last_.non_heap_bytes = std::min(last_.non_heap_bytes, last_.anonymous_bytes);
  return last_;
}

std::vector<PageRange> ProcessMemory::PresentPages(std::uint64_t address, std::uint64_t bytes) {
  std::vector<PageRange> ranges;
  if (pagemap_ < 0 || bytes == 0 || address >= (std::uint64_t{1} << kAddressBits) - page_bytes_) return ranges;
  bytes = std::min(bytes, (std::uint64_t{1} << kAddressBits) - page_bytes_ - address);  // no user's memory lies beyond
  const std::uint64_t first = address / page_bytes_;
  const std::uint64_t end = (address + bytes + page_bytes_ - 1) / page_bytes_;
  if (!can_scan_) return ReadPagemap(first, end - first);
  PageRegion regions[512];
  std::uint64_t at = first * page_bytes_;
  while (at < end * page_bytes_) {
    PagemapScanArguments arguments = {};
    arguments.size = sizeof(arguments);
    arguments.start = at;
    arguments.end = end * page_bytes_;
    arguments.vec = reinterpret_cast<std::uint64_t>(regions);
    arguments.vec_len = std::size(regions);
    arguments.category_inverted = kPageIsZeroPage;
    arguments.category_mask = kPageIsZeroPage;
    arguments.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
    arguments.return_mask = kPageIsPresent;
    const int count = ioctl(pagemap_, kPagemapScan, &arguments);
    if (count < 0) {
      if (errno != ENOTTY && errno != EPERM) break;  // the process has ended
      can_scan_ = false;
      return ReadPagemap(first, end - first);
    }
    for (int i = 0; i < count; ++i) {
      const auto start = static_cast<std::uint32_t>(regions[i].start / page_bytes_ - first);
      const auto pages = static_cast<std::uint32_t>((regions[i].end - regions[i].start) / page_bytes_);
      if (!AddRange(ranges, start, pages)) return ranges;
    }
    if (arguments.walk_end <= at) break;
    at = arguments.walk_end;
  }
  return ranges;
}

// Before Linux 6.7. The shared zero page shows as present, not exclusive and not of a file.
std::vector<PageRange> ProcessMemory::ReadPagemap(std::uint64_t first_page, std::uint64_t page_count) {
  std::vector<PageRange> ranges;
  page_count = std::min(page_count, kScannedBytesMax / page_bytes_);
  std::uint64_t entries[512];
  for (std::uint64_t done = 0; done < page_count;) {
    const std::size_t want = std::min<std::uint64_t>(std::size(entries), page_count - done);
    const ssize_t got = pread(pagemap_, entries, want * 8, static_cast<off_t>((first_page + done) * 8));
    if (got < 8) break;
    for (std::size_t i = 0; i < static_cast<std::size_t>(got) / 8; ++i) {
      const std::uint64_t entry = entries[i];
      const bool resident = (entry & kPagemapPresent) && (entry & (kPagemapExclusive | kPagemapFileOrShared));
      if (!resident && !(entry & kPagemapSwapped)) continue;
      if (!AddRange(ranges, static_cast<std::uint32_t>(done + i), 1)) return ranges;
    }
    done += static_cast<std::uint64_t>(got) / 8;
  }
  return ranges;
}

ProcessMemory::State ProcessMemory::CheckState() {
  // The descriptor stays with the memory it was opened for, which an exec replaces; statm goes with the process.
  std::uint64_t entry;
  if (pagemap_ < 0 || pread(pagemap_, &entry, sizeof(entry), 0) == sizeof(entry)) return State::kThere;
  const std::optional<Statm> statm = ReadAll(statm_, buffer_) ? ParseStatm(buffer_, page_bytes_) : std::nullopt;
  return statm && statm->resident_bytes > 0 ? State::kExecuted : State::kEnding;
}

std::string_view ProcessMemory::Status() {
  return status_ >= 0 && ReadAll(status_, buffer_) ? std::string_view(buffer_) : std::string_view();
}

}  // namespace heaptape
