// heaptape-probe: loads one allocator, says what it is, and tries it against what programs rely on.
//
//   heaptape-probe LIBRARY PREFIX VERSION-QUERY SECONDS [conformance]
//
// LIBRARY is "" for the malloc of the C library this runs under; VERSION-QUERY is "", "text:SYMBOL",
// "number:SYMBOL" or "mallctl:SYMBOL". The library has SECONDS to answer, and as long for each check. Prints one line per fact ("version 2.0.9", "check realloc passed",
// "check huge failed malloc(SIZE_MAX) did not fail"); exit status 1 with an "error" line where the library
// can't be loaded or the blocks are not its own. Like the replay worker it needs the C library alone and has a malloc of
// its own, so that all that the tested allocator sees comes from the checks. Each check loads the library in a process of its own, confined
// as the worker is: one that crashes or hangs fails alone, and this process never runs the library's code. Nor does it
// read the pool, which those processes share with it.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "allocators/confine.h"
#include "allocators/loader.h"

namespace heaptape {
namespace {

constexpr rlim_t kDescriptorLimit = 256;
constexpr std::size_t kPageBytes = 4096;

LoadedAllocator loaded;
AllocatorFunctions& target = loaded.functions;

// --- one check --------------------------------------------------------------------------------------

// Ends the process that runs a check; the parent reads the sentence.
[[noreturn]] void End(const char* outcome, const char* format, va_list values) {
  char sentence[512];
  const int length = vsnprintf(sentence, sizeof(sentence), format, values);
  char line[600];
  const int bytes = snprintf(line, sizeof(line), "%s%s%s", outcome, length > 0 ? " " : "", sentence);
  if (write(STDOUT_FILENO, line, static_cast<std::size_t>(bytes)) < 0) _exit(3);
  _exit(0);
}

[[noreturn]] __attribute__((format(printf, 1, 2))) void Failed(const char* format, ...) {
  va_list values;
  va_start(values, format);
  End("failed", format, values);
}

[[noreturn]] __attribute__((format(printf, 1, 2))) void Absent(const char* format, ...) {
  va_list values;
  va_start(values, format);
  End("absent", format, values);
}

// A byte that depends on place and block, so that a block moved or overwritten by another shows.
unsigned char Pattern(std::size_t block, std::size_t place) { return static_cast<unsigned char>(block * 31 + place * 7 + (place >> 8) + 1); }

void Fill(void* block, std::size_t number, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) static_cast<unsigned char*>(block)[i] = Pattern(number, i);
}

bool Holds(const void* block, std::size_t number, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    if (static_cast<const unsigned char*>(block)[i] != Pattern(number, i)) return false;
  }
  return true;
}

std::uint64_t random_state = 1;
std::size_t Random(std::size_t below) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<std::size_t>(random_state >> 33) % below;
}

bool IsAligned(const void* block, std::size_t alignment) { return reinterpret_cast<std::uintptr_t>(block) % alignment == 0; }

void* Malloc(std::size_t bytes) {
  void* block = target.malloc(bytes);
  if (block == nullptr) Failed("malloc(%zu) returned NULL", bytes);
  return block;
}

constexpr std::size_t kSizes[] = {1, 7, 8, 9, 15, 16, 17, 24, 32, 48, 63, 64, 65, 100, 128, 200, 256, 500, 512, 1000, 1024, 2000,
                                  2048, 3000, 4095, 4096, 4097, 8192, 10000, 16384, 30000, 32768, 65536, 100000, 131072, 200000,
                                  524288, 1000000, 1048576, 3000000, 4194304, 10000000};

// --- the checks -------------------------------------------------------------------------------------

// The blocks are the library's: the probe's own malloc, as which the C library's answers, sees none of them.
void CheckInterposition() {
  if (target.malloc == ::malloc || target.free == ::free) Failed("its malloc is the probe's own");
  struct mallinfo2 (*information)() = nullptr;
  if (void* c_library = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD)) {
    information = reinterpret_cast<struct mallinfo2 (*)()>(dlsym(c_library, "mallinfo2"));
    // The C library's own malloc: its figures must move instead.
    const bool is_c_library = dlsym(c_library, "malloc") == reinterpret_cast<void*>(target.malloc) || loaded.handle == c_library;
    const std::size_t before = information != nullptr ? information().uordblks + information().hblkhd : 0;
    void* blocks[256];
    for (void*& block : blocks) block = target.malloc(1000);
    const std::size_t after = information != nullptr ? information().uordblks + information().hblkhd : 0;
    for (void* block : blocks) target.free(block);
    if (information == nullptr) return;
    if (is_c_library && after < before + 256 * 1000) Failed("the C library's malloc was called but did not allocate");
    if (!is_c_library && after != before) Failed("its blocks come from the C library's malloc");
  }
}

void CheckAlignment() {
  for (const std::size_t bytes : kSizes) {
    for (int repeat = 0; repeat < 8; ++repeat) {
      void* block = Malloc(bytes);
      const std::size_t wanted = bytes >= 16 ? 16 : 8;
      if (!IsAligned(block, wanted)) Failed("malloc(%zu) is not aligned to %zu", bytes, wanted);
      Fill(block, bytes, bytes < 64 ? bytes : 64);
    }
  }
}

void CheckUsableSize() {
  if (target.malloc_usable_size == nullptr) Absent("malloc_usable_size");
  constexpr std::size_t kBlocks = sizeof(kSizes) / sizeof(kSizes[0]);
  void* blocks[kBlocks][3];
  for (std::size_t i = 0; i < kBlocks; ++i) {
    for (int k = 0; k < 3; ++k) {
      blocks[i][k] = Malloc(kSizes[i]);
      const std::size_t usable = target.malloc_usable_size(blocks[i][k]);
      if (usable < kSizes[i]) Failed("malloc_usable_size of malloc(%zu) is %zu", kSizes[i], usable);
      Fill(blocks[i][k], i * 3 + k, usable);
    }
  }
  for (std::size_t i = 0; i < kBlocks; ++i) {
    for (int k = 0; k < 3; ++k) {
      if (!Holds(blocks[i][k], i * 3 + k, target.malloc_usable_size(blocks[i][k]))) {
        Failed("the usable bytes of a block of %zu overlap another's", kSizes[i]);
      }
      target.free(blocks[i][k]);
    }
  }
  if (target.malloc_usable_size(nullptr) != 0) Failed("malloc_usable_size(NULL) is not 0");
}

void CheckRealloc() {
  if (target.realloc == nullptr) Absent("realloc");
  void* block = target.realloc(nullptr, 1);
  if (block == nullptr) Failed("realloc(NULL, 1) returned NULL");
  std::size_t held = 1;
  Fill(block, 5, held);
  for (int round = 0; round < 200; ++round) {
    const std::size_t bytes = round < 42 ? kSizes[round] : 1 + Random(round % 10 == 0 ? 1000000 : 20000);
    void* moved = target.realloc(block, bytes);
    if (moved == nullptr) Failed("realloc to %zu bytes returned NULL", bytes);
    if (!Holds(moved, 5, held < bytes ? held : bytes)) Failed("realloc from %zu to %zu bytes lost the content", held, bytes);
    block = moved;
    held = bytes;
    Fill(block, 5, held);
  }
  target.free(block);
}

void CheckCalloc() {
  if (target.calloc == nullptr) Absent("calloc");
  for (const std::size_t bytes : kSizes) {
    for (int repeat = 0; repeat < 3; ++repeat) {
      void* dirty = Malloc(bytes);
      memset(dirty, 0xff, bytes);
      target.free(dirty);
      auto* block = static_cast<unsigned char*>(target.calloc(1, bytes));
      if (block == nullptr) Failed("calloc(1, %zu) returned NULL", bytes);
      for (std::size_t i = 0; i < bytes; ++i) {
        if (block[i] != 0) Failed("calloc(1, %zu) is not zero at byte %zu", bytes, i);
      }
      memset(block, 0xff, bytes);
      target.free(block);
    }
  }
}

constexpr std::size_t kHandedOver = 2000;
void* handed_over[kHandedOver];

void* AllocateMany(void*) {
  for (std::size_t i = 0; i < kHandedOver; ++i) {
    const std::size_t bytes = kSizes[i % 33];
    handed_over[i] = Malloc(bytes);
    Fill(handed_over[i], i, bytes);
  }
  return nullptr;
}

void* FreeMany(void*) {
  for (std::size_t i = 0; i < kHandedOver; ++i) {
    if (!Holds(handed_over[i], i, kSizes[i % 33])) Failed("a block lost its content on the way to another thread");
    target.free(handed_over[i]);
  }
  return nullptr;
}

void RunThread(void* (*function)(void*)) {
  pthread_t thread;
  if (pthread_create(&thread, nullptr, function, nullptr) != 0) Failed("a thread can't be made: %s", strerror(errno));
  if (pthread_join(thread, nullptr) != 0) Failed("a thread does not end");
}

void CheckCrossThreadFree() {
  for (int round = 0; round < 5; ++round) {
    AllocateMany(nullptr);
    RunThread(FreeMany);
  }
}

void CheckThreadExit() {
  for (int round = 0; round < 20; ++round) {
    RunThread(AllocateMany);
    FreeMany(nullptr);
  }
}

void CheckAligned(const char* name, void* (*allocate)(std::size_t, std::size_t)) {
  for (std::size_t alignment = sizeof(void*); alignment <= (1 << 20); alignment *= 2) {
    for (const std::size_t bytes : {1ul, 8ul, 24ul, 100ul, 1000ul, 4096ul, 5000ul, 70000ul, 1000000ul}) {
      void* blocks[4];
      for (void*& block : blocks) {
        block = allocate(alignment, bytes);
        if (block == nullptr) Failed("%s(%zu, %zu) returned NULL", name, alignment, bytes);
        if (!IsAligned(block, alignment)) Failed("%s(%zu, %zu) is not aligned", name, alignment, bytes);
        Fill(block, alignment, bytes < 256 ? bytes : 256);
        static_cast<char*>(block)[bytes - 1] = static_cast<char*>(block)[0];
      }
      for (void* block : blocks) {
        const std::size_t filled = bytes <= 256 ? bytes - 1 : 256;
        if (!Holds(block, alignment, filled) || static_cast<char*>(block)[bytes - 1] != static_cast<char*>(block)[0]) Failed("blocks of %s(%zu, %zu) overlap", name, alignment, bytes);
        target.free(block);
      }
    }
  }
}

void* ByPosixMemalign(std::size_t alignment, std::size_t bytes) {
  void* block = nullptr;
  return target.posix_memalign(&block, alignment, bytes) == 0 ? block : nullptr;
}

void CheckPosixMemalign() {
  if (target.posix_memalign == nullptr) Absent("posix_memalign");
  CheckAligned("posix_memalign", ByPosixMemalign);
  void* block = nullptr;
  if (target.posix_memalign(&block, 24, 100) != EINVAL) Failed("posix_memalign with an alignment of 24 is not EINVAL");
}

// As the C standard had it until 2017: the size a multiple of the alignment.
void* ByAlignedAlloc(std::size_t alignment, std::size_t bytes) {
  return target.aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void CheckAlignedAlloc() {
  if (target.aligned_alloc == nullptr) Absent("aligned_alloc");
  CheckAligned("aligned_alloc", ByAlignedAlloc);
}

void CheckAlignedAllocAnySize() {
  if (target.aligned_alloc == nullptr) Absent("aligned_alloc");
  CheckAligned("aligned_alloc", target.aligned_alloc);
}

void CheckMemalign() {
  if (target.memalign == nullptr) Absent("memalign");
  CheckAligned("memalign", target.memalign);
}

void CheckPageAligned() {
  if (target.valloc == nullptr && target.pvalloc == nullptr) Absent("valloc and pvalloc");
  for (const std::size_t bytes : {1ul, 4096ul, 5000ul}) {
    for (const auto allocate : {target.valloc, target.pvalloc}) {
      if (allocate == nullptr) continue;
      const char* name = allocate == target.valloc ? "valloc" : "pvalloc";
      void* block = allocate(bytes);
      if (block == nullptr) Failed("%s(%zu) returned NULL", name, bytes);
      if (!IsAligned(block, kPageBytes)) Failed("%s(%zu) is not aligned to a page", name, bytes);
      Fill(block, 1, allocate == target.pvalloc ? (bytes + kPageBytes - 1) / kPageBytes * kPageBytes : bytes);
      target.free(block);
    }
  }
}

// Blocks of mixed alignment and size that live on among one another, as database programs have them.
void CheckAlignedStream() {
  const auto allocate = target.memalign != nullptr        ? target.memalign
                        : target.posix_memalign != nullptr ? ByPosixMemalign
                                                           : target.aligned_alloc;
  if (allocate == nullptr) Absent("memalign, posix_memalign and aligned_alloc");
  static struct { void* block; std::size_t bytes; } live[4000];
  constexpr int kSteps = 100000;
  for (int step = 0; step < kSteps; ++step) {
    const std::size_t place = Random(4000);
    auto& slot = live[place];
    if (slot.block != nullptr) {
      if (!Holds(slot.block, place, slot.bytes < 32 ? slot.bytes : 32)) Failed("a block was overwritten at step %d", step);
      target.free(slot.block);
      slot.block = nullptr;
      continue;
    }
    const std::size_t alignment = std::size_t{16} << Random(9);
    slot.bytes = 1 + Random(step % 50 == 0 ? 200000 : 2000);
    slot.block = allocate(alignment, slot.bytes);
    if (slot.block == nullptr) Failed("memalign(%zu, %zu) returned NULL at step %d of %d", alignment, slot.bytes, step, kSteps);
    if (!IsAligned(slot.block, alignment)) Failed("memalign(%zu, %zu) is not aligned at step %d", alignment, slot.bytes, step);
    Fill(slot.block, place, slot.bytes < 32 ? slot.bytes : 32);
  }
}

void CheckZeroSize() {
  void* first = target.malloc(0);
  void* second = target.malloc(0);
  if (first != nullptr && first == second) Failed("malloc(0) returned one block twice");
  target.free(first);
  target.free(second);
  target.free(nullptr);
  if (target.calloc != nullptr) {
    target.free(target.calloc(0, 8));
    target.free(target.calloc(8, 0));
  }
  if (target.realloc != nullptr) {
    void* block = target.realloc(nullptr, 0);
    // NULL: freed; anything else: a block of its own.
    if (void* emptied = target.realloc(block != nullptr ? block : Malloc(10), 0)) target.free(emptied);
  }
  void* still = Malloc(100);
  Fill(still, 1, 100);
  target.free(still);
}

// Calls `expect` with each impossible request and its result; errno is 0 before each.
void AskTheImpossible(void (*expect)(const char* what, const void* block)) {
  // volatile: the compiler knows that such requests can't succeed.
  volatile std::size_t most = SIZE_MAX, half = PTRDIFF_MAX, beyond = std::size_t{1} << 50, many = std::size_t{1} << 33;
  const auto ask = [&](const char* what, auto allocate) {
    errno = 0;
    expect(what, allocate());
  };
  ask("malloc(SIZE_MAX)", [&] { return target.malloc(most); });
  ask("malloc(PTRDIFF_MAX)", [&] { return target.malloc(half); });
  ask("malloc(1 PiB)", [&] { return target.malloc(beyond); });
  if (target.calloc != nullptr) {
    ask("calloc(SIZE_MAX, 2)", [&] { return target.calloc(most, 2); });
    ask("calloc(2^33, 2^33)", [&] { return target.calloc(many, many); });
  }
  if (target.realloc != nullptr) {
    void* block = Malloc(1000);
    Fill(block, 3, 1000);
    ask("realloc to PTRDIFF_MAX", [&] { return target.realloc(block, half); });
    if (!Holds(block, 3, 1000)) Failed("a realloc that failed lost the block");
    target.free(block);
  }
}

void CheckHuge() {
  AskTheImpossible([](const char* what, const void* block) {
    if (block != nullptr) Failed("%s did not fail", what);
  });
  if (target.posix_memalign != nullptr) {
    void* block = nullptr;
    volatile std::size_t half = PTRDIFF_MAX;
    if (target.posix_memalign(&block, 64, half) != ENOMEM) Failed("posix_memalign of PTRDIFF_MAX did not return ENOMEM");
  }
  target.free(Malloc(100));
}

void CheckHugeErrno() {
  AskTheImpossible([](const char* what, const void*) {
    if (errno != ENOMEM) Failed("%s leaves errno at %d instead of ENOMEM", what, errno);
  });
}

struct Check {
  const char* name;
  void (*run)();
};

constexpr Check kChecks[] = {
    {"interposition", CheckInterposition},
    {"alignment", CheckAlignment},
    {"usable_size", CheckUsableSize},
    {"realloc", CheckRealloc},
    {"calloc", CheckCalloc},
    {"cross_thread_free", CheckCrossThreadFree},
    {"thread_exit", CheckThreadExit},
    {"posix_memalign", CheckPosixMemalign},
    {"aligned_alloc", CheckAlignedAlloc},
    {"aligned_alloc_any_size", CheckAlignedAllocAnySize},
    {"memalign", CheckMemalign},
    {"page_aligned", CheckPageAligned},
    {"aligned_stream", CheckAlignedStream},
    {"zero_size", CheckZeroSize},
    {"huge", CheckHuge},
    {"huge_errno", CheckHugeErrno},
};

// --- processes --------------------------------------------------------------------------------------

// What a process said. `ended`: it came to its end, so that the text is its own.
struct Outcome {
  char text[8192];
  bool ended;
  bool late;  // killed at the deadline
};
// One at a time; static, as the pool is not to be relied on here.
Outcome outcome;
// In the process that runs a library's code.
bool confined = false;
// When the process that runs next is killed.
long deadline = 0;

long MillisecondsNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

// Runs `say`, which writes to stdout and ends the process, and takes what it said until the deadline.
template <typename Function>
void RunApart(const Function& say) {
  outcome = {};
  int ends[2];
  fflush(stdout);
  if (pipe2(ends, O_CLOEXEC) != 0) return;
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(3);
    dup2(ends[1], STDOUT_FILENO);
    dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
    // Nothing else that is open here.
    syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0);
    const rlimit nothing = {0, 0}, few = {kDescriptorLimit, kDescriptorLimit};
    setrlimit(RLIMIT_CORE, &nothing);
    setrlimit(RLIMIT_FSIZE, &nothing);
    setrlimit(RLIMIT_NOFILE, &few);
    confined = Confine(Refusal::kError);
    say();
  }
  close(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  // Readable when it ends; a kernel without it is asked now and then.
  const int end = pid > 0 ? static_cast<int>(syscall(SYS_pidfd_open, pid, 0)) : -1;
  std::size_t length = 0;
  int status = 0;
  bool late = false, reading = true;
  const auto drain = [&] {
    ssize_t got = 0;
    while (length < sizeof(outcome.text) - 1 && (got = read(ends[0], outcome.text + length, sizeof(outcome.text) - 1 - length)) > 0) {
      length += static_cast<std::size_t>(got);
    }
    // The end of the stream, or all there is room for: what comes later is not waited for.
    if (got == 0 || length == sizeof(outcome.text) - 1) reading = false;
  };
  while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
    if (!late && MillisecondsNow() >= deadline) {
      kill(pid, SIGKILL);
      late = true;
    }
    pollfd sources[] = {{reading ? ends[0] : -1, POLLIN, 0}, {end, POLLIN, 0}};
    poll(sources, 2, 50);
    if (reading) drain();
  }
  if (reading) drain();
  close(ends[0]);
  if (end >= 0) close(end);
  outcome.late = late;
  if (late) {
    snprintf(outcome.text, sizeof(outcome.text), "failed did not end");
  } else if (pid < 0 || WIFSIGNALED(status)) {
    snprintf(outcome.text, sizeof(outcome.text), "failed %s", pid < 0 ? "no process can be made for it" : strsignal(WTERMSIG(status)));
  } else if (length == 0) {
    snprintf(outcome.text, sizeof(outcome.text), "failed ended with exit status %d", WEXITSTATUS(status));
  } else {
    outcome.ended = true;
  }
}

// Says "error SENTENCE" and ends the process where it can't.
void Load(char** argv) {
  char error[512];
  if (LoadAllocator(argv[1], argv[2], loaded, error, sizeof(error))) return;
  printf("error %s\n", error);
  fflush(stdout);
  _exit(1);
}

// "passed", "absent FUNCTION" or "failed SENTENCE", on one line.
void RunCheck(const Check& check, char** argv) {
  RunApart([&] {
    Load(argv);
    check.run();
    va_list none = {};
    End("passed", "", none);
  });
  for (char* c = outcome.text; *c != 0; ++c) {
    if (*c == '\n') *c = ' ';
  }
}

// --- version ----------------------------------------------------------------------------------------

void PrintVersion(const char* query) {
  const char* colon = strchr(query, ':');
  if (colon == nullptr) return;
  void* symbol = dlsym(loaded.handle, colon + 1);
  if (symbol == nullptr) return;
  const std::size_t kind = static_cast<std::size_t>(colon - query);
  if (strncmp(query, "number", kind) == 0) {
    // 209 is 2.0.9; where one digit no longer does, 30304 is 3.3.4.
    const int number = reinterpret_cast<int (*)()>(symbol)();
    const int base = number >= 10000 ? 100 : 10;
    printf("version %d.%d.%d\n", number / base / base, number / base % base, number % base);
    return;
  }
  const char* text = nullptr;
  if (strncmp(query, "mallctl", kind) == 0) {
    std::size_t bytes = sizeof(text);
    const auto mallctl = reinterpret_cast<int (*)(const char*, void*, std::size_t*, void*, std::size_t)>(symbol);
    if (mallctl("version", &text, &bytes, nullptr, 0) != 0) return;
  } else {
    // Some take places for the parts of the number, which may be NULL; the others do not look.
    text = reinterpret_cast<const char* (*)(int*, int*, const char**)>(symbol)(nullptr, nullptr, nullptr);
  }
  if (text == nullptr) return;
  // "5.3.0-0-g54eaed1..." and "gperftools 2.10": the number alone.
  const char* number = strpbrk(text, "0123456789");
  if (number == nullptr) number = text;
  printf("version %.*s\n", static_cast<int>(strcspn(number, "- ")), number);
}

void PrintFacts(char** argv) {
  Load(argv);
  if (!confined) printf("unconfined\n");
  printf("library %s\n", loaded.library_path);
  if (*loaded.build_id != 0) printf("build_id %s\n", loaded.build_id);
  PrintVersion(argv[3]);
  fflush(stdout);
  // Without the library's own farewell: what it prints or breaks at exit is nobody's concern here.
  _exit(0);
}

int Main(int argc, char** argv) {
  if (argc < 5 || argc > 6) {
    fprintf(stderr, "heaptape-probe is started by `heaptape allocators`, not by hand\n");
    return 2;
  }
  static char buffer[BUFSIZ];
  setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
  const long milliseconds = strtol(argv[4], nullptr, 10) * 1000;
  deadline = MillisecondsNow() + milliseconds;
  RunApart([&] { PrintFacts(argv); });
  if (outcome.late) {
    printf("error the library did not answer within %s s\n", argv[4]);
    return 1;
  }
  if (!outcome.ended) {
    printf("error the library ended the process that loaded it: %s\n", outcome.text + strlen("failed "));
    return 1;
  }
  fputs(outcome.text, stdout);
  if (strncmp(outcome.text, "error ", 6) == 0) return 1;
  if (argc == 6) {
    for (const Check& check : kChecks) {
      deadline = MillisecondsNow() + milliseconds;
      RunCheck(check, argv);
      printf("check %s %s\n", check.name, outcome.text);
    }
  } else {
    RunCheck(kChecks[0], argv);
    if (outcome.late) printf("late\n");
    // One that crashes instead may still be replayed: the crash is what came of it.
    if (outcome.ended && strncmp(outcome.text, "failed ", 7) == 0) {
      printf("error %s: %s\n", *argv[1] != 0 ? argv[1] : "the C library", outcome.text + 7);
      return 1;
    }
  }
  printf("done\n");
  return 0;
}

}  // namespace
}  // namespace heaptape

int main(int argc, char** argv) { return heaptape::Main(argc, argv); }
