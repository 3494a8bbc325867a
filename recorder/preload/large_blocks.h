// Large blocks (kBigBytes and more): their page probes, and the filter that tells at a free whether the block may be one.

#ifndef HEAPTAPE_RECORDER_PRELOAD_LARGE_BLOCKS_H_
#define HEAPTAPE_RECORDER_PRELOAD_LARGE_BLOCKS_H_

#include "recorder/preload/publish.h"

namespace heaptape {

// Records an event of a large block after a probe of its first `usable` bytes.
void RecordLarge(RawOp op, const void* pointer, std::uint64_t size, std::uint64_t usable, Extras extras);

inline bool MaybeLarge(const void* pointer) {
  const Region* region = process.region.load(memory_order_relaxed);
  return region && UNLIKELY(region->big_filter[BigFilterIndex(reinterpret_cast<std::uint64_t>(pointer))].load(
                       memory_order_relaxed));
}

// Asks the writer and waits, at most for `patience_ns`, until it has done it.
void AwaitWish(Region* region, LastWish wish, std::uint64_t patience_ns);

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_PRELOAD_LARGE_BLOCKS_H_
