// Where files are written: under a name that is free, whole or not at all.
//
//   if (absl::Status free = CheckOutput(path, force); !free.ok()) return free;   // before any work
//   ... work ...
//   return WriteOutput(path, text, force);   // or OutputFile, or PutInPlace() where others write the file
//
// A file is replaced only where the user asks for it (--force), and only a regular file. A device, a FIFO, a socket, a
// folder and a symbolic link are never replaced: root could otherwise lose /dev/null to a trace.

#ifndef HEAPTAPE_TRACES_OUTPUT_FILE_H_
#define HEAPTAPE_TRACES_OUTPUT_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heaptape {

// Ok where `path` can be written: nothing is there, or a regular file and `replace`. AlreadyExists names --force;
// FailedPrecondition says what else is there, or why its folder takes no file.
absl::Status CheckOutput(const std::string& path, bool replace);

// Renames the finished file `part` to `path`. Never over anything that CheckOutput() refuses, also where it appeared
// after the check: then `part` stays and the error names it.
absl::Status PutInPlace(const std::string& part, const std::string& path, bool replace);

// /dev/stdout, /dev/stderr, /dev/fd/N and /proc/self/fd/N, where N is open: OutputFile writes to what the shell connected,
// and nothing is replaced.
bool IsOpenDescriptor(const std::string& path);

// A file that is being written under a name of its own and comes by its real one with Finish(). Without it no file is left.
class OutputFile {
 public:
  static absl::StatusOr<OutputFile> Create(const std::string& path, bool replace);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  // False after an error, which Finish() returns.
  bool Write(std::string_view text);
  absl::Status Finish();

 private:
  OutputFile(std::string path, std::string part, int descriptor, bool replace);

  std::string path_, part_;  // no part_: the descriptor was open already
  int descriptor_ = -1;      // -1: finished, or moved from
  bool replace_ = false;
  int error_ = 0;
};

// The same for a text that is there as a whole.
absl::Status WriteOutput(const std::string& path, std::string_view text, bool replace);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_OUTPUT_FILE_H_
