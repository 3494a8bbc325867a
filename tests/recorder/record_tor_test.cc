// tor as Debian runs it: a daemon under a user of its own, in a seccomp filter, that opens its logs again on HUP.

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "recorder/process_memory.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

using ::testing::HasSubstr;

std::string Contents(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

struct Way {
  std::string name;
  std::string torrc;     // beside what all have
  std::string owner;     // of its folders
  std::string options;   // of heaptape record
  int end;               // the signal that ends it
};

void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }

class RecordTor : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "only as root does tor become another user";
    ASSERT_EQ(Shell("command -v tor").status, 0) << "tor is missing: ./bootstrap test installs it";
    for (const char* name : {"data", "log"}) {
      std::filesystem::create_directory(folder_.File(name));
      ASSERT_EQ(Shell(absl::StrCat("chown ", GetParam().owner, " ", folder_.File(name), " && chmod 700 ", folder_.File(name))).status, 0);
    }
    // It passes through the folder to its own.
    ASSERT_EQ(chmod(folder_.path().c_str(), 0755), 0);
    std::ofstream(folder_.File("torrc")) << "DataDirectory " << folder_.File("data") << "\nPidFile " << folder_.File("data/pid")
                                         << "\nLog notice file " << log_ << "\nControlSocket " << folder_.File("data/control")
                                         << "\nRunAsDaemon 1\nDisableNetwork 1\nSocksPort 0\n" << GetParam().torrc;
  }
  void TearDown() override {
    if (pid_ > 0) kill(pid_, SIGKILL);
  }

  bool Filtered() const { return ParseSeccomp(Contents(absl::StrCat("/proc/", pid_, "/status"))) == 2; }
  bool Lives() const {
    const std::string status = Contents(absl::StrCat("/proc/", pid_, "/status"));
    return !status.empty() && !absl::StrContains(status, "State:\tZ") && !absl::StrContains(status, "State:\tX");
  }

  TemporaryFolder folder_;
  std::string log_ = folder_.File("log/notices");
  pid_t pid_ = 0;
};

TEST_P(RecordTor, IsRecordedFromItsStartToItsEnd) {
  const std::string tape = folder_.File("x.tape");
  const ShellResult start = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " record ", GetParam().options, " -o ", tape, " -- tor -f ",
                                               folder_.File("torrc"), " > ", folder_.File("out"), " 2>&1"));
  EXPECT_EQ(start.status, 0) << Contents(folder_.File("out"));
  EXPECT_THAT(Contents(folder_.File("out")), HasSubstr("went on as a daemon"));
  const bool in_filter = absl::StrContains(GetParam().torrc, "Sandbox");
  ASSERT_TRUE(Eventually([&] {
    return std::ifstream(folder_.File("data/pid")) >> pid_ && Filtered() == in_filter && absl::StrContains(Contents(log_), "Bootstrapped 0%");
  })) << Contents(folder_.File("out"));
  EXPECT_TRUE(Eventually([&] { return Control(pid_, "status")["state"] == "recording"; }));

  // In its filter too: there the C library cannot save tor's signal mask when tor makes a thread, and puts back what lay on
  // the stack. Of tor alone that is an address, and some signals are blocked for good; recorded it is nothing.
  EXPECT_THAT(Contents(absl::StrCat("/proc/", pid_, "/status")), HasSubstr("SigBlk:\t0000000000000000\n"));
  std::filesystem::rename(log_, folder_.File("log/old"));
  EXPECT_TRUE(Eventually([&, tries = 0]() mutable {
    if (tries++ % 100 == 0) kill(pid_, SIGHUP);
    return absl::StrContains(Contents(log_), "opening") &&
           absl::StrContains(Contents(log_) + Contents(folder_.File("log/old")), "Received reload signal");
  })) << Contents(log_) << Contents(folder_.File("log/old"));
  EXPECT_TRUE(Eventually([&] { return Control(pid_, "flush")["state"] == "recording"; }));
  EXPECT_TRUE(Lives());

  EXPECT_TRUE(Eventually([&, tries = 0]() mutable {
    if (tries++ % 100 == 0) kill(pid_, GetParam().end);
    return !Lives();
  }));
  EXPECT_TRUE(Eventually([&] { return access(tape.c_str(), F_OK) == 0; }));
  if (GetParam().end == SIGTERM) {
    EXPECT_THAT(Contents(log_) + Contents(folder_.File("log/old")), HasSubstr("exiting cleanly"));
  }
  for (const std::string& text : {Contents(log_), Contents(folder_.File("log/old")), Contents(folder_.File("out"))}) {
    EXPECT_THAT(text, ::testing::Not(HasSubstr("[err]")));
    EXPECT_THAT(text, ::testing::Not(HasSubstr("sandbox")));
  }
  const ReadTrace trace = ReadAndCheck(tape);
  EXPECT_TRUE(trace.summary.complete);
  EXPECT_TRUE(trace.damage.empty());
  EXPECT_EQ(trace.info.program, "tor");
  EXPECT_GT(trace.counts.at(Op::kMalloc), 10'000u);
  EXPECT_EQ(Shell(absl::StrCat(HEAPTAPE_PROGRAM, " verify ", tape)).status, 0);
  if (trace.info.stack_sample_bytes) {
    EXPECT_GT(trace.stacks.size(), 10u);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Debian, RecordTor,
    ::testing::Values(Way{"daemon", "User debian-tor\n", "debian-tor", "", SIGTERM},
                      Way{"sandbox", "User debian-tor\nSandbox 1\n", "debian-tor", "", SIGTERM},
                      // The filter must not meet a call of the unwinder that it forbids.
                      Way{"stacks", "User debian-tor\nSandbox 1\n", "debian-tor", "--stacks=16KiB", SIGKILL},
                      // Only root may lock more memory than a few MiB.
                      Way{"locked", "DisableAllSwap 1\n", "root", "", SIGTERM}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace heaptape
