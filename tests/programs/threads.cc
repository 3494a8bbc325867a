// Threads that hand blocks to one another: argv[1] threads at once, argv[2] rounds of birth and death,
// argv[3] blocks in each. Thread-local objects and a key free their blocks late.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void* shelf[1000];
static pthread_key_t key;

struct Late {
  void* block = nullptr;
  ~Late() { free(block); }
};
static thread_local Late late;

static void* Work(void* argument) {
  const long blocks = (long)argument;
  late.block = malloc(321);
  pthread_setspecific(key, malloc(123));
  unsigned seed = (unsigned)(size_t)&blocks;
  for (long i = 0; i < blocks; ++i) {
    seed = seed * 1664525u + 1013904223u;
    void* fresh = malloc(16 + seed % 500);
    pthread_mutex_lock(&lock);
    void* old = shelf[seed % 1000];
    shelf[seed % 1000] = fresh;
    pthread_mutex_unlock(&lock);
    free(old);
  }
  return nullptr;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int threads = atoi(argv[1]);
  pthread_key_create(&key, free);
  pthread_t* ids = (pthread_t*)malloc(sizeof(pthread_t) * threads);
  for (int round = 0; round < atoi(argv[2]); ++round) {
    for (int i = 0; i < threads; ++i) {
      if (pthread_create(&ids[i], nullptr, Work, (void*)atol(argv[3])) != 0) return 1;
    }
    for (int i = 0; i < threads; ++i) pthread_join(ids[i], nullptr);
  }
  for (void* block : shelf) free(block);
  free(ids);
  puts("done");
  return 0;
}
