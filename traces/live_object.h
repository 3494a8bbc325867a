// What a writer knows of an object that is alive, in 16 bytes: one cache line at most.

#ifndef HEAPTAPE_TRACES_LIVE_OBJECT_H_
#define HEAPTAPE_TRACES_LIVE_OBJECT_H_

#include <cstdint>

#include "traces/event.h"

namespace heaptape {

class LiveObject {
 public:
  LiveObject() = default;
  // `op` is the call that asked for it last; a number is below 2^54.
  LiveObject(std::uint64_t number, Op op, unsigned log2_alignment, std::uint64_t size_bytes)
      : number_and_request_(number << 10 | log2_alignment << 4 | static_cast<unsigned>(op)), size_(size_bytes) {}

  // How many objects were started before it in its trace.
  std::uint64_t number() const { return number_and_request_ >> 10; }
  Op op() const { return static_cast<Op>(number_and_request_ & 0xf); }
  std::uint8_t log2_alignment() const { return static_cast<std::uint8_t>(number_and_request_ >> 4 & 0x3f); }
  std::uint64_t size() const { return size_; }

 private:
  std::uint64_t number_and_request_ = 0;
  std::uint64_t size_ = 0;
};
static_assert(sizeof(LiveObject) == 16);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_LIVE_OBJECT_H_
