#include "replayer/worker_process.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

constexpr std::size_t kOutputKeptBytes = 4096;
constexpr long kWatchIntervalNs = 100'000'000;
constexpr rlim_t kDescriptorLimit = 256;
constexpr rlim_t kStackLimitBytes = 8 << 20;  // the kernel places mappings by it, so it must always be the same

void FutexWait(std::atomic<std::uint32_t>& word, std::uint32_t seen) {
  const timespec timeout = {0, kWatchIntervalNs};
  syscall(SYS_futex, &word, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

std::uint64_t RoundUp(std::uint64_t bytes) { return (bytes + worker::kPageBytes - 1) & ~(worker::kPageBytes - 1); }

// Between fork and exec: only what is allowed after fork in a program with threads.
[[noreturn]] void BecomeWorker(pid_t host, int memory, int output, const char* const* arguments, const char* const* environment,
                               const char* path, const WorkerCommand& command) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != host) _exit(127);
  if (!command.vary_addresses) personality(ADDR_NO_RANDOMIZE);
  prctl(PR_SET_THP_DISABLE, command.huge_pages_allowed ? 0 : 1, 0, 0, 0);
  const rlimit nothing_allowed = {0, 0};
  setrlimit(RLIMIT_CORE, &nothing_allowed);
  setrlimit(RLIMIT_FSIZE, &nothing_allowed);
  const rlimit few_descriptors = {kDescriptorLimit, kDescriptorLimit};
  setrlimit(RLIMIT_NOFILE, &few_descriptors);
  rlimit stack;
  if (getrlimit(RLIMIT_STACK, &stack) == 0) {
    stack.rlim_cur = std::min(kStackLimitBytes, stack.rlim_max);
    setrlimit(RLIMIT_STACK, &stack);
  }
  // If memory runs out, this is the process to go.
  if (const int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); score >= 0) {
    if (write(score, "1000", 4) < 0) {
      // Then the kernel chooses by size, which mostly is this process too.
    }
    close(score);
  }
  const int nothing = open("/dev/null", O_RDONLY);
  // Out of the way of the numbers to be given.
  const int kept_memory = fcntl(memory, F_DUPFD, 10), kept_output = fcntl(output, F_DUPFD, 10);
  dup2(nothing, 0);
  dup2(kept_output, 1);
  dup2(kept_output, 2);
  dup2(kept_memory, worker::kSharedMemoryDescriptor);
  syscall(SYS_close_range, worker::kSharedMemoryDescriptor + 1, ~0u, 0);
  execve(path, const_cast<char* const*>(arguments), const_cast<char* const*>(environment));
  _exit(127);
}

std::vector<const char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<const char*> pointers;
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerProcess>> WorkerProcess::Start(const worker::Settings& settings,
                                                                    const WorkerCommand& command) {
  if (access(command.worker_path.c_str(), X_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot run the replay worker ", command.worker_path, ": ", std::strerror(errno),
                     "; it belongs beside the program, reinstall heaptape"));
  }
  std::unique_ptr<WorkerProcess> process(new WorkerProcess);
  const std::uint64_t samples_offset = RoundUp(sizeof(worker::SharedHeader));
  const std::uint64_t ring_offset = RoundUp(samples_offset + settings.sample_capacity * sizeof(worker::WorkerSample));
  const std::uint64_t blocks_offset = RoundUp(ring_offset + settings.ring_entries * sizeof(Event));
  const std::uint64_t file_bytes = blocks_offset + (settings.heap_maps ? settings.slot_count * sizeof(worker::LiveBlock) : 0);
  const int memory = memfd_create("heaptape-replay", MFD_CLOEXEC);
  if (memory < 0 || ftruncate(memory, static_cast<off_t>(file_bytes)) != 0) {
    if (memory >= 0) close(memory);
    return absl::ResourceExhaustedError(absl::StrCat("cannot make shared memory for the replay: ", std::strerror(errno)));
  }
  void* mapped = mmap(nullptr, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  int pipe_ends[2];
  if (mapped == MAP_FAILED || pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    const int error = errno;
    close(memory);
    return absl::ResourceExhaustedError(absl::StrCat("cannot prepare the replay worker: ", std::strerror(error)));
  }
  // Only the reading end must not block.
  fcntl(pipe_ends[1], F_SETFL, 0);
  process->shared_ = static_cast<worker::SharedHeader*>(mapped);
  process->shared_->magic = worker::SharedHeader::kMagic;
  process->shared_->file_bytes = file_bytes;
  process->shared_->ring_offset = ring_offset;
  process->shared_->samples_offset = samples_offset;
  process->shared_->blocks_offset = blocks_offset;
  process->shared_->settings = settings;
  process->ring_ = reinterpret_cast<Event*>(static_cast<char*>(mapped) + ring_offset);
  process->samples_ = reinterpret_cast<worker::WorkerSample*>(static_cast<char*>(mapped) + samples_offset);
  process->ring_entries_ = settings.ring_entries;
  process->output_descriptor_ = pipe_ends[0];

  std::vector<std::string> arguments;
  if (!command.loader_path.empty()) {
    arguments.push_back(command.loader_path);
    if (!command.loader_library_path.empty()) {
      arguments.insert(arguments.end(), {"--library-path", command.loader_library_path});
    }
  }
  arguments.push_back(command.worker_path);
  const std::vector<const char*> argument_pointers = Pointers(arguments);
  const std::vector<const char*> environment_pointers = Pointers(command.environment);
  const pid_t host = getpid();
  process->pid_ = fork();
  if (process->pid_ == 0) {
    BecomeWorker(host, memory, pipe_ends[1], argument_pointers.data(), environment_pointers.data(), arguments[0].c_str(),
                 command);
  }
  const int error = errno;
  close(memory);
  close(pipe_ends[1]);
  if (process->pid_ < 0) {
    process->ended_ = true;
    return absl::ResourceExhaustedError(absl::StrCat("cannot start the replay worker: ", std::strerror(error)));
  }
  return process;
}

WorkerProcess::~WorkerProcess() {
  Kill();
  if (output_descriptor_ >= 0) close(output_descriptor_);
  if (shared_ != nullptr) munmap(shared_, shared_->file_bytes);
}

bool WorkerProcess::Push(std::span<const Event> entries) {
  while (!entries.empty()) {
    if (head_ - known_tail_ == ring_entries_ && !AwaitRoom()) return false;
    const std::uint64_t at = head_ & (ring_entries_ - 1);
    const std::uint64_t room = std::min({ring_entries_ - (head_ - known_tail_), ring_entries_ - at, kPublishEntries});
    const std::size_t count = std::min<std::size_t>(room, entries.size());
    std::copy_n(entries.begin(), count, ring_ + at);
    entries = entries.subspan(count);
    head_ += count;
    if (head_ - published_ < kPublishEntries) continue;
    published_ = head_;
    shared_->head.store(head_);
    // A worker that is faster than this side shall not be woken for every few entries: waking costs both more.
    if (shared_->worker_waits.load(std::memory_order_relaxed) != 0 && head_ - shared_->tail.load() >= kWakeEntries) Publish();
  }
  return true;
}

void WorkerProcess::Publish() {
  published_ = head_;
  shared_->head.store(head_);
  if (shared_->worker_waits.exchange(0) != 0) {
    shared_->head_signal.fetch_add(1);
    syscall(SYS_futex, &shared_->head_signal, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }
}

bool WorkerProcess::AwaitRoom() {
  known_tail_ = shared_->tail.load();
  if (head_ - known_tail_ < ring_entries_) return !ended_;
  Publish();
  for (;;) {
    const std::uint32_t seen = shared_->tail_signal.load();
    shared_->host_waits.store(1);
    known_tail_ = shared_->tail.load();
    // A little more room than one entry, so that the two sides do not take turns at every step.
    if (head_ - known_tail_ <= ring_entries_ - ring_entries_ / 8) {
      shared_->host_waits.store(0);
      return !ended_;
    }
    FutexWait(shared_->tail_signal, seen);
    if (!Look(true)) return false;
  }
}

void WorkerProcess::AwaitEnd() {
  Publish();
  while (!ended_) {
    const std::uint32_t seen = shared_->tail_signal.load();
    const worker::Phase phase = shared_->phase.load();
    if (phase == worker::Phase::kDone || phase == worker::Phase::kFailedToStart || phase == worker::Phase::kStopped) {
      // It only has to leave.
      int status = 0;
      while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
      }
      ended_ = true;
      DrainOutput();
      return;
    }
    FutexWait(shared_->tail_signal, seen);
    Look(true);
  }
}

bool WorkerProcess::AwaitMap(std::uint32_t maps) {
  Publish();
  while (shared_->maps_done.load() < maps) {
    const std::uint32_t seen = shared_->tail_signal.load();
    shared_->host_waits.store(1);
    if (shared_->maps_done.load() >= maps) break;
    FutexWait(shared_->tail_signal, seen);
    if (!Look(true)) return false;
  }
  return true;
}

std::span<const worker::LiveBlock> WorkerProcess::map_blocks() const {
  const auto* blocks = reinterpret_cast<const worker::LiveBlock*>(reinterpret_cast<const char*>(shared_) + shared_->blocks_offset);
  return {blocks, std::min(shared_->findings.map_blocks, shared_->settings.slot_count)};
}

bool WorkerProcess::Look(bool may_reap) {
  if (ended_) return false;
  DrainOutput();
  int status = 0;
  if (may_reap && waitpid(pid_, &status, WNOHANG) == pid_) {
    ended_ = true;
    end_signal_ = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    exit_status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    DrainOutput();
    return false;
  }
  if (watch_ && watch_()) {
    Kill();
    return false;
  }
  return true;
}

void WorkerProcess::DrainOutput() {
  char text[4096];
  ssize_t got;
  while ((got = read(output_descriptor_, text, sizeof(text))) > 0) {
    output_.append(text, static_cast<std::size_t>(got));
    if (output_.size() > 2 * kOutputKeptBytes) output_.erase(0, output_.size() - kOutputKeptBytes);
  }
  if (output_.size() > kOutputKeptBytes) output_.erase(0, output_.size() - kOutputKeptBytes);
}

void WorkerProcess::Kill() {
  if (ended_ || pid_ <= 0) return;
  kill(pid_, SIGKILL);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  ended_ = true;
  end_signal_ = SIGKILL;
  DrainOutput();
}

std::uint64_t WorkerProcess::ResidentBytes() const {
  std::ifstream statm(absl::StrCat("/proc/", pid_, "/statm"));
  std::uint64_t size = 0, resident = 0, shared = 0;
  statm >> size >> resident >> shared;
  return statm && resident > shared ? (resident - shared) * worker::kPageBytes : 0;
}

}  // namespace heaptape
