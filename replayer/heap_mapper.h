// Says where the memory of a replay is: page tables, live blocks and pages once used, put side by side while
// the worker stands still.

#ifndef HEAPTAPE_REPLAYER_HEAP_MAPPER_H_
#define HEAPTAPE_REPLAYER_HEAP_MAPPER_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "replayer/results.h"
#include "replayer/worker/protocol.h"
#include "replayer/worker_process.h"

namespace heaptape {

// Judges what HeapMapper has read. `blocks` in any order; `resident_pages`: numbers of resident anonymous
// pages, ascending; `once_used` tells whether a block ever lay in a page; `baseline_bytes` of the pages are
// the replayer's own and hold no block. A pure function.
HeapMap JudgeHeapMap(std::vector<worker::LiveBlock> blocks, std::span<const std::uint64_t> resident_pages,
                     const std::function<bool(std::uint64_t page)>& once_used, std::uint64_t baseline_bytes);

class HeapMapper {
 public:
  // `process` must outlive it.
  explicit HeapMapper(const WorkerProcess& process) : process_(process) {}

  // After a kEntryMap that the worker has done. All zero but for the worker's own figures where the worker's
  // page tables cannot be read.
  HeapMap Map() const;

 private:
  const WorkerProcess& process_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_HEAP_MAPPER_H_
