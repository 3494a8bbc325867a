// What bounds the memory that a trace can make its reader take.

#include "traces/memory_limit.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/temporary_trace.h"
#include "traces/dump_text.h"
#include "traces/format.h"
#include "traces/huge_table.h"
#include "traces/statistics.h"

namespace heaptape {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::uint64_t kMiB = 1 << 20;

std::uint64_t Available(std::map<std::string, std::string> files) {
  return AvailableMemory([&files](const std::string& path) { return files[path]; });
}

TEST(MemoryLimit, IsWhatTheMachineOrAControlGroupLeaves) {
  const std::string meminfo = "MemTotal:       8000 kB\nMemFree:         100 kB\nMemAvailable:   4000 kB\n";
  EXPECT_EQ(Available({{"/proc/meminfo", meminfo}}), 4000u * 1024);
  // Version 2: the least of a group and those it lies in; file pages can be taken back.
  std::map<std::string, std::string> files = {{"/proc/meminfo", meminfo},
                                              {"/proc/self/cgroup", "0::/user.slice/app.scope\n"},
                                              {"/sys/fs/cgroup/user.slice/app.scope/memory.max", "max\n"},
                                              {"/sys/fs/cgroup/user.slice/memory.max", "1000000\n"},
                                              {"/sys/fs/cgroup/user.slice/memory.current", "500000\n"},
                                              {"/sys/fs/cgroup/user.slice/memory.stat", "anon 200000\ninactive_file 200000\nactive_file 100000\n"}};
  EXPECT_EQ(Available(files), 800'000u);
  files["/sys/fs/cgroup/user.slice/app.scope/memory.max"] = "300000\n";
  EXPECT_EQ(Available(files), 300'000u);
  files["/sys/fs/cgroup/user.slice/memory.current"] = "5000000\n";  // more than it may
  EXPECT_EQ(Available(files), 0u);
  // Version 1; in a container the path is the host's and only the top is there.
  files = {{"/proc/meminfo", meminfo},
           {"/proc/self/cgroup", "9:cpu:/docker/1\n4:memory:/docker/1\n0::/\n"},
           {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n"},
           {"/sys/fs/cgroup/memory/memory.usage_in_bytes", "700000\n"},
           {"/sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 100000\ntotal_active_file 0\n"}};
  EXPECT_EQ(Available(files), 1'400'000u);
  EXPECT_GT(DefaultMemoryLimit(), 0u);
  EXPECT_LT(DefaultMemoryLimit(), AvailableMemory());
}

TEST(HugeTable, KeepsWhatItHoldsWhileItGrowsAndBeginsAsZero) {
  HugeTable<std::uint64_t> table;
  for (std::size_t i = 0; i < 3'000'000; ++i) {
    std::uint64_t& element = table.At(i);
    EXPECT_EQ(element, 0u);
    element = i + 1;
  }
  EXPECT_EQ(table.size(), 3'000'000u);
  std::uint64_t wrong = 0;
  for (std::size_t i = 0; i < table.size(); ++i) wrong += table[i] != i + 1;
  EXPECT_EQ(wrong, 0u);
  const HugeTable<std::uint64_t> copy = table.Copy();
  table[7] = 0;
  EXPECT_EQ(copy[7], 8u);
  EXPECT_EQ(copy.size(), table.size());
  HugeTable<std::uint64_t> moved = std::move(table);
  EXPECT_EQ(moved[2'999'999], 3'000'000u);
  moved = HugeTable<std::uint64_t>();
  EXPECT_EQ(moved.size(), 0u);
  EXPECT_EQ(moved.begin(), moved.end());
}

// 300,000 live objects in some KiB.
class MemoryLimitTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kObjects = 300'000;

  MemoryLimitTest() {
    for (std::uint64_t i = 0; i < kObjects; ++i) trace_.writer().Allocate(Op::kMalloc, 16, 0, 0);
    (void)trace_.Open();
  }

  std::string Bytes() const {
    std::ifstream file(trace_.path(), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }

  TemporaryTrace trace_;
};

TEST_F(MemoryLimitTest, ATraceThatNeedsMoreIsRefusedAtOnceByNameAndNeed) {
  const auto refused = TraceReader::Open(trace_.path(), {.memory_limit_bytes = 10 * kMiB, .bytes_per_live_object = 32});
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(StartsWith(trace_.path()), HasSubstr("needs 11.4 MiB of memory for 300000 live objects"), HasSubstr("limit of 10.0 MiB"),
                    HasSubstr("--memory-limit")));
  const auto taken = TraceReader::Open(trace_.path(), {.memory_limit_bytes = 12 * kMiB, .bytes_per_live_object = 32});
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_TRUE(GatherStatistics(**taken).ok());
}

TEST_F(MemoryLimitTest, ATraceThatSaysItHasFewerIsStoppedWhileItIsRead) {
  // The fields of each block that has them: the ninth is the most objects alive.
  const std::string file = Bytes();
  std::vector<std::uint8_t> bytes(file.begin(), file.end()), lying;
  lying.assign(bytes.begin(), bytes.begin() + format::kFileHeadBytes);
  for (std::size_t at = format::kFileHeadBytes; at + format::kTrailerBytes < bytes.size();) {
    format::BlockHeader header;
    ASSERT_TRUE(format::ParseHeader(std::span(bytes).subspan(at), header));
    const auto payload = std::span(bytes).subspan(at + header.header_bytes, header.payload_bytes);
    header.fields.peak_live_objects = 1;
    if (header.kind != format::BlockKind::kParity) {
      const std::vector<std::uint8_t> head = format::EncodeHeader(header.kind, header.flags, header.fields, payload);
      lying.insert(lying.end(), head.begin(), head.end());
      lying.insert(lying.end(), payload.begin(), payload.end());
    }
    at += header.block_bytes();
  }
  const auto reader = TraceReader::OpenBuffer(lying, "lying.tape", {.memory_limit_bytes = 4 * kMiB, .bytes_per_live_object = 32});
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->summary().peak_live_objects, 1u);
  const auto counted = GatherStatistics(**reader);
  EXPECT_TRUE(absl::IsResourceExhausted(counted.status())) << counted.status();
  EXPECT_THAT(std::string(counted.status().message()), AllOf(StartsWith("lying.tape: needs "), HasSubstr("more than the limit of 4.0 MiB")));
}

TEST_F(MemoryLimitTest, DumpedTextIsBoundedLikeTheTrace) {
  std::string text;
  auto reader = TraceReader::Open(trace_.path());
  ASSERT_TRUE(DumpTrace(**reader, DumpFormat::kText, [&text](std::string_view piece) { return text.append(piece), true; }).ok());
  const auto load = [&text](std::uint64_t limit) {
    std::istringstream lines(text);
    TemporaryTrace loaded;
    return LoadTrace([&](std::string& line) { return static_cast<bool>(std::getline(lines, line)); },
                     [&](const TraceInfo&) -> absl::StatusOr<TraceWriter*> { return &loaded.writer(); }, "guard.txt", limit);
  };
  EXPECT_TRUE(load(kObjects * kLoadBytes).ok());
  const absl::Status refused = load(kObjects * kLoadBytes - 1);
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_THAT(std::string(refused.message()), StartsWith("guard.txt: needs "));
}

TEST(MemoryLimit, StacksThatAreNamedAgainAndAgainAreCounted) {
  TemporaryTrace trace;
  StackSample sample;
  for (std::uint32_t i = 0; i < 1000; ++i) sample.frames.push_back({0, i});
  trace.writer().AddModule({"program", ""});
  for (int i = 0; i < 10'000; ++i) {
    sample.object = static_cast<std::uint64_t>(i);
    trace.writer().Allocate(Op::kMalloc, 16, 0, 0);
    trace.writer().Stack(sample);
  }
  (void)trace.Open();
  EXPECT_LT(std::filesystem::file_size(trace.path()), 200'000u);
  auto reader = TraceReader::Open(trace.path(), {.memory_limit_bytes = 64 * kMiB});
  ASSERT_TRUE(reader.ok());
  const auto stacks = (*reader)->ReadStacks();  // 160 MB
  EXPECT_TRUE(absl::IsResourceExhausted(stacks.status())) << stacks.status();
  EXPECT_THAT(std::string(stacks.status().message()), HasSubstr("and what is recorded beside them"));
  EXPECT_TRUE((*reader)->ReadModules().ok());
  EXPECT_TRUE((*reader)->Next().ok());
}

// Anonymous memory of this process, in bytes.
std::uint64_t OwnBytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t size = 0, resident = 0, shared = 0;
  statm >> size >> resident >> shared;
  return (resident - shared) * 4096;
}

// As FORMAT.md and traces/README.md state: growing takes no second table.
TEST(MemoryLimit, ALiveObjectTakesItsEightBytesAndNoMore) {
  constexpr std::uint32_t kObjects = 8'000'000;
  TemporaryTrace trace;
  for (std::uint32_t i = 0; i < kObjects; ++i) trace.writer().Allocate(Op::kMalloc, 16, 0, 0);
  const auto reader = trace.Open();
  const std::uint64_t before = OwnBytes();
  std::uint64_t most = 0;
  for (auto block = reader->Next(); block.ok() && !block->events.empty(); block = reader->Next()) most = std::max(most, OwnBytes() - before);
  EXPECT_GE(most, 8u * kObjects);
  EXPECT_LE(most, 8u * kObjects + 16 * kMiB);
}

}  // namespace
}  // namespace heaptape
