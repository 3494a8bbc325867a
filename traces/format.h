// The layout of a trace file, byte for byte as FORMAT.md describes it: block headers, varints, checksums.

#ifndef HEAPTAPE_TRACES_FORMAT_H_
#define HEAPTAPE_TRACES_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "traces/trace_info.h"

namespace heaptape::format {

// The file's first 16 bytes: kFileMagic, then the version as two u16 (major, minor), then u32 zero.
inline constexpr std::uint8_t kFileMagic[8] = {0x89, 'H', 'T', 'P', '\r', '\n', 0x1a, '\n'};
inline constexpr std::size_t kFileHeadBytes = 16;
inline constexpr std::uint16_t kVersionMajor = 2;         // of what is written; readers take all from 1 on
inline constexpr std::uint16_t kVersionMinor = 2;

inline constexpr std::uint8_t kBlockMagic[4] = {0xb1, 'h', 't', 0xd0};
inline constexpr std::size_t kFixedHeaderBytes = 24;
inline constexpr std::size_t kMaxHeaderBytes = 255;

// The last bytes of a finished file: kTrailerMagic, then the offset of the index block as u64.
inline constexpr std::uint8_t kTrailerMagic[8] = {0x89, 'H', 'T', 'E', 'N', 'D', 0x1a, '\n'};
inline constexpr std::size_t kTrailerBytes = 16;

enum class BlockKind : std::uint8_t { kInfo = 1, kEvents = 2, kCheckpoint = 3, kIndex = 4, kParity = 5 };

// A parity block comes when the blocks it covers have so many times the bytes of the longest of them, so that it
// takes one part in so many of the file; at the end of the trace fewer will do.
inline constexpr std::uint64_t kParityShare = 32;
inline constexpr std::uint64_t kLastParityShare = 4;
inline constexpr std::size_t kMaxParityBlocks = 4096;

// Limits a reader enforces before it allocates.
inline constexpr std::uint32_t kMaxBlockEvents = 1u << 20;
inline constexpr std::uint32_t kMaxPayloadBytes = 1u << 28;  // compressed or not
inline constexpr std::uint32_t kMaxInfoBytes = 1u << 16;
inline constexpr std::uint32_t kMaxLiveObjects = 1u << 28;
inline constexpr std::uint32_t kMaxCheckpointSlots = 1u << 24;  // above that no checkpoints are written
// zstd shrinks nothing by more than this; so a small file cannot ask for much memory.
inline constexpr std::uint64_t kMaxZstdRatio = 40000;

// --- varints: LEB128, least significant group first, at most ten bytes ---

inline void PutVarint(std::vector<std::uint8_t>& out, std::uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<std::uint8_t>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<std::uint8_t>(value));
}

inline std::uint64_t ZigZag(std::int64_t value) {
  return (static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63);
}
inline std::int64_t UnZigZag(std::uint64_t value) {
  return static_cast<std::int64_t>(value >> 1) ^ -static_cast<std::int64_t>(value & 1);
}

inline void PutU32(std::vector<std::uint8_t>& out, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}
inline void PutU64(std::vector<std::uint8_t>& out, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}
inline std::uint32_t GetU32(const std::uint8_t* at) {
  std::uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | at[i];
  return value;
}
inline std::uint64_t GetU64(const std::uint8_t* at) {
  return GetU32(at) | std::uint64_t{GetU32(at + 4)} << 32;
}
inline void PutString(std::vector<std::uint8_t>& out, const std::string& text) {
  PutVarint(out, text.size());
  out.insert(out.end(), text.begin(), text.end());
}

// Reads from a span; after a read beyond its end ok() is false and every value is zero.
class Cursor {
 public:
  explicit Cursor(std::span<const std::uint8_t> bytes)
      : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  std::uint64_t Varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == end_) break;
      const std::uint8_t byte = *at_++;
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (!(byte & 0x80)) return value;
    }
    ok_ = false;
    at_ = end_;
    return 0;
  }
  std::uint8_t U8() { return Take(1) ? at_[-1] : 0; }
  std::uint32_t U32() { return Take(4) ? GetU32(at_ - 4) : 0; }
  std::uint64_t U64() { return Take(8) ? GetU64(at_ - 8) : 0; }
  std::string String(std::size_t limit = kMaxInfoBytes) {
    const std::uint64_t size = Varint();
    if (size > limit || !Take(size)) {
      ok_ = false;
      return {};
    }
    return std::string(reinterpret_cast<const char*>(at_ - size), size);
  }
  std::span<const std::uint8_t> Bytes(std::uint64_t size) {
    if (!Take(size)) return {};
    return {at_ - size, static_cast<std::size_t>(size)};
  }
  std::size_t remaining() const { return static_cast<std::size_t>(end_ - at_); }
  bool ok() const { return ok_; }

 private:
  bool Take(std::uint64_t size) {
    if (size > remaining()) {
      ok_ = false;
      at_ = end_;
      return false;
    }
    at_ += size;
    return true;
  }

  const std::uint8_t* at_;
  const std::uint8_t* end_;
  bool ok_ = true;
};

// These kinds have BlockFields in their header.
constexpr bool HasFields(BlockKind kind) {
  return kind == BlockKind::kEvents || kind == BlockKind::kCheckpoint || kind == BlockKind::kIndex;
}

// The variable part of their header. What a later version appends is ignored.
struct BlockFields {
  std::uint64_t first_event = 0;    // events before the block
  std::uint64_t event_count = 0;    // 0 for a checkpoint and the index
  std::uint64_t first_object = 0;   // objects started before the block
  std::uint64_t object_count = 0;   // started in it
  std::uint64_t start_step = 0;     // time in steps of the resolution
  std::uint64_t step_count = 0;     // from start to end
  std::uint64_t raw_bytes = 0;      // of the columns before compression
  std::uint64_t side_bytes = 0;     // of the side section, which comes first in the payload
  std::uint64_t peak_live_objects = 0;  // up to the block's end
  std::uint64_t peak_live_bytes = 0;
  std::uint64_t peak_threads = 0;
  std::uint64_t lost_events = 0;    // sum of the kLost events up to the block's end
  std::uint64_t event_digest = 0;   // digest.h, up to the block's end
  std::uint64_t touch_digest = 0;
  std::optional<UnmatchedFrees> unmatched_frees;  // up to the block's end; nullopt: not counted
};

struct BlockHeader {
  BlockKind kind{};
  std::uint8_t flags = 0;
  std::uint32_t header_bytes = 0;
  std::uint32_t payload_bytes = 0;
  std::uint64_t payload_checksum = 0;
  BlockFields fields;

  std::uint64_t block_bytes() const { return std::uint64_t{header_bytes} + payload_bytes; }
};

// Flag of an events block that continues from nothing: the codec's state is fresh, or that of the
// checkpoint block just before it.
inline constexpr std::uint8_t kFlagRestart = 1;
// The columns (or a checkpoint's) are followed by side records compressed with zstd.
inline constexpr std::uint8_t kFlagSideCompressed = 2;

// The header with its checksum, ready to be written before `payload`.
std::vector<std::uint8_t> EncodeHeader(BlockKind kind, std::uint8_t flags, const BlockFields& fields,
                                       std::span<const std::uint8_t> payload);

// Parses the header at the start of `bytes`; false where there is none with a good checksum. The payload
// may reach beyond `bytes`.
bool ParseHeader(std::span<const std::uint8_t> bytes, BlockHeader& header);

std::uint64_t Checksum(std::span<const std::uint8_t> bytes);
// Of a whole header but the four bytes that hold it.
std::uint32_t HeaderChecksum(std::span<const std::uint8_t> header);

}  // namespace heaptape::format

#endif  // HEAPTAPE_TRACES_FORMAT_H_
