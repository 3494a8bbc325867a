#include "replayer/bisect/build_ahead.h"

#include <future>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace heaptape {
namespace {

using ::testing::ElementsAre;

// Builds at once, but for the commit "slow", which takes until it is cancelled or allowed to end.
struct FakeBuilder {
  std::mutex mutex;
  std::vector<std::string> begun;
  std::promise<void> slow_began;
  std::atomic<bool> slow_may_end = false;

  absl::StatusOr<Built> operator()(const std::string& hash, const std::atomic<bool>* cancelled) {
    {
      const std::lock_guard lock(mutex);
      begun.push_back(hash);
    }
    if (hash == "slow") {
      slow_began.set_value();
      while (!slow_may_end) {
        if (*cancelled) return absl::CancelledError("interrupted");
        std::this_thread::yield();
      }
    }
    if (hash == "disk full") return absl::ResourceExhaustedError("disk full");
    Built built;
    if (hash == "broken") built.failure = "syntax error";
    built.allocator.library_path = "/" + hash;
    return built;
  }
};

BuildFunction Wrap(FakeBuilder& builder) {
  return [&builder](const std::string& hash, const std::atomic<bool>* cancelled) { return builder(hash, cancelled); };
}

TEST(BuildAheadTest, BuildsEachCommitOnce) {
  FakeBuilder builder;
  BuildAhead ahead(Wrap(builder), nullptr);
  ahead.Expect({"a", "b"});
  EXPECT_EQ(ahead.Get("b")->allocator.library_path, "/b");
  EXPECT_EQ(ahead.Get("a")->allocator.library_path, "/a");
  EXPECT_EQ(ahead.Get("a")->allocator.library_path, "/a");
  EXPECT_EQ(ahead.Get("broken")->failure, "syntax error");
  EXPECT_EQ(ahead.Get("disk full").status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(builder.begun.size(), 4u);
}

TEST(BuildAheadTest, WhatIsAskedForGoesBeforeWhatIsExpected) {
  FakeBuilder builder;
  BuildAhead ahead(Wrap(builder), nullptr);
  ahead.Expect({"slow", "later"});
  builder.slow_began.get_future().wait();
  // The one under way gives up instead of being waited for.
  EXPECT_TRUE(ahead.Get("urgent").ok());
  const std::lock_guard lock(builder.mutex);
  ASSERT_GE(builder.begun.size(), 2u);
  EXPECT_EQ(builder.begun[0], "slow");
  EXPECT_EQ(builder.begun[1], "urgent");
}

TEST(BuildAheadTest, WaitsForTheOneUnderWayWhenItIsTheOneAskedFor) {
  FakeBuilder builder;
  BuildAhead ahead(Wrap(builder), nullptr);
  ahead.Expect({"slow"});
  builder.slow_began.get_future().wait();
  std::future<absl::StatusOr<Built>> got = std::async(std::launch::async, [&] { return ahead.Get("slow"); });
  builder.slow_may_end = true;
  EXPECT_TRUE(got.get().ok());
  EXPECT_THAT(builder.begun, ElementsAre("slow"));
}

TEST(BuildAheadTest, EndsWithABuildUnderWay) {
  FakeBuilder builder;
  {
    BuildAhead ahead(Wrap(builder), nullptr);
    ahead.Expect({"slow", "never"});
    builder.slow_began.get_future().wait();
  }
  EXPECT_THAT(builder.begun, ElementsAre("slow"));
}

TEST(BuildAheadTest, InterruptedWhileWaiting) {
  FakeBuilder builder;
  std::atomic<bool> cancelled = false;
  BuildAhead ahead(Wrap(builder), &cancelled);
  ahead.Expect({"slow"});
  builder.slow_began.get_future().wait();
  cancelled = true;
  EXPECT_EQ(ahead.Get("slow").status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace heaptape
