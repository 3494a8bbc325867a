// What goes wrong around a recording must not reach the program, and what was recorded until then reads back.

#include <pty.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
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
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "recorder/control.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// The recorder's pool takes some 45 rounds of tests/programs/busy.
constexpr int kMoreRoundsThanThePoolHolds = 200;

std::string Busy(int milliseconds) { return absl::StrCat(TestProgram("busy"), " ", milliseconds); }

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
  EXPECT_EQ(running.Wait(), 0) << "the program's own, whatever became of the recording";
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
  EXPECT_EQ(running.Wait(), 0);
  EXPECT_THAT(running.Output(), HasSubstr("busy: done"));
  EXPECT_THAT(running.Output(), HasSubstr("heaptape: " + folder.File("gone")));
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
  Running running(folder, "-v --min-free 1 --max-wait 60s -o " + mount_point + "/x.tape", BusyUntil("/", 2000));
  running.Wait();
  EXPECT_THAT(running.Output(), HasSubstr("busy: done"));
  EXPECT_THAT(running.Output(), HasSubstr("recording ended before the program did"));
  const std::uint64_t events = ReadAndCheck(mount_point + "/x.tape").summary.event_count;
  EXPECT_GT(events, 0u);
  const std::string told = absl::StrReplaceAll(running.Output(), {{",", ""}});
  EXPECT_THAT(told, HasSubstr(absl::StrCat("x.tape: ", events, " events "))) << "those in the file";
  umount2(mount_point.c_str(), MNT_DETACH);
}

// A user of whom nothing else runs: the limit counts all processes of a user, and binds root nowhere.
TEST(RecordFaults, NoProcessLeftForTheWriterIsTold) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  TemporaryFolder folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms::all);
  const auto record = [&folder](int processes) {
    return Shell(absl::StrCat("setpriv --reuid 54321 --clear-groups prlimit --nproc=", processes, " ", HEAPTAPE_PROGRAM, " record -o ",
                              folder.File("x.tape"), " -- ", Busy(50)));
  };
  const ShellResult none = record(1);
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.output, HasSubstr("busy: cannot be started: Resource temporarily unavailable. Raise the limit of processes (ulimit -u)."));
  const ShellResult no_writer = record(3);
  EXPECT_EQ(no_writer.status, 0);
  EXPECT_THAT(no_writer.output, HasSubstr("busy: done"));
  EXPECT_THAT(no_writer.output, HasSubstr("heaptape: not recording: "));
  EXPECT_THAT(no_writer.output, HasSubstr("busy: nothing was recorded"));
  EXPECT_TRUE(folder.Names().empty());
}

TEST(RecordFaults, LessThanTheMinimumFreeIsSaidAtTheStart) {
  TemporaryFolder folder;
  const ShellResult result = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " record --min-free 1000000GB -o ", folder.File("x.tape"),
                                                " -- ", TestProgram("busy"), " 10"));
  EXPECT_EQ(result.status, 0);
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

// Looks to `heaptape ctl` as a writer does, and claims to record what it is told.
class FakeWriter {
 public:
  FakeWriter(uid_t user, bool sealed) {
    shared_ = static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    process_ = fork();
    if (process_ == 0) Live(user, sealed);
    EXPECT_TRUE(Eventually([this] { return shared_->ready.load(); }));
  }
  ~FakeWriter() {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
    munmap(shared_, sizeof(Shared));
  }
  FakeWriter(const FakeWriter&) = delete;
  FakeWriter& operator=(const FakeWriter&) = delete;

  void Claim(pid_t target) {
    shared_->target = target;
    EXPECT_TRUE(Eventually([&] { return shared_->claimed.load() == target; }));
  }
  bool WasReached() const { return shared_->reached.load(); }
  pid_t process() const { return process_; }

 private:
  struct Shared {
    std::atomic<bool> ready, reached;
    std::atomic<pid_t> target, claimed;
  };

  [[noreturn]] void Live(uid_t user, bool sealed) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (user != geteuid() && setresuid(user, user, user) != 0) _exit(1);
    prctl(PR_SET_NAME, kWriterName);
    ControlBlock* block = sealed ? MakeControlBlock() : MakeUnsealed();
    if (!block) _exit(1);
    block->writer_pid = getpid();
    for (shared_->ready = true;; usleep(1000)) {
      shared_->claimed = block->target_pid = shared_->target.load();
      if (block->command.exchange(Command::kNone) == Command::kNone) continue;
      shared_->reached = true;
      block->commands_done.fetch_add(1);
    }
  }
  static ControlBlock* MakeUnsealed() {
    const int file = memfd_create(kControlName, MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, sizeof(ControlBlock)) != 0) return nullptr;
    void* memory = mmap(nullptr, sizeof(ControlBlock), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) return nullptr;
    static_cast<ControlBlock*>(memory)->magic = kControlMagic;
    return static_cast<ControlBlock*>(memory);
  }

  Shared* shared_;
  pid_t process_ = -1;
};

ShellResult Ctl(pid_t process, const std::string& action) { return Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl ", process, " ", action)); }

TEST(RecordControl, AWriterWhoseBlockMayShrinkIsNotBelieved) {
  FakeWriter sealed(geteuid(), true), unsealed(geteuid(), false);
  unsealed.Claim(getpid());
  EXPECT_THAT(Ctl(getpid(), "status").output, HasSubstr("is not being recorded"));
  EXPECT_EQ(Ctl(getpid(), "stop").status, 1);
  EXPECT_FALSE(unsealed.WasReached());
  // This shows that it is not for another reason.
  sealed.Claim(getpid());
  EXPECT_EQ(Ctl(getpid(), "stop").status, 0);
  EXPECT_TRUE(sealed.WasReached());
}

TEST(RecordControl, AStrangerThatClaimsToRecordRootsProcessIsNotBelieved) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can look into a stranger's process";
  TemporaryFolder folder;
  FakeWriter stranger(65534, true);  // started first, so found first
  // One that nobody records, one that is gone.
  const pid_t gone = fork();
  if (gone == 0) _exit(0);
  waitpid(gone, nullptr, 0);
  for (const pid_t process : {getpid(), gone}) {
    stranger.Claim(process);
    EXPECT_THAT(Ctl(process, "status").output, HasSubstr("is not being recorded"));
    EXPECT_EQ(Ctl(process, "stop").status, 1);
  }
  EXPECT_EQ(Ctl(stranger.process(), "stop").status, 1);
  // One that is recorded.
  stranger.Claim(0);
  Running running(folder, "-o " + folder.File("x.tape"), BusyUntil(folder.File("never")));
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  stranger.Claim(program);
  EXPECT_THAT(Ctl(program, "stop").output, HasSubstr("state                      suspended"));
  EXPECT_THAT(Ctl(program, "status").output, HasSubstr(absl::StrCat("writer_pid                 ", writer, "\n")));
  EXPECT_FALSE(stranger.WasReached());
  // One of his own: who else should say what becomes of it?
  FakeWriter his_own(65534, true);
  his_own.Claim(stranger.process());
  EXPECT_EQ(Ctl(stranger.process(), "stop").status, 0);
  EXPECT_TRUE(his_own.WasReached());
  kill(program, SIGKILL);
  EXPECT_EQ(running.Wait(), 128 + SIGKILL);
}

TEST(RecordSignals, AnInterruptOfAnotherProcessReachesTheProgram) {
  TemporaryFolder folder;
  Running running(folder, "-o " + folder.File("x.tape"), TestProgram("standard_streams") + " wait");
  pid_t program, writer;
  ASSERT_TRUE(running.Find(&program, &writer));
  ASSERT_TRUE(Eventually([&] { return absl::StrContains(running.Output(), "stdout open\n"); }));  // its handler is there
  kill(running.process(), SIGINT);
  EXPECT_EQ(running.Wait(), 7);
  EXPECT_THAT(running.Output(), HasSubstr("one interrupt"));
}

// The terminal sends it to both.
TEST(RecordSignals, AnInterruptOfTheTerminalReachesTheProgramOnce) {
  TemporaryFolder folder;
  int terminal = -1;
  const pid_t record = forkpty(&terminal, nullptr, nullptr, nullptr);
  ASSERT_GE(record, 0);
  if (record == 0) {
    execl(HEAPTAPE_PROGRAM, HEAPTAPE_PROGRAM, "record", "-o", folder.File("x.tape").c_str(), "--", TestProgram("standard_streams").c_str(),
          "wait", nullptr);
    _exit(127);
  }
  std::string output;
  char buffer[4096];
  ssize_t got;
  bool interrupted = false;
  while ((got = read(terminal, buffer, sizeof(buffer))) > 0) {
    output.append(buffer, static_cast<std::size_t>(got));
    if (interrupted || !absl::StrContains(output, "stdout open")) continue;
    interrupted = true;
    EXPECT_EQ(write(terminal, "\x03", 1), 1);
  }
  close(terminal);
  int status = 0;
  waitpid(record, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_THAT(output, HasSubstr("one interrupt"));
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
  return {{"threads", absl::StrCat(TestProgram("crowd"), " 3 ", folder.File("never"))},
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
    Running running(folder, "--max-wait 2s -o " + folder.File("x.tape"), absl::StrCat(TestProgram("crowd"), " 3 ", folder.File("end")));
    pid_t program, writer;
    ASSERT_TRUE(running.Find(&program, &writer));
    EventsBeyond(program, 0);
    std::this_thread::sleep_for(std::chrono::milliseconds((i * 37 + 11) % 300));
    kill(writer, SIGKILL);
    CreateFile(folder.File("end"));
    running.Wait();
    EXPECT_THAT(running.Output(), HasSubstr("crowd: 3 threads, 0 children, 0 failures"));
    const ReadTrace trace = ReadAndCheck(folder.File("x.tape.part"));
    EXPECT_FALSE(trace.summary.complete);
    EXPECT_TRUE(trace.damage.empty());
    EXPECT_GT(trace.summary.event_count, 0u);
  }
}

// Of x.tape, until the third is finished; the program is ended then.
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
