// The files of one recording: what they are called, and who makes them.
//
// Every file of a recording is NAME.part while it is written. All names lie in one folder and are made from the name
// that was asked for, a process id and a segment's number, so a writer that a hostile program has taken over can ask
// for no other file.

#ifndef HEAPTAPE_RECORDER_WRITER_RECORDING_FILES_H_
#define HEAPTAPE_RECORDER_WRITER_RECORDING_FILES_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heaptape {

struct FileName {
  std::int32_t process = 0;   // guard.tape -> guard.4711.tape
  std::uint32_t copy = 0;     // guard.4711.tape -> guard.4711.2.tape, where a process makes several
  std::uint64_t segment = 0;  // guard.tape -> guard.0001.tape

  friend bool operator<(const FileName& a, const FileName& b) {
    return std::tie(a.process, a.copy, a.segment) < std::tie(b.process, b.copy, b.segment);
  }
  friend bool operator==(const FileName&, const FileName&) = default;
};

// `path` is the name that was asked for.
std::string NameOf(const std::string& path, const FileName& name);

class RecordingFiles {
 public:
  virtual ~RecordingFiles() = default;

  // Creates NAME.part and returns a descriptor that the caller closes. Errors name the path: a file is there already, or
  // it cannot be made.
  virtual absl::StatusOr<int> Open(const FileName& name) = 0;
  // The content of NAME.part reaches the disk, then it is renamed to the name of `last`.
  virtual absl::Status Finish(const FileName& name, const FileName& last) = 0;
  // NAME.part goes.
  virtual void Discard(const FileName& name) = 0;
  // NAME goes; only one that was finished here.
  virtual void Remove(const FileName& name) = 0;
  // Bytes free on its disk; the largest number where unknown.
  virtual std::uint64_t DiskFree() const = 0;
  // For a fork of this process, which must not use this one's.
  virtual absl::StatusOr<std::unique_ptr<RecordingFiles>> ForChild() = 0;

  const std::string& path() const { return path_; }
  std::string Path(const FileName& name) const { return NameOf(path_, name); }

 protected:
  explicit RecordingFiles(std::string path) : path_(std::move(path)) {}

 private:
  std::string path_;
};

// Makes them itself, with this process's rights. The folder is opened at once: what its path means later is no matter.
class LocalFiles final : public RecordingFiles {
 public:
  // `replace`: an earlier regular file of a name may be replaced. NotFound: there is no such folder.
  static absl::StatusOr<std::unique_ptr<LocalFiles>> Create(const std::string& path, bool replace);
  ~LocalFiles() override;

  absl::StatusOr<int> Open(const FileName& name) override;
  absl::Status Finish(const FileName& name, const FileName& last) override;
  void Discard(const FileName& name) override;
  void Remove(const FileName& name) override;
  std::uint64_t DiskFree() const override;
  absl::StatusOr<std::unique_ptr<RecordingFiles>> ForChild() override;

  int folder() const { return folder_; }

 private:
  LocalFiles(const std::string& path, int folder, bool replace)
      : RecordingFiles(path), folder_(folder), replace_(replace) {}

  std::string Base(const FileName& name) const;
  absl::Status MayBeMade(const FileName& name) const;

  int folder_;
  bool replace_;
  std::map<FileName, int> open_;       // being written, with a descriptor of each
  std::map<FileName, bool> finished_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_WRITER_RECORDING_FILES_H_
