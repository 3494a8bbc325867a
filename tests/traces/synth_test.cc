#include "traces/synth.h"

#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/temporary_trace.h"
#include "traces/synth_profile.h"

namespace heaptape {
namespace {

using ::testing::HasSubstr;

SynthClass ClassOf(std::uint64_t size, std::vector<WeightedRange> lifetimes, double weight = 1) {
  return {.low_bytes = size, .high_bytes = size, .weight = weight, .calls = {{.op = Op::kMalloc}}, .lifetimes = std::move(lifetimes)};
}

SynthProfile OnePhase(std::vector<SynthClass> classes, std::uint64_t calls = 100'000, std::size_t threads = 1) {
  SynthPhase phase{.call_count = calls, .calls_per_second = 50'000, .classes = std::move(classes)};
  phase.threads.assign(threads, {.weight = 1, .run_calls = 20});
  return {.phases = {phase}};
}

std::string BytesOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::uint64_t CallsOf(const std::vector<Event>& events) {
  std::uint64_t calls = 0;
  for (const Event& event : events) calls += IsCall(event.op);
  return calls;
}

TEST(Synth, TheSameSeedGivesTheSameBytesAndAnotherSeedOthers) {
  const SynthProfile profile = OnePhase({ClassOf(32, {{0, 1000, 1}}), ClassOf(100, {{5, 50000, 1}})}, 200'000, 3);
  std::set<std::string> contents;
  for (const std::uint64_t seed : {1, 1, 2}) {
    TemporaryTrace trace;
    ASSERT_TRUE(WriteSynthetic(profile, {.seed = seed}, trace.writer()).ok());
    trace.Open();
    contents.insert(BytesOf(trace.path()));
  }
  EXPECT_EQ(contents.size(), 2u);
}

TEST(Synth, MakesAsManyCallsAsAskedAndNoFreeOfADeadObject) {
  TemporaryTrace trace;
  ASSERT_TRUE(WriteSynthetic(OnePhase({ClassOf(64, {{0, 3000, 1}})}, 1000, 4), {.call_count = 70'001}, trace.writer()).ok());
  std::set<std::uint32_t> live;
  std::set<std::uint16_t> threads = {0};
  const std::vector<Event> events = trace.Events();
  EXPECT_EQ(CallsOf(events), 70'001u);
  for (const Event& event : events) {
    if (event.op == Op::kThreadStart) {
      EXPECT_TRUE(threads.insert(event.thread).second);
    }
    if (StartsObject(event)) {
      EXPECT_TRUE(live.insert(event.slot).second);
    }
    if (event.op == Op::kFree) {
      EXPECT_EQ(live.erase(event.slot), 1u);
    }
    if (IsCall(event.op)) {
      EXPECT_TRUE(threads.count(event.thread));
    }
  }
  EXPECT_EQ(threads.size(), 4u);
}

TEST(Synth, AnObjectIsFreedAfterItsLifetimeInAllocations) {
  for (const std::uint64_t lifetime : {0, 1, 255, 256, 70'000}) {
    TemporaryTrace trace;
    ASSERT_TRUE(WriteSynthetic(OnePhase({ClassOf(8, {{lifetime, lifetime, 1}})}, 300'000), {}, trace.writer()).ok());
    std::map<std::uint32_t, std::uint64_t> birth;
    std::uint64_t started = 0, freed = 0;
    for (const Event& event : trace.Events()) {
      if (StartsObject(event)) birth[event.slot] = ++started;
      if (event.op == Op::kFree) {
        ++freed;
        ASSERT_EQ(started - birth[event.slot], lifetime);
      }
    }
    EXPECT_NEAR(static_cast<double>(freed), static_cast<double>(started - lifetime), 1);
  }
}

TEST(Synth, TheLiveSetIsTheMeanLifetime) {
  TemporaryTrace trace;
  ASSERT_TRUE(WriteSynthetic(OnePhase({ClassOf(8, {{0, 20'000, 1}})}, 200'000), {}, trace.writer()).ok());
  EXPECT_NEAR(static_cast<double>(trace.writer().live_objects()), 10'000, 300);
}

TEST(Synth, PermanentObjectsAreTheGrowth) {
  SynthClass growing = ClassOf(100, {{0, 10, 1}});
  growing.permanent_share = 0.01;
  TemporaryTrace trace;
  ASSERT_TRUE(WriteSynthetic(OnePhase({growing}, 400'000), {}, trace.writer()).ok());
  EXPECT_NEAR(static_cast<double>(trace.writer().live_bytes()), 0.01 * 100 * 201'000, 20'000);
}

TEST(Synth, PhasesFollowOneAnotherAndThenRepeat) {
  SynthProfile profile = OnePhase({ClassOf(1, {{0, 0, 1}})}, 1000);
  profile.phases.push_back(OnePhase({ClassOf(2, {{0, 0, 1}})}, 500).phases[0]);
  profile.phases.push_back(OnePhase({ClassOf(3, {{0, 0, 1}})}, 500).phases[0]);
  profile.repeat_from = 1;
  TemporaryTrace trace;
  ASSERT_TRUE(WriteSynthetic(profile, {.call_count = 4000}, trace.writer()).ok());
  std::vector<std::uint64_t> order;
  for (const Event& event : trace.Events()) {
    if (StartsObject(event) && (order.empty() || order.back() != event.size)) order.push_back(event.size);
  }
  ASSERT_GE(order.size(), 5u);
  EXPECT_EQ(std::vector<std::uint64_t>(order.begin(), order.begin() + 5), (std::vector<std::uint64_t>{1, 2, 3, 2, 3}));
}

TEST(Synth, TimeRunsAtTheRateOfThePhase) {
  TemporaryTrace trace;
  ASSERT_TRUE(WriteSynthetic(OnePhase({ClassOf(8, {{1, 5, 1}})}, 100'000), {}, trace.writer()).ok());
  EXPECT_NEAR(static_cast<double>(trace.Open()->summary().duration_ns), 2e9, 2e6);
}

TEST(Synth, ThreadsShareTheCallsAndFreeEachOthersObjectsAsOftenAsAsked) {
  SynthProfile profile = OnePhase({ClassOf(8, {{1, 500, 1}})}, 400'000, 4);
  profile.phases[0].cross_thread_free_share = 0.2;
  TemporaryTrace trace;
  ASSERT_TRUE(WriteSynthetic(profile, {}, trace.writer()).ok());
  std::map<std::uint32_t, std::uint16_t> owner;
  std::map<std::uint16_t, double> calls;
  double frees = 0, foreign = 0;
  for (const Event& event : trace.Events()) {
    if (IsCall(event.op)) ++calls[event.thread];
    if (StartsObject(event)) owner[event.slot] = event.thread;
    if (event.op == Op::kFree) {
      ++frees;
      foreign += owner[event.slot] != event.thread;
    }
  }
  // A quarter of the chosen threads is the owner itself.
  EXPECT_NEAR(foreign / frees, 0.2 * 0.75, 0.01);
  for (const auto& [thread, count] : calls) EXPECT_NEAR(count, 100'000, 10'000);
}

TEST(Synth, ReallocsGoToTheirTargets) {
  SynthClass small = ClassOf(10, {{1, 100, 1}});
  small.realloc_share = 0.5;
  small.realloc_targets = {{.class_index = 1, .weight = 1}};
  SynthClass large = ClassOf(1000, {{1, 100, 1}}, 0);
  TemporaryTrace trace;
  ASSERT_TRUE(WriteSynthetic(OnePhase({small, large}), {}, trace.writer()).ok());
  double reallocs = 0, allocations = 0;
  for (const Event& event : trace.Events()) {
    if (event.op == Op::kFree || !IsCall(event.op)) continue;
    ++(StartsObject(event) ? allocations : reallocs);
    EXPECT_EQ(event.size, StartsObject(event) ? 10u : 1000u);
  }
  EXPECT_NEAR(reallocs / allocations, 0.5, 0.02);
}

TEST(Synth, ACancelledRunSaysSo) {
  const std::atomic<bool> cancelled = true;
  TemporaryTrace trace;
  const absl::Status status = WriteSynthetic(OnePhase({ClassOf(8, {{1, 5, 1}})}, 10'000'000), {.cancelled = &cancelled}, trace.writer());
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_LT(trace.writer().event_count(), 1'000'000u);
}

TEST(SynthProfile, ReadsBackFromJson) {
  SynthProfile profile = OnePhase({ClassOf(10, {{1, 100, 0.25}, {7, 9, 1e-3}}), ClassOf(20, {{0, 1, 1}})}, 1000, 2);
  profile.phases[0].classes[0].realloc_share = 0.1;
  profile.phases[0].classes[0].realloc_targets = {{1, 0.3}};
  profile.phases[0].classes[1].calls = {{Op::kPosixMemalign, 64, 3}, {Op::kCalloc, 0, 1}};
  const auto read = ProfileFromJson(ProfileToJson(profile), "p.json");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, profile);
}

TEST(SynthProfile, RefusesWhatNoTraceCanBeMadeOf) {
  const auto refuse = [](const auto& change, const char* why) {
    SynthProfile profile = OnePhase({ClassOf(10, {{1, 100, 1}})});
    change(profile.phases[0]);
    EXPECT_THAT(std::string(CheckProfile(profile).message()), HasSubstr(why));
    const auto read = ProfileFromJson(ProfileToJson(profile), "p.json");
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
    TemporaryTrace trace;
    EXPECT_EQ(WriteSynthetic(profile, {}, trace.writer()).code(), absl::StatusCode::kInvalidArgument);
  };
  refuse([](SynthPhase& p) { p.call_count = 0; }, "call_count");
  refuse([](SynthPhase& p) { p.threads.clear(); }, "threads");
  refuse([](SynthPhase& p) { p.classes.clear(); }, "classes");
  refuse([](SynthPhase& p) { p.classes[0].low_bytes = 11; }, "range below");
  refuse([](SynthPhase& p) { p.classes[0].weight = -1; }, "weights");
  refuse([](SynthPhase& p) { p.classes[0].permanent_share = 1.5; }, "permanent_share");
  refuse([](SynthPhase& p) { p.classes[0].calls[0].alignment_bytes = 24; }, "power of two");
  refuse([](SynthPhase& p) { p.classes[0].calls[0].op = Op::kFree; }, "allocations");
  refuse([](SynthPhase& p) { p.classes[0].lifetimes[0].high = 1ull << 50; }, "lifetimes");
  refuse([](SynthPhase& p) { p.classes[0].realloc_share = 1, p.classes[0].realloc_targets = {{9, 1}}; }, "does not exist");
}

TEST(SynthProfile, RefusesTextThatIsNoProfile) {
  for (const char* text : {"", "{", "[]", "{\"schema_version\": 1}", "{\"kind\":\"heaptape profile\",\"schema_version\":2}",
                           "{\"kind\":\"heaptape profile\",\"schema_version\":1,\"repeat_from\":0,\"phases\":[{}]}"}) {
    const auto read = ProfileFromJson(text, "p.json");
    ASSERT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr("p.json"));
  }
}

TEST(SynthProfile, DistributionsHaveTheirMeans) {
  const auto mean = [](const char* text) {
    const auto ranges = ParseDistribution(text, true);
    EXPECT_TRUE(ranges.ok()) << text;
    return ranges.ok() ? MeanOf(*ranges) : -1;
  };
  EXPECT_EQ(mean("64"), 64);
  EXPECT_EQ(mean("2K"), 2048);
  EXPECT_NEAR(mean("16:3,32:1"), 20, 1e-9);
  EXPECT_NEAR(mean("exponential/1000"), 1000, 10);
  EXPECT_NEAR(mean("lognormal/100/1"), 100 * 1.6487, 3);
  EXPECT_NEAR(mean("1000-8000"), 7000 / 2.0794, 30);
  for (const char* text : {"", "x", "10-5", "1-2-3", "lognormal/3", "exponential/0", "normal/1/2", "16:x", "16:-1", "16:0", "5Q"}) {
    EXPECT_EQ(ParseDistribution(text, true).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(SynthProfile, AFitGuessesNothingOfFewObjectsThatWereAllSeenToEnd) {
  SynthClass kept = ClassOf(24, {{0, 40, 1}}, 10'000);
  kept.permanent_share = 0.3;
  const SynthClass rare = ClassOf(64 << 20, {{200, 400, 1}}, 1);
  TemporaryTrace trace;
  ASSERT_TRUE(WriteSynthetic(OnePhase({kept, rare}, 200'000), {.seed = 1}, trace.writer()).ok());
  const auto fitted = FitProfile(*trace.Open(), 4);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  int phases_with_rare = 0;
  for (const SynthPhase& phase : fitted->phases) {
    for (const SynthClass& object_class : phase.classes) {
      if (object_class.low_bytes != rare.low_bytes) continue;
      ++phases_with_rare;
      EXPECT_LT(object_class.permanent_share, 0.01);
      EXPECT_NEAR(MeanOf(object_class.lifetimes), 300, 150);
    }
  }
  EXPECT_GT(phases_with_rare, 0);
}

TEST(SynthProfile, AFitTellsWhatWentIn) {
  SynthClass short_lived = ClassOf(24, {{0, 40, 1}}, 9);
  short_lived.realloc_share = 0.2;
  short_lived.realloc_targets = {{.class_index = 1, .weight = 1}};
  SynthClass long_lived = ClassOf(3000, {{20'000, 30'000, 1}}, 1);
  long_lived.calls = {{Op::kCalloc, 0, 1}};
  SynthProfile profile = OnePhase({short_lived, long_lived}, 1'000'000, 3);
  profile.phases[0].cross_thread_free_share = 0.1;
  TemporaryTrace original;
  ASSERT_TRUE(WriteSynthetic(profile, {.seed = 4}, original.writer()).ok());
  const auto fitted = FitProfile(*original.Open(), 4);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  ASSERT_EQ(fitted->phases.size(), 4u);
  EXPECT_EQ(fitted->call_count(), 1'000'000u);
  for (const SynthPhase& phase : fitted->phases) {
    EXPECT_NEAR(phase.calls_per_second, 50'000, 500);
    EXPECT_EQ(phase.threads.size(), 3u);
    ASSERT_EQ(phase.classes.size(), 2u);
    EXPECT_EQ(phase.classes[0].low_bytes, 24u);
    EXPECT_NEAR(phase.classes[0].weight / phase.classes[1].weight, 9, 0.5);
    EXPECT_NEAR(phase.classes[0].realloc_share, 0.2, 0.02);
    // Blurred by half the wait of about 20 allocations for the thread's next run.
    EXPECT_NEAR(MeanOf(phase.classes[0].lifetimes), 20, 10);
    EXPECT_EQ(phase.classes[1].calls[0].op, Op::kCalloc);
    // The last phase is seen for 125,000 allocations at most, and yet tells what the others knew.
    EXPECT_NEAR(MeanOf(phase.classes[1].lifetimes), 25'000, 2'000);
    EXPECT_LT(phase.classes[1].permanent_share, 0.02);
  }
  TemporaryTrace copy;
  ASSERT_TRUE(WriteSynthetic(*fitted, {.seed = 5}, copy.writer()).ok());
  EXPECT_NEAR(static_cast<double>(copy.writer().live_bytes()) / static_cast<double>(original.writer().live_bytes()), 1, 0.1);
  EXPECT_NEAR(static_cast<double>(copy.writer().object_count()) / static_cast<double>(original.writer().object_count()), 1, 0.02);
}

}  // namespace
}  // namespace heaptape
