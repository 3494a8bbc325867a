// Recording changes nothing of what a program does, and a program can do nothing to others by way of its recorder.

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Contents(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// What follows `name` in its line of `text`, without blanks around it.
std::string Line(const std::string& text, const std::string& name) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, name)) return std::string(absl::StripAsciiWhitespace(line.substr(name.size())));
  }
  return "";
}

std::string Library(const std::string& name) { return absl::StrCat(HEAPTAPE_TEST_PROGRAMS, "/", name, ".so"); }

// The command bare, and with RECORD before it; what is printed and the status must be the same.
void ExpectSameRecorded(const std::string& command, const std::string& before = "", const std::string& options = "") {
  TemporaryFolder folder;
  const ShellResult bare = Shell(absl::StrCat(before, " timeout 600 ", command));
  const ShellResult recorded =
      Shell(absl::StrCat(before, " timeout 600 ", HEAPTAPE_PROGRAM, " record ", options, " -o ", folder.File("x.tape"), " -- ", command));
  EXPECT_EQ(recorded.status, bare.status) << command;
  EXPECT_EQ(recorded.output, bare.output) << command;
  EXPECT_EQ(bare.status, 0) << command << ": " << bare.output;
  EXPECT_TRUE(ReadAndCheck(folder.File("x.tape")).summary.complete) << command;
}

// --- the writer trusts nobody ----------------------------------------------------------------------------------

class RecordHostile : public ::testing::TestWithParam<int> {};

TEST_P(RecordHostile, WhatTheProgramWritesIntoTheSharedMemoryHarmsNobody) {
  TemporaryFolder folder;
  const std::string tape = folder.File("x.tape");
  const std::string program = absl::StrCat(TestProgram("overwrites"), " 1 ", GetParam(), " ", tape);
  const ShellResult result = Shell(absl::StrCat("timeout 600 ", HEAPTAPE_PROGRAM, " record -o ", tape, " -- ", program));
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr(" 0 paths\n")) << "a path that the writer uses lies in memory that the program can write";
  EXPECT_THAT(result.output, HasSubstr("2 areas"));
  // The file is there under its own name and no other, whatever its events are worth.
  const std::vector<std::string> names = folder.Names();
  ASSERT_EQ(names.size(), 1u);
  EXPECT_TRUE(names[0] == "x.tape" || names[0] == "x.tape.part") << names[0];
  const int verified = Shell(absl::StrCat("timeout 600 ", HEAPTAPE_PROGRAM, " verify ", folder.File(names[0]))).status;
  EXPECT_TRUE(verified == 0 || verified == 1) << verified;
}

INSTANTIATE_TEST_SUITE_P(Seeds, RecordHostile, ::testing::Range(1, 9));

// Forks that never happened make no writer that stays: not for a process of another user, and not for each other.
TEST(RecordRights, ForgedForksMakeNoWriterThatStays) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  for (const char* options : {"", "--children"}) {
    TemporaryFolder folder;
    const ShellResult result =
        Shell(absl::StrCat("sleep 600 & S=$!; timeout 600 ", HEAPTAPE_PROGRAM, " record ", options, " -o ", folder.File("x.tape"), " -- ",
                           TestProgram("forged_forks"), " 1 $S; status=$?; kill $S; exit $status"));
    EXPECT_EQ(result.status, 7) << result.output;
    // All of them end with the program they follow, or at once.
    EXPECT_TRUE(Eventually([&] {
      return Shell(absl::StrCat("for p in $(pgrep -x heaptape-files); do ls -l /proc/$p/fd; done 2>/dev/null | grep -c '", folder.path(), "$'")).output == "0\n";
    }));
    const std::vector<std::string> names = folder.Names();
    EXPECT_TRUE(std::find(names.begin(), names.end(), "x.tape") != names.end());
  }
}

TEST(RecordRights, TheWriterFollowsTheProgramToAnotherUser) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  TemporaryFolder folder;
  const std::string go = folder.File("go");
  chmod(folder.path().c_str(), 0711);
  const std::string program = absl::StrCat("perl -e '$| = 1; $) = \"65534 65534\"; $( = 65534; $< = $> = 65534; print \"$$\\n\"; "
                                           "sleep 0.05 while !-e \"", go, "\"'");
  ASSERT_EQ(Shell(absl::StrCat(HEAPTAPE_PROGRAM, " record -o ", folder.File("x.tape"), " -- ", program, " > ", folder.File("out"), " 2>&1 &")).status, 0);
  int pid = 0;
  ASSERT_TRUE(Eventually([&] { return absl::SimpleAtoi(absl::StripAsciiWhitespace(Contents(folder.File("out"))), &pid); }));
  int writer = 0;
  ASSERT_TRUE(Eventually([&] {
    return absl::SimpleAtoi(Line(Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl ", pid)).output, "writer_pid"), &writer);
  }));
  const std::string status_file = absl::StrCat("/proc/", writer, "/status");
  EXPECT_TRUE(Eventually([&] { return Line(Contents(status_file), "Uid:") == "65534\t65534\t65534\t65534"; }));
  const std::string status = Contents(status_file);
  EXPECT_EQ(Line(status, "Gid:"), "65534\t65534\t65534\t65534");
  EXPECT_EQ(Line(status, "Groups:"), "65534");
  EXPECT_EQ(Line(status, "CapPrm:"), "0000000000000000");
  EXPECT_EQ(Line(status, "CapEff:"), "0000000000000000");
  EXPECT_EQ(Line(status, "NoNewPrivs:"), "1");
  EXPECT_EQ(Line(status, "Seccomp:"), "2");
  EXPECT_EQ(Contents(absl::StrCat("/proc/", writer, "/oom_score_adj")), "1000\n");
  const std::string broker = Contents(absl::StrCat("/proc/", Line(status, "PPid:"), "/status"));
  EXPECT_EQ(Line(broker, "Name:"), "heaptape-files");
  EXPECT_EQ(Line(broker, "CapPrm:"), "0000000000000002") << "only to write into folders of others (CAP_DAC_OVERRIDE)";
  EXPECT_EQ(Line(broker, "Seccomp:"), "2");
  std::ofstream(go) << "go";
  // Its folder is root's: the broker gives the file its name all the same.
  EXPECT_TRUE(Eventually([&] { return access(folder.File("x.tape").c_str(), F_OK) == 0; }));
  EXPECT_TRUE(ReadAndCheck(folder.File("x.tape")).summary.complete);
}

TEST(RecordRights, AnEarlierFileStaysUnlessItMayBeReplaced) {
  TemporaryFolder folder;
  // As a service does it, without `heaptape record` before it.
  const std::string record = absl::StrCat("HEAPTAPE_OUTPUT=", folder.File("x.tape"), " LD_PRELOAD=", HEAPTAPE_PRELOAD, " ");
  std::ofstream(folder.File("x.tape")) << "mine";
  const ShellResult kept = Shell(absl::StrCat(record, "HEAPTAPE_OPTIONS='replace=0;' /bin/true"));
  EXPECT_EQ(kept.status, 0);
  EXPECT_THAT(kept.output, HasSubstr("x.tape: exists"));
  EXPECT_EQ(Contents(folder.File("x.tape")), "mine");
  EXPECT_EQ(Shell(absl::StrCat(record, "HEAPTAPE_OPTIONS='replace=1;' /bin/true")).output, "");
  EXPECT_TRUE(Eventually([&] { return folder.Finished(1); }));
  ReadAndCheck(folder.File("x.tape"));
  for (const char* make : {"ln -s /etc/passwd ", "mkfifo "}) {
    unlink(folder.File("x.tape").c_str());
    ASSERT_EQ(Shell(absl::StrCat(make, folder.File("x.tape"))).status, 0);
    EXPECT_THAT(Shell(absl::StrCat(record, "HEAPTAPE_OPTIONS='replace=1;' /bin/true")).output, HasSubstr("is not a regular file"));
  }
}

// --- the preload changes nothing ---------------------------------------------------------------------------------

TEST(RecordHarmless, WithinSeccompFilters) {
  for (const char* kind : {"plain", "waits", "waits-behind", "forks", "late-thread"}) {
    ExpectSameRecorded(absl::StrCat(TestProgram("filtered"), " ", kind));
  }
}

TEST(RecordHarmless, WithinStrictSeccomp) { ExpectSameRecorded(TestProgram("filtered") + " strict"); }

TEST(RecordHarmless, ChildrenThatAreForkedWithinAFilterAreRecorded) {
  TemporaryFolder folder;
  const ShellResult result = Shell(absl::StrCat("timeout 600 ", HEAPTAPE_PROGRAM, " record --children -o ", folder.File("x.tape"), " -- ",
                                                TestProgram("filtered"), " forks"));
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_TRUE(Eventually([&] { return folder.Finished(21); }));
}

TEST(RecordHarmless, APluginWhoseConstructorWaitsForAThreadThatCallsNew) {
  ExpectSameRecorded(absl::StrCat(TestProgram("load_plugin"), " ", Library("plugin_cxx")));
}

TEST(RecordHarmless, NewThrowsInAPluginWithACxxLibraryOfItsOwn) {
  ExpectSameRecorded(absl::StrCat(TestProgram("load_plugin"), " ", Library("plugin_static_cxx")));
}

TEST(RecordHarmless, TheFirstNewDisturbedBySignalsAndForks) {
  for (int i = 0; i < 10; ++i) ExpectSameRecorded(TestProgram("first_new"));
}

// It brings operators of its own; looking them up once ran its constructor, which calls them.
TEST(RecordHarmless, TheFirstNewOnAnAllocatorWithOperatorsOfItsOwn) {
  ExpectSameRecorded(TestProgram("first_new"), "LD_PRELOAD=libtcmalloc_minimal.so.4");
  ExpectSameRecorded(absl::StrCat(TestProgram("load_plugin"), " ", Library("plugin_cxx")), "LD_PRELOAD=libtcmalloc_minimal.so.4");
}

TEST(RecordHarmless, AnAllocatorThatChecksHowBlocksAreGivenBack) {
  ExpectSameRecorded(TestProgram("new_delete") + " 20000", absl::StrCat("LD_PRELOAD=", Library("checking_allocator")));
  ExpectSameRecorded(TestProgram("first_new"), absl::StrCat("LD_PRELOAD=", Library("checking_allocator")));
}

TEST(RecordHarmless, TheKernelsEnvironmentArrayStaysWhole) {
  ExpectSameRecorded(TestProgram("surroundings") + " environment");
  ExpectSameRecorded(TestProgram("surroundings") + " environment", "LD_PRELOAD=libm.so.6 FOO=bar");
}

TEST(RecordHarmless, NoDescriptorStaysOpen) {
  ExpectSameRecorded(TestProgram("surroundings") + " descriptors");
  ExpectSameRecorded(TestProgram("surroundings") + " descriptors", "exec <&-; ");
}

TEST(RecordHarmless, MemoryMayBeLockedWithoutRights) {
  ExpectSameRecorded(TestProgram("surroundings") + " lock");
}

TEST(RecordHarmless, TheSharedMemoryIsInNoCoreFile) {
  TemporaryFolder folder;
  // Behind each shared anonymous mapping its flags; "dd" is "not in core files".
  const ShellResult result = Shell(absl::StrCat(
      HEAPTAPE_PROGRAM, " record -o ", folder.File("x.tape"), " -- perl -e 'open(F, \"/proc/self/smaps\"); "
      "while (<F>) { $s = / rw-s / if /^[0-9a-f]+-/; if ($s && /^VmFlags/) { print / dd/ ? \"out\\n\" : \"in\\n\" } }'"));
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.output, HasSubstr("out\n"));
  EXPECT_THAT(result.output, Not(HasSubstr("in\n")));
}

TEST(RecordHarmless, DescriptorsOfExecutedChildrenAreTheirOwn) {
  TemporaryFolder folder;
  // Whatever descriptor the report has, the shell uses it for something else and hands it on.
  std::ofstream script(folder.File("script"));
  for (int i = 3; i < 20; ++i) script << "exec " << i << "<>ledger" << i << "\n";
  script << "perl child\n/bin/true\ncat ledger*\n/bin/true\n";
  script.close();
  std::ofstream(folder.File("child")) << "for (3..19) { open(F, '>&=', $_) and syswrite(F, 'x') or print \"$_ is closed\\n\" }\n";
  const ShellResult result = Shell(absl::StrCat("cd ", folder.path(), "; timeout 600 ", HEAPTAPE_PROGRAM,
                                                " record --children -o x.tape -- bash script; sleep 1; cat ledger*"));
  EXPECT_EQ(result.output, std::string(34, 'x'));
}

TEST(RecordHarmless, MakesJobserverWorks) {
  TemporaryFolder folder;
  std::ofstream(folder.File("Makefile")) << "all:\n\t+@$(MAKE) --no-print-directory -f sub\n";
  std::ofstream(folder.File("sub")) << "all: a b c\na b c:\n\t@echo $@\n";
  const std::string make = "make --no-print-directory -j2";
  EXPECT_EQ(Shell(absl::StrCat("cd ", folder.path(), "; ", HEAPTAPE_PROGRAM, " record --children -o x.tape -- ", make, " | sort")).output,
            Shell(absl::StrCat("cd ", folder.path(), "; ", make, " | sort")).output);
}

TEST(RecordHarmless, AReaperHasNoChildThatItDidNotMake) {
  const std::string subreaper = "timeout 600 perl -e 'syscall(157, 36, 1, 0, 0, 0); exec @ARGV' ";  // prctl(PR_SET_CHILD_SUBREAPER)
  TemporaryFolder adopted;
  EXPECT_EQ(Shell(absl::StrCat(subreaper, TestProgram("reaper"))).output, "reaper: pid 0, 2 children\n");
  EXPECT_EQ(Shell(absl::StrCat(subreaper, "env LD_PRELOAD=", HEAPTAPE_PRELOAD, " HEAPTAPE_OUTPUT=", adopted.File("x.tape"), " ",
                               TestProgram("reaper"))).output,
            "reaper: pid 0, 2 children\n");
  EXPECT_TRUE(Eventually([&] { return adopted.Finished(1); }));
  if (geteuid() != 0) GTEST_SKIP() << "only root can make a pid namespace";
  for (const char* proc : {"", "--mount-proc"}) {
    TemporaryFolder folder;
    const ShellResult result = Shell(absl::StrCat("HEAPTAPE_OUTPUT=", folder.File("x.tape"), " timeout 600 unshare --pid --fork ", proc,
                                                  " env LD_PRELOAD=", HEAPTAPE_PRELOAD, " ", TestProgram("reaper")));
    EXPECT_EQ(result.output, "reaper: pid 1, 2 children\n");
    EXPECT_EQ(result.status, 0);
    // The namespace's end kills the writer, which had finished before.
    const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
    EXPECT_TRUE(trace.summary.complete);
    EXPECT_GE(trace.counts.at(Op::kFree), 1000u);
    // It sampled the program, not the system's process 1.
    ASSERT_FALSE(trace.resident.empty());
    for (const ResidentSample& sample : trace.resident) EXPECT_LT(sample.anonymous_bytes, 4u << 20);
  }
}

TEST(RecordHarmless, ThreeHundredThreadsAreServedInTurn) {
  TemporaryFolder folder;
  const ShellResult result = Shell(absl::StrCat("timeout 600 ", HEAPTAPE_PROGRAM, " record -v --max-wait 60s -o ", folder.File("x.tape"),
                                                " -- ", TestProgram("crowd"), " 300 2000"));
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.output, HasSubstr("crowd: 300 threads, 0 children, 0 failures\n"));
  EXPECT_THAT(result.output, Not(HasSubstr("ended before")));
  EXPECT_THAT(result.output, HasSubstr("heaptape:   lost 0\n"));
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_TRUE(trace.summary.complete);
  EXPECT_EQ(trace.threads_started, 300u);
}

TEST(RecordHarmless, EveryChildHasItsFile) {
  TemporaryFolder forked;
  ShellResult result = Shell(absl::StrCat("timeout 600 ", HEAPTAPE_PROGRAM, " record -v --children -o ", forked.File("x.tape"), " -- ",
                                          TestProgram("crowd"), " 6 0 forks"));
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.output, HasSubstr("crowd: 6 threads, 30 children, 0 failures\n"));
  EXPECT_THAT(result.output, HasSubstr("heaptape:   children_left_out 0\n"));
  EXPECT_TRUE(Eventually([&] { return forked.Finished(31); }));
  for (const std::string& name : forked.Names()) {
    if (name != "x.tape") {
      const ReadTrace child = ReadAndCheck(forked.File(name));
      EXPECT_GE(child.counts.at(Op::kMalloc), 1000u) << name;
    }
  }

  // Forked and then executed: a file of each, and nothing on the program's own output.
  TemporaryFolder executed;
  result = Shell(absl::StrCat("timeout 600 ", HEAPTAPE_PROGRAM, " record --children -o ", executed.File("x.tape"),
                              " -- bash -c 'for i in $(seq 12); do sleep 0.2 & done; wait; exec true'"));
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.output, Not(HasSubstr("cannot create")));
  EXPECT_THAT(result.output, Not(HasSubstr("not recording")));
  EXPECT_TRUE(Eventually([&] {
    const std::vector<std::string> names = executed.Names();
    return std::none_of(names.begin(), names.end(), [](const std::string& name) { return absl::EndsWith(name, ".part"); });
  }));
  int sleeps = 0, trues = 0, shells = 0;
  for (const std::string& name : executed.Names()) {
    const std::string program = ReadAndCheck(executed.File(name)).info.program;
    sleeps += program == "sleep";
    trues += program == "true";
    shells += program == "bash";
  }
  EXPECT_EQ(sleeps, 12);
  EXPECT_EQ(trues, 1);
  EXPECT_GE(shells, 13);
  EXPECT_EQ(ReadAndCheck(executed.File("x.tape")).info.program, "bash") << "what it executed does not replace its trace";
}

TEST(RecordHarmless, WithoutProcLiveThreadsAreNotTakenForDead) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can hide /proc";
  TemporaryFolder folder;
  const ShellResult result = Shell(absl::StrCat("timeout 600 unshare --mount sh -c 'mount -t tmpfs none /proc && HEAPTAPE_OUTPUT=",
                                                folder.File("x.tape"), " HEAPTAPE_OPTIONS='\\''max_wait_ns=60000000000;'\\'' exec env LD_PRELOAD=", HEAPTAPE_PRELOAD, " ", TestProgram("crowd"),
                                                " 120 11000'"));
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.output, "crowd: 120 threads, 0 children, 0 failures\n");
  ASSERT_TRUE(Eventually([&] { return folder.Finished(1); }));
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_TRUE(trace.summary.complete);
  EXPECT_EQ(trace.threads_started, 120u);
  EXPECT_EQ(trace.counts.count(Op::kLost), 0u);
}

}  // namespace
}  // namespace heaptape
