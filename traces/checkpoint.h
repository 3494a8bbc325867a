// The live set at one place of a trace, from which reading can start (FORMAT.md, "Checkpoints").

#ifndef HEAPTAPE_TRACES_CHECKPOINT_H_
#define HEAPTAPE_TRACES_CHECKPOINT_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "traces/event.h"

namespace heaptape {

struct CheckpointObject {
  std::uint32_t slot = 0;
  Op op = Op::kMalloc;             // StartsObject() holds; kRealloc for one that was reallocated
  std::uint8_t log2_alignment = 0;
  std::uint64_t size = 0;
  std::uint64_t number = 0;        // ascending

  friend bool operator==(const CheckpointObject&, const CheckpointObject&) = default;
};

struct Checkpoint {
  std::uint32_t slot_count = 0;              // slots that were ever in use
  std::vector<CheckpointObject> objects;     // in order of birth
  std::vector<std::uint32_t> free_slots;     // the last is taken first
  std::vector<std::uint16_t> threads;        // alive, ascending
};

// Its columns, to be compressed.
void EncodeCheckpoint(const Checkpoint& checkpoint, std::vector<std::uint8_t>& out);
// DataLoss where the bytes make no sense. Slots are checked to be below slot_count, not to be distinct.
absl::Status DecodeCheckpoint(std::span<const std::uint8_t> bytes, Checkpoint& checkpoint);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_CHECKPOINT_H_
