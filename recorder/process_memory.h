// What the kernel tells of another process's memory, read from outside it: /proc/PID statm, status, smaps
// and pagemap. The files are opened once, at the start, because a program may later give up the right to
// have them opened (setuid, PR_SET_DUMPABLE). Parsing is apart from reading, so that it is tested with text.

#ifndef HEAPTAPE_RECORDER_PROCESS_MEMORY_H_
#define HEAPTAPE_RECORDER_PROCESS_MEMORY_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "recorder/raw_event.h"
#include "traces/trace_info.h"

namespace heaptape {

// One mapping of /proc/PID/smaps, or of maps, where the figures in bytes are 0.
struct Mapping {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t file_offset = 0;
  bool writable = false;
  bool shared = false;
  std::string name;  // file, "[heap]", "[stack]", or empty
  std::uint64_t rss_bytes = 0;
  std::uint64_t anonymous_bytes = 0;
  std::uint64_t lazy_free_bytes = 0;
  std::uint64_t huge_page_bytes = 0;
};

struct Statm {
  std::uint64_t resident_bytes = 0;
  std::uint64_t shared_bytes = 0;  // file and shared-memory pages
};

// Reads a file of /proc from its start into `buffer`; false when it has nothing to say any more.
bool ReadAll(int descriptor, std::string& buffer);

std::optional<Statm> ParseStatm(std::string_view text, std::uint64_t page_bytes);
// What follows `name` ("Uid:") in its line of /proc/PID/status; empty where the line is missing.
std::string_view StatusField(std::string_view status, std::string_view name);
// VmHWM of /proc/PID/status; 0 where the line is missing.
std::uint64_t ParsePeakRss(std::string_view status);
// Mode of /proc/PID/status "Seccomp:"; 0 where missing.
int ParseSeccomp(std::string_view status);
std::vector<Mapping> ParseSmaps(std::string_view text);

// Which anonymous pages ever held a recorded object: a bit for each page of the address space, of which only
// what is used becomes resident. Empty (and answering false) where the address space is limited.
class ObjectPages {
 public:
  ObjectPages();
  ~ObjectPages();
  ObjectPages(const ObjectPages&) = delete;
  ObjectPages& operator=(const ObjectPages&) = delete;

  void Mark(std::uint64_t address) {
    if (bits_) bits_[address >> 18] |= std::uint64_t{1} << (address >> 12 & 63);
  }
  bool AnyIn(std::uint64_t start, std::uint64_t end) const;
  bool available() const { return bits_ != nullptr; }

 private:
  std::uint64_t* bits_ = nullptr;
};

// The part of the anonymous memory that is not the allocator's: stacks, written pages of files (data), bss,
// and anonymous mappings in which no recorded object ever lay. What an allocator keeps for itself in a
// mapping of its own counts here as well.
std::uint64_t NonHeapBytes(const std::vector<Mapping>& mappings, const ObjectPages& pages);

// The files of process `pid` in /proc.
ProcessFiles OpenProcessFiles(pid_t pid);

class ProcessMemory {
 public:
  // Closes the files but `maps` and `task`, which are others' (Modules, the writer).
  explicit ProcessMemory(const ProcessFiles& files);
  ~ProcessMemory();
  ProcessMemory(const ProcessMemory&) = delete;
  ProcessMemory& operator=(const ProcessMemory&) = delete;

  // All but the time and the event number. `with_mappings` reads smaps, which costs the kernel up to a few
  // milliseconds; without it those figures are the last ones. Nothing once the process is gone.
  std::optional<ResidentSample> Sample(const ObjectPages& pages, bool with_mappings);

  // Pages of [address, address + bytes) that are resident and not the zero page. Both may be any numbers: at most
  // kRangesMax ranges are returned, and without PAGEMAP_SCAN only the first kScannedBytesMax are read.
  std::vector<PageRange> PresentPages(std::uint64_t address, std::uint64_t bytes);

  enum class State { kThere, kEnding, kExecuted };
  // kEnding: the memory it was opened for is gone with the process; kExecuted: another program has its place.
  State CheckState();
  // The text of /proc/PID/status; empty once the process is gone. Valid until the next call.
  std::string_view Status();
  bool can_see_pages() const { return pagemap_ >= 0; }

  static constexpr std::size_t kRangesMax = 1 << 16;
  static constexpr std::uint64_t kScannedBytesMax = std::uint64_t{4} << 30;

 private:
  std::vector<PageRange> ReadPagemap(std::uint64_t first_page, std::uint64_t page_count);

  int statm_ = -1;
  int status_ = -1;
  int smaps_ = -1;
  int pagemap_ = -1;
  bool can_scan_ = true;
  std::uint64_t page_bytes_;
  std::string buffer_;
  ResidentSample last_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_PROCESS_MEMORY_H_
