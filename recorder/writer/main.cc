// heaptape-writer.so: the process that reads what the preload publishes and writes the trace.
//
// It is a fork of the recorded program without an exec, in a session of its own, with everything of the program's let
// go: descriptors, signals, name, limits, rights. Its parent is its file broker (file_broker.h).

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "recorder/control.h"
#include "recorder/process_info.h"
#include "recorder/raw_event.h"
#include "recorder/writer/confinement.h"
#include "recorder/writer/file_broker.h"
#include "recorder/writer/writer.h"

namespace heaptape {
namespace {

constexpr std::size_t kPathMax = 4096;
constexpr std::uint32_t kCopiesMax = 99;

// Shows in lists of processes as what it is, not as a second copy of the program.
void TakeName(const char* name) {
  prctl(PR_SET_NAME, name);
  int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  char text[2048];
  const ssize_t length = read(file, text, sizeof(text) - 1);
  close(file);
  if (length <= 0) return;
  text[length] = '\0';
  // Fields 48 and 49, counted from 1; the name in parentheses is the second.
  const char* at = std::strrchr(text, ')');
  std::uint64_t fields[2] = {};
  for (int field = 2; at && field < 49; ++field) {
    at = std::strchr(at, ' ');
    if (!at) return;
    ++at;
    if (field + 1 >= 48) fields[field + 1 - 48] = std::strtoull(at, nullptr, 10);
  }
  if (fields[0] == 0 || fields[1] <= fields[0] || fields[1] - fields[0] > 1 << 20) return;
  char* arguments = reinterpret_cast<char*>(fields[0]);
  const std::size_t room = fields[1] - fields[0];
  std::memset(arguments, 0, room);
  std::memcpy(arguments, name, std::min(room - 1, std::strlen(name)));
}

void CloseAllBut(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned from = 3;
  for (const int descriptor : kept) {
    if (descriptor < 3) continue;
    const auto number = static_cast<unsigned>(descriptor);
    if (number > from) syscall(SYS_close_range, from, number - 1, 0u);
    from = number + 1;
  }
  syscall(SYS_close_range, from, ~0u, 0u);
}

// What is opened from here on shall not take the place of a standard stream that the program has closed.
void OccupyStandardStreams() {
  int file;
  do {
    file = open("/dev/null", O_RDWR);
    if (file < 0) file = open("/", O_RDONLY | O_DIRECTORY);
  } while (file >= 0 && file <= 2);
  if (file > 2) close(file);
}

void DetachFromProgram(const WriterStart& start) {
  setsid();
  OccupyStandardStreams();
  // What a terminal, systemd or an administrator sends to the program's whole group is meant for the program. Its end is
  // what ends this process.
  for (int signal = 1; signal < NSIG; ++signal) {
    if (signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE || signal == SIGABRT) {
      ::signal(signal, SIG_DFL);
    } else {
      ::signal(signal, SIG_IGN);
    }
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  prctl(PR_SET_TIMERSLACK, 10'000, 0, 0, 0);
  for (const auto resource : {RLIMIT_AS, RLIMIT_DATA, RLIMIT_NOFILE, RLIMIT_FSIZE, RLIMIT_CPU, RLIMIT_STACK}) {
    rlimit limit;
    if (getrlimit(resource, &limit) == 0 && limit.rlim_cur != limit.rlim_max) {
      limit.rlim_cur = limit.rlim_max;
      setrlimit(resource, &limit);
    }
  }
  const ProcessFiles& files = start.files;
  CloseAllBut({start.report, files.statm, files.status, files.smaps, files.pagemap, files.maps, files.task});
}

void CloseStandardStreams() {
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int descriptor = 0; descriptor < 3; ++descriptor) {
    if (null >= 0) {
      dup2(null, descriptor);
    } else {
      close(descriptor);
    }
  }
  if (null > 2) close(null);
}

// A service's restarts must not write over one another: %t is the time of the start, %p the process id.
std::string ExpandName(std::string path, pid_t target) {
  char time_text[32];
  const time_t now = time(nullptr);
  tm parts;
  std::strftime(time_text, sizeof(time_text), "%Y%m%dT%H%M%SZ", gmtime_r(&now, &parts));
  for (std::size_t at = 0; (at = path.find('%', at)) != std::string::npos;) {
    const char letter = at + 1 < path.size() ? path[at + 1] : '\0';
    const std::string value = letter == 't' ? time_text : letter == 'p' ? absl::StrCat(target) : letter == '%' ? "%" : "";
    if (value.empty()) {
      ++at;
      continue;
    }
    path.replace(at, 2, value);
    at += value.size();
  }
  return path;
}

// Everything is checked before the program goes on.
class Starter {
 public:
  explicit Starter(const WriterStart& start) : start_(start) {}

  // In the writer's process. Ends it where the recording cannot begin.
  void Run() {
    const std::string path = ExpandName(start_.output, start_.target_pid);
    if (path.size() >= kPathMax) Refuse("the output's name is too long.");
    if (start_.own_malloc) {
      Refuse(absl::StrCat(ProgramName(), " brings its own malloc, which its calls reach before any preloaded one. "
                          "Build it without, or with the allocator as a shared library."));
    }
    OfferToOutOfMemoryKiller();
    Target target = {start_.target_pid, static_cast<int>(syscall(SYS_pidfd_open, start_.target_pid, 0)), start_.files};
    if (target.pidfd < 0) Refuse(absl::StrCat("pidfd_open: ", std::strerror(errno), "."));
    // The parent of the two is the broker from here on.
    absl::StatusOr<std::unique_ptr<RecordingFiles>> files =
        StartFileBroker(path, start_.options.replace != 0, [this](const std::vector<int>& needed) { ConfineBrokerTo(needed); });
    if (!files.ok()) Refuse(std::string(files.status().message()));
    CheckDisk(**files);
    std::unique_ptr<Recording> recording = Begin(*std::move(files));
    const Session session = {start_.options, Lineage(start_.first, start_.spares, start_.region_count), recording->name(),
                             getsid(start_.target_pid), StartTicks(), MakeFollowers()};
    Writer writer(session, 0, target, std::move(recording), start_.report);
    CloseStandardStreams();
    (void)!chdir("/");
    TakeName(kWriterName);
    ConfineWriter();
    start_.first->writer_state.store(WriterState::kRunning, std::memory_order_release);
    writer.Run();
  }

 private:
  void ConfineBrokerTo(const std::vector<int>& needed) const {
    CloseAllBut(needed);
    CloseStandardStreams();
    TakeName(kBrokerName);
    munmap(start_.first, sizeof(Region));
    if (start_.spares) munmap(start_.spares, sizeof(Region) * (start_.region_count - 1));
    (void)!chdir("/");
    ConfineBroker();
  }

  [[noreturn]] void Refuse(const std::string& why) const {
    const std::string line = absl::StrCat("heaptape: not recording: ", why, "\n");
    (void)!write(2, line.data(), line.size());
    start_.first->generation.store(0, std::memory_order_release);
    start_.first->writer_state.store(WriterState::kRefused, std::memory_order_release);
    _exit(1);
  }

  void CheckDisk(const RecordingFiles& files) const {
    if (const std::uint64_t free = files.DiskFree(); free < start_.options.min_free_bytes) {
      Refuse(absl::StrFormat("the disk of %s has %d MiB free, less than the %d MiB to be left (--min-free).", files.path(),
                             free >> 20, start_.options.min_free_bytes >> 20));
    }
  }

  std::unique_ptr<Recording> Begin(std::unique_ptr<RecordingFiles> files) const {
    RecordingOptions options;
    options.compression_level = static_cast<int>(start_.options.compression_level);
    options.segment_bytes = start_.options.segment_bytes;
    options.segment_ns = start_.options.segment_seconds * 1'000'000'000;
    options.total_bytes = start_.options.total_bytes;
    options.info = DescribeProcess(start_.allocator_path, start_.options);
    if (start_.is_family) options.name.process = start_.target_pid;
    const std::shared_ptr<RecordingFiles> shared = std::move(files);
    absl::StatusOr<std::unique_ptr<Recording>> recording;
    do {
      recording = Recording::Create(options, shared);
      options.name.copy = std::max(options.name.copy + 1, 2u);
    } while (start_.is_family && absl::IsAlreadyExists(recording.status()) && options.name.copy <= kCopiesMax);
    if (!recording.ok()) Refuse(std::string(recording.status().message()));
    return *std::move(recording);
  }

  const WriterStart& start_;
};

}  // namespace
}  // namespace heaptape

extern "C" __attribute__((visibility("default"))) void HeaptapeWriterMain(const heaptape::WriterStart* start) {
  heaptape::DetachFromProgram(*start);
  heaptape::Starter(*start).Run();
  _exit(0);
}
