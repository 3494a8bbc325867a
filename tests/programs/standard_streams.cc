// Says on stderr which of the standard input and output are open, waits where argv[1] is "wait" until SIGINT comes, and
// says so.
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t interrupts;

static void Count(int) { interrupts = interrupts + 1; }

static void Say(const char* text) { (void)!write(2, text, strlen(text)); }

int main(int argc, char** argv) {
  signal(SIGINT, Count);
  for (int descriptor = 0; descriptor < 2; ++descriptor) {
    Say(descriptor == 0 ? "stdin " : ", stdout ");
    Say(fcntl(descriptor, F_GETFD) < 0 ? "closed" : "open");
  }
  Say("\n");
  for (int i = 0; i < 100; ++i) free(malloc(100));
  while (argc == 2 && strcmp(argv[1], "wait") == 0 && interrupts == 0) usleep(1000);
  if (interrupts == 0) return 0;
  usleep(100000);
  Say(interrupts == 1 ? "one interrupt\n" : "several interrupts\n");
  return 7;
}
