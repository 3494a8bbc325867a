// Says where the memory of a replay is: page tables, live blocks and pages once used, put side by side while
// the worker stands still.

#ifndef HEAPTAPE_REPLAYER_HEAP_MAPPER_H_
#define HEAPTAPE_REPLAYER_HEAP_MAPPER_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "replayer/call_sites.h"
#include "replayer/results.h"
#include "replayer/worker/protocol.h"
#include "replayer/worker_process.h"

namespace heaptape {

// Judges what HeapMapper has read. `blocks` in any order; `resident_pages`: numbers of resident anonymous
// pages, ascending; `once_used` tells whether a block ever lay in a page; `baseline_bytes` of the pages are
// the replayer's own and hold no block. `share`, where given, is told of each block's share of the bytes that are
// free in a page it lies in; the shares add up to partly_free_bytes. A pure function.
HeapMap JudgeHeapMap(std::vector<worker::LiveBlock> blocks, std::span<const std::uint64_t> resident_pages,
                     const std::function<bool(std::uint64_t page)>& once_used, std::uint64_t baseline_bytes,
                     const std::function<void(const worker::LiveBlock& block, double bytes)>& share = nullptr);

class HeapMapper {
 public:
  // `process` must outlive it.
  explicit HeapMapper(const WorkerProcess& process) : process_(process) {}

  // After a kEntryMap that the worker has done. All zero but for the worker's own figures where the worker's
  // page tables cannot be read. `call_sites` may be null.
  HeapMap Map(const CallSites* call_sites) const;

 private:
  const WorkerProcess& process_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_HEAP_MAPPER_H_
