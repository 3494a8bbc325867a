// Writes the seeds from which the corpora of the reader's fuzz targets grew: make_seeds FOLDER.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/traces/random_program.h"
#include "traces/checkpoint.h"
#include "traces/codec.h"
#include "traces/format.h"
#include "traces/index.h"
#include "traces/side_records.h"
#include "traces/trace_writer.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

void Save(const std::filesystem::path& folder, const std::string& name, const Bytes& bytes) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / name, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()),
                                                       static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

int main(int argc, char** argv) {
  using namespace heaptape;
  if (argc != 2) return 2;
  const std::filesystem::path folder = argv[1];
  TraceInfo info;
  info.program = "seed";
  info.time_resolution_ns = 1'000'000;
  for (const unsigned count : {10u, 100u, 300u}) {
    TraceWriterOptions options;
    options.window_log = 10;  // small ones make fast targets
    options.block_events = count / 5;
    options.checkpoint_interval_events = count / 4;
    options.checkpoint_limit_events = count / 4;  // however small the trace
    const std::filesystem::path file = folder / "reader" / ("random_" + std::to_string(count));
    std::filesystem::create_directories(file.parent_path());
    std::filesystem::remove(file);
    auto writer = TraceWriter::Create(file.string(), info, options);
    if (!writer.ok()) return 1;
    RandomProgram program(**writer, info.time_resolution_ns, count);
    (*writer)->AddModule({"libc.so.6", "0123"});
    (*writer)->Stack({0, {{0, 100}, {0, 200}}});
    program.Run(count, 0, 12);
    if (!(*writer)->Finish().ok()) return 1;
  }

  EventEncoder encoder;
  Bytes events;
  for (int block = 0; block < 3; ++block) {
    for (int i = 0; i < 40; ++i) {
      const auto slot = encoder.Start(i % 3 ? Op::kMalloc : Op::kMemalign, i % 3 ? 0 : 6, 8u * static_cast<unsigned>(i), 0);
      if (i % 2) encoder.Free(slot, static_cast<std::uint16_t>(i / 20));
      else if (i % 5 == 0) encoder.Reallocate(Op::kRealloc, slot, 1000, 0);
      if (i % 10 == 0) encoder.Mark(2);
    }
    encoder.Free(static_cast<std::uint32_t>(block), 0);
    encoder.Rare({Op::kTrim, 0, 0, 0, 5});
    Bytes raw = encoder.FinishLengths();
    for (unsigned i = 0; i < kColumnCount; ++i) {
      const auto column = encoder.column(i);
      raw.insert(raw.end(), column.begin(), column.end());
    }
    format::PutVarint(events, encoder.event_count());
    format::PutVarint(events, raw.size());
    events.insert(events.end(), raw.begin(), raw.end());
    encoder.NextBlock(false);
  }
  Save(folder / "events", "three_blocks", events);

  Checkpoint checkpoint;
  checkpoint.slot_count = 6;
  checkpoint.objects = {{4, Op::kMalloc, 0, 24, 3}, {0, Op::kMemalign, 6, 100, 8}, {5, Op::kRealloc, 0, 24, 9}};
  checkpoint.free_slots = {1, 3, 2};
  checkpoint.threads = {0, 7};
  Bytes bytes;
  EncodeCheckpoint(checkpoint, bytes);
  Save(folder / "checkpoint", "three_objects", bytes);

  bytes.clear();
  EncodeIndex({TraceEnd::kSizeLimit, {{100, 50}, {3000, 900}}, info}, bytes);
  Save(folder / "index", "index", bytes);
  bytes.clear();
  EncodeInfo(info, bytes);
  Save(folder / "index", "info", bytes);
  SideWriter side;
  side.Add(ResidentSample{5, 6, 4096, 4096, 0, 8192, 0, 0});
  side.Add(TouchRecord{3, TouchRecord::When::kFree, {{0, 4}, {9, 1}}});
  side.Add(0, Module{"tor", "ab"});
  side.Add(StackSample{3, {{0, 10}, {0, 20}}});
  side.Add(StackSample{4, {{0, 10}, {0, 20}}});
  Save(folder / "index", "side", side.bytes());
  Save(folder / "index", "header",
       format::EncodeHeader(format::BlockKind::kEvents, 1, {1, 2, 3, 1, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14}, {}));
  return 0;
}
