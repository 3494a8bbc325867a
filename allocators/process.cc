#include "allocators/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
// glibc 2.36's forgets to say that it is C.
extern "C" {
#include <sys/pidfd.h>
}

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "absl/strings/str_cat.h"

extern char** environ;

namespace heaptape {
namespace {

// Also how soon a cancelled program is killed.
constexpr int kPollMilliseconds = 50;

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  Descriptor(Descriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~Descriptor() { Close(); }
  void Close() {
    if (descriptor_ >= 0) close(descriptor_);
    descriptor_ = -1;
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_ = -1;
};

struct Pipe {
  Descriptor read_end, write_end;
};

absl::StatusOr<Pipe> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

std::vector<std::string> Environment(const ProcessOptions& options) {
  std::vector<std::string> replaced = options.without;
  for (const auto& [name, value] : options.environment) replaced.push_back(name);
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    if (std::find(replaced.begin(), replaced.end(), name) == replaced.end()) entries.push_back(text);
  }
  for (const auto& [name, value] : options.environment) entries.push_back(absl::StrCat(name, "=", value));
  return entries;
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Reads what is there; false at the end of the stream.
bool Drain(int descriptor, std::string* text) {
  char buffer[64 << 10];
  const ssize_t count = read(descriptor, buffer, sizeof buffer);
  if (count > 0) text->append(buffer, count);
  return count > 0 || (count < 0 && (errno == EINTR || errno == EAGAIN));
}

bool Cancelled(const ProcessOptions& options) { return options.cancelled != nullptr && *options.cancelled; }

absl::StatusOr<pid_t> Spawn(std::vector<std::string> arguments, const ProcessOptions& options,
                            int output, int errors) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
  if (!options.directory.empty()) posix_spawn_file_actions_addchdir_np(&actions, options.directory.c_str());
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // A group of its own: a build is killed with its compilers, and Ctrl-C reaches it only through us.
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  std::vector<std::string> environment = Environment(options);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, arguments[0].c_str(), &actions, &attributes, Pointers(arguments).data(),
                                 Pointers(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT && !options.directory.empty() && access(options.directory.c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat(options.directory, ": cannot be entered: ", strerror(errno)));
  }
  if (error == ENOENT) {
    return absl::NotFoundError(absl::StrCat(arguments[0], ": program not found; install it or add it to PATH"));
  }
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("cannot start ", arguments[0]));
  return pid;
}

}  // namespace

absl::StatusOr<ProcessResult> RunProcess(const std::vector<std::string>& arguments, const ProcessOptions& options) {
  if (Cancelled(options)) return absl::CancelledError("interrupted");
  Pipe output, errors;
  Descriptor log;
  if (options.log_path.empty()) {
    for (Pipe* pipe : {&output, &errors}) {
      absl::StatusOr<Pipe> made = MakePipe();
      if (!made.ok()) return made.status();
      *pipe = *std::move(made);
    }
  } else {
    log = Descriptor(open(options.log_path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644));
    if (log.get() < 0) return absl::ErrnoToStatus(errno, options.log_path);
  }
  const bool captured = options.log_path.empty();
  absl::StatusOr<pid_t> pid = Spawn(arguments, options, captured ? output.write_end.get() : log.get(),
                                    captured ? errors.write_end.get() : log.get());
  if (!pid.ok()) return pid.status();
  output.write_end.Close();
  errors.write_end.Close();

  // Becomes readable when the program ends; without it (an old kernel) its end is seen at the next poll.
  const Descriptor end(pidfd_open(*pid, 0));
  ProcessResult result;
  bool killed = false;
  int status = 0;
  // Waits for the program, not for the pipes' end: a daemon it leaves behind may hold them open.
  while (true) {
    pollfd streams[] = {{output.read_end.get(), POLLIN, 0}, {errors.read_end.get(), POLLIN, 0}, {end.get(), POLLIN, 0}};
    const int ready = poll(streams, 3, kPollMilliseconds);
    if (ready > 0) {
      if (streams[0].revents != 0 && !Drain(streams[0].fd, &result.output)) output.read_end.Close();
      if (streams[1].revents != 0 && !Drain(streams[1].fd, &result.errors)) errors.read_end.Close();
    }
    if (!killed && Cancelled(options)) {
      kill(-*pid, SIGKILL);
      killed = true;
    }
    const pid_t ended = waitpid(*pid, &status, WNOHANG);
    if (ended == *pid) break;
    if (ended < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "waitpid");
  }
  for (auto [stream, text] : {std::pair{&output.read_end, &result.output}, {&errors.read_end, &result.errors}}) {
    if (stream->get() < 0) continue;
    fcntl(stream->get(), F_SETFL, O_NONBLOCK);
    char buffer[4096];
    for (ssize_t count; (count = read(stream->get(), buffer, sizeof buffer)) > 0;) text->append(buffer, count);
  }
  if (killed) return absl::CancelledError("interrupted");
  result.exit_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return result;
}

}  // namespace heaptape
