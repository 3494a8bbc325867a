#include "allocators/catalog.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "allocators/family.h"
#include "allocators/store.h"
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

// A family's file is all that there is of it: what loads, asks, tunes and builds names none.
TEST(Catalog, NoFamilyIsNamedOutsideItsFile) {
  namespace fs = std::filesystem;
  for (const auto& item : fs::recursive_directory_iterator(fs::path(HEAPTAPE_SOURCE_DIR) / "allocators")) {
    const std::string extension = item.path().extension().string();
    if ((extension != ".cc" && extension != ".in" && extension != ".txt") || item.path().parent_path().filename() == "families") continue;
    std::ifstream file(item.path());
    std::string code((std::istreambuf_iterator<char>(file)), {});
    for (const Family* family : Families()) {
      std::vector<std::string> quoted = {"\"" + family->name + "\"", "families/" + family->name};
      for (const std::string& alias : family->aliases) quoted.push_back("\"" + alias + "\"");
      // The C library is named where the machine is made to look as recorded, whatever is replayed.
      if (family->builtin == Family::Builtin::kSystemMalloc) continue;
      for (const std::string& name : quoted) EXPECT_EQ(code.find(name), std::string::npos) << item.path() << " names " << name;
    }
  }
}

TEST(Catalog, AProjectsNameIsItsAllocators) {
  EXPECT_EQ(Only("gperftools").family, "tcmalloc");
  EXPECT_THAT(std::string(ResolveAllocators("gperftool").status().message()), HasSubstr("Did you mean gperftools?"));
}

class CatalogOfToysTest : public ::testing::Test {
 protected:
  CatalogOfToysTest() {
    char name[] = "/tmp/heaptape-catalog-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~CatalogOfToysTest() override { std::filesystem::remove_all(folder_); }

  // An entry of the cache as if `library` had been added as that version.
  void Add(const std::string& family, const std::string& version, const std::string& library) const {
    const auto made = Store(folder_).GetOrMake(family, version, [&](const std::string& folder) -> absl::StatusOr<StoredAllocator> {
      const std::string copy = folder + "/" + std::filesystem::path(library).filename().string();
      std::filesystem::copy_file(library, copy);
      return StoredAllocator{.family = family, .version = version, .label = version, .identity = version, .origin = "here", .library_path = copy};
    }, nullptr, nullptr);
    ASSERT_TRUE(made.ok()) << made.status();
  }

  std::string folder_;
};

TEST_F(CatalogOfToysTest, WhatSaysToBeAnotherVersionIsAnError) {
  const ResolvedAllocator real = Only("tcmalloc");
  Add("tcmalloc", "1.2.3", real.library_path);
  const auto named = ResolveAllocators("tcmalloc@1.2.3", {.cache_folder = folder_});
  EXPECT_EQ(named.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(named.status().message()), HasSubstr("is named tcmalloc 1.2.3"));
  EXPECT_THAT(std::string(named.status().message()), HasSubstr("says itself that it is " + real.version));
  // Among all it does not hide the others, and is not replayed.
  const auto all = ResolveAllocators("all", {.cache_folder = folder_});
  ASSERT_TRUE(all.ok()) << all.status();
  int sound = 0, wrong = 0;
  for (const ResolvedAllocator& allocator : *all) ++(allocator.problem.empty() ? sound : wrong);
  EXPECT_EQ(wrong, 1);
  EXPECT_GE(sound, 4);
}

TEST_F(CatalogOfToysTest, WhatTakesItsBlocksElsewhereIsAnError) {
  Add("rpmalloc", "1.0", HEAPTAPE_FAULTY_FOLDER "/libfaulty_forward.so");
  const auto named = ResolveAllocators("rpmalloc@1.0", {.cache_folder = folder_});
  EXPECT_EQ(named.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(named.status().message()), HasSubstr("its blocks come from the C library's malloc"));
}

TEST(Catalog, APathIsTakenAsItIs) {
  const std::string path = Only("mimalloc").library_path;
  EXPECT_EQ(Only(path).library_path, path);
  EXPECT_EQ(Only(path).family, "mimalloc");
  const auto absent = ResolveAllocators("./no/such.so");
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("./no/such.so"));
}

TEST(Catalog, WhatIsGivenToALibraryOfNoFamilyIsItsEnvironment) {
  const std::string path = HEAPTAPE_FAULTY_FOLDER "/libfaulty_errno.so";
  const ResolvedAllocator library = Only(path + ":FAULTY_LEVEL=3,other=a");
  EXPECT_THAT(library.environment, ElementsAre(Pair("FAULTY_LEVEL", "3"), Pair("other", "a")));
  EXPECT_EQ(library.DisplayName(), "libfaulty_errno.so FAULTY_LEVEL=3 other=a");
  for (const char* wrong : {"LD_PRELOAD=/x.so", "A B=1", "2=1", "A=1,A=2"}) {
    EXPECT_EQ(ResolveAllocators(path + ":" + wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

}  // namespace
}  // namespace heaptape
