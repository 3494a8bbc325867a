// Puts raw events, read from many chunks, back into the order of their numbers.
//
// A ring indexed by number: placing and taking an event is O(1), nothing is allocated. What does not fit yet
// is refused, so that its chunk is held back and the pool, not the writer, bounds the memory.

#ifndef HEAPTAPE_RECORDER_EVENT_ORDER_H_
#define HEAPTAPE_RECORDER_EVENT_ORDER_H_

#include <cstdint>
#include <vector>

#include "recorder/raw_event.h"

namespace heaptape {

struct OrderedEvent {
  RawEvent event;
  std::uint32_t thread = 0;     // serial within its region; 0: this place is empty
  std::uint32_t align_log2 = 0;
};

class EventOrder {
 public:
  enum class Placed { kYes, kTooFarAhead, kLate };

  explicit EventOrder(std::uint32_t capacity = 128 << 10) : ring_(capacity), mask_(capacity - 1) {}

  // Numbers wrap at 2^32; those given lie within half of that from the next one.
  std::uint64_t Widen(std::uint32_t number) const {
    return next_ + static_cast<std::int64_t>(static_cast<std::int32_t>(number - static_cast<std::uint32_t>(next_)));
  }

  // kLate: its number was given up before (Skip); the caller takes it as it comes.
  Placed Place(const OrderedEvent& event) {
    const auto ahead = static_cast<std::int32_t>(event.event.number() - static_cast<std::uint32_t>(next_));
    if (ahead < 0) return Placed::kLate;
    if (static_cast<std::uint32_t>(ahead) > mask_) return Placed::kTooFarAhead;
    OrderedEvent& place = ring_[event.event.number() & mask_];
    if (place.thread != 0) return Placed::kLate;  // a number that came twice: memory was overwritten
    place = event;
    ++waiting_;
    return Placed::kYes;
  }

  // The event with the next number, or null where it is not there yet. Valid until the next call.
  const OrderedEvent* Next() {
    OrderedEvent& place = ring_[next_ & mask_];
    if (place.thread == 0) return nullptr;
    taken_ = place;
    place.thread = 0;
    ++next_;
    --waiting_;
    return &taken_;
  }

  // Gives up the numbers up to the next event that is there. Returns how many.
  std::uint64_t Skip() {
    if (waiting_ == 0) return 0;
    std::uint64_t skipped = 0;
    while (ring_[next_ & mask_].thread == 0) {
      ++next_;
      ++skipped;
    }
    return skipped;
  }

  std::uint64_t next_number() const { return next_; }  // not wrapped
  std::uint64_t waiting() const { return waiting_; }   // events behind a missing one

 private:
  std::vector<OrderedEvent> ring_;
  OrderedEvent taken_;
  std::uint64_t mask_;
  std::uint64_t next_ = 0;
  std::uint64_t waiting_ = 0;
};

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_EVENT_ORDER_H_
