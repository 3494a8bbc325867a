// A process that adopts orphans and waits for every child it has, made or adopted: PID 1 of a namespace, or a child
// subreaper. Anybody else's child would keep it waiting for good.

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main() {
  for (int i = 0; i < 1000; ++i) free(malloc(100));
  if (fork() == 0) {
    if (fork() == 0) {
      usleep(100000);
      _exit(0);
    }
    _exit(0);
  }
  int status, children = 0;
  while (wait(&status) > 0) ++children;
  printf("reaper: pid %d, %d children\n", getpid() == 1 ? 1 : 0, children);
  return 0;
}
