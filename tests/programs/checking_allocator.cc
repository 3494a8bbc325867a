// An allocator that ends the program when a block is given back in another way than it was asked for: to be preloaded.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <new>

extern "C" {
void* __libc_malloc(size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);
}

namespace {

enum Way : uint64_t { kMalloc = 0x6d616c6c6f63, kNew = 0x6e6577, kNewArray = 0x6e65775b5d };

// The way lies in the last bytes before the block, `size` before it.
struct alignas(16) Header {
  uint64_t size;
  uint64_t way;
};

void* Make(size_t size, size_t alignment, Way way) {
  const size_t room = alignment < sizeof(Header) ? sizeof(Header) : alignment;
  if (size > SIZE_MAX - room) return nullptr;
  char* start = static_cast<char*>(room > 16 ? __libc_memalign(room, size + room) : __libc_malloc(size + room));
  if (!start) return nullptr;
  Header* header = reinterpret_cast<Header*>(start + room) - 1;
  header->size = size << 16 | static_cast<uint64_t>(__builtin_ctzl(room));
  header->way = way;
  return header + 1;
}

void End(void* block, Way way) {
  if (!block) return;
  Header* header = static_cast<Header*>(block) - 1;
  if (header->way != way) {
    const char text[] = "checking allocator: a block is given back in another way than it was asked for\n";
    (void)!write(2, text, sizeof(text) - 1);
    abort();
  }
  const size_t room = size_t{1} << (header->size & 0xffff);
  header->way = 0;
  __libc_free(static_cast<char*>(block) - room);
}

}  // namespace

extern "C" {
void* malloc(size_t size) { return Make(size, 0, kMalloc); }
void free(void* block) { End(block, kMalloc); }
void* calloc(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
  void* block = Make(bytes, 0, kMalloc);
  return block ? memset(block, 0, bytes) : nullptr;
}
void* realloc(void* old, size_t size) {
  void* block = Make(size, 0, kMalloc);
  if (block && old) {
    const size_t had = (static_cast<Header*>(old) - 1)->size >> 16;
    memcpy(block, old, had < size ? had : size);
    End(old, kMalloc);
  }
  return block;
}
void* memalign(size_t alignment, size_t size) { return Make(size, alignment, kMalloc); }
void* aligned_alloc(size_t alignment, size_t size) { return Make(size, alignment, kMalloc); }
int posix_memalign(void** block, size_t alignment, size_t size) { return (*block = Make(size, alignment, kMalloc)) ? 0 : 12; }
size_t malloc_usable_size(void* block) { return block ? (static_cast<Header*>(block) - 1)->size >> 16 : 0; }
}

void* operator new(size_t size) { return Make(size, 0, kNew); }
void* operator new[](size_t size) { return Make(size, 0, kNewArray); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return Make(size, 0, kNew); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return Make(size, 0, kNewArray); }
void* operator new(size_t size, std::align_val_t alignment) { return Make(size, static_cast<size_t>(alignment), kNew); }
void* operator new[](size_t size, std::align_val_t alignment) { return Make(size, static_cast<size_t>(alignment), kNewArray); }
void* operator new(size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept { return Make(size, static_cast<size_t>(alignment), kNew); }
void* operator new[](size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept { return Make(size, static_cast<size_t>(alignment), kNewArray); }
void operator delete(void* block) noexcept { End(block, kNew); }
void operator delete[](void* block) noexcept { End(block, kNewArray); }
void operator delete(void* block, const std::nothrow_t&) noexcept { End(block, kNew); }
void operator delete[](void* block, const std::nothrow_t&) noexcept { End(block, kNewArray); }
void operator delete(void* block, size_t) noexcept { End(block, kNew); }
void operator delete[](void* block, size_t) noexcept { End(block, kNewArray); }
void operator delete(void* block, std::align_val_t) noexcept { End(block, kNew); }
void operator delete[](void* block, std::align_val_t) noexcept { End(block, kNewArray); }
void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept { End(block, kNew); }
void operator delete[](void* block, std::align_val_t, const std::nothrow_t&) noexcept { End(block, kNewArray); }
void operator delete(void* block, size_t, std::align_val_t) noexcept { End(block, kNew); }
void operator delete[](void* block, size_t, std::align_val_t) noexcept { End(block, kNewArray); }
