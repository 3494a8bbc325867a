// Sets the checksums of every block right that can be found by hopping from header to header.

#ifndef HEAPTAPE_TESTS_FUZZ_FIX_CHECKSUMS_H_
#define HEAPTAPE_TESTS_FUZZ_FIX_CHECKSUMS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "traces/format.h"

namespace heaptape {

inline void FixChecksums(std::vector<std::uint8_t>& bytes) {
  using namespace format;
  std::size_t at = kFileHeadBytes;
  while (at + kFixedHeaderBytes <= bytes.size() && std::memcmp(&bytes[at], kBlockMagic, 4) == 0) {
    const std::size_t header = bytes[at + 6];
    const std::size_t payload = GetU32(&bytes[at + 8]);
    if (header < kFixedHeaderBytes || header > bytes.size() - at || payload > bytes.size() - at - header) return;
    const std::uint64_t checksum = Checksum(std::span(bytes).subspan(at + header, payload));
    for (unsigned i = 0; i < 8; ++i) bytes[at + 16 + i] = static_cast<std::uint8_t>(checksum >> (8 * i));
    const std::uint32_t own = HeaderChecksum(std::span(bytes).subspan(at, header));
    for (unsigned i = 0; i < 4; ++i) bytes[at + 12 + i] = static_cast<std::uint8_t>(own >> (8 * i));
    at += header + payload;
  }
}

}  // namespace heaptape

#endif  // HEAPTAPE_TESTS_FUZZ_FIX_CHECKSUMS_H_
