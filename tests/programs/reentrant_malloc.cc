// An allocator that a signal handler may enter at any time: a counter over a large reservation, nothing is
// ever reused. Preloaded below the recorder, it lets a test hit the recorder's own code with signals.
#include <stddef.h>
#include <sys/mman.h>

static const size_t kArenaBytes = (size_t)16 << 30;
static char* arena;
static size_t used;

static char* Arena() {
  char* there = __atomic_load_n(&arena, __ATOMIC_ACQUIRE);
  if (there) return there;
  char* fresh = (char*)mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (__atomic_compare_exchange_n(&arena, &there, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return fresh;
  munmap(fresh, kArenaBytes);
  return there;
}

static void* Take(size_t size, size_t alignment) {
  const size_t take = (size + 2 * alignment + 15) & ~(size_t)15;
  const size_t at = __atomic_fetch_add(&used, take, __ATOMIC_RELAXED);
  if (at + take > kArenaBytes) return nullptr;
  const size_t block = ((size_t)Arena() + at + 16 + alignment - 1) & ~(alignment - 1);
  ((size_t*)block)[-1] = size;
  return (void*)block;
}

extern "C" void* malloc(size_t size) { return Take(size, 16); }
extern "C" void free(void*) {}
extern "C" void* calloc(size_t count, size_t size) { return Take(count * size, 16); }
extern "C" void* realloc(void* old, size_t size) {
  char* fresh = (char*)Take(size, 16);
  for (size_t i = 0; old && fresh && i < size && i < ((size_t*)old)[-1]; ++i) fresh[i] = ((char*)old)[i];
  return fresh;
}
extern "C" void* memalign(size_t alignment, size_t size) { return Take(size, alignment < 16 ? 16 : alignment); }
extern "C" void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
extern "C" int posix_memalign(void** result, size_t alignment, size_t size) {
  *result = memalign(alignment, size);
  return 0;
}
extern "C" size_t malloc_usable_size(void* block) { return block ? ((size_t*)block)[-1] : 0; }
