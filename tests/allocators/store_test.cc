#include "allocators/store.h"

#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace heaptape {
namespace {

namespace fs = std::filesystem;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() {
    char name[] = "/tmp/heaptape-store-XXXXXX";
    cache_ = mkdtemp(name);
  }
  ~StoreTest() override { fs::remove_all(cache_); }

  // Makes an entry with one file in it, as a build would.
  static StoredAllocator Fill(const std::string& folder, const std::string& version) {
    fs::create_directories(folder + "/lib");
    std::ofstream(folder + "/lib/libtoy.so") << version;
    return {.family = "toy", .version = version, .label = "v" + version, .identity = "1234567", .origin = "here", .library_path = folder + "/lib/libtoy.so"};
  }

  std::string cache_;
};

TEST_F(StoreTest, AnEntryIsMadeOnceAndFoundAgain) {
  const Store store(cache_);
  int made = 0;
  const auto make = [&](const std::string& folder) -> absl::StatusOr<StoredAllocator> {
    ++made;
    return Fill(folder, "1.0");
  };
  bool was_there = true;
  const auto first = store.GetOrMake("toy", "1.0-x", make, nullptr, nullptr, &was_there);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_FALSE(was_there);
  const auto second = store.GetOrMake("toy", "1.0-x", make, nullptr, nullptr, &was_there);
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(was_there);
  EXPECT_EQ(made, 1);
  EXPECT_EQ(second->library_path, cache_ + "/allocators/toy/1.0-x/lib/libtoy.so");
  EXPECT_TRUE(fs::exists(second->library_path));
  EXPECT_THAT(store.List("toy"), SizeIs(1));
}

TEST_F(StoreTest, AFailureLeavesNothing) {
  const Store store(cache_);
  const auto failed = store.GetOrMake(
      "toy", "k", [](const std::string& folder) -> absl::StatusOr<StoredAllocator> {
        Fill(folder, "1.0");
        return absl::FailedPreconditionError("does not build");
      },
      nullptr, nullptr);
  EXPECT_EQ(failed.status().message(), "does not build");
  EXPECT_THAT(store.List("toy"), IsEmpty());
  EXPECT_FALSE(fs::exists(cache_ + "/allocators/toy/.k.new"));
}

TEST_F(StoreTest, HalfFinishedAndDamagedEntriesAreNeverUsed) {
  const Store store(cache_);
  // As somebody killed while building left it, and one that lost its library since.
  Fill(cache_ + "/allocators/toy/.a.new", "0.1");
  fs::create_directories(cache_ + "/allocators/toy/b");
  std::ofstream(cache_ + "/allocators/toy/b/entry.json") << "{\"schema_version\": 1, \"family\": \"toy\", \"library\": \"lib/libtoy.so\"}";
  fs::create_directories(cache_ + "/allocators/toy/c");
  std::ofstream(cache_ + "/allocators/toy/c/entry.json") << "{\"schema_version\": 1, \"fam";
  EXPECT_THAT(store.List("toy"), IsEmpty());
  for (const char* key : {"a", "b", "c"}) {
    bool was_there = true;
    const auto made = store.GetOrMake("toy", key, [](const std::string& folder) -> absl::StatusOr<StoredAllocator> {
      EXPECT_TRUE(fs::is_empty(folder));
      return Fill(folder, "2.0");
    }, nullptr, nullptr, &was_there);
    ASSERT_TRUE(made.ok()) << key << made.status();
    EXPECT_FALSE(was_there) << key;
    EXPECT_EQ(made->version, "2.0");
  }
  EXPECT_THAT(store.List("toy"), SizeIs(3));
}

TEST_F(StoreTest, OfTwoThatMakeTheSameOneWaits) {
  const Store store(cache_);
  std::atomic<int> made = 0;
  std::atomic<bool> waited = false;
  const auto take = [&] {
    const auto entry = store.GetOrMake(
        "toy", "k",
        [&](const std::string& folder) -> absl::StatusOr<StoredAllocator> {
          ++made;
          // Until the other has said that it waits.
          for (int i = 0; i < 15'000 && !waited; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
          return Fill(folder, "1.0");
        },
        [&](const std::string& sentence) {
          if (sentence.find("waiting for it") != std::string::npos) waited = true;
        },
        nullptr);
    EXPECT_TRUE(entry.ok()) << entry.status();
  };
  std::thread first(take), second(take);
  first.join();
  second.join();
  EXPECT_EQ(made, 1);
  EXPECT_TRUE(waited);
}

TEST_F(StoreTest, WaitingCanBeInterrupted) {
  const Store store(cache_);
  std::atomic<bool> cancelled = false;
  const auto outer = store.GetOrMake("toy", "k", [&](const std::string& folder) -> absl::StatusOr<StoredAllocator> {
    cancelled = true;
    const auto inner = store.GetOrMake("toy", "k", nullptr, nullptr, &cancelled);
    EXPECT_TRUE(absl::IsCancelled(inner.status()));
    return Fill(folder, "1.0");
  }, nullptr, nullptr);
  EXPECT_TRUE(outer.ok()) << outer.status();
}

}  // namespace
}  // namespace heaptape
