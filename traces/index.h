// The last block of a finished trace: why it ended, where reading can start, and its description once more.

#ifndef HEAPTAPE_TRACES_INDEX_H_
#define HEAPTAPE_TRACES_INDEX_H_

#include <cstdint>
#include <span>
#include <vector>

#include "traces/trace_info.h"

namespace heaptape {

enum class TraceEnd : std::uint8_t { kFinished = 0, kSizeLimit = 1, kDiskFull = 2 };

struct TraceIndex {
  struct Restart {
    std::uint64_t offset = 0;  // of the checkpoint block
    std::uint64_t event = 0;   // events before it
  };
  TraceEnd end = TraceEnd::kFinished;
  std::vector<Restart> restarts;  // ascending
  TraceInfo info;
};

void EncodeIndex(const TraceIndex& index, std::vector<std::uint8_t>& out);
// False where the bytes make no sense. Offsets are not checked against any file.
bool DecodeIndex(std::span<const std::uint8_t> bytes, TraceIndex& index);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_INDEX_H_
