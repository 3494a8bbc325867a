// Forked children, daemons, executed programs: what is recorded of which process, under which name.

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

std::uint64_t CountOf(const ReadTrace& trace, Op op, std::uint64_t size) {
  return static_cast<std::uint64_t>(std::count_if(
      trace.events.begin(), trace.events.end(), [&](const Event& event) { return event.op == op && event.size == size; }));
}

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

TEST(RecordProcesses, ForkedChildrenLeaveNothingUnlessAskedFor) {
  TemporaryFolder folder;
  const Recorded recorded = RecordAndCheck({TestProgram("forks"), "40"}, folder.File("parent.tape"));
  EXPECT_EQ(recorded.launch.exit_status, 0);
  EXPECT_EQ(CountOf(recorded.trace, Op::kMalloc, 4444), 40u);
  EXPECT_EQ(CountOf(recorded.trace, Op::kMalloc, 2222), 0u);
  EXPECT_EQ(recorded.trace.counts.at(Op::kFork), 40u);
  EXPECT_TRUE(Eventually([&] { return folder.Names() == std::vector<std::string>{"parent.tape"}; }));
}

TEST(RecordProcesses, AskedForAForkedChildBeginsWithItsParentsLiveSet) {
  TemporaryFolder folder;
  RecorderOptions options;
  options.children = 1;
  const Recorded recorded = RecordAndCheck({TestProgram("forks"), "3"}, folder.File("parent.tape"), options);
  EXPECT_EQ(recorded.launch.exit_status, 0);
  ASSERT_TRUE(Eventually([&] { return folder.Finished(4); }));
  for (const std::string& name : folder.Names()) {
    if (name == "parent.tape") continue;
    const ReadTrace child = ReadAndCheck(folder.File(name));
    EXPECT_TRUE(child.summary.complete);
    EXPECT_EQ(CountOf(child, Op::kMalloc, 1111), 50u);   // the live set
    EXPECT_EQ(CountOf(child, Op::kMalloc, 2222), 1000u);
    EXPECT_EQ(CountOf(child, Op::kMalloc, 3333), 1u);
    EXPECT_EQ(child.counts.at(Op::kFree), 1001u);
  }
}

TEST(RecordProcesses, ADaemonGivesOneTraceUnderTheNameAskedFor) {
  TemporaryFolder folder;
  const std::string tape = folder.File("daemon.tape");
  absl::StatusOr<LaunchResult> launch =
      RunRecorded({TestProgram("daemon"), folder.File("end"), folder.File("pid")}, TestLaunchOptions(tape));
  ASSERT_TRUE(launch.ok()) << launch.status();
  EXPECT_EQ(launch->exit_status, 0);
  pid_t daemon = 0;
  std::ifstream(folder.File("pid")) >> daemon;
  EXPECT_EQ(launch->figures["daemon"], static_cast<std::uint64_t>(daemon));
  EXPECT_TRUE(Eventually([&] { return Control(daemon, "status")["state"] == "recording"; }));
  CreateFile(folder.File("end"));
  ASSERT_TRUE(Eventually([&] { return Exists(tape); }));
  EXPECT_EQ(folder.Names(), (std::vector<std::string>{"daemon.tape", "end", "pid"}));
  const ReadTrace trace = ReadAndCheck(tape);
  EXPECT_TRUE(trace.summary.complete);
  EXPECT_EQ(CountOf(trace, Op::kMalloc, 1111), 100u);   // from before the forks: the live set
  EXPECT_EQ(CountOf(trace, Op::kMalloc, 3333), 1000u);
  EXPECT_EQ(CountOf(trace, Op::kMalloc, 4444), 7u);
}

TEST(RecordProcesses, WhatIsExecutedIsLeftAlone) {
  TemporaryFolder folder;
  const ShellResult result = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " record -o ", folder.File("sh.tape"),
                                                " -- sh -c 'ls / > /dev/null; ls / > /dev/null; true'"));
  EXPECT_EQ(result.status, 0);
  EXPECT_TRUE(Eventually([&] { return folder.Names() == std::vector<std::string>{"sh.tape"}; }));
  ReadAndCheck(folder.File("sh.tape"));
}

TEST(RecordProcesses, AProgramThatReplacesItselfEndsTheTraceInGoodOrder) {
  TemporaryFolder folder;
  Running running(folder, "-o " + folder.File("sh.tape"), "sh -c 'exec tail -f /dev/null'");
  EXPECT_TRUE(Eventually([&] { return Exists(folder.File("sh.tape")); }));
  kill(running.program(), SIGTERM);
  EXPECT_EQ(running.Wait(), 128 + SIGTERM);
  EXPECT_THAT(running.Output(), ::testing::HasSubstr("replaced itself"));
  EXPECT_TRUE(ReadAndCheck(folder.File("sh.tape")).summary.complete);
}

}  // namespace
}  // namespace heaptape
