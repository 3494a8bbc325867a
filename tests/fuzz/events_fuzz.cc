// Any bytes as the columns of one block after another, past compression.

#include <cstddef>
#include <cstdint>
#include <span>

#include "traces/codec.h"
#include "traces/format.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Each block: event count (varint), length (varint), bytes.
  heaptape::EventDecoder decoder;
  heaptape::format::Cursor in({data, size});
  while (in.remaining() != 0) {
    const std::uint64_t events = in.Varint();
    const auto raw = in.Bytes(in.Varint());
    if (!in.ok()) break;
    if (!decoder.Decode(raw, events, 0, 1000).ok()) decoder.Restart();
  }
  return 0;
}
