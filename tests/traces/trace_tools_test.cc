// What pack, cut, scrub, dump and load rest on, and files that must read back for ever.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "tests/traces/random_program.h"
#include "traces/dump_text.h"
#include "traces/statistics.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"
#include "traces/transcribe.h"

namespace heaptape {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class TraceToolsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "trace_tools_test.XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    TraceInfo info;
    info.program = "a \"story\"\n";
    info.time_resolution_ns = 1'000'000;
    info.cpu_count = 2;
    TraceWriterOptions options;
    options.block_events = 500;
    options.checkpoint_interval_events = 2000;
    auto writer = *TraceWriter::Create(folder_ + "/a.tape", info, options);
    RandomProgram program(*writer, 1'000'000);
    writer->AddModule({"libc.so.6", "0123"});
    writer->Stack({0, {{0, 4711}, {0, 1}}});
    program.Run(20'000, 0, 60);
    events_ = program.events();
    ASSERT_TRUE(writer->Finish().ok());
    reader_ = *TraceReader::Open(folder_ + "/a.tape");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<TraceReader> Copy(const TranscribeOptions& options, const TraceInfo& info) {
    std::filesystem::remove(folder_ + "/copy.tape");
    auto writer = *TraceWriter::Create(folder_ + "/copy.tape", info);
    const absl::Status status = Transcribe(*reader_, *writer, options);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(writer->Finish().ok());
    return *TraceReader::Open(folder_ + "/copy.tape");
  }

  static std::string Dump(TraceReader& reader, DumpFormat format = DumpFormat::kText) {
    std::string text;
    EXPECT_TRUE(DumpTrace(reader, format, [&](std::string_view piece) {
                  text += piece;
                  return true;
                }).ok());
    return text;
  }

  absl::StatusOr<std::unique_ptr<TraceReader>> Load(const std::string& text) {
    std::istringstream in(text);
    std::unique_ptr<TraceWriter> writer;
    const absl::Status status = LoadTrace(
        [&](std::string& line) { return static_cast<bool>(std::getline(in, line)); },
        [&](const TraceInfo& info) -> absl::StatusOr<TraceWriter*> {
          writer = *TraceWriter::Create(folder_ + "/loaded.tape", info, {.replace = true});
          return writer.get();
        });
    if (!status.ok()) {
      std::filesystem::remove(folder_ + "/loaded.tape.part");
      return status;
    }
    EXPECT_TRUE(writer->Finish().ok());
    return TraceReader::Open(folder_ + "/loaded.tape");
  }

  std::string folder_;
  std::vector<Event> events_;
  std::unique_ptr<TraceReader> reader_;
};

TEST_F(TraceToolsTest, ACopyHasTheSameContent) {
  auto copy = Copy({}, reader_->info());
  EXPECT_EQ(copy->summary().digest, reader_->summary().digest);
  EXPECT_LT(copy->summary().file_bytes, reader_->summary().file_bytes);
  EXPECT_EQ(*copy->ReadResident(), *reader_->ReadResident());
  EXPECT_EQ(*copy->ReadTouched(), *reader_->ReadTouched());
  EXPECT_EQ(*copy->ReadStacks(), *reader_->ReadStacks());
  EXPECT_EQ(*copy->ReadModules(), *reader_->ReadModules());
}

TEST_F(TraceToolsTest, ACoarserCopyHasNothingFinerThanItsMarks) {
  TraceInfo info = reader_->info();
  info.time_resolution_ns = 50'000'000;
  auto copy = Copy({}, info);
  std::set<std::uint64_t> marks = {0};  // numbers of the events up to each
  std::uint64_t events = 0;
  for (auto block = copy->Next(); block.ok() && !block->events.empty(); block = copy->Next()) {
    for (const Event& event : block->events) {
      ++events;
      if (event.op != Op::kTime) continue;
      EXPECT_EQ(event.size % info.time_resolution_ns, 0u);
      marks.insert(events);
    }
  }
  EXPECT_GT(marks.size(), 5u);
  const std::vector<ResidentSample> fine = *reader_->ReadResident(), coarse = *copy->ReadResident();
  std::set<std::uint64_t> steps, copied;
  for (const ResidentSample& sample : fine) steps.insert(sample.time_ns / info.time_resolution_ns);
  for (const ResidentSample& sample : coarse) {
    EXPECT_EQ(sample.time_ns % info.time_resolution_ns, 0u);
    EXPECT_TRUE(marks.contains(sample.event_number)) << sample.event_number;
    EXPECT_TRUE(copied.insert(sample.time_ns / info.time_resolution_ns).second) << sample.time_ns;
  }
  EXPECT_LT(steps.size(), fine.size());
  EXPECT_EQ(copied, steps);
}

// Ten in each of three blocks of two events.
TEST_F(TraceToolsTest, UnmatchedFreesGoAlongWithWhatIsCopied) {
  TraceInfo info;
  info.time_resolution_ns = 1;
  auto writer = *TraceWriter::Create(folder_ + "/unmatched.tape", info);
  for (std::uint64_t block = 1; block <= 3; ++block) {
    writer->AddUnmatchedFrees({.unknown = 10, .missed = 1});
    writer->Allocate(Op::kMalloc, 24, 0, 0);
    writer->Time(block * 100);
    ASSERT_TRUE(writer->Flush().ok());
  }
  ASSERT_TRUE(writer->Finish().ok());
  reader_ = *TraceReader::Open(folder_ + "/unmatched.tape");
  const auto frees = [](std::uint64_t unknown, std::uint64_t missed) { return UnmatchedFrees{.unknown = unknown, .missed = missed}; };
  EXPECT_EQ(Copy({}, info)->summary().unmatched_frees, frees(30, 3));
  TranscribeOptions part;
  part.from_ns = 150;  // in the second block
  EXPECT_EQ(Copy(part, info)->summary().unmatched_frees, frees(20, 2));
  part = {};
  part.to_ns = 200;
  EXPECT_EQ(Copy(part, info)->summary().unmatched_frees, frees(20, 2));

  ASSERT_TRUE(reader_->Seek(0).ok());
  const std::string text = Dump(*reader_);
  EXPECT_THAT(text, HasSubstr("\n#unmatched_frees 30 3\n"));
  auto loaded = Load(text);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->summary().unmatched_frees, frees(30, 3));
  EXPECT_EQ(Dump(**loaded), text);
  EXPECT_FALSE(Load("#heaptape dump 1\n#unmatched_frees 30\n").ok());
}

TEST_F(TraceToolsTest, DumpAndLoadGiveTheSameTrace) {
  const std::string text = Dump(*reader_);
  auto loaded = Load(text);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->summary().digest, reader_->summary().digest);
  EXPECT_EQ((*loaded)->info().program, reader_->info().program);
  EXPECT_EQ(*(*loaded)->ReadResident(), *reader_->ReadResident());
  EXPECT_EQ(*(*loaded)->ReadStacks(), *reader_->ReadStacks());
  EXPECT_EQ(*(*loaded)->ReadModules(), *reader_->ReadModules());
  EXPECT_TRUE(Dump(**loaded) == text);  // too long to be shown
}

TEST_F(TraceToolsTest, EventLinesAreAsDocumented) {
  const auto line = [](const Event& event, DumpFormat format = DumpFormat::kText) {
    std::string out;
    AppendEventLine(event, format, out);
    return out;
  };
  EXPECT_EQ(line({Op::kMalloc, 0, 0, 12, 64}), "0 malloc 12 64 0 -\n");
  EXPECT_EQ(line({Op::kRealloc, 0, 3, 12, 128}), "3 realloc 12 128 0 -\n");
  EXPECT_EQ(line({Op::kRealloc, Event::kFresh, 0, 13, 16}), "0 realloc 13 16 0 fresh\n");
  EXPECT_EQ(line({Op::kPosixMemalign, Event::kFailed | 6, 0, ~0u, 4096}), "0 posix_memalign - 4096 64 failed\n");
  EXPECT_EQ(line({Op::kFree, 0, 0, 12, 0}), "0 free 12 0 0 -\n");
  EXPECT_EQ(line({Op::kTime, 0, 0, 0, 1000000}), "- time - 1000000 0 -\n");
  EXPECT_EQ(line({Op::kMemalign, 6, 1, 2, 9}, DumpFormat::kCsv), "1,memalign,2,9,64,-\n");
  EXPECT_EQ(line({Op::kMemalign, 6, 1, 2, 9}, DumpFormat::kJsonLines),
            "{\"event\":\"memalign\",\"thread\":1,\"slot\":2,\"size\":9,\"alignment\":64}\n");
}

TEST_F(TraceToolsTest, BrokenTextIsRefusedWithItsLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"malloc 1\n", "line 1: expected \"#heaptape dump 1\""},
      {"#heaptape dump 1\n0 malloc 0 8 0 -\n0 malloc 0 8 0 -\n", "line 3: the slot holds an object already"},
      {"#heaptape dump 1\n0 free 3 0 0 -\n", "line 2: the slot holds no object"},
      {"#heaptape dump 1\n0 melloc 3 0 0 -\n", "line 2: expected the name of an event"},
      {"#heaptape dump 1\n70000 malloc 3 0 0 -\n", "line 2: a number out of range"},
      {"#heaptape dump 1\n0 malloc 3 0 0 - 7\n", "line 2: more than six fields"},
      {"#heaptape dump 1\n#touched 3 free 9+1 2+1\n", "line 2: expected NUMBER+NUMBER, ascending"},
  };
  for (const auto& [text, message] : cases) {
    const auto loaded = Load(text);
    EXPECT_TRUE(absl::IsInvalidArgument(loaded.status())) << text;
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr(message));
  }
}

TEST_F(TraceToolsTest, ACutBeginsWithWhatIsAliveAndRunsOn) {
  const std::uint64_t half = reader_->summary().duration_ns / 2;
  TranscribeOptions options;
  options.from_ns = half;
  auto cut = Copy(options, reader_->info());
  // What the whole trace does from there on, the cut does too: same sizes in the same order, same objects at the end.
  std::multiset<std::uint64_t> whole_sizes, cut_sizes;
  std::uint64_t copied = 0;
  std::vector<Event> tail;
  bool begun = false;
  for (const Event& event : events_) {
    begun |= event.op == Op::kTime && event.size >= half;
    if (begun) tail.push_back(event);
  }
  std::vector<Event> got;
  while (true) {
    auto block = cut->Next();
    ASSERT_TRUE(block.ok());
    if (block->events.empty()) break;
    got.insert(got.end(), block->events.begin(), block->events.end());
  }
  // The first mark of the tail may fall on the cut itself and then is time 0, which needs no mark.
  ASSERT_GE(got.size() + 1, tail.size());
  copied = std::min(tail.size() - 1, got.size());
  for (std::size_t i = 1; i <= copied; ++i) {
    const Event& a = tail[tail.size() - i];
    const Event& b = got[got.size() - i];
    ASSERT_EQ(a.op, b.op) << i;
    if (a.op == Op::kTime) {
      EXPECT_NEAR(static_cast<double>(a.size - half), static_cast<double>(b.size), 1e6);
    } else {
      ASSERT_EQ(a.size, b.size);
    }
    ASSERT_EQ(a.thread, b.thread);
  }
  EXPECT_TRUE(reader_->Seek(0).ok());
  auto whole_statistics = GatherStatistics(*reader_);
  ASSERT_TRUE(cut->Seek(0).ok());
  auto cut_statistics = GatherStatistics(*cut);
  ASSERT_TRUE(whole_statistics.ok() && cut_statistics.ok());
  EXPECT_EQ(cut_statistics->never_freed_bytes, whole_statistics->never_freed_bytes);
  EXPECT_EQ(cut_statistics->never_freed_objects, whole_statistics->never_freed_objects);
  EXPECT_NEAR(static_cast<double>(cut->summary().duration_ns),
              static_cast<double>(reader_->summary().duration_ns - half), 1e6);
  // Touched pages follow their objects: each belongs to one of 64 KiB or more.
  std::map<std::uint64_t, std::uint64_t> size_of;
  std::uint64_t number = 0;
  for (const Event& event : got)
    if (StartsObject(event)) size_of[number++] = event.size;
  const auto touched = cut->ReadTouched();
  ASSERT_TRUE(touched.ok());
  EXPECT_THAT(*touched, testing::Not(IsEmpty()));
  for (const TouchRecord& record : *touched) EXPECT_TRUE(size_of.contains(record.object)) << record.object;
}

TEST_F(TraceToolsTest, AnEndIsKept) {
  TranscribeOptions options;
  options.to_ns = reader_->summary().duration_ns / 3;
  auto cut = Copy(options, reader_->info());
  EXPECT_LT(cut->summary().duration_ns, options.to_ns);
  EXPECT_GT(cut->summary().event_count, 1000u);
  EXPECT_TRUE(cut->summary().complete);
}

// --- files of this version, which must read back for ever ---

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

class JoinTest : public TraceToolsTest {
 protected:
  // A segment from what dump prints.
  std::unique_ptr<TraceReader> Segment(const std::string& text) {
    auto loaded = Load("#heaptape dump 1\n" + text);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *std::move(loaded) : nullptr;
  }
  absl::StatusOr<std::unique_ptr<TraceReader>> Join(const std::vector<TraceReader*>& segments) {
    std::filesystem::remove(folder_ + "/joined.tape");
    std::filesystem::remove(folder_ + "/joined.tape.part");
    auto writer = *TraceWriter::Create(folder_ + "/joined.tape", segments[0]->info());
    if (const absl::Status status = heaptape::Join(segments, *writer, {}, &joined_); !status.ok()) return status;
    EXPECT_TRUE(writer->Finish().ok());
    return TraceReader::Open(folder_ + "/joined.tape");
  }

  std::size_t joined_ = 0;
};

TEST_F(JoinTest, SegmentsOfATraceBecomeTheTraceAgain) {
  std::vector<std::uint64_t> marks;
  for (const Event& event : events_)
    if (event.op == Op::kTime) marks.push_back(event.size);
  std::vector<std::unique_ptr<TraceReader>> segments;
  std::vector<TraceReader*> readers;
  const std::vector<std::uint64_t> bounds = {0, marks[marks.size() / 5], marks[marks.size() / 2], marks[marks.size() - 9], ~std::uint64_t{0}};
  for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
    TraceInfo info = reader_->info();
    TranscribeOptions options;
    options.from_ns = info.segment_start_ns = bounds[i];
    options.to_ns = bounds[i + 1];
    segments.push_back(Copy(options, info));
    readers.push_back(segments.back().get());
  }
  auto whole = Join(readers);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ((*whole)->summary().event_digest, reader_->summary().event_digest);
  EXPECT_EQ((*whole)->summary().object_count, reader_->summary().object_count);
  EXPECT_EQ((*whole)->summary().duration_ns, reader_->summary().duration_ns);
  EXPECT_EQ(*(*whole)->ReadResident(), *reader_->ReadResident());
  EXPECT_EQ(*(*whole)->ReadModules(), *reader_->ReadModules());

  // Without the one in the middle nothing fits.
  EXPECT_TRUE(absl::IsFailedPrecondition(Join({readers[0], readers[2]}).status()));
  EXPECT_EQ(joined_, 1u);
  // Without the first it begins with what was alive.
  auto rest = Join({readers[1], readers[2], readers[3]});
  ASSERT_TRUE(rest.ok()) << rest.status();
  EXPECT_EQ((*rest)->summary().duration_ns, reader_->summary().duration_ns - bounds[1]);
  EXPECT_EQ((*rest)->info().segment_start_ns, bounds[1]);
}

// Slots and numbers of objects, stacks and modules are each segment's own; the look that ends a segment tells nothing when
// the block goes on living.
TEST_F(JoinTest, WhatLiesBesideTheEventsFollowsItsObjects) {
  auto first = Segment(
      "#unmatched_frees 2 3\n0 malloc 0 100000 0 -\n#touched 0 allocation 0+1\n0 malloc 1 8 0 -\n#module aa liba.so\n#stack 1 0+16\n"
      "1 thread_start - 0 0 -\n0 thread_end - 0 0 -\n1 malloc 2 70000 0 -\n1 malloc 3 80000 64 -\n"
      "- time - 5 0 -\n1 free 1 0 0 -\n1 free 2 0 0 -\n#touched 2 free 0+2\n"
      "#touched 0 free 0+5\n#touched 3 free 0+6\n");
  auto second = Segment(
      "#info segment_start_ns 10\n#unmatched_frees 3 4\n"
      "1 thread_start - 0 0 -\n0 thread_end - 0 0 -\n1 malloc 0 100000 0 -\n1 malloc 1 80000 64 -\n"
      "1 malloc 2 9 0 -\n#module bb libb.so\n#module aa liba.so\n#stack 2 1+32\n- time - 3 0 -\n#resident 3 5 8192 8192 0 8192 0 0\n"
      "1 free 0 0 0 -\n#touched 0 free 0+7\n1 realloc 1 90000 0 -\n#touched 1 free 0+8\n#touched 1 allocation 0+9\n");
  ASSERT_TRUE(first && second);
  auto whole = Join({first.get(), second.get()});
  ASSERT_TRUE(whole.ok()) << whole.status();
  std::string text = Dump(**whole);
  const auto has = [&text](const std::string& line) { return text.find(line + "\n") != std::string::npos; };
  EXPECT_TRUE(has("1 malloc 2 9 0 -")) << text;  // the slot that was freed last
  EXPECT_TRUE(has("- time - 10 0 -"));  // where the segment begins
  EXPECT_TRUE(has("- time - 13 0 -"));
  EXPECT_TRUE(has("1 free 0 0 0 -"));
  EXPECT_TRUE(has("1 realloc 3 90000 0 -"));
  EXPECT_EQ((*whole)->summary().event_count, first->summary().event_count + 5);
  using When = TouchRecord::When;
  EXPECT_THAT(*(*whole)->ReadTouched(),
              testing::UnorderedElementsAre(TouchRecord{0, When::kAllocation, {{0, 1}}}, TouchRecord{2, When::kFree, {{0, 2}}},
                                            TouchRecord{0, When::kFree, {{0, 7}}}, TouchRecord{3, When::kFree, {{0, 8}}},
                                            TouchRecord{3, When::kAllocation, {{0, 9}}}));
  EXPECT_THAT(*(*whole)->ReadModules(), testing::ElementsAre(Module{"liba.so", "aa"}, Module{"libb.so", "bb"}));
  EXPECT_THAT(*(*whole)->ReadStacks(), testing::ElementsAre(StackSample{1, {{0, 16}}}, StackSample{4, {{0, 32}}}));
  EXPECT_EQ((*whole)->summary().unmatched_frees, (UnmatchedFrees{.unknown = 5, .missed = 7}));
  ASSERT_EQ((*whole)->ReadResident()->size(), 1u);
  EXPECT_EQ((*whole)->ReadResident()->front().time_ns, 13u);
  EXPECT_EQ((*whole)->ReadResident()->front().event_number, first->summary().event_count + 3);  // up to its mark
}

TEST_F(JoinTest, ASegmentThatBeginsOtherwiseIsRefused) {
  const auto begins = [this](const std::string& text) {
    auto first = Segment("1 thread_start - 0 0 -\n0 malloc 0 24 0 -\n0 calloc 1 32 0 -\n");
    auto second = Segment("#info segment_start_ns 10\n" + text);
    return first && second ? Join({first.get(), second.get()}).status() : absl::InternalError("no segment");
  };
  EXPECT_TRUE(begins("1 thread_start - 0 0 -\n0 malloc 0 24 0 -\n0 calloc 1 32 0 -\n").ok());
  for (const char* other : {
           "1 thread_start - 0 0 -\n0 malloc 0 24 0 -\n",                                     // an object is missing
           "1 thread_start - 0 0 -\n0 malloc 0 24 0 -\n0 free 0 0 0 -\n0 calloc 0 32 0 -\n",  // it goes on too early
           "1 thread_start - 0 0 -\n0 malloc 0 24 0 -\n0 calloc 1 33 0 -\n",                  // another size
           "1 thread_start - 0 0 -\n0 malloc 0 24 0 -\n0 malloc 1 32 0 -\n",                  // another call
           "2 thread_start - 0 0 -\n0 malloc 0 24 0 -\n0 calloc 1 32 0 -\n",                  // another thread
           "0 malloc 0 24 0 -\n0 calloc 1 32 0 -\n0 free 1 0 0 -\n"}) {                        // one thread too few
    EXPECT_TRUE(absl::IsFailedPrecondition(begins(other))) << other << begins(other);
  }
}

TEST(GoldenTraceTest, EveryGoldenFileReadsBackByteForByte) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(HEAPTAPE_GOLDEN_DIR)) {
    if (entry.path().extension() != ".tape") continue;
    ++count;
    auto reader = TraceReader::Open(entry.path().string());
    ASSERT_TRUE(reader.ok()) << reader.status();
    std::string text;
    ASSERT_TRUE(DumpTrace(**reader, DumpFormat::kText, [&](std::string_view piece) {
                  text += piece;
                  return true;
                }).ok());
    text += "#digest " + (*reader)->summary().digest + "\n";
    EXPECT_EQ(text, ReadText(std::filesystem::path(entry.path()).replace_extension(".dump"))) << entry.path();
  }
  EXPECT_GE(count, 3u);
}

// FORMAT.md's example: the first code block is the file in hex, the second what it says.
TEST(GoldenTraceTest, TheExampleOfTheFormatIsRight) {
  const std::string format = ReadText(HEAPTAPE_FORMAT_MD);
  const std::size_t example = format.find("\n## Example\n");
  ASSERT_NE(example, std::string::npos);
  std::vector<std::string> blocks;
  for (std::size_t at = format.find("\n```\n", example); at != std::string::npos && blocks.size() < 2;) {
    const std::size_t end = format.find("\n```\n", at + 5);
    ASSERT_NE(end, std::string::npos);
    blocks.push_back(format.substr(at + 5, end + 1 - at - 5));
    at = format.find("\n```\n", end + 5);
  }
  ASSERT_EQ(blocks.size(), 2u);
  std::vector<std::uint8_t> bytes;
  std::istringstream lines(blocks[0]);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line.substr(0, line.find("  ")));
    for (std::string word; words >> word;) bytes.push_back(static_cast<std::uint8_t>(std::stoul(word, nullptr, 16)));
  }
  auto reader = TraceReader::OpenBuffer(bytes, "example");
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT((*reader)->damage(), IsEmpty());
  EXPECT_TRUE((*reader)->summary().complete);
  std::string text;
  ASSERT_TRUE(DumpTrace(**reader, DumpFormat::kText, [&](std::string_view piece) {
                text += piece;
                return true;
              }).ok());
  EXPECT_EQ(text, blocks[1]);
}

}  // namespace
}  // namespace heaptape
