// Obtains packages of another Debian release by the machine's own mirror. Downloads two indexes and three
// small packages.

#include "allocators/add.h"

#include <gnu/libc-version.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <string>

#include "allocators/family.h"
#include "allocators/listing.h"
#include "allocators/probe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace heaptape {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// Size and time of every file of the system's own apt and dpkg state, and of the folders themselves.
std::map<std::string, std::string> SystemState() {
  std::map<std::string, std::string> state;
  for (const char* folder : {"/var/lib/apt", "/var/lib/dpkg", "/var/cache/apt", "/etc/apt"}) {
    std::error_code error;
    for (fs::recursive_directory_iterator item(folder, fs::directory_options::skip_permission_denied, error), end; item != end; item.increment(error)) {
      struct stat status;
      if (lstat(item->path().c_str(), &status) == 0) {
        state[item->path().string()] = std::to_string(status.st_size) + " " + std::to_string(status.st_mtim.tv_sec) + "." + std::to_string(status.st_mtim.tv_nsec);
      }
    }
  }
  return state;
}

class AddTest : public ::testing::Test {
 protected:
  AddTest() {
    char name[] = "/tmp/heaptape-add-XXXXXX";
    cache_ = mkdtemp(name);
  }
  ~AddTest() override { fs::remove_all(cache_); }
  AddRequest Request(const std::string& family, const std::string& version) const {
    return {.family = family, .version = version, .release = "trixie", .cache_folder = cache_};
  }
  std::string cache_;
};

TEST_F(AddTest, AnotherReleasesPackageWithoutTouchingTheSystem) {
  const auto before = SystemState();
  const auto added = AddAllocator(Request("mimalloc", "3.0.1"));
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_EQ(SystemState(), before);
  EXPECT_EQ(added->allocator.version, "3.0.1");
  EXPECT_THAT(added->allocator.origin, HasSubstr("Debian trixie package libmimalloc3 3.0.1"));
  const auto again = AddAllocator(Request("mimalloc", "3.0.1"));
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->was_there);

  const auto resolved = ResolveAllocators("mimalloc@3.0.1:purge_delay=0", {.cache_folder = cache_});
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->front().DisplayName(), "mimalloc 3.0.1 purge_delay=0");
  const auto facts = AskLibrary(added->allocator, FindFamily("mimalloc"), {.conformance = true});
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_EQ(facts->version, "3.0.1");
  for (const ConformanceCheck& check : facts->checks) {
    if (check.name == "interposition" || check.name == "realloc" || check.name == "cross_thread_free") {
      EXPECT_EQ(check.outcome, ConformanceCheck::Outcome::kPassed) << check.name << ": " << check.detail;
    }
  }

  // A version that can't be had names those that can.
  const auto absent = AddAllocator(Request("mimalloc", "9.9.9"));
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("3.0.1 (trixie)"));
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("--source"));
  AddRequest request = Request("mimalloc", "3.0.1");
  request.release = "tricksie";
  const auto unknown = AddAllocator(request);
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("did you mean trixie?"));

  // And the list says what else can.
  const auto listing = ListAllocators({.cache_folder = cache_, .conformance = false});
  ASSERT_TRUE(listing.ok()) << listing.status();
  bool available = false;
  for (const ListedAllocator& listed : listing->allocators) {
    if (listed.family == "tbbmalloc" && listed.state == ListedAllocator::State::kAvailable) {
      available = true;
      EXPECT_EQ(listed.command, "heaptape allocators add tbbmalloc@" + listed.version + " --release trixie");
    }
  }
  EXPECT_TRUE(available);
}

TEST_F(AddTest, AnotherCLibraryRunsUnderItsOwnLoader) {
  // Of two releases the one that is not the system's own.
  const bool is_trixie = std::string(gnu_get_libc_version()) == "2.41";
  const std::string version = is_trixie ? "2.36" : "2.41";
  AddRequest request = Request("glibc", version);
  request.release = is_trixie ? "bookworm" : "trixie";
  const auto added = AddAllocator(request);
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_TRUE(added->allocator.library_path.empty());
  EXPECT_THAT(added->allocator.loader_path, HasSubstr("ld-linux-x86-64.so.2"));
  const auto resolved = ResolveAllocators("glibc@" + version + ":arena_max=2", {.cache_folder = cache_});
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->front().version, version);
  const auto facts = AskLibrary(resolved->front(), FindFamily("glibc"), {.conformance = true});
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_THAT(facts->library_path, HasSubstr(cache_));
  for (const ConformanceCheck& check : facts->checks) EXPECT_EQ(check.outcome, ConformanceCheck::Outcome::kPassed) << check.name << ": " << check.detail;
}

// No package has its malloc as a library.
TEST_F(AddTest, WhatNoPackageHasIsBuiltFromItsDebianSource) {
  AddRequest request = Request("musl", "");
  request.release = "";
  const auto added = AddAllocator(request);
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_THAT(added->allocator.origin, HasSubstr("source musl"));
  EXPECT_THAT(added->allocator.version, MatchesRegex("[0-9]+\\.[0-9].*"));
  const auto facts = AskLibrary(added->allocator, FindFamily("musl"), {.conformance = true});
  ASSERT_TRUE(facts.ok()) << facts.status();
  for (const ConformanceCheck& check : facts->checks) {
    EXPECT_NE(check.outcome, ConformanceCheck::Outcome::kFailed) << check.name << ": " << check.detail;
  }
}

// Indexes of sources and archives of tens of megabytes.
TEST_F(AddTest, CopiesInsideOtherProjectsSources) {
  if (std::getenv("HEAPTAPE_LONG_TESTS") == nullptr) GTEST_SKIP() << "downloads 40 MB; set HEAPTAPE_LONG_TESTS";
  for (const char* version : {"2.1.2", "2.1.9"}) {
    AddRequest request = Request("mimalloc", version);
    request.release = "";
    const auto added = AddAllocator(request);
    ASSERT_TRUE(added.ok()) << added.status();
    EXPECT_EQ(added->allocator.version, version);
  }
  AddRequest request = Request("mimalloc", "2.1.5");
  request.source = "debian:mold";
  const auto wrong = AddAllocator(request);
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(wrong.status().message()), HasSubstr("the source package mold has mimalloc 2.1.9 (trixie), not 2.1.5"));
}

TEST_F(AddTest, WithoutANetworkALocalPathIsAskedFor) {
  // The discard port of this machine answers nobody.
  setenv("http_proxy", "http://127.0.0.1:9", 1);
  setenv("https_proxy", "http://127.0.0.1:9", 1);
  const auto absent = AddAllocator(Request("mimalloc", "3.0.1"));
  unsetenv("http_proxy");
  unsetenv("https_proxy");
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kUnavailable) << absent.status();
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("--source PATH"));
  EXPECT_TRUE(Store(cache_).List("mimalloc").empty());
}

}  // namespace
}  // namespace heaptape
