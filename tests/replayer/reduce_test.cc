#include "replayer/bisect/reduce.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replayer/bisect_repository.h"
#include "tests/traces/temporary_trace.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"

namespace heaptape {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kMillisecond = 1'000'000;

std::unique_ptr<TraceWriter> Writer(const std::string& path, TraceWriterOptions options = {}) {
  options.replace = true;
  TraceInfo info;
  info.program = "secretd";
  info.start_unix_seconds = 1'700'000'000;
  info.time_resolution_ns = kMillisecond;
  auto writer = TraceWriter::Create(path, info, options);
  EXPECT_TRUE(writer.ok()) << writer.status();
  return *std::move(writer);
}

// What a trace does, as one reads it.
struct Story {
  std::vector<Event> events;
  std::uint64_t objects = 0, live_at_end = 0, live_bytes = 0, peak_bytes = 0, duration_ns = 0;
  std::set<std::uint16_t> threads;
  std::vector<TouchRecord> touched;
  TraceInfo info;
};

Story Read(const std::string& path) {
  Story story;
  auto reader = TraceReader::Open(path);
  EXPECT_TRUE(reader.ok()) << reader.status();
  if (!reader.ok()) return story;
  EXPECT_TRUE((*reader)->damage().empty());
  std::vector<std::uint64_t> sizes;
  while (true) {
    auto block = (*reader)->Next();
    EXPECT_TRUE(block.ok()) << block.status();
    if (!block.ok() || block->events.empty()) break;
    for (const Event& event : block->events) {
      story.events.push_back(event);
      if (IsCall(event.op)) story.threads.insert(event.thread);
      if (event.op == Op::kTime) story.duration_ns = event.size;
      if (event.failed()) continue;
      if (sizes.size() <= event.slot && event.op <= Op::kPvalloc) sizes.resize(event.slot + 1);
      if (StartsObject(event)) {
        ++story.objects;
        ++story.live_at_end;
        sizes[event.slot] = event.size;
        story.live_bytes += event.size;
      } else if (event.op == Op::kRealloc) {
        story.live_bytes += event.size - sizes[event.slot];
        sizes[event.slot] = event.size;
      } else if (event.op == Op::kFree) {
        --story.live_at_end;
        story.live_bytes -= sizes[event.slot];
      }
      story.peak_bytes = std::max(story.peak_bytes, story.live_bytes);
    }
  }
  story.touched = *(*reader)->ReadTouched();
  story.info = (*reader)->info();
  return story;
}

// Ten seconds, three threads: each 10 ms some short-lived small blocks, one that stays, a growing buffer.
void WriteStory(const std::string& path, const TraceWriterOptions& options = {}) {
  auto writer = Writer(path, options);
  for (const std::uint16_t thread : {1, 2}) writer->Append({Op::kThreadStart, 0, thread, 0, 0});
  const std::uint32_t buffer = writer->Allocate(Op::kMalloc, 100, 0, 0);
  for (std::uint64_t tick = 1; tick <= 1000; ++tick) {
    const auto thread = static_cast<std::uint16_t>(tick % 3);
    const std::uint32_t a = writer->Allocate(Op::kMalloc, 24, 0, thread);
    const std::uint32_t b = writer->Allocate(Op::kCalloc, 1000 + tick, 0, thread);
    writer->Allocate(Op::kPosixMemalign, 4000, 64, thread);  // stays
    writer->Failure(Op::kMalloc, ~0u, std::uint64_t{1} << 60, 0, thread);
    writer->Free(a, thread);
    writer->Free(b, 0);
    if (tick % 100 == 0) writer->Reallocate(Op::kRealloc, buffer, 100 * tick, 0);
    if (tick % 250 == 0) {
      const std::uint32_t big = writer->Allocate(Op::kMalloc, 100'000, 0, 0);
      writer->Touched({.object = writer->ObjectNumber(big), .when = TouchRecord::When::kFree, .present = {{0, 3}}});
    }
    writer->Time(tick * 10 * kMillisecond);
  }
  for (const std::uint16_t thread : {1, 2}) writer->Append({Op::kThreadEnd, 0, thread, 0, 0});
  ASSERT_TRUE(writer->Finish().ok());
}

class TraceFilterTest : public ::testing::Test {
 protected:
  TraceFilterTest() { WriteStory(input_); }
  Story Filtered(const TraceFilter& filter) {
    std::filesystem::remove(folder_ / "out.tape");
    const auto result = FilterTrace(input_, folder_ / "out.tape", filter);
    EXPECT_TRUE(result.ok()) << result.status();
    const Story story = Read(folder_ / "out.tape");
    if (result.ok()) {
      EXPECT_EQ(result->events, story.events.size());
      EXPECT_EQ(result->objects, story.objects);
      EXPECT_EQ(result->duration_ns, story.duration_ns);
      EXPECT_EQ(result->file_bytes, std::filesystem::file_size(folder_ / "out.tape"));
    }
    return story;
  }
  TemporaryFolder folder_;
  const std::string input_ = folder_ / "in.tape";
};

TEST_F(TraceFilterTest, WithoutAFilterTheCallsAreTheSame) {
  const Story before = Read(input_), after = Filtered({});
  EXPECT_EQ(after.objects, before.objects);
  EXPECT_EQ(after.live_bytes, before.live_bytes);
  EXPECT_EQ(after.peak_bytes, before.peak_bytes);
  EXPECT_EQ(after.duration_ns, before.duration_ns);
  EXPECT_EQ(after.touched, before.touched);
  EXPECT_EQ(after.threads, before.threads);
  const auto calls = [](const Story& story) {
    std::vector<Event> calls;
    std::copy_if(story.events.begin(), story.events.end(), std::back_inserter(calls), [](const Event& event) { return IsCall(event.op); });
    return calls;
  };
  EXPECT_EQ(calls(after), calls(before));
  // Who recorded what when is nobody's business but his.
  EXPECT_EQ(before.info.program, "secretd");
  EXPECT_EQ(after.info.program, "");
  EXPECT_EQ(after.info.start_unix_seconds, 0u);
}

TEST_F(TraceFilterTest, WhatIsLeftOutForSayingNothingIsReadAllTheSame) {
  auto writer = Writer(input_);
  const std::uint32_t block = writer->Allocate(Op::kMalloc, 100, 0, 0);
  for (std::uint64_t tick = 1; tick <= 5; ++tick) writer->Time(tick * kMillisecond);
  writer->Free(block, 0);
  ASSERT_TRUE(writer->Finish().ok());
  const auto result = FilterTrace(input_, folder_ / "out.tape", {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->events_read, 7u);
  EXPECT_EQ(result->events, 4u);  // the first and the last mark
}

TEST_F(TraceFilterTest, ACutInTimeBeginsWithTheLiveSet) {
  const Story story = Filtered({.from_ns = 5'000 * kMillisecond, .to_ns = 7'500 * kMillisecond});
  EXPECT_EQ(story.duration_ns, 2'500 * kMillisecond);
  const Story whole = Filtered({.to_ns = 7'500 * kMillisecond});
  // At the end the same is live, whenever the trace begins.
  EXPECT_EQ(story.live_at_end, whole.live_at_end);
  EXPECT_EQ(story.live_bytes, whole.live_bytes);
  EXPECT_LT(story.objects, whole.objects);
  EXPECT_EQ(story.touched.size(), 3u);
  // The blocks of 4000 bytes keep their alignment over the cut.
  std::size_t aligned = 0;
  for (const Event& event : story.events) aligned += event.size == 4000 && event.alignment() == 64;
  EXPECT_EQ(aligned, 750u);
}

TEST_F(TraceFilterTest, AnObjectThatIsDroppedIsGoneWithAllItsCalls) {
  const Story story = Filtered({.keep = [](const ObjectFacts& object) { return object.size_bytes == 4000; }, .only_successful_calls = true});
  EXPECT_EQ(story.objects, 1000u);
  EXPECT_EQ(story.live_bytes, 4'000'000u);
  EXPECT_TRUE(story.touched.empty());
  for (const Event& event : story.events) EXPECT_TRUE(event.op == Op::kPosixMemalign || !IsCall(event.op)) << OpName(event.op);
}

TEST_F(TraceFilterTest, TouchedPagesFollowTheirBlock) {
  const Story story = Filtered({.keep = [](const ObjectFacts& object) { return object.size_bytes >= 100'000; }});
  ASSERT_EQ(story.touched.size(), 4u);
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(story.touched[i].object, i);
}

TEST_F(TraceFilterTest, KnowsHowLongObjectsLive) {
  const Story story = Filtered({.keep = [](const ObjectFacts& object) { return object.lifetime_class == kLivesOn; }});
  EXPECT_EQ(story.objects, story.live_at_end);
  EXPECT_EQ(story.objects, 1u + 1000u + 4u);
}

TEST_F(TraceFilterTest, MergesThreads) {
  const Story all = Filtered({.merge_thread = [](std::uint16_t) { return true; }});
  EXPECT_EQ(all.threads, std::set<std::uint16_t>{0});
  for (const Event& event : all.events) EXPECT_NE(event.op, Op::kThreadStart);
  const Story one = Filtered({.merge_thread = [](std::uint16_t thread) { return thread == 1; }});
  // Numbers stay dense.
  EXPECT_EQ(one.threads, (std::set<std::uint16_t>{0, 1}));
  EXPECT_EQ(one.live_bytes, all.live_bytes);
}

TEST_F(TraceFilterTest, SizesChangeButOfBlocksWithRecordedPages) {
  const Story story = Filtered({.size = [](std::uint64_t) { return std::uint64_t{8}; }});
  std::set<std::uint64_t> sizes;
  for (const Event& event : story.events) {
    if (StartsObject(event)) sizes.insert(event.size);
  }
  EXPECT_EQ(sizes, (std::set<std::uint64_t>{8, 100'000}));
}

// The events of a damaged trace before its damage, and all that the file was to have.
std::pair<std::vector<Event>, std::uint64_t> BeforeDamage(const std::string& path) {
  auto reader = TraceReader::Open(path);
  EXPECT_TRUE(reader.ok()) << reader.status();
  EXPECT_FALSE((*reader)->damage().empty());
  std::vector<Event> events;
  for (auto block = (*reader)->Next(); block.ok() && !block->events.empty() && !block->restored; block = (*reader)->Next()) {
    events.insert(events.end(), block->events.begin(), block->events.end());
  }
  return {events, (*reader)->summary().event_count};
}

constexpr TraceWriterOptions kSmallBlocks = {.block_events = 100, .checkpoint_interval_events = 1000, .checkpoint_limit_events = 1000};

TEST_F(TraceFilterTest, EndsAtDamageAndSaysHowFarItRead) {
  WriteStory(input_, kSmallBlocks);
  OverwriteMiddle(input_, 1500);
  const auto [before, all] = BeforeDamage(input_);
  ASSERT_GT(before.size(), 1000u);
  ASSERT_LT(before.size() + 1000, all);
  // Readable again behind the checkpoint, but with another live set than the one that the damage left.
  EXPECT_LT(TraceReader::Open(input_).value()->summary().damaged_events + before.size(), all);
  const auto result = FilterTrace(input_, folder_ / "out.tape", {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->events_read, before.size());
  const auto calls = [](const std::vector<Event>& events) {
    std::vector<Event> calls;
    std::copy_if(events.begin(), events.end(), std::back_inserter(calls), [](const Event& event) { return IsCall(event.op); });
    return calls;
  };
  const Story whole = Read(folder_ / "out.tape");  // which is not damaged itself
  EXPECT_EQ(calls(whole.events), calls(before));
  // What is live at the damage lives on: nobody has seen it freed.
  const Story staying = Filtered({.keep = [](const ObjectFacts& object) { return object.lifetime_class == kLivesOn; }});
  EXPECT_EQ(staying.objects, staying.live_at_end);
  EXPECT_EQ(staying.objects, whole.live_at_end);
  EXPECT_GT(staying.objects, 100u);
}

TEST_F(TraceFilterTest, ALossThatWasRecordedIsNoDamage) {
  {
    auto writer = Writer(input_, kSmallBlocks);
    for (int i = 0; i < 5000; ++i) {
      writer->Free(writer->Allocate(Op::kMalloc, 24, 0, 0), 0);
      if (i == 50) writer->Append({.op = Op::kLost, .flags = 0, .thread = 0, .slot = 0, .size = 7});
    }
    ASSERT_TRUE(writer->Finish().ok());
  }
  OverwriteMiddle(input_, 1500);
  const auto [before, all] = BeforeDamage(input_);
  ASSERT_GT(before.size(), 1000u);
  const auto result = FilterTrace(input_, folder_ / "out.tape", {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->events_read, before.size());
  EXPECT_LT(result->events_read, all);
}

TEST_F(TraceFilterTest, InterruptedItLeavesNothing) {
  const std::atomic<bool> cancelled = true;
  EXPECT_EQ(FilterTrace(input_, folder_ / "out.tape", {}, &cancelled).status().code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.tape"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.tape.part"));
}

// An allocator that needs what is live, and one that also loses every block of 4000 bytes for which more than
// `tolerated` others lie between.
class ReduceTest : public ::testing::Test {
 protected:
  ReduceTest() { WriteStory(input_); }

  static absl::StatusOr<Pair> Measure(const std::string& path) {
    const Story story = Read(path);
    Pair pair;
    pair.good = static_cast<double>(story.peak_bytes) + 10'000;
    std::uint64_t leaked = 0;
    for (const Event& event : story.events) leaked += event.op == Op::kPosixMemalign;
    pair.bad = pair.good + 20'000.0 * static_cast<double>(leaked);
    return pair;
  }
  ReduceOptions Options() { return {.metric = Metric::kPeak, .min_difference = 100'000, .work_directory = folder_.path()}; }

  TemporaryFolder folder_;
  const std::string input_ = folder_ / "in.tape", output_ = folder_ / "small.tape";
};

TEST_F(ReduceTest, LeavesWhatShowsTheDifferenceAndLittleElse) {
  const auto result = ReduceTrace(input_, output_, Measure, Options());
  ASSERT_TRUE(result.ok()) << result.status();
  const Story small = Read(output_);
  EXPECT_EQ(small.events.size(), result->reduced.events);
  EXPECT_LT(small.events.size(), 60u);  // of 9000
  EXPECT_EQ(small.threads, std::set<std::uint16_t>{0});
  // What is written is what was measured, and it still shows it.
  const Pair pair = *Measure(output_);
  EXPECT_EQ(pair.bad, result->after.bad);
  EXPECT_GE(pair.bad / pair.good - 1, 0.8 * (result->before.bad / result->before.good - 1));
  EXPECT_GE(pair.bad - pair.good, 100'000);
  for (const Event& event : small.events) EXPECT_FALSE(event.failed());
  // Nothing is left beside it.
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) files += entry.is_regular_file();
  EXPECT_EQ(files, 2u);
}

TEST_F(ReduceTest, TheSameEachTime) {
  ASSERT_TRUE(ReduceTrace(input_, output_, Measure, Options()).ok());
  ASSERT_TRUE(ReduceTrace(input_, folder_ / "again.tape", Measure, Options()).ok());
  const auto bytes = [](const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_FALSE(bytes(output_).empty());
  EXPECT_EQ(bytes(output_), bytes(folder_ / "again.tape"));
}

TEST_F(ReduceTest, KeepsAsMuchOfTheExcessAsIsAsked) {
  ReduceOptions options = Options();
  options.keep_ratio = 1;
  const auto result = ReduceTrace(input_, output_, Measure, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GE(result->after.bad / result->after.good - 1, result->before.bad / result->before.good - 1);
  EXPECT_LT(result->reduced.events, result->original.events);
}

TEST_F(ReduceTest, AllocatorsThatDoNotDifferAreRefused) {
  const auto same = [](const std::string&) -> absl::StatusOr<Pair> { return Pair{.good = 5e6, .bad = 5.1e6}; };
  const auto result =
      ReduceTrace(input_, output_, same, Options().metric == Metric::kPeak ? ReduceOptions{.metric = Metric::kPeak, .work_directory = folder_.path()} : Options());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(result.status().message(), HasSubstr("do not differ enough"));
  EXPECT_FALSE(std::filesystem::exists(output_));
  ReduceOptions time = Options();
  time.metric = Metric::kTime;
  EXPECT_EQ(ReduceTrace(input_, output_, Measure, time).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ReduceTest, ACrashIsNotADifference) {
  const auto crashing = [](const std::string& path) -> absl::StatusOr<Pair> {
    Pair pair = *Measure(path);
    // Without the failed calls the bad one crashes.
    const Story story = Read(path);
    if (std::none_of(story.events.begin(), story.events.end(), [](const Event& event) { return event.failed(); })) pair.failure = "SIGSEGV";
    return pair;
  };
  const auto result = ReduceTrace(input_, output_, crashing, Options());
  ASSERT_TRUE(result.ok()) << result.status();
  const Story small = Read(output_);
  EXPECT_TRUE(std::any_of(small.events.begin(), small.events.end(), [](const Event& event) { return event.failed(); }));
}

TEST_F(ReduceTest, InterruptedItGivesTheSmallestUntilThen) {
  std::atomic<bool> cancelled = false;
  ReduceOptions options = Options();
  options.cancelled = &cancelled;
  options.stepped = [&](const ReduceStep& step, std::uint64_t) { cancelled = step.kept; };
  const auto result = ReduceTrace(input_, output_, Measure, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->interrupted);
  EXPECT_EQ(Read(output_).events.size(), result->reduced.events);
  EXPECT_LT(result->reduced.events, result->original.events);
}

TEST_F(ReduceTest, StopsAfterSoManySteps) {
  ReduceOptions options = Options();
  options.max_steps = 3;
  const auto result = ReduceTrace(input_, output_, Measure, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->steps.size(), 3u);
}

}  // namespace
}  // namespace heaptape
