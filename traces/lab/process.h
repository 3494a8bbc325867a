// Child processes that cannot outlive what started them.
//
// Every process of a lab dies with its parent (the kernel sends it SIGKILL) and carries the lab's folder
// in its environment, so that `heaptape lab down` finds even what a crash left behind.

#ifndef HEAPTAPE_TRACES_LAB_PROCESS_H_
#define HEAPTAPE_TRACES_LAB_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heaptape::lab {

// Variable that names the lab's folder in the environment of all its processes.
inline constexpr char kLabVariable[] = "HEAPTAPE_LAB";

struct ChildOptions {
  std::vector<std::string> command;  // command[0] is looked up in PATH
  std::vector<std::pair<std::string, std::string>> environment;  // added to our own
  std::string lab_directory;         // absolute
  std::string log_path;              // stdout and stderr are appended here; empty: /dev/null
  bool own_group = false;            // its own process group: the terminal's Ctrl-C does not reach it
};

// Where a program lies: its first place in PATH or Debian's usual folders. Empty where there is none.
std::string FindProgram(const std::string& name);

// The child gets SIGKILL when the calling thread ends, so call it from a thread that lives as long as the
// child shall. NotFound where the program does not exist.
absl::StatusOr<pid_t> StartChild(const ChildOptions& options);

// Runs a program to its end with `input` on its stdin. An error unless it exits with 0.
absl::Status RunToEnd(const ChildOptions& options, const std::string& input);

// SIGTERM to each, SIGKILL to those still there after `patience_ms`; reaps them. Only for own children.
void StopChildren(const std::vector<pid_t>& children, int patience_ms);

// Processes of this machine that carry `lab_directory` in their environment, but for the caller.
std::vector<pid_t> FindProcesses(const std::string& lab_directory);

// Kills what FindProcesses() finds until nothing is left or `patience_ms` is over. True: nothing is left.
bool KillRemaining(const std::string& lab_directory, int patience_ms);

// Tells a process from a later one of the same number. 0 where there is none (a zombie counts as none).
std::uint64_t ProcessStartTime(pid_t pid);

}  // namespace heaptape::lab

#endif  // HEAPTAPE_TRACES_LAB_PROCESS_H_
