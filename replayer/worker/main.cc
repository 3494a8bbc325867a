// heaptape-worker: replays one trace against one allocator. Started by `heaptape replay`, never by hand.
//
// Order matters: everything the worker itself needs is made resident first, then the baseline is taken,
// then the allocator is loaded; what is resident beyond the baseline is the allocator's.

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "allocators/confine.h"
#include "allocators/loader.h"
#include "replayer/worker/engine.h"
#include "replayer/worker/kernel.h"
#include "replayer/worker/machine.h"
#include "replayer/worker/pool.h"
#include "replayer/worker/protocol.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace heaptape::worker {
namespace {

constexpr std::uintptr_t kSharedAddress = kOwnAddresses + (std::uintptr_t{1} << 40);
constexpr std::size_t kMainStackBytes = 512 << 10;

Replayer replayer;
LoadedAllocator allocator;
char maps_text[1 << 16];

SharedHeader* MapShared() {
  struct stat status;
  if (fstat(kSharedMemoryDescriptor, &status) != 0 || status.st_size < static_cast<off_t>(sizeof(SharedHeader))) return nullptr;
  const long mapped = Kernel(SYS_mmap, kSharedAddress, status.st_size, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, kSharedMemoryDescriptor, 0);
  if (IsKernelError(mapped)) return nullptr;
  auto* shared = reinterpret_cast<SharedHeader*>(mapped);
  return shared->magic == SharedHeader::kMagic && shared->file_bytes == static_cast<std::uint64_t>(status.st_size) ? shared : nullptr;
}

// Not sscanf: with newer headers it becomes one that older C libraries lack, and the worker starts under any.
unsigned long ParseHexadecimal(const char*& at) {
  unsigned long value = 0;
  for (;; ++at) {
    if (*at >= '0' && *at <= '9') {
      value = value << 4 | static_cast<unsigned long>(*at - '0');
    } else if (*at >= 'a' && *at <= 'f') {
      value = value << 4 | static_cast<unsigned long>(*at - 'a' + 10);
    } else {
      return value;
    }
  }
}

// Makes the main thread's stack and every private writable page of the worker, the C library and the
// loader resident, so that nothing the worker does later adds a page.
__attribute__((noinline)) void MakeResident() {
  volatile char stack[kMainStackBytes];
  for (std::size_t i = 0; i < sizeof(stack); i += kPageBytes) stack[i] = 0;

  const int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  long length = 0;
  for (long got; length < static_cast<long>(sizeof(maps_text)) - 1 &&
                 (got = read(maps, maps_text + length, sizeof(maps_text) - 1 - length)) > 0;) {
    length += got;
  }
  close(maps);
  maps_text[length] = 0;
  for (char* line = maps_text; *line != 0;) {
    char* next = strchrnul(line, '\n');
    const char* at = line;
    const unsigned long from = ParseHexadecimal(at);
    const bool has_end = *at == '-';
    if (has_end) ++at;
    const unsigned long to = ParseHexadecimal(at);
    if (has_end && strncmp(at, " rw-p ", 6) == 0 &&
        madvise(reinterpret_cast<void*>(from), to - from, MADV_POPULATE_WRITE) != 0) {
      for (unsigned long page = from; page < to; page += kPageBytes) {
        auto* byte = reinterpret_cast<volatile char*>(page);
        *byte = *byte;
      }
    }
    line = *next == 0 ? next : next + 1;
  }
}

// Moves what the kernel will place next by a distance the seed decides, as address randomisation does in
// production. Seed 0 moves nothing.
void MoveAddresses(std::uint64_t seed) {
  if (seed == 0) return;
  const std::uint64_t mixed = (seed * 0x9e3779b97f4a7c15) >> 32;
  const std::uint64_t mmap_pages = 1 + mixed % 0xffff, brk_pages = 1 + (mixed >> 8) % 0x1fff;
  Kernel(SYS_mmap, 0, mmap_pages * kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  const long top = Kernel(SYS_brk, 0);
  Kernel(SYS_brk, top + static_cast<long>(brk_pages * kPageBytes));
}

void CopyText(char* to, const char* from, std::size_t bytes) { snprintf(to, bytes, "%s", from); }

int Main() {
  SharedHeader* shared = MapShared();
  if (shared == nullptr) {
    static const char kWhat[] = "heaptape-worker is started by `heaptape replay`, not by hand\n";
    return write(2, kWhat, sizeof(kWhat) - 1) < 0 ? 1 : 2;
  }
  const Settings& settings = shared->settings;
  Findings& findings = shared->findings;
  machine.shared = shared;
  machine.real_start_ns = RealNow();  // also looks up what it needs while nothing is measured
  sysconf(_SC_PAGESIZE);
  StartMachine();
  if (!replayer.Prepare(*shared)) StopWorker(Phase::kFailedToStart, "not enough memory for the replay's own tables");
  MoveAddresses(settings.seed);
  MakeResident();
  if (!machine.meter.Open(settings.distrust_counters == 0)) {
    StopWorker(Phase::kFailedToStart, "cannot read this process's memory from /proc/self/statm (is /proc mounted?)");
  }
  findings.counters_exact = machine.meter.exact();
  MakeResident();
  machine.baseline_bytes = machine.meter.ReadBytes();
  findings.baseline_rss_bytes = machine.baseline_bytes;

  if (settings.null_allocator) {
    CopyText(findings.library_path, "(built in)", sizeof(findings.library_path));
  } else {
    findings.confined = Confine(Refusal::kSignal);
    WatchCalls(true);
    const bool loaded = LoadAllocator(settings.library_path, settings.symbol_prefix, allocator, findings.error, sizeof(findings.error));
    WatchCalls(false);
    if (!loaded) FinishWorker(Phase::kFailedToStart);
    CopyText(findings.build_id, allocator.build_id, sizeof(findings.build_id));
    CopyText(findings.library_path, allocator.library_path, sizeof(findings.library_path));
  }
  findings.calls_exact = machine.dispatch || *settings.library_path != 0;
  shared->phase.store(Phase::kLoaded);
  replayer.Run(allocator.functions);
  FinishWorker(Phase::kDone);
}

}  // namespace
}  // namespace heaptape::worker

int main() { return heaptape::worker::Main(); }
