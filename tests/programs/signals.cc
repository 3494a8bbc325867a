// A timer fires in the midst of allocations: its handler allocates, and each third time jumps out. Runs on
// reentrant_malloc, which allows both anywhere. argv[1] thousand allocations.
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

static volatile long handled;
static sigjmp_buf back;
static void* volatile slots[64];

static void Handler(int) {
  handled = handled + 1;
  free(malloc(77));
  if (handled % 3 == 0) siglongjmp(back, 1);
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  struct sigaction action = {};
  action.sa_handler = Handler;
  sigaction(SIGALRM, &action, nullptr);
  static volatile long done;
  static volatile unsigned seed = 1;
  sigsetjmp(back, 1);
  struct itimerval timer = {{0, 101}, {0, 101}};
  setitimer(ITIMER_REAL, &timer, nullptr);
  while (done < atol(argv[1]) * 1000) {
    done = done + 1;
    seed = seed * 1664525u + 1013904223u;
    void* volatile* slot = &slots[seed >> 10 & 63];
    void* old = *slot;
    *slot = nullptr;
    free(old);
    *slot = malloc(16 + (seed >> 16) % 300);
  }
  struct itimerval off = {};
  setitimer(ITIMER_REAL, &off, nullptr);
  printf("%s\n", handled > 0 ? "interrupted" : "never interrupted");
  return 0;
}
