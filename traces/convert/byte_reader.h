// A stream of bytes to be parsed, unpacked on the way where it is gzip or zstd.
//
// Holds one buffer of what is read, one of what comes out, and the decompressor's window (128 MiB
// at most). Nothing is read twice and nothing is looked up ahead but the first bytes.

#ifndef HEAPTAPE_TRACES_CONVERT_BYTE_READER_H_
#define HEAPTAPE_TRACES_CONVERT_BYTE_READER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace heaptape {

// Fills the span from its start and returns how many bytes; 0 at the end of the input.
using ByteSource = std::function<std::size_t(std::span<std::uint8_t>)>;

class ByteReader {
 public:
  // Longer lines are an error: no format has them.
  static constexpr std::size_t kMaxLineBytes = std::size_t{1} << 20;

  // A buffer is at least as long as the longest Head().
  explicit ByteReader(ByteSource source, std::size_t buffer_bytes = 1u << 16);
  ~ByteReader();
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;

  // The first bytes of the unpacked stream, up to `count`, without taking them. Before anything else.
  std::span<const std::uint8_t> Head(std::size_t count);
  // The next line without its end; false at the end of the stream or on an error.
  bool Line(std::string& line);
  // Exactly so many bytes; false where there are none left. A part of them at the end is an error.
  bool Read(std::span<std::uint8_t> out);

  // DataLoss where the stream does not unpack or ends in the middle of something.
  const absl::Status& status() const { return status_; }
  // Lines or records taken so far.
  std::uint64_t position() const { return position_; }

 private:
  class Unpacker;

  // At least one more byte in [at_, end_), else false.
  bool Fill();
  std::size_t Unpack(std::span<std::uint8_t> out);

  ByteSource source_;
  std::unique_ptr<Unpacker> unpacker_;
  std::vector<std::uint8_t> packed_, bytes_;
  std::size_t packed_at_ = 0, packed_end_ = 0;
  std::size_t at_ = 0, end_ = 0;
  bool begun_ = false;
  std::uint64_t position_ = 0;
  absl::Status status_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_CONVERT_BYTE_READER_H_
