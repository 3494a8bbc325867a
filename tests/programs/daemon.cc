// Becomes a daemon as tor does: forks, the child leaves the session and forks again, the first waits on a
// pipe until the last is ready and has written its process id to argv[2]. That one works until the file argv[1] exists, or the other is
// gone with its folder.
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  void* early[100];
  for (void*& block : early) block = malloc(1111);
  int ready[2];
  if (pipe(ready) != 0) return 1;
  const pid_t child = fork();
  if (child > 0) {
    char byte;
    close(ready[1]);
    return read(ready[0], &byte, 1) == 1 ? 0 : 1;
  }
  free(malloc(2222));
  setsid();
  if (fork() > 0) _exit(0);
  for (void* block : early) free(block);
  for (int i = 0; i < 1000; ++i) free(malloc(3333));
  FILE* file = fopen(argv[2], "w");
  fprintf(file, "%d\n", (int)getpid());
  fclose(file);
  (void)write(ready[1], "r", 1);
  close(ready[0]);
  close(ready[1]);
  close(0);
  close(1);
  close(2);
  while (access(argv[1], F_OK) != 0 && access(argv[2], F_OK) == 0) usleep(10000);
  void* late[7];
  for (void*& block : late) block = malloc(4444);
  return late[0] == nullptr;
}
