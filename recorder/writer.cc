// heaptape-writer.so: the process that reads what the preload publishes and writes the trace.
//
// It is a fork of the recorded program without an exec, in a session of its own, with everything of the
// program's let go: descriptors, signals, name, limits. It polls: the recorded program never has to make a
// system call to be heard. It ends when the program has ended, has executed another, or when it has to give
// up; each time what it has read until then is brought to the file in good order.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bitset>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "recorder/control.h"
#include "recorder/modules.h"
#include "recorder/process_info.h"
#include "recorder/process_memory.h"
#include "recorder/raw_event.h"
#include "recorder/recording.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kSecond = 1'000'000'000;
// After this long without the event whose number is next, while later ones are there, it will not come: its
// thread was killed or jumped out of the few instructions between taking the number and publishing.
constexpr std::uint64_t kGapPatience = 2 * kSecond;
// A program becomes a daemon in its first minute or never.
constexpr std::uint64_t kDaemonWindow = 60 * kSecond;
constexpr std::uint32_t kProvisionalForksMax = 32;
constexpr std::uint64_t kFlushInterval = 5 * kSecond;
// A program that is killed gives no notice: its big blocks were last looked at so long ago at most.
constexpr std::uint64_t kLookInterval = 5 * kSecond;

std::uint64_t Now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * kSecond + static_cast<std::uint64_t>(now.tv_nsec);
}

// Of this process, with what it shares with the program.
std::uint64_t PeakRss() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

void SleepFor(std::uint64_t ns) {
  const timespec duration = {static_cast<time_t>(ns / kSecond), static_cast<long>(ns % kSecond)};
  nanosleep(&duration, nullptr);
}

constexpr std::uint32_t kSlotsAhead = 32;

// The pool of one region, read from the writer's side.
class Pool {
 public:
  Pool(Region* region, ProcessMemory* memory, Modules* modules, Recording* recording)
      : region_(region), memory_(memory), modules_(modules), recording_(recording) {}

  // Reads what has been published, of chunks that are still being filled only when `open` is set. Returns the number of
  // events.
  std::uint64_t Poll(bool open) {
    std::uint64_t events = 0;
    ServeLooks();
    const std::uint32_t used = region_->unused.load(std::memory_order_acquire);
    for (std::uint32_t chunk = 0; chunk < used; ++chunk) {
      ChunkHeader& header = region_->headers[chunk];
      const ChunkState state = header.state.load(std::memory_order_acquire);
      if (state == ChunkState::kFree || (state == ChunkState::kOwned && !open)) continue;
      if (state == ChunkState::kShared) {
        events += ReadShared(chunk, header);
      } else {
        turns_.push_back({recording_->order().Ahead(FirstNumber(chunk)), chunk, state});
      }
    }
    // By number: then hardly an event has to be kept until its turn.
    std::sort(turns_.begin(), turns_.end(), [](const Turn& a, const Turn& b) { return a.ahead < b.ahead; });
    for (const Turn& turn : turns_) {
      ServeLooks();
      events += ReadOwned(turn.chunk, region_->headers[turn.chunk], turn.state);
    }
    turns_.clear();
    return events;
  }

  // Called between all longer steps: threads wait for it.
  void ServeLooks() {
    const std::uint64_t asked = region_->looks_asked.load(std::memory_order_acquire);
    if (asked == looks_asked_) return;
    looks_asked_ = asked;
    for (Look& look : region_->looks) {
      std::uint64_t state = look.state.load(std::memory_order_acquire);
      const bool in_passing = PhaseOf(state) == LookPhase::kAskedInPassing;
      if (!in_passing && PhaseOf(state) != LookPhase::kAsked) continue;
      const std::uint64_t ticket = state >> kLookPhaseBits;
      const std::uint64_t address = look.address.load(std::memory_order_relaxed);
      const std::uint64_t bytes = look.bytes.load(std::memory_order_relaxed);
      if (memory_->can_see_pages()) looks_[ticket] = memory_->PresentPages(address, bytes);
      // Given up by its thread meanwhile: the block may be gone by now.
      const LookPhase then = in_passing ? LookPhase::kFree : LookPhase::kDone;
      if (!look.state.compare_exchange_strong(state, LookState(ticket, then))) looks_.erase(ticket);
    }
  }

  // How many looks were asked for so far.
  std::uint64_t looks_asked() const { return looks_asked_; }

  // About once a second: a thread that was killed, or jumped out of its wait, does not come for its look.
  void ForgetLooks() {
    for (Look& look : region_->looks) {
      std::uint64_t state = look.state.load(std::memory_order_relaxed);
      if (PhaseOf(state) != LookPhase::kDone) continue;
      const std::uint64_t ticket = state >> kLookPhaseBits;
      if (ticket > old_tickets_) continue;
      if (look.state.compare_exchange_strong(state, LookState(ticket, LookPhase::kFree))) looks_.erase(ticket);
    }
    old_tickets_ = region_->look_tickets.load(std::memory_order_relaxed);
  }

  // Chunks whose threads were killed without a word come back. Returns their threads' serials.
  std::vector<std::uint32_t> Reclaim(pid_t pid) {
    std::vector<std::uint32_t> gone;
    const std::uint32_t used = region_->unused.load(std::memory_order_acquire);
    for (std::uint32_t chunk = 0; chunk < used; ++chunk) {
      ChunkHeader& header = region_->headers[chunk];
      if (header.state.load(std::memory_order_acquire) != ChunkState::kOwned || header.tid == 0) continue;
      const std::string task = absl::StrCat("/proc/", pid, "/task/", header.tid);
      if (access(task.c_str(), F_OK) == 0 || errno != ENOENT) continue;
      gone.push_back(header.thread);
      region_->owned_count.fetch_sub(1);
      header.state.store(ChunkState::kClosed, std::memory_order_release);
    }
    return gone;
  }

 private:
  // Of the first event that was not read; where there is none, of whatever the chunk held before.
  std::uint32_t FirstNumber(std::uint32_t chunk) const {
    const RawEvent* const slots = region_->events[chunk];
    std::uint32_t at = read_[chunk];
    while (at < kOwnedEvents && (slots[at].op() == RawOp::kStack || slots[at].op() == RawOp::kPrefix)) ++at;
    return slots[at].number();
  }

  std::uint64_t ReadOwned(std::uint32_t chunk, ChunkHeader& header, ChunkState state) {
    const RawEvent* const slots = region_->events[chunk];
    std::uint32_t& read = read_[chunk];
    const std::uint32_t before = read;
    bool taken = true;
    // What another processor wrote takes as long to come as several events take to be read.
    const auto fetch = [slots, closed = state == ChunkState::kClosed](std::uint32_t slot) {
      if (closed && slot < kChunkEvents) __builtin_prefetch(&slots[slot]);
    };
    for (std::uint32_t slot = read; slot < read + kSlotsAhead; slot += 4) fetch(slot);
    const std::uint32_t first_end = std::min(read + kPrefetchAhead, kOwnedEvents);
    for (std::uint32_t slot = read; slot < first_end && __atomic_load_n(&slots[slot].first, __ATOMIC_ACQUIRE) != 0; ++slot) {
      recording_->Prefetch(slots[slot].address());
    }
    while (read < kOwnedEvents && __atomic_load_n(&slots[read].first, __ATOMIC_ACQUIRE) != 0) {
      fetch(read + kSlotsAhead);
      // What belongs to one event was published with its first slot.
      OrderedEvent event;
      event.thread = header.thread;
      std::uint32_t at = read;
      addresses_.clear();
      for (; at < kOwnedEvents && slots[at].op() == RawOp::kStack; ++at) {
        addresses_.push_back(slots[at].address());
        if (slots[at].second) addresses_.push_back(slots[at].second);
      }
      std::uint64_t look = 0;
      if (at < kOwnedEvents && slots[at].op() == RawOp::kPrefix) {
        event.align_log2 = slots[at].size() & 0xff;
        look = slots[at++].address();
      }
      event.event = slots[at];
      recording_->Prefetch(slots[std::min(at + kPrefetchAhead, kOwnedEvents)].address());
      if (!(taken = recording_->HasRoomFor(event.event.number()))) break;
      if (!addresses_.empty()) recording_->Stack(event.event.number(), modules_->Resolve(addresses_, Now()));
      TakeLook(look, event);
      recording_->Take(event);
      read = at + 1;
    }
    const std::uint64_t events = read - before;
    if (state == ChunkState::kClosed && taken) Release(chunk, header);
    return events;
  }

  std::uint64_t ReadShared(std::uint32_t chunk, ChunkHeader& header) {
    std::bitset<kChunkEvents / 2>& taken = taken_[chunk];
    std::uint64_t events = 0;
    for (std::uint32_t pair = 0; pair < kChunkEvents / 2; ++pair) {
      if (taken[pair]) continue;
      const RawEvent* slots = &region_->events[chunk][pair * 2];
      OrderedEvent event;
      event.event.first = __atomic_load_n(&slots[1].first, __ATOMIC_ACQUIRE);
      if (event.event.first == 0) continue;
      event.event.second = slots[1].second;
      event.thread = static_cast<std::uint32_t>(slots[0].size() >> 8);
      event.align_log2 = slots[0].size() & 0xff;
      if (event.thread == 0 || !recording_->HasRoomFor(event.event.number())) break;
      TakeLook(slots[0].address(), event);
      recording_->Take(event);
      taken.set(pair);
      ++events;
    }
    // A hole left by a thread that was killed keeps its chunk: who knows whether it is only slow.
    if (taken.all()) {
      taken.reset();
      Release(chunk, header);
    }
    return events;
  }

  void TakeLook(std::uint64_t ticket, const OrderedEvent& event) {
    if (ticket == 0) return;
    auto found = looks_.find(ticket);
    if (found == looks_.end()) {
      ServeLooks();  // asked for in passing, just now
      found = looks_.find(ticket);
      if (found == looks_.end()) return;
    }
    recording_->Touched(event.event.number(), std::move(found->second));
    looks_.erase(found);
  }

  void Release(std::uint32_t chunk, ChunkHeader& header) {
    read_[chunk] = 0;
    header.state.store(ChunkState::kFree, std::memory_order_release);
    std::uint64_t head = region_->free_list.load(std::memory_order_relaxed);
    std::uint64_t changed;
    do {
      header.next_free.store(static_cast<std::uint32_t>(head), std::memory_order_relaxed);
      changed = ((head >> 32) + 1) << 32 | chunk;
    } while (!region_->free_list.compare_exchange_weak(head, changed, std::memory_order_acq_rel));
    region_->free_count.fetch_add(1, std::memory_order_relaxed);
  }

  Region* region_;
  ProcessMemory* memory_;
  Modules* modules_;
  Recording* recording_;
  // A chunk to be read.
  struct Turn {
    std::int64_t ahead;  // of its first event
    std::uint32_t chunk;
    ChunkState state;
  };

  std::uint64_t looks_asked_ = 0;  // that ServeLooks() knows of
  std::uint64_t old_tickets_ = 0;  // those up to here were given out before the last ForgetLooks()
  absl::flat_hash_map<std::uint64_t, std::vector<PageRange>> looks_;  // by ticket, until its event comes
  std::vector<Turn> turns_;
  std::vector<std::uint64_t> addresses_;  // of the stack that is being read
  std::uint32_t read_[kChunkCount] = {};
  std::bitset<kChunkEvents / 2> taken_[kChunkCount];
};

// Shows in lists of processes as what it is, not as a second copy of the program.
void TakeName() {
  prctl(PR_SET_NAME, kWriterName);
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
  std::memcpy(arguments, kWriterName, std::min(room - 1, sizeof(kWriterName)));
}

void LetGo(std::uint64_t report_fd) {
  setsid();
  // What a terminal, systemd or an administrator sends to the program's whole group is meant for the program.
  // Its end is what ends this process.
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
  const unsigned keep = report_fd < 1u << 20 ? static_cast<unsigned>(report_fd) : 0;
  if (keep > 2) {
    syscall(SYS_close_range, 3u, keep - 1, 0u);
    syscall(SYS_close_range, keep + 1, ~0u, 0u);
  } else {
    syscall(SYS_close_range, 3u, ~0u, 0u);
  }
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

[[noreturn]] void Refuse(Region* region, const std::string& why) {
  const std::string line = absl::StrCat("heaptape: not recording: ", why, "\n");
  (void)!write(2, line.data(), line.size());
  region->generation.store(0, std::memory_order_release);
  region->writer_state.store(WriterState::kRefused, std::memory_order_release);
  _exit(1);
}

bool HoldLock(Region* region) {
  static_assert(sizeof(pthread_mutex_t) <= sizeof(region->writer_lock));
  pthread_mutexattr_t attributes;
  auto* lock = reinterpret_cast<pthread_mutex_t*>(region->writer_lock);
  return pthread_mutexattr_init(&attributes) == 0 && pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0 &&
         pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0 &&
         pthread_mutex_init(lock, &attributes) == 0 && pthread_mutex_lock(lock) == 0;
}

const char* EndReasonText(EndReason reason) {
  switch (reason) {
    case EndReason::kNone: return "";
    case EndReason::kWaitedTooLong: return "the program had waited for the writer as long as it may (--max-wait)";
    case EndReason::kWaitedTooMuch: return "the program's waits for the writer had reached their bound (--max-total-wait)";
    case EndReason::kWriterDied: return "the writer process was killed";
    case EndReason::kAddressTooLong: return "the allocator returned an address above 47 bits";
    case EndReason::kWriterStopped: return "the writer had to stop";
  }
  return "";
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

class Writer {
 public:
  Writer(Region* regions, pid_t target) : regions_(regions), region_(regions), target_(target), session_(getsid(target)) {}

  // In the first process: everything is checked before the program goes on.
  void Start() {
    if (mprotect(regions_, sizeof(Region) * kRegionCount, PROT_READ | PROT_WRITE) != 0) Refuse(region_, "no memory.");
    memory_ = std::make_unique<ProcessMemory>(target_);
    modules_ = std::make_unique<Modules>(target_);
    pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, target_, 0));
    if (pidfd_ < 0) Refuse(region_, absl::StrCat("pidfd_open: ", std::strerror(errno), "."));
    const RecorderOptions& options = region_->options;
    if (region_->own_malloc.load()) {
      Refuse(region_, absl::StrCat(ProgramName(target_), " brings its own malloc, which its calls reach before any preloaded one. "
                                   "Build it without, or with the allocator as a shared library."));
    }
    RecordingOptions recording_options;
    recording_options.path = ExpandName(region_->output, target_);
    if (recording_options.path.size() >= sizeof(region_->output)) Refuse(region_, "the output's name is too long.");
    std::memcpy(region_->output, recording_options.path.c_str(), recording_options.path.size() + 1);
    recording_options.compression_level = static_cast<int>(options.compression_level);
    recording_options.segment_bytes = options.segment_bytes;
    recording_options.segment_ns = options.segment_seconds * kSecond;
    recording_options.total_bytes = options.total_bytes;
    recording_options.info = DescribeProcess(target_, region_->allocator_path, options);
    const std::size_t slash = recording_options.path.rfind('/');
    folder_ = slash == std::string::npos ? "." : slash == 0 ? "/" : recording_options.path.substr(0, slash);
    if (const std::uint64_t free = DiskFree(); free < options.min_free_bytes) {
      Refuse(region_, absl::StrFormat("%s has %d MiB free, less than the %d MiB to be left (--min-free).", folder_,
                                      free >> 20, options.min_free_bytes >> 20));
    }
    absl::StatusOr<std::unique_ptr<Recording>> recording = Recording::Create(recording_options);
    if (!recording.ok()) Refuse(region_, std::string(recording.status().message()));
    recording_ = *std::move(recording);
    if (!HoldLock(region_)) Refuse(region_, "no robust lock.");
    control_ = MakeControlBlock();
    Attach();
    start_ns_ = Now();
    region_->writer_pid.store(getpid());
    region_->writer_state.store(WriterState::kRunning, std::memory_order_release);
    CloseStandardStreams();
    (void)!chdir("/");
  }

  void Run() {
    std::uint64_t idle_polls = 0;
    std::uint64_t next_check = 0;
    std::uint64_t last_mark = 0;
    std::uint64_t last_open = 0;
    std::uint64_t looks = 0;
    std::uint64_t last_look_ns = 0;
    const std::uint64_t mark_interval = std::clamp<std::uint64_t>(region_->options.time_resolution_ns, kMillisecond, kSecond);
    for (;;) {
      const std::uint32_t number = region_->number.load(std::memory_order_acquire);
      const std::uint64_t now = Now() - start_ns_;
      if (now - last_mark >= mark_interval) {
        recording_->Mark(number, Clock());
        last_mark = now;
      }
      const bool last_look = region_->last_look_asked.load(std::memory_order_acquire) > region_->last_look_done.load();
      const bool open = last_look || now - last_open >= kMillisecond / 2;
      if (open) last_open = now;
      const std::uint64_t events = pool_->Poll(open);
      recording_->Drain();
      if (last_look) {
        LookAtLiveBlocks();
        SampleMemory(now);
        region_->last_look_done.store(1, std::memory_order_release);
      }
      MindGap(now);
      if (!recording_->status().ok()) return Stop(std::string(recording_->status().message()));
      if (region_->end_reason.load() != EndReason::kNone) {
        return Stop(EndReasonText(region_->end_reason.load()));
      }
      if (now >= next_check) {
        next_check = now + 10 * kMillisecond;
        if (!TargetLives()) return TargetEnded();
        if (!StillWanted(now)) {
          region_->generation.store(0, std::memory_order_release);
          return recording_->Discard();
        }
        if (!Housekeep(now)) return;
      }
      // A full pool makes the program wait, so the next look comes at once while there is much to read; not at chunks
      // that are being filled, whose memory would go to and fro between the processors.
      idle_polls = events ? 0 : idle_polls + 1;
      if (pool_->looks_asked() != looks) {
        looks = pool_->looks_asked();
        last_look_ns = now;
      }
      if (events >= 4 * kChunkEvents) continue;
      if (last_look_ns != 0 && now - last_look_ns < 3 * kMillisecond) {
        AwaitLooks();
      } else {
        SleepFor(idle_polls < 20 ? kMillisecond : 4 * kMillisecond);
      }
    }
  }

 private:
  // Who has asked for a look soon asks for another, and waits for it: for a millisecond little else is done than serving them.
  void AwaitLooks() {
    for (int naps = 0; naps < 16; ++naps) {
      SleepFor(50'000);
      pool_->ServeLooks();
    }
  }

  // The recording's time: since its start, and without what the program was held up for the writer. Allocators give
  // memory back by time, and the program that is not recorded does not wait. Never goes back.
  std::uint64_t Clock() {
    const std::uint64_t passed = Now() - start_ns_;
    const std::uint64_t held = region_->held_ns.load(std::memory_order_relaxed);
    if (passed > held) clock_ns_ = std::max(clock_ns_, passed - held);
    return clock_ns_;
  }

  void Attach() {
    pool_ = std::make_unique<Pool>(region_, memory_.get(), modules_.get(), recording_.get());
    recording_->set_modules(&modules_->seen());
    if (region_->record_big.load()) recording_->set_big_filter(region_->big_filter);
    recording_->set_fork_hook([this](std::uint32_t child) { FollowFork(child); });
    AllowForks(0);
    if (!control_) return;
    control_->target_pid.store(target_);
    control_->writer_pid.store(getpid());
    std::snprintf(control_->output, sizeof(control_->output), "%s", recording_->path().c_str());
  }

  ForkSlot& Slot(std::uint32_t index) const { return regions_->forks[index]; }
  ForkSlot& OwnSlot() const { return Slot(Index()); }
  std::uint32_t Index() const { return static_cast<std::uint32_t>(region_ - regions_); }

  // May the program's next fork have a region? Asked for: always. Otherwise only while it may be becoming a
  // daemon, because following a fork costs this process one of its own.
  void AllowForks(std::uint64_t now) {
    const bool allowed = region_->options.children || (now < kDaemonWindow && provisional_forks_ < kProvisionalForksMax);
    region_->fork_allowed.store(allowed ? 1 : 0, std::memory_order_release);
  }

  // The program forked, and its child has a region. A fork of this process goes on with the child: with all
  // tables as they are at this very event.
  void FollowFork(std::uint32_t index) {
    if (index >= kRegionCount) return;
    ++provisional_forks_;
    const pid_t pid = fork();
    if (pid != 0) {
      if (pid < 0) GiveBack(index);
      return;
    }
    region_ = &regions_[index];
    close(pidfd_);
    if (const std::uint64_t report_fd = regions_->options.report_fd; report_fd < 1u << 20) {
      close(static_cast<int>(report_fd));
      has_report_ = false;
    }
    for (int i = 0; i < 1000 && (target_ = OwnSlot().child_pid.load(std::memory_order_acquire)) == 0; ++i) {
      SleepFor(kMillisecond);
    }
    pidfd_ = target_ ? static_cast<int>(syscall(SYS_pidfd_open, target_, 0)) : -1;
    // It may have ended before this was running: its events are there all the same.
    if (target_ == 0 || OwnSlot().role.load() == ProcessRole::kDropped || !HoldLock(region_)) {
      region_->generation.store(0);
      GiveBack(Index());
      _exit(0);
    }
    memory_ = std::make_unique<ProcessMemory>(target_);
    modules_ = std::make_unique<Modules>(target_);
    const std::string asked = region_->output;
    const std::size_t slash = asked.rfind('/');
    const std::size_t dot = asked.rfind('.');
    const std::size_t cut = dot != std::string::npos && (slash == std::string::npos || dot > slash + 1) ? dot : asked.size();
    // guard.tape -> guard.4711.tape
    const absl::Status opened = recording_->ContinueAs(absl::StrCat(asked.substr(0, cut), ".", target_, asked.substr(cut)));
    control_ = MakeControlBlock();
    generation_ = 1;
    provisional_forks_ = 0;
    start_ns_ = Now();
    clock_ns_ = last_flush_ = next_second_ = next_mappings_ = next_look_ = next_reclaim_ = published_ns_ = published_events_ = gap_number_ = 0;
    Attach();
    region_->writer_pid.store(getpid());
    region_->writer_state.store(WriterState::kRunning, std::memory_order_release);
    if (!opened.ok()) {
      Stop(std::string(opened.message()));
    } else {
      Run();
    }
    _exit(0);
  }

  // The next process to claim it finds zeros.
  void GiveBack(std::uint32_t index) {
    madvise(&regions_[index], sizeof(Region), MADV_REMOVE);
    ForkSlot& slot = Slot(index);
    slot.child_pid.store(0);
    slot.parent.store(0);
    slot.role.store(ProcessRole::kMain);
    slot.claimed.store(0);
  }

  // A provisional process that leads a session of its own is a daemon in the making.
  bool InOwnSession(pid_t pid) const {
    const pid_t session = pid > 0 ? getsid(pid) : -1;
    if (session <= 0 || session == session_) return false;
    const int process = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    pollfd ended = {process, POLLIN, 0};
    const bool alive = process >= 0 && poll(&ended, 1, 0) == 0;
    if (process >= 0) close(process);
    return alive;
  }

  // Was it forked by this writer's process, or by one forked by it that is provisional as well?
  bool IsDescendant(std::uint32_t index) const {
    for (std::uint32_t generations = 0; generations < kRegionCount; ++generations) {
      const std::uint32_t parent = Slot(index).parent.load();
      if (index == 0 || Slot(index).claimed.load() == 0 || parent >= kRegionCount) return false;
      if (parent == Index()) return true;
      index = parent;
    }
    return false;
  }

  // The program has ended. Where a descendant of it goes on as a daemon, that one's trace is the one asked for.
  // A child that has just been forked may need a moment to leave the session.
  bool LeaveToDaemon() {
    bool any = true;
    for (int tries = 0; any && tries < 200; ++tries) {
      any = false;
      for (std::uint32_t i = 1; i < kRegionCount; ++i) {
        ForkSlot& child = Slot(i);
        if (i == Index() || !IsDescendant(i)) continue;
        const bool starting = child.child_pid.load() == 0;
        if (!starting && child.role.load() != ProcessRole::kProvisional) continue;
        any = true;
        if (starting || !InOwnSession(child.child_pid.load())) continue;
        child.parent.store(OwnSlot().parent.load());
        ProcessRole provisional = ProcessRole::kProvisional;
        const ProcessRole role = OwnSlot().role.load();
        if (role == ProcessRole::kProvisional || child.role.compare_exchange_strong(provisional, role)) {
          daemon_ = child.child_pid.load();
          return true;
        }
      }
      if (any) SleepFor(5 * kMillisecond);
    }
    return false;
  }

  // Of a provisional process: false where its recording is not wanted any more.
  bool StillWanted(std::uint64_t now) {
    if (OwnSlot().role.load() != ProcessRole::kProvisional || now < kDaemonWindow) return OwnSlot().role.load() != ProcessRole::kDropped;
    ProcessRole provisional = ProcessRole::kProvisional;
    return !OwnSlot().role.compare_exchange_strong(provisional, ProcessRole::kDropped);
  }

  void DropChildren() {
    for (std::uint32_t i = 1; i < kRegionCount; ++i) {
      if (i == Index() || !IsDescendant(i)) continue;
      ProcessRole provisional = ProcessRole::kProvisional;
      Slot(i).role.compare_exchange_strong(provisional, ProcessRole::kDropped);
    }
  }

  bool TargetLives() {
    pollfd ended = {pidfd_, POLLIN, 0};
    if (pidfd_ < 0 || poll(&ended, 1, 0) > 0) return false;
    const ProcessMemory::State state = memory_->CheckState();
    executed_ = state == ProcessMemory::State::kExecuted;
    return state == ProcessMemory::State::kThere;
  }

  void MindGap(std::uint64_t now) {
    const EventOrder& order = recording_->order();
    if (order.waiting() == 0 || order.next_number() != gap_number_) {
      gap_number_ = order.next_number();
      gap_since_ = now;
      gap_polls_ = 0;
      return;
    }
    // Counted in polls as well, so that a machine that stood still for a while is not taken for a lost thread.
    if (now - gap_since_ > kGapPatience && ++gap_polls_ > 200) {
      recording_->SkipGap();
      recording_->Drain();
    }
  }

  std::uint64_t DiskFree() const {
    struct statvfs disk;
    if (statvfs(folder_.c_str(), &disk) != 0) return ~std::uint64_t{0};
    return static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize;
  }

  // About every 10 ms. False: the recording has ended.
  bool Housekeep(std::uint64_t now) {
    ObeyCommand();
    AllowForks(now);
    if (now - last_flush_ >= kFlushInterval) {
      last_flush_ = now;
      recording_->FlushAtMark();
    }
    if (now < next_second_) return true;
    next_second_ = now + kSecond;
    pool_->ForgetLooks();
    recording_->RotateIfDue(Clock());
    SampleMemory(now);
    if (now >= next_look_) {
      const std::uint64_t before = Now();
      LookAtLiveBlocks();
      next_look_ = now + std::max(kLookInterval, 100 * (Now() - before));
    }
    disk_free_ = DiskFree();
    if (disk_free_ < region_->options.min_free_bytes) {
      Stop(absl::StrFormat("%s has less than %d MiB free (--min-free)", folder_, region_->options.min_free_bytes >> 20));
      return false;
    }
    if (now >= next_reclaim_) {
      next_reclaim_ = now + 5 * kSecond;
      if (region_->owned_count.load() > kOwnedChunksMax / 4) {
        for (std::uint32_t serial : pool_->Reclaim(target_)) recording_->ThreadGone(serial);
      }
    }
    Publish(now);
    return true;
  }

  void LookAtLiveBlocks() {
    if (!region_->record_big.load(std::memory_order_relaxed) || !memory_->can_see_pages()) return;
    recording_->LookAtLiveBlocks(
        [this](std::uint64_t address, std::uint64_t bytes) { return memory_->PresentPages(address, bytes); });
  }

  void SampleMemory(std::uint64_t now) {
    // Reading the mappings holds a lock of the program's: no more than a hundredth of the time.
    const bool with_mappings = now >= next_mappings_;
    const std::uint64_t before = Now();
    std::optional<ResidentSample> sample = memory_->Sample(recording_->pages(), with_mappings);
    if (with_mappings) next_mappings_ = now + std::max<std::uint64_t>(kSecond, 100 * (Now() - before)) - kMillisecond;
    if (!sample) return;
    sample->time_ns = Clock();
    recording_->Resident(*sample);
  }

  void ObeyCommand() {
    if (!control_) return;
    const Command command = control_->command.exchange(Command::kNone);
    if (command == Command::kNone) return;
    if (command == Command::kStop) region_->generation.store(0, std::memory_order_release);
    if (command == Command::kStart && region_->generation.load() == 0) {
      if (recording_->event_count() > 0) recording_->Resumed();
      region_->generation.store(++generation_, std::memory_order_release);
    }
    if (command == Command::kFlush) {
      LookAtLiveBlocks();
      (void)recording_->Flush();
    }
    Publish(Now() - start_ns_);
    control_->commands_done.fetch_add(1);
  }

  void Publish(std::uint64_t now) {
    if (!control_) return;
    const std::uint64_t events = recording_->event_count();
    if (now > published_ns_ + kSecond / 2) {
      control_->events_per_second.store((events - published_events_) * kSecond / (now - published_ns_));
      published_events_ = events;
      published_ns_ = now;
    }
    control_->recording.store(region_->generation.load() != 0);
    control_->end_reason.store(static_cast<std::uint32_t>(region_->end_reason.load()));
    control_->events.store(events);
    control_->live_objects.store(recording_->live_objects());
    control_->live_bytes.store(recording_->live_bytes());
    control_->bytes_written.store(recording_->bytes_written());
    control_->segments.store(recording_->segments());
    control_->waits.store(region_->waits.load());
    control_->wait_ns.store(region_->wait_ns.load());
    control_->big_waits.store(region_->big_waits.load());
    control_->big_wait_ns.store(region_->big_wait_ns.load());
    control_->lost.store(recording_->counts().lost);
    control_->disk_free_bytes.store(disk_free_);
    control_->running_ns.store(now);
    control_->writer_cpu_ns.store(Now(CLOCK_PROCESS_CPUTIME_ID));
    control_->writer_peak_rss_bytes.store(PeakRss());
  }

  // Nobody publishes any more: whoever is in the midst of an event will not end it.
  void ReadToTheEnd() {
    do {
      while (pool_->Poll(true) > 0) recording_->Drain();
      recording_->Drain();
      recording_->SkipGap();
      recording_->Drain();
    } while (recording_->order().waiting() > 0 && recording_->status().ok());
  }

  void TargetEnded() {
    if (recording_->status().ok()) ReadToTheEnd();  // the last event may be a fork, to be followed
    const bool left = LeaveToDaemon();
    if (!left) DropChildren();
    const ProcessRole role = OwnSlot().role.load();
    if (left || role == ProcessRole::kProvisional || role == ProcessRole::kDropped) {
      if (left) Report(absl::OkStatus());
      recording_->Discard();
    } else {
      Finish();
    }
    if (region_ != regions_) GiveBack(Index());
  }

  // Ends the recording while the program lives: it runs on unrecorded.
  void Stop(const std::string& why) {
    EndReason none = EndReason::kNone;
    region_->end_reason.compare_exchange_strong(none, EndReason::kWriterStopped);
    region_->generation.store(0, std::memory_order_release);
    ended_early_ = why;
    Finish();
  }

  void Finish() {
    if (recording_->status().ok()) {
      ReadToTheEnd();
      recording_->Mark(static_cast<std::uint32_t>(recording_->order().next_number()), Clock());
      recording_->Drain();
    }
    if (OwnSlot().role.load() == ProcessRole::kMain) recording_->set_final_path(region_->output);
    const absl::Status finished = recording_->Finish();
    Report(finished);
  }

  void Report(const absl::Status& finished) {
    const std::uint64_t report_fd = region_->options.report_fd;
    if (report_fd >= 1u << 20 || !has_report_) return;
    const RecordingCounts& counts = recording_->counts();
    std::string text = absl::StrFormat(
        "events=%d\nlost=%d\nunknown_frees=%d\nmissed_frees=%d\nwaits=%d\nwait_ns=%d\nbig_waits=%d\nbig_wait_ns=%d\n"
        "daemon=%d\nbig_skipped=%d\nbytes=%d\nsegments=%d\nlive_objects=%d\nwriter_cpu_ns=%d\n"
        "writer_peak_rss_bytes=%d\nexecuted=%d\n",
        recording_->event_count(), counts.lost, counts.unknown_frees, counts.missed_frees, region_->waits.load(),
        region_->wait_ns.load(), region_->big_waits.load(), region_->big_wait_ns.load(), daemon_, region_->big_skipped.load(),
        recording_->bytes_written(), recording_->segments(), recording_->live_objects(), Now(CLOCK_PROCESS_CPUTIME_ID),
        PeakRss(), executed_ ? 1 : 0);
    if (!ended_early_.empty()) absl::StrAppend(&text, "ended_early=", ended_early_, "\n");
    if (!finished.ok()) absl::StrAppend(&text, "error=", std::string(finished.message()), "\n");
    (void)!write(static_cast<int>(report_fd), text.data(), text.size());
  }

  Region* regions_;
  Region* region_;
  pid_t target_;
  pid_t session_;  // of the program when it was started; a daemon leaves it
  int pidfd_ = -1;
  std::uint32_t provisional_forks_ = 0;
  pid_t daemon_ = 0;  // went on as that process
  std::string folder_;
  std::unique_ptr<ProcessMemory> memory_;
  std::unique_ptr<Modules> modules_;
  std::unique_ptr<Recording> recording_;
  std::unique_ptr<Pool> pool_;
  ControlBlock* control_ = nullptr;
  std::uint32_t generation_ = 1;
  std::uint64_t start_ns_ = 0;
  std::uint64_t clock_ns_ = 0;
  std::uint64_t gap_number_ = 0;
  std::uint64_t gap_since_ = 0;
  std::uint64_t gap_polls_ = 0;
  std::uint64_t last_flush_ = 0;
  std::uint64_t next_second_ = 0;
  std::uint64_t next_mappings_ = 0;
  std::uint64_t next_look_ = 0;
  std::uint64_t next_reclaim_ = 0;
  std::uint64_t published_ns_ = 0;
  std::uint64_t published_events_ = 0;
  std::uint64_t disk_free_ = 0;
  bool executed_ = false;
  bool has_report_ = true;
  std::string ended_early_;
};

}  // namespace
}  // namespace heaptape

extern "C" __attribute__((visibility("default"))) void HeaptapeWriterMain(const heaptape::WriterStart* start) {
  heaptape::LetGo(start->regions->options.report_fd);
  heaptape::Writer writer(start->regions, start->target_pid);
  writer.Start();
  heaptape::TakeName();
  writer.Run();
  _exit(0);
}
