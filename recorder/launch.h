// Starts a program with the recorder preloaded and waits for it and for its trace.

#ifndef HEAPTAPE_RECORDER_LAUNCH_H_
#define HEAPTAPE_RECORDER_LAUNCH_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "recorder/raw_event.h"

namespace heaptape {

struct LaunchOptions {
  std::string preload_path;  // of libheaptape.so
  std::string output;        // made absolute here
  RecorderOptions recorder;
};

struct LaunchResult {
  int exit_status = 0;  // the program's own; 128 + number where a signal ended it
  bool recorded = false;  // the writer has reported
  std::string output;   // absolute
  // What the writer reports at its end ("events", "waits", ...). Empty where nothing was recorded.
  std::map<std::string, std::uint64_t> figures;
  std::string ended_early;  // why, where the recording ended before the program
  std::string error;        // of the writer
  // Where nothing was reported: files that were written all the same. Empty where there is none.
  std::string unfinished, finished;
};

// The file that `name` means in $PATH. NotFound, PermissionDenied.
absl::StatusOr<std::string> FindProgram(const std::string& name);

// Can a preloaded library work in it? FailedPrecondition with the reason and the remedy: statically linked,
// setuid, not of this machine, brings its own malloc, built with AddressSanitizer.
absl::Status CheckProgram(const std::string& path);

// The options as the preload reads them from the environment: "name=value;...".
std::string FormatOptions(const RecorderOptions& options);

// Runs `arguments` to its end, with this process's own streams. Signals that a terminal sends to both are left to
// the program, others are passed on. An error: it was not started. AlreadyExists where the recording would replace a file
// and RecorderOptions::replace is not set.
absl::StatusOr<LaunchResult> RunRecorded(const std::vector<std::string>& arguments, const LaunchOptions& options);

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_LAUNCH_H_
