// What goes wrong around a recording must not reach the program, and what was recorded until then reads back.

#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// `heaptape record` in the background, with what the test needs to disturb it.
class Running {
 public:
  Running(const TemporaryFolder& folder, const std::string& options, const std::string& command)
      : output_(folder.File("output")) {
    const std::string line = absl::StrCat("exec ", HEAPTAPE_PROGRAM, " record ", options, " -- ", command, " > ", output_, " 2>&1");
    record_ = fork();
    if (record_ == 0) {
      execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
      _exit(127);
    }
  }
  ~Running() {
    if (record_ > 0) {
      kill(record_, SIGKILL);
      waitpid(record_, nullptr, 0);
    }
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  // Of `heaptape record`, once the program's own and the trace are done.
  int Wait() {
    int status = 0;
    waitpid(record_, &status, 0);
    record_ = -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  std::string Output() const {
    std::ifstream file(output_);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  // The recorded program and its writer, from `heaptape ctl`, once it is being recorded.
  bool Find(pid_t* program, pid_t* writer) {
    return Eventually([&] {
      const std::string children = Shell(absl::StrCat("cat /proc/", record_, "/task/", record_, "/children")).output;
      int pid;
      if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(children), &pid)) return false;
      *program = pid;
      for (absl::string_view line : absl::StrSplit(Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl ", pid)).output, '\n')) {
        int number;
        const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
        if (words.size() == 2 && words[0] == "writer_pid" && absl::SimpleAtoi(words[1], &number)) {
          *writer = number;
          return true;
        }
      }
      return false;
    });
  }

 private:
  std::string output_;
  pid_t record_ = -1;
};

std::string Busy(int milliseconds) { return absl::StrCat(TestProgram("busy"), " ", milliseconds); }

TEST(RecordFaults, ProgramKilledLosesNothingThatWasPublished) {
  TemporaryFolder folder;
  Running running(folder, "-v -o " + folder.File("x.tape"), Busy(60000));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  kill(program, SIGKILL);
  EXPECT_EQ(running.Wait(), 128 + SIGKILL);
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_TRUE(trace.summary.complete);
  EXPECT_GT(trace.summary.event_count, 100u);
}

TEST(RecordFaults, ProgramKilledLeavesTheLastLookAtItsBigBlocks) {
  TemporaryFolder folder;
  Running running(folder, "-o " + folder.File("x.tape"), TestProgram("big_blocks") + " wait");
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  ASSERT_TRUE(Eventually([&] { return absl::StrContains(running.Output(), "big_blocks: written"); }));
  ASSERT_EQ(Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl ", program, " flush")).status, 0);
  kill(program, SIGKILL);
  EXPECT_EQ(running.Wait(), 128 + SIGKILL);
  EXPECT_THAT(PagesAtTheEnd(ReadAndCheck(folder.File("x.tape")), 4 << 20), ElementsAre(100, 0));
}

TEST(RecordFaults, WriterKilledLeavesTheProgramAloneAndAReadableFile) {
  TemporaryFolder folder;
  Running running(folder, "--max-wait 2s -o " + folder.File("x.tape"), Busy(3000));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  ASSERT_EQ(Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl ", program, " flush")).status, 0);
  kill(writer, SIGKILL);
  EXPECT_EQ(running.Wait(), 1) << "the program's own 0 does not hide that the recording failed";
  EXPECT_THAT(running.Output(), HasSubstr("busy: done"));
  EXPECT_THAT(running.Output(), HasSubstr("x.tape.part: the recording's writer ended before it had finished"));
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape.part"));
  EXPECT_FALSE(trace.summary.complete);
  EXPECT_GT(trace.summary.event_count, 100u);
}

TEST(RecordFaults, WriterStoppedMakesTheProgramWaitNoLongerThanItMay) {
  TemporaryFolder folder;
  Running running(folder, "--max-wait 300ms -o " + folder.File("x.tape"), Busy(3000));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  kill(writer, SIGSTOP);
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(running.Output(), "busy: done"); }));
  kill(writer, SIGCONT);
  EXPECT_EQ(running.Wait(), 0);
  EXPECT_THAT(running.Output(), HasSubstr("recording ended before the program did"));
  EXPECT_TRUE(ReadAndCheck(folder.File("x.tape")).summary.complete);
}

TEST(RecordFaults, TimeInWhichTheProgramWaitedForTheWriterIsNotRecorded) {
  TemporaryFolder folder;
  Running running(folder, "--max-wait 30s -o " + folder.File("x.tape"), Busy(4000));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  kill(writer, SIGSTOP);
  std::this_thread::sleep_for(std::chrono::milliseconds(1900));
  kill(writer, SIGCONT);
  EXPECT_EQ(running.Wait(), 0);
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_TRUE(trace.summary.complete);
  EXPECT_EQ(trace.summary.lost_events, 0u);
  // The program runs for four seconds by the clock; it fills the pool in a fraction of one, and waits for the rest.
  EXPECT_LT(trace.summary.duration_ns, 3'600'000'000u);
  EXPECT_GT(trace.summary.duration_ns, 1'000'000'000u);
}

TEST(RecordFaults, FolderRemoved) {
  TemporaryFolder folder;
  std::filesystem::create_directory(folder.File("gone"));
  Running running(folder, "-o " + folder.File("gone/x.tape"), Busy(1500));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  std::filesystem::remove_all(folder.File("gone"));
  EXPECT_EQ(running.Wait(), 1);
  EXPECT_THAT(running.Output(), HasSubstr("busy: done"));
}

TEST(RecordFaults, FileSizeLimitOfTheProgramDoesNotReachItsWork) {
  TemporaryFolder folder;
  // In units of 512 bytes; the hard limit binds the writer as well. The first block fits.
  const ShellResult result = Shell(absl::StrCat("ulimit -f 400; ", HEAPTAPE_PROGRAM, " record -o ", folder.File("x.tape"), " -- ",
                                                TestProgram("busy"), " 3000"));
  EXPECT_THAT(result.output, HasSubstr("busy: done"));
  const std::string left = Exists(folder.File("x.tape")) ? folder.File("x.tape") : folder.File("x.tape.part");
  EXPECT_GT(ReadAndCheck(left).summary.event_count, 0u);
}

TEST(RecordFaults, DescriptorAndAddressSpaceLimitsAtTheirEdge) {
  TemporaryFolder folder;
  const std::string tape = folder.File("x.tape");
  for (const char* limit : {"ulimit -n 4", "ulimit -n 3", "ulimit -v 60000", "ulimit -v 30000"}) {
    const std::string bare = Shell(absl::StrCat(limit, "; ", TestProgram("busy"), " 50")).output;
    const std::string recorded = Shell(absl::StrCat(limit, "; LD_PRELOAD=", HEAPTAPE_PRELOAD, " HEAPTAPE_OUTPUT=", tape,
                                                    " ", TestProgram("busy"), " 50")).output;
    EXPECT_THAT(recorded, HasSubstr(bare)) << limit;
  }
}

TEST(RecordFaults, DiskFull) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can mount a small file system";
  TemporaryFolder folder;
  const std::string mount_point = folder.File("small");
  std::filesystem::create_directory(mount_point);
  if (mount("none", mount_point.c_str(), "tmpfs", 0, "size=256k") != 0) GTEST_SKIP() << "this machine forbids mounts";
  Running running(folder, "--min-free 1 -o " + mount_point + "/x.tape", Busy(4000));
  running.Wait();
  EXPECT_THAT(running.Output(), HasSubstr("busy: done"));
  EXPECT_THAT(running.Output(), HasSubstr("recording ended before the program did"));
  EXPECT_GT(ReadAndCheck(mount_point + "/x.tape").summary.event_count, 0u);
  umount2(mount_point.c_str(), MNT_DETACH);
}

TEST(RecordFaults, LessThanTheMinimumFreeIsSaidAtTheStart) {
  TemporaryFolder folder;
  const ShellResult result = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " record --min-free 1000000GB -o ", folder.File("x.tape"),
                                                " -- ", TestProgram("busy"), " 10"));
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.output, HasSubstr("(--min-free)"));
  EXPECT_THAT(result.output, HasSubstr("busy: done"));
  EXPECT_TRUE(folder.Names().empty());
}

TEST(RecordControl, SuspendedStartStopFlushStatus) {
  TemporaryFolder folder;
  Running running(folder, "--suspended -o " + folder.File("x.tape"), Busy(4000));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  const auto ctl = [&](const std::string& action) {
    return Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl ", program, " ", action, " --format json")).output;
  };
  EXPECT_THAT(ctl("status"), HasSubstr("\"state\": \"suspended\""));
  EXPECT_THAT(ctl("start"), HasSubstr("\"state\": \"recording\""));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_THAT(ctl("flush"), ::testing::Not(HasSubstr("\"events\": 0,")));
  EXPECT_THAT(ctl("stop"), HasSubstr("\"state\": \"suspended\""));
  EXPECT_THAT(ctl("start"), HasSubstr("\"state\": \"recording\""));
  EXPECT_EQ(running.Wait(), 0);
  EXPECT_TRUE(ReadAndCheck(folder.File("x.tape")).summary.complete);
  EXPECT_EQ(Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl 1 status")).status, 1);
}

// --- killed at any moment ---------------------------------------------------------------------------------------

// Thirty times where HEAPTAPE_LONG_TESTS is set.
int Kills() { return std::getenv("HEAPTAPE_LONG_TESTS") ? 30 : 4; }

struct Victim {
  std::string name;
  std::string command;
};

std::vector<Victim> Victims(const TemporaryFolder& folder) {
  std::ofstream(folder.File("torrc")) << "DataDirectory " << folder.File("data") << "\nDisableNetwork 1\nSocksPort 0\nLog err stdout\n";
  return {{"threads", TestProgram("crowd") + " 3 60000"},
          {"redis", absl::StrCat("redis-server --port 0 --unixsocket ", folder.File("s"), " --save '' --daemonize no --dir ", folder.path())},
          {"tor", "tor -f " + folder.File("torrc")}};
}

TEST(RecordKilled, TheProgramAtAnyMoment) {
  for (int i = 0; i < Kills(); ++i) {
    TemporaryFolder folder;
    for (const Victim& victim : Victims(folder)) {
      std::filesystem::remove(folder.File("x.tape"));
      Running running(folder, "-v -o " + folder.File("x.tape"), victim.command);
      pid_t program, writer;
      ASSERT_TRUE(running.Find(&program, &writer)) << victim.name << running.Output();
      std::this_thread::sleep_for(std::chrono::milliseconds((i * 37 + 11) % 200));
      kill(program, SIGKILL);
      EXPECT_EQ(running.Wait(), 128 + SIGKILL) << victim.name;
      const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
      EXPECT_TRUE(trace.summary.complete) << victim.name;
      EXPECT_TRUE(trace.damage.empty()) << victim.name;
      // A thread that is killed between taking a number and publishing its event loses that one.
      EXPECT_LE(trace.summary.lost_events, 3u) << victim.name;
      EXPECT_GT(trace.summary.event_count, 0u) << victim.name;
    }
  }
}

TEST(RecordKilled, TheWriterAtAnyMoment) {
  for (int i = 0; i < Kills(); ++i) {
    TemporaryFolder folder;
    Running running(folder, "--max-wait 2s -o " + folder.File("x.tape"), TestProgram("crowd") + " 3 2500");
    pid_t program, writer;
    ASSERT_TRUE(running.Find(&program, &writer));
    ASSERT_EQ(Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl ", program, " flush")).status, 0);
    std::this_thread::sleep_for(std::chrono::milliseconds((i * 37 + 11) % 300));
    kill(writer, SIGKILL);
    running.Wait();
    EXPECT_THAT(running.Output(), HasSubstr("crowd: 3 threads, 0 children, 0 failures"));
    const ReadTrace trace = ReadAndCheck(folder.File("x.tape.part"));
    EXPECT_FALSE(trace.summary.complete);
    EXPECT_TRUE(trace.damage.empty());
    EXPECT_GT(trace.summary.event_count, 0u);
  }
}

// Of x.tape, until the third is finished; the program is ended then.
void RecordThreeSegments(const TemporaryFolder& folder, const std::string& options) {
  Running running(folder, "--segment-time 1s " + options + " -o " + folder.File("x.tape"), Busy(60000));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  EXPECT_TRUE(Eventually([&] { return std::filesystem::exists(folder.File("x.0003.tape")); }));
  kill(program, SIGTERM);
  EXPECT_EQ(running.Wait(), 128 + SIGTERM);
}

TEST(RecordControl, SegmentsBeginWithWhatIsAliveAndJoinToTheWholeRecording) {
  TemporaryFolder folder;
  ASSERT_NO_FATAL_FAILURE(RecordThreeSegments(folder, ""));
  std::string command = absl::StrCat(HEAPTAPE_PROGRAM, " join -o ", folder.File("joined"));
  std::uint64_t start_ns = 0, allocations = 0, alive = 0, resident = 0;
  for (const std::string& name : folder.Names()) {
    if (name == "output") continue;
    EXPECT_TRUE(absl::StartsWith(name, "x.000")) << name;
    absl::StrAppend(&command, " ", folder.File(name));
    const ReadTrace segment = ReadAndCheck(folder.File(name));
    EXPECT_GE(segment.counts.at(Op::kMalloc), 200u);
    // Its clock begins with it.
    EXPECT_EQ(segment.info.segment_start_ns > 0, name != "x.0001.tape");
    EXPECT_EQ(absl::StrFormat("x.%04d.tape", segment.info.segment_number), name);
    EXPECT_GE(segment.info.segment_start_ns, start_ns);
    EXPECT_LT(segment.summary.duration_ns, 30'000'000'000u);
    start_ns = segment.info.segment_start_ns + segment.summary.duration_ns;
    allocations += segment.summary.object_count - alive;
    alive = segment.live_objects;
    resident += segment.resident.size();
  }
  const ShellResult joined = Shell(command);
  EXPECT_EQ(joined.status, 0) << joined.output;
  const ReadTrace whole = ReadAndCheck(folder.File("joined"));
  EXPECT_EQ(whole.info.segment_start_ns, 0u);
  EXPECT_EQ(whole.summary.duration_ns, start_ns);
  EXPECT_EQ(whole.summary.object_count, allocations);
  EXPECT_EQ(whole.live_objects, alive);
  EXPECT_EQ(whole.resident.size(), resident);
}

TEST(RecordControl, TheOldestSegmentsGoWhereTheyAreTooLargeTogether) {
  TemporaryFolder folder;
  ASSERT_NO_FATAL_FAILURE(RecordThreeSegments(folder, "--total-size 1"));
  EXPECT_FALSE(std::filesystem::exists(folder.File("x.0001.tape")));
}

TEST(RecordSignals, HandlersThatAllocateAndJumpOutLeaveAConsistentTrace) {
  TemporaryFolder folder;
  RecorderOptions patient;  // on a machine with other work the writer may be away for seconds
  patient.max_wait_ns = 60'000'000'000;
  setenv("LD_PRELOAD", HEAPTAPE_REENTRANT_MALLOC, 1);
  absl::StatusOr<LaunchResult> launch =
      RunRecorded({TestProgram("signals"), "1000"}, TestLaunchOptions(folder.File("x.tape"), patient));
  unsetenv("LD_PRELOAD");
  ASSERT_TRUE(launch.ok());
  EXPECT_EQ(launch->exit_status, 0);
  EXPECT_EQ(launch->ended_early, "");
  EXPECT_EQ(launch->figures["unknown_frees"], 0u);
  EXPECT_EQ(launch->figures["missed_frees"], 0u);
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"), 10'000'000);
  EXPECT_TRUE(trace.summary.complete);
  // A jump out of the few instructions between number and event costs that one event.
  EXPECT_GE(trace.counts.at(Op::kMalloc) + launch->figures["lost"], 1'000'000u * 99 / 100);
}

// Ten minutes where HEAPTAPE_LONG_TESTS is set.
TEST(RecordSignals, StressOfSignalsThreadsForksAndLibrariesLosesNothing) {
  const std::string milliseconds = std::getenv("HEAPTAPE_LONG_TESTS") ? "600000" : "8000";
  for (const char* options : {"", "--stacks=4KiB"}) {
    TemporaryFolder folder;
    const std::string tape = folder.File("x.tape");
    const ShellResult result = Shell(absl::StrCat("LD_PRELOAD=", HEAPTAPE_REENTRANT_MALLOC, " ", HEAPTAPE_PROGRAM, " record -v ", options, " -o ", tape,
                                                  " -- ", TestProgram("stress"), " ", milliseconds, " ", HEAPTAPE_PLUGIN));
    EXPECT_EQ(result.status, 0) << result.output;
    for (const char* figure : {"lost", "unknown_frees", "missed_frees"}) {
      EXPECT_THAT(result.output, HasSubstr(absl::StrCat("heaptape:   ", figure, " 0\n")));
    }
    std::uint64_t marked = 0;
    ASSERT_TRUE(absl::SimpleAtoi(result.output.substr(0, result.output.find('\n')), &marked)) << result.output;
    EXPECT_GT(marked, 100u);
    const ReadTrace trace = ReadAndCheck(tape, 2'000'000'000);
    EXPECT_TRUE(trace.summary.complete);
    EXPECT_EQ(std::count_if(trace.events.begin(), trace.events.end(),
                            [](const Event& event) { return event.op == Op::kMalloc && event.size == 7777; }),
              static_cast<std::ptrdiff_t>(marked));
  }
}

}  // namespace
}  // namespace heaptape
