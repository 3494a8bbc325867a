// Builds a toy allocator (the baseline's own source) the ways a user may bring one.

#include "allocators/build.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "allocators/add.h"
#include "allocators/process.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace heaptape {
namespace {

namespace fs = std::filesystem;
using ::testing::EndsWith;
using ::testing::HasSubstr;

// What mimalloc's family is asked for, answered by a few lines that say to be `version`.
constexpr char kBuild[] = "sh build.sh";

class BuildTest : public ::testing::Test {
 protected:
  BuildTest() {
    char name[] = "/tmp/heaptape-build-XXXXXX";
    folder_ = mkdtemp(name);
    source_ = folder_ + "/toy";
    fs::create_directories(source_);
    Write(209);
  }
  ~BuildTest() override { fs::remove_all(folder_); }

  void Write(int version) const {
    fs::copy_file(HEAPTAPE_SOURCE_DIR "/allocators/bump.c", source_ + "/bump.c", fs::copy_options::overwrite_existing);
    std::ofstream(source_ + "/version.c") << "int mi_version(void) { return " << version << "; }\n";
    std::ofstream(source_ + "/build.sh") << "set -e\necho building with $JOBS\nmkdir -p \"$PREFIX/lib\"\n"
                                            "cc -shared -fPIC -DHEAPTAPE_VERSION='\"0\"' $OPTIONS bump.c version.c -o \"$PREFIX/lib/libmimalloc.so\"\n";
  }

  void Git(const std::vector<std::string>& arguments) const {
    std::vector<std::string> command = {"git", "-C", source_, "-c", "user.name=a", "-c", "user.email=a@example.invalid"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    const auto done = RunProcess(command);
    ASSERT_TRUE(done.ok()) << done.status();
    ASSERT_EQ(done->exit_status, 0) << done->errors;
  }

  AddRequest Request(const std::string& version, const std::string& source) const {
    return {.family = "mimalloc", .version = version, .source = source, .build_commands = kBuild, .cache_folder = folder_ + "/cache"};
  }

  std::string folder_, source_;
};

TEST_F(BuildTest, SeesNothingOfTheCallersSecrets) {
  setenv("HEAPTAPE_TEST_TOKEN", "secret", 1);
  setenv("SSH_AUTH_SOCK", "/tmp/agent", 1);
  setenv("CFLAGS", "-g", 1);
  AddRequest request = Request("", source_);
  request.build_commands = "env > \"$PREFIX/environment\" && sh build.sh";
  const auto added = AddAllocator(request);
  for (const char* name : {"HEAPTAPE_TEST_TOKEN", "SSH_AUTH_SOCK", "CFLAGS"}) unsetenv(name);
  ASSERT_TRUE(added.ok()) << added.status();
  std::ifstream file(fs::path(added->allocator.library_path).parent_path().parent_path() / "environment");
  const std::string environment((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(environment, HasSubstr("PREFIX="));
  EXPECT_THAT(environment, HasSubstr("CFLAGS=-g"));
  EXPECT_THAT(environment, Not(HasSubstr("HEAPTAPE_TEST_TOKEN")));
  EXPECT_THAT(environment, Not(HasSubstr("SSH_AUTH_SOCK")));
}

// As a partial clone has it, or a damaged one.
TEST_F(BuildTest, FromACloneThatLacksWhatNoBuildNeeds) {
  Git({"init", "-q", "-b", "main"});
  std::ofstream(source_ + "/large") << "needed by nobody\n";
  Git({"add", "-A"});
  Git({"commit", "-qm", "one"});
  const auto large = RunProcess({"git", "-C", source_, "rev-parse", "HEAD:large"});
  ASSERT_TRUE(large.ok());
  Git({"rm", "-q", "large"});
  Git({"commit", "-qm", "two"});
  ASSERT_EQ(fs::remove(source_ + "/.git/objects/" + large->output.substr(0, 2) + "/" + large->output.substr(2, 38)), true);
  const auto added = AddAllocator(Request("main", source_));
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_EQ(added->allocator.version, "2.0.9");
  // The commit that needs it says so.
  const auto absent = AddAllocator(Request("main~1", source_));
  EXPECT_FALSE(absent.ok());
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("large"));
}

TEST_F(BuildTest, FromAFolderIntoTheCacheAndOnlyOnce) {
  const auto added = AddAllocator(Request("", source_));
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_FALSE(added->was_there);
  EXPECT_EQ(added->allocator.version, "2.0.9");
  EXPECT_THAT(added->allocator.library_path, EndsWith("/prefix/lib/libmimalloc.so"));
  EXPECT_FALSE(fs::exists(source_ + "/out"));
  const auto again = AddAllocator(Request("", source_));
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->was_there);
  AddRequest other = Request("", source_);
  other.options = "-O1";
  const auto with_options = AddAllocator(other);
  ASSERT_TRUE(with_options.ok());
  EXPECT_FALSE(with_options->was_there);
  EXPECT_NE(with_options->allocator.library_path, added->allocator.library_path);
  // It is what --allocator finds from now on.
  const auto resolved = ResolveAllocators("mimalloc@toy", {.cache_folder = folder_ + "/cache"});
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->front().version, "2.0.9");
}

TEST_F(BuildTest, FromTagsAndCommitsOfAClone) {
  Git({"init", "-q"});
  Git({"add", "-A"});
  Git({"commit", "-qm", "one"});
  Git({"tag", "v2.0.9"});
  Write(217);
  Git({"commit", "-qam", "two"});
  Git({"tag", "v2.1.7"});
  const auto old_one = AddAllocator(Request("2.0.9", source_));
  ASSERT_TRUE(old_one.ok()) << old_one.status();
  EXPECT_EQ(old_one->allocator.version, "2.0.9");
  EXPECT_THAT(old_one->allocator.origin, HasSubstr("v2.0.9, commit "));
  const auto new_one = AddAllocator(Request("v2.1.7", source_));
  ASSERT_TRUE(new_one.ok()) << new_one.status();
  EXPECT_EQ(new_one->allocator.version, "2.1.7");
  const auto head = RunProcess({"git", "-C", source_, "rev-parse", "HEAD"});
  ASSERT_TRUE(head.ok());
  const std::string commit = head->output.substr(0, 10);
  const auto by_commit = AddAllocator(Request(commit, source_));
  ASSERT_TRUE(by_commit.ok()) << by_commit.status();
  const auto found = ResolveAllocators("mimalloc@" + commit, {.cache_folder = folder_ + "/cache"});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->front().version, "2.1.7");
  const auto absent = AddAllocator(Request("v2.1.8", source_));
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("v2.1.7"));
}

TEST_F(BuildTest, FromAnArchive) {
  const auto packed = RunProcess({"tar", "-C", folder_, "-czf", folder_ + "/toy.tar.gz", "toy"});
  ASSERT_TRUE(packed.ok() && packed->exit_status == 0);
  const auto added = AddAllocator(Request("2.0.9", folder_ + "/toy.tar.gz"));
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_EQ(added->allocator.version, "2.0.9");
  std::ofstream(folder_ + "/no.tar.gz") << "this is no archive";
  const auto broken = AddAllocator(Request("", folder_ + "/no.tar.gz"));
  EXPECT_EQ(broken.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(broken.status().message()), HasSubstr("no.tar.gz"));
}

TEST_F(BuildTest, AFailureShowsTheLogsEndAndItsPlaceAndLeavesNoEntry) {
  std::ofstream(source_ + "/version.c") << "int mi_version(void) { return nonsense; }\n";
  const auto failed = AddAllocator(Request("", source_));
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(failed.status().message());
  EXPECT_THAT(message, HasSubstr("nonsense"));
  const std::size_t begin = message.find(folder_), end = message.find(".log", begin);
  ASSERT_NE(end, std::string::npos) << message;
  std::ifstream log(message.substr(begin, end + 4 - begin));
  std::string line;
  ASSERT_TRUE(std::getline(log, line)) << message;
  EXPECT_THAT(line, HasSubstr("building with"));
  EXPECT_TRUE(Store(folder_ + "/cache").List("mimalloc").empty());
}

TEST_F(BuildTest, ALibraryThatSaysToBeAnotherIsRefused) {
  Write(301);
  const auto wrong = AddAllocator(Request("2.1.7", source_));
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(wrong.status().message()), HasSubstr("mimalloc 2.1.7 says itself that it is 3.0.1"));
}

// Debian's source package mold of some releases, each with another mimalloc in it, as an apt of a few lines hands them out.
class BundledCopyTest : public BuildTest {
 protected:
  BundledCopyTest() : path_(getenv("PATH")) {
    for (const auto& [mold, version] : {std::pair("2.37.1", 219), std::pair("2.40.4", 350)}) {
      Write(version);
      const std::string place = folder_ + "/sources/" + mold + "/mold-" + mold + "/third-party";
      fs::create_directories(place);
      fs::copy(source_, place + "/mimalloc");
    }
    // As before the copy was there.
    fs::create_directories(folder_ + "/sources/1.10.0/mold-1.10.0");
    Program("apt-config", "");
    Program("apt-cache", "case \"$1 $APT_CONFIG\" in showsrc*/bookworm-source/*) echo 'Version: 1.10.0';; showsrc*/trixie-source/*) echo 'Version: 2.37.1';;"
                         " showsrc*/forky-source/*) echo 'Version: 2.40.4';; showsrc*) exit 100;; esac");
    Program("apt-get", "for last; do :; done\necho \"$1 $last\" >> '" + folder_ + "/asked'\n[ $1 = source ] || exit 0\n"
                       "tar -cf \"mold_${last#mold=}.orig.tar.gz\" -C '" + folder_ + "/sources/'\"${last#mold=}\" .");
    setenv("PATH", (folder_ + "/bin:" + path_).c_str(), 1);
  }
  ~BundledCopyTest() override { setenv("PATH", path_.c_str(), 1); }

  void Program(const std::string& name, const std::string& script) const {
    fs::create_directories(folder_ + "/bin");
    std::ofstream(folder_ + "/bin/" + name) << "#!/bin/sh\n" << script << "\n";
    fs::permissions(folder_ + "/bin/" + name, fs::perms::owner_all);
  }
  absl::StatusOr<AddResult> Add(const std::string& version, const std::string& release) const {
    AddRequest request = Request(version, "debian:mold/third-party/mimalloc");
    request.release = release;
    return AddAllocator(request);
  }
  // The sources that were downloaded, as apt was asked for them.
  std::string Downloaded() const {
    std::ifstream file(folder_ + "/asked");
    std::string sources;
    for (std::string line; std::getline(file, line);) {
      if (line.rfind("source ", 0) == 0) sources += line.substr(7) + " ";
    }
    return sources;
  }

  std::string path_;
};

TEST_F(BundledCopyTest, IsLookedForInTheReleaseThatHasTheVersion) {
  const auto named = Add("2.1.9", "");
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_EQ(named->allocator.version, "2.1.9");
  EXPECT_THAT(named->allocator.origin, HasSubstr("Debian trixie source mold 2.37.1"));
  EXPECT_EQ(Downloaded(), "mold=2.37.1 ");
  // Nobody has said which release has it; trixie is known to have another.
  const auto found = Add("3.5.0", "");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->allocator.version, "3.5.0");
  EXPECT_THAT(found->allocator.origin, HasSubstr("Debian forky source mold 2.40.4"));
  EXPECT_THAT(Downloaded(), Not(HasSubstr("mold=2.37.1 mold=2.37.1")));
  const auto newest = Add("", "forky");
  ASSERT_TRUE(newest.ok()) << newest.status();
  EXPECT_EQ(newest->allocator.version, "3.5.0");
}

TEST_F(BundledCopyTest, OfAnotherVersionIsNotTakenForTheOneThatIsNamed) {
  const auto forky = Add("2.1.9", "forky");
  EXPECT_EQ(forky.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(forky.status().message()), HasSubstr("the source package mold has mimalloc 3.5.0 (forky), not 2.1.9"));
  const auto nowhere = Add("2.1.5", "");
  EXPECT_EQ(nowhere.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(nowhere.status().message()), HasSubstr("the source package mold has mimalloc 2.1.9 (trixie), 3.5.0 (forky), not 2.1.5"));
  const auto before = Add("2.0.9", "bookworm");
  EXPECT_THAT(std::string(before.status().message()), HasSubstr("the source package mold 1.10.0 has no folder third-party/mimalloc"));
  EXPECT_TRUE(Store(folder_ + "/cache").List("mimalloc").empty());
  // Without --source, only where the family says that it is there.
  const std::string downloaded = Downloaded();
  AddRequest request = Request("2.1.9", "");
  request.build_commands.clear();
  request.release = "forky";
  EXPECT_EQ(AddAllocator(request).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Downloaded(), downloaded);
}

TEST_F(BuildTest, ABuildWithoutTheLibrarySaysSo) {
  AddRequest request = Request("", source_);
  request.library = "libother.so*";
  const auto failed = AddAllocator(request);
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("no libother.so*"));
}

TEST_F(BuildTest, WhatCantBeFetchedSaysToNameALocalPath) {
  const auto absent = AddAllocator(Request("v1", "file://" + folder_ + "/nothing.git"));
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("give the path of a clone where the network is not there"));
}

TEST_F(BuildTest, WhatTheBuildCallsAndIsNotHereIsNamedWithItsPackage) {
  Family family = *FindFamily("mimalloc");
  family.build_needs = {"sh", "no-such-autoconf", "no-such-libtoolize:no-such-libtool"};
  const absl::Status needs = CheckBuildNeeds(family);
  EXPECT_EQ(needs.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(needs.message(), "building mimalloc needs no-such-autoconf, no-such-libtoolize, not here: apt-get install no-such-autoconf no-such-libtool");
  family.build_needs = {"sh"};
  EXPECT_TRUE(CheckBuildNeeds(family).ok());
}

TEST_F(BuildTest, UnknownFamilyNamesTheNearest) {
  AddRequest request = Request("", source_);
  request.family = "mimaloc";
  EXPECT_THAT(std::string(AddAllocator(request).status().message()), HasSubstr("Did you mean mimalloc?"));
}

}  // namespace
}  // namespace heaptape
