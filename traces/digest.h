// Digests of a trace's content that do not depend on how the file is cut into blocks or compressed.
//
// Both are running 64-bit states, so every block header can carry them. They tell contents apart by
// chance, not against an adversary.

#ifndef HEAPTAPE_TRACES_DIGEST_H_
#define HEAPTAPE_TRACES_DIGEST_H_

#include <cstdint>

#include "traces/event.h"
#include "traces/trace_info.h"

namespace heaptape {

// state' = fold((state ^ low ^ K1) * (high ^ K2)) + state * K3: low and high are the event's 16 bytes.
class EventDigest {
 public:
  explicit EventDigest(std::uint64_t state = 0) : state_(state) {}
  void Add(const Event& event) {
    Mix(static_cast<std::uint64_t>(event.op) | std::uint64_t{event.flags} << 8 |
            std::uint64_t{event.thread} << 16 | std::uint64_t{event.slot} << 32,
        event.size);
  }
  void Add(const TouchRecord& record) {
    Mix(record.object, static_cast<std::uint64_t>(record.when));
    for (const PageRange& range : record.present) Mix(range.first_page, range.page_count);
  }
  std::uint64_t state() const { return state_; }

 private:
  void Mix(std::uint64_t low, std::uint64_t high) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = Wide{state_ ^ low ^ 0x9e3779b97f4a7c15u} * (high ^ 0xc2b2ae3d27d4eb4fu);
    state_ = (static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64)) +
             state_ * 0xd6e8feb86659fd93u;
  }

  std::uint64_t state_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_DIGEST_H_
