// Any bytes as a trace file: opened, its side records read, decoded to the end, entered in the middle.
//
// Checksums would stop a fuzzer at the door, so they are set right first wherever a block can be seen.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "tests/fuzz/fix_checksums.h"
#include "traces/trace_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::uint8_t> bytes(data, data + size);
  heaptape::FixChecksums(bytes);
  auto reader = heaptape::TraceReader::OpenBuffer(bytes, "fuzz");
  if (!reader.ok()) return 0;
  (void)(*reader)->ReadResident();
  (void)(*reader)->ReadTouched();
  (void)(*reader)->ReadStacks();
  (void)(*reader)->ReadModules();
  // Consumers rely on this: only what is live is freed or reallocated, only free slots are taken.
  std::vector<bool> live;
  const auto follow = [&live](const heaptape::Event& event) {
    if (live.size() <= event.slot && event.slot < (1u << 28)) live.resize(event.slot + 1u);
    const bool moves =
        (event.op == heaptape::Op::kRealloc || event.op == heaptape::Op::kReallocArray) && !event.fresh() && !event.failed();
    if (heaptape::StartsObject(event)) {
      if (live.at(event.slot)) std::abort();
      live[event.slot] = true;
    } else if (event.op == heaptape::Op::kFree || moves) {
      if (!live.at(event.slot)) std::abort();
      if (!moves) live[event.slot] = false;
    }
  };
  for (const std::uint64_t start : {std::uint64_t{0}, (*reader)->summary().event_count / 2}) {
    if (!(*reader)->Seek(start).ok()) return 0;
    live.clear();
    while (true) {
      auto block = (*reader)->Next();
      if (!block.ok() || block->events.empty()) break;
      if (block->restored && block->object_numbers.size() != block->events.size() &&
          block->events[0].op != heaptape::Op::kLost)
        std::abort();
      for (const heaptape::Event& event : block->events) follow(event);
    }
  }
  return 0;
}
