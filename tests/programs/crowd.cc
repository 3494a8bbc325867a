// Many threads at once: crowd THREADS MILLISECONDS [forks], or crowd THREADS FILE, which goes on until the file exists (its
// name begins with a slash). Each allocates and frees as fast as it can, keeping some blocks; with `forks` each forks five
// children instead, which allocate and end.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <vector>

namespace {

long end_ms;
const char* end_file;  // instead
bool forks;
std::atomic<int> failures;
std::atomic<int> children;

long Milliseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void Churn() {
  void* kept[64] = {};
  do {
    for (unsigned i = 0; i < 2000; ++i) {
      void*& block = kept[i * 7 % 64];
      free(block);
      block = malloc(16 + i % 300);
      if (!block) ++failures;
    }
  } while (end_file ? access(end_file, F_OK) != 0 : Milliseconds() < end_ms);
  for (void* block : kept) free(block);
}

void Fork() {
  for (int i = 0; i < 5; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      for (int round = 0; round < 1000; ++round) free(malloc(7777));
      _exit(0);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) ++failures;
    else ++children;
  }
}

void* Work(void*) {
  if (forks) Fork();
  else Churn();
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  end_ms = Milliseconds() + atol(argv[2]);
  end_file = *argv[2] == '/' ? argv[2] : nullptr;
  forks = argc > 3;
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 128 << 10);
  std::vector<pthread_t> threads(static_cast<std::size_t>(atoi(argv[1])));
  for (pthread_t& thread : threads) {
    if (pthread_create(&thread, &small, Work, nullptr) != 0) return 3;
  }
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  printf("crowd: %zu threads, %d children, %d failures\n", threads.size(), children.load(), failures.load());
  return 0;
}
