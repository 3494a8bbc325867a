// Blocks of parity, from which one damaged block of events among many is repaired (FORMAT.md, "Parity").

#ifndef HEAPTAPE_TRACES_PARITY_H_
#define HEAPTAPE_TRACES_PARITY_H_

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "traces/format.h"

namespace heaptape {

struct CoveredBlock {
  std::uint64_t offset = 0;  // in the file
  std::uint64_t bytes = 0;   // header and payload

  friend bool operator==(const CoveredBlock&, const CoveredBlock&) = default;
};

// Gathers blocks as they are written. Memory: that of the longest block.
class ParityWriter {
 public:
  void Add(std::uint64_t offset, std::span<const std::uint8_t> header, std::span<const std::uint8_t> payload);
  bool IsDue() const {
    return !blocks_.empty() && (bytes_ >= format::kParityShare * parity_.size() || blocks_.size() >= format::kMaxParityBlocks);
  }
  bool IsWorthItAtTheEnd() const { return !blocks_.empty() && bytes_ >= format::kLastParityShare * parity_.size(); }
  // The payload of a parity block at `offset` of the file for the blocks gathered, and begins anew.
  void Finish(std::uint64_t offset, std::vector<std::uint8_t>& payload);

 private:
  std::vector<CoveredBlock> blocks_;
  std::vector<std::uint8_t> parity_;
  std::uint64_t bytes_ = 0;
};

// What a parity block at `offset` says: which blocks it covers, ascending and apart, all between `from` and itself, none
// longer than `parity`. False where it makes no sense.
bool DecodeParity(std::span<const std::uint8_t> payload, std::uint64_t offset, std::uint64_t from,
                  std::vector<CoveredBlock>& blocks, std::span<const std::uint8_t>& parity);

// Adds (exclusive or) `bytes` to the start of `sum`, which is as long at least.
inline void AddParity(std::span<const std::uint8_t> bytes, std::uint8_t* sum) {
  for (std::size_t i = 0; i < bytes.size(); ++i) sum[i] ^= bytes[i];
}

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_PARITY_H_
