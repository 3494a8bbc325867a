#include "replayer/touch_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace heaptape {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using When = TouchRecord::When;

constexpr std::uint64_t kPage = 4096;

Event Start(Op op, std::uint32_t slot, std::uint64_t bytes) { return {op, 0, 0, slot, bytes}; }

std::vector<PageRange> Next(TouchPlan& plan, const Event& event, std::uint64_t object) {
  const std::span<const PageRange> ranges = plan.Next(event, object);
  return {ranges.begin(), ranges.end()};
}

TEST(TouchPlan, FreshBlocksAreTouchedAsTheyWereFoundAtTheirEnd) {
  TouchPlan plan({{0, When::kAllocation, {{0, 1}}}, {0, When::kFree, {{0, 3}, {20, 2}}}}, 4);
  EXPECT_THAT(Next(plan, Start(Op::kMalloc, 0, 32 * kPage), 0), ElementsAre(PageRange{0, 3}, PageRange{20, 2}));
}

TEST(TouchPlan, RecycledBlocksTakeWhatWasAddedAndTheShareOfFreshOnes) {
  TouchPlan plan({{0, When::kAllocation, {{0, 1}}},
                  {0, When::kFree, {{0, 8}}},  // fresh: a quarter of 32 pages
                  {5, When::kAllocation, {{0, 30}}},
                  {5, When::kFree, {{0, 32}}}},  // recycled: two pages are certain, six more are likely
                 4);
  Next(plan, Start(Op::kMalloc, 0, 32 * kPage), 0);
  for (std::uint64_t object = 1; object < 5; ++object) Next(plan, Start(Op::kMalloc, 1, 100), object);
  EXPECT_THAT(Next(plan, Start(Op::kMalloc, 2, 32 * kPage), 5), ElementsAre(PageRange{0, 6}, PageRange{30, 2}));
}

TEST(TouchPlan, WithoutRecordsMallocIsFullAndCallocSparse) {
  TouchPlan plan({}, 4);
  EXPECT_TRUE(plan.empty());
  EXPECT_THAT(Next(plan, Start(Op::kMalloc, 0, 32 * kPage), 0), ElementsAre(PageRange{0, 32}));
  EXPECT_THAT(Next(plan, Start(Op::kCalloc, 1, 32 * kPage), 1), IsEmpty());
}

TEST(TouchPlan, OfASparseBlockNoMoreIsWrittenThanWasEverResident) {
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  TouchPlan plan({}, 4, 3 * kGiB);
  EXPECT_THAT(Next(plan, Start(Op::kMalloc, 0, 16 * kGiB), 0), ElementsAre(PageRange{0, 3 * kGiB / kPage}));
  EXPECT_THAT(Next(plan, {Op::kRealloc, 0, 0, 0, 32 * kGiB}, 1), ElementsAre(PageRange{0, 3 * kGiB / kPage}));
  EXPECT_THAT(Next(plan, Start(Op::kMalloc, 1, 2 * kGiB), 1), ElementsAre(PageRange{0, 2 * kGiB / kPage}));
  // What was resident may be sampled too early for a block that is not so large.
  TouchPlan small({}, 4, 1000 * kPage);
  EXPECT_THAT(Next(small, Start(Op::kMalloc, 0, kGiB / 2), 0), ElementsAre(PageRange{0, kGiB / 2 / kPage}));
  EXPECT_THAT(Next(small, Start(Op::kMalloc, 1, 16 * kGiB), 1), ElementsAre(PageRange{0, kGiB / kPage}));
}

TEST(TouchPlan, SmallBlocksAreNotItsBusiness) {
  TouchPlan plan({}, 4);
  EXPECT_THAT(Next(plan, Start(Op::kMalloc, 0, 4 * kPage), 0), IsEmpty());
}

TEST(TouchPlan, AResizedBlockGrowsIntoWhatItHeldAtItsEnd) {
  TouchPlan plan({{0, When::kFree, {{0, 40}}}}, 4);
  Next(plan, Start(Op::kMalloc, 3, 8 * kPage), 0);
  EXPECT_THAT(Next(plan, {Op::kRealloc, 0, 0, 3, 16 * kPage}, 1), ElementsAre(PageRange{0, 40}));
  EXPECT_THAT(Next(plan, {Op::kRealloc, 0, 0, 3, 64 * kPage}, 1), ElementsAre(PageRange{0, 40}));
}

TEST(TouchPlan, AResizedBlockWithoutRecordsIsTakenToBeFilled) {
  TouchPlan plan({}, 4);
  Next(plan, Start(Op::kMalloc, 3, 8 * kPage), 0);
  EXPECT_THAT(Next(plan, {Op::kRealloc, 0, 0, 3, 64 * kPage}, 1), ElementsAre(PageRange{0, 64}));
}

TEST(TouchPlan, AnEndSeenTooLateIsNotBelieved) {
  TouchPlan plan({{0, When::kAllocation, {{0, 1}}}, {0, When::kFree, {}}, {1, When::kFree, {}}}, 4);
  EXPECT_THAT(Next(plan, Start(Op::kMalloc, 0, 32 * kPage), 0), ElementsAre(PageRange{0, 32}));
  Next(plan, Start(Op::kMalloc, 1, 100), 1);
  EXPECT_THAT(Next(plan, {Op::kRealloc, 0, 0, 1, 32 * kPage}, 2), ElementsAre(PageRange{0, 32}));
}

TEST(TouchPlan, ASlotTakenByAnotherObjectForgetsTheRecords) {
  TouchPlan plan({{0, When::kAllocation, {}}, {0, When::kFree, {{0, 2}}}}, 4);
  Next(plan, Start(Op::kMalloc, 0, 32 * kPage), 0);
  Next(plan, {Op::kFree, 0, 0, 0, 0}, 0);
  Next(plan, Start(Op::kMalloc, 0, 100), 1);
  EXPECT_THAT(Next(plan, {Op::kRealloc, 0, 0, 0, 32 * kPage}, 1), ElementsAre(PageRange{0, 32}));
}

}  // namespace
}  // namespace heaptape
