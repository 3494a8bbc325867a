// The traces that lie in the repository read back whole.

#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "traces/trace_reader.h"

namespace heaptape {
namespace {

TEST(SampleTraces, AreWholeAndSmall) {
  std::uintmax_t all_bytes = 0;
  int traces = 0;
  for (const auto& entry : std::filesystem::directory_iterator(HEAPTAPE_SAMPLES)) {
    if (entry.path().extension() != ".tape") continue;
    ++traces;
    all_bytes += entry.file_size();
    SCOPED_TRACE(entry.path().string());
    const auto reader = TraceReader::Open(entry.path().string());
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_TRUE((*reader)->summary().complete);
    std::uint64_t events = 0;
    while (true) {
      const auto block = (*reader)->Next();
      ASSERT_TRUE(block.ok()) << block.status();
      if (block->events.empty()) break;
      events += block->events.size();
    }
    EXPECT_EQ(events, (*reader)->summary().event_count);
    EXPECT_THAT((*reader)->damage(), ::testing::IsEmpty());
    EXPECT_EQ((*reader)->info().program, "tor");
    const auto resident = (*reader)->ReadResident();
    ASSERT_TRUE(resident.ok());
    EXPECT_FALSE(resident->empty());
  }
  EXPECT_GE(traces, 1);
  EXPECT_LE(all_bytes, 20u << 20);  // what a clone has to fetch
}

}  // namespace
}  // namespace heaptape
