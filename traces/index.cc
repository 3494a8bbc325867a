#include "traces/index.h"

#include "traces/format.h"
#include "traces/side_records.h"

namespace heaptape {

void EncodeIndex(const TraceIndex& index, std::vector<std::uint8_t>& out) {
  format::PutVarint(out, static_cast<std::uint8_t>(index.end));
  format::PutVarint(out, index.restarts.size());
  TraceIndex::Restart last;
  for (const TraceIndex::Restart& restart : index.restarts) {
    format::PutVarint(out, restart.offset - last.offset);
    format::PutVarint(out, restart.event - last.event);
    last = restart;
  }
  std::vector<std::uint8_t> info;
  EncodeInfo(index.info, info);
  format::PutVarint(out, info.size());
  out.insert(out.end(), info.begin(), info.end());
}

bool DecodeIndex(std::span<const std::uint8_t> bytes, TraceIndex& index) {
  index = {};
  format::Cursor in(bytes);
  const std::uint64_t end = in.Varint();
  if (end > static_cast<std::uint8_t>(TraceEnd::kDiskFull)) return false;
  index.end = static_cast<TraceEnd>(end);
  const std::uint64_t count = in.Varint();
  if (count > in.remaining()) return false;
  TraceIndex::Restart last;
  for (std::uint64_t i = 0; i < count; ++i) {
    last.offset += in.Varint();
    last.event += in.Varint();
    index.restarts.push_back(last);
  }
  const auto info = in.Bytes(in.Varint());
  return in.ok() && DecodeInfo(info, index.info);
}

}  // namespace heaptape
