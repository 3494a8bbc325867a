// Never frees two blocks of 4 MiB: of the first it writes pages 100 to 199, of the second, a calloc, none.
// With the argument "wait" it then waits to be killed, with "hurry" it allocates and frees large blocks faster than they
// can be looked at; with "jump" a timer's handler jumps out of 150 waits for such a look, and after a while it writes 50 pages
// of a block of 8 MiB and frees it (on reentrant_malloc, which allows that). Else it returns.
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int jumps;

static void JumpOut(int) {
  jumps = jumps + 1;
  siglongjmp(back, 1);
}

static void JumpOutOfLooks() {
  struct sigaction action = {};
  action.sa_handler = JumpOut;
  sigaction(SIGALRM, &action, nullptr);
  sigsetjmp(back, 1);
  if (jumps < 150) {
    struct itimerval timer = {{0, 0}, {0, 307}};
    setitimer(ITIMER_REAL, &timer, nullptr);
    for (;;) {
      char* volatile block = static_cast<char*>(malloc(128 << 10));
      free(block);
    }
  }
  sleep(3);  // the writer finds within two seconds that nobody comes for them
  char* volatile block = static_cast<char*>(malloc(8 << 20));
  char* pages = block + 4096 - reinterpret_cast<size_t>(block) % 4096;
  for (size_t page = 0; page < 50; ++page) pages[page * 4096] = 1;
  free(block);
}

int main(int argc, char** argv) {
  constexpr size_t kBytes = 4 << 20, kPage = 4096;
  char* written = static_cast<char*>(malloc(kBytes));
  char* untouched = static_cast<char*>(calloc(1, kBytes));
  if (!written || !untouched) return 1;
  char* pages = written - reinterpret_cast<size_t>(written) % kPage;
  for (size_t page = 100; page < 200; ++page) pages[page * kPage] = 1;
  puts("big_blocks: written");
  fflush(stdout);
  if (argc > 1 && strcmp(argv[1], "wait") == 0) pause();
  if (argc > 1 && strcmp(argv[1], "hurry") == 0) {
    for (int i = 0; i < 5000; ++i) {
      char* volatile block = static_cast<char*>(malloc(256 << 10));
      block[0] = 1;
      free(block);
    }
  }
  if (argc > 1 && strcmp(argv[1], "jump") == 0) JumpOutOfLooks();
  return 0;
}
