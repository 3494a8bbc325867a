#include "allocators/specification.h"

#include <sstream>

#include "allocators/debian.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace heaptape {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(AllocatorSpecification, TakesNameVersionAndTunablesApart) {
  const auto given = ParseSpecification("jemalloc@5.3.0:dirty_decay_ms=0,narenas=4");
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_EQ(given->name, "jemalloc");
  EXPECT_EQ(given->version, "5.3.0");
  EXPECT_THAT(given->tunables, ElementsAre(Pair("dirty_decay_ms", "0"), Pair("narenas", "4")));
  EXPECT_THAT(given->path, IsEmpty());
}

TEST(AllocatorSpecification, TakesPathsWithTunables) {
  const auto given = ParseSpecification("./build:1/libmimalloc.so:purge_delay=-1");
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_EQ(given->path, "./build:1/libmimalloc.so");
  EXPECT_THAT(given->tunables, ElementsAre(Pair("purge_delay", "-1")));
  const auto bare = ParseSpecification("libfoo.so");
  ASSERT_TRUE(bare.ok());
  EXPECT_EQ(bare->path, "libfoo.so");
  const auto environment = ParseSpecification("/opt/libfoo.so:FOO_FILE=/etc/foo:x=1");
  ASSERT_TRUE(environment.ok());
  EXPECT_EQ(environment->path, "/opt/libfoo.so");
  EXPECT_THAT(environment->tunables, ElementsAre(Pair("FOO_FILE", "/etc/foo:x=1")));
}

TEST(AllocatorSpecification, RefusesHalfTunablesAndEmptyNames) {
  for (const char* wrong : {"", "@2.0", "mimalloc@", "glibc:", "glibc:arena_max", "glibc:arena_max=", "glibc:=2", "glibc:a=1,,b=2"}) {
    const auto given = ParseSpecification(wrong);
    EXPECT_EQ(given.status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

TEST(NearestName, FindsTypingErrorsAndPartsOnly) {
  const std::vector<std::string> known = {"glibc", "jemalloc", "mimalloc", "tcmalloc"};
  EXPECT_EQ(NearestName("mimaloc", known), "mimalloc");
  EXPECT_EQ(NearestName("Jemalloc", known), "jemalloc");
  EXPECT_EQ(NearestName("decay", {"narenas", "dirty_decay_ms"}), "dirty_decay_ms");
  EXPECT_EQ(NearestName("xyzzyxyzzy", known), "");
}

TEST(DebianVersions, LoseEpochRevisionAndRepackingMarks) {
  EXPECT_EQ(UpstreamVersion("2.0.9+ds-2"), "2.0.9");
  EXPECT_EQ(UpstreamVersion("1:14.0.6-12"), "14.0.6");
  EXPECT_EQ(UpstreamVersion("5.3.0-1+b1"), "5.3.0");
  EXPECT_EQ(UpstreamVersion("3.6.1+ds-1~bpo13+1"), "3.6.1");
  EXPECT_EQ(UpstreamVersion("2.41"), "2.41");
}

TEST(DebianVersions, CompareNumbersAsNumbers) {
  EXPECT_LT(CompareVersions("2.1.9", "2.1.10"), 0);
  EXPECT_GT(CompareVersions("3.0.1", "2.9.9"), 0);
  EXPECT_EQ(CompareVersions("2.41", "2.41"), 0);
  EXPECT_LT(CompareVersions("2.41", "2.41.1"), 0);
}

TEST(DebianVersions, AnswerToTheirBeginnings) {
  EXPECT_TRUE(VersionAnswers("2.0.9", "2.0"));
  EXPECT_TRUE(VersionAnswers("2.0.9", ""));
  EXPECT_TRUE(VersionAnswers("5.3.0-3", "5.3.0"));
  EXPECT_FALSE(VersionAnswers("2.41", "2.4"));
  EXPECT_FALSE(VersionAnswers("2.0", "2.0.9"));
}

TEST(DpkgStatus, ListsOnlyWhatIsInstalled) {
  std::istringstream status(
      "Package: libjemalloc2\nStatus: install ok installed\nVersion: 5.3.0-1\n\n"
      "Package: libmimalloc2.0\nStatus: deinstall ok config-files\nVersion: 2.0.9+ds-2\n\n"
      "Package: libc6\nStatus: hold ok installed\nVersion: 2.36-9\n");
  EXPECT_THAT(ParseDpkgStatus(status), ElementsAre(Pair("libc6", "2.36-9"), Pair("libjemalloc2", "5.3.0-1")));
}

}  // namespace
}  // namespace heaptape
