// Allocates and frees steadily, with 200 blocks alive all the time: for argv[1] milliseconds, or until the file argv[2]
// exists and then for argv[1] rounds of 4,000 events more.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long Milliseconds() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) return 2;
  void* kept[200];
  for (void*& block : kept) block = malloc(100);
  const long end = Milliseconds() + atol(argv[1]);
  long rounds = argc == 3 ? atol(argv[1]) : 0;
  unsigned seed = 1;
  while (argc == 2 ? Milliseconds() < end : access(argv[2], F_OK) != 0 || rounds-- > 0) {
    for (int i = 0; i < 2000; ++i) {
      seed = seed * 1664525u + 1013904223u;
      void*& block = kept[seed >> 8 & 127];
      free(block);
      block = malloc(16 + (seed >> 16) % 2000);
      if (!block) return 1;
    }
    struct timespec pause = {0, 2000000};
    nanosleep(&pause, nullptr);
  }
  puts("busy: done");
  return 0;
}
