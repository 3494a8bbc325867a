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
#include <map>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// The recorder's pool takes some 45 rounds of tests/programs/busy.
constexpr int kMoreRoundsThanThePoolHolds = 200;

// Waits until so many have come to the writer; how many had.
std::uint64_t EventsBeyond(pid_t program, std::uint64_t bound) {
  std::uint64_t events = 0;
  EXPECT_TRUE(Eventually([&] { return absl::SimpleAtoi(Control(program, "flush")["events"], &events) && events > bound; }));
  return events;
}

// What `heaptape record -v` said of itself.
std::uint64_t FigureIn(const std::string& output, const std::string& name) {
  const std::size_t at = output.find(absl::StrCat("heaptape:   ", name, " "));
  std::uint64_t figure = 0;
  if (at == std::string::npos) {
    ADD_FAILURE() << name << " is missing: " << output;
    return figure;
  }
  const std::string rest = output.substr(at + name.size() + 13);
  EXPECT_TRUE(absl::SimpleAtoi(absl::StrReplaceAll(rest.substr(0, rest.find('\n')), {{",", ""}}), &figure)) << rest;
  return figure;
}

TEST(RecordFaults, ProgramKilledLosesNothingThatWasPublished) {
  TemporaryFolder folder;
  Running running(folder, "-v -o " + folder.File("x.tape"), BusyUntil(folder.File("never")));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  const std::uint64_t events = EventsBeyond(program, 10'000);
  kill(program, SIGKILL);
  EXPECT_EQ(running.Wait(), 128 + SIGKILL);
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_TRUE(trace.summary.complete);
  EXPECT_GE(trace.summary.event_count, events);
}

TEST(RecordFaults, ProgramKilledLeavesTheLastLookAtItsBigBlocks) {
  TemporaryFolder folder;
  Running running(folder, "-o " + folder.File("x.tape"), TestProgram("big_blocks") + " wait");
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  ASSERT_TRUE(Eventually([&] { return absl::StrContains(running.Output(), "big_blocks: written"); }));
  FlushAll(program);
  kill(program, SIGKILL);
  EXPECT_EQ(running.Wait(), 128 + SIGKILL);
  EXPECT_THAT(PagesAtTheEnd(ReadAndCheck(folder.File("x.tape")), 4 << 20), ElementsAre(100, 0));
}

TEST(RecordFaults, WriterKilledLeavesTheProgramAloneAndAReadableFile) {
  TemporaryFolder folder;
  Running running(folder, "--max-wait 2s -o " + folder.File("x.tape"), BusyUntil(folder.File("end"), kMoreRoundsThanThePoolHolds));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  EventsBeyond(program, 100);
  kill(writer, SIGKILL);
  CreateFile(folder.File("end"));
  EXPECT_EQ(running.Wait(), 1) << "the program's own 0 does not hide that the recording failed";
  EXPECT_THAT(running.Output(), HasSubstr("busy: done"));
  EXPECT_THAT(running.Output(), HasSubstr("x.tape.part: the recording's writer ended before it had finished"));
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape.part"));
  EXPECT_FALSE(trace.summary.complete);
  EXPECT_GT(trace.summary.event_count, 100u);
}

TEST(RecordFaults, WriterStoppedMakesTheProgramWaitNoLongerThanItMay) {
  TemporaryFolder folder;
  Running running(folder, "--max-wait 300ms -o " + folder.File("x.tape"), BusyUntil(folder.File("end"), kMoreRoundsThanThePoolHolds));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  kill(writer, SIGSTOP);
  CreateFile(folder.File("end"));
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(running.Output(), "busy: done"); }));
  kill(writer, SIGCONT);
  EXPECT_EQ(running.Wait(), 0);
  EXPECT_THAT(running.Output(), HasSubstr("recording ended before the program did"));
  EXPECT_TRUE(ReadAndCheck(folder.File("x.tape")).summary.complete);
}

// Until the recording's clock, which went on to the moment at which the program woke from its wait and stands still until
// the wait is made up for, goes on again.
void AwaitClock(pid_t program) {
  const std::uint64_t events = EventsBeyond(program, 0);
  EventsBeyond(program, events + 4'000 * kMoreRoundsThanThePoolHolds);  // surely awake
  double woken = 0, running = 0, waited = 0;
  EXPECT_TRUE(Eventually([&] {
    std::map<std::string, std::string> control = Control(program, "flush");
    if (!absl::SimpleAtod(control["running_seconds"], &running) || !absl::SimpleAtod(control["wait_seconds"], &waited)) return false;
    if (woken == 0) woken = running;
    return running - waited > woken;
  }));
}

TEST(RecordFaults, TimeInWhichTheProgramWaitedForTheWriterIsNotRecorded) {
  TemporaryFolder folder;
  const auto seconds_since = [](auto start) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  const auto start = std::chrono::steady_clock::now();
  Running running(folder, "-v --max-wait 60s -o " + folder.File("x.tape"), BusyUntil(folder.File("end")));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  const auto found = std::chrono::steady_clock::now();
  kill(writer, SIGSTOP);
  std::this_thread::sleep_for(std::chrono::milliseconds(1900));  // it fills the pool in a fraction of that, and waits for the rest
  kill(writer, SIGCONT);
  AwaitClock(program);
  const double worked = seconds_since(found);
  CreateFile(folder.File("end"));
  EXPECT_EQ(running.Wait(), 0);
  const double whole = seconds_since(start);
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_TRUE(trace.summary.complete);
  EXPECT_EQ(trace.summary.lost_events, 0u);
  const double resolution = static_cast<double>(trace.info.time_resolution_ns) / 1e9;
  const double recorded = static_cast<double>(trace.summary.duration_ns) / 1e9;
  const double waited = static_cast<double>(FigureIn(running.Output(), "wait_ns")) / 1e9;
  EXPECT_LE(recorded + waited, whole + resolution);
  EXPECT_GE(recorded + waited, worked - resolution);
}

TEST(RecordFaults, FolderRemoved) {
  TemporaryFolder folder;
  std::filesystem::create_directory(folder.File("gone"));
  Running running(folder, "-o " + folder.File("gone/x.tape"), BusyUntil(folder.File("end")));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  std::filesystem::remove_all(folder.File("gone"));
  CreateFile(folder.File("end"));
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
  // It waits for the writer all the way, which cannot be further behind than the pool is large.
  Running running(folder, "--min-free 1 --max-wait 60s -o " + mount_point + "/x.tape", BusyUntil("/", 2000));
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
  Running running(folder, "--suspended -o " + folder.File("x.tape"), BusyUntil(folder.File("end")));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  const auto ctl = [&](const std::string& action) {
    return Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl ", program, " ", action, " --format json")).output;
  };
  EXPECT_THAT(ctl("status"), HasSubstr("\"state\": \"suspended\""));
  EXPECT_THAT(ctl("start"), HasSubstr("\"state\": \"recording\""));
  EXPECT_GT(EventsBeyond(program, 0), 0u);
  EXPECT_THAT(ctl("stop"), HasSubstr("\"state\": \"suspended\""));
  EXPECT_THAT(ctl("start"), HasSubstr("\"state\": \"recording\""));
  CreateFile(folder.File("end"));
  EXPECT_EQ(running.Wait(), 0);
  EXPECT_TRUE(ReadAndCheck(folder.File("x.tape")).summary.complete);
  EXPECT_EQ(Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl 1 status")).status, 1);
}

// Of x.tape, until the third is finished; the program is ended then. `took`: how long that was.
void RecordThreeSegments(const TemporaryFolder& folder, const std::string& options, std::chrono::nanoseconds* took = nullptr) {
  const auto start = std::chrono::steady_clock::now();
  Running running(folder, "--segment-time 1s " + options + " -o " + folder.File("x.tape"), BusyUntil(folder.File("never")));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  EXPECT_TRUE(Eventually([&] { return std::filesystem::exists(folder.File("x.0003.tape")); }));
  kill(program, SIGTERM);
  EXPECT_EQ(running.Wait(), 128 + SIGTERM);
  if (took != nullptr) *took = std::chrono::steady_clock::now() - start;
}

TEST(RecordControl, SegmentsBeginWithWhatIsAliveAndJoinToTheWholeRecording) {
  TemporaryFolder folder;
  std::chrono::nanoseconds took;
  ASSERT_NO_FATAL_FAILURE(RecordThreeSegments(folder, "", &took));
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
  EXPECT_LE(start_ns, static_cast<std::uint64_t>(took.count()));
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
  setenv("LD_PRELOAD", HEAPTAPE_REENTRANT_MALLOC, 1);
  absl::StatusOr<LaunchResult> launch =
      RunRecorded({TestProgram("signals"), "1000"}, TestLaunchOptions(folder.File("x.tape")));
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
    const ShellResult result = Shell(absl::StrCat("LD_PRELOAD=", HEAPTAPE_REENTRANT_MALLOC, " ", HEAPTAPE_PROGRAM, " record -v --max-wait 60s ", options, " -o ", tape,
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
