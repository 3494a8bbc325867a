#include "traces/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

absl::Status CannotWrite(const std::string& path, const std::string& why) {
  return absl::FailedPreconditionError(absl::StrCat(path, ": cannot be written (", why, "); choose another place"));
}

const char* KindName(mode_t mode) {
  if (S_ISLNK(mode)) return "a symbolic link";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a folder";
}

// What is under the name now; Ok where a file may be put there.
absl::Status CheckName(const std::string& path, bool replace) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) return errno == ENOENT ? absl::OkStatus() : CannotWrite(path, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": is ", KindName(info.st_mode), ", which is never replaced; choose another name"));
  }
  if (!replace) return absl::AlreadyExistsError(absl::StrCat(path, ": exists already; give --force to replace it"));
  return absl::OkStatus();
}

// 0, or why not. EEXIST where something is there.
int RenameToFreeName(const char* part, const char* path) {
  if (renameat2(AT_FDCWD, part, AT_FDCWD, path, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // A file system without that kind of renaming: a second name is given only where it is free.
  if (link(part, path) == 0) return unlink(part) == 0 ? 0 : errno;
  if (errno != EPERM && errno != ENOSYS && errno != EOPNOTSUPP) return errno;
  // Without links either.
  struct stat info;
  if (lstat(path, &info) == 0) return EEXIST;
  return std::rename(part, path) == 0 ? 0 : errno;
}

// The number of the descriptor that `path` names; -1 where it names none.
int DescriptorNamed(const std::string& path) {
  if (path == "/dev/stdout") return STDOUT_FILENO;
  if (path == "/dev/stderr") return STDERR_FILENO;
  for (const char* const folder : {"/dev/fd/", "/proc/self/fd/"}) {
    const std::size_t length = std::strlen(folder);
    int number = -1;
    if (path.compare(0, length, folder) == 0 && absl::SimpleAtoi(path.substr(length), &number)) return number;
  }
  return -1;
}

}  // namespace

bool IsOpenDescriptor(const std::string& path) {
  const int descriptor = DescriptorNamed(path);
  return descriptor >= 0 && fcntl(descriptor, F_GETFD) >= 0;
}

absl::Status CheckOutput(const std::string& path, bool replace) {
  if (absl::Status free = CheckName(path, replace); !free.ok()) return free;
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (faccessat(AT_FDCWD, folder.c_str(), W_OK, AT_EACCESS) != 0) return CannotWrite(path, std::strerror(errno));
  return absl::OkStatus();
}

absl::Status PutInPlace(const std::string& part, const std::string& path, bool replace) {
  int error = 0;
  if (!replace) {
    error = RenameToFreeName(part.c_str(), path.c_str());
  } else if (!CheckName(path, true).ok()) {
    error = EEXIST;
  } else if (std::rename(part.c_str(), path.c_str()) != 0) {
    error = errno;
  }
  if (error == 0) return absl::OkStatus();
  if (error == EEXIST) {
    return absl::AlreadyExistsError(absl::StrCat(path, ": appeared while it was being written; what belongs there is whole in ", part,
                                                 ": rename that"));
  }
  return absl::UnavailableError(absl::StrCat(part, ": cannot rename to ", path, ": ", std::strerror(error)));
}

OutputFile::OutputFile(std::string path, std::string part, int descriptor, bool replace)
    : path_(std::move(path)), part_(std::move(part)), descriptor_(descriptor), replace_(replace) {}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), part_(std::move(other.part_)), descriptor_(std::exchange(other.descriptor_, -1)),
      replace_(other.replace_), error_(other.error_) {}

OutputFile::~OutputFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  if (!part_.empty()) unlink(part_.c_str());
}

absl::StatusOr<OutputFile> OutputFile::Create(const std::string& path, bool replace) {
  if (IsOpenDescriptor(path)) {
    const int descriptor = fcntl(DescriptorNamed(path), F_DUPFD_CLOEXEC, 0);
    if (descriptor < 0) return CannotWrite(path, std::strerror(errno));
    return OutputFile(path, "", descriptor, replace);
  }
  if (absl::Status free = CheckOutput(path, replace); !free.ok()) return free;
  // Never through a link that waits there: the folder may belong to somebody else.
  std::string part = absl::StrCat(path, ".", getpid(), ".part");
  const int descriptor = open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor < 0) return CannotWrite(path, absl::StrCat(part, ": ", std::strerror(errno)));
  return OutputFile(path, std::move(part), descriptor, replace);
}

bool OutputFile::Write(std::string_view text) {
  while (error_ == 0 && !text.empty()) {
    const ssize_t written = write(descriptor_, text.data(), text.size());
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
    else if (written == 0) error_ = ENOSPC;
    else if (errno != EINTR) error_ = errno;
  }
  return error_ == 0;
}

absl::Status OutputFile::Finish() {
  if (close(std::exchange(descriptor_, -1)) != 0 && error_ == 0) error_ = errno;
  if (error_ != 0) {
    if (!part_.empty()) unlink(part_.c_str());
    return CannotWrite(path_, std::strerror(error_));
  }
  return part_.empty() ? absl::OkStatus() : PutInPlace(part_, path_, replace_);
}

absl::Status WriteOutput(const std::string& path, std::string_view text, bool replace) {
  absl::StatusOr<OutputFile> file = OutputFile::Create(path, replace);
  if (!file.ok()) return file.status();
  file->Write(text);
  return file->Finish();
}

}  // namespace heaptape
