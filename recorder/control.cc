#include "recorder/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

// What the kernel shows of a descriptor on such a memory file, and of no other.
constexpr char kControlLink[] = "/memfd:heaptape-control (deleted)";
// Nobody can make it smaller under a reader, which would be killed at the next access.
constexpr int kControlSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// A folder of /proc. It stays that of this process: once that has ended, nothing opens in it, whoever gets its id.
class ProcessFolder {
 public:
  explicit ProcessFolder(int pid)
      : folder_(open(absl::StrCat("/proc/", pid).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {}
  ~ProcessFolder() {
    if (folder_ >= 0) close(folder_);
  }
  ProcessFolder(const ProcessFolder&) = delete;
  ProcessFolder& operator=(const ProcessFolder&) = delete;

  int descriptor() const { return folder_; }

  // The first bytes of a file in it; empty where it cannot be read.
  std::string Read(const char* name) const {
    const int file = openat(folder_, name, O_RDONLY | O_CLOEXEC);
    if (file < 0) return "";
    char text[4096];
    const ssize_t length = read(file, text, sizeof(text));
    close(file);
    return std::string(text, length > 0 ? static_cast<std::size_t>(length) : 0);
  }

  // The user that all four of its ids name. None where they differ: a stranger can run a setuid program under a name and with
  // descriptors that he chose.
  std::optional<uid_t> Owner() const {
    const std::string status = Read("status");
    const std::size_t line = status.find("\nUid:");
    uid_t real, effective, saved, file_system;
    if (line == std::string::npos ||
        std::sscanf(status.c_str() + line + 5, "%u %u %u %u", &real, &effective, &saved, &file_system) != 4) {
      return std::nullopt;
    }
    if (real != effective || real != saved || real != file_system) return std::nullopt;
    return real;
  }

 private:
  int folder_;
};

std::vector<int> NumbersIn(int folder, int* error) {
  std::vector<int> numbers;
  DIR* directory = folder < 0 ? nullptr : fdopendir(folder);
  if (!directory) {
    *error = errno;
    if (folder >= 0) close(folder);
    return numbers;
  }
  while (const dirent* entry = readdir(directory)) {
    const int number = std::atoi(entry->d_name);
    if (number > 0 || std::strcmp(entry->d_name, "0") == 0) numbers.push_back(number);
  }
  closedir(directory);
  return numbers;
}

// The block in an open memory file, or null.
ControlBlock* MapBlock(int file) {
  struct stat info;
  if ((fcntl(file, F_GET_SEALS) & kControlSeals) != kControlSeals) return nullptr;
  if (fstat(file, &info) != 0 || info.st_size < static_cast<off_t>(sizeof(ControlBlock))) return nullptr;
  void* memory = mmap(nullptr, sizeof(ControlBlock), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* block = static_cast<ControlBlock*>(memory);
  if (block->magic == kControlMagic) return block;
  munmap(memory, sizeof(ControlBlock));
  return nullptr;
}

// The control block among the descriptors of one writer, or null.
ControlBlock* OpenBlock(const ProcessFolder& writer, int* error) {
  const int folder = openat(writer.descriptor(), "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) {
    *error = errno;
    return nullptr;
  }
  for (int descriptor : NumbersIn(folder, error)) {
    const std::string path = absl::StrCat("fd/", descriptor);
    char target[sizeof(kControlLink)];
    const ssize_t length = readlinkat(writer.descriptor(), path.c_str(), target, sizeof(target));
    if (length != sizeof(kControlLink) - 1 || std::memcmp(target, kControlLink, sizeof(kControlLink) - 1) != 0) continue;
    const int file = openat(writer.descriptor(), path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) {
      *error = errno;
      continue;
    }
    ControlBlock* block = MapBlock(file);
    close(file);
    if (block) return block;
  }
  return nullptr;
}

// Any process can take a writer's name and claim to record another one. A stranger's may not speak for a process of ours or
// of root's.
bool IsTrusted(const ProcessFolder& writer, int target_pid) {
  const std::optional<uid_t> owner = writer.Owner();
  if (!owner) return false;
  return *owner == 0 || *owner == geteuid() || owner == ProcessFolder(target_pid).Owner();
}

}  // namespace

absl::StatusOr<ControlBlock*> FindControlBlock(int pid) {
  int denied = 0;
  int error = 0;
  for (int process : NumbersIn(open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), &error)) {
    const ProcessFolder writer(process);
    if (writer.Read("comm") != absl::StrCat(kWriterName, "\n")) continue;
    error = 0;
    ControlBlock* block = OpenBlock(writer, &error);
    if (!block) {
      if (error == EACCES || error == EPERM) denied = process;
      continue;
    }
    // Read once: what it says may change at any time.
    const int target_pid = block->target_pid.load();
    if ((target_pid == pid || process == pid) && IsTrusted(writer, target_pid)) return block;
    munmap(block, sizeof(ControlBlock));
  }
  if (denied) {
    return absl::PermissionDeniedError(absl::StrCat("process ", pid, ": its recording (if any) belongs to another user. "
                                                    "Run this as that user or as root."));
  }
  return absl::NotFoundError(absl::StrCat("process ", pid, " is not being recorded. "
                                          "Give the process id of a program that heaptape record started."));
}

ControlBlock* MakeControlBlock() {
  // A forked writer has its parent's, which must not be taken for its own.
  static int descriptor = -1;
  if (descriptor >= 0) close(descriptor);
  const int file = memfd_create(kControlName, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  descriptor = file;
  if (file < 0) return nullptr;
  if (ftruncate(file, sizeof(ControlBlock)) != 0) return nullptr;
  if (fcntl(file, F_ADD_SEALS, kControlSeals) != 0) return nullptr;
  void* memory = mmap(nullptr, sizeof(ControlBlock), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* block = static_cast<ControlBlock*>(memory);
  block->magic = kControlMagic;
  return block;  // the descriptor stays open: it is the way to the block
}

}  // namespace heaptape
