// An allocator that goes wrong in one way, after a number of mallocs. Both come from the environment:
// MISBEHAVE_HOW (null, crash, abort, hang, eat, nothing), MISBEHAVE_AFTER.

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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
    if (strcmp(how, "eat") == 0) {
      char* meal = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (meal != MAP_FAILED) memset(meal, 1, 1 << 20);
    }
  }
  return Take(bytes);
}

EXPORT void free(void* block) { (void)block; }
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
