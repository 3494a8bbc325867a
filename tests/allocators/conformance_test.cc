// Every allocator that is here goes through the checks, and libraries with one known fault each fail just it.

#include <dlfcn.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <set>

#include "allocators/catalog.h"
#include "allocators/family.h"
#include "allocators/listing.h"
#include "allocators/probe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace heaptape {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

std::set<std::string> Failed(const LibraryFacts& facts) {
  std::set<std::string> names;
  for (const ConformanceCheck& check : facts.checks) {
    if (check.outcome == ConformanceCheck::Outcome::kFailed) names.insert(check.name);
  }
  return names;
}

std::string DetailOf(const LibraryFacts& facts, const std::string& name) {
  for (const ConformanceCheck& check : facts.checks) {
    if (check.name == name) return check.detail;
  }
  return "there is no such check";
}

TEST(Conformance, EveryAllocatorHereDoesWhatProgramsRelyOn) {
  // What some of them are known not to do, and programs seldom notice: mimalloc 2.0.9 misaligns sizes that are
  // a multiple of the alignment, most forget errno somewhere.
  const std::set<std::string> forgiven = {"aligned_stream", "aligned_alloc", "aligned_alloc_any_size", "huge_errno"};
  int asked = 0;
  for (const Family* family : Families()) {
    for (const ResolvedAllocator& allocator : AllocatorsHere(*family, "")) {
      SCOPED_TRACE(allocator.DisplayName());
      const auto facts = AskLibrary(allocator, family, {.conformance = true});
      ASSERT_TRUE(facts.ok()) << facts.status();
      ++asked;
      EXPECT_THAT(facts->checks, SizeIs(testing::Ge(14u)));
      for (const std::string& name : Failed(*facts)) {
        EXPECT_TRUE(forgiven.count(name)) << name << ": " << DetailOf(*facts, name);
        EXPECT_THAT(DetailOf(*facts, name), Not(IsEmpty()));
      }
      EXPECT_TRUE(family->version_query == VersionQuery::kNone || facts->version == allocator.version) << facts->version;
    }
  }
  EXPECT_GE(asked, 5);  // the C library's, the baseline, and the packages that the tests install
}

struct Fault {
  const char* library;
  std::set<std::string> failed;
  const char* check;
  const char* detail;
};

class ConformanceOfFaulty : public ::testing::TestWithParam<Fault> {};

TEST_P(ConformanceOfFaulty, FailsJustThat) {
  const Fault& fault = GetParam();
  const auto facts = AskLibrary({.family = "library", .library_path = std::string(HEAPTAPE_FAULTY_FOLDER "/lib") + fault.library + ".so"}, nullptr, {.conformance = true});
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_EQ(Failed(*facts), fault.failed);
  EXPECT_THAT(DetailOf(*facts, fault.check), HasSubstr(fault.detail));
}

INSTANTIATE_TEST_SUITE_P(
    Faults, ConformanceOfFaulty,
    ::testing::Values(Fault{"faulty_calloc", {"calloc"}, "calloc", "is not zero at byte"},
                      Fault{"faulty_crash", {"page_aligned"}, "page_aligned", "Segmentation fault"},
                      Fault{"faulty_null", {"aligned_stream"}, "aligned_stream", "returned NULL at step"},
                      Fault{"faulty_errno", {"huge_errno"}, "huge_errno", "instead of ENOMEM"}),
    [](const ::testing::TestParamInfo<Fault>& info) { return std::string(info.param.library); });

TEST(Conformance, TheEnvironmentGivenWithALibraryReachesIt) {
  const auto library = ResolveAllocators(HEAPTAPE_FAULTY_FOLDER "/libfaulty_errno.so:FAULTY_KEEPS_ERRNO=1");
  ASSERT_TRUE(library.ok()) << library.status();
  const auto facts = AskLibrary(library->front(), nullptr, {.conformance = true});
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_THAT(Failed(*facts), IsEmpty());
}

TEST(Conformance, WhereTheKernelHasNoFiltersItIsSaidOnce) {
  const pid_t child = fork();
  if (child == 0) {
    // Answers as such a kernel does.
    sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog program = {4, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(77);
    char folder[] = "/tmp/heaptape-unconfined-XXXXXX";
    const auto listing = ListAllocators({.cache_folder = mkdtemp(folder), .conformance = false});
    std::filesystem::remove_all(folder);
    _exit(listing.ok() && std::count(listing->notes.begin(), listing->notes.end(), kUnconfined) == 1 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no filter can be set here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const auto listing = ListAllocators({.cache_folder = "/nonexistent", .conformance = false});
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(listing->notes, Not(Contains(kUnconfined)));
}

TEST(Conformance, ALibraryWithoutAMallocIsRefused) {
  const auto facts = AskLibrary({.family = "library", .library_path = "/lib/x86_64-linux-gnu/libm.so.6"}, nullptr, {});
  EXPECT_EQ(facts.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(facts.status().message()), HasSubstr("is not an allocator"));
}

TEST(Conformance, ALibraryThatForwardsToTheCLibraryIsRefused) {
  const ResolvedAllocator forwarding = {.family = "library", .library_path = HEAPTAPE_FAULTY_FOLDER "/libfaulty_forward.so"};
  const auto facts = AskLibrary(forwarding, nullptr, {});
  EXPECT_EQ(facts.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(facts.status().message()), HasSubstr("its blocks come from the C library's malloc"));
  const auto checked = AskLibrary(forwarding, nullptr, {.conformance = true});
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_THAT(Failed(*checked), Contains("interposition"));
}

TEST(Conformance, WhatALibraryDoesToTheMachineIsRefused) {
  const std::string path = HEAPTAPE_FAULTY_FOLDER "/libfaulty_intrude.so";
  const std::string file = "/tmp/heaptape-intruder-" + std::to_string(getuid()), other = file + "-too";
  const auto left = [&] {
    const int count = std::filesystem::remove(file) + std::filesystem::remove(other);
    return count;
  };
  left();
  const auto facts = AskLibrary({.family = "library", .library_path = path}, nullptr, {.conformance = true});
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_EQ(left(), 0);
  EXPECT_THAT(Failed(*facts), IsEmpty());
  // It would have.
  ASSERT_NE(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL), nullptr) << dlerror();
  EXPECT_EQ(left(), 2);
}

TEST(Conformance, ALibraryThatDoesNotAnswerIsGivenUp) {
  const std::string path = HEAPTAPE_FAULTY_FOLDER "/libfaulty_hang.so";
  const auto facts = AskLibrary({.family = "library", .library_path = path}, nullptr, {.seconds = 1});
  EXPECT_EQ(std::string(facts.status().message()), path + ": the library did not answer within 1 s");
  // As `heaptape replay --hang-timeout 1` asks it.
  const auto resolved = ResolveAllocators(path, {.probe_seconds = 1});
  EXPECT_THAT(std::string(resolved.status().message()), HasSubstr("did not answer within 1 s"));
  const std::atomic<bool> cancelled = true;
  EXPECT_EQ(ResolveAllocators(path, {.cancelled = &cancelled}).status().code(), absl::StatusCode::kCancelled);
}

TEST(Conformance, AnswersAreKeptByTheLibrarysContent) {
  char name[] = "/tmp/heaptape-facts-XXXXXX";
  const std::string folder = mkdtemp(name);
  const auto here = ResolveAllocators("glibc", {.cache_folder = folder});
  ASSERT_TRUE(here.ok()) << here.status();
  const auto first = AskLibrary(here->front(), FindFamily("glibc"), {.cache_folder = folder});
  ASSERT_TRUE(first.ok());
  int kept = 0;
  for ([[maybe_unused]] const auto& file : std::filesystem::directory_iterator(folder + "/facts")) ++kept;
  EXPECT_EQ(kept, 1);
  const auto second = AskLibrary(here->front(), FindFamily("glibc"), {.cache_folder = folder});
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->version, first->version);
  std::filesystem::remove_all(folder);
}

TEST(ProbeOutput, IsReadLineByLine) {
  const auto facts = ParseProbe(
      "library /x.so\nbuild_id ab12\nversion 2.0.9\ncheck realloc passed\ncheck valloc absent valloc\n"
      "check huge failed malloc(SIZE_MAX) did not fail\ndone\n");
  ASSERT_TRUE(facts.ok());
  EXPECT_EQ(facts->version, "2.0.9");
  EXPECT_EQ(facts->build_id, "ab12");
  EXPECT_EQ(ConformanceSummary(facts->checks), "1 of 2; failed: huge (malloc(SIZE_MAX) did not fail)");
  EXPECT_TRUE(facts->confined);
  EXPECT_FALSE(facts->late);
  EXPECT_TRUE(ParseProbe("check realloc failed did not end\ndone\n")->late);
  const auto unconfined = ParseProbe("unconfined\nlibrary /x.so\ndone\n");
  ASSERT_TRUE(unconfined.ok());
  EXPECT_FALSE(unconfined->confined);
  EXPECT_EQ(ParseProbe("version 1\n").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ParseProbe("error no such file\n").status().message(), "no such file");
}

}  // namespace
}  // namespace heaptape
