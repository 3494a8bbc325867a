#include "recorder/writer/confinement.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "recorder/process_memory.h"

namespace heaptape {
namespace {

void KeepCapabilities(std::initializer_list<int> kept) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, data) != 0) return;
  std::uint32_t mask[_LINUX_CAPABILITY_U32S_3] = {};
  for (const int capability : kept) mask[CAP_TO_INDEX(capability)] |= CAP_TO_MASK(capability);
  for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; ++i) {
    data[i].permitted &= mask[i];
    data[i].effective = data[i].permitted;
    data[i].inheritable = 0;
  }
  (void)syscall(SYS_capset, &header, data);
}

// A call that is allowed. Where `forbidden` is not 0, only while argument `argument` has none of these bits.
struct Allowed {
  int number;
  int argument = 0;
  std::uint32_t forbidden = 0;
};

void Filter(std::initializer_list<Allowed> calls) {
  std::vector<sock_filter> program;
  const auto add = [&program](std::uint16_t code, std::uint32_t k, std::uint8_t yes = 0, std::uint8_t no = 0) {
    program.push_back({code, yes, no, k});
  };
  constexpr std::uint32_t kDeny = SECCOMP_RET_ERRNO | 1;  // EPERM
  add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch));
  add(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  add(BPF_RET | BPF_K, kDeny);
  add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr));
  for (const Allowed& call : calls) {
    if (call.forbidden == 0) {
      add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call.number), 0, 1);
    } else {
      add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call.number), 0, 4);
      add(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offsetof(seccomp_data, args) + 8 * static_cast<unsigned>(call.argument)));
      add(BPF_JMP | BPF_JSET | BPF_K, call.forbidden, 0, 1);
      add(BPF_RET | BPF_K, kDeny);
    }
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  add(BPF_RET | BPF_K, kDeny);
  const sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  (void)prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

constexpr std::uint32_t kForkOnly = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_THREAD | CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID |
                                    CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_PTRACE;
constexpr std::uint32_t kReadOnly = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;
constexpr std::uint32_t kAnySignal = 0xffffffff;

std::uint32_t Number(std::string_view& text) {
  while (!text.empty() && (text.front() == '\t' || text.front() == ' ')) text.remove_prefix(1);
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

}  // namespace

void ConfineWriter() {
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);  // it holds what the trace leaves out
  KeepCapabilities({CAP_SETUID, CAP_SETGID});
  Filter({
      {SYS_clock_nanosleep}, {SYS_nanosleep}, {SYS_read}, {SYS_pread64}, {SYS_write}, {SYS_poll}, {SYS_futex}, {SYS_clock_gettime},
      {SYS_ioctl}, {SYS_lseek}, {SYS_close}, {SYS_openat, 2, kReadOnly}, {SYS_fstat}, {SYS_newfstatat}, {SYS_statx}, {SYS_readlink},
      {SYS_readlinkat}, {SYS_access}, {SYS_faccessat}, {SYS_faccessat2}, {SYS_getdents64}, {SYS_fstatfs}, {SYS_fcntl}, {SYS_fdatasync},
      {SYS_ftruncate}, {SYS_writev}, {SYS_readv}, {SYS_brk}, {SYS_mmap, 2, PROT_EXEC}, {SYS_mprotect, 2, PROT_EXEC}, {SYS_munmap},
      {SYS_mremap}, {SYS_madvise}, {SYS_sendmsg}, {SYS_recvmsg}, {SYS_getrusage}, {SYS_getpid}, {SYS_gettid}, {SYS_getppid}, {SYS_getsid},
      {SYS_getuid}, {SYS_geteuid}, {SYS_getgid}, {SYS_getegid}, {SYS_pidfd_open}, {SYS_tgkill, 2, kAnySignal}, {SYS_memfd_create},
      {SYS_clone, 0, kForkOnly}, {SYS_set_robust_list}, {SYS_rseq}, {SYS_rt_sigprocmask}, {SYS_rt_sigaction}, {SYS_rt_sigreturn},
      {SYS_restart_syscall}, {SYS_setgroups}, {SYS_setresgid}, {SYS_setresuid}, {SYS_getrandom}, {SYS_sched_yield}, {SYS_sched_getaffinity},
      {SYS_uname}, {SYS_sysinfo}, {SYS_exit}, {SYS_exit_group},
  });
}

void ConfineBroker() {
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  KeepCapabilities({CAP_DAC_OVERRIDE});
  Filter({{SYS_poll}, {SYS_recvmsg}, {SYS_sendmsg}, {SYS_socketpair}, {SYS_openat}, {SYS_newfstatat}, {SYS_renameat2}, {SYS_renameat},
          {SYS_unlinkat}, {SYS_fcntl}, {SYS_fdatasync}, {SYS_close}, {SYS_brk}, {SYS_mmap, 2, PROT_EXEC}, {SYS_munmap}, {SYS_mremap},
          {SYS_madvise}, {SYS_futex}, {SYS_rt_sigreturn}, {SYS_restart_syscall}, {SYS_exit_group}});
}

void OfferToOutOfMemoryKiller() {
  const int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  (void)!write(file, "1000", 4);
  close(file);
}

std::optional<Credentials> ParseCredentials(std::string_view status) {
  Credentials credentials;
  std::string_view users = StatusField(status, "Uid:");
  std::string_view groups = StatusField(status, "Gid:");
  std::string_view supplementary = StatusField(status, "Groups:");
  if (users.empty() || groups.empty()) return std::nullopt;
  for (uid_t& id : credentials.users) id = Number(users);
  for (gid_t& id : credentials.groups) id = Number(groups);
  while (supplementary.find_first_of("0123456789") != std::string_view::npos) {
    credentials.supplementary.push_back(Number(supplementary));
  }
  return credentials;
}

void Become(const Credentials& credentials) {
  // By system call: the C library would have all its threads do it, and there is one.
  (void)syscall(SYS_setgroups, credentials.supplementary.size(), credentials.supplementary.data());
  (void)syscall(SYS_setresgid, credentials.groups[0], credentials.groups[1], credentials.groups[2]);
  (void)syscall(SYS_setresuid, credentials.users[0], credentials.users[1], credentials.users[2]);
}

}  // namespace heaptape
