#include "allocators/catalog.h"

#include <filesystem>
#include <fstream>
#include <set>

#include "allocators/family.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace heaptape {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

ResolvedAllocator Only(const std::string& text) {
  const auto found = ResolveAllocators(text);
  EXPECT_TRUE(found.ok()) << text << ": " << found.status();
  if (!found.ok() || found->size() != 1) return {};
  return found->front();
}

TEST(Catalog, EveryFamilySaysWhatTheIssueAsks) {
  std::set<std::string> names;
  for (const Family* family : Families()) {
    SCOPED_TRACE(family->name);
    EXPECT_TRUE(names.insert(family->name).second);
    EXPECT_THAT(family->summary, Not(IsEmpty()));
    EXPECT_THAT(family->libraries, Not(IsEmpty()));
    EXPECT_THAT(family->statistics, Not(IsEmpty()));
    EXPECT_THAT(family->purge, Not(IsEmpty()));
    EXPECT_EQ(family->delivery == TunableDelivery::kNone, family->tunables.empty());
    EXPECT_EQ(family->builtin == Family::Builtin::kOurs, family->build.empty());
    std::set<std::string> tunables;
    for (const Tunable& tunable : family->tunables) {
      EXPECT_TRUE(tunables.insert(tunable.name).second) << tunable.name;
      EXPECT_THAT(tunable.meaning, Not(IsEmpty())) << tunable.name;
    }
  }
}

TEST(Catalog, TheSystemsMallocNeedsNoLibrary) {
  const ResolvedAllocator glibc = Only("glibc");
  EXPECT_EQ(glibc.family, "glibc");
  EXPECT_THAT(glibc.library_path, IsEmpty());
  EXPECT_THAT(glibc.version, Not(IsEmpty()));
  EXPECT_EQ(Only("glibc@" + glibc.version).version, glibc.version);
}

TEST(Catalog, TunablesReachEachLibraryItsOwnWay) {
  EXPECT_THAT(Only("glibc:arena_max=2,tcache_count=0").environment,
              ElementsAre(Pair("GLIBC_TUNABLES", "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=0")));
  const ResolvedAllocator jemalloc = Only("jemalloc:dirty_decay_ms=0,narenas=4");
  EXPECT_THAT(jemalloc.environment, ElementsAre(Pair("MALLOC_CONF", "dirty_decay_ms:0,narenas:4")));
  EXPECT_THAT(jemalloc.DisplayName(), HasSubstr("dirty_decay_ms=0 narenas=4"));
  EXPECT_THAT(Only("mimalloc:reserve_os_memory=1024").environment,
              ElementsAre(Pair("MIMALLOC_RESERVE_OS_MEMORY", "1024")));
  EXPECT_THAT(Only("tcmalloc:release_rate=10").environment, ElementsAre(Pair("TCMALLOC_RELEASE_RATE", "10")));
}

TEST(Catalog, UnknownTunableNamesTheNearest) {
  const auto found = ResolveAllocators("jemalloc:dirty_decay=0");
  EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(found.status().message()), HasSubstr("Did you mean dirty_decay_ms?"));
}

TEST(Catalog, UnknownNameNamesTheNearest) {
  const auto found = ResolveAllocators("mimaloc");
  EXPECT_EQ(found.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(found.status().message()), HasSubstr("Did you mean mimalloc?"));
}

TEST(Catalog, AbsentVersionSaysHowToGetIt) {
  const auto found = ResolveAllocators("mimalloc@9.9.9");
  EXPECT_EQ(found.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(found.status().message()), HasSubstr("heaptape allocators add mimalloc@9.9.9"));
}

TEST(Catalog, ATunableOfAnotherVersionIsRefused) {
  // Read by mimalloc since 2.1 and by 2.0 respectively.
  const bool old_one = Only("mimalloc").version < "2.1";
  const auto found = ResolveAllocators(old_one ? "mimalloc:purge_delay=0" : "mimalloc:segment_decommit_delay=0");
  EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(found.status().message()), HasSubstr("has no tunable"));
}

TEST(Catalog, TunablesCross) {
  const std::vector<ResolvedAllocator> two = {Only("glibc"), Only("jemalloc:narenas=4")};
  const auto crossed = ExpandTunables(two, {"jemalloc:dirty_decay_ms=0,1000,-1", "glibc:arena_max=1,2"});
  ASSERT_TRUE(crossed.ok()) << crossed.status();
  ASSERT_EQ(crossed->size(), 5u);
  EXPECT_THAT((*crossed)[0].environment, ElementsAre(Pair("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")));
  EXPECT_THAT((*crossed)[2].environment, ElementsAre(Pair("MALLOC_CONF", "narenas:4,dirty_decay_ms:0")));
  const auto product = ExpandTunables({Only("jemalloc")}, {"jemalloc:narenas=1,2", "jemalloc:dirty_decay_ms=0,1"});
  ASSERT_TRUE(product.ok());
  EXPECT_EQ(product->size(), 4u);
  for (const char* wrong : {"jemalloc", "jemalloc:narenas", "jemalloc:narenas=", "jemalloc:narenas=1,,2", "jemalloc:narena=1", "jemaloc:narenas=1",
                            "mimalloc:reserve_os_memory=1"}) {
    const auto refused = ExpandTunables({Only("jemalloc")}, {wrong});
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

TEST(Catalog, AllIsEveryInstalledFamilyButTheBaseline) {
  const auto all = ResolveAllocators("all");
  ASSERT_TRUE(all.ok()) << all.status();
  std::set<std::string> families;
  for (const ResolvedAllocator& allocator : *all) families.insert(allocator.family);
  EXPECT_TRUE(families.count("glibc"));
  EXPECT_TRUE(families.count("jemalloc"));
  EXPECT_TRUE(families.count("mimalloc"));
  EXPECT_TRUE(families.count("tcmalloc"));
  EXPECT_FALSE(families.count("bump"));
  EXPECT_EQ(ResolveAllocators("all:x=1").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Catalog, APathIsTakenAsItIs) {
  const std::string path = Only("mimalloc").library_path;
  EXPECT_EQ(Only(path).library_path, path);
  EXPECT_EQ(Only(path).family, "mimalloc");
  const auto absent = ResolveAllocators("./no/such.so");
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("./no/such.so"));
}

}  // namespace
}  // namespace heaptape
