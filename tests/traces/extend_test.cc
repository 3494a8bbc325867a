#include "traces/extend.h"

#include <map>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/temporary_trace.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kMs = 1'000'000;

// What a trace does to the heap, checked as it goes.
struct Walk {
  std::map<std::uint32_t, std::uint64_t> live;  // slot to size
  std::map<std::uint64_t, std::uint64_t> live_bytes_at;  // by time in ms
  std::set<std::uint16_t> threads = {0};
  std::uint64_t calls = 0, end_ms = 0;

  explicit Walk(const std::vector<Event>& events) {
    for (const Event& event : events) {
      calls += IsCall(event.op);
      if (event.op == Op::kTime) {
        EXPECT_GT(event.size, end_ms * kMs);
        end_ms = event.size / kMs;
        live_bytes_at[end_ms] = bytes();
      } else if (event.op == Op::kThreadStart) {
        EXPECT_TRUE(threads.insert(event.thread).second);
      } else if (event.op == Op::kThreadEnd) {
        EXPECT_EQ(threads.erase(event.thread), 1u);
      } else if (StartsObject(event)) {
        EXPECT_TRUE(live.emplace(event.slot, event.size).second);
        EXPECT_TRUE(threads.count(event.thread));
      } else if (event.op == Op::kFree) {
        EXPECT_EQ(live.erase(event.slot), 1u);
        EXPECT_TRUE(threads.count(event.thread));
      } else if (event.op == Op::kRealloc) {
        EXPECT_EQ(live.count(event.slot), 1u);
        live[event.slot] = event.size;
      }
    }
  }
  std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [slot, size] : live) sum += size;
    return sum;
  }
};

absl::StatusOr<ExtendSummary> Extend(TemporaryTrace& from, TemporaryTrace& to, const ExtendOptions& options) {
  return ExtendTrace(*from.Open(), options, to.writer());
}

// Boots with 100 objects, then each round of 10 ms replaces a buffer and makes and frees some others.
void WriteRounds(TraceWriter& writer, int rounds) {
  for (int i = 0; i < 100; ++i) writer.Allocate(Op::kMalloc, 16, 0, 0);
  std::uint32_t buffer = writer.Allocate(Op::kMalloc, 5000, 0, 0);
  writer.Time(10 * kMs);
  for (int round = 0; round < rounds; ++round) {
    const std::uint32_t fresh = writer.Allocate(Op::kMalloc, 5000, 0, 0);
    writer.Free(buffer, 0);
    buffer = fresh;
    for (int i = 0; i < 20; ++i) writer.Free(writer.Allocate(Op::kCalloc, 300, 0, 0), 0);
    writer.Time((20 + 10 * static_cast<std::uint64_t>(round)) * kMs);
  }
}

TEST(Extend, RepeatsASteadyStretchWithTheSameLiveSet) {
  TemporaryTrace recorded, extended;
  WriteRounds(recorded.writer(), 10);
  const auto summary = Extend(recorded, extended, {.stretch_start_ns = 60 * kMs, .duration_ns = 1000 * kMs});
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->stretch_ns, 50 * kMs);
  EXPECT_EQ(summary->carried_objects, 1u);  // the buffer
  EXPECT_EQ(summary->left_over_objects, 0u);
  EXPECT_EQ(summary->not_replaced_objects, 0u);
  // 60 ms of boot and first rounds, then stretches of 50 ms.
  EXPECT_EQ(summary->repetitions, 19u);
  const Walk walk(extended.Events());
  EXPECT_EQ(walk.end_ms, 1000u);
  EXPECT_EQ(walk.calls, 101u + 99 * 42u);
  for (const auto& [ms, bytes] : walk.live_bytes_at) EXPECT_EQ(bytes, 100 * 16 + 5000u) << ms;
}

TEST(Extend, UnmatchedFreesGrowAsTheEventsDo) {
  TemporaryTrace recorded, extended;
  WriteRounds(recorded.writer(), 10);
  recorded.writer().AddUnmatchedFrees({.unknown = recorded.writer().event_count(), .missed = 0});
  ASSERT_TRUE(Extend(recorded, extended, {.stretch_start_ns = 60 * kMs, .duration_ns = 1000 * kMs}).ok());
  EXPECT_EQ(extended.Open()->summary().unmatched_frees, (UnmatchedFrees{.unknown = extended.writer().event_count(), .missed = 0}));
}

TEST(Extend, PaceStretchesTimeFromTheStretchOn) {
  TemporaryTrace recorded, extended;
  WriteRounds(recorded.writer(), 10);
  const auto summary = Extend(recorded, extended, {.stretch_start_ns = 60 * kMs, .duration_ns = 3060 * kMs, .pace = 30});
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->repetitions, 2u);
  const Walk walk(extended.Events());
  EXPECT_EQ(walk.end_ms, 3060u);
  EXPECT_TRUE(walk.live_bytes_at.count(50));
  EXPECT_TRUE(walk.live_bytes_at.count(360));
  EXPECT_FALSE(walk.live_bytes_at.count(70));
}

// Each recorded round leaves one object behind.
void WriteLeak(TraceWriter& writer) {
  writer.Allocate(Op::kMalloc, 16, 0, 0);
  for (std::uint64_t ms = 1; ms <= 100; ++ms) {
    writer.Allocate(Op::kMalloc, 1000, 0, 0);
    writer.Time(ms * kMs);
  }
}

TEST(Extend, WhatTheStretchLeavesAliveIsFreedUnlessKept) {
  for (const bool keep : {false, true}) {
    TemporaryTrace recorded, extended;
    WriteLeak(recorded.writer());
    const auto summary = Extend(recorded, extended, {.stretch_start_ns = 50 * kMs, .duration_ns = 1050 * kMs, .keep_growth = keep});
    ASSERT_TRUE(summary.ok()) << summary.status();
    EXPECT_EQ(summary->left_over_objects, 50u);
    EXPECT_EQ(summary->left_over_bytes, 50'000u);
    const Walk walk(extended.Events());
    EXPECT_EQ(walk.bytes(), 16 + (keep ? 1050 : 100) * 1000u);
    // Freed one by one, not all at once.
    if (!keep) {
      EXPECT_EQ(walk.live_bytes_at.at(725), 16 + 100 * 1000u);
    }
  }
}

TEST(Extend, FreesOfObjectsThatAreNotReplacedAreLeftOut) {
  TemporaryTrace recorded, extended;
  TraceWriter& writer = recorded.writer();
  const std::uint32_t freed = writer.Allocate(Op::kMalloc, 70, 0, 0), moved = writer.Allocate(Op::kMalloc, 90, 0, 0);
  writer.Time(10 * kMs);
  writer.Free(freed, 0);
  writer.Reallocate(Op::kRealloc, moved, 4000, 0);
  writer.Free(moved, 0);
  writer.Time(20 * kMs);
  const auto summary = Extend(recorded, extended, {.stretch_start_ns = 10 * kMs, .duration_ns = 40 * kMs});
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->not_replaced_objects, 2u);
  const Walk walk(extended.Events());
  // The one that is used before its free comes to be by that use.
  EXPECT_EQ(walk.calls, 5u + 2 + 2);
  EXPECT_TRUE(walk.live.empty());
}

TEST(Extend, TakesATraceOfWhichParityRepairedABlock) {
  TemporaryTrace recorded({.time_resolution_ns = kMs}, {.block_events = 100}), extended, again;
  WriteRounds(recorded.writer(), 100);
  recorded.Open();
  const ExtendOptions options{.duration_ns = 2000 * kMs};
  const auto whole = Extend(recorded, extended, options);
  ASSERT_TRUE(whole.ok()) << whole.status();
  OverwriteMiddle(recorded.path(), 4);
  ASSERT_EQ(recorded.Open()->summary().repaired_blocks, 1u);
  const auto repaired = Extend(recorded, again, options);
  ASSERT_TRUE(repaired.ok()) << repaired.status();
  EXPECT_EQ(again.Events(), extended.Events());
  OverwriteMiddle(recorded.path(), 1500);
  TemporaryTrace never;
  EXPECT_THAT(Extend(recorded, never, options).status().message(), testing::HasSubstr("undamaged"));
}

TEST(Extend, CarriesOverToTheSameSizeFirstAndThenToTheNearest) {
  TemporaryTrace recorded, extended;
  TraceWriter& writer = recorded.writer();
  const std::uint32_t a = writer.Allocate(Op::kMalloc, 100, 0, 0), b = writer.Allocate(Op::kMalloc, 1000, 0, 0);
  writer.Time(10 * kMs);
  writer.Free(a, 0);
  writer.Free(b, 0);
  writer.Allocate(Op::kMalloc, 1100, 0, 0);
  writer.Allocate(Op::kMalloc, 100, 0, 0);
  writer.Allocate(Op::kMalloc, 9000, 0, 0);
  writer.Time(20 * kMs);
  const auto summary = Extend(recorded, extended, {.stretch_start_ns = 10 * kMs, .duration_ns = 30 * kMs});
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->carried_objects, 2u);
  EXPECT_EQ(summary->left_over_objects, 1u);
  EXPECT_EQ(Walk(extended.Events()).bytes(), 1100 + 100 + 9000u);
}

TEST(Extend, ThreadsOfOneEndOnlyEndOrStartAtTheSeam) {
  TemporaryTrace recorded, extended;
  TraceWriter& writer = recorded.writer();
  const auto thread = [&](Op op, std::uint16_t number) { writer.Append({.op = op, .flags = 0, .thread = number, .slot = 0, .size = 0}); };
  thread(Op::kThreadStart, 1);
  writer.Allocate(Op::kMalloc, 8, 0, 1);
  writer.Time(10 * kMs);
  writer.Allocate(Op::kMalloc, 8, 0, 1);
  thread(Op::kThreadEnd, 1);
  thread(Op::kThreadStart, 2);
  writer.Allocate(Op::kMalloc, 8, 0, 2);
  writer.Time(20 * kMs);
  const auto summary = Extend(recorded, extended, {.stretch_start_ns = 10 * kMs, .duration_ns = 60 * kMs});
  ASSERT_TRUE(summary.ok()) << summary.status();
  const Walk walk(extended.Events());
  EXPECT_EQ(walk.threads, (std::set<std::uint16_t>{0, 2}));
}

TEST(Extend, TouchedPagesAndStacksFollowTheirObjectsAndGroundTruthIsNotRepeated) {
  TemporaryTrace recorded, extended;
  TraceWriter& writer = recorded.writer();
  const std::uint32_t module = writer.AddModule({.name = "tor", .build_id = "ab"});
  std::uint32_t buffer = writer.Allocate(Op::kMalloc, 100'000, 0, 0);
  writer.Time(10 * kMs);
  writer.Touched({.object = writer.ObjectNumber(buffer), .when = TouchRecord::When::kFree, .present = {{0, 5}}});
  writer.Free(buffer, 0);
  buffer = writer.Allocate(Op::kMalloc, 100'000, 0, 0);
  writer.Touched({.object = writer.ObjectNumber(buffer), .when = TouchRecord::When::kAllocation, .present = {{0, 2}}});
  writer.Stack({.object = writer.ObjectNumber(buffer), .frames = {{module, 77}}});
  writer.Resident({.time_ns = 15 * kMs, .event_number = writer.event_count(), .rss_bytes = 5});
  writer.Time(20 * kMs);
  ASSERT_TRUE(Extend(recorded, extended, {.stretch_start_ns = 10 * kMs, .duration_ns = 40 * kMs}).ok());
  const auto reader = extended.Open();
  const auto touched = reader->ReadTouched();
  ASSERT_TRUE(touched.ok());
  // Objects 0 to 3: three frees, three fresh buffers.
  ASSERT_EQ(touched->size(), 6u);
  std::multiset<std::uint64_t> freed, fresh;
  for (const TouchRecord& record : *touched) {
    const bool at_free = record.when == TouchRecord::When::kFree;
    (at_free ? freed : fresh).insert(record.object);
    EXPECT_EQ(record.present, (std::vector<PageRange>{{0, at_free ? 5u : 2u}}));
  }
  EXPECT_EQ(freed, (std::multiset<std::uint64_t>{0, 1, 2}));
  EXPECT_EQ(fresh, (std::multiset<std::uint64_t>{1, 2, 3}));
  EXPECT_EQ(reader->ReadStacks()->size(), 3u);
  EXPECT_EQ(reader->ReadStacks()->back().frames, (std::vector<StackFrame>{{0, 77}}));
  EXPECT_EQ(reader->ReadResident()->size(), 1u);
}

TEST(Extend, RefusesAStretchThatHoldsNothing) {
  TemporaryTrace recorded;
  WriteRounds(recorded.writer(), 10);
  for (const ExtendOptions& options :
       {ExtendOptions{.stretch_start_ns = 900 * kMs, .duration_ns = 1000 * kMs},
        ExtendOptions{.stretch_start_ns = 50 * kMs, .stretch_end_ns = 40 * kMs, .duration_ns = 1000 * kMs},
        ExtendOptions{.duration_ns = 1000 * kMs, .pace = 0}}) {
    TemporaryTrace extended;
    EXPECT_EQ(Extend(recorded, extended, options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(Extend, RefusesATraceWithGaps) {
  TemporaryTrace recorded, extended;
  recorded.writer().Allocate(Op::kMalloc, 8, 0, 0);
  recorded.writer().Append({.op = Op::kLost, .flags = 0, .thread = 0, .slot = 0, .size = 3});
  recorded.writer().Time(10 * kMs);
  recorded.writer().Allocate(Op::kMalloc, 8, 0, 0);
  recorded.writer().Time(20 * kMs);
  EXPECT_EQ(Extend(recorded, extended, {.stretch_start_ns = 10 * kMs, .duration_ns = 40 * kMs}).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace heaptape
