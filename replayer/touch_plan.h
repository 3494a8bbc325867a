// Which pages of the large blocks a replay writes to, from what the recording saw of them.
//
// The recording knows, for blocks of 64 KiB and more, the pages present when the block was handed out and
// when it was given back. A fresh block shows exactly what the program touched; of a recycled one (present
// from its former life) only the pages added are certain, and the mean share of the fresh blocks of its
// size class seen before stands in for the rest. Of a block that nothing is known of, no more is written than the
// process ever had resident. ENGINE.md says where this can be wrong.

#ifndef HEAPTAPE_REPLAYER_TOUCH_PLAN_H_
#define HEAPTAPE_REPLAYER_TOUCH_PLAN_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "replayer/worker/protocol.h"
#include "traces/event.h"
#include "traces/trace_info.h"

namespace heaptape {

class TouchPlan {
 public:
  // `most_resident_bytes`: what the recorded process had resident at most.
  TouchPlan(std::vector<TouchRecord> records, std::uint64_t slot_count, std::uint64_t most_resident_bytes = ~std::uint64_t{0});

  bool empty() const { return objects_.empty(); }

  // Whether Next() has anything to do with this event: a large block, or an object with records.
  bool Concerns(const Event& event, bool starts, std::uint64_t object) const {
    if (starts) return event.size >= worker::kLargeBlockBytes || object >= next_recorded_ || HasRecords(event.slot);
    return (event.op == Op::kRealloc || event.op == Op::kReallocArray) &&
           (event.size >= worker::kLargeBlockBytes || HasRecords(event.slot));
  }

  // To be told every event it concerns, in order. `object` is the number of the
  // object started (ignored otherwise). The result is valid until the next call.
  std::span<const PageRange> Next(const Event& event, std::uint64_t object);

 private:
  struct ObjectRecords {
    std::uint64_t object;
    std::uint32_t first;  // into records_
    std::uint32_t count;
  };
  // First of the allocation, last of the end: a resized block keeps its number.
  struct Records {
    const TouchRecord* at_allocation = nullptr;
    const TouchRecord* at_free = nullptr;
    bool any() const { return at_allocation != nullptr || at_free != nullptr; }
  };
  struct Share {
    double sum = 0;
    std::uint64_t count = 0;
  };

  bool HasRecords(std::uint32_t slot) const { return slot < has_records_.size() && has_records_[slot]; }
  Records RecordsOf(const ObjectRecords& object) const;
  void SetNextRecorded(std::size_t index);
  std::span<const PageRange> FirstPages(std::uint64_t pages);
  std::span<const PageRange> Estimate(const Records& records, std::uint64_t bytes, Op op);

  const std::uint64_t most_resident_bytes_;
  std::vector<TouchRecord> records_;    // by object, then in the order recorded
  std::vector<ObjectRecords> objects_;  // ascending
  std::size_t next_object_ = 0;         // into objects_
  std::uint64_t next_recorded_ = ~std::uint64_t{0};  // number of that object
  absl::flat_hash_map<std::uint32_t, Records> live_;  // by slot, where has_records_ says so
  std::vector<bool> has_records_;                  // by slot
  std::array<Share, 64> shares_;                   // of fresh blocks, by log2 of the size
  std::vector<PageRange> result_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_TOUCH_PLAN_H_
