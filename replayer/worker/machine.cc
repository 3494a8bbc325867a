#include "replayer/worker/machine.h"

#include <asm/prctl.h>
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "replayer/worker/kernel.h"
#include "replayer/worker/pool.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif

namespace heaptape::worker {

Machine machine;

namespace {

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
// What the clocks show at time 0 of the recording.
constexpr std::uint64_t kBootNs = 1'000 * kNsPerSecond;
constexpr std::uint64_t kUnixNs = 1'700'000'000 * kNsPerSecond;
constexpr std::uint64_t kHugePageBytes = 2 << 20;
// Process and thread numbers differ from run to run, and some allocators seed random numbers with them.
constexpr long kProcessNumber = 1000;
// The peak is as exact as this where the kernel's counters are not.
constexpr std::uint64_t kPeakStepBytes = 256 << 10, kPeakStepShare = 256;
constexpr char kAllow = 0, kBlock = 1;
constexpr int kRefusedByFilter = 1;  // SYS_SECCOMP of si_code, which not every C library names

// Read by the kernel at each system call of a watched thread.
volatile char dispatch_selector = kAllow;

struct KernelSigaction {
  void (*handler)(int, siginfo_t*, void*);
  unsigned long flags;
  void (*restorer)();
  std::uint64_t mask;
};
constexpr unsigned long kSaRestorer = 0x04000000;
constexpr std::uint64_t SignalBit(int signal) { return std::uint64_t{1} << (signal - 1); }

long ClockGettime(clockid_t clock, timespec* result) {
  // Real time too counts from the start of the run, so that allocators which round it see the same steps.
  const bool is_virtual = machine.shared->settings.clock == ClockMode::kVirtual;
  const std::uint64_t now = (is_virtual ? VirtualNow() : RealNow() - machine.real_start_ns) +
                            (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ? kUnixNs : kBootNs);
  result->tv_sec = static_cast<time_t>(now / kNsPerSecond);
  result->tv_nsec = static_cast<long>(now % kNsPerSecond);
  return 0;
}

long FillRandom(unsigned char* bytes, std::size_t count) {
  if (machine.shared->settings.vary_keys != 0) return Kernel(SYS_getrandom, bytes, count, 0);
  // splitmix64, seeded by the run's seed.
  for (std::size_t i = 0; i < count; i += 8) {
    std::uint64_t z = machine.random_state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    memcpy(bytes + i, &z, count - i < 8 ? count - i : 8);
  }
  return static_cast<long>(count);
}

long GetAffinity(std::size_t bytes, unsigned char* mask) {
  const std::uint32_t cpus = machine.shared->settings.cpu_count;
  const std::size_t need = (cpus + 63) / 64 * 8;
  if (bytes < need || (bytes & 7) != 0) return -EINVAL;
  memset(mask, 0, need);
  for (std::uint32_t i = 0; i < cpus; ++i) mask[i / 8] |= static_cast<unsigned char>(1u << (i % 8));
  return static_cast<long>(need);
}

// The loader maps its cache while it looks for a library, and the hole it leaves is where the allocator's next mapping
// goes. The cache is as large as much is installed, so it is put elsewhere.
constexpr std::uintptr_t kLoaderCacheAddress = kOwnAddresses + (std::uintptr_t{9} << 40);
long loader_cache = -1;  // its descriptor

bool IsRandomDevice(const char* path) { return strcmp(path, "/dev/urandom") == 0 || strcmp(path, "/dev/random") == 0; }

// A file of fixed random bytes, for those who read the device.
long OpenRandom() {
  const long file = Kernel(SYS_memfd_create, "random", 0);
  if (IsKernelError(file)) return file;
  unsigned char bytes[1024];
  for (int i = 0; i < 64; ++i) {
    FillRandom(bytes, sizeof(bytes));
    Kernel(SYS_write, file, bytes, sizeof(bytes));
  }
  Kernel(SYS_lseek, file, 0, SEEK_SET);
  return file;
}

void AskForHugePages(long address, std::uint64_t bytes) {
  if (machine.shared->settings.huge_pages != HugePageMode::kAlways || bytes < kHugePageBytes) return;
  Kernel(SYS_madvise, address, bytes, MADV_HUGEPAGE);
}

// Each request for more is a moment to look.
void BeforeMemoryGrows() {
  if (machine.counting) CheckMemoryLimit();
}

// Resident memory falls only through a few calls, so a look before each of them (and at each sample)
// finds the peak exactly. Where a look is dear, one is taken only if the counters, inexact as they are, say
// that there is a new peak by more than kPeakStep.
void BeforeMemoryFalls() {
  if (!machine.counting) return;
  if (!machine.meter.exact()) {
    const std::uint64_t counted = machine.meter.ReadCounterBytes();
    if (counted < machine.peak_counter_bytes + kPeakStepBytes + machine.peak_bytes / kPeakStepShare) return;
    machine.peak_counter_bytes = counted;
  }
  MeasureHeap();
}

void OnSignal(int, siginfo_t* signal, void* context) {
  greg_t* r = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (signal->si_code == kRefusedByFilter) {
    if (machine.calls_refused++ == 0) machine.first_refused_call = static_cast<std::uint32_t>(signal->si_syscall);
    r[REG_RAX] = -EPERM;
    return;
  }
  r[REG_RAX] = Answer(static_cast<long>(r[REG_RAX]), r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]);
}

// Each interrupts the allocator wherever it is.
void SendSignals() {
  KernelSigaction action = {[](int, siginfo_t*, void*) {}, SA_SIGINFO | SA_RESTART | kSaRestorer, HeaptapeSignalReturn, 0};
  Kernel(SYS_rt_sigaction, SIGALRM, &action, nullptr, sizeof(action.mask));
  constexpr itimerval kEveryMillisecond = {{0, 1'000}, {0, 1'000}};
  Kernel(SYS_setitimer, ITIMER_REAL, &kEveryMillisecond, nullptr);
}

void Count(std::uint64_t& counter) {
  if (machine.counting) __atomic_fetch_add(&counter, 1, __ATOMIC_RELAXED);
}

}  // namespace

long Answer(long number, long a, long b, long c, long d, long e, long f) {
  switch (number) {
    case SYS_mmap: {
      Count(machine.calls.mmap);
      if (d & MAP_FIXED) BeforeMemoryFalls();
      BeforeMemoryGrows();
      if (a == 0 && e >= 0 && e == loader_cache) {
        loader_cache = -1;
        return Kernel(SYS_mmap, kLoaderCacheAddress, b, c, d, e, f);
      }
      const long result = Kernel(SYS_mmap, a, b, c, d, e, f);
      if (!IsKernelError(result) && (d & MAP_ANONYMOUS) && (d & MAP_PRIVATE)) {
        AskForHugePages(result, static_cast<std::uint64_t>(b));
      }
      return result;
    }
    case SYS_munmap:
      Count(machine.calls.munmap);
      BeforeMemoryFalls();
      break;
    case SYS_mremap:
      Count(machine.calls.mremap);
      BeforeMemoryFalls();
      break;
    case SYS_madvise:
      Count(machine.calls.madvise);
      if (c == MADV_FREE) ++machine.lazy_free_calls;
      if (c != MADV_FREE && c != MADV_HUGEPAGE && c != MADV_NOHUGEPAGE) BeforeMemoryFalls();
      break;
    case SYS_mprotect:
      Count(machine.calls.mprotect);
      break;
    case SYS_brk: {
      Count(machine.calls.brk);
      const std::uint64_t before = static_cast<std::uint64_t>(Kernel(SYS_brk, 0));
      BeforeMemoryGrows();
      if (a != 0 && static_cast<std::uint64_t>(a) < before) BeforeMemoryFalls();
      const long result = Kernel(SYS_brk, a);
      if (static_cast<std::uint64_t>(result) > before) AskForHugePages(static_cast<long>(before & ~(kPageBytes - 1)), result - before);
      return result;
    }
    case SYS_getrandom:
      return FillRandom(reinterpret_cast<unsigned char*>(a), static_cast<std::size_t>(b));
    case SYS_openat:
      if (IsRandomDevice(reinterpret_cast<const char*>(b))) return OpenRandom();
      if (!machine.counting && strcmp(reinterpret_cast<const char*>(b), "/etc/ld.so.cache") == 0) {
        return loader_cache = Kernel(SYS_openat, a, b, c, d);
      }
      break;
    case SYS_open:
      if (IsRandomDevice(reinterpret_cast<const char*>(a))) return OpenRandom();
      break;
    case SYS_clock_gettime:
      return ClockGettime(static_cast<clockid_t>(a), reinterpret_cast<timespec*>(b));
    case SYS_gettimeofday: {
      timespec now;
      const long result = ClockGettime(CLOCK_REALTIME, &now);
      if (auto* out = reinterpret_cast<timeval*>(a)) *out = {now.tv_sec, now.tv_nsec / 1000};
      return result;
    }
    case SYS_sched_getaffinity:
      return GetAffinity(static_cast<std::size_t>(b), reinterpret_cast<unsigned char*>(c));
    case SYS_getcpu:
      if (a != 0) *reinterpret_cast<unsigned*>(a) = 0;
      if (b != 0) *reinterpret_cast<unsigned*>(b) = 0;
      return 0;
    case SYS_getpid:
      return kProcessNumber;
    case SYS_gettid:
      return kProcessNumber + static_cast<long>(machine.thread);
    case SYS_tgkill:  // abort() and raise() of the thread itself
      if (a == kProcessNumber) return Kernel(SYS_tgkill, Kernel(SYS_getpid), Kernel(SYS_gettid), c);
      break;
    case SYS_kill:
      if (a == kProcessNumber) return Kernel(SYS_kill, Kernel(SYS_getpid), b);
      break;
    case SYS_clone:
    case SYS_clone3:
    case SYS_fork:
    case SYS_vfork:
      // A thread of the allocator's own would run at the scheduler's pleasure: no two runs would agree.
      ++machine.threads_refused;
      return -EAGAIN;
    case SYS_rt_sigprocmask: {
      // SIGSYS stays open, or the next caught call would kill the process.
      std::uint64_t set;
      if (b == 0 || d != sizeof(set)) break;
      memcpy(&set, reinterpret_cast<void*>(b), sizeof(set));
      if (a != SIG_UNBLOCK) set &= ~SignalBit(SIGSYS);
      return Kernel(SYS_rt_sigprocmask, a, &set, c, d);
    }
    default:
      break;
  }
  return Kernel(number, a, b, c, d, e, f);
}

void StartMachine() {
  machine.random_state = machine.shared->settings.seed * 0x2545f4914f6cdd1d + 0x68656170;
  // The kernel's own gift of random bytes differs from run to run.
  if (auto* gift = reinterpret_cast<unsigned char*>(getauxval(AT_RANDOM))) FillRandom(gift, 16);

  const std::uint64_t open = SignalBit(SIGSYS) | SignalBit(SIGSEGV) | SignalBit(SIGBUS) | SignalBit(SIGILL) |
                             SignalBit(SIGFPE) | SignalBit(SIGABRT) | SignalBit(SIGTRAP);
  const bool vary_signals = machine.shared->settings.vary_signals != 0;
  const std::uint64_t blocked = ~(open | (vary_signals ? SignalBit(SIGALRM) : 0));
  Kernel(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, nullptr, sizeof(blocked));
  if (vary_signals) SendSignals();

  KernelSigaction action = {OnSignal, SA_SIGINFO | SA_NODEFER | kSaRestorer, HeaptapeSignalReturn, 0};
  if (Kernel(SYS_rt_sigaction, SIGSYS, &action, nullptr, sizeof(action.mask)) != 0) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(HeaptapeRawSyscallsBegin);
  const auto end = reinterpret_cast<std::uintptr_t>(HeaptapeRawSyscallsEnd);
  machine.dispatch = Kernel(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, begin, end - begin,
                            &dispatch_selector) == 0;
}

void WatchThisThread() {
  if (!machine.dispatch) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(HeaptapeRawSyscallsBegin);
  const auto end = reinterpret_cast<std::uintptr_t>(HeaptapeRawSyscallsEnd);
  Kernel(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, begin, end - begin, &dispatch_selector);
}

void WatchCalls(bool watch) { dispatch_selector = watch ? kBlock : kAllow; }

std::uint64_t VirtualNow() {
  const std::uint64_t done = machine.shared->position() - machine.span_first_event;
  if (machine.span_events == 0) return machine.span_start_ns;
  if (done >= machine.span_events) return machine.span_start_ns + machine.span_ns;
  return machine.span_start_ns +
         static_cast<std::uint64_t>(static_cast<unsigned __int128>(machine.span_ns) * done / machine.span_events);
}

std::uint64_t RealNow() {
  using Function = int (*)(clockid_t, timespec*);
  // The C library's, which needs no system call; looked up once, before the run.
  static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "clock_gettime"));
  timespec now;
  real(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<std::uint64_t>(now.tv_nsec);
}

std::uint64_t MeasureHeap() {
  const std::uint64_t rss = machine.meter.ReadBytes();
  const std::uint64_t heap = rss > machine.baseline_bytes ? rss - machine.baseline_bytes : 0;
  if (heap > machine.peak_bytes) {
    machine.peak_bytes = heap;
    machine.peak_event = machine.shared->position();
    machine.peak_time_ns = VirtualNow();
    const std::uint64_t limit = machine.shared->settings.memory_limit_bytes;
    if (limit != 0 && heap > limit) StopWorker(Phase::kStopped, kPassedMemoryLimit);
  }
  return heap;
}

void CheckMemoryLimit() {
  const std::uint64_t limit = machine.shared->settings.memory_limit_bytes;
  if (limit != 0 && machine.meter.ReadCounterBytes() > machine.baseline_bytes + limit) MeasureHeap();
}

void FinishWorker(Phase phase) {
  SharedHeader& shared = *machine.shared;
  Findings& f = shared.findings;
  f.peak_rss_bytes = machine.peak_bytes;
  f.peak_event = machine.peak_event;
  f.peak_time_ns = machine.peak_time_ns;
  f.calls = machine.calls;
  f.threads_refused = machine.threads_refused;
  f.calls_refused = machine.calls_refused;
  f.first_refused_call = machine.first_refused_call;
  shared.phase.store(phase, std::memory_order_release);
  shared.tail_signal.fetch_add(1);
  Kernel(SYS_futex, &shared.tail_signal, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  for (;;) Kernel(SYS_exit_group, 0);
}

void StopWorker(Phase phase, const char* sentence) {
  char* error = machine.shared->findings.error;
  strncpy(error, sentence, sizeof(Findings::error) - 1);
  FinishWorker(phase);
}

}  // namespace heaptape::worker

// Names the allocator's library binds to (worker.exports).
#define HEAPTAPE_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using heaptape::worker::Answer;
using heaptape::worker::machine;

long WithErrno(long result) {
  if (!heaptape::worker::IsKernelError(result)) return result;
  errno = static_cast<int>(-result);
  return -1;
}

long L(const void* pointer) { return reinterpret_cast<long>(pointer); }

}  // namespace

HEAPTAPE_EXPORT int clock_gettime(clockid_t clock, timespec* result) {
  return static_cast<int>(WithErrno(Answer(SYS_clock_gettime, clock, L(result), 0, 0, 0, 0)));
}

HEAPTAPE_EXPORT int gettimeofday(timeval* result, void*) {
  return static_cast<int>(WithErrno(Answer(SYS_gettimeofday, L(result), 0, 0, 0, 0, 0)));
}

HEAPTAPE_EXPORT time_t time(time_t* result) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result != nullptr) *result = now.tv_sec;
  return now.tv_sec;
}

HEAPTAPE_EXPORT ssize_t getrandom(void* bytes, size_t count, unsigned flags) {
  return Answer(SYS_getrandom, L(bytes), static_cast<long>(count), flags, 0, 0, 0);
}

HEAPTAPE_EXPORT int getentropy(void* bytes, size_t count) {
  Answer(SYS_getrandom, L(bytes), static_cast<long>(count), 0, 0, 0, 0);
  return 0;
}

HEAPTAPE_EXPORT int sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t* mask) {
  const long filled = Answer(SYS_sched_getaffinity, pid, static_cast<long>(bytes), L(mask), 0, 0, 0);
  if (filled < 0) return static_cast<int>(WithErrno(filled));
  memset(reinterpret_cast<char*>(mask) + filled, 0, bytes - static_cast<size_t>(filled));
  return 0;
}

HEAPTAPE_EXPORT int pthread_getaffinity_np(pthread_t, size_t bytes, cpu_set_t* mask) {
  return sched_getaffinity(0, bytes, mask) == 0 ? 0 : errno;
}

HEAPTAPE_EXPORT int sched_getcpu() { return 0; }
HEAPTAPE_EXPORT int get_nprocs() { return static_cast<int>(machine.shared->settings.cpu_count); }
HEAPTAPE_EXPORT int get_nprocs_conf() { return static_cast<int>(machine.shared->settings.cpu_count); }

HEAPTAPE_EXPORT long sysconf(int name) {
  if (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF) return machine.shared->settings.cpu_count;
  if (name == _SC_PHYS_PAGES && machine.shared->settings.machine_memory_bytes != 0) {
    return static_cast<long>(machine.shared->settings.machine_memory_bytes / heaptape::worker::kPageBytes);
  }
  using Function = long (*)(int);
  static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "sysconf"));
  return real(name);
}

HEAPTAPE_EXPORT long syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  return WithErrno(Answer(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}

HEAPTAPE_EXPORT void* mmap(void* address, size_t bytes, int protection, int flags, int descriptor, off_t offset) {
  return reinterpret_cast<void*>(
      WithErrno(Answer(SYS_mmap, L(address), static_cast<long>(bytes), protection, flags, descriptor, offset)));
}
HEAPTAPE_EXPORT void* mmap64(void* address, size_t bytes, int protection, int flags, int descriptor, off64_t offset) {
  return mmap(address, bytes, protection, flags, descriptor, offset);
}

HEAPTAPE_EXPORT int munmap(void* address, size_t bytes) noexcept {
  return static_cast<int>(WithErrno(Answer(SYS_munmap, L(address), static_cast<long>(bytes), 0, 0, 0, 0)));
}

HEAPTAPE_EXPORT int madvise(void* address, size_t bytes, int advice) noexcept {
  return static_cast<int>(WithErrno(Answer(SYS_madvise, L(address), static_cast<long>(bytes), advice, 0, 0, 0)));
}

HEAPTAPE_EXPORT int mprotect(void* address, size_t bytes, int protection) noexcept {
  return static_cast<int>(WithErrno(Answer(SYS_mprotect, L(address), static_cast<long>(bytes), protection, 0, 0, 0)));
}

HEAPTAPE_EXPORT void* mremap(void* address, size_t old_bytes, size_t bytes, int flags, ...) noexcept {
  va_list list;
  va_start(list, flags);
  void* target = (flags & MREMAP_FIXED) ? va_arg(list, void*) : nullptr;
  va_end(list);
  return reinterpret_cast<void*>(WithErrno(Answer(SYS_mremap, L(address), static_cast<long>(old_bytes),
                                                  static_cast<long>(bytes), flags, L(target), 0)));
}
