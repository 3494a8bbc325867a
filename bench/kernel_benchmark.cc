// What the kernel charges for what replaying and recording ask of it, in nanoseconds each: sources of the
// resident set, by resident pages, the pages of one block that are present, and ways to become another thread.

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "benchmark/benchmark.h"
#include "recorder/process_memory.h"

namespace {

class ResidentPages {
 public:
  explicit ResidentPages(std::size_t pages) : bytes_(pages * 4096) {
    memory_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED) std::abort();
    madvise(memory_, bytes_, MADV_NOHUGEPAGE);
    for (std::size_t i = 0; i < bytes_; i += 4096) memory_[i] = 1;
  }
  ~ResidentPages() { munmap(memory_, bytes_); }
  std::uint64_t address() const { return reinterpret_cast<std::uint64_t>(memory_); }

 private:
  std::size_t bytes_;
  char* memory_;
};

void SampleNs(benchmark::State& state, const char* source) {
  const ResidentPages pages(static_cast<std::size_t>(state.range(0)));
  const int file = open(source, O_RDONLY);
  char text[4096];
  for (auto unused : state) {
    if (pread(file, text, sizeof(text), 0) <= 0) state.SkipWithError("cannot be read");
  }
  close(file);
}
BENCHMARK_CAPTURE(SampleNs, statm, "/proc/self/statm")->ArgName("pages")->Arg(100)->Arg(100'000);
BENCHMARK_CAPTURE(SampleNs, status, "/proc/self/status")->ArgName("pages")->Arg(100)->Arg(100'000);
BENCHMARK_CAPTURE(SampleNs, smaps_rollup, "/proc/self/smaps_rollup")->ArgName("pages")->Arg(100)->Arg(100'000);

// What the writer does for each large block at its allocation and at its free.
void PresentPagesOfABlockNs(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  const ResidentPages pages(count);
  heaptape::ProcessMemory memory(heaptape::OpenProcessFiles(getpid()));
  for (auto unused : state) {
    if (memory.PresentPages(pages.address(), count * 4096).size() != 1) state.SkipWithError("not all are seen");
  }
}
BENCHMARK(PresentPagesOfABlockNs)->ArgName("pages")->Arg(16)->Arg(256)->Arg(16384);

#ifdef __x86_64__
void SwitchByFsBaseInstructionNs(benchmark::State& state) {
  constexpr unsigned long kFsGsBase = 2;  // bit of AT_HWCAP2
  if (!(getauxval(AT_HWCAP2) & kFsGsBase)) {
    state.SkipWithError("the kernel does not allow it");
    return;
  }
  unsigned long base;
  __asm__ volatile("rdfsbase %0" : "=r"(base));
  for (auto unused : state) __asm__ volatile("wrfsbase %0" ::"r"(base) : "memory");
}
BENCHMARK(SwitchByFsBaseInstructionNs);

void SwitchByArchPrctlNs(benchmark::State& state) {
  unsigned long base = 0;
  syscall(SYS_arch_prctl, ARCH_GET_FS, &base);
  for (auto unused : state) syscall(SYS_arch_prctl, ARCH_SET_FS, base);
}
BENCHMARK(SwitchByArchPrctlNs);
#endif

// To another thread and back, each waiting in the kernel for the other.
void SwitchThereAndBackByFutexNs(benchmark::State& state) {
  static std::atomic<int> turn;
  turn = 0;
  const auto wait = [](int value) {
    for (int seen; (seen = turn.load()) != value && seen != 2;) {
      syscall(SYS_futex, reinterpret_cast<int*>(&turn), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
    }
  };
  const auto give = [](int value) {
    turn.store(value);
    syscall(SYS_futex, reinterpret_cast<int*>(&turn), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  };
  std::thread other([&] {
    while (true) {
      wait(1);
      if (turn.load() == 2) return;
      give(0);
    }
  });
  for (auto unused : state) {
    give(1);
    wait(0);
  }
  give(2);
  other.join();
}
BENCHMARK(SwitchThereAndBackByFutexNs)->UseRealTime()->MeasureProcessCPUTime();

}  // namespace

BENCHMARK_MAIN();
