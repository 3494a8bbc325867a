// The baseline allocator: blocks are cut off one after another and never used again.
//
// Holds no lock: the end of the heap is one atomic counter. Blocks are 16-byte aligned, with their size in
// the 16 bytes before them. Address range is reserved once, so that the kernel alone bounds the heap.

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { kAlignment = 16 };
static const size_t kRangeBytes = (size_t)1 << 40;

static _Atomic(uintptr_t) end_of_heap;
static uintptr_t limit;

__attribute__((constructor)) static void ReserveRange(void) {
  void* range = mmap(NULL, kRangeBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return;
  limit = (uintptr_t)range + kRangeBytes;
  atomic_store(&end_of_heap, (uintptr_t)range);
}

static size_t* SizeOf(void* block) { return (size_t*)((char*)block - kAlignment); }

static void* Cut(size_t alignment, size_t size) {
  // Room for the size, for the alignment and for rounding up; beyond the range there is nothing to cut.
  if (size > kRangeBytes || alignment > kRangeBytes) goto out_of_memory;
  const size_t needed = (size + kAlignment - 1) / kAlignment * kAlignment + kAlignment + (alignment - kAlignment);
  uintptr_t begin = atomic_load_explicit(&end_of_heap, memory_order_relaxed);
  do {
    if (begin == 0 || needed > limit - begin) goto out_of_memory;
  } while (!atomic_compare_exchange_weak_explicit(&end_of_heap, &begin, begin + needed, memory_order_relaxed,
                                                  memory_order_relaxed));
  void* block = (void*)((begin + kAlignment + alignment - 1) / alignment * alignment);
  *SizeOf(block) = size;
  return block;
out_of_memory:
  errno = ENOMEM;
  return NULL;
}

static int IsAlignment(size_t alignment) { return alignment != 0 && (alignment & (alignment - 1)) == 0; }
static size_t AtLeastDefault(size_t alignment) { return alignment < kAlignment ? kAlignment : alignment; }

EXPORT const char* heaptape_bump_version(void) { return HEAPTAPE_VERSION; }

EXPORT void* malloc(size_t size) { return Cut(kAlignment, size); }

EXPORT void free(void* block) { (void)block; }

EXPORT void* calloc(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) {
    errno = ENOMEM;
    return NULL;
  }
  return Cut(kAlignment, bytes);  // fresh from the kernel, so zero
}

EXPORT void* realloc(void* block, size_t size) {
  if (block == NULL) return Cut(kAlignment, size);
  if (size == 0) return NULL;
  const size_t old_size = *SizeOf(block);
  if (size <= old_size) {
    *SizeOf(block) = size;
    return block;
  }
  void* moved = Cut(kAlignment, size);
  if (moved != NULL) memcpy(moved, block, old_size);
  return moved;
}

// Behind its own name: a call of an exported one may reach another library's.
static void* CutAligned(size_t alignment, size_t size) {
  if (!IsAlignment(alignment)) {
    errno = EINVAL;
    return NULL;
  }
  return Cut(AtLeastDefault(alignment), size);
}

EXPORT void* memalign(size_t alignment, size_t size) { return CutAligned(alignment, size); }

EXPORT void* aligned_alloc(size_t alignment, size_t size) { return CutAligned(alignment, size); }

EXPORT int posix_memalign(void** block, size_t alignment, size_t size) {
  if (!IsAlignment(alignment) || alignment % sizeof(void*) != 0) return EINVAL;
  const int errno_before = errno;
  void* cut = Cut(AtLeastDefault(alignment), size);
  errno = errno_before;
  if (cut == NULL) return ENOMEM;
  *block = cut;
  return 0;
}

EXPORT void* valloc(size_t size) { return CutAligned((size_t)sysconf(_SC_PAGESIZE), size); }

EXPORT void* pvalloc(size_t size) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t bytes;
  if (__builtin_add_overflow(size, page - 1, &bytes)) {
    errno = ENOMEM;
    return NULL;
  }
  return CutAligned(page, bytes / page * page);
}

EXPORT size_t malloc_usable_size(void* block) { return block == NULL ? 0 : *SizeOf(block); }
