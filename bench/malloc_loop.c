// Allocates and frees one block over and over: argv[1] threads, argv[2] pairs in each. Prints the CPU time
// of one call in nanoseconds and the peak resident set (VmHWM) in KiB.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long pairs;

static void* Run(void* unused) {
  for (long i = 0; i < pairs; ++i) {
    void* volatile block = malloc(64);
    free(block);
  }
  return unused;
}

// Of this program alone: getrusage() begins with the peak of the one that started it.
static long PeakKib(void) {
  FILE* file = fopen("/proc/self/status", "r");
  char line[256];
  long peak = 0;
  while (file && fgets(line, sizeof(line), file)) sscanf(line, "VmHWM: %ld", &peak);
  if (file) fclose(file);
  return peak;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int threads = atoi(argv[1]);
  pairs = atol(argv[2]);
  pthread_t ids[64];
  if (threads < 1 || threads > 64) return 2;
  for (int i = 1; i < threads; ++i) pthread_create(&ids[i], NULL, Run, NULL);
  Run(NULL);
  for (int i = 1; i < threads; ++i) pthread_join(ids[i], NULL);
  struct timespec cpu;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  printf("%.3f %ld\n", (cpu.tv_sec * 1e9 + cpu.tv_nsec) / (2.0 * pairs * threads), PeakKib());
  return 0;
}
