#include "recorder/writer/recording_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace heaptape {

std::string NameOf(const std::string& path, const FileName& name) {
  const std::size_t slash = path.rfind('/');
  const std::size_t dot = path.rfind('.');
  const bool extension = dot != std::string::npos && (slash == std::string::npos || dot > slash + 1);
  const std::size_t cut = extension ? dot : path.size();
  std::string text = path.substr(0, cut);
  if (name.process != 0) absl::StrAppend(&text, ".", name.process);
  if (name.copy != 0) absl::StrAppend(&text, ".", name.copy);
  if (name.segment != 0) absl::StrAppendFormat(&text, ".%04d", name.segment);
  return text + path.substr(cut);
}

absl::StatusOr<std::unique_ptr<LocalFiles>> LocalFiles::Create(const std::string& path, bool replace) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const int descriptor = open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    return absl::NotFoundError(absl::StrCat(folder, ": cannot open the folder for the recording: ", std::strerror(errno),
                                            ". Make it or give another with -o."));
  }
  return std::unique_ptr<LocalFiles>(new LocalFiles(path, descriptor, replace));
}

LocalFiles::~LocalFiles() {
  for (const auto& [name, descriptor] : open_) close(descriptor);
  close(folder_);
}

std::string LocalFiles::Base(const FileName& name) const {
  const std::string whole = Path(name);
  return whole.substr(whole.rfind('/') + 1);
}

absl::Status LocalFiles::MayBeMade(const FileName& name) const {
  struct stat info;
  if (fstatat(folder_, Base(name).c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return absl::OkStatus();
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(Path(name), ": is not a regular file, so it is not replaced. Give another name with -o."));
  }
  if (replace_) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat(Path(name), ": exists. Give another name with -o, or --force to replace it."));
}

absl::StatusOr<int> LocalFiles::Open(const FileName& name) {
  if (absl::Status status = MayBeMade(name); !status.ok()) return status;
  const std::string part = Base(name) + ".part";
  int descriptor = openat(folder_, part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0) {
    const int error = errno;
    const std::string text = absl::StrCat(Path(name), ".part: cannot create: ", std::strerror(error), ". Move it away or choose another name.");
    return error == EEXIST ? absl::AlreadyExistsError(text) : absl::UnavailableError(text);
  }
  const int own = fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
  if (own < 0) {
    const int error = errno;
    close(descriptor);
    unlinkat(folder_, part.c_str(), 0);
    return absl::UnavailableError(absl::StrCat(Path(name), ".part: cannot create: ", std::strerror(error), ". Raise the limit of open files (ulimit -n)."));
  }
  open_[name] = own;
  return descriptor;
}

absl::Status LocalFiles::Finish(const FileName& name, const FileName& last) {
  const auto found = open_.find(name);
  if (found == open_.end()) return absl::NotFoundError(absl::StrCat(Path(name), ": is not being written. Report this as an error of heaptape."));
  // Content first, name after: a power cut must not leave the final name on an empty file.
  fdatasync(found->second);
  close(found->second);
  open_.erase(found);
  if (absl::Status status = MayBeMade(last); !status.ok()) return status;
  const std::string part = Base(name) + ".part";
  // Without leave to replace, not even a file that appears at this very moment is.
  int renamed = renameat2(folder_, part.c_str(), folder_, Base(last).c_str(), replace_ ? 0 : RENAME_NOREPLACE);
  if (renamed != 0 && errno == EINVAL) renamed = renameat(folder_, part.c_str(), folder_, Base(last).c_str());
  if (renamed != 0) {
    return absl::UnavailableError(absl::StrCat(Path(name), ".part: cannot be renamed to ", Path(last), ": ", std::strerror(errno),
                                               ". Move it there yourself: it is whole."));
  }
  finished_[last] = true;
  return absl::OkStatus();
}

void LocalFiles::Discard(const FileName& name) {
  const auto found = open_.find(name);
  if (found == open_.end()) return;
  close(found->second);
  open_.erase(found);
  unlinkat(folder_, (Base(name) + ".part").c_str(), 0);
}

void LocalFiles::Remove(const FileName& name) {
  if (finished_.erase(name) != 0) unlinkat(folder_, Base(name).c_str(), 0);
}

std::uint64_t LocalFiles::DiskFree() const {
  struct statvfs disk;
  if (fstatvfs(folder_, &disk) != 0) return ~std::uint64_t{0};
  return static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize;
}

absl::StatusOr<std::unique_ptr<RecordingFiles>> LocalFiles::ForChild() {
  const int folder = fcntl(folder_, F_DUPFD_CLOEXEC, 3);
  if (folder < 0) return absl::UnavailableError(absl::StrCat(path(), ": ", std::strerror(errno)));
  return std::unique_ptr<RecordingFiles>(new LocalFiles(path(), folder, replace_));
}

}  // namespace heaptape
