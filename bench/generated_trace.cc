#include "bench/generated_trace.h"

#include <array>
#include <vector>

#include "traces/trace_writer.h"

namespace heaptape {

absl::Status WriteGeneratedTrace(const std::string& path, std::uint64_t event_count, std::uint64_t live_objects) {
  TraceInfo info;
  info.program = "generated";
  info.cpu_count = 2;
  absl::StatusOr<std::unique_ptr<TraceWriter>> created = TraceWriter::Create(path, info, {.replace = true});
  if (!created.ok()) return created.status();
  TraceWriter& writer = **created;

  // Sizes as relays ask for them: mostly tiny, seldom a page or more.
  constexpr std::array<std::uint32_t, 16> kSizes = {16, 16, 16, 24, 32, 32, 48, 64, 64, 96, 128, 200, 256, 514, 1024, 4096};
  std::uint64_t state = 42;
  const auto random = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  };
  std::vector<std::uint32_t> live;
  live.reserve(live_objects + 1);
  for (std::uint64_t i = 0; i < event_count; ++i) {
    const std::uint64_t chance = random();
    if (live.size() < live_objects / 2 || (live.size() < live_objects && (chance & 1))) {
      live.push_back(writer.Allocate(Op::kMalloc, kSizes[(chance >> 8) % kSizes.size()], 0, 0));
    } else {
      // Mostly the young die, as in most programs.
      const std::uint64_t back = (chance >> 4) % 8 != 0 ? (chance >> 16) % 16 : (chance >> 16) % live.size();
      const std::size_t victim = live.size() - 1 - back;
      writer.Free(live[victim], 0);
      live[victim] = live.back();
      live.pop_back();
    }
    if (i % 1000 == 999) writer.Time((i + 1) * 1000);
  }
  return writer.Finish();
}

}  // namespace heaptape
