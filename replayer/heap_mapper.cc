#include "replayer/heap_mapper.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <fstream>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kPage = worker::kPageBytes;
constexpr std::size_t kOccupancyBins = 10;
constexpr std::size_t kClassesKept = 12;
constexpr std::uint64_t kLargestExactClass = 32 << 10;

// Bits of /proc/PID/pagemap.
constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;
constexpr std::uint64_t kFileOrShared = std::uint64_t{1} << 61;

class File {
 public:
  explicit File(const std::string& path) : descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int descriptor() const { return descriptor_; }

  // Bytes read; less than asked for at the end or on an error.
  std::size_t ReadAt(std::uint64_t offset, void* to, std::size_t bytes) const {
    const ssize_t got = pread(descriptor_, to, bytes, static_cast<off_t>(offset));
    return got < 0 ? 0 : static_cast<std::size_t>(got);
  }

 private:
  int descriptor_;
};

// linux/fs.h of Linux 6.7, which the C library's headers of today need not have.
struct ScanArgument {
  std::uint64_t size, flags, start, end, walk_end, ranges, range_count, max_pages;
  std::uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct ScanRange {
  std::uint64_t start, end, categories;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArgument);
constexpr std::uint64_t kScanFile = 1 << 2, kScanPresent = 1 << 3, kScanZeroPage = 1 << 5;

// Appends the resident anonymous pages of [from, to) but for the kernel's page of zeros, which is no memory.
// False where the kernel cannot tell (before 6.7).
bool ScanPages(const File& pagemap, std::uint64_t from, std::uint64_t to, std::vector<std::uint64_t>& pages) {
  std::array<ScanRange, 512> ranges;
  while (from < to) {
    ScanArgument argument = {};
    argument.size = sizeof(argument);
    argument.start = from;
    argument.end = to;
    argument.ranges = reinterpret_cast<std::uint64_t>(ranges.data());
    argument.range_count = ranges.size();
    argument.category_inverted = kScanFile | kScanZeroPage;
    argument.category_mask = kScanPresent | kScanFile | kScanZeroPage;
    argument.return_mask = kScanPresent;
    const int found = ioctl(pagemap.descriptor(), kPagemapScan, &argument);
    if (found < 0) return false;
    for (int i = 0; i < found; ++i) {
      for (std::uint64_t page = ranges[static_cast<std::size_t>(i)].start; page < ranges[static_cast<std::size_t>(i)].end; page += kPage) {
        pages.push_back(page / kPage);
      }
    }
    if (argument.walk_end <= from) break;
    from = argument.walk_end;
  }
  return true;
}

// Numbers of the resident anonymous pages of the process, ascending. Kernels before 6.7 do not tell the page of
// zeros from others: there a page that was read and never written counts too.
std::vector<std::uint64_t> ResidentPages(pid_t pid) {
  std::vector<std::uint64_t> pages;
  std::ifstream maps(absl::StrCat("/proc/", pid, "/maps"));
  const File pagemap(absl::StrCat("/proc/", pid, "/pagemap"));
  std::vector<std::uint64_t> entries(128 << 10);
  for (std::string line; std::getline(maps, line);) {
    unsigned long from = 0, to = 0;
    char access[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &from, &to, access) != 3 || access[3] != 'p') continue;
    if (ScanPages(pagemap, from, to, pages)) continue;
    for (std::uint64_t page = from / kPage; page < to / kPage;) {
      const std::size_t count = std::min<std::uint64_t>(entries.size(), to / kPage - page);
      const std::size_t got = pagemap.ReadAt(page * 8, entries.data(), count * 8) / 8;
      for (std::size_t i = 0; i < got; ++i) {
        if ((entries[i] & kPresent) != 0 && (entries[i] & kFileOrShared) == 0) pages.push_back(page + i);
      }
      if (got == 0) break;
      page += got;
    }
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

// The worker's table of pages that blocks have lain in, read piece by piece.
class UsedPages {
 public:
  explicit UsedPages(pid_t pid) : memory_(absl::StrCat("/proc/", pid, "/mem")) {}

  bool Contains(std::uint64_t page) {
    const std::uint64_t byte = page / 8;
    if (byte >= worker::kUsedPagesBytes) return false;
    const std::uint64_t piece = byte / kPage;
    if (piece != piece_) {
      piece_ = piece;
      bytes_.fill(0);
      memory_.ReadAt(worker::kUsedPagesAddress + piece * kPage, bytes_.data(), kPage);
    }
    return (bytes_[byte % kPage] >> (page % 8) & 1) != 0;
  }

 private:
  File memory_;
  std::uint64_t piece_ = ~std::uint64_t{0};
  std::array<std::uint8_t, kPage> bytes_{};
};

std::uint64_t ClassOf(std::uint64_t usable_bytes) {
  return usable_bytes <= kLargestExactClass ? usable_bytes : std::bit_ceil(usable_bytes);
}

}  // namespace

HeapMap JudgeHeapMap(std::vector<worker::LiveBlock> blocks, std::span<const std::uint64_t> resident_pages,
                     const std::function<bool(std::uint64_t page)>& once_used, std::uint64_t baseline_bytes,
                     const std::function<void(const worker::LiveBlock& block, double bytes)>& share) {
  std::sort(blocks.begin(), blocks.end(),
            [](const worker::LiveBlock& a, const worker::LiveBlock& b) { return a.address < b.address; });
  absl::flat_hash_map<std::uint64_t, HeapMap::SizeClass> classes;
  for (const worker::LiveBlock& block : blocks) {
    HeapMap::SizeClass& its = classes[ClassOf(block.usable_bytes)];
    ++its.objects;
    its.live_bytes += block.requested_bytes;
  }

  HeapMap map;
  map.occupancy_pages.assign(kOccupancyBins, 0);
  std::uint64_t never_used_bytes = 0;
  std::vector<std::pair<const worker::LiveBlock*, std::uint64_t>> in_page;  // with usable bytes in the page
  std::size_t first = 0;  // blocks before it end before the page
  for (const std::uint64_t page : resident_pages) {
    const std::uint64_t from = page * kPage, to = from + kPage;
    while (first < blocks.size() && blocks[first].address + std::max<std::uint64_t>(blocks[first].usable_bytes, 1) <= from) ++first;
    std::uint64_t requested = 0, usable = 0, covered_to = from;
    in_page.clear();
    for (std::size_t i = first; i < blocks.size() && blocks[i].address < to; ++i) {
      const worker::LiveBlock& block = blocks[i];
      // What an allocator calls usable may reach into its next block's header; no byte counts twice.
      const std::uint64_t start = std::max(block.address, covered_to);
      const std::uint64_t usable_end = std::min(block.address + block.usable_bytes, to);
      if (usable_end > start) {
        const std::uint64_t requested_end = std::min(block.address + block.requested_bytes, to);
        requested += requested_end > start ? requested_end - start : 0;
        usable += usable_end - start;
        in_page.emplace_back(&block, usable_end - start);
        covered_to = usable_end;
      }
    }
    if (usable == 0) {
      if (once_used(page)) {
        map.wholly_free_bytes += kPage;
      } else {
        never_used_bytes += kPage;
      }
      continue;
    }
    map.live_bytes += requested;
    map.internal_bytes += usable - requested;
    const std::uint64_t unused = kPage - usable;
    map.partly_free_bytes += unused;
    ++map.occupancy_pages[(usable * kOccupancyBins - 1) / kPage];
    for (const auto& [block, bytes] : in_page) {
      classes[ClassOf(block->usable_bytes)].partly_free_bytes += unused * bytes / usable;
      if (share) share(*block, static_cast<double>(unused * bytes) / static_cast<double>(usable));
    }
  }
  map.metadata_bytes = static_cast<std::int64_t>(never_used_bytes) - static_cast<std::int64_t>(baseline_bytes);

  for (auto& [usable_bytes, its] : classes) {
    its.usable_bytes = usable_bytes;
    map.classes.push_back(its);
  }
  std::sort(map.classes.begin(), map.classes.end(), [](const HeapMap::SizeClass& a, const HeapMap::SizeClass& b) {
    return std::pair(b.partly_free_bytes, a.usable_bytes) < std::pair(a.partly_free_bytes, b.usable_bytes);
  });
  if (map.classes.size() > kClassesKept) map.classes.resize(kClassesKept);
  return map;
}

HeapMap HeapMapper::Map(const CallSites* call_sites) const {
  const worker::Findings& findings = process_.findings();
  const std::span<const worker::LiveBlock> blocks = process_.map_blocks();
  const std::vector<std::uint64_t> pages = ResidentPages(process_.pid());
  UsedPages used(process_.pid());
  HeapMap map;
  if (!pages.empty()) {
    CallSites::Tally tally(call_sites);
    for (const worker::LiveBlock& block : blocks) tally.AddObject(block.slot, block.requested_bytes);
    map = JudgeHeapMap({blocks.begin(), blocks.end()}, pages, [&](std::uint64_t page) { return used.Contains(page); },
                       findings.baseline_rss_bytes, [&](const worker::LiveBlock& block, double bytes) {
                         tally.AddPartlyFree(block.slot, block.requested_bytes, bytes);
                       });
    map.call_sites = tally.Sites();
  }
  const worker::WorkerSample& sample = process_.samples()[findings.samples - 1];
  map.time_ns = sample.time_ns;
  map.event_number = sample.event_number;
  map.heap_rss_bytes = findings.map_heap_bytes;
  return map;
}

}  // namespace heaptape
