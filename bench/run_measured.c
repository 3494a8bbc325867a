// run_measured FILE COMMAND...: runs a command and tells what it cost.
//
// Waits for the command and for every process it leaves behind (a recording's writer), and writes to FILE one line
// of JSON: the command's wait status, CPU time and peak resident set, and those of the processes left behind.
// A program of its own, and a small one: a process inherits across exec the peak of the one that forked it, so
// under an interpreter every small program would seem as large as that.

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t CpuNs(const struct rusage* usage) {
  return (uint64_t)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000000u +
         (uint64_t)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) * 1000u;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: run_measured FILE COMMAND...\n");
    return 2;
  }
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  const pid_t command = vfork();
  if (command < 0) return 1;
  if (command == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    execvp(argv[2], argv + 2);
    _exit(127);
  }
  int status = 0;
  uint64_t cpu_ns = 0, left_cpu_ns = 0;
  long peak_kib = 0, left_peak_kib = 0;
  for (;;) {
    int one_status;
    struct rusage usage;
    const pid_t ended = wait4(-1, &one_status, 0, &usage);
    if (ended < 0 && errno == EINTR) continue;
    if (ended < 0) break;
    if (ended == command) {
      status = one_status;
      cpu_ns = CpuNs(&usage);
      peak_kib = usage.ru_maxrss;
    } else {
      left_cpu_ns += CpuNs(&usage);
      if (usage.ru_maxrss > left_peak_kib) left_peak_kib = usage.ru_maxrss;
    }
  }
  FILE* file = fopen(argv[1], "w");
  if (!file) return 1;
  fprintf(file, "{\"status\": %d, \"cpu_ns\": %llu, \"max_rss_bytes\": %llu, \"helper_cpu_ns\": %llu, \"helper_rss_bytes\": %llu}\n", status,
          (unsigned long long)cpu_ns, (unsigned long long)peak_kib * 1024, (unsigned long long)left_cpu_ns,
          (unsigned long long)left_peak_kib * 1024);
  return fclose(file) == 0 ? 0 : 1;
}
