// A pool of forked children that allocate and end before their parent, argv[1] of them one after another.
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  void* kept[50];
  for (void*& block : kept) block = malloc(1111);
  for (int i = 0; i < atoi(argv[1]); ++i) {
    const pid_t child = fork();
    if (child == 0) {
      free(kept[i % 50]);
      for (int j = 0; j < 1000; ++j) free(malloc(2222));
      void* last = malloc(3333);
      _exit(last == nullptr);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) return 1;
    free(malloc(4444));
  }
  if (waitpid(-1, nullptr, 0) != -1) return 3;  // no child that is not ours
  for (void* block : kept) free(block);
  puts("done");
  return 0;
}
