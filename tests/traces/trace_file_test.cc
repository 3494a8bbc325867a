// Writes traces, damages them, and reads them back.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "tests/traces/random_program.h"
#include "traces/digest.h"
#include "traces/format.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"

namespace heaptape {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class TraceFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "trace_file_test.XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = folder_ + "/a.tape";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static std::vector<std::uint8_t> Load(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return std::vector<std::uint8_t>(std::istreambuf_iterator<char>(in), {});
  }

  std::unique_ptr<TraceWriter> Create(const TraceWriterOptions& options = {}, const std::string& name = "a.tape") {
    TraceInfo info;
    info.program = "story";
    info.c_library = "glibc 2.36";
    info.cpu_count = 4;
    info.time_resolution_ns = 1'000'000;
    TraceWriterOptions replacing = options;
    replacing.replace = true;
    auto writer = TraceWriter::Create(folder_ + "/" + name, info, replacing);
    EXPECT_TRUE(writer.ok()) << writer.status();
    return *std::move(writer);
  }

  // A small file has many of both.
  static TraceWriterOptions SmallBlocks(std::uint32_t block_events, std::uint64_t checkpoint_events) {
    TraceWriterOptions options;
    options.block_events = block_events;
    options.checkpoint_interval_events = options.checkpoint_limit_events = checkpoint_events;
    return options;
  }

  // What a program with few live objects does, in a.tape.
  std::vector<Event> WriteRandom(std::uint64_t events, const TraceWriterOptions& options) {
    auto writer = Create(options);
    RandomProgram program(*writer, 1'000'000);
    program.Run(events, 0, 20);
    EXPECT_TRUE(writer->Finish().ok());
    return program.events();
  }

  // All events; `restored` ones go to `restored_`.
  std::vector<Event> ReadAll(TraceReader& reader) {
    std::vector<Event> events;
    restored_.clear();
    while (true) {
      auto block = reader.Next();
      EXPECT_TRUE(block.ok()) << block.status();
      if (!block.ok() || block->events.empty()) return events;
      auto& into = block->restored ? restored_ : events;
      if (!block->restored && restored_.empty()) {
        EXPECT_EQ(block->first_event, events.size());
      }
      into.insert(into.end(), block->events.begin(), block->events.end());
    }
  }

  std::string folder_, path_;
  std::vector<Event> restored_;
};

TEST_F(TraceFileTest, EveryEventComesBack) {
  auto writer = Create();
  RandomProgram program(*writer, 1'000'000);
  program.Run(300'000);
  EXPECT_EQ(writer->event_count(), program.events().size());
  EXPECT_EQ(writer->live_objects(), program.live().size());
  EXPECT_FALSE(std::filesystem::exists(path_));
  ASSERT_TRUE(writer->Finish().ok()) << writer->status();
  EXPECT_FALSE(std::filesystem::exists(path_ + ".part"));
  EXPECT_EQ(std::filesystem::file_size(path_), writer->bytes_written());

  auto reader = TraceReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  const TraceSummary& summary = (*reader)->summary();
  EXPECT_TRUE(summary.complete);
  EXPECT_EQ(summary.event_count, program.events().size());
  EXPECT_EQ(summary.object_count, writer->object_count());
  EXPECT_EQ(summary.lost_events, 0u);
  EXPECT_EQ((*reader)->info().program, "story");
  EXPECT_EQ((*reader)->info().cpu_count, 4u);
  EXPECT_EQ(ReadAll(**reader), program.events());
  EXPECT_THAT((*reader)->damage(), IsEmpty());
  EXPECT_THAT(restored_, IsEmpty());
  EXPECT_EQ(*(*reader)->ReadTouched(), program.touched());
  EXPECT_EQ(*(*reader)->ReadResident(), program.resident());
}

TEST_F(TraceFileTest, StacksAndModulesComeBack) {
  auto writer = Create();
  const std::vector<Module> modules = {{"tor", "abc"}, {"libc.so.6", "def"}};
  for (const Module& module : modules) writer->AddModule(module);
  const std::vector<StackSample> stacks = {{0, {{0, 10}, {1, 20}}}, {5, {{1, 20}}}, {9, {{0, 10}, {1, 20}}}};
  for (const StackSample& stack : stacks) {
    writer->Stack(stack);
    (void)writer->Flush();
  }
  ASSERT_TRUE(writer->Finish().ok());
  auto reader = TraceReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(*(*reader)->ReadModules(), modules);
  EXPECT_EQ(*(*reader)->ReadStacks(), stacks);
}

TEST_F(TraceFileTest, UnmatchedFreesComeBackUpToTheLastFlush) {
  auto writer = Create();
  writer->AddUnmatchedFrees({});
  writer->Allocate(Op::kMalloc, 24, 0, 0);
  ASSERT_TRUE(writer->Flush().ok());
  EXPECT_EQ((*TraceReader::Open(path_ + ".part"))->summary().unmatched_frees, UnmatchedFrees());
  writer->AddUnmatchedFrees({.unknown = 200, .missed = 2});
  writer->AddUnmatchedFrees({.unknown = 100, .missed = 1});
  writer->Allocate(Op::kMalloc, 24, 0, 0);
  ASSERT_TRUE(writer->Flush().ok());
  const UnmatchedFrees flushed = {.unknown = 300, .missed = 3};
  EXPECT_EQ((*TraceReader::Open(path_ + ".part"))->summary().unmatched_frees, flushed);
  // Of what no event follows the index tells.
  writer->AddUnmatchedFrees({.unknown = 1, .missed = 0});
  ASSERT_TRUE(writer->Finish().ok());
  const UnmatchedFrees finished = {.unknown = 301, .missed = 3};
  auto reader = TraceReader::Open(path_);
  EXPECT_EQ((*reader)->summary().unmatched_frees, finished);
  EXPECT_TRUE((*reader)->damage().empty());
  auto other = Create({}, "b.tape");
  other->Allocate(Op::kMalloc, 24, 0, 0);
  ASSERT_TRUE(other->Finish().ok());
  EXPECT_EQ((*TraceReader::Open(folder_ + "/b.tape"))->summary().unmatched_frees, std::nullopt) << "nobody counted";
}

TEST_F(TraceFileTest, TheDigestDoesNotDependOnBlocks) {
  std::vector<std::string> digests;
  for (const unsigned block_events : {100u, 65536u}) {
    TraceWriterOptions options;
    options.block_events = block_events;
    options.compression_level = block_events == 100 ? 1 : 9;
    auto writer = Create(options, std::to_string(block_events));
    RandomProgram program(*writer, 1'000'000);
    program.Run(50'000);
    if (block_events == 100) program.Flush();
    ASSERT_TRUE(writer->Finish().ok());
    auto reader = TraceReader::Open(folder_ + "/" + std::to_string(block_events));
    ASSERT_TRUE(reader.ok());
    digests.push_back((*reader)->summary().digest);
  }
  EXPECT_THAT(digests[0], SizeIs(32));
  EXPECT_EQ(digests[0], digests[1]);
}

TEST_F(TraceFileTest, AKilledRecordingReadsUpToItsLastBlock) {
  std::vector<Event> flushed;
  {
    auto writer = Create();
    RandomProgram program(*writer, 1'000'000);
    program.Run(100'000);
    program.Flush();
    flushed = program.events();
    program.Run(1000);
  }  // without Finish()
  EXPECT_FALSE(std::filesystem::exists(path_));
  auto reader = TraceReader::Open(path_ + ".part");
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_FALSE((*reader)->summary().complete);
  EXPECT_EQ((*reader)->summary().event_count, flushed.size());
  EXPECT_EQ(ReadAll(**reader), flushed);
}

TEST_F(TraceFileTest, ACutAtAnyByteLosesOnlyTheLastBlock) {
  TraceWriterOptions options;
  options.block_events = 50;
  auto writer = Create(options);
  RandomProgram program(*writer, 1'000'000);
  program.Run(1000);
  ASSERT_TRUE(writer->Finish().ok());
  const std::vector<std::uint8_t> bytes = Load(path_);
  std::size_t last = 0;
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    auto reader = TraceReader::OpenBuffer(std::span(bytes).first(size), "cut");
    if (!reader.ok()) {
      EXPECT_EQ(last, 0u);
      continue;
    }
    EXPECT_FALSE((*reader)->summary().complete);
    const std::vector<Event> events = ReadAll(**reader);
    ASSERT_GE(events.size(), last);
    ASSERT_EQ(events.size() % 50 == 0 || events.size() == program.events().size(), true);
    ASSERT_TRUE(std::equal(events.begin(), events.end(), program.events().begin()));
    last = events.size();
  }
  EXPECT_EQ(last, program.events().size());
}

// What is left when one range is missing.
bool IsAllButOneRange(const std::vector<Event>& part, const std::vector<Event>& whole) {
  const auto prefix = static_cast<std::size_t>(
      std::mismatch(part.begin(), part.end(), whole.begin(), whole.end()).first - part.begin());
  return part.size() <= whole.size() && std::equal(part.begin() + static_cast<std::ptrdiff_t>(prefix), part.end(),
                                                   whole.end() - static_cast<std::ptrdiff_t>(part.size() - prefix));
}

TEST_F(TraceFileTest, AnyFlippedBitIsRepairedByParity) {
  TraceWriterOptions options;
  options.block_events = 100;
  auto writer = Create(options);
  RandomProgram program(*writer, 1'000'000);
  program.Run(1500, 0, 20);
  ASSERT_TRUE(writer->Finish().ok());
  std::vector<std::uint8_t> bytes = Load(path_);
  std::uint64_t repaired = 0;
  const std::size_t step = std::getenv("HEAPTAPE_LONG_TESTS") != nullptr ? 1 : 5;  // every bit, or one of every byte
  for (std::size_t bit = 0; bit < 8 * bytes.size(); bit += step) {
    const std::size_t at = bit / 8;
    const auto mask = static_cast<std::uint8_t>(1u << bit % 8);
    bytes[at] ^= mask;
    auto reader = TraceReader::OpenBuffer(bytes, "flipped");
    // An unknown version is refused.
    ASSERT_TRUE(reader.ok() || (at >= 8 && at < 10)) << bit << reader.status();
    if (reader.ok()) {
      // A higher minor version and the unused bytes of the head mean nothing.
      ASSERT_TRUE(!(*reader)->damage().empty() || (at >= 8 && at < 16)) << bit;
      ASSERT_EQ((*reader)->summary().damaged_events, 0u) << bit;
      if ((*reader)->summary().repaired_blocks != 0) {
        ASSERT_EQ((*reader)->loss(), "") << bit;
      }
      ASSERT_TRUE(ReadAll(**reader) == program.events()) << bit;
      ASSERT_THAT(restored_, IsEmpty());
      repaired += (*reader)->summary().repaired_blocks;
    }
    bytes[at] ^= mask;
  }
  EXPECT_GT(repaired, bytes.size());
}

TEST_F(TraceFileTest, ARepairedTraceHasTheDigestOfTheWholeOne) {
  TraceWriterOptions options;
  options.block_events = 100;
  auto writer = Create(options);
  RandomProgram program(*writer, 1'000'000);
  program.Run(5000);
  ASSERT_TRUE(writer->Finish().ok());
  std::vector<std::uint8_t> bytes = Load(path_);
  auto whole = TraceReader::OpenBuffer(bytes, "whole");
  ASSERT_TRUE(whole.ok());
  // A few bytes in the middle of a block's payload.
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 3), 8, std::uint8_t{0});
  auto damaged = TraceReader::OpenBuffer(bytes, "damaged");
  ASSERT_TRUE(damaged.ok());
  EXPECT_EQ((*damaged)->summary().repaired_blocks, 1u);
  EXPECT_EQ((*damaged)->summary().digest, (*whole)->summary().digest);
  EXPECT_THAT((*damaged)->damage(), testing::ElementsAre(HasSubstr("repaired by parity: nothing is lost")));
  EXPECT_EQ((*damaged)->loss(), "");
  EXPECT_TRUE(ReadAll(**damaged) == program.events());
  EXPECT_EQ(*(*damaged)->ReadTouched(), program.touched());
  EXPECT_EQ(*(*damaged)->ReadResident(), program.resident());
}

TEST_F(TraceFileTest, WithoutParityAFlippedBitLosesUpToTheNextCheckpoint) {
  TraceWriterOptions options = SmallBlocks(100, 300);
  options.parity = false;
  const std::vector<Event> written = WriteRandom(30'000, options);
  std::vector<std::uint8_t> bytes = Load(path_);
  auto whole = TraceReader::OpenBuffer(bytes, "whole");
  ASSERT_TRUE(whole.ok());
  ASSERT_GT((*whole)->summary().checkpoint_count, 50u);
  for (std::size_t at = 16; at < bytes.size(); at += 97) {
    bytes[at] ^= static_cast<std::uint8_t>(1u << at % 8);
    auto reader = TraceReader::OpenBuffer(bytes, "flipped");
    ASSERT_TRUE(reader.ok()) << at << reader.status();
    EXPECT_THAT((*reader)->damage(), testing::Not(IsEmpty())) << at;
    const std::uint64_t lost = (*reader)->summary().lost_events;
    const std::vector<Event> events = ReadAll(**reader);
    ASSERT_EQ(events.size() + lost, written.size()) << at;
    ASSERT_LE(lost, 500u) << at;
    ASSERT_TRUE(IsAllButOneRange(events, written)) << at;
    if (lost != 0) {
      EXPECT_NE((*reader)->summary().digest, (*whole)->summary().digest);
    }
    bytes[at] ^= static_cast<std::uint8_t>(1u << at % 8);
  }
}

TEST_F(TraceFileTest, TwoDamagedBlocksLoseUpToTheNextCheckpoint) {
  const std::vector<Event> written = WriteRandom(20'000, SmallBlocks(100, 1000));
  std::vector<std::uint8_t> bytes = Load(path_);
  // Longer than any block: at least two are hit.
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 2), 1500, std::uint8_t{0x55});
  auto reader = TraceReader::OpenBuffer(bytes, "damaged");
  ASSERT_TRUE(reader.ok());
  const std::uint64_t lost = (*reader)->summary().damaged_events;
  EXPECT_GT(lost, 100u);
  EXPECT_LE(lost, 3000u);
  EXPECT_THAT((*reader)->damage(), testing::Contains((*reader)->loss()));
  const std::vector<Event> events = ReadAll(**reader);
  EXPECT_EQ(events.size() + lost, written.size());
  EXPECT_TRUE(IsAllButOneRange(events, written));
}

// As a tool that copies a file without its unreadable sectors may leave it: every block that is there is whole.
TEST_F(TraceFileTest, BlocksThatAreNotThereAreNamed) {
  const std::vector<Event> written = WriteRandom(20'000, SmallBlocks(100, 1000));
  const std::vector<std::uint8_t> bytes = Load(path_);
  std::vector<std::pair<std::size_t, std::size_t>> blocks;  // of events: place, bytes
  format::BlockHeader header;
  for (std::size_t at = format::kFileHeadBytes; format::ParseHeader(std::span(bytes).subspan(at), header); at += header.block_bytes()) {
    if (header.kind == format::BlockKind::kEvents && header.fields.event_count > 0) blocks.emplace_back(at, header.block_bytes());
  }
  ASSERT_GT(blocks.size(), 100u);
  for (const std::size_t taken : {std::size_t{0}, blocks.size() / 2, blocks.size() - 1}) {
    std::vector<std::uint8_t> rest = bytes;
    const auto from = rest.begin() + static_cast<std::ptrdiff_t>(blocks[taken].first);
    rest.erase(from, from + static_cast<std::ptrdiff_t>(blocks[taken].second));
    auto reader = TraceReader::OpenBuffer(rest, "rest");
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_THAT((*reader)->damage(), testing::Contains(HasSubstr("events"))) << taken;
    EXPECT_THAT((*reader)->damage(), testing::Contains(HasSubstr("missing"))) << taken;
    EXPECT_THAT((*reader)->loss(), HasSubstr("missing")) << taken;
    const std::vector<Event> events = ReadAll(**reader);
    EXPECT_EQ(events.size() + (*reader)->summary().damaged_events, written.size()) << taken;
    EXPECT_TRUE(IsAllButOneRange(events, written)) << taken;
  }
}

TEST_F(TraceFileTest, CheckpointsComeHoweverManyObjectsLive) {
  TraceWriterOptions options;
  options.block_events = 1000;
  options.checkpoint_interval_events = 2000;
  options.checkpoint_limit_events = 10'000;
  options.checkpoint_share = 0.001;  // never worth it
  auto writer = Create(options);
  RandomProgram program(*writer, 1'000'000);
  program.Run(55'000, 5000, 6000);
  ASSERT_TRUE(writer->Finish().ok());
  auto reader = TraceReader::Open(path_);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ((*reader)->summary().checkpoint_count, 5u);
  EXPECT_TRUE(ReadAll(**reader) == program.events());
}

TEST_F(TraceFileTest, NoCheckpointComesWhereTheKnownEndIsNear) {
  const auto checkpoints = [this](std::uint64_t expected_events) -> std::uint64_t {
    TraceWriterOptions options = SmallBlocks(100, 1000);
    options.expected_events = expected_events;
    const std::vector<Event> written = WriteRandom(3500, options);
    auto reader = TraceReader::Open(path_);
    if (!reader.ok()) return ~0u;
    EXPECT_TRUE(ReadAll(**reader) == written);
    return (*reader)->summary().checkpoint_count;
  };
  const std::uint64_t unknown = checkpoints(0);
  EXPECT_GE(unknown, 3u);
  // The last one would have less than an interval behind it.
  EXPECT_EQ(checkpoints(1000 * unknown + 500), unknown - 1);
  EXPECT_EQ(checkpoints(1500), 0u);
}

TEST_F(TraceFileTest, ReadingStartsAtACheckpoint) {
  const std::vector<Event> written = WriteRandom(60'000, SmallBlocks(1000, 3000));
  auto reader = TraceReader::Open(path_);
  ASSERT_TRUE(reader.ok());
  ASSERT_TRUE((*reader)->Seek(50'000).ok());
  auto restored = (*reader)->Next();
  ASSERT_TRUE(restored.ok());
  ASSERT_TRUE(restored->restored);
  const std::uint64_t from = restored->first_event;
  EXPECT_LE(from, 50'000u);
  EXPECT_GT(from, 30'000u);
  // The same objects are alive as a reader finds who came from the start.
  std::vector<std::pair<std::uint32_t, std::uint64_t>> expected, found;  // slot, size
  const auto apply = [](const Event& event, auto& live) {
    if (StartsObject(event)) live.emplace_back(event.slot, event.size);
    for (auto at = live.begin(); at != live.end(); ++at) {
      if (at->first != event.slot) continue;
      if (event.op == Op::kFree) live.erase(at);
      else if ((event.op == Op::kRealloc || event.op == Op::kReallocArray) && !event.failed()) at->second = event.size;
      break;
    }
  };
  for (std::uint64_t i = 0; i < from; ++i) apply(written[i], expected);
  for (const Event& event : restored->events) apply(event, found);
  EXPECT_EQ(found, expected);
  std::uint64_t at = from;
  while (true) {
    auto block = (*reader)->Next();
    ASSERT_TRUE(block.ok());
    if (block->events.empty()) break;
    ASSERT_EQ(block->first_event, at);
    for (const Event& event : block->events) ASSERT_EQ(event, written[at++]);
  }
  EXPECT_EQ(at, written.size());
}

TEST_F(TraceFileTest, ASizeLimitEndsTheTraceCleanly) {
  TraceWriterOptions options;
  options.block_events = 5000;
  options.file_size_limit_bytes = 100'000;
  auto writer = Create(options);
  RandomProgram program(*writer, 1'000'000);
  program.Run(400'000);
  EXPECT_TRUE(absl::IsResourceExhausted(writer->status()));
  EXPECT_TRUE(absl::IsResourceExhausted(writer->Finish()));
  EXPECT_LE(std::filesystem::file_size(path_), 100'000u);
  const std::uint64_t written = writer->event_count();
  auto reader = TraceReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE((*reader)->summary().complete);
  EXPECT_TRUE((*reader)->summary().ended_at_limit);
  const std::vector<Event> events = ReadAll(**reader);
  EXPECT_GT(events.size(), 0u);
  EXPECT_EQ(written, events.size()) << "not those that found no place";
  EXPECT_TRUE(std::equal(events.begin(), events.end(), program.events().begin()));
  EXPECT_THAT((*reader)->damage(), IsEmpty());
}

TEST_F(TraceFileTest, OtherFilesAreRefused) {
  EXPECT_TRUE(absl::IsNotFound(TraceReader::Open(folder_ + "/none").status()));
  const std::string text = "#!/bin/sh\necho this is no trace at all, but it is long enough to be one\n";
  const auto status =
      TraceReader::OpenBuffer({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}, "run.sh").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("run.sh: not a heaptape trace"));
}

}  // namespace
}  // namespace heaptape
