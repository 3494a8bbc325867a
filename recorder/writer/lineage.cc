#include "recorder/writer/lineage.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "recorder/process_memory.h"

namespace heaptape {
namespace {

constexpr int kHandOverTries = 200;
constexpr timespec kHandOverPause = {0, 5'000'000};

std::string ReadStatus(pid_t pid) {
  const int file = open(absl::StrCat("/proc/", pid, "/status").c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return "";
  std::string text;
  const bool any = ReadAll(file, text);
  close(file);
  return any ? text : "";
}

// All numbers of a line.
std::vector<pid_t> Numbers(std::string_view text) {
  std::vector<pid_t> numbers;
  while (true) {
    const std::size_t at = text.find_first_of("0123456789");
    if (at == std::string_view::npos) return numbers;
    text.remove_prefix(at);
    pid_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    numbers.push_back(number);
  }
}

pid_t LastNumber(std::string_view text) {
  const std::vector<pid_t> numbers = Numbers(text);
  return numbers.empty() ? 0 : numbers.back();
}

// A process that has ended may stay in /proc until its own parent asks for it.
bool HasEnded(pid_t pid) {
  const std::string status = ReadStatus(pid);
  return status.empty() || StatusField(status, "State:").find('Z') != std::string_view::npos;
}

// Field 22 of /proc/PID/stat, counted from 1; the name in parentheses is the second.
std::uint64_t TicksOf(const std::string& process) {
  const int file = open(absl::StrCat("/proc/", process, "/stat").c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  std::string text;
  const bool any = ReadAll(file, text);
  close(file);
  std::size_t at = any ? text.rfind(')') : std::string::npos;
  for (int field = 2; at != std::string::npos && field < 22; ++field) at = text.find(' ', at + 1);
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at, nullptr, 10);
}

// The process `pid` of this /proc calls itself `claimed`, and `parent` forked it. One whose parent has ended has another
// by now; it is known by its number, its age and its user.
bool IsChild(pid_t pid, pid_t claimed, pid_t parent, std::uint64_t not_before) {
  const std::string status = ReadStatus(pid);
  if (LastNumber(StatusField(status, "NSpid:")) != claimed) return false;
  const pid_t its_parent = LastNumber(StatusField(status, "PPid:"));
  if (its_parent == parent) return true;
  if (pid != claimed || its_parent == 0 || !HasEnded(parent) || TicksOf(absl::StrCat(pid)) < not_before) return false;
  const std::vector<pid_t> users = Numbers(StatusField(status, "Uid:"));
  return geteuid() == 0 || (!users.empty() && static_cast<uid_t>(users[0]) == getuid());
}

// Does /proc number processes as this process's own pid namespace does?
bool ProcIsOurs() {
  char text[32];
  const ssize_t length = readlink("/proc/self", text, sizeof(text) - 1);
  if (length <= 0) return false;
  text[length] = '\0';
  return std::atoi(text) == getpid();
}

pid_t FindChild(pid_t claimed, pid_t parent, std::uint64_t not_before) {
  if (IsChild(claimed, claimed, parent, not_before)) return claimed;
  DIR* folder = opendir("/proc");
  if (!folder) return 0;
  pid_t found = 0;
  while (const dirent* entry = readdir(folder)) {
    const pid_t pid = std::atoi(entry->d_name);
    if (pid > 0 && IsChild(pid, claimed, parent, not_before)) found = pid;
  }
  closedir(folder);
  return found;
}

}  // namespace

bool IsAlive(int pidfd) {
  pollfd ended = {pidfd, POLLIN, 0};
  return pidfd >= 0 && poll(&ended, 1, 0) == 0;
}

std::uint64_t StartTicks() { return TicksOf("self"); }

Followers* MakeFollowers() {
  void* memory = mmap(nullptr, sizeof(Followers), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) _exit(1);
  return static_cast<Followers*>(memory);
}

std::optional<Target> OpenChild(pid_t claimed, pid_t parent, std::uint64_t not_before) {
  if (claimed <= 0) return std::nullopt;
  const bool proc = ProcIsOurs();
  Target target;
  target.pid = proc ? FindChild(claimed, parent, not_before) : claimed;
  if (target.pid == 0) return std::nullopt;
  target.pidfd = static_cast<int>(syscall(SYS_pidfd_open, target.pid, 0));
  if (target.pidfd < 0) return std::nullopt;
  if (proc) target.files = OpenProcessFiles(target.pid);
  return target;
}

void Lineage::GiveBack(std::uint32_t index) const {
  madvise(At(index), sizeof(Region), MADV_REMOVE);
  ForkSlot& slot = Slot(index);
  slot.child_pid.store(0);
  slot.parent.store(0);
  slot.role.store(ProcessRole::kMain);
  slot.claimed.store(0);
}

// Was it forked by that process, or by one forked by it?
bool Lineage::IsDescendant(std::uint32_t index, std::uint32_t of) const {
  for (std::uint32_t generations = 0; generations < count_; ++generations) {
    const std::uint32_t parent = Slot(index).parent.load();
    if (index == 0 || Slot(index).claimed.load() == 0 || parent >= count_) return false;
    if (parent == of) return true;
    index = parent;
  }
  return false;
}

std::optional<pid_t> Lineage::HandOver(std::uint32_t own, pid_t session) const {
  const auto leads_another_session = [session](pid_t pid) {
    const pid_t its = pid > 0 ? getsid(pid) : -1;
    if (its <= 0 || its == session) return false;
    const int process = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    const bool alive = IsAlive(process);
    if (process >= 0) close(process);
    return alive;
  };
  bool any = true;
  for (int tries = 0; any && tries < kHandOverTries; ++tries) {
    any = false;
    for (std::uint32_t i = 1; i < count_; ++i) {
      ForkSlot& child = Slot(i);
      if (i == own || !IsDescendant(i, own)) continue;
      const pid_t pid = child.child_pid.load();
      if (pid != 0 && child.role.load() != ProcessRole::kProvisional) continue;
      any = true;
      if (pid == 0 || !leads_another_session(pid)) continue;
      child.parent.store(Slot(own).parent.load());
      ProcessRole provisional = ProcessRole::kProvisional;
      const ProcessRole role = Slot(own).role.load();
      if (role == ProcessRole::kProvisional || child.role.compare_exchange_strong(provisional, role)) return pid;
    }
    if (any) nanosleep(&kHandOverPause, nullptr);
  }
  return std::nullopt;
}

void Lineage::DropChildren(std::uint32_t own) const {
  for (std::uint32_t i = 1; i < count_; ++i) {
    if (i == own || !IsDescendant(i, own)) continue;
    ProcessRole provisional = ProcessRole::kProvisional;
    Slot(i).role.compare_exchange_strong(provisional, ProcessRole::kDropped);
  }
}

bool Lineage::IsStillWanted(std::uint32_t own, bool in_time) const {
  ProcessRole role = Slot(own).role.load();
  if (role != ProcessRole::kProvisional || in_time) return role != ProcessRole::kDropped;
  return !Slot(own).role.compare_exchange_strong(role, ProcessRole::kDropped);
}

}  // namespace heaptape
