#include "recorder/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

std::vector<int> NumbersIn(const std::string& folder, int* error) {
  std::vector<int> numbers;
  DIR* directory = opendir(folder.c_str());
  if (!directory) {
    *error = errno;
    return numbers;
  }
  while (const dirent* entry = readdir(directory)) {
    const int number = std::atoi(entry->d_name);
    if (number > 0 || std::strcmp(entry->d_name, "0") == 0) numbers.push_back(number);
  }
  closedir(directory);
  return numbers;
}

// The control block among the descriptors of one writer, or null.
ControlBlock* OpenBlock(int writer, int* error) {
  const std::string folder = absl::StrCat("/proc/", writer, "/fd");
  for (int descriptor : NumbersIn(folder, error)) {
    const std::string path = absl::StrCat(folder, "/", descriptor);
    char target[256];
    const ssize_t length = readlink(path.c_str(), target, sizeof(target) - 1);
    if (length <= 0) continue;
    target[length] = '\0';
    if (!std::strstr(target, kControlName)) continue;
    const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) {
      *error = errno;
      continue;
    }
    void* memory = MAP_FAILED;
    if (lseek(file, 0, SEEK_END) >= static_cast<off_t>(sizeof(ControlBlock))) {
      memory = mmap(nullptr, sizeof(ControlBlock), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    close(file);
    if (memory == MAP_FAILED) continue;
    auto* block = static_cast<ControlBlock*>(memory);
    if (block->magic == kControlMagic) return block;
    munmap(memory, sizeof(ControlBlock));
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<ControlBlock*> FindControlBlock(int pid) {
  int denied = 0;
  int ignored = 0;
  for (int process : NumbersIn("/proc", &ignored)) {
    std::ifstream name_file(absl::StrCat("/proc/", process, "/comm"));
    std::string name;
    std::getline(name_file, name);
    if (name != kWriterName) continue;
    int error = 0;
    ControlBlock* block = OpenBlock(process, &error);
    if (!block) {
      if (error == EACCES || error == EPERM) denied = process;
      continue;
    }
    if (block->target_pid.load() == pid || process == pid) return block;
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
  const int file = memfd_create(kControlName, MFD_CLOEXEC);
  descriptor = file;
  if (file < 0) return nullptr;
  if (ftruncate(file, sizeof(ControlBlock)) != 0) return nullptr;
  void* memory = mmap(nullptr, sizeof(ControlBlock), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* block = static_cast<ControlBlock*>(memory);
  block->magic = kControlMagic;
  return block;  // the descriptor stays open: it is the way to the block
}

}  // namespace heaptape
