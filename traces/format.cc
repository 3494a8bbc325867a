#include "traces/format.h"

#include <xxhash.h>

namespace heaptape::format {

std::uint64_t Checksum(std::span<const std::uint8_t> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::uint32_t HeaderChecksum(std::span<const std::uint8_t> header) {
  std::uint8_t copy[kMaxHeaderBytes];
  std::memcpy(copy, header.data(), header.size());
  std::memset(copy + 12, 0, 4);
  return static_cast<std::uint32_t>(XXH3_64bits(copy, header.size()));
}

std::vector<std::uint8_t> EncodeHeader(BlockKind kind, std::uint8_t flags, const BlockFields& fields,
                                       std::span<const std::uint8_t> payload) {
  std::vector<std::uint8_t> out(kBlockMagic, kBlockMagic + 4);
  out.push_back(static_cast<std::uint8_t>(kind));
  out.push_back(flags);
  out.push_back(0);  // header_bytes
  out.push_back(0);
  PutU32(out, static_cast<std::uint32_t>(payload.size()));
  PutU32(out, 0);  // checksum of the header
  PutU64(out, Checksum(payload));
  if (HasFields(kind)) {
    for (const std::uint64_t value :
         {fields.first_event, fields.event_count, fields.first_object, fields.object_count, fields.start_step,
          fields.step_count, fields.raw_bytes, fields.side_bytes, fields.peak_live_objects,
          fields.peak_live_bytes, fields.peak_threads, fields.lost_events})
      PutVarint(out, value);
    PutU64(out, fields.event_digest);
    PutU64(out, fields.touch_digest);
    if (fields.unmatched_frees) {
      PutVarint(out, fields.unmatched_frees->unknown + 1);
      PutVarint(out, fields.unmatched_frees->missed + 1);
    }
  }
  out[6] = static_cast<std::uint8_t>(out.size());
  const std::uint32_t checksum = HeaderChecksum(out);
  for (int i = 0; i < 4; ++i) out[12 + i] = static_cast<std::uint8_t>(checksum >> (8 * i));
  return out;
}

bool ParseHeader(std::span<const std::uint8_t> bytes, BlockHeader& header) {
  if (bytes.size() < kFixedHeaderBytes || std::memcmp(bytes.data(), kBlockMagic, 4) != 0) return false;
  header = {};
  header.kind = static_cast<BlockKind>(bytes[4]);
  header.flags = bytes[5];
  header.header_bytes = bytes[6];
  if (header.header_bytes < kFixedHeaderBytes || header.header_bytes > bytes.size()) return false;
  if (HeaderChecksum(bytes.first(header.header_bytes)) != GetU32(bytes.data() + 12)) return false;
  header.payload_bytes = GetU32(bytes.data() + 8);
  if (header.payload_bytes > kMaxPayloadBytes) return false;
  header.payload_checksum = GetU64(bytes.data() + 16);
  if (!HasFields(header.kind)) return true;
  Cursor in(bytes.subspan(kFixedHeaderBytes, header.header_bytes - kFixedHeaderBytes));
  BlockFields& f = header.fields;
  for (std::uint64_t* field :
       {&f.first_event, &f.event_count, &f.first_object, &f.object_count, &f.start_step, &f.step_count,
        &f.raw_bytes, &f.side_bytes, &f.peak_live_objects, &f.peak_live_bytes, &f.peak_threads, &f.lost_events})
    *field = in.Varint();
  f.event_digest = in.U64();
  f.touch_digest = in.U64();
  if (in.remaining() != 0) {
    const std::uint64_t unknown = in.Varint(), missed = in.Varint();
    if (unknown != 0 && missed != 0) f.unmatched_frees = {unknown - 1, missed - 1};
  }
  return in.ok() && f.event_count <= kMaxBlockEvents && f.side_bytes <= header.payload_bytes &&
         f.object_count <= f.event_count && f.raw_bytes <= kMaxPayloadBytes;
}

}  // namespace heaptape::format
