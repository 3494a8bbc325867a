// The constructor: reads what is asked for, starts the writer, and leaves the program as if nobody had been there.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "recorder/preload/cxx_operators.h"
#include "recorder/preload/environment.h"
#include "recorder/preload/filters.h"
#include "recorder/preload/hooks.h"
#include "recorder/preload/process.h"
#include "recorder/preload/real_functions.h"
#include "recorder/preload/stacks.h"
#include "recorder/preload/system.h"

extern "C" {
pid_t _Fork(void);
extern char __libc_single_threaded;
}

namespace heaptape {
namespace {

constexpr std::size_t kPathMax = 4096;
constexpr std::uint64_t kStartPatienceNs = 10'000'000'000;
// Descriptors that the program might count on being free.
constexpr int kFirstOwnDescriptor = 10;

void Say(const char* what, const char* more = "") {
  const char prefix[] = "heaptape: not recording: ";
  SystemCall(SYS_write, 2, reinterpret_cast<long>(prefix), sizeof(prefix) - 1);
  SystemCall(SYS_write, 2, reinterpret_cast<long>(what), static_cast<long>(strlen(what)));
  SystemCall(SYS_write, 2, reinterpret_cast<long>(more), static_cast<long>(strlen(more)));
  SystemCall(SYS_write, 2, reinterpret_cast<long>("\n"), 1);
}

// Where the C library keeps a thread's id: the one place that holds it, first where glibc has had it since 2.34.
std::uint32_t FindThreadId() {
  const auto id = static_cast<std::int32_t>(SystemCall(SYS_gettid));
  const auto* const start = static_cast<const char*>(__builtin_thread_pointer());
  const auto holds = [start, id](std::uint32_t offset) {
    std::int32_t value;
    memcpy(&value, start + offset, sizeof(value));
    return value == id;
  };
  if (holds(0x2d0)) return 0x2d0;
  std::uint32_t found = 0;
  for (std::uint32_t offset = 0x200; offset < 0x400; offset += 4) {
    if (!holds(offset)) continue;
    if (found != 0) return 0;
    found = offset;
  }
  return found;
}

int OpenOwn(const char* path, int flags) {
  const long file = SystemCall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path), O_RDONLY | O_CLOEXEC | flags);
  if (file < 0) return -1;
  const long high = SystemCall(SYS_fcntl, file, F_DUPFD_CLOEXEC, kFirstOwnDescriptor);
  SystemCall(SYS_close, file);
  return high < 0 ? -1 : static_cast<int>(high);
}

ProcessFiles OpenProcessFiles() {
  ProcessFiles files;
  files.statm = OpenOwn("/proc/self/statm", 0);
  files.status = OpenOwn("/proc/self/status", 0);
  files.smaps = OpenOwn("/proc/self/smaps", 0);
  files.pagemap = OpenOwn("/proc/self/pagemap", 0);
  files.maps = OpenOwn("/proc/self/maps", 0);
  files.task = OpenOwn("/proc/self/task", O_DIRECTORY);
  return files;
}

void CloseProcessFiles(const ProcessFiles& files) {
  for (const int file : {files.statm, files.status, files.smaps, files.pagemap, files.maps, files.task}) {
    if (file >= 0) SystemCall(SYS_close, file);
  }
}

// In the forked process. Does not return.
void RunWriter(const WriterStart& start, const char* own_path) {
  char path[kPathMax];
  const auto folder = static_cast<std::size_t>(BaseName(own_path) - own_path);
  const char name[] = "heaptape-writer.so";
  if (folder + sizeof(name) <= sizeof(path)) {
    memcpy(path, own_path, folder);
    memcpy(path + folder, name, sizeof(name));
    // A namespace of its own: the writer's C++ library, zstd and heap are not the program's, whatever the program
    // exports and whichever allocator it runs on.
    void* writer = dlmopen(LM_ID_NEWLM, path, RTLD_NOW);
    if (!writer) Say(dlerror());
    if (void* function = writer ? dlsym(writer, "HeaptapeWriterMain") : nullptr) {
      reinterpret_cast<WriterMain>(function)(&start);
    }
  }
  start.first->writer_state.store(WriterState::kRefused, memory_order_release);
  SystemCall(SYS_exit_group, 1);
}

// The program never has a child it did not make. Usually there are two forks: the first is made without an exit signal
// and waited for here, the second goes to the system's reaper. Where the program itself is the reaper (PID 1 of a
// namespace, or a child subreaper) one fork without an exit signal stays its child, which no wait() sees that does not
// ask for __WALL or __WCLONE.
bool StartWriter(const WriterStart& start, const char* own_path) {
  Region* region = start.first;
  int subreaper = 0;
  SystemCall(SYS_prctl, PR_GET_CHILD_SUBREAPER, reinterpret_cast<long>(&subreaper));
  const bool reaps = start.target_pid == 1 || subreaper != 0;
  char* const id = static_cast<char*>(__builtin_thread_pointer()) + settings.tid_offset;
  const bool known = settings.tid_offset != 0;
  const long child = SystemCall(SYS_clone, known ? CLONE_CHILD_SETTID : 0, 0, 0, known ? reinterpret_cast<long>(id) : 0);
  if (child < 0) {
    Say("no process for the writer (", child == -EAGAIN ? "too many processes: see ulimit -u)." : "fork failed).");
    return false;
  }
  if (child == 0) {
    is_off.store(true);
    if (reaps) RunWriter(start, own_path);
    const pid_t writer = _Fork();
    if (writer == 0) RunWriter(start, own_path);
    if (writer < 0) {
      Say("no process for the writer (", errno == EAGAIN ? "too many processes: see ulimit -u)." : "fork failed).");
      region->writer_state.store(WriterState::kRefused, memory_order_release);
    }
    SystemCall(SYS_exit_group, 0);
  }
  const auto reap = [child](long options) {
    long result;
    do {
      result = SystemCall(SYS_wait4, child, 0, __WALL | options, 0);
    } while (result == -EINTR);
    return result;
  };
  if (!reaps) reap(0);
  // The writer opens the output and the program's files in /proc before the program may give up the right to.
  const std::uint64_t begin = Now();
  while (region->writer_state.load(memory_order_acquire) == WriterState::kStarting) {
    const bool gone = reaps && reap(WNOHANG) == child;
    if (gone || WriterDied(region) || Now() - begin > kStartPatienceNs) return false;
    Sleep(200'000);
  }
  return region->writer_state.load(memory_order_acquire) == WriterState::kRunning;
}

const char* AllocatorPath() {
  Dl_info allocator;
  const bool known = dladdr(reinterpret_cast<void*>(real.malloc), &allocator) && allocator.dli_fname;
  return known && strlen(allocator.dli_fname) < kPathMax ? allocator.dli_fname : "";
}

void StartStacks(const Dl_info& own, std::uint64_t bytes) {
  const bool ready = bytes == 0 || PrepareStacks(own);
  if (!ready) Say("call stacks, because there is no libgcc_s.so.1 of GCC 12 or later. The rest is recorded.");
  SetStackStep(ready ? bytes : 0);
}

bool Start(Region* region, const Dl_info& own, char** environment, const char* output, bool is_family) {
  WriterStart start = {};
  start.first = region;
  start.target_pid = static_cast<std::int32_t>(SystemCall(SYS_getpid));
  ParseOptions(FindVariable(environment, "HEAPTAPE_OPTIONS="), &start.options);
  start.output = output;
  start.is_family = is_family;
  start.allocator_path = AllocatorPath();
  // A program that brings its own malloc never asks this one.
  start.own_malloc = dlsym(RTLD_DEFAULT, "malloc") != OwnMalloc();
  start.report = FindReport(FindVariable(environment, "HEAPTAPE_REPORT="));
  settings.max_wait_ns = start.options.max_wait_ns;
  settings.max_total_wait_ns = start.options.max_total_wait_ns;
  settings.children = start.options.children != 0;
  settings.ends_with_its_namespace = start.target_pid == 1;
  settings.tid_offset = FindThreadId();
  record_large.store(start.options.big_blocks != 0, memory_order_relaxed);
  StartStacks(own, start.options.stack_bytes);
  PrepareForChildren((settings.children ? kRegionsMax : kRegionsForDaemons) - 1);
  start.spares = settings.spares;
  start.region_count = settings.region_count;
  if (start.options.suspended) region->generation.store(0, memory_order_release);
  NoteFilterAtStart();
  start.files = OpenProcessFiles();
  const bool started = StartWriter(start, own.dli_fname);
  CloseProcessFiles(start.files);
  if (start.report >= 0) SystemCall(SYS_close, start.report);
  return started;
}

// Nothing is recorded. Memory that another thread may be writing to stays.
void GiveUp(Region* region) {
  if (region) region->generation.store(0, memory_order_release);
  TurnOff();
  const std::uint32_t spares = settings.region_count > 1 ? settings.region_count - 1 : 0;
  settings.region_count = 0;
  if (!region || !__libc_single_threaded) return;
  if (spares) SystemCall(SYS_munmap, reinterpret_cast<long>(settings.spares), static_cast<long>(sizeof(Region) * spares));
  SystemCall(SYS_munmap, reinterpret_cast<long>(region), sizeof(Region));
}

__attribute__((constructor)) void Construct(int argc, char** argv, char** environment) {
  const int saved_errno = errno;
  Resolve();
  ProbeOperators();
  Region* region = process.region.load(memory_order_acquire);
  if (!region && !is_off.load(memory_order_relaxed)) region = EnterProcess();
  Dl_info own;
  const bool known = dladdr(reinterpret_cast<void*>(&Construct), &own) != 0;
  const char* family = FindVariable(environment, "HEAPTAPE_FAMILY=");
  const char* output = family ? family : FindVariable(environment, "HEAPTAPE_OUTPUT=");
  const bool wanted = known && output && strlen(output) < kPathMax && IsMeant(environment, argc, argv);
  if (wanted && !region) Say("no shared memory for the recording.");
  const bool started = wanted && region && Start(region, own, environment, output, family != nullptr);
  if (started) InstallHandlers();
  if (known && settings.children) KeepForChildren(environment);
  else if (known) CleanEnvironment(environment, own.dli_fname);
  if (!started) GiveUp(region);
  errno = saved_errno;
}

}  // namespace
}  // namespace heaptape
