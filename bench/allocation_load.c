// A program that does nothing but allocate, for measuring what recording it costs.
//
// allocation_load loop THREADS CALLS           malloc(64) and free, again and again
// allocation_load churn THREADS CALLS [LIVE]   LIVE objects a thread (20,000), 16 to 1039 bytes, replaced at random
//
// CALLS is in all. Prints how many allocator calls it made itself and the CPU nanoseconds they took in all
// threads, which leaves out starting the process.

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { kMostThreads = 256 };

static int churn;
static uint64_t live_per_thread = 20000;
static uint64_t calls_per_thread;
static uint64_t calls_made[kMostThreads], cpu_ns[kMostThreads];
// All threads live from the first's start to the last's end, however long each takes: so many stacks and arenas there are.
static pthread_barrier_t all;

static uint64_t Now(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t Loop(void) {
  void* volatile kept;  // so that no call can be left out
  uint64_t calls = 0;
  for (; calls + 2 <= calls_per_thread; calls += 2) {
    kept = malloc(64);
    free(kept);
  }
  return calls;
}

static uint64_t Churn(uint64_t seed) {
  // Not from the allocator whose calls are counted.
  void** slots = mmap(NULL, live_per_thread * sizeof(void*), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (slots == MAP_FAILED) exit(1);
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 88172645463325252u, calls = 0;
  for (; calls + 2 <= calls_per_thread; calls += 2) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    void** slot = &slots[state % live_per_thread];
    // Empty slots make the first calls fewer: they are counted as made.
    if (!*slot) --calls;
    free(*slot);
    *slot = malloc(16 + (state >> 40 & 1023));
    *(char*)*slot = 1;
  }
  return calls;
}

static void* Run(void* argument) {
  const intptr_t self = (intptr_t)argument;
  pthread_barrier_wait(&all);
  const uint64_t start = Now();
  calls_made[self] = churn ? Churn((uint64_t)self + 1) : Loop();
  cpu_ns[self] = Now() - start;
  pthread_barrier_wait(&all);
  return NULL;
}

int main(int argc, char** argv) {
  const int threads = argc >= 4 && argc <= 5 ? atoi(argv[2]) : 0;
  if (argc == 5) live_per_thread = strtoull(argv[4], NULL, 10);
  if (threads < 1 || threads > kMostThreads || live_per_thread < 1) {
    fprintf(stderr, "usage: allocation_load loop|churn THREADS CALLS [LIVE]\n");
    return 2;
  }
  churn = strcmp(argv[1], "churn") == 0;
  calls_per_thread = strtoull(argv[3], NULL, 10) / (uint64_t)threads;
  if (pthread_barrier_init(&all, NULL, (unsigned)threads) != 0) return 1;
  pthread_t others[kMostThreads];
  for (intptr_t i = 1; i < threads; ++i) {
    if (pthread_create(&others[i], NULL, Run, (void*)i) != 0) return 1;
  }
  Run(NULL);
  for (int i = 1; i < threads; ++i) pthread_join(others[i], NULL);
  uint64_t calls = 0, ns = 0;
  for (int i = 0; i < threads; ++i) {
    calls += calls_made[i];
    ns += cpu_ns[i];
  }
  printf("%llu %llu\n", (unsigned long long)calls, (unsigned long long)ns);
  return 0;
}
