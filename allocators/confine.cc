#include "allocators/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

namespace heaptape {
namespace {

constexpr std::uint32_t kX32Calls = 0x4000'0000;
// Newer than the headers of the oldest release that this builds on.
constexpr std::uint32_t kProcessMadvise = 440, kProcessMrelease = 448;

// Refused whatever their arguments. What changes files is here as well as opening them for writing.
constexpr std::uint32_t kRefused[] = {
    SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_sendto, SYS_sendmsg, SYS_sendmmsg,
    SYS_execve, SYS_execveat, SYS_fork, SYS_vfork,
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_open, SYS_pidfd_getfd, SYS_pidfd_send_signal, SYS_kcmp,
    kProcessMadvise, kProcessMrelease, SYS_tkill, SYS_perf_event_open, SYS_bpf, SYS_userfaultfd, SYS_io_uring_setup,
    SYS_creat, SYS_unlink, SYS_unlinkat, SYS_rename, SYS_renameat, SYS_renameat2, SYS_mkdir, SYS_mkdirat, SYS_rmdir, SYS_link,
    SYS_linkat, SYS_symlink, SYS_symlinkat, SYS_mknod, SYS_mknodat, SYS_chmod, SYS_fchmod, SYS_fchmodat, SYS_chown, SYS_fchown,
    SYS_lchown, SYS_fchownat, SYS_truncate, SYS_utime, SYS_utimes, SYS_utimensat, SYS_futimesat, SYS_setxattr, SYS_lsetxattr,
    SYS_fsetxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr, SYS_open_by_handle_at,
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_move_mount, SYS_fsopen, SYS_open_tree, SYS_unshare, SYS_setns,
    SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_setfsuid, SYS_setfsgid,
    SYS_capset, SYS_keyctl, SYS_add_key, SYS_request_key, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load,
    SYS_kexec_file_load, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl, SYS_syslog, SYS_settimeofday,
    SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname, SYS_iopl, SYS_ioperm, SYS_modify_ldt,
    SYS_fanotify_init, SYS_setpriority, SYS_setrlimit,
};

// Allowed to the worker itself, as abort() needs.
constexpr std::uint32_t kSignals[] = {SYS_kill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo};

// The filter, written word by word: in the program's own memory, which a worker makes resident before it measures.
sock_filter filter[512];
unsigned short filter_length = 0;

void Add(std::uint16_t code, std::uint32_t value, std::uint8_t if_true = 0, std::uint8_t if_false = 0) {
  filter[filter_length++] = {code, if_true, if_false, value};
}
void Load(std::size_t offset) { Add(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)); }
void Return(std::uint32_t action) { Add(BPF_RET | BPF_K, action); }
void ReturnIfNumberIs(std::uint32_t number, std::uint32_t action) {
  Add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
  Return(action);
}
// The low half of an argument: all that the kernel looks at in those asked for here.
constexpr std::size_t Argument(int index) { return offsetof(seccomp_data, args) + sizeof(std::uint64_t) * static_cast<std::size_t>(index); }

// For calls allowed by one argument: `test` is a jump that goes on where the argument is harmless.
void AllowCallIf(std::uint32_t number, int argument, std::uint16_t test, std::uint32_t value, bool harmless_if,
                 std::uint32_t refused) {
  Add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4);
  Load(Argument(argument));
  Add(static_cast<std::uint16_t>(BPF_JMP | test | BPF_K), value, harmless_if ? 0 : 1, harmless_if ? 1 : 0);
  Return(SECCOMP_RET_ALLOW);
  Return(refused);
}

void WriteFilter(std::uint32_t refused) {
  constexpr std::uint32_t kNotThere = SECCOMP_RET_ERRNO | ENOSYS;
  constexpr std::uint32_t kWriting = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;
  filter_length = 0;
  Load(offsetof(seccomp_data, arch));
  Add(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  Return(SECCOMP_RET_KILL_PROCESS);
  Load(offsetof(seccomp_data, nr));
  Add(BPF_JMP | BPF_JGE | BPF_K, kX32Calls, 0, 1);
  Return(kNotThere);
  for (const std::uint32_t number : kRefused) ReturnIfNumberIs(number, refused);
  // Their arguments lie in memory, which a filter cannot see. The C library then takes the older calls.
  ReturnIfNumberIs(SYS_clone3, kNotThere);
  ReturnIfNumberIs(SYS_openat2, kNotThere);
  AllowCallIf(SYS_clone, 0, BPF_JSET, CLONE_THREAD, true, refused);
  AllowCallIf(SYS_open, 1, BPF_JSET, kWriting, false, refused);
  AllowCallIf(SYS_openat, 2, BPF_JSET, kWriting, false, refused);
  AllowCallIf(SYS_prlimit64, 2, BPF_JEQ, 0, true, refused);  // reading limits
  const auto self = static_cast<std::uint32_t>(getpid());
  for (const std::uint32_t number : kSignals) AllowCallIf(number, 0, BPF_JEQ, self, true, refused);
  Return(SECCOMP_RET_ALLOW);
}

}  // namespace

bool Confine(Refusal refusal) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  WriteFilter(refusal == Refusal::kSignal ? SECCOMP_RET_TRAP : SECCOMP_RET_ERRNO | EPERM);
  sock_fprog program = {filter_length, filter};
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) == 0;
}

}  // namespace heaptape
