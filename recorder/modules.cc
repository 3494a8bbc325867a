#include "recorder/modules.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "recorder/process_info.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kFreshNs = 100'000'000;
constexpr std::uint64_t kPauseNs = 10'000'000;  // between two readings, however many addresses are unknown

}  // namespace

Modules::Modules(int maps) : maps_(maps) {
  Read(0);  // a short program may have ended before its first stack is read
}

Modules::~Modules() {
  if (maps_ >= 0) close(maps_);
}

const Mapping* Modules::Find(const std::vector<Mapping>& mappings, std::uint64_t address) {
  const auto after = std::upper_bound(mappings.begin(), mappings.end(), address,
                                      [](std::uint64_t value, const Mapping& mapping) { return value < mapping.start; });
  if (after == mappings.begin()) return nullptr;
  const Mapping& mapping = *std::prev(after);
  return address < mapping.end ? &mapping : nullptr;
}

void Modules::Read(std::uint64_t now_ns) {
  read_ns_ = now_ns;
  // A process that has ended has no mappings any more; the last ones still tell.
  if (maps_ < 0 || !ReadAll(maps_, buffer_)) return;
  std::vector<Mapping> before = std::exchange(mappings_, ParseSmaps(buffer_));
  // Many readings may find a library gone; only one finds it there.
  for (Mapping& mapping : unloaded_) {
    if (!Find(before, mapping.start)) before.push_back(std::move(mapping));
  }
  std::sort(before.begin(), before.end(), [](const Mapping& a, const Mapping& b) { return a.start < b.start; });
  if (before.size() < 4 * mappings_.size() + 1000) unloaded_ = std::move(before);
}

std::uint32_t Modules::Number(const std::string& path) {
  const auto [place, inserted] = numbers_.try_emplace(path, static_cast<std::uint32_t>(seen_.size()));
  if (inserted) seen_.push_back({path.substr(path.rfind('/') + 1), path[0] == '/' ? BuildId(path) : ""});
  return place->second;
}

std::vector<StackFrame> Modules::Resolve(std::span<const std::uint64_t> addresses, std::uint64_t now_ns) {
  const bool unknown = std::any_of(addresses.begin(), addresses.end(), [this](std::uint64_t address) { return !Find(mappings_, address); });
  const std::uint64_t age = now_ns - read_ns_;
  if (mappings_.empty() || age >= kFreshNs || (unknown && age >= kPauseNs)) Read(now_ns);
  std::vector<StackFrame> frames;
  for (const std::uint64_t address : addresses) {
    const Mapping* mapping = Find(mappings_, address);
    if (!mapping) mapping = Find(unloaded_, address);
    const bool named = mapping && !mapping->name.empty() && mapping->name.rfind("[anon", 0) != 0;
    if (named) {
      frames.push_back({Number(mapping->name), address - mapping->start + mapping->file_offset});
    } else {
      frames.push_back({Number(mapping ? "[anonymous]" : "[unknown]"), 0});
    }
  }
  return frames;
}

}  // namespace heaptape
