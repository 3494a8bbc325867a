#include "traces/convert/formats.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace heaptape {

std::span<const ForeignFormat* const> ForeignFormats() {
  static constexpr const ForeignFormat* kFormats[] = {&kHeaptrackFormat, &kGlibcFormat, &kAndroidFormat, &kReplayFormat};
  return kFormats;
}

const ForeignFormat* FindForeignFormat(std::string_view name) {
  for (const ForeignFormat* format : ForeignFormats())
    if (name == format->name) return format;
  return nullptr;
}

absl::Status ForEachEvent(TraceReader& reader, const std::function<bool(const Event&)>& take,
                          std::vector<std::string>& losses) {
  std::array<std::uint64_t, kOpCount> left_out{};
  std::uint64_t failures = 0;
  while (true) {
    auto block = reader.Next();
    if (!block.ok()) return block.status();
    if (block->events.empty()) break;
    for (const Event& event : block->events) {
      if (take(event)) continue;
      if (event.failed()) ++failures;
      else ++left_out[static_cast<unsigned>(event.op)];
    }
  }
  if (failures != 0) losses.push_back(absl::StrCat(failures, " calls that failed"));
  for (unsigned op = 0; op < kOpCount; ++op)
    if (left_out[op] != 0) losses.push_back(absl::StrCat(left_out[op], " ", OpName(static_cast<Op>(op))));
  return absl::OkStatus();
}

}  // namespace heaptape
