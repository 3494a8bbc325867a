#include "traces/parity.h"

namespace heaptape {

void ParityWriter::Add(std::uint64_t offset, std::span<const std::uint8_t> header, std::span<const std::uint8_t> payload) {
  const std::uint64_t bytes = header.size() + payload.size();
  blocks_.push_back({offset, bytes});
  bytes_ += bytes;
  if (parity_.size() < bytes) parity_.resize(bytes);
  AddParity(header, parity_.data());
  AddParity(payload, parity_.data() + header.size());
}

void ParityWriter::Finish(std::uint64_t offset, std::vector<std::uint8_t>& payload) {
  format::PutVarint(payload, blocks_.size());
  format::PutVarint(payload, offset - blocks_.front().offset);
  std::uint64_t end = blocks_.front().offset;
  for (const CoveredBlock& block : blocks_) {
    format::PutVarint(payload, block.offset - end);
    format::PutVarint(payload, block.bytes);
    end = block.offset + block.bytes;
  }
  payload.insert(payload.end(), parity_.begin(), parity_.end());
  blocks_.clear();
  parity_.clear();
  bytes_ = 0;
}

bool DecodeParity(std::span<const std::uint8_t> payload, std::uint64_t offset, std::uint64_t from,
                  std::vector<CoveredBlock>& blocks, std::span<const std::uint8_t>& parity) {
  blocks.clear();
  format::Cursor in(payload);
  const std::uint64_t count = in.Varint(), distance = in.Varint();
  if (!in.ok() || count == 0 || count > format::kMaxParityBlocks || distance > offset - from) return false;
  std::uint64_t end = offset - distance, longest = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t gap = in.Varint(), bytes = in.Varint();
    if (!in.ok() || gap > offset - end || bytes > offset - end - gap || bytes < format::kFixedHeaderBytes) return false;
    blocks.push_back({end + gap, bytes});
    end += gap + bytes;
    longest = std::max(longest, bytes);
  }
  parity = in.Bytes(in.remaining());
  return longest <= parity.size();
}

}  // namespace heaptape
