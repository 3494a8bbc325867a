// Every call a program can make, and what a user can get wrong, recorded from small programs.

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

using ::testing::HasSubstr;

// The one event of that operation and size, failing the test where there is none or more.
Event Only(const ReadTrace& trace, Op op, std::uint64_t size) {
  std::vector<Event> found;
  for (const Event& event : trace.events) {
    if (event.op == op && event.size == size) found.push_back(event);
  }
  EXPECT_EQ(found.size(), 1u) << OpName(op) << " " << size;
  return found.empty() ? Event{} : found[0];
}

TEST(RecordCalls, EveryCallIsThereWithSizeAlignmentAndOutcome) {
  TemporaryFolder folder;
  const Recorded recorded = RecordAndCheck({TestProgram("every_call")}, folder.File("calls.tape"));
  EXPECT_EQ(recorded.launch.exit_status, 0);
  const ReadTrace& trace = recorded.trace;
  Only(trace, Op::kMalloc, 100001);
  const Event block = Only(trace, Op::kCalloc, 7 * 1003);
  EXPECT_EQ(Only(trace, Op::kRealloc, 10007).slot, block.slot);
  EXPECT_FALSE(Only(trace, Op::kRealloc, 10007).fresh());
  const Event fresh = Only(trace, Op::kRealloc, 10009);
  EXPECT_TRUE(fresh.fresh());
  EXPECT_EQ(Only(trace, Op::kReallocArray, 3 * 4001).slot, fresh.slot);
  EXPECT_TRUE(Only(trace, Op::kReallocArray, 5 * 2003).fresh());
  EXPECT_EQ(Only(trace, Op::kPosixMemalign, 10037).alignment(), 256u);
  EXPECT_EQ(Only(trace, Op::kAlignedAlloc, 10048).alignment(), 64u);
  EXPECT_EQ(Only(trace, Op::kMemalign, 10061).alignment(), 4096u);
  Only(trace, Op::kValloc, 10067);
  Only(trace, Op::kPvalloc, 10069);
  EXPECT_TRUE(Only(trace, Op::kMalloc, kSizeMax).failed());
  const Event kept = Only(trace, Op::kMalloc, 10079);
  const Event refused = Only(trace, Op::kRealloc, kSizeMax);
  EXPECT_TRUE(refused.failed());
  EXPECT_EQ(refused.slot, kept.slot);
  EXPECT_EQ(Only(trace, Op::kTrim, 12345).op, Op::kTrim);
  EXPECT_EQ(Only(trace, Op::kMallopt, 1 << 20).slot, static_cast<std::uint32_t>(-3));  // M_MMAP_THRESHOLD
  // realloc(p, 0) is a free: the next event is the free of that slot.
  const Event gone = Only(trace, Op::kMalloc, 10091);
  const auto at = std::find(trace.events.begin(), trace.events.end(), gone);
  ASSERT_NE(at, trace.events.end());
  EXPECT_EQ((at + 1)->op, Op::kFree);
  EXPECT_EQ((at + 1)->slot, gone.slot);
  Only(trace, Op::kMalloc, 10093);
}

TEST(RecordCalls, TheSameProgramGivesTheSameEvents) {
  TemporaryFolder folder;
  const Recorded first = RecordAndCheck({TestProgram("every_call")}, folder.File("first.tape"));
  const Recorded second = RecordAndCheck({TestProgram("every_call")}, folder.File("second.tape"));
  const auto calls = [](const ReadTrace& trace) {
    std::vector<Event> kept;
    for (const Event& event : trace.events) {
      if (event.op != Op::kTime) kept.push_back(event);
    }
    return kept;
  };
  EXPECT_TRUE(calls(first.trace) == calls(second.trace));
}

TEST(RecordCalls, ThreadsKeepTheirNumbersApartAndNothingIsLost) {
  TemporaryFolder folder;
  const Recorded recorded = RecordAndCheck({TestProgram("threads"), "4", "3", "20000"}, folder.File("threads.tape"));
  EXPECT_EQ(recorded.launch.exit_status, 0);
  EXPECT_EQ(recorded.trace.threads_started, 12u);
  EXPECT_EQ(recorded.trace.counts.at(Op::kThreadEnd), 12u);
  EXPECT_GE(recorded.trace.counts.at(Op::kMalloc), 12u * 20002u);
  EXPECT_LT(recorded.trace.live_objects, 50u);
}

TEST(RecordCalls, TwoHundredThreadsBornAndDeadInALoop) {
  TemporaryFolder folder;
  const Recorded recorded = RecordAndCheck({TestProgram("threads"), "200", "5", "50"}, folder.File("many.tape"));
  EXPECT_EQ(recorded.launch.exit_status, 0);
  EXPECT_EQ(recorded.trace.threads_started, 1000u);
  EXPECT_LE(recorded.trace.summary.peak_threads, 201u);
}

TEST(RecordCalls, MoreThreadsThanThePoolHasChunksFor) {
  TemporaryFolder folder;
  const Recorded recorded = RecordAndCheck({TestProgram("threads"), "800", "1", "20"}, folder.File("more.tape"));
  EXPECT_EQ(recorded.launch.exit_status, 0);
  EXPECT_EQ(recorded.trace.threads_started, 800u);
}

// A program waits for a look only so long: where the writer gets no CPU in time, there is none. So again, a few times.
std::vector<int> PagesOnceLookedAt(std::uint64_t bytes, const std::function<ReadTrace()>& record) {
  std::vector<int> pages = {-1};
  for (int i = 0; i < 10 && std::find(pages.begin(), pages.end(), -1) != pages.end(); ++i) pages = PagesAtTheEnd(record(), bytes);
  return pages;
}

TEST(RecordCalls, PagesOfBigBlocksThatAreNeverFreedAreLookedAtAtExit) {
  TemporaryFolder folder;
  const auto record = [&] { return RecordAndCheck({TestProgram("big_blocks")}, folder.File("x.tape")).trace; };
  EXPECT_THAT(PagesOnceLookedAt(4 << 20, record), ::testing::ElementsAre(100, 0));
}

TEST(RecordCalls, LooksAtBigBlocksThatWereSkippedAreTold) {
  TemporaryFolder folder;
  const std::string record = absl::StrCat(HEAPTAPE_PROGRAM, " record -o ", folder.File("x.tape"), " -- ", TestProgram("big_blocks"));
  const ShellResult some = Shell("MALLOC_MMAP_THRESHOLD_=131072 " + record + " hurry");  // each is unmapped when freed
  EXPECT_EQ(some.status, 0);
  EXPECT_THAT(some.output, ::testing::ContainsRegex("x.tape: [0-9,]+ of 10,[0-9]+ looks at the pages of large blocks were left out or came late, so "
                                                    "peaks .* Record on a machine with more idle CPU"));
  // The C library writes before each of them: a block that was not looked at in time is not said to be untouched.
  int untouched = 0;
  for (const TouchRecord& look : ReadAndCheck(folder.File("x.tape")).touched) {
    untouched += look.when == TouchRecord::When::kFree && look.present.empty();
  }
  EXPECT_EQ(untouched, 0);
  const auto again = [&] {
    std::filesystem::remove(folder.File("x.tape"));
    return Shell(record);
  };
  ShellResult none = again();
  for (int i = 0; i < 10 && absl::StrContains(none.output, "came late"); ++i) none = again();
  EXPECT_EQ(none.output, "big_blocks: written\n");
}

TEST(RecordCalls, LooksThatNobodyComesForDoNotStandInTheWayOfOthers) {
  TemporaryFolder folder;
  const auto record = [&] {
    setenv("LD_PRELOAD", HEAPTAPE_REENTRANT_MALLOC, 1);
    const absl::StatusOr<LaunchResult> launch =
        RunRecorded({TestProgram("big_blocks"), "jump"}, TestLaunchOptions(folder.File("x.tape")));
    unsetenv("LD_PRELOAD");
    EXPECT_TRUE(launch.ok()) << launch.status();
    EXPECT_EQ(launch.ok() ? launch->exit_status : -1, 0);
    return ReadAndCheck(folder.File("x.tape"));
  };
  EXPECT_THAT(PagesOnceLookedAt(8 << 20, record), ::testing::ElementsAre(50));
}

// C++ on top of the C library, and on allocators that bring operators of their own: seen once each, never twice.
class RecordCxx : public ::testing::TestWithParam<std::string> {};

TEST_P(RecordCxx, EveryOperatorIsThereOnce) {
  TemporaryFolder folder;
  std::string preload;
  if (!GetParam().empty()) {
    preload = std::string(absl::StripAsciiWhitespace(Shell(absl::StrCat("ls /usr/lib/x86_64-linux-gnu/", GetParam(), " | head -1")).output));
    ASSERT_EQ(access(preload.c_str(), R_OK), 0) << GetParam() << " is missing: ./bootstrap test installs it";
  }
  setenv("LD_PRELOAD", preload.c_str(), 1);
  std::vector<std::string> command = {TestProgram("new_delete"), "20000"};
  // mimalloc's library is compiled as C: it aborts where others throw.
  if (!absl::StrContains(preload, "mimalloc")) command.push_back("throw");
  const Recorded recorded = RecordAndCheck(command, folder.File("x.tape"));
  unsetenv("LD_PRELOAD");
  EXPECT_EQ(recorded.launch.exit_status, 0);
  const ReadTrace& trace = recorded.trace;
  for (const std::uint64_t size : {10007, 10009, 10037, 10039, 10061, 10067, 200003}) {
    const Event event = Only(trace, Op::kMalloc, size);
    auto at = std::find(trace.events.begin(), trace.events.end(), event);
    ASSERT_NE(at, trace.events.end());
    do ++at;
    while (at != trace.events.end() && at->op == Op::kTime);
    ASSERT_NE(at, trace.events.end());
    EXPECT_EQ(at->op, Op::kFree);
    EXPECT_EQ(at->slot, event.slot);
  }
  // GNU's C++ library has no heap of its own and asks the C library for these: by aligned_alloc until GCC 13, by posix_memalign
  // since. An operator of an allocator's own is recorded as the former.
  const bool asked_by_posix_memalign = trace.counts.contains(Op::kPosixMemalign);
  EXPECT_TRUE(preload.empty() || !asked_by_posix_memalign);
  for (const std::uint64_t size : {10240, 10496, 10752, 11008, 11264, 11520}) {
    EXPECT_EQ(Only(trace, asked_by_posix_memalign ? Op::kPosixMemalign : Op::kAlignedAlloc, size).alignment(), 256u);
  }
  // Each string is longer than what fits inside it; each is freed.
  EXPECT_GE(trace.counts.at(Op::kMalloc), 3u * 20000u);
  EXPECT_LT(trace.counts.at(Op::kMalloc), 3u * 20000u + 3u * 1000u + 200u);
  EXPECT_LT(trace.live_objects, 100u);
}

INSTANTIATE_TEST_SUITE_P(Allocators, RecordCxx,
                         ::testing::Values("", "libmimalloc.so.?*", "libjemalloc.so.2", "libtcmalloc_minimal.so.4"),
                         [](const auto& info) {
                           return info.param.empty() ? "libc" : info.param.substr(3, info.param.find_first_of("._") - 3);
                         });

TEST(RecordCommand, GivesTheProgramsOwnStatusAndOutput) {
  TemporaryFolder folder;
  const std::string record = absl::StrCat(HEAPTAPE_PROGRAM, " record --force -o ", folder.File("out.tape"), " -- ");
  const ShellResult seven = Shell(record + "sh -c 'echo out; echo err >&2; exit 7'");
  EXPECT_EQ(seven.status, 7);
  EXPECT_EQ(seven.output, "out\nerr\n");
  EXPECT_EQ(Shell(record + "sh -c 'kill -TERM $$'").status, 128 + 15);
  EXPECT_EQ(Shell(record + "env").output, Shell("env").output);
}

TEST(RecordCommand, LeavesNoProcessBehind) {
  TemporaryFolder folder;
  RecordAndCheck({TestProgram("every_call")}, folder.File("calls.tape"));
  EXPECT_EQ(folder.Names(), std::vector<std::string>{"calls.tape"});
  EXPECT_EQ(std::filesystem::status(folder.File("calls.tape")).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

struct BadInput {
  std::string output;  // below the test's folder unless absolute
  std::string command_line;
  std::string says;
};

void PrintTo(const BadInput& input, std::ostream* out) { *out << input.output << " -- " << input.command_line; }

class RecordBadInput : public ::testing::TestWithParam<BadInput> {};

TEST_P(RecordBadInput, OneClearSentenceAndNothingLeftBehind) {
  TemporaryFolder folder;
  const std::string output = GetParam().output.substr(0, 1) == "/" ? GetParam().output : folder.File(GetParam().output);
  const ShellResult result = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " record -o ", output, " -- ", GetParam().command_line));
  EXPECT_NE(result.status, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr(GetParam().says));
  EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
  EXPECT_TRUE(folder.Names().empty());
}

INSTANTIATE_TEST_SUITE_P(
    Cases, RecordBadInput,
    ::testing::Values(BadInput{"x.tape", "/no/such/program", "/no/such/program: no such program"},
                      BadInput{"x.tape", "no-such-program-anywhere", "no such program in any folder of PATH"},
                      BadInput{"x.tape", "/etc/passwd", "is not a program that may be run"},
                      BadInput{"x.tape", HEAPTAPE_TEST_PROGRAMS "/static_program", "is statically linked"},
                      BadInput{"x.tape", HEAPTAPE_TEST_PROGRAMS "/own_malloc", "brings its own malloc"},
                      BadInput{"x.tape", HEAPTAPE_TEST_PROGRAMS "/with_asan", "is built with AddressSanitizer"},
                      BadInput{"/no/such/folder/x.tape", "true", "no such folder for the recording"},
                      BadInput{"", "true", "is a folder"},
                      BadInput{"/dev/null", "true", "exists and is not a regular file"},
                      BadInput{"/dev/null/x.tape", "true", "no such folder for the recording"}));

TEST(RecordCommand, NothingThatIsThereIsReplacedUnasked) {
  TemporaryFolder folder;
  const auto record = [&folder](const std::string& options) {
    return Shell(absl::StrCat(HEAPTAPE_PROGRAM, " record ", options, " -o ", folder.File("x.tape"), " -- echo it ran"));
  };
  std::ofstream(folder.File("x.tape")) << "precious";
  EXPECT_THAT(record("").output, HasSubstr("x.tape: exists already; give --force to replace it"));
  EXPECT_EQ(record("").status, 1);
  EXPECT_EQ(std::filesystem::file_size(folder.File("x.tape")), 8u);
  const ShellResult forced = record("--force");
  EXPECT_EQ(forced.status, 0);
  EXPECT_EQ(forced.output, "it ran\n");
  EXPECT_TRUE(ReadAndCheck(folder.File("x.tape")).summary.complete);

  std::ofstream(folder.File("x.tape.part")) << "unfinished";
  EXPECT_THAT(record("--force").output, HasSubstr("x.tape.part: is a recording under way, or one that was killed"));
  EXPECT_EQ(record("--force").status, 1);
  // Segments have names of their own.
  EXPECT_THAT(record("--segment-time 1h").output, "it ran\n");
  EXPECT_THAT(record("--segment-time 1h").output, HasSubstr("x.0001.tape: exists already; give --force"));
  EXPECT_EQ(folder.Names(), (std::vector<std::string>{"x.0001.tape", "x.tape", "x.tape.part"}));
}

// Where the program runs its status is returned, with or without a recording.
TEST(RecordCommand, TheProgramsOwnStatusIsReturned) {
  TemporaryFolder folder;
  const std::string record = absl::StrCat(HEAPTAPE_PROGRAM, " record -o ", folder.File("x.tape"), " ");
  EXPECT_EQ(Shell(record + "-- sh -c 'exit 3'").status, 3);
  const ShellResult unrecorded = Shell(record + "--min-free 1000000GB --force -- sh -c 'exit 0'");
  EXPECT_EQ(unrecorded.status, 0);
  EXPECT_THAT(unrecorded.output, HasSubstr("heaptape: not recording: "));
  EXPECT_THAT(unrecorded.output, HasSubstr("sh: nothing was recorded"));
}

TEST(RecordCommand, ClosedStandardStreamsStayClosed) {
  TemporaryFolder folder;
  const ShellResult result = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " record -o ", folder.File("x.tape"), " -- ",
                                                TestProgram("standard_streams"), " <&- >&-"));
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.output, "stdin closed, stdout closed\n");
  EXPECT_TRUE(ReadAndCheck(folder.File("x.tape")).summary.complete);
}

// Blocks that a plugin allocates past the recorder, freed by the program.
TEST(RecordCommand, AHeapThatIsNotSeenIsToldByEveryCommand) {
  TemporaryFolder folder;
  const std::string tape = folder.File("x.tape");
  const std::string few = absl::StrCat(HEAPTAPE_PROGRAM, " record -o ", folder.File("few.tape"), " -- ", TestProgram("deepbind"), " ", HEAPTAPE_PLUGIN, " 0");
  EXPECT_EQ(Shell(few).output, "deepbind: done\n");
  const ShellResult recorded = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " record -o ", tape, " -- ", TestProgram("deepbind"), " ", HEAPTAPE_PLUGIN, " 500"));
  EXPECT_EQ(recorded.status, 0);
  const auto sentence = HasSubstr("x.tape: 500 frees of blocks that were not seen being allocated: a part of the heap was not recorded");
  EXPECT_THAT(recorded.output, sentence);
  EXPECT_EQ(ReadAndCheck(tape).summary.unmatched_frees, (UnmatchedFrees{.unknown = 500, .missed = 0}));
  EXPECT_EQ(ReadAndCheck(folder.File("few.tape")).summary.unmatched_frees, UnmatchedFrees());
  const auto run = [](const std::string& command) {
    const ShellResult result = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ", command));
    EXPECT_EQ(result.status, 0) << result.output;
    return result.output;
  };
  const auto in_json = HasSubstr("\"unknown_frees\": 500,");
  EXPECT_THAT(run("verify " + tape), sentence);
  EXPECT_THAT(run("verify --format json " + tape), in_json);
  EXPECT_THAT(run("inspect " + tape), HasSubstr("not seen       500 frees"));
  EXPECT_THAT(run("inspect --format json " + tape), in_json);
  EXPECT_THAT(run("replay -a bump " + tape), sentence);
  EXPECT_THAT(run("replay -a bump -f json " + tape), testing::AllOf(HasSubstr("\"unknown_frees\":500,"), sentence));
  run(absl::StrCat("pack ", tape, " -o ", folder.File("packed.tape")));
  EXPECT_THAT(run("verify --format json " + folder.File("packed.tape")), in_json);
}

TEST(RecordCommand, ASetuidProgramIsRefusedWithTheReason) {
  TemporaryFolder folder;
  const std::string copy = folder.File("setuid-program");
  std::filesystem::copy_file(TestProgram("every_call"), copy);
  if (geteuid() == 0) {
    ASSERT_EQ(chown(copy.c_str(), 65534, 65534), 0);
  } else {
    GTEST_SKIP() << "only root can make a program of another user";
  }
  std::filesystem::permissions(copy, std::filesystem::perms(04755));
  const ShellResult result = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " record -o ", folder.File("x.tape"), " -- ", copy));
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.output, HasSubstr("gains rights when it is run"));
  EXPECT_EQ(folder.Names(), std::vector<std::string>{"setuid-program"});
}

}  // namespace
}  // namespace heaptape
