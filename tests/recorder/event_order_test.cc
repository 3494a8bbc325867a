// Events in the order of their numbers, whatever order they come in, and an end to every wait.

#include "recorder/event_order.h"

#include <vector>

#include "gtest/gtest.h"

namespace heaptape {
namespace {

OrderedEvent Event(std::uint32_t number) { return {RawEvent::Make(RawOp::kMalloc, 4096, 8, number), 1, 0}; }

std::vector<std::uint32_t> Take(EventOrder& order) {
  std::vector<std::uint32_t> numbers;
  while (const OrderedEvent* event = order.Next()) numbers.push_back(event->event.number());
  return numbers;
}

TEST(EventOrder, ComesBackInTheOrderOfNumbers) {
  EventOrder order(8);
  for (const std::uint32_t number : {3u, 1u, 0u, 2u}) EXPECT_TRUE(order.Place(Event(number)));
  EXPECT_EQ(Take(order), (std::vector<std::uint32_t>{0, 1, 2, 3}));
}

TEST(EventOrder, ANumberComesOnce) {
  EventOrder order(8);
  EXPECT_TRUE(order.Place(Event(1)));
  EXPECT_FALSE(order.Place(Event(1)));
  EXPECT_TRUE(order.Place(Event(0)));
  Take(order);
  EXPECT_FALSE(order.Place(Event(1))) << "it was taken";
}

TEST(EventOrder, SkipGivesUpWhatIsMissing) {
  EventOrder order(8);
  EXPECT_EQ(order.Skip(), 0u) << "nothing waits";
  EXPECT_TRUE(order.Place(Event(5)));
  EXPECT_EQ(order.Skip(), 5u);
  EXPECT_EQ(Take(order), (std::vector<std::uint32_t>{5}));
}

// A program that overwrites the pool can publish an event without a thread: it is counted as waiting and never found.
TEST(EventOrder, SkipEndsWhereNothingIsThere) {
  EventOrder order(8);
  OrderedEvent nobody = Event(3);
  nobody.thread = 0;
  EXPECT_TRUE(order.Place(nobody));
  EXPECT_EQ(order.waiting(), 1u);
  EXPECT_EQ(order.Skip(), 8u);
  EXPECT_EQ(order.waiting(), 0u);
  EXPECT_EQ(order.Skip(), 0u);
}

TEST(EventOrder, HasRoomForAsManyAsItsCapacity) {
  EventOrder order(8);
  for (std::uint32_t start = 0; start < 3; ++start) {
    const auto next = static_cast<std::uint32_t>(order.next_number());
    EXPECT_TRUE(order.HasRoomFor(next + 7));
    EXPECT_FALSE(order.HasRoomFor(next + 8));
    EXPECT_TRUE(order.Place(Event(next + 1)));
    EXPECT_TRUE(order.Place(Event(next)));
    EXPECT_EQ(Take(order), (std::vector<std::uint32_t>{next, next + 1}));
  }
}

}  // namespace
}  // namespace heaptape
