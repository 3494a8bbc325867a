// Any bytes as what a hostile program writes into the memory that it shares with its writer, between the writer's steps.
//
// The input is a list of records of 12 bytes: what is done, where, and a value. The writer's side must stay within its
// bounds and end every step; what it makes of the events is checked nowhere.

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "recorder/modules.h"
#include "recorder/process_memory.h"
#include "recorder/raw_event.h"
#include "recorder/recording.h"
#include "recorder/writer/pool.h"

namespace heaptape {
namespace {

class NoFiles final : public RecordingFiles {
 public:
  NoFiles() : RecordingFiles("none") {}
  absl::StatusOr<int> Open(const FileName&) override { return open("/dev/null", O_WRONLY | O_CLOEXEC); }
  absl::Status Finish(const FileName&, const FileName&) override { return absl::OkStatus(); }
  void Discard(const FileName&) override {}
  void Remove(const FileName&) override {}
  std::uint64_t DiskFree() const override { return ~std::uint64_t{0}; }
  absl::StatusOr<std::unique_ptr<RecordingFiles>> ForChild() override { return std::make_unique<NoFiles>(); }
};

Region region;

struct Record {
  std::uint8_t kind;
  std::uint8_t chunk;
  std::uint16_t place;
  std::uint64_t value;
};

// Few chunks and slots, so that what is written meets what is read.
void Write(const Record& record, std::vector<RawEvent*>& written) {
  ChunkHeader& header = region.headers[record.chunk % 8];
  const auto low = static_cast<std::uint32_t>(record.value);
  switch (record.kind % 12) {
    case 0: header.state.store(static_cast<ChunkState>(low)); break;
    case 1: header.thread = low; break;
    case 2: header.tid = static_cast<std::int32_t>(low); break;
    case 3: header.next_free.store(low); break;
    case 4: region.unused.store(low); break;
    case 5: region.free_list.store(record.value); break;
    case 6: {
      PageProbe& probe = region.probes[record.chunk % kProbeCount];
      probe.state.store(ProbeState(record.place % 16, static_cast<ProbePhase>(record.chunk % 8)));
      probe.address.store(record.value);
      probe.bytes.store(record.value >> (record.place % 64));
      region.probes_asked.fetch_add(1);
      break;
    }
    case 7: region.probe_tickets.store(record.value); break;
    case 8: {
      RawEvent& event = region.events[record.chunk % 8][record.place % kChunkEvents];
      event.first = record.value;
      written.push_back(&event);
      break;
    }
    case 9: {
      RawEvent& event = region.events[record.chunk % 8][record.place % kChunkEvents];
      event.second = record.value;
      written.push_back(&event);
      break;
    }
    default: {
      // An event as a preload would write it, with a number that may be the next.
      RawEvent& event = region.events[record.chunk % 8][record.place % 16];
      event = RawEvent::Make(static_cast<RawOp>(record.value % 24), record.value >> 40, record.value >> 8 & 0xffffff, record.place / 16);
      written.push_back(&event);
    }
  }
}

void Step(const Record& record, Pool& pool, Recording& recording) {
  switch (record.kind % 8) {
    case 0:
    case 1:
    case 2: pool.Poll(record.kind % 2); break;
    case 3: recording.SkipGap(); break;
    case 4: pool.ForgetProbes(); break;
    case 5: recording.Mark(static_cast<std::uint32_t>(record.value), record.value >> 32); break;
    case 6:
      for (const std::uint32_t serial : pool.Reclaim([&record](std::int32_t tid) { return (tid ^ record.place) % 2 == 0; })) {
        recording.ThreadGone(serial);
      }
      break;
    default: pool.ServeProbes();
  }
  recording.Drain();
}

}  // namespace
}  // namespace heaptape

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace heaptape;
  // Asking the kernel for pages takes longer than all else, so few inputs do.
  static ProcessMemory seeing(OpenProcessFiles(getpid()));
  static ProcessMemory blind{ProcessFiles()};
  ProcessMemory& memory = size % 16 == 0 ? seeing : blind;
  static Modules modules(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  constexpr std::size_t kRecordBytes = 12;
  std::vector<RawEvent*> written;
  {
    PrepareRegion(&region);
    auto recording = Recording::Create({.info = {.program = "fuzz"}, .compression_level = -7, .order_capacity = 64}, std::make_shared<NoFiles>());
    if (!recording.ok()) std::abort();
    (*recording)->set_big_filter(region.big_filter);
    (*recording)->set_modules(&modules.seen());
    Pool pool(&region, &memory, &modules, recording->get());
    for (; size >= kRecordBytes; data += kRecordBytes, size -= kRecordBytes) {
      Record record;
      record.kind = data[0];
      record.chunk = data[1];
      std::memcpy(&record.place, data + 2, 2);
      std::memcpy(&record.value, data + 4, 8);
      if (record.kind < 160) Write(record, written);
      else Step(record, pool, **recording);
    }
    pool.Poll(true);
    (*recording)->SkipGap();
    (*recording)->Drain();
    if (!(*recording)->Finish().ok()) std::abort();
  }
  for (RawEvent* event : written) *event = {0, 0};
  std::memset(static_cast<void*>(&region), 0, offsetof(Region, events));
  return 0;
}
