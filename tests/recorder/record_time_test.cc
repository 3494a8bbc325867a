// What a recording tells of time: no more than its resolution, wherever one looks.

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::size_t kFullBlock = 1 << 16;

// Every time in the trace is a multiple of `step_ns`; samples stand at marks, one for each step at most; and blocks end where
// they are full or at a mark, but for the last.
void ExpectNothingFiner(const std::string& path, std::uint64_t step_ns) {
  auto opened = TraceReader::Open(path);
  ASSERT_TRUE(opened.ok()) << opened.status();
  TraceReader& reader = **opened;
  EXPECT_EQ(reader.info().time_resolution_ns, step_ns);
  EXPECT_EQ(reader.summary().duration_ns % step_ns, 0u);
  std::set<std::uint64_t> marks = {0};  // numbers of the events up to each
  for (auto block = reader.Next(); block.ok() && !block->events.empty(); block = reader.Next()) {
    EXPECT_EQ(block->start_time_ns % step_ns, 0u);
    EXPECT_EQ(block->end_time_ns % step_ns, 0u);
    for (std::size_t i = 0; i < block->events.size(); ++i) {
      if (block->events[i].op != Op::kTime) continue;
      EXPECT_EQ(block->events[i].size % step_ns, 0u);
      marks.insert(block->first_event + i + 1);
    }
    const std::uint64_t end = block->first_event + block->events.size();
    EXPECT_TRUE(block->events.size() >= kFullBlock || marks.contains(end) || end == reader.summary().event_count)
        << "a block ends at event " << end;
  }
  const auto samples = reader.ReadResident();
  ASSERT_TRUE(samples.ok());
  EXPECT_FALSE(samples->empty());
  std::set<std::uint64_t> times;
  for (const ResidentSample& sample : *samples) {
    EXPECT_EQ(sample.time_ns % step_ns, 0u);
    EXPECT_TRUE(times.insert(sample.time_ns).second) << sample.time_ns;
    EXPECT_TRUE(marks.contains(sample.event_number)) << sample.event_number;
  }
}

TEST(RecordTime, ACoarseRecordingHasNothingFiner) {
  TemporaryFolder folder;
  const std::string path = folder.File("coarse.tape");
  // Long enough for samples, which come each second, and for what is written every five.
  const Recorded recorded = RecordAndCheck({TestProgram("busy"), "6500"}, path, {.time_resolution_ns = 10 * kSecond});
  EXPECT_EQ(recorded.launch.exit_status, 0);
  ExpectNothingFiner(path, 10 * kSecond);
  EXPECT_EQ(recorded.trace.resident.size(), 1u);
}

TEST(RecordTime, NorHasAScrubbedOneThatWasFine) {
  TemporaryFolder folder;
  const Recorded recorded = RecordAndCheck({TestProgram("busy"), "2500"}, folder.File("fine.tape"));
  ExpectNothingFiner(folder.File("fine.tape"), 10'000'000);
  EXPECT_GE(recorded.trace.resident.size(), 2u);
  for (const int seconds : {1, 10}) {
    const std::string path = folder.File(absl::StrCat("scrubbed", seconds, ".tape"));
    const ShellResult scrubbed = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " scrub ", folder.File("fine.tape"), " --time-resolution ", seconds, "s -o ", path));
    ASSERT_EQ(scrubbed.status, 0) << scrubbed.output;
    ExpectNothingFiner(path, static_cast<std::uint64_t>(seconds) * kSecond);
  }
}

}  // namespace
}  // namespace heaptape
