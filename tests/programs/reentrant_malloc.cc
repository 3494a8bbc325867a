// An allocator that a signal handler may enter at any time: a counter over a large reservation, and a list without
// locks for each size. Preloaded below the recorder, it lets a test hit the recorder's own code with signals.
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

static const size_t kArenaBytes = (size_t)16 << 30;
static char* arena;
static size_t used;
static uint64_t lists[64];  // of free blocks of 2^i bytes: place of the first in units of 16 bytes, above it a counter
static const unsigned kPlaceBits = 30;

struct Header {  // before each block
  uint32_t next;  // in its list
  uint32_t size_class;  // 0: never used again
  size_t size;
};

static char* Arena() {
  char* there = __atomic_load_n(&arena, __ATOMIC_ACQUIRE);
  if (there) return there;
  char* fresh = (char*)mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (__atomic_compare_exchange_n(&arena, &there, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return fresh;
  munmap(fresh, kArenaBytes);
  return there;
}

static Header* HeaderOf(void* block) { return (Header*)block - 1; }

static void* Bump(size_t size, size_t alignment, unsigned size_class) {
  const size_t take = (size + 2 * alignment + sizeof(Header) + 15) & ~(size_t)15;
  const size_t at = __atomic_fetch_add(&used, take, __ATOMIC_RELAXED);
  if (at + take > kArenaBytes) return nullptr;
  const size_t block = ((size_t)Arena() + at + sizeof(Header) + alignment - 1) & ~(alignment - 1);
  HeaderOf((void*)block)->size_class = size_class;
  return (void*)block;
}

static void* Take(size_t size) {
  if (size > kArenaBytes) return nullptr;
  unsigned size_class = 5;
  while (((size_t)1 << size_class) < size) ++size_class;
  uint64_t* list = &lists[size_class];
  uint64_t head = __atomic_load_n(list, __ATOMIC_ACQUIRE);
  void* block = nullptr;
  while (const uint64_t place = head & (((uint64_t)1 << kPlaceBits) - 1)) {
    void* first = arena + place * 16;
    const uint64_t rest = ((head >> kPlaceBits) + 1) << kPlaceBits | __atomic_load_n(&HeaderOf(first)->next, __ATOMIC_RELAXED);
    if (!__atomic_compare_exchange_n(list, &head, rest, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) continue;
    block = first;
    break;
  }
  if (!block) block = Bump((size_t)1 << size_class, 16, size_class);
  if (block) HeaderOf(block)->size = size;
  return block;
}

// Not free() itself: that is the recorder's.
static void Give(void* block) {
  if (!block || HeaderOf(block)->size_class == 0) return;
  uint64_t* list = &lists[HeaderOf(block)->size_class];
  uint64_t head = __atomic_load_n(list, __ATOMIC_ACQUIRE);
  uint64_t changed;
  do {
    __atomic_store_n(&HeaderOf(block)->next, (uint32_t)(head & (((uint64_t)1 << kPlaceBits) - 1)), __ATOMIC_RELAXED);
    changed = ((head >> kPlaceBits) + 1) << kPlaceBits | ((size_t)((char*)block - arena) / 16);
  } while (!__atomic_compare_exchange_n(list, &head, changed, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
}

extern "C" void* malloc(size_t size) { return Take(size); }
extern "C" void free(void* block) { Give(block); }

extern "C" void* calloc(size_t count, size_t size) {
  char* block = (char*)Take(count * size);
  for (size_t i = 0; block && i < count * size; ++i) ((volatile char*)block)[i] = 0;
  return block;
}

extern "C" void* realloc(void* old, size_t size) {
  char* fresh = (char*)Take(size);
  for (size_t i = 0; old && fresh && i < size && i < HeaderOf(old)->size; ++i) fresh[i] = ((char*)old)[i];
  if (fresh) Give(old);
  return fresh;
}

extern "C" void* memalign(size_t alignment, size_t size) {
  if (alignment <= 16) return Take(size);
  void* block = Bump(size, alignment, 0);
  if (block) HeaderOf(block)->size = size;
  return block;
}
extern "C" void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
extern "C" int posix_memalign(void** result, size_t alignment, size_t size) {
  *result = memalign(alignment, size);
  return 0;
}
extern "C" size_t malloc_usable_size(void* block) { return block ? HeaderOf(block)->size : 0; }
