// An allocator whose memory is shared, not anonymous: what anonymous memory a program still has when it is
// preloaded is all its own (stacks, data, mappings it makes by itself). Speed and thrift do not matter.

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define EXPORT __attribute__((visibility("default")))

enum { kClasses = 48 };
static const size_t kRegionBytes = (size_t)64 << 30;
static char* next;
static char* end;
static void* free_blocks[kClasses];
static volatile int locked;

struct Header {
  size_t class_index;
  size_t unused;
};

static void Lock(void) {
  while (__atomic_exchange_n(&locked, 1, __ATOMIC_ACQUIRE)) __builtin_ia32_pause();
}
static void Unlock(void) { __atomic_store_n(&locked, 0, __ATOMIC_RELEASE); }

static void* Take(size_t bytes, size_t alignment) {
  // Blocks of a class are powers of two; an aligned one is never given back.
  size_t index = 5;
  while (((size_t)1 << index) < bytes + sizeof(struct Header)) ++index;
  char* block = NULL;
  Lock();
  if (next == NULL) {
    next = mmap(NULL, kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    end = next + kRegionBytes;
  }
  if (alignment <= 16 && free_blocks[index] != NULL) {
    block = free_blocks[index];
    free_blocks[index] = *(void**)block;
  } else {
    uintptr_t at = (uintptr_t)next + sizeof(struct Header);
    at = (at + alignment - 1) & ~(uintptr_t)(alignment - 1);
    block = (char*)at;
    next = block - sizeof(struct Header) + ((size_t)1 << index);
    if (next > end) block = NULL;
  }
  Unlock();
  if (block == NULL) {
    errno = ENOMEM;
    return NULL;
  }
  ((struct Header*)block)[-1].class_index = alignment <= 16 ? index : index + kClasses;
  return block;
}

static size_t Usable(void* block) {
  const size_t index = ((struct Header*)block)[-1].class_index % kClasses;
  return ((size_t)1 << index) - sizeof(struct Header);
}

EXPORT void* malloc(size_t bytes) { return Take(bytes, 16); }
EXPORT void free(void* block) {
  if (block == NULL) return;
  const size_t index = ((struct Header*)block)[-1].class_index;
  if (index >= kClasses) return;
  Lock();
  *(void**)block = free_blocks[index];
  free_blocks[index] = block;
  Unlock();
}
EXPORT void* calloc(size_t count, size_t bytes) {
  size_t total;
  if (__builtin_mul_overflow(count, bytes, &total)) return NULL;
  void* block = Take(total, 16);
  return block == NULL ? NULL : memset(block, 0, total);
}
EXPORT void* realloc(void* old, size_t bytes) {
  if (old == NULL) return Take(bytes, 16);
  if (bytes <= Usable(old)) return old;
  void* block = Take(bytes, 16);
  if (block != NULL) {
    memcpy(block, old, Usable(old));
    free(old);
  }
  return block;
}
EXPORT void* memalign(size_t alignment, size_t bytes) { return Take(bytes, alignment < 16 ? 16 : alignment); }
EXPORT void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
EXPORT int posix_memalign(void** result, size_t alignment, size_t bytes) {
  *result = memalign(alignment, bytes);
  return *result == NULL ? ENOMEM : 0;
}
EXPORT void* valloc(size_t bytes) { return memalign(4096, bytes); }
EXPORT size_t malloc_usable_size(void* block) { return block == NULL ? 0 : Usable(block); }
