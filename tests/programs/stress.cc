// Everything that disturbs a recorder, at random and all at once, for argv[1] milliseconds or longer: signals whose handlers
// allocate wherever they hit, threads that are born and die with destructors that free late, blocks handed from
// thread to thread, forks, vforks, threads and children within seccomp filters, a library (argv[2]) that comes and goes. Runs on reentrant_malloc, which allows it
// all. Prints how many blocks of kMarked bytes were allocated; a recording must have as many.
#include <dlfcn.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kMarked = 7777, kThreads = 8, kShelf = 64 };

static long marked;
static void* shelf[kShelf];
static pthread_key_t key;
static volatile bool stop;

static unsigned Random(unsigned* seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return *seed >> 8;
}

// Freed after the recorder's own destructor has had its turn.
static void Late(void* block) {
  static thread_local int rounds;
  free(block);
  if (++rounds < PTHREAD_DESTRUCTOR_ITERATIONS) pthread_setspecific(key, malloc(500 + rounds));
}

struct Late2 {
  void* block = malloc(600);
  ~Late2() { free(block); }
};

static void Handler(int) {
  void* volatile block = malloc(48);
  free(block);
  void* volatile wanted = malloc(kMarked);
  __atomic_fetch_add(&marked, 1, __ATOMIC_RELAXED);
  free(wanted);
}

// Kills for what the recorder once did and the program does not.
static void EnterFilter() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_gettid, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog filter = {sizeof(program) / sizeof(*program), program};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) _exit(4);
}

static void* Live(void* argument) {
  static thread_local Late2 late;
  unsigned seed = (unsigned)(size_t)argument;
  pthread_setspecific(key, late.block ? malloc(500) : nullptr);
  if (Random(&seed) % 16 == 0) EnterFilter();
  for (int burst = 0; burst < 1 + (int)(Random(&seed) % 8); ++burst) {
    for (int i = 0; i < 20; ++i) {
      void* mine = malloc(16 + Random(&seed) % 300);
      if (i % 8 == 0) mine = realloc(mine, 400 + Random(&seed) % 4000);
      free(__atomic_exchange_n(&shelf[Random(&seed) % kShelf], mine, __ATOMIC_ACQ_REL));
    }
    usleep(2000);
  }
  return nullptr;
}

static void* Raise(void* argument) {
  unsigned seed = 7;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  while (!stop) {
    usleep(200 + Random(&seed) % 2000);
    kill(getpid(), SIGUSR1);  // whichever thread the kernel likes
  }
  return argument;
}

static double Seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const double end = Seconds() + atof(argv[1]) / 1e3;
  pthread_key_create(&key, Late);
  struct sigaction action = {};
  action.sa_handler = Handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  const itimerval timer = {{0, 3001}, {0, 3001}};
  setitimer(ITIMER_REAL, &timer, nullptr);
  pthread_t raiser;
  pthread_create(&raiser, nullptr, Raise, nullptr);
  unsigned seed = 1;
  while (Seconds() < end || __atomic_load_n(&marked, __ATOMIC_RELAXED) < 200) {
    pthread_t threads[kThreads];
    for (pthread_t& thread : threads) {
      if (pthread_create(&thread, nullptr, Live, (void*)(size_t)Random(&seed)) != 0) return 1;
    }
    if (void* library = dlopen(argv[2], RTLD_NOW)) {
      free(((void* (*)(size_t))dlsym(library, "Allocate"))(700));
      dlclose(library);
    }
    const unsigned chance = Random(&seed) % 4;
    const pid_t child = chance == 0 ? fork() : chance == 1 ? vfork() : -1;
    if (child == 0 && chance == 0) {
      if (Random(&seed) % 2 == 0) EnterFilter();
      for (int i = 0; i < 100; ++i) free(malloc(900));
      _exit(0);
    }
    if (child == 0) {
      execl("/bin/true", "true", nullptr);
      _exit(127);
    }
    for (pthread_t thread : threads) pthread_join(thread, nullptr);
    if (child > 0) {
      int status;
      while (waitpid(child, &status, 0) < 0) {
      }
      if (status != 0) return 3;
    }
  }
  stop = true;
  pthread_join(raiser, nullptr);
  const itimerval off = {};
  setitimer(ITIMER_REAL, &off, nullptr);
  signal(SIGUSR1, SIG_IGN);
  for (void* block : shelf) free(block);
  char text[32];
  snprintf(text, sizeof(text), "%ld\n", marked);
  (void)!write(1, text, strlen(text));
  return 0;
}
