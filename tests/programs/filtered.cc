// Programs within seccomp filters. Each argument is one; any forbidden system call kills it (SIGSYS, or SIGKILL in
// strict mode), so that the test sees a call that it would not have made by itself.

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <initializer_list>
#include <vector>

namespace {

enum class By { kPrctl, kSyscall, kInstruction };

// Kills for these; allows the rest.
void Forbid(std::initializer_list<int> calls, By by) {
  std::vector<sock_filter> program = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0)};
  for (const int call : calls) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  long result;
  if (by == By::kPrctl) {
    result = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
  } else if (by == By::kSyscall) {
    result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
  } else {
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_seccomp), "D"(SECCOMP_SET_MODE_FILTER), "S"(0), "d"(&filter) : "rcx", "r11", "memory");
  }
  if (result != 0) _exit(3);
}

void Churn(int rounds) {
  std::vector<void*> blocks(512);
  for (int i = 0; i < rounds; ++i) {
    void*& block = blocks[static_cast<std::size_t>(i * 7919) % blocks.size()];
    free(block);
    block = malloc(static_cast<std::size_t>(16 + i % 500));
  }
  for (void* block : blocks) free(block);
}

void* ChurnInThread(void*) {
  Churn(20000);
  return nullptr;
}

void Say(const char* text) { (void)!write(1, text, strlen(text)); }

// Writes and ends by instruction: in strict mode there is nothing else.
[[noreturn]] void EndStrictly() {
  Say("filtered: done\n");
  for (;;) __asm__ volatile("syscall" : : "a"(SYS_exit), "D"(0) : "rcx", "r11", "memory");
}

const std::initializer_list<int> kUnusual = {SYS_gettid, SYS_getpid, SYS_mprotect, SYS_madvise, SYS_tgkill, SYS_sched_yield};
const std::initializer_list<int> kEvenWaiting = {SYS_gettid, SYS_getpid, SYS_madvise, SYS_futex, SYS_clock_gettime,
                                                 SYS_nanosleep, SYS_clock_nanosleep};

}  // namespace

int main(int argc, char** argv) {
  const char* const kind = argc > 1 ? argv[1] : "";
  Churn(1000);
  if (strcmp(kind, "strict") == 0) {
    // What the loop needs is there before: no more memory is asked for.
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0) != 0) return 3;
    for (int i = 0; i < 2000000; ++i) free(malloc(static_cast<std::size_t>(16 + i % 64)));
    EndStrictly();
  }
  if (strcmp(kind, "plain") == 0) {
    Forbid(kUnusual, By::kSyscall);

    Churn(200000);
  } else if (strcmp(kind, "waits") == 0) {
    Forbid(kEvenWaiting, By::kPrctl);
    Churn(3000000);
  } else if (strcmp(kind, "waits-behind") == 0) {
    Forbid(kEvenWaiting, By::kInstruction);
    Churn(1000);
    for (volatile int i = 0; i < 300000000; ++i) {
    }
    Churn(3000000);
  } else if (strcmp(kind, "forks") == 0) {
    // Allocated before: a child's first event is all that is left to do there.
    Forbid({SYS_gettid, SYS_getpid, SYS_mprotect, SYS_madvise, SYS_mmap}, By::kSyscall);
    for (int i = 0; i < 20; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        Churn(200);
        _exit(0);
      }
      int status = 0;
      waitpid(child, &status, 0);
      if (status != 0) return 4;
    }
  } else if (strcmp(kind, "late-thread") == 0) {
    // A thread that takes its first chunk within the filter.
    Forbid({SYS_gettid, SYS_getpid}, By::kPrctl);
    for (int i = 0; i < 8; ++i) {
      pthread_t thread;
      if (pthread_create(&thread, nullptr, ChurnInThread, nullptr) != 0) return 5;
      pthread_join(thread, nullptr);
    }
  } else {
    return 2;
  }
  Say("filtered: done\n");
  return 0;
}
