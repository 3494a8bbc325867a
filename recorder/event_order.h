// Puts raw events, read from many chunks, back into the order of their numbers.
//
// A ring indexed by number, for those that come before their turn: placing and taking an event is O(1), nothing is
// allocated. What has no room yet is left where it is, so that its chunk is held back and the pool, not the writer,
// bounds the memory.

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
  explicit EventOrder(std::uint32_t capacity) : ring_(capacity), mask_(capacity - 1) {}

  // Numbers wrap at 2^32; those given lie within half of that from the next one.
  std::uint64_t Widen(std::uint32_t number) const { return next_ + static_cast<std::uint64_t>(Ahead(number)); }

  // From the next number on: 0 is the next, below 0 was given up before (Skip).
  std::int64_t Ahead(std::uint32_t number) const {
    return static_cast<std::int32_t>(number - static_cast<std::uint32_t>(next_));
  }
  bool HasRoomFor(std::uint32_t number) const { return Ahead(number) <= static_cast<std::int64_t>(mask_); }
  // Goes on without an event of the next number being placed: the caller has it. False: one is there already, so the
  // number came twice.
  bool Advance() {
    if (waiting_ != 0 && ring_[next_ & mask_].thread != 0) return false;
    ++next_;
    return true;
  }

  // There must be room. False: its number was given up before, or came twice (memory was overwritten); the caller takes
  // it as it comes.
  bool Place(const OrderedEvent& event) {
    if (Ahead(event.event.number()) < 0) return false;
    OrderedEvent& place = ring_[event.event.number() & mask_];
    if (place.thread != 0) return false;
    place = event;
    ++waiting_;
    return true;
  }

  // The event with the next number, or null where it is not there yet. Valid until the next call.
  const OrderedEvent* Next() {
    if (waiting_ == 0) return nullptr;
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
    for (; skipped <= mask_ && ring_[next_ & mask_].thread == 0; ++skipped) ++next_;
    if (skipped > mask_) waiting_ = 0;  // none is there, whatever was counted
    return skipped;
  }

  // What lies `ahead` of the next; of an empty place anything.
  std::uint64_t AddressAhead(std::uint32_t ahead) const { return ring_[(next_ + ahead) & mask_].event.address(); }

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
