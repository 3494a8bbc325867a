// Sampled call stacks: where they come from, that they are there only when asked for, and that taking them in the
// worst places (a loader at work, a signal handler in the midst of an event) disturbs nothing.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

using ::testing::HasSubstr;

std::string Record(const std::string& tape, const std::string& options, const std::string& plugin = HEAPTAPE_PLUGIN) {
  return absl::StrCat(HEAPTAPE_PROGRAM, " record --max-wait 60s ", options, " -o ", tape, " -- ", TestProgram("call_sites"), " ", plugin);
}

// How often each module's code made the call.
std::map<std::string, int> InnermostModules(const ReadTrace& trace) {
  std::map<std::string, int> seen;
  for (const StackSample& sample : trace.stacks) ++seen[trace.modules.at(sample.frames.at(0).module).name];
  return seen;
}

TEST(RecordStacks, EachNamesTheProgramsFilesAndOffsetsInThem) {
  TemporaryFolder folder;
  const std::string fifo = folder.File("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  Running running(folder, "--max-wait 60s --stacks=64KiB -o " + folder.File("x.tape"),
                  absl::StrCat(TestProgram("call_sites"), " ", HEAPTAPE_PLUGIN, " ", fifo));
  // The library stays until the writer has read the stacks that lead through it.
  int end = -1;
  ASSERT_TRUE(Eventually([&] { return (end = open(fifo.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)) >= 0; })) << running.Output();
  FlushAll(running.program());
  close(end);
  ASSERT_EQ(running.Wait(), 0) << running.Output();
  std::uint64_t returns_to;
  ASSERT_TRUE(absl::SimpleAtoi(running.Output(), &returns_to)) << running.Output();
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_EQ(trace.info.stack_sample_bytes, 64u << 10);
  // 4 MiB by each of two threads, 2 MB by the library; and the little that the C library needs.
  EXPECT_GE(trace.stacks.size(), 64u + 63u + 14u);
  EXPECT_LE(trace.stacks.size(), 64u + 63u + 80u);
  int from_leaf = 0;
  for (const StackSample& sample : trace.stacks) {
    ASSERT_FALSE(sample.frames.empty());
    for (const StackFrame& frame : sample.frames) ASSERT_LT(frame.module, trace.modules.size());
    if (sample.frames.size() < 2) continue;
    from_leaf += trace.modules[sample.frames[1].module].name == "call_sites" && sample.frames[1].offset == returns_to;
  }
  EXPECT_GE(from_leaf, 125);
  const std::map<std::string, int> innermost = InnermostModules(trace);
  EXPECT_GE(innermost.at("plugin.so"), 15);  // a million bytes while it stays
  EXPECT_EQ(innermost.count("libheaptape.so"), 0u);
  for (const Module& module : trace.modules) {
    EXPECT_EQ(module.name.find('/'), std::string::npos) << module.name;
    if (module.name == "plugin.so" || module.name == "call_sites") {
      EXPECT_FALSE(module.build_id.empty()) << module.name;
    }
  }
}

TEST(RecordStacks, TheSameProgramGivesTheSameStacks) {
  TemporaryFolder folder;
  ASSERT_EQ(Shell(Record(folder.File("a.tape"), "--stacks=32KiB", "")).status, 0);
  ASSERT_EQ(Shell(Record(folder.File("b.tape"), "--stacks=32KiB", "")).status, 0);
  const ReadTrace a = ReadAndCheck(folder.File("a.tape"));
  const ReadTrace b = ReadAndCheck(folder.File("b.tape"));
  EXPECT_GT(a.stacks.size(), 250u);
  EXPECT_TRUE(a.stacks == b.stacks);
  EXPECT_TRUE(a.modules == b.modules);
}

TEST(RecordStacks, NoneUnlessAskedFor) {
  TemporaryFolder folder;
  ASSERT_EQ(Shell(Record(folder.File("x.tape"), "")).status, 0);
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_EQ(trace.info.stack_sample_bytes, 0u);
  EXPECT_TRUE(trace.stacks.empty());
  EXPECT_TRUE(trace.modules.empty());
}

TEST(RecordStacks, OneForEach512KiBIfNoSizeIsGiven) {
  TemporaryFolder folder;
  ASSERT_EQ(Shell(Record(folder.File("x.tape"), "--stacks")).status, 0);
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_EQ(trace.info.stack_sample_bytes, 512u << 10);
  EXPECT_GE(trace.stacks.size(), 14u);
}

TEST(RecordStacks, NotWithAPrivacyThatLeavesOutNames) {
  TemporaryFolder folder;
  const ShellResult result = Shell(Record(folder.File("x.tape"), "--stacks --privacy 2"));
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.output, HasSubstr("--stacks names the program's files"));
  EXPECT_TRUE(folder.Names().empty());
}

TEST(RecordStacks, InterruptedAnywhereWhileLibrariesComeAndGo) {
  TemporaryFolder folder;
  const ShellResult result = Shell(absl::StrCat("INTERRUPT=1 LD_PRELOAD=", HEAPTAPE_REENTRANT_MALLOC, " ",
                                                Record(folder.File("x.tape"), "--stacks=1KiB")));
  EXPECT_EQ(result.status, 0) << result.output;
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_TRUE(trace.summary.complete);
  EXPECT_GT(trace.stacks.size(), 8000u);
}

TEST(RecordStacks, OfAProgramThatForks) {
  TemporaryFolder folder;
  // The children, which go on with the counter and the unwinder of their parent, have stacks in traces of their own.
  RecorderOptions options;
  options.stack_bytes = 4096;
  options.children = 1;
  const Recorded recorded = RecordAndCheck({TestProgram("forks"), "3"}, folder.File("x.tape"), options);
  EXPECT_EQ(recorded.launch.exit_status, 0);
  ASSERT_TRUE(Eventually([&] { return folder.Finished(4); }));
  for (const std::string& name : folder.Names()) {
    EXPECT_FALSE(ReadAndCheck(folder.File(name)).stacks.empty()) << name;
  }
}

}  // namespace
}  // namespace heaptape
