// The first calls of operator new, disturbed: a signal handler that calls it, and a thread that forks at that moment, whose
// children call it.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace {

std::atomic<int> handled;
std::atomic<bool> go;

void Handle(int) {
  delete new int(1);
  ++handled;
}

void* Fork(void*) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  long bad = 0;
  go = true;
  for (int i = 0; i < 10; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      delete new int(2);
      _exit(0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    bad += status != 0;
  }
  return reinterpret_cast<void*>(bad);
}

}  // namespace

int main() {
  struct sigaction action = {};
  action.sa_handler = Handle;
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  pthread_t thread;
  pthread_create(&thread, nullptr, Fork, nullptr);
  while (!go) {
  }
  const itimerval often = {{0, 100}, {0, 1}};
  setitimer(ITIMER_REAL, &often, nullptr);
  for (int i = 0; i < 100000 || handled < 20; ++i) delete new int(i);
  const itimerval never = {};
  setitimer(ITIMER_REAL, &never, nullptr);
  void* bad = nullptr;
  pthread_join(thread, &bad);
  printf("first_new: %s\n", bad ? "children failed" : "done");
  return bad != nullptr;
}
