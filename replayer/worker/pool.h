// The worker's own malloc: what the C library, the dynamic loader and the worker itself allocate comes from
// here, so that none of it ever enters the allocator under test.
//
// The pool is shared memory at a fixed address: its pages do not count as anonymous memory, and its growth
// moves no address the kernel hands to the allocator. Any thread may call. Never returns memory to the kernel.

#ifndef HEAPTAPE_REPLAYER_WORKER_POOL_H_
#define HEAPTAPE_REPLAYER_WORKER_POOL_H_

#include <cstddef>
#include <cstdint>

namespace heaptape::worker {

// The worker's own mappings lie in this part of the address space, above every address an allocator is
// known to ask for (mimalloc: up to 30 TiB) and below the program and the kernel's own choices.
inline constexpr std::uintptr_t kOwnAddresses = 0x3000'0000'0000;
inline constexpr std::uintptr_t kPoolAddress = kOwnAddresses;
inline constexpr std::size_t kPoolBytes = std::size_t{1} << 30;

void* PoolAllocate(std::size_t bytes, std::size_t alignment);
void PoolFree(void* block);

// From here on MapOwnMemory() gives private memory, present only where it is written: as any other program's.
void LetOwnMemoryCount();
// Maps `bytes` of zeroed shared memory at `address`, all of it present if `populate`. Null if the kernel refuses.
void* MapOwnMemory(std::uintptr_t address, std::size_t bytes, bool populate);

}  // namespace heaptape::worker

#endif  // HEAPTAPE_REPLAYER_WORKER_POOL_H_
