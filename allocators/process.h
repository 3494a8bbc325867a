// Runs another program (apt, git, a build command) to its end.

#ifndef HEAPTAPE_ALLOCATORS_PROCESS_H_
#define HEAPTAPE_ALLOCATORS_PROCESS_H_

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace heaptape {

struct ProcessOptions {
  std::string directory;  // to run in; empty: the caller's
  std::vector<std::pair<std::string, std::string>> environment;  // set over the caller's
  std::vector<std::string> without;  // variables of the caller's environment that it shall not see
  std::string log_path;   // stdout and stderr go to this file, begun anew; empty: both are captured
  const std::atomic<bool>* cancelled = nullptr;  // set: the program and all it started are killed
};

struct ProcessResult {
  int exit_status = 0;  // 128 + signal where a signal ended it, as a shell says it
  std::string output;   // stdout, where captured
  std::string errors;   // stderr, where captured
};

// Starts `arguments` (the first is looked up in PATH) without a shell, in a process group of its own, with
// nothing on stdin, and waits. Any exit status is a result; an error status means that it could not be
// started (NotFound) or was cancelled (Cancelled).
absl::StatusOr<ProcessResult> RunProcess(const std::vector<std::string>& arguments,
                                         const ProcessOptions& options = {});

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_PROCESS_H_
