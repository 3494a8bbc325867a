#include "traces/convert/byte_reader.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

constexpr int kMaxWindowLog = 27;
constexpr int kGzipWindow = 16 + MAX_WBITS;

}  // namespace

// One of the two decompressors.
class ByteReader::Unpacker {
 public:
  explicit Unpacker(bool gzip) {
    if (gzip) {
      open_ = inflateInit2(&gzip_, kGzipWindow) == Z_OK;
    } else {
      zstd_ = ZSTD_createDStream();
      ZSTD_DCtx_setParameter(zstd_, ZSTD_d_windowLogMax, kMaxWindowLog);
    }
  }
  ~Unpacker() {
    if (open_) inflateEnd(&gzip_);
    ZSTD_freeDStream(zstd_);
  }

  // Takes from `in` and fills `out`; both are moved on. False where the bytes make no sense.
  bool Run(std::span<const std::uint8_t>& in, std::span<std::uint8_t>& out) {
    if (zstd_ != nullptr) {
      ZSTD_inBuffer from{in.data(), in.size(), 0};
      ZSTD_outBuffer to{out.data(), out.size(), 0};
      const std::size_t result = ZSTD_decompressStream(zstd_, &to, &from);
      if (ZSTD_isError(result)) return false;
      whole_ = result == 0;
      in = in.subspan(from.pos);
      out = out.subspan(to.pos);
      return true;
    }
    if (!open_ || (whole_ && inflateReset(&gzip_) != Z_OK)) return false;  // one member follows another
    gzip_.next_in = const_cast<std::uint8_t*>(in.data());
    gzip_.avail_in = static_cast<unsigned>(in.size());
    gzip_.next_out = out.data();
    gzip_.avail_out = static_cast<unsigned>(out.size());
    const int result = inflate(&gzip_, Z_NO_FLUSH);
    whole_ = result == Z_STREAM_END;
    in = in.last(gzip_.avail_in);
    out = out.last(gzip_.avail_out);
    return result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR;
  }
  // The frame or member that was begun has been read to its end.
  bool whole() const { return whole_; }

 private:
  z_stream gzip_{};
  bool open_ = false;
  ZSTD_DStream* zstd_ = nullptr;
  bool whole_ = false;
};

ByteReader::ByteReader(ByteSource source, std::size_t buffer_bytes) : source_(std::move(source)), bytes_(buffer_bytes) {}
ByteReader::~ByteReader() = default;

std::size_t ByteReader::Unpack(std::span<std::uint8_t> out) {
  if (unpacker_ == nullptr && packed_at_ == packed_end_) return source_(out);
  if (unpacker_ == nullptr) {
    const std::size_t count = std::min(out.size(), packed_end_ - packed_at_);
    std::memcpy(out.data(), packed_.data() + packed_at_, count);
    packed_at_ += count;
    return count;
  }
  const std::size_t wanted = out.size();
  while (out.size() == wanted) {
    const bool was_empty = packed_at_ == packed_end_;
    if (was_empty) {
      packed_at_ = 0;
      packed_end_ = source_(packed_);
      if (packed_end_ == 0) {
        if (!unpacker_->whole()) status_ = absl::DataLossError("the compressed data end too early");
        return 0;
      }
    }
    std::span<const std::uint8_t> in = std::span(packed_).subspan(packed_at_, packed_end_ - packed_at_);
    const std::size_t before = in.size();
    if (!unpacker_->Run(in, out) || (in.size() == before && out.size() == wanted && !was_empty)) {
      status_ = absl::DataLossError("the compressed data make no sense");
      return wanted - out.size();
    }
    packed_at_ = packed_end_ - in.size();
  }
  return wanted - out.size();
}

bool ByteReader::Fill() {
  if (at_ < end_) return true;
  if (!status_.ok()) return false;
  if (!begun_) {
    begun_ = true;
    packed_.resize(bytes_.size());
    while (packed_end_ < 4) {
      const std::size_t more = source_(std::span(packed_).subspan(packed_end_));
      if (more == 0) break;
      packed_end_ += more;
    }
    constexpr std::uint8_t kGzip[] = {0x1f, 0x8b}, kZstd[] = {0x28, 0xb5, 0x2f, 0xfd};
    const bool gzip = packed_end_ >= 2 && std::equal(std::begin(kGzip), std::end(kGzip), packed_.begin());
    const bool zstd = packed_end_ >= 4 && std::equal(std::begin(kZstd), std::end(kZstd), packed_.begin());
    if (gzip || zstd) unpacker_ = std::make_unique<Unpacker>(gzip);
  }
  at_ = 0;
  end_ = Unpack(bytes_);
  return at_ < end_;
}

std::span<const std::uint8_t> ByteReader::Head(std::size_t count) {
  count = std::min(count, bytes_.size());
  if (!Fill()) return {};
  while (end_ - at_ < count && status_.ok()) {
    const std::size_t more = Unpack(std::span(bytes_).subspan(end_));
    if (more == 0) break;
    end_ += more;
  }
  return std::span(bytes_).subspan(at_, std::min(count, end_ - at_));
}

bool ByteReader::Line(std::string& line) {
  line.clear();
  while (Fill()) {
    const std::uint8_t* const from = bytes_.data() + at_;
    const void* const found = std::memchr(from, '\n', end_ - at_);
    const std::size_t count = found != nullptr ? static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - from) : end_ - at_;
    if (line.size() + count > kMaxLineBytes) {
      status_ = absl::DataLossError(absl::StrCat("line ", position_ + 1, " is longer than ", kMaxLineBytes, " bytes"));
      return false;
    }
    line.append(reinterpret_cast<const char*>(from), count);
    at_ += count;
    if (found == nullptr) continue;
    ++at_;
    ++position_;
    return true;
  }
  if (line.empty() || !status_.ok()) return false;
  ++position_;
  return true;
}

bool ByteReader::Read(std::span<std::uint8_t> out) {
  std::size_t done = 0;
  while (done < out.size() && Fill()) {
    const std::size_t count = std::min(out.size() - done, end_ - at_);
    std::memcpy(out.data() + done, bytes_.data() + at_, count);
    done += count;
    at_ += count;
  }
  if (done == out.size()) {
    ++position_;
    return true;
  }
  if (done != 0 && status_.ok())
    status_ = absl::DataLossError(absl::StrCat("ends with ", done, " bytes that are no whole record of ", out.size()));
  return false;
}

}  // namespace heaptape
