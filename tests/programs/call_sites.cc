// Allocates 4 MiB in blocks of 1 KiB from one known place, the same from a thread, then 1 MB from a library, and 1 MB
// more while that is loaded and unloaded for each block and a timer's handler allocates wherever it hits. Prints where the call of
// Leaf() returns to, as an offset within this program's file. argv[1]: the library, where there is to be one. argv[2]: a
// FIFO; before the library is unloaded for the first time it is opened and read to its end.
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

static const void* returns_to;

extern "C" __attribute__((noinline)) void* Leaf(size_t size) {
  returns_to = __builtin_return_address(0);
  void* volatile block = malloc(size);
  return block;
}

static __attribute__((noinline)) void* Middle(void* unused) {
  for (int i = 0; i < 4096; ++i) {
    void* volatile block = Leaf(1024);
    free(block);
  }
  return unused;
}

static int PrintOffset(dl_phdr_info* info, size_t, void*) {
  const size_t address = (size_t)returns_to;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const size_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    if (info->dlpi_phdr[i].p_type != PT_LOAD || address < start || address >= start + info->dlpi_phdr[i].p_memsz) continue;
    printf("%zu\n", address - start + info->dlpi_phdr[i].p_offset);
    return 1;
  }
  return 0;
}

static void Handler(int) { free(malloc(3000)); }

int main(int argc, char** argv) {
  Middle(nullptr);
  pthread_t thread;
  if (pthread_create(&thread, nullptr, Middle, nullptr) != 0) return 1;
  pthread_join(thread, nullptr);
  dl_iterate_phdr(PrintOffset, nullptr);
  if (argc > 1) {
    void* library = dlopen(argv[1], RTLD_NOW);
    if (!library) return 1;
    auto* allocate = (void* (*)(size_t))dlsym(library, "Allocate");
    for (int i = 0; i < 200; ++i) free(allocate(5000));
    if (argc > 2) {
      char byte;
      const int fifo = open(argv[2], O_RDONLY);
      if (fifo < 0 || read(fifo, &byte, 1) != 0) return 1;
      close(fifo);
    }
    dlclose(library);
  }
  // The C library's own allocator allows no handler that allocates.
  if (getenv("INTERRUPT")) {
    struct sigaction action = {};
    action.sa_handler = Handler;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, nullptr);
    const itimerval timer = {{0, 101}, {0, 101}};
    setitimer(ITIMER_REAL, &timer, nullptr);
  }
  for (int i = 0; argc > 1 && i < 200; ++i) {
    void* library = dlopen(argv[1], RTLD_NOW);
    if (!library) return 1;
    auto* allocate = (void* (*)(size_t))dlsym(library, "Allocate");
    free(allocate(5000));
    dlclose(library);
  }
  const itimerval off = {};
  setitimer(ITIMER_REAL, &off, nullptr);
  return 0;
}
