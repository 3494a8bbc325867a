// The traces that lie in the repository read back whole, from the middle, and around damage.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "traces/format.h"
#include "traces/trace_reader.h"

namespace heaptape {
namespace {

// All events from where the reader stands, but those that restore what is alive.
std::vector<Event> ReadOn(TraceReader& reader, std::uint64_t* first = nullptr) {
  std::vector<Event> events;
  while (true) {
    const auto block = reader.Next();
    EXPECT_TRUE(block.ok()) << block.status();
    if (!block.ok() || block->events.empty()) return events;
    if (block->restored) continue;
    if (events.empty() && first != nullptr) *first = block->first_event;
    events.insert(events.end(), block->events.begin(), block->events.end());
  }
}

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

TEST(SampleTraces, AreEnteredInTheMiddleAndLoseOnlyWhatIsDamaged) {
  const std::string path = std::string(HEAPTAPE_SAMPLES) + "/guard-small.tape";
  std::ifstream in(path, std::ios::binary);
  std::vector<std::uint8_t> bytes(std::istreambuf_iterator<char>(in), {});
  const auto whole = TraceReader::OpenBuffer(bytes, "whole");
  ASSERT_TRUE(whole.ok()) << whole.status();
  const std::vector<Event> events = ReadOn(**whole);

  ASSERT_TRUE((*whole)->Seek(events.size() / 2).ok());
  std::uint64_t first = 0;
  const std::vector<Event> rest = ReadOn(**whole, &first);
  EXPECT_GT(first, events.size() / 4);
  EXPECT_LE(first, events.size() / 2);
  ASSERT_EQ(first + rest.size(), events.size());
  EXPECT_TRUE(std::equal(rest.begin(), rest.end(), events.end() - static_cast<std::ptrdiff_t>(rest.size())));

  // The third block of events and the one behind it: more than parity repairs.
  std::uint64_t at = format::kFileHeadBytes, seen = 0;
  format::BlockHeader header;
  while (seen < 4 && format::ParseHeader(std::span(bytes).subspan(at), header)) {
    if (header.kind == format::BlockKind::kEvents && ++seen >= 3) bytes[at + header.header_bytes + header.payload_bytes / 2] ^= 1;
    at += header.block_bytes();
  }
  const auto damaged = TraceReader::OpenBuffer(bytes, "damaged");
  ASSERT_TRUE(damaged.ok()) << damaged.status();
  const std::uint64_t lost = (*damaged)->summary().damaged_events;
  EXPECT_GT(lost, 0u);
  EXPECT_LT(lost, events.size() / 2);
  const std::vector<Event> left = ReadOn(**damaged);
  ASSERT_EQ(left.size() + lost, events.size());
  const auto gap = std::mismatch(left.begin(), left.end(), events.begin()).first;
  EXPECT_TRUE(std::equal(gap, left.end(), events.end() - (left.end() - gap)));
}

}  // namespace
}  // namespace heaptape
