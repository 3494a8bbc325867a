// An allocator that goes wrong in one way, after a number of mallocs. Both come from the environment:
// MISBEHAVE_HOW (null, crash, abort, hang, eat, reach, lazy, nothing), MISBEHAVE_AFTER.

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static char* next;
static char* end;
static unsigned long calls;
static unsigned long after = ~0ul;
static const char* how = "nothing";

__attribute__((constructor)) static void ReadOrders(void) {
  if (getenv("MISBEHAVE_HOW")) how = getenv("MISBEHAVE_HOW");
  if (getenv("MISBEHAVE_AFTER")) after = strtoul(getenv("MISBEHAVE_AFTER"), NULL, 10);
}

static void* Take(size_t bytes) {
  bytes = (bytes + 31) & ~(size_t)15;
  if ((size_t)(end - next) < bytes) {
    const size_t chunk = bytes > (64u << 20) ? bytes : (64u << 20);
    next = mmap(NULL, chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (next == MAP_FAILED) return NULL;
    end = next + chunk;
  }
  char* block = next + 16;
  *(size_t*)next = bytes - 16;
  next += bytes;
  return block;
}

// Reaches for what is not an allocator's business, and gives up loudly where it gets any of it.
static void Reach(void) {
  char* const no_arguments[] = {NULL};
  const char* got = NULL;
  if (socket(AF_INET, SOCK_STREAM, 0) >= 0) got = "the network";
  if (fork() >= 0) got = "a process of its own";
  if (execve("/bin/true", no_arguments, no_arguments) == 0) got = "another program";
  if (kill(getppid(), 0) == 0) got = "its parent";
  if (ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) == 0) got = "its parent's insides";
  if (open("/tmp/heaptape-reached", O_WRONLY | O_CREAT, 0600) >= 0) got = "a file";
  if (unlink("/tmp") == 0 || rename("/tmp", "/tmp2") == 0) got = "the file system";
  if (open("/proc/self/mem", O_RDWR) >= 0) got = "its own memory by a file";
  if (got != NULL) {
    fprintf(stderr, "misbehaving: reached %s\n", got);
    abort();
  }
}

EXPORT void* malloc(size_t bytes) {
  if (++calls > after) {
    if (strcmp(how, "null") == 0) return NULL;
    if (strcmp(how, "crash") == 0) *(volatile int*)8 = 1;
    if (strcmp(how, "abort") == 0) {
      fputs("misbehaving: giving up\n", stderr);
      abort();
    }
    if (strcmp(how, "hang") == 0) {
      for (;;) __asm__ volatile("pause");
    }
    if (strcmp(how, "reach") == 0 && calls == after + 1) Reach();
    if (strcmp(how, "eat") == 0) {
      char* meal = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (meal != MAP_FAILED) memset(meal, 1, 1 << 20);
    }
  }
  return Take(bytes);
}

EXPORT void free(void* block) {
  if (block == NULL || strcmp(how, "lazy") != 0) return;
  const uintptr_t start = ((uintptr_t)block + 4095) & ~(uintptr_t)4095;
  const uintptr_t stop = ((uintptr_t)block + ((size_t*)block)[-2]) & ~(uintptr_t)4095;
  if (start < stop) madvise((void*)start, stop - start, MADV_FREE);
}
EXPORT void* calloc(size_t count, size_t bytes) { return malloc(count * bytes); }
EXPORT void* realloc(void* old, size_t bytes) {
  char* block = malloc(bytes);
  if (block && old) {
    const size_t have = ((size_t*)old)[-2];
    memcpy(block, old, have < bytes ? have : bytes);
  }
  return block;
}
EXPORT int posix_memalign(void** result, size_t alignment, size_t bytes) {
  char* block = malloc(bytes + alignment);
  *result = block ? (void*)(((uintptr_t)block + alignment - 1) & ~(uintptr_t)(alignment - 1)) : NULL;
  return block ? 0 : 12;
}
