// Any bytes as an index, a block header, a trace's description and a section of side records.

#include <cstddef>
#include <cstdint>

#include "traces/format.h"
#include "traces/index.h"
#include "traces/side_records.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  heaptape::TraceIndex index;
  (void)heaptape::DecodeIndex({data, size}, index);
  heaptape::format::BlockHeader header;
  (void)heaptape::format::ParseHeader({data, size}, header);
  heaptape::TraceInfo info;
  (void)heaptape::DecodeInfo({data, size}, info);
  heaptape::SideReader side(heaptape::kSideAll);
  if (side.Add({data, size})) (void)side.Add({data, size});
  return 0;
}
