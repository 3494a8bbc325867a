#include "replayer/worker/pool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <atomic>

#include "replayer/worker/kernel.h"

namespace heaptape::worker {
namespace {

// Blocks are powers of two, kept in one free list per size: thread stacks and loader tables come and go in
// few sizes. The header stands right before the block.
struct Header {
  std::uint32_t class_index;
  std::uint32_t magic;
  std::uint64_t offset;  // from the start of the underlying chunk to the block
};
constexpr std::uint32_t kMagic = 0x70616574;
constexpr int kSmallestClass = 6;  // 64 bytes
constexpr int kClasses = 40;

struct FreeChunk {
  FreeChunk* next;
};

std::atomic_flag lock = ATOMIC_FLAG_INIT;
char* pool_next = nullptr;
char* pool_end = nullptr;
FreeChunk* free_chunks[kClasses];
bool own_memory_counts = false;

class Guard {
 public:
  Guard() {
    while (lock.test_and_set(std::memory_order_acquire)) Kernel(SYS_sched_yield);
  }
  ~Guard() { lock.clear(std::memory_order_release); }
};

char* TakeChunk(int index) {
  Guard guard;
  if (FreeChunk* chunk = free_chunks[index]) {
    free_chunks[index] = chunk->next;
    return reinterpret_cast<char*>(chunk);
  }
  if (pool_next == nullptr) {
    void* pool = MapOwnMemory(kPoolAddress, kPoolBytes, false);
    if (pool == nullptr) return nullptr;
    pool_next = static_cast<char*>(pool);
    pool_end = pool_next + kPoolBytes;
  }
  const std::size_t bytes = std::size_t{1} << index;
  if (bytes > static_cast<std::size_t>(pool_end - pool_next)) return nullptr;
  char* chunk = pool_next;
  pool_next += bytes;
  return chunk;
}

}  // namespace

void LetOwnMemoryCount() { own_memory_counts = true; }

void* MapOwnMemory(std::uintptr_t address, std::size_t bytes, bool populate) {
  const int kind = own_memory_counts ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED | (populate ? MAP_POPULATE : MAP_NORESERVE);
  const int flags = MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | kind;
  const long result = Kernel(SYS_mmap, address, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  return IsKernelError(result) ? nullptr : reinterpret_cast<void*>(result);
}

void* PoolAllocate(std::size_t bytes, std::size_t alignment) {
  if (alignment < alignof(std::max_align_t)) alignment = alignof(std::max_align_t);
  if (bytes > kPoolBytes || alignment > kPoolBytes) return nullptr;
  const std::size_t need = bytes + sizeof(Header) + (alignment > 16 ? alignment : 0);
  int index = kSmallestClass;
  while ((std::size_t{1} << index) < need) ++index;
  char* chunk = TakeChunk(index);
  if (chunk == nullptr) return nullptr;
  std::uintptr_t block = reinterpret_cast<std::uintptr_t>(chunk) + sizeof(Header);
  block = (block + alignment - 1) & ~(alignment - 1);
  Header* header = reinterpret_cast<Header*>(block) - 1;
  header->class_index = static_cast<std::uint32_t>(index);
  header->magic = kMagic;
  header->offset = block - reinterpret_cast<std::uintptr_t>(chunk);
  return reinterpret_cast<void*>(block);
}

void PoolFree(void* block) {
  if (block == nullptr) return;
  Header* header = static_cast<Header*>(block) - 1;
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(block);
  if (address < kPoolAddress || address >= kPoolAddress + kPoolBytes || header->magic != kMagic) return;
  const std::uint32_t index = header->class_index;
  header->magic = 0;
  auto* chunk = reinterpret_cast<FreeChunk*>(address - header->offset);
  Guard guard;
  chunk->next = free_chunks[index];
  free_chunks[index] = chunk;
}

namespace {

std::size_t BlockBytes(void* block) {
  const Header* header = static_cast<Header*>(block) - 1;
  return (std::size_t{1} << header->class_index) - header->offset;
}

}  // namespace
}  // namespace heaptape::worker

// The names the C library and the loader call. Exported by worker.exports.
extern "C" {

__attribute__((visibility("default"))) void* malloc(std::size_t bytes) {
  return heaptape::worker::PoolAllocate(bytes, 16);
}

__attribute__((visibility("default"))) void free(void* block) { heaptape::worker::PoolFree(block); }

__attribute__((visibility("default"))) void* calloc(std::size_t count, std::size_t bytes) {
  std::size_t total;
  if (__builtin_mul_overflow(count, bytes, &total)) return nullptr;
  void* block = heaptape::worker::PoolAllocate(total, 16);
  if (block != nullptr) memset(block, 0, total);
  return block;
}

__attribute__((visibility("default"))) void* realloc(void* old, std::size_t bytes) {
  if (old == nullptr) return malloc(bytes);
  const std::size_t have = heaptape::worker::BlockBytes(old);
  if (bytes <= have) return old;
  void* block = malloc(bytes);
  if (block == nullptr) return nullptr;
  memcpy(block, old, have);
  free(old);
  return block;
}

__attribute__((visibility("default"))) int posix_memalign(void** result, std::size_t alignment, std::size_t bytes) {
  *result = heaptape::worker::PoolAllocate(bytes, alignment);
  return *result == nullptr ? ENOMEM : 0;
}

__attribute__((visibility("default"))) void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return heaptape::worker::PoolAllocate(bytes, alignment);
}

__attribute__((visibility("default"))) void* memalign(std::size_t alignment, std::size_t bytes) {
  return heaptape::worker::PoolAllocate(bytes, alignment);
}

}  // extern "C"
