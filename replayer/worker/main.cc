// heaptape-worker: replays one trace against one allocator. Started by `heaptape replay`, never by hand.
//
// Order matters: everything the worker itself needs is made resident first, then the baseline is taken,
// then the allocator is loaded; what is resident beyond the baseline is the allocator's.

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
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
constexpr std::uintptr_t kFirstStackAddress = kOwnAddresses + (std::uintptr_t{8} << 40);
constexpr std::size_t kFirstStackBytes = 1 << 20;

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

// Makes every private writable page of the worker, the C library and the loader resident, so that nothing the worker
// does later adds a page.
void MakeResident() {
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

// Takes all room the kernel would give away at or above `floor`, so that its next mapping ends there.
void TakeRoomDownTo(std::uintptr_t floor) {
  for (std::size_t bytes = 1 << 20; bytes >= kPageBytes;) {
    const long taken = Kernel(SYS_mmap, 0, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!IsKernelError(taken) && static_cast<std::uintptr_t>(taken) >= floor) continue;
    if (!IsKernelError(taken)) Kernel(SYS_munmap, taken, bytes);
    bytes /= 2;
  }
}

// Fixes where the kernel will put the allocator's mappings and heap: elsewhere for each seed, as address
// randomisation does in production, but not by what happens to be mapped by now. That hangs on the size of this program
// and on the length of its path, which the loader keeps.
void PlaceAddresses(std::uint64_t seed) {
  constexpr std::uintptr_t kMappingsEnd = 0x7fff'f000'0000;  // well below the loader and the C library
  constexpr long kHeapAlignment = 16 << 20;                  // more than this program takes
  std::uint64_t mmap_pages = 0, brk_pages = 0;
  if (seed != 0) {
    const std::uint64_t mixed = (seed * 0x9e3779b97f4a7c15) >> 32;
    mmap_pages = 1 + mixed % 0xffff;
    brk_pages = 1 + (mixed >> 8) % 0x1fff;
  }
  TakeRoomDownTo(kMappingsEnd - mmap_pages * kPageBytes);
  const long top = Kernel(SYS_brk, 0);
  const long start = (top + kHeapAlignment - 1) / kHeapAlignment * kHeapAlignment;
  Kernel(SYS_brk, start + static_cast<long>(brk_pages * kPageBytes));
}

void CopyText(char* to, const char* from, std::size_t bytes) { snprintf(to, bytes, "%s", from); }

void* ReplayThread(void*) {
  SharedHeader* shared = machine.shared;
  const Settings& settings = shared->settings;
  Findings& findings = shared->findings;
  // A program of one thread spares itself locks. The other thread here never runs again.
  if (auto* single = static_cast<char*>(dlsym(RTLD_DEFAULT, "__libc_single_threaded"))) *single = settings.thread_count == 1;
  machine.real_start_ns = RealNow();  // also looks up what it needs while nothing is measured
  sysconf(_SC_PAGESIZE);
  StartMachine();
  if (!replayer.Prepare(*shared)) StopWorker(Phase::kFailedToStart, "not enough memory for the replay's own tables");
  if (!settings.count_own_memory) MakeResident();
  if (!machine.meter.Open(settings.distrust_counters == 0)) {
    StopWorker(Phase::kFailedToStart, "cannot read this process's memory from /proc/self/statm (is /proc mounted?)");
  }
  findings.counters_exact = machine.meter.exact();
  if (!settings.count_own_memory) MakeResident();
  if (!settings.vary_addresses) PlaceAddresses(settings.seed);
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

// The recorded program's first thread is one made here, not the one that the kernel started: that one's TLS, whose
// address is the seed of jemalloc's random numbers, lies where the loader happened to find room, which depends
// on the size of /etc/ld.so.cache and so on what else is installed.
int Main() {
  SharedHeader* shared = MapShared();
  if (shared == nullptr) {
    static const char kWhat[] = "heaptape-worker is started by `heaptape replay`, not by hand\n";
    return write(2, kWhat, sizeof(kWhat) - 1) < 0 ? 1 : 2;
  }
  machine.shared = shared;
  if (shared->settings.count_own_memory) LetOwnMemoryCount();
  const std::uint64_t all = ~std::uint64_t{0};
  Kernel(SYS_rt_sigprocmask, SIG_SETMASK, &all, nullptr, sizeof(all));
  pthread_attr_t attributes;
  pthread_t thread;
  void* stack = MapOwnMemory(kFirstStackAddress, kFirstStackBytes, true);
  pthread_attr_init(&attributes);
  if (stack == nullptr || pthread_attr_setstack(&attributes, stack, kFirstStackBytes) != 0 ||
      pthread_create(&thread, &attributes, ReplayThread, nullptr) != 0) {
    StopWorker(Phase::kFailedToStart, "cannot start a thread (see ulimit -u)");
  }
  pthread_join(thread, nullptr);
  return 1;  // it ends the process itself
}

}  // namespace
}  // namespace heaptape::worker

int main() { return heaptape::worker::Main(); }
