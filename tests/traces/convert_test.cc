// Samples of other tools' recordings, and traces that go out in their formats and come back.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "tests/traces/random_program.h"
#include "tests/traces/temporary_trace.h"
#include "traces/convert/formats.h"
#include "traces/dump_text.h"

namespace heaptape {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// Hands out a few bytes at a time, so that no reader can rely on more.
ByteSource FromMemory(std::string_view bytes, std::size_t at_once = 1000) {
  return [bytes, at_once](std::span<std::uint8_t> out) mutable {
    const std::size_t count = std::min({out.size(), bytes.size(), at_once});
    std::copy_n(bytes.begin(), count, out.begin());
    bytes.remove_prefix(count);
    return count;
  };
}

struct Imported {
  absl::Status status;
  std::vector<std::string> notes;
};

Imported Import(const ForeignFormat& format, std::string_view bytes, TraceWriter& writer, TraceInfo* info = nullptr) {
  ByteReader in(FromMemory(bytes));
  ImportedProgram program({.time_resolution_ns = 1'000'000}, [&](const TraceInfo& known) {
    if (info != nullptr) *info = known;
    return &writer;
  });
  const absl::Status read = format.read(in, program);
  EXPECT_TRUE(program.Finish().ok());
  return {read, program.notes()};
}

std::string Dump(TraceReader& reader) {
  std::string text;
  EXPECT_TRUE(DumpTrace(reader, DumpFormat::kText, [&](std::string_view piece) {
                text += piece;
                return true;
              }).ok());
  return text;
}

struct Sample {
  const char* file;
  const char* format;
};

constexpr Sample kSamples[] = {{"story.heaptrack-raw.zst", "heaptrack"},
                               {"story.heaptrack.zst", "heaptrack"},
                               {"story.android.txt", "android"},
                               {"story.glibc", "glibc"},
                               {"story.replay", "malloc-trace-replay"}};

const std::filesystem::path kFolder = HEAPTAPE_CONVERT_GOLDEN_DIR;

TEST(ConvertSampleTest, EverySampleIsRecognisedAndReadAsItsDumpSays) {
  for (const Sample& sample : kSamples) {
    const std::string bytes = ReadFile(kFolder / sample.file);
    ByteReader head_reader(FromMemory(bytes));
    const auto head = head_reader.Head(kForeignHeadBytes);
    for (const ForeignFormat* format : ForeignFormats())
      EXPECT_EQ(format->recognise(head), std::string(format->name) == sample.format) << sample.file << " " << format->name;
    TemporaryTrace trace;
    TraceInfo info;
    const Imported imported = Import(*FindForeignFormat(sample.format), bytes, trace.writer(), &info);
    EXPECT_TRUE(imported.status.ok()) << sample.file << imported.status;
    const auto reader = trace.Open();
    std::string text = "#program " + info.program + "\n" + Dump(*reader);
    for (const std::string& note : imported.notes) text += "#note " + note + "\n";
    const std::filesystem::path golden = kFolder / (std::string(sample.file) + ".dump");
    if (std::getenv("HEAPTAPE_UPDATE_GOLDEN") != nullptr) std::ofstream(golden, std::ios::binary) << text;
    EXPECT_EQ(text, ReadFile(golden)) << sample.file;
  }
}

TEST(ConvertSampleTest, ASampleCutAtAnyByteOrWithAnyBitFlippedIsReadOrRefused) {
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  for (const Sample& sample : kSamples) {
    const ForeignFormat& format = *FindForeignFormat(sample.format);
    const std::string whole = ReadFile(kFolder / sample.file);
    const auto read = [&](std::string_view bytes) {
      auto writer = TraceWriter::CreateOnDescriptor(dup(null), {}, {.compression_level = 1, .window_log = 10});
      ASSERT_TRUE(writer.ok());
      const Imported imported = Import(format, bytes, **writer);
      EXPECT_TRUE((*writer)->status().ok()) << (*writer)->status();
      EXPECT_TRUE(imported.status.ok() || absl::IsDataLoss(imported.status)) << imported.status;
    };
    for (std::size_t size = 0; size < whole.size(); size += 3) read(std::string_view(whole).substr(0, size));
    for (std::size_t bit = 0; bit < 8 * whole.size(); bit += 13) {
      std::string bytes = whole;
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
      read(bytes);
    }
  }
  close(null);
}

TEST(ConvertSampleTest, ErrorsSayWhere) {
  const auto message = [](const char* format, const std::string& bytes) {
    TemporaryTrace trace;
    return std::string(Import(*FindForeignFormat(format), bytes, trace.writer()).status.message());
  };
  EXPECT_EQ(message("android", "1: malloc 0x10 5\n1: mallow 0x20 5\n"),
            "line 2: expected \"TID: CALL ADDRESS ...\", found \"1: mallow 0x20 5\"");
  EXPECT_EQ(message("heaptrack", "v 10400 9\n"), "line 1: this version of heaptrack's data is not known, found \"v 10400 9\"");
  EXPECT_THAT(message("heaptrack", "v 10400 3\n+ 5 0\n"), HasSubstr("line 2: expected an address"));
  std::string record(64, '\0');
  record[4] = 77;
  EXPECT_EQ(message("glibc", std::string(64, '\0') + record), "record 2: unknown type 77");
  EXPECT_EQ(message("glibc", std::string(70, '\0')), "ends with 6 bytes that are no whole record of 64");
  EXPECT_EQ(message("malloc-trace-replay", std::string(24, '\x09')), "record 1: unknown type 9");
  EXPECT_EQ(message("android", std::string((1u << 20) + 1, ' ')), "line 1 is longer than 1048576 bytes");
  // A compressed stream that ends too early.
  const std::string packed = ReadFile(kFolder / "story.heaptrack.zst");
  EXPECT_EQ(message("heaptrack", packed.substr(0, packed.size() - 5)), "the compressed data end too early");
}

TEST(ImportedProgramTest, ARecordingThatNeedsMoreThanTheLimitIsRefusedByName) {
  TemporaryTrace trace;
  ImportedProgram program({}, [&](const TraceInfo&) { return &trace.writer(); }, "phone.txt", 100 * kImportBytes);
  for (std::uint64_t i = 1; i <= 100; ++i) program.Allocate(Op::kMalloc, i, 16, 0, 0);
  EXPECT_TRUE(program.status().ok()) << program.status();
  program.Free(1, 0);
  program.Allocate(Op::kMalloc, 1, 16, 0, 0);
  EXPECT_TRUE(program.status().ok()) << program.status();
  program.Allocate(Op::kMalloc, 101, 16, 0, 0);
  EXPECT_TRUE(absl::IsResourceExhausted(program.Finish())) << program.status();
  EXPECT_EQ(std::string(program.status().message()).rfind("phone.txt: needs ", 0), 0u) << program.status();
}

TEST(ImportedProgramTest, ContradictionsAreSetRightAndCounted) {
  TemporaryTrace trace;
  ImportedProgram program({}, [&](const TraceInfo&) { return &trace.writer(); });
  program.Allocate(Op::kMalloc, 0x10, 1, 0, 5);
  program.Allocate(Op::kMalloc, 0x10, 2, 0, 5);   // its free is missing
  program.Free(0x999, 5);                         // of something older than the recording
  program.Reallocate(0x888, 0x20, 3, 6);          // likewise
  program.Reallocate(0x20, 0x10, 4, 6);           // moves to where another one still is
  program.Free(0x10, 6);
  program.EndThread(5);
  program.Allocate(Op::kMalloc, 0x30, 5, 0, 9);   // takes the number of the thread that has ended
  EXPECT_TRUE(program.Finish().ok());
  EXPECT_THAT(program.notes(),
              ElementsAre("1 frees of objects that were never allocated were left out",
                          "1 reallocs of objects that were never allocated became allocations",
                          "2 objects were freed where their address was given out again"));
  const std::vector<Event> expected = {{Op::kMalloc, 0, 0, 0, 1},
                                       {Op::kFree, 0, 0, 0, 0},
                                       {Op::kMalloc, 0, 0, 0, 2},
                                       {Op::kThreadStart, 0, 1, 0, 0},
                                       {Op::kRealloc, Event::kFresh, 1, 1, 3},
                                       {Op::kFree, 0, 1, 0, 0},
                                       {Op::kRealloc, 0, 1, 1, 4},
                                       {Op::kFree, 0, 1, 1, 0},
                                       {Op::kThreadEnd, 0, 0, 0, 0},
                                       {Op::kThreadStart, 0, 0, 0, 0},
                                       {Op::kMalloc, 0, 0, 1, 5}};
  EXPECT_EQ(trace.Events(), expected);
}

// --- there and back ---

// A call with all that is not a matter of numbering: objects and threads are numbered as they come.
struct Call {
  Op op;
  bool failed;
  std::int64_t object;
  std::uint64_t size;
  std::size_t alignment;
  std::size_t thread;
  std::uint64_t time_ns;

  friend bool operator==(const Call&, const Call&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Call& call) {
    return out << OpName(call.op) << (call.failed ? " failed" : "") << " object " << call.object << " size " << call.size
               << " alignment " << call.alignment << " thread " << call.thread << " time " << call.time_ns;
  }
};

struct Holds {
  bool time = true, threads = true, thread_ends = true, failures = true;
  // What stands there for a call; a realloc that is split becomes a free and a malloc.
  std::map<Op, Op> stands_for;
  bool splits_realloc = false, fresh_realloc = true, alignment = true;
};

std::vector<Call> CallsOf(const std::vector<Event>& events, const Holds& holds) {
  constexpr std::size_t kPage = 4096;
  std::vector<Call> calls;
  std::map<std::uint32_t, std::int64_t> objects;      // by slot
  std::map<std::uint16_t, std::size_t> threads;
  std::int64_t next_object = 0;
  std::size_t next_thread = 0;
  std::uint64_t time_ns = 0;
  for (const Event& event : events) {
    if (event.op == Op::kTime && holds.time) time_ns = event.size;
    if (event.op == Op::kThreadEnd && holds.thread_ends && threads.contains(event.thread)) {
      calls.push_back({Op::kThreadEnd, false, 0, 0, 0, threads[event.thread], time_ns});
      threads.erase(event.thread);
    }
    if (event.op > Op::kPvalloc || (event.failed() && !holds.failures)) continue;
    Call call{event.op, event.failed(), -1, event.size, event.alignment(), 0, time_ns};
    const auto [thread, is_new] = threads.try_emplace(holds.threads ? event.thread : std::uint16_t{0}, next_thread);
    next_thread += is_new;
    call.thread = thread->second;
    const bool in_place = (call.op == Op::kRealloc || call.op == Op::kReallocArray) && !event.fresh();
    if (!holds.fresh_realloc && event.fresh()) call.op = Op::kMalloc;
    const auto other = holds.stands_for.find(call.op);
    const bool pages = call.op == Op::kValloc || call.op == Op::kPvalloc;
    if (other != holds.stands_for.end()) {
      call.op = other->second;
      if (pages && call.op == Op::kMemalign) call.alignment = kPage;
    }
    if (!holds.alignment) call.alignment = 0;
    if (event.op == Op::kFree || (in_place && event.slot != ~0u)) call.object = objects.at(event.slot);
    if (in_place && holds.splits_realloc) {
      calls.push_back({Op::kFree, false, call.object, 0, 0, call.thread, time_ns});
      call.op = Op::kMalloc;
      call.object = objects[event.slot] = next_object++;
    } else if (StartsObject(event)) {
      call.object = objects[event.slot] = next_object++;
    }
    calls.push_back(call);
  }
  return calls;
}

Holds WhatHolds(const std::string& format) {
  const std::map<Op, Op> aligned = {{Op::kPosixMemalign, Op::kMemalign}, {Op::kAlignedAlloc, Op::kMemalign},
                                    {Op::kValloc, Op::kMemalign}, {Op::kPvalloc, Op::kMemalign}};
  Holds holds;
  if (format == "heaptrack") {
    holds.threads = holds.thread_ends = holds.failures = holds.fresh_realloc = holds.alignment = false;
    holds.splits_realloc = true;
    for (const Op op : {Op::kCalloc, Op::kPosixMemalign, Op::kAlignedAlloc, Op::kMemalign, Op::kValloc, Op::kPvalloc})
      holds.stands_for[op] = Op::kMalloc;
  } else if (format == "glibc") {
    holds.time = holds.thread_ends = false;
    holds.stands_for = {{Op::kAlignedAlloc, Op::kMemalign}, {Op::kReallocArray, Op::kRealloc}};
  } else if (format == "android") {
    holds.stands_for = aligned;
    holds.stands_for[Op::kReallocArray] = Op::kRealloc;
  } else {
    holds.failures = holds.fresh_realloc = false;
    holds.stands_for = aligned;
    holds.stands_for[Op::kReallocArray] = Op::kRealloc;
    holds.stands_for[Op::kCalloc] = Op::kMalloc;
  }
  return holds;
}

TEST(ConvertRoundTripTest, WhatAFormatHoldsComesBack) {
  TemporaryTrace original;
  RandomProgram program(original.writer(), 1'000'000, 7);
  program.Run(30'000);
  for (const ForeignFormat* format : ForeignFormats()) {
    std::string bytes;
    std::vector<std::string> losses;
    const auto reader = original.Open();
    ASSERT_TRUE(format->write(*reader, [&](std::string_view piece) {
      bytes += piece;
      return true;
    }, losses).ok());
    EXPECT_THAT(losses, testing::Not(IsEmpty())) << format->name;
    EXPECT_TRUE(format->recognise({reinterpret_cast<const std::uint8_t*>(bytes.data()), kForeignHeadBytes})) << format->name;
    TemporaryTrace back;
    const Imported imported = Import(*format, bytes, back.writer());
    ASSERT_TRUE(imported.status.ok()) << format->name << imported.status;
    EXPECT_THAT(imported.notes, IsEmpty()) << format->name;
    const Holds holds = WhatHolds(format->name);
    const std::vector<Call> expected = CallsOf(program.events(), holds), found = CallsOf(back.Events(), holds);
    ASSERT_EQ(found.size(), expected.size()) << format->name;
    const auto [different, original_call] = std::mismatch(found.begin(), found.end(), expected.begin());
    if (different != found.end()) FAIL() << format->name << ": found " << *different << ", expected " << *original_call;
  }
}

TEST(ConvertRoundTripTest, LossesAreNamed) {
  TemporaryTrace trace;
  trace.writer().Allocate(Op::kPosixMemalign, 100, 64, 0);
  trace.writer().Append({Op::kTrim, 0, 0, 0, 0});
  trace.writer().Append({Op::kMallopt, 0, 0, 3, 4});
  trace.writer().Failure(Op::kMalloc, ~0u, ~std::uint64_t{0}, 0, 0);
  std::vector<std::string> losses;
  const auto reader = trace.Open();
  ASSERT_TRUE(kReplayFormat.write(*reader, [](std::string_view) { return true; }, losses).ok());
  EXPECT_THAT(losses, ElementsAre("1 calls that failed", "1 malloc_trim", "1 mallopt",
                                  "the kind of 1 calls: only malloc, memalign, realloc and free are there"));
}

TEST(ByteReaderTest, GzipAndZstdAreUnpackedMemberAfterMember) {
  // `printf 'one\ntwo\n' | gzip`, twice, and the same with zstd.
  const std::string gzip("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\xcf\x4b\xe5\x2a\x29\xcf\xe7\x02\x00\xe6\x0b\xba\x12\x08\x00\x00\x00", 28);
  const std::string zstd("\x28\xb5\x2f\xfd\x20\x08\x41\x00\x00one\ntwo\n", 17);
  for (const std::string& packed : {gzip + gzip, zstd + zstd}) {
    for (const std::size_t at_once : {std::size_t{1}, std::size_t{1000}}) {
      ByteReader in(FromMemory(packed, at_once));
      std::vector<std::string> lines;
      for (std::string line; in.Line(line);) lines.push_back(line);
      EXPECT_TRUE(in.status().ok()) << in.status();
      EXPECT_THAT(lines, ElementsAre("one", "two", "one", "two"));
    }
  }
}

}  // namespace
}  // namespace heaptape
