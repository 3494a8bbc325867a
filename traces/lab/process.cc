#include "traces/lab/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"

namespace heaptape::lab {
namespace {

using Clock = std::chrono::steady_clock;

// `input_descriptor` becomes stdin; -1: /dev/null.
absl::StatusOr<pid_t> Start(const ChildOptions& options, int input_descriptor) {
  const std::string program = FindProgram(options.command.front());
  if (program.empty()) {
    return absl::NotFoundError(absl::StrCat(options.command.front(), ": program not found; install its package (tor)"));
  }
  // Everything is laid out before the fork: the caller may have threads, whose locks the child would inherit.
  std::vector<std::string> environment;
  const auto overridden = [&](const std::string& entry) {
    const std::string name = entry.substr(0, entry.find('='));
    return name == kLabVariable || std::any_of(options.environment.begin(), options.environment.end(),
                                               [&](const auto& pair) { return pair.first == name; });
  };
  for (char** entry = environ; *entry; ++entry) {
    if (!overridden(*entry)) environment.push_back(*entry);
  }
  for (const auto& [name, value] : options.environment) environment.push_back(absl::StrCat(name, "=", value));
  environment.push_back(absl::StrCat(kLabVariable, "=", options.lab_directory));

  std::vector<char*> arguments, variables;
  for (const std::string& argument : options.command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  for (const std::string& variable : environment) variables.push_back(const_cast<char*>(variable.c_str()));
  variables.push_back(nullptr);
  const char* log = options.log_path.empty() ? "/dev/null" : options.log_path.c_str();

  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) return absl::InternalError(absl::StrCat(program, ": cannot start: ", strerror(errno)));
  if (child > 0) return child;

  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  if (options.own_group) setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD}) signal(number, SIG_DFL);
  const int input = input_descriptor >= 0 ? input_descriptor : open("/dev/null", O_RDONLY);
  const int output = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(input, 0);
  dup2(output, 1);
  dup2(output, 2);
  execve(program.c_str(), arguments.data(), variables.data());
  _exit(127);
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

std::string FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) return access(name.c_str(), X_OK) == 0 ? name : "";
  const char* path = std::getenv("PATH");
  // Debian keeps tor in /usr/bin and /usr/sbin; the latter is not in every user's PATH.
  std::istringstream folders(absl::StrCat(path ? path : "", ":/usr/bin:/usr/sbin"));
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (folder.empty()) continue;
    const std::string candidate = absl::StrCat(folder, "/", name);
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

absl::StatusOr<pid_t> StartChild(const ChildOptions& options) { return Start(options, -1); }

absl::Status RunToEnd(const ChildOptions& options, const std::string& input) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::InternalError(absl::StrCat("pipe: ", strerror(errno)));
  const absl::StatusOr<pid_t> child = Start(options, ends[0]);
  close(ends[0]);
  if (child.ok() && !input.empty() && write(ends[1], input.data(), input.size()) < 0) { /* its exit status tells */
  }
  close(ends[1]);
  if (!child.ok()) return child.status();
  int status = 0;
  while (waitpid(*child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(options.command.front(), " failed; see ", options.log_path));
}

void StopChildren(const std::vector<pid_t>& children, int patience_ms) {
  std::vector<pid_t> remaining = children;
  for (pid_t child : remaining) kill(child, SIGTERM);
  const auto deadline = Clock::now() + std::chrono::milliseconds(patience_ms);
  const auto reap = [&](int flags) {
    remaining.erase(std::remove_if(remaining.begin(), remaining.end(),
                                   [&](pid_t child) {
                                     const pid_t reaped = waitpid(child, nullptr, flags);
                                     return reaped == child || (reaped < 0 && errno == ECHILD);
                                   }),
                    remaining.end());
  };
  while (true) {
    reap(WNOHANG);
    if (remaining.empty()) return;
    if (Clock::now() >= deadline) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (pid_t child : remaining) kill(child, SIGKILL);
  reap(0);
}

std::vector<pid_t> FindProcesses(const std::string& lab_directory) {
  std::vector<pid_t> found;
  const std::string wanted = absl::StrCat(kLabVariable, "=", lab_directory);
  DIR* proc = opendir("/proc");
  if (!proc) return found;
  while (const dirent* entry = readdir(proc)) {
    const pid_t pid = static_cast<pid_t>(std::atol(entry->d_name));
    if (pid <= 0 || pid == getpid()) continue;
    std::istringstream variables(ReadAll(absl::StrCat("/proc/", pid, "/environ")));
    for (std::string variable; std::getline(variables, variable, '\0');) {
      if (variable == wanted) {
        if (ProcessStartTime(pid) != 0) found.push_back(pid);
        break;
      }
    }
  }
  closedir(proc);
  return found;
}

bool KillRemaining(const std::string& lab_directory, int patience_ms) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(patience_ms);
  while (true) {
    const std::vector<pid_t> remaining = FindProcesses(lab_directory);
    if (remaining.empty()) return true;
    if (Clock::now() >= deadline) return false;
    for (pid_t pid : remaining) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, WNOHANG);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

std::uint64_t ProcessStartTime(pid_t pid) {
  const std::string stat = ReadAll(absl::StrCat("/proc/", pid, "/stat"));
  // The program's name, in brackets, may hold anything: count fields behind the last bracket.
  const std::size_t bracket = stat.rfind(')');
  if (bracket == std::string::npos) return 0;
  std::istringstream fields(stat.substr(bracket + 1));
  std::string state, field;
  fields >> state;
  if (state == "Z" || state == "X") return 0;
  for (int skipped = 0; skipped < 18; ++skipped) fields >> field;
  std::uint64_t start = 0;
  fields >> start;
  return start;
}

}  // namespace heaptape::lab
